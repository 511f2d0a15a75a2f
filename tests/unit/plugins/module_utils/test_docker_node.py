# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bringing a Docker node in line: the file, the engine behind a socket, and what is left after a failure.

Only dockerd's process is made up: a "SIGHUP" makes the fake engine read its file again.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import stat
import subprocess
from pathlib import Path

import pytest
from ansible_collections.homelab.registry.plugins.module_utils import text_file
from ansible_collections.homelab.registry.plugins.module_utils.engine import Engine
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.nodes import daemon_json, docker_node, files
from ansible_collections.homelab.registry.tests.unit.fake_engine import FakeEngine

ENDPOINT, URL = "reg:5000", "http://reg:5000"
PID = 4242
OTHERS = '{\n    "log-opts": {"max-size": "10m"},\n    "insecure-registries": ["nas:5000"]\n}\n'


class Node:
    """One node: its file, its engine, and the signals its dockerd got."""

    def __init__(self, home: Path, engine: FakeEngine):
        self.path, self.note = home / "docker" / "daemon.json", home / "docker" / files.OWNED_NAME
        self.fake, self.engine = engine, Engine(engine.address)
        self.signals = []
        self.process = (PID, ["dockerd"])

    def kill(self, pid, number):
        self.signals.append((pid, number))
        self.fake.reload()

    def write(self, text, mode=0o644):
        self.path.parent.mkdir(exist_ok=True)
        self.path.write_text(text, encoding="utf-8")
        self.path.chmod(mode)

    def plan(self, insecure=(ENDPOINT,), mirrors=(URL,)):
        return daemon_json.plan(
            text_file.read_text(str(self.path)), str(self.path),
            insecure_registries=list(insecure), registry_mirrors=list(mirrors), owned=self.owned(),
        )

    def owned(self):
        return files.parse_owned(text_file.read_text(str(self.note)))

    def bring_in_line(self, *wanted, timeout=5):
        return docker_node.apply(self.plan(*wanted), self.owned(), self.engine, timeout)

    def backups(self):
        return sorted(self.path.parent.glob("*.bak"))

    def state(self):
        """Everything that is on the disk: name to content and mode."""
        if not self.path.parent.exists():
            return {}
        return {
            entry.name: (entry.read_bytes(), stat.S_IMODE(entry.stat().st_mode))
            for entry in self.path.parent.iterdir()
        }


@pytest.fixture
def node(tmp_path, monkeypatch):
    with FakeEngine(tmp_path / "docker" / "daemon.json") as engine:
        node = Node(tmp_path, engine)
        monkeypatch.setattr(docker_node, "daemon_process", lambda: node.process)
        monkeypatch.setattr(docker_node.os, "kill", node.kill)
        monkeypatch.setattr(docker_node, "validate", lambda text: None)
        monkeypatch.setenv("PATH", "")  # no journalctl, no systemctl
        yield node


def fail_replace(monkeypatch, *names):
    """Make the last step of a write fail: of files with these names, of every file without names."""
    replace = Path.replace

    def refuse(self, target):
        if not names or Path(target).name in names:
            raise OSError(errno.EROFS, "Read-only file system")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", refuse)


# --- it works ----------------------------------------------------------------------------------------------


def test_a_node_without_a_file(node):
    outcome = node.bring_in_line()
    assert (outcome.changed, outcome.reloaded, outcome.backup) == (True, True, "")
    assert outcome.engine_version == "26.1.5"
    assert outcome.warnings == []
    assert json.loads(node.path.read_text()) == {"insecure-registries": [ENDPOINT], "registry-mirrors": [URL]}
    assert stat.S_IMODE(node.path.stat().st_mode) == 0o644
    assert (node.fake.insecure, node.fake.mirrors) == ([ENDPOINT], [URL])
    assert node.signals == [(PID, signal.SIGHUP)]
    assert node.owned()["insecure-registries"] == [ENDPOINT]


def test_a_second_run_does_nothing(node):
    node.bring_in_line()
    before = node.state()
    outcome = node.bring_in_line()
    assert (outcome.changed, outcome.reloaded, outcome.seconds) == (False, False, 0.0)
    assert outcome.engine_version == "26.1.5"
    assert len(node.signals) == 1
    assert node.state() == before


def test_a_file_of_others_is_kept_and_backed_up(node):
    node.write(OTHERS, 0o640)
    node.fake.reload()
    outcome = node.bring_in_line()
    after = json.loads(node.path.read_text())
    assert after["log-opts"] == {"max-size": "10m"}
    assert after["insecure-registries"] == ["nas:5000", ENDPOINT]
    assert stat.S_IMODE(node.path.stat().st_mode) == 0o640
    assert [str(path) for path in node.backups()] == [outcome.backup]
    assert Path(outcome.backup).read_text() == OTHERS


def test_removal_reaches_the_engine_because_the_lists_are_written_empty(node):
    node.write(OTHERS)
    node.bring_in_line()
    outcome = node.bring_in_line([], [])
    assert outcome.reloaded
    assert json.loads(node.path.read_text())["registry-mirrors"] == []
    assert (node.fake.insecure, node.fake.mirrors) == (["nas:5000"], [])
    assert (node.owned()["insecure-registries"], node.owned()["registry-mirrors"]) == ([], [])


def test_the_fake_engine_keeps_a_setting_whose_key_is_gone(node):
    """What makes the test above mean something."""
    node.bring_in_line()
    node.write("{}\n")
    node.fake.reload()
    assert node.fake.insecure == [ENDPOINT]


def test_removal_where_nothing_was_leaves_no_file(node):
    outcome = node.bring_in_line([], [])
    assert not outcome.changed
    assert node.state() == {}
    assert node.signals == []


def test_a_changed_endpoint_replaces_the_old_one(node):
    node.write(OTHERS)
    node.bring_in_line()
    node.bring_in_line(["new:5000"], ["http://new:5000"])
    assert (node.fake.insecure, node.fake.mirrors) == (["nas:5000", "new:5000"], ["http://new:5000"])
    assert node.owned()["registry-mirrors"] == ["http://new:5000"]


def test_an_unknown_part_of_the_note_survives(node):
    node.write("{}")
    node.note.write_text('{"later": ["x"]}', encoding="utf-8")
    node.bring_in_line()
    assert node.owned()["later"] == ["x"]
    assert node.owned()["registry-mirrors"] == [URL]


def test_a_stale_engine_is_only_told_to_reload(node):
    node.bring_in_line()
    node.fake.insecure, node.fake.mirrors = [], []  # restarted with another file, say
    before = node.state()
    outcome = node.bring_in_line()
    assert (outcome.changed, outcome.reloaded, outcome.backup) == (True, True, "")
    assert node.fake.insecure == [ENDPOINT]
    assert node.state() == before


def test_an_entry_a_person_wrote_gets_no_note(node):
    node.write(json.dumps({"insecure-registries": [ENDPOINT], "registry-mirrors": [URL]}))
    node.fake.reload()
    assert not node.bring_in_line().changed
    assert not node.note.exists()


def test_without_an_engine_the_file_is_written_for_its_start(node, tmp_path):
    node.engine = Engine(f"unix://{tmp_path}/none.sock")
    node.write(OTHERS)
    outcome = node.bring_in_line()
    assert (outcome.changed, outcome.reloaded, outcome.engine_version) == (True, False, "")
    assert any("takes effect when it starts" in warning for warning in outcome.warnings)
    assert json.loads(node.path.read_text())["registry-mirrors"] == [URL]
    assert node.signals == []
    assert node.owned()["registry-mirrors"] == [URL]
    assert not node.bring_in_line().changed


def test_warnings_about_the_file_are_passed_on(node):
    node.write('{"registry-mirror": "x"}')
    assert any(
        '"registry-mirror" is silently ignored' in warning for warning in node.bring_in_line().warnings
    )


# --- it does not -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("obeys", "missing"),
    [
        (set(), "reg:5000 is not taken as insecure; mirror http://reg:5000 is not in use"),
        ({"insecure-registries"}, "within 0 s: mirror http://reg:5000 is not in use"),
    ],
)
def test_an_engine_that_does_not_obey_gets_its_old_file_back(node, obeys, missing):
    node.write(OTHERS, 0o600)
    node.fake.reload()
    before = node.state()
    node.fake.obeys = obeys
    with pytest.raises(HomelabError) as caught:
        node.bring_in_line(timeout=0)
    assert missing in str(caught.value)
    assert "the old file is in place again" in str(caught.value)
    assert node.state() == before  # bytes, mode, no note and no backup
    assert node.signals == [(PID, signal.SIGHUP)] * 2
    assert node.fake.insecure == ["nas:5000"], "what it had taken over is taken back at once"
    node.fake.obeys = {"insecure-registries", "registry-mirrors"}
    node.fake.reload()  # the next start
    assert node.fake.insecure == ["nas:5000"]


def test_a_file_that_was_not_there_is_gone_after_a_failure(node):
    node.fake.obeys = set()
    with pytest.raises(HomelabError, match="did not take"):
        node.bring_in_line(timeout=0)
    assert node.state() == {}


def test_a_stale_engine_that_does_not_obey_costs_no_file(node):
    node.bring_in_line()
    node.fake.insecure, node.fake.obeys = [], set()
    before = node.state()
    with pytest.raises(HomelabError, match="did not take"):
        node.bring_in_line(timeout=0)
    assert node.state() == before


@pytest.mark.parametrize("obeys", [set(), {"insecure-registries", "registry-mirrors"}])
def test_a_file_the_engine_refuses_is_put_back_with_the_engine_s_own_words(node, tmp_path, monkeypatch, obeys):
    """Also when it has the wanted settings already, so that only its log tells."""
    said = "unable to configure the Docker daemon with file: the following directives don't match: foo"
    script(tmp_path, "journalctl", f'echo "some line"\necho "{said}"\necho "last line"')
    monkeypatch.setenv("PATH", str(tmp_path))
    node.write(OTHERS)
    node.fake.obeys = obeys
    with pytest.raises(HomelabError) as caught:
        node.bring_in_line(timeout=0)
    assert said in caught.value.message
    assert node.path.read_text() == OTHERS


def test_a_journal_that_hangs_does_not_stop_the_roll_back(node, tmp_path, monkeypatch):
    def run(argv, **_options):
        raise subprocess.TimeoutExpired(argv, 20)

    script(tmp_path, "journalctl", "")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(docker_node.subprocess, "run", run)
    node.fake.obeys = set()
    with pytest.raises(HomelabError, match="did not take"):
        node.bring_in_line(timeout=0)
    assert node.state() == {}


@pytest.mark.parametrize(
    "error", [ProcessLookupError(errno.ESRCH, "No such process"), PermissionError(errno.EPERM, "no")]
)
def test_a_dockerd_that_cannot_be_told_gets_its_old_file_back(node, monkeypatch, error):
    def kill(pid, number):
        raise error

    monkeypatch.setattr(docker_node.os, "kill", kill)
    node.write(OTHERS)
    with pytest.raises(HomelabError, match=f"pid {PID}"):
        node.bring_in_line()
    assert node.path.read_text() == OTHERS
    assert not node.note.exists()


def test_an_engine_elsewhere_cannot_be_told(node):
    node.process = None
    node.write(OTHERS)
    with pytest.raises(HomelabError, match="no dockerd process is visible here"):
        node.bring_in_line()
    assert node.path.read_text() == OTHERS
    assert node.signals == []


@pytest.mark.parametrize(
    "names", [(), ("daemon.json",)], ids=["nothing can be written", "not even the backup's neighbour"]
)
def test_a_file_that_cannot_be_written_changes_nothing(node, monkeypatch, names):
    node.write(OTHERS)
    before = node.state()
    fail_replace(monkeypatch, *names)
    with pytest.raises(HomelabError, match="cannot be written: Read-only file system"):
        node.bring_in_line()
    after = node.state()
    assert [after.pop(path.name)[0] for path in node.backups()] == ([OTHERS.encode()] if names else [])
    assert after == before
    assert node.signals == []
    assert node.fake.mirrors == []


def test_a_directory_that_cannot_be_made(node):
    node.path.parent.write_text("a file", encoding="utf-8")
    with pytest.raises(HomelabError, match="cannot be"):
        node.bring_in_line()
    assert node.signals == []


def test_a_note_that_cannot_be_written_undoes_the_file(node, monkeypatch):
    node.write(OTHERS)
    fail_replace(monkeypatch, files.OWNED_NAME)
    with pytest.raises(HomelabError, match="homelab-registry.json cannot be written"):
        node.bring_in_line()
    assert node.path.read_text() == OTHERS
    assert len(node.signals) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (OTHERS, "dockerd rejects the planned"),
        ('{"registry-mirrors": ["http://reg:5000"]}', "dockerd would not start"),
    ],
    ids=["with a change", "without one"],
)
def test_a_file_that_dockerd_rejects_is_not_written(node, monkeypatch, text, said):
    monkeypatch.setattr(docker_node, "validate", lambda text: "unable to configure: unknown key x")
    node.write(text)
    before = node.state()
    with pytest.raises(HomelabError, match=f"{said}.*unknown key x"):
        node.bring_in_line((ENDPOINT,) if text == OTHERS else (), (URL,))
    assert node.state() == before
    assert node.signals == []


# --- predicting --------------------------------------------------------------------------------------------


def test_would_reload_is_what_apply_does_and_touches_nothing(node, tmp_path):
    plan = node.plan()
    assert docker_node.would_reload(plan, node.engine)
    assert not docker_node.would_reload(plan, Engine(f"unix://{tmp_path}/none.sock"))
    assert (node.state(), node.signals) == ({}, [])
    assert node.bring_in_line().reloaded
    assert not docker_node.would_reload(node.plan(), node.engine)
    node.fake.mirrors = []
    assert docker_node.would_reload(node.plan(), node.engine)


# --- gathering ---------------------------------------------------------------------------------------------


def script(home: Path, name: str, body: str):
    path = home / name
    path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    path.chmod(0o755)


UNIT = "docker.service"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine without unit files, dockerd and settings: its programs, `default`, and `etc` before `lib`."""
    unit_text = docker_node.unit_text
    directories = (str(tmp_path / "etc"), str(tmp_path / "lib"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(docker_node, "unit_text", lambda unit: unit_text(unit, directories))
    monkeypatch.setattr(docker_node, "ENVIRONMENT_FILES", (str(tmp_path / "default"),))
    monkeypatch.setattr(docker_node, "daemon_process", lambda: None)
    return tmp_path


def put(machine, path, text):
    (machine / path).parent.mkdir(parents=True, exist_ok=True)
    (machine / path).write_text(text, encoding="utf-8")


def gathered(machine):
    """What was found where, the machine's directory left out."""
    found = docker_node.gather_sources()
    return [(source.where.replace(f"{machine}/", ""), source.argv) for source in found]


def test_a_machine_that_tells_nothing(machine):
    assert gathered(machine) == []


def test_the_unit_and_the_running_process(machine, monkeypatch):
    put(machine, f"lib/{UNIT}", "[Service]\nExecStart=/usr/sbin/dockerd -H fd:// $DOCKER_OPTS\n")
    put(machine, "default", 'DOCKER_OPTS="--mtu=1400"\n')
    monkeypatch.setattr(docker_node, "daemon_process", lambda: (7, ["dockerd", "-H", "fd://"]))
    assert gathered(machine) == [
        (f"lib/{UNIT}", ["/usr/sbin/dockerd", "-H", "fd://", "--mtu=1400"]),
        ("the running dockerd (pid 7)", ["dockerd", "-H", "fd://"]),
    ]


def test_a_drop_in_resets_the_unit(machine):
    put(machine, f"lib/{UNIT}", "[Service]\nExecStart=/usr/sbin/dockerd -H fd://\n")
    put(machine, f"etc/{UNIT}.d/a.conf", "[Service]\nExecStart=\nExecStart=/usr/sbin/dockerd -D\n")
    assert gathered(machine) == [(f"etc/{UNIT}.d/a.conf", ["/usr/sbin/dockerd", "-D"])]


def test_the_administrator_s_unit_and_drop_ins_win_over_the_package_s(machine):
    put(machine, f"lib/{UNIT}", "ExecStart=/usr/sbin/dockerd --mtu=1\n")
    put(machine, f"etc/{UNIT}", "ExecStart=/usr/sbin/dockerd --mtu=2\n")
    put(machine, f"lib/{UNIT}.d/b.conf", "ExecStart=/usr/sbin/dockerd --mtu=3\n")
    put(machine, f"etc/{UNIT}.d/b.conf", "ExecStart=/usr/sbin/dockerd --mtu=4\n")
    put(machine, f"lib/{UNIT}.d/a.conf", "ExecStart=/usr/sbin/dockerd --mtu=5\n")
    put(machine, f"lib/{UNIT}.d/a.conf.off", "ExecStart=/usr/sbin/dockerd --mtu=6\n")
    assert gathered(machine) == [
        (f"etc/{UNIT}", ["/usr/sbin/dockerd", "--mtu=2"]),
        (f"lib/{UNIT}.d/a.conf", ["/usr/sbin/dockerd", "--mtu=5"]),
        (f"etc/{UNIT}.d/b.conf", ["/usr/sbin/dockerd", "--mtu=4"]),
    ]


def test_a_file_without_a_last_newline_does_not_swallow_the_next(machine):
    put(machine, f"lib/{UNIT}", "ExecStart=/usr/sbin/dockerd -D")
    put(machine, f"etc/{UNIT}.d/a.conf", "ExecStart=")
    assert gathered(machine) == []


def test_an_init_script_s_options(machine):
    put(machine, "default", 'DOCKER_OPTS="-D --label \'a\'"\n')
    assert gathered(machine) == [("DOCKER_OPTS of default", ["dockerd", "-D", "--label", "a"])]


VALIDATIONS = {
    "accepted": ("echo 'configuration OK'", None),
    "too old to judge": ("echo 'unknown flag: --validate' >&2; exit 125", None),
    "rejected": (
        'echo "unable to configure with file ${2#--config-file=}: invalid mirror" >&2; exit 1',
        "unable to configure with file daemon.json: invalid mirror",
    ),
}


@pytest.mark.parametrize(("body", "complaint"), VALIDATIONS.values(), ids=VALIDATIONS)
def test_validate(machine, body, complaint):
    script(
        machine,
        "dockerd",
        f'[ "$1" = --validate ] || exit 9\n/bin/cp "${{2#--config-file=}}" {machine}/seen\n{body}',
    )
    assert docker_node.validate('{"labels": ["ü"]}\n') == complaint
    assert (machine / "seen").read_text(encoding="utf-8") == '{"labels": ["ü"]}\n'


def test_validate_without_a_dockerd(machine, monkeypatch):
    monkeypatch.setattr(docker_node.shutil, "which", lambda name, path=None: None)
    assert docker_node.validate("{") is None


def test_no_real_signal_is_sent():
    """The fixture's monkeypatch must be what apply uses: its module calls os.kill by that name."""
    assert docker_node.os is os
