# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""registryctl gc and recover where there is no registry to touch, and a collection in words; the rest is in
tests/integration/test_gc.py."""

from __future__ import annotations

import json
import os

import pytest
from ansible_collections.homelab.registry.plugins.module_utils import cli, lock
from ansible_collections.homelab.registry.plugins.module_utils.ctl import gc
from ansible_collections.homelab.registry.plugins.module_utils.report.gc import gc_summary
from ansible_collections.homelab.registry.plugins.module_utils.storage.garbage import write_marker
from ansible_collections.homelab.registry.plugins.module_utils.storage.maintenance import (
    MARKER,
    CollectReport,
    Recovery,
)
from ansible_collections.homelab.registry.plugins.module_utils.storage.server import KEPT


@pytest.fixture
def run(tmp_path, capsys):
    (tmp_path / "config").mkdir()

    def run(verb, *more, **settings):
        usual = {
            "registry": {"url": "http://127.0.0.1:1"},
            "host": {"docker_host": f"unix://{tmp_path}/none.sock", "config_path": str(tmp_path / "config")},
            "state_dir": str(tmp_path / "state"),
        }
        path = tmp_path / "registryctl.json"
        path.write_text(json.dumps({**usual, **settings}), encoding="utf-8")
        code = cli.main([verb, "--config", str(path), *more])
        return code, capsys.readouterr()

    return run


def test_recover_is_quiet_without_a_maintenance_and_without_an_engine(run):
    assert run("recover") == (0, ("", ""))
    assert run("recover", registry={}) == (0, ("", ""))


@pytest.mark.parametrize("left", ["marker", "configuration"])
def test_recover_needs_the_engine_where_something_was_left(run, tmp_path, left):
    if left == "marker":
        write_marker(tmp_path / "state" / MARKER, "sweeping")
    else:
        (tmp_path / "config" / f"config.yml{KEPT}").write_text("")
    code, out = run("recover")
    assert code == 2
    assert "no Docker engine answers" in out.err


def test_errors_are_told_and_kept(run, tmp_path):
    code, out = run("gc")
    assert code == 2
    assert "no Docker engine answers" in out.err
    assert "no Docker engine answers" in json.loads((tmp_path / "state" / "gc.json").read_text())["error"]
    code, out = run("gc", registry={})
    assert (code, out.err[:62]) == (2, "registryctl: the registry's address is not set (registry.url):")
    code, out = run("gc", host={"contaner": "registry"})
    assert code == 2
    assert "unknown setting 'contaner'" in out.err


@pytest.mark.parametrize(("verb", "exclusive"), [("gc", False), ("gc", True), ("recover", True)])
def test_somebody_else_s_turn(run, tmp_path, verb, exclusive):
    with lock.hold(tmp_path / "state" / "lock", exclusive=exclusive, verb="registryctl mirror"):
        code, out = run(verb)
    assert code == 75
    assert "another run is under way on this registry: registryctl mirror, process" in out.err
    assert not (tmp_path / "state" / "gc.json").exists()


def test_a_mirror_run_does_not_keep_a_registry_read_only(run, tmp_path):
    with lock.hold(tmp_path / "state" / "lock", exclusive=False, verb="registryctl mirror"):
        assert run("recover")[0] == 0


def test_a_run_that_is_killed_leaves_no_result_of_another(run, tmp_path, monkeypatch):
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "gc.json").write_text('{"error": "of last week"}')
    monkeypatch.setattr(gc, "collect", lambda **_settings: os._exit(9))
    child = os.fork()
    if not child:
        try:
            run("gc")
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert not (tmp_path / "state" / "gc.json").exists()


# --- in words ---------------------------------------------------------------------------------------------------
DAMAGE = {
    "repository": "app",
    "tag": "v1",
    "digest": "sha256:aa",
    "flaws": [{"digest": "sha256:bb", "kind": "missing", "message": "blob sha256:bb is missing"}],
}


@pytest.mark.parametrize(
    ("report", "said"),
    [
        ({}, ["Nothing to collect."]),
        ({"check": True, "blobs": 3, "freed": 2048}, ["Would remove 3 blobs, 2.0 KiB with uploads."]),
        (
            {"blobs": 3, "freed": 2048, "read_only_seconds": 1.5, "verified": 7, "repositories": ["a", "b"]},
            [
                "Removed 3 blobs, 2.0 KiB with uploads.",
                "empty repositories: a, b",
                "Writes were refused for 1.5 s; the registry did not answer for 0.0 s in all, 0.0 s at one go."
                " 7 tags verified.",
            ],
        ),
        (
            {"driver": "s3", "blobs": 2, "freed": None},
            [
                "Removed 2 blobs.",
                "The storage is s3: what the server's garbage collection removed was not checked by an own mark, and no"
                " image was verified after it.",
            ],
        ),
        (
            {"recovered": Recovery("sweeping"), "damages": [DAMAGE], "new_damages": ["app:v1"]},
            [
                "An earlier run was cut off (sweeping); the registry was brought back first.",
                "Removed 0 blobs, 0 B with uploads.",
                "damaged images: app:v1 (blob sha256:bb is missing)",
                "damaged since this run: app:v1",
            ],
        ),
        (
            {"uploads": [f"u{number}" for number in range(12)]},
            [
                "Removed 0 blobs, 0 B with uploads.",
                "abandoned uploads: u0, u1, u2, u3, u4, u5, u6, u7, u8, u9, and 2 more",
            ],
        ),
    ],
)
def test_a_collection_in_words(report, said):
    assert gc_summary(CollectReport(**report).as_dict()).split("\n") == said


def test_the_difference():
    report = CollectReport(blobs=2, freed=10, uploads=["a/_uploads/1"], repositories=["b"], tags=["c:d"], damaged=["e"])
    assert report.diff() == {
        "before": "2 blobs without an image\n10 bytes\nabandoned upload a/_uploads/1\nempty repository b\ntag c:d\n"
        "damaged blob e\n",
        "after": "",
    }
    assert CollectReport().diff() == {"before": "", "after": ""}
