# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names in the mirror: where clients look, what would collide, what no registry takes."""

from __future__ import annotations

import itertools

import pytest
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.mirroring.names import (
    collisions,
    target_repositories,
)
from ansible_collections.homelab.registry.plugins.module_utils.nodes.registries_yaml import endpoint_fault
from ansible_collections.homelab.registry.plugins.module_utils.oci.reference import (
    parse_reference,
    registry_path,
    repository_fault,
)

DIGEST = "sha256:" + "a1" * 32


@pytest.mark.parametrize(
    ("image", "alias", "targets"),
    [
        ("node:20", True, ["library/node", "node"]),
        ("node:20", False, ["library/node"]),
        ("bitnami/redis", True, ["bitnami/redis"]),
        ("library/a/b", True, ["library/a/b"]),
        ("quay.io/prometheus/prometheus:v3", True, ["quay.io/prometheus/prometheus"]),
        ("quay.io/app", True, ["quay.io/app"]),
        ("quay.io/library/node", True, ["quay.io/library/node"]),
        ("localhost/app", True, ["localhost/app"]),
        ("nas:5000/app", True, ["nas_5000/app"]),
        ("NAS.lan:5000/team/app", True, ["nas.lan_5000/team/app"]),
        ("192.168.1.5:5000/app", True, ["192.168.1.5_5000/app"]),
        ("[fd00::1]:5000/app", True, ["fd00_0_0_0_0_0_0_1_5000/app"]),
        ("[fd00::1]/app", True, ["fd00_0_0_0_0_0_0_1/app"]),
        ("xn--nas-xka.example/app", True, ["xn--nas-xka.example/app"]),
    ],
)
def test_targets(image, alias, targets):
    assert target_repositories(parse_reference(image), alias=alias) == targets
    assert [repository_fault(target) for target in targets] == [None] * len(targets)


REGISTRIES = ["quay.io", "nas", "nas:5000", "nas:50001", "nas.lan", "nas.lan:5000", "nas-1.lan", "localhost:80"]
REGISTRIES += ["192.168.1.5", "192.168.1.5:5000", "[fd00::1]", "[fd00::1]:5000", "[fd00::5000]", "[fd00::1:5000]"]


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(REGISTRIES, 2)))
def test_no_two_registries_share_a_path(one, other):
    assert registry_path(one) != registry_path(other)


@pytest.mark.parametrize("registry", REGISTRIES)
def test_a_registrys_path_fits_into_an_endpoint(registry):
    path = registry_path(registry)
    assert repository_fault(path) is None
    assert endpoint_fault(f"http://mirror:5000/v2/{path}") is None


@pytest.mark.parametrize(
    "image", ["quay.io/x", "localhost/x", "nas_5000/x", "fd00_0_0_0_0_0_0_1/x", "nas.lan_5000/a/x"]
)
def test_a_hub_repository_where_another_upstream_lies(image):
    with pytest.raises(HomelabError, match="would lie in the mirror where the images of the registry"):
        target_repositories(parse_reference(f"docker.io/{image}"))


@pytest.mark.parametrize("image", ["my_team/x", "rancher/k3s", "abc123/x", "fd00/x", "quay-io/x", "quay.io"])
def test_a_hub_repository_that_only_resembles_one(image):
    assert target_repositories(parse_reference(f"docker.io/{image}"))


@pytest.mark.parametrize(
    ("template", "image", "target"),
    [
        ("mirror/{registry}/{repository}", "node", "mirror/docker.io/library/node"),
        ("mirror/{registry}/{repository}", "nas:5000/a/b", "mirror/nas_5000/a/b"),
        ("{namespace}-{name}", "bitnami/redis", "bitnami-redis"),
        ("{namespace}/{name}", "quay.io/a/b/c", "a/b/c"),
        ("{name}", "quay.io/a/b/c", "c"),
        ("fixed", "node", "fixed"),
        ("{registry}/{repository}", "docker.io/quay.io/x", "docker.io/quay.io/x"),
    ],
)
def test_templates(template, image, target):
    assert target_repositories(parse_reference(image), template) == [target]


@pytest.mark.parametrize(
    ("template", "image", "said"),
    [
        (
            "{repo}",
            "node",
            r"unknown field \{repo\}: its fields are \{registry\}, \{repository\}, \{namespace\}, \{name\}",
        ),
        ("{}", "node", r"unknown field \{\}"),
        ("{name.upper}", "node", r"unknown field \{name.upper\}"),
        ("{name", "node", "brace out of place"),
        ("name}", "node", "brace out of place"),
        ("{name!r}", "node", r"conversion or format in \{name\}"),
        ("{name:>20}", "node", r"conversion or format in \{name\}"),
        ("Mirror/{name}", "node", "'Mirror/node', which is no repository name: 'Mirror' has upper case"),
        ("{namespace}/{name}", "quay.io/app", "empty part"),
        ("{name}:20", "node", "has the character ':'"),
        ("", "node", "empty part"),
        ("x" * 256, "node", "256 characters, 255 are allowed"),
    ],
)
def test_templates_that_are_refused(template, image, said):
    with pytest.raises(HomelabError, match=said):
        target_repositories(parse_reference(image), template)


@pytest.mark.parametrize(
    ("images", "template", "said"),
    [
        (["node:20", "node:22", "quay.io/node:20", "bitnami/node:20"], None, []),
        (["node:20", "node:20"], None, []),
        (["node", "node:latest"], None, []),
        (["a/app:1", "b/app:1"], "{name}", ["a/app:1 and b/app:1 would both be app:1 in the mirror"]),
        (["a/app:1", "b/app:2"], "{name}", []),
        ([f"a/app@{DIGEST}", f"b/app@{DIGEST}"], "{name}", []),
        (
            ["node:20", f"node:20@{DIGEST}"],
            "{repository}",
            [f"node:20 and node:20@{DIGEST} would both be library/node:20 in the mirror"],
        ),
    ],
)
def test_collisions(images, template, said):
    references = [parse_reference(image) for image in images]
    pairs = [(reference, target_repositories(reference, template, alias=False)) for reference in references]
    assert collisions(pairs) == said


def test_a_short_name_collides_too():
    pairs = [(parse_reference("node:20"), ["library/node", "node"]), (parse_reference("a/node:20"), ["node"])]
    assert collisions(pairs) == ["node:20 and a/node:20 would both be node:20 in the mirror"]
