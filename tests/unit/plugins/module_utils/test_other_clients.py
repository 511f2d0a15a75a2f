# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files for BuildKit and for podman's family."""

from __future__ import annotations

import sys

import pytest
from ansible_collections.homelab.registry.plugins.module_utils.nodes.other_clients import (
    buildkitd_toml,
    registries_conf,
)

UPSTREAMS = ["docker.io", "quay.io", "nas.lan:5000"]


def toml(text):
    if sys.version_info < (3, 11):
        pytest.skip("this Python has no tomllib")
    import tomllib

    return tomllib.loads(text)


def test_a_builder_asks_us_first_and_trusts_us():
    data = toml(buildkitd_toml("reg:5000", "https", UPSTREAMS, "/ca.crt"))["registry"]
    assert data["docker.io"] == {"mirrors": ["reg:5000"]}
    assert data["quay.io"] == {"mirrors": ["reg:5000/quay.io"]}
    assert data["nas.lan:5000"] == {"mirrors": ["reg:5000/nas.lan_5000"]}
    assert data["reg:5000"] == {"ca": ["/ca.crt"]}


def test_a_builder_and_plain_http():
    assert toml(buildkitd_toml("reg:5000", "http", []))["registry"] == {"reg:5000": {"http": True}}


def test_a_builder_without_a_mirror():
    assert list(toml(buildkitd_toml("reg:5000", "https", UPSTREAMS, mirror=False))["registry"]) == ["reg:5000"]


@pytest.mark.parametrize(("scheme", "insecure"), [("http", True), ("https", False)])
def test_podman_asks_us_first(scheme, insecure):
    entries = toml(registries_conf("reg:5000", scheme, UPSTREAMS))["registry"]
    assert [entry["location"] for entry in entries] == [*UPSTREAMS, "reg:5000"]
    mirrors = [entry["mirror"][0] for entry in entries[:-1]]
    assert [one["location"] for one in mirrors] == ["reg:5000", "reg:5000/quay.io", "reg:5000/nas.lan_5000"]
    assert all(one.get("insecure", False) is insecure for one in [*mirrors, entries[-1]])
