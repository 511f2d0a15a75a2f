# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A clean-up on the registry host: what its report makes of the maintenance. With real registries it is run in
tests/integration/test_cleanup.py."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.mirroring.state import State
from ansible_collections.homelab.registry.plugins.module_utils.retention import run
from ansible_collections.homelab.registry.plugins.module_utils.storage.maintenance import (
    CollectReport,
    Interrupted,
    Recovery,
)
from ansible_collections.homelab.registry.tests.unit.fake_registry import FakeRegistry


@pytest.fixture
def clean(monkeypatch, tmp_path):
    """A clean-up of an empty registry. Gives the report, and in which order things were done."""

    def go(found=None, *, check=False, left=None):
        order = []

        def recover(*_arguments):
            order.append("recover")
            return left

        def server(*_arguments):
            order.append("server")
            return SimpleNamespace(root=None)

        def collect(*_arguments, check, **_more):
            order.append("collect")
            if isinstance(found, Exception):
                raise found
            return found or CollectReport(check=check)

        for name, double in (("recover", recover), ("Server", server), ("collect", collect)):
            monkeypatch.setattr(run, name, double)
        with FakeRegistry() as fake:
            request = run.prepare({"url": fake.url, "host": {"container": "registry"}, "state_dir": str(tmp_path)})
            return request.run(check=check), order

    return go


REPORTS = {
    # found, check -> changed, part of the trouble, interrupted
    "nothing": (None, False, False, None, False),
    "garbage": (CollectReport(blobs=1), False, True, None, False),
    "garbage that would go": (CollectReport(check=True, blobs=1), True, True, None, False),
    "a refusal": (CollectReport(check=True, refusals=["no"]), True, False, "would not be collected: no", False),
    "a failure": (HomelabError("the disk is full"), False, False, "the disk is full", False),
    "a signal": (Interrupted("ended by SIGTERM"), False, False, "ended by SIGTERM", True),
}


@pytest.mark.parametrize(("found", "check", "changed", "trouble", "interrupted"), REPORTS.values(), ids=REPORTS)
def test_what_the_collection_means_for_the_run(clean, found, check, changed, trouble, interrupted):
    report, _order = clean(found, check=check)
    assert (report.changed, report.interrupted) == (changed, interrupted)
    assert (report.trouble is None) if trouble is None else (trouble in report.trouble)


def test_images_by_digest_are_kept_wherever_mirroring_remembers_them(tmp_path):
    digest = f"sha256:{'a' * 64}"
    state = State(tmp_path / "elsewhere.json", "registry:5000")
    state.pinned("app", digest, f"docker.io/app@{digest}")
    state.save()
    settings = {"url": "http://registry:5000", "state_dir": str(tmp_path / "state")}
    assert run.prepare(settings).policy.mirrored == frozenset()
    assert run.prepare({**settings, "state_path": str(state.path)}).policy.mirrored == {digest}


def test_a_registry_that_was_left_stopped_is_brought_back_before_it_is_looked_at(clean):
    report, order = clean(left=Recovery("sweeping"))
    assert order == ["recover", "server", "collect"]
    assert report.changed
    assert "a maintenance was cut off (sweeping); the registry takes writes again" in report.notes
    _report, order = clean(check=True)
    assert "recover" not in order
