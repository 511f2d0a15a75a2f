# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The registry host's lock: who excludes whom, and what those who come second are told."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys

import pytest
from ansible_collections.homelab.registry.plugins.module_utils import lock

HOLD = """
import sys
from ansible_collections.homelab.registry.plugins.module_utils import lock
with lock.hold(sys.argv[1], exclusive=True, verb="registryctl gc"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize(
    ("first", "second", "busy"), [(True, True, True), (True, False, True), (False, True, True), (False, False, False)]
)
def test_who_excludes_whom(tmp_path, first, second, busy):
    path = tmp_path / "state" / "lock"
    with lock.hold(path, exclusive=first):
        if busy:
            with pytest.raises(lock.Busy, match="another run is under way"), lock.hold(path, exclusive=second):
                pass
        else:
            with lock.hold(path, exclusive=second):
                pass
    with lock.hold(path, exclusive=True):
        pass


def test_the_second_is_told_who_is_first(tmp_path):
    path = tmp_path / "lock"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", HOLD, str(path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "env": environment, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(lock.Busy) as caught, lock.hold(path, exclusive=True, verb="registryctl cleanup"):
            pass
        assert f": registryctl gc, process {process.pid}, since " in caught.value.message
        assert caught.value.where == str(path)
        process.kill()
    with lock.hold(path, exclusive=True, verb="registryctl cleanup"):
        assert json.loads(path.read_text())["verb"] == "registryctl cleanup"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", ""),
        ("not json", ""),
        ("[]", ""),
        ({"pid": 2**22 + 1}, ""),  # gone; another sharer has the lock
        ({"pid": 1, "host": "elsewhere"}, ": registryctl mirror, process 1 on elsewhere, since "),
        ({"pid": 1, "verb": ""}, ": a run, process 1, since "),
        ({"pid": 1, "since": 1e99}, ""),
    ],
)
def test_what_is_not_known_is_not_said(tmp_path, content, said):
    path = tmp_path / "lock"
    with lock.hold(path, exclusive=False):
        if isinstance(content, dict):
            usual = {"pid": os.getpid(), "host": socket.gethostname(), "verb": "registryctl mirror", "since": 1.0}
            content = json.dumps({**usual, **content})
        path.write_text(content)
        with pytest.raises(lock.Busy) as caught, lock.hold(path, exclusive=True):
            pass
    after = caught.value.message.removeprefix("another run is under way on this registry")
    assert after.startswith(said)
    assert bool(after) == bool(said)


def test_who_waits_gets_it_when_it_is_free(tmp_path, monkeypatch):
    path = tmp_path / "lock"
    with contextlib.ExitStack() as first:
        first.enter_context(lock.hold(path, exclusive=False))
        monkeypatch.setattr(lock.time, "sleep", lambda _seconds: first.close())
        with lock.hold(path, exclusive=True, verb="second", wait=60):
            assert json.loads(path.read_text())["verb"] == "second"


def test_nobody_waits_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "_PACE", 0.01)
    path = tmp_path / "lock"
    with lock.hold(path, exclusive=False), pytest.raises(lock.Busy), lock.hold(path, exclusive=True, wait=0.05):
        pass


def test_what_was_longer_is_overwritten(tmp_path):
    path = tmp_path / "lock"
    with lock.hold(path, exclusive=True, verb="x" * 200):
        pass
    with lock.hold(path, exclusive=True, verb="short"):
        assert json.loads(path.read_text())["verb"] == "short"
