# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""registries_yaml as its user runs it: one play on this machine, its output at -vvv, and the files it leaves.

The hosts of the play are directories.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[4]
SECRET, OWN_SECRET = "S3cret-of-others", "S3cret-of-ours"
URL = "http://reg:5000"
HUB = {"docker.io": {"endpoint": [URL]}}
OTHERS = f"""\
# written by a person
configs:
  other:5000:
    auth: {{username: me, password: {SECRET}}}
mirrors:
  quay.io:
    endpoint: [https://q.example]
"""
#: Host to its file as it is before; None is no directory at all.
BEFORE = {
    "new": None,
    "shared": OTHERS,
    "bad": f"configs:\n  x:\n    auth: {{password: {SECRET}\nmirrors: [\n",
    "wrong": f"configs: {{x: {{auth: {{password: {SECRET}}}}}}}\nmirrors: {{docker.io: {{endpoint: a}}}}\n",
    "latin": OTHERS.encode() + b"# gr\xfc\xdfe\n",
    "wish": OTHERS,
    # To k3s these are the very texts; YAML would make 83, 750, true and a number of them.
    "scalars": (
        "configs:\n"
        "  a:1: {auth: {username: yes, password: 0123}, tls: {insecure_skip_verify: yes}}\n"
        "  b:1: {auth: {username: 12:30, password: 1e3}}\n"
    ),
}
BOTH = {"mirrors": HUB, "configs": {"reg:5000": {"auth": {"username": "us", "password": OWN_SECRET}}}}
#: Task to the host it is for and its options. A host does its tasks in this order, all hosts at a time.
TASKS = {
    "dry run on a new node": ("new", {"mirrors": HUB, "check_mode": True}),
    "nothing to take out": ("new", {}),
    "new node": ("new", {"mirrors": HUB}),
    "shared": ("shared", BOTH),
    "shared again": ("shared", BOTH),
    "texts that look like numbers": ("scalars", {"mirrors": HUB}),
    "bad YAML": ("bad", {"mirrors": HUB}),
    "wrong type": ("wrong", {"mirrors": HUB}),
    "not UTF-8": ("latin", {"mirrors": HUB}),
    "a directory": ("directory", {"mirrors": HUB}),
    "wrong wish": ("wish", {"mirrors": {"docker.io": {"endpoint": URL}}}),
}
HOSTS = sorted({host for host, _options in TASKS.values()})
FAILING = ("bad YAML", "wrong type", "not UTF-8", "a directory", "wrong wish")


class Run:
    """What the play said, what each task returned, and where the files are."""

    def __init__(self, home: Path):
        self.home = home
        for name, content in BEFORE.items():
            if content is not None:
                self.path(name).parent.mkdir(parents=True)
                self.path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
                self.path(name).chmod(0o644)
        self.path("directory").mkdir(parents=True)
        (home / "wishes.yml").write_text(yaml.safe_dump({"wishes": self._wishes()}), encoding="utf-8")
        (home / "play.yml").write_text(yaml.safe_dump(self._play(), sort_keys=False), encoding="utf-8")
        done = subprocess.run(
            [
                str(Path(sys.executable).parent / "ansible-playbook"),
                "play.yml",
                "-i",
                ",".join(HOSTS),
                "--diff",
                "-vvv",
                "-e",
                "@wishes.yml",
            ],
            cwd=home,
            env=self._environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        self.output = done.stdout + done.stderr
        assert done.returncode == 0, self.output[-3000:]
        self.results = json.loads((home / "results.json").read_text(encoding="utf-8"))

    def path(self, name):
        return self.home / "nodes" / name / "registries.yaml"

    def text(self, name):
        return self.path(name).read_text(encoding="utf-8")

    def data(self, name):
        return yaml.safe_load(self.text(name))

    def names(self, name):
        """Files beside registries.yaml; backups without their time."""
        names = (path.name for path in self.path(name).parent.iterdir())
        return sorted("backup" if name.startswith("registries.yaml.") else name for name in names)

    def _wishes(self):
        """Host to its tasks' options, in order."""
        return {host: [options for owner, options in TASKS.values() if owner == host] for host in HOSTS}

    def _play(self):
        wish = "wishes[inventory_hostname][{}]{}".format
        tasks = [
            {
                "name": f"Round {number}",
                "homelab.registry.registries_yaml": {
                    "path": str(self.path("{{ inventory_hostname }}")),
                    "mirrors": "{{ " + wish(number, ".mirrors") + " | default({}) }}",
                    "configs": "{{ " + wish(number, ".configs") + " | default({}) }}",
                },
                "check_mode": "{{ " + wish(number, ".check_mode") + " | default(false) }}",
                "when": wish(number, " is defined"),
                "register": f"result_{number}",
                "ignore_errors": True,
            }
            for number in range(3)
        ]
        rounds, results = dict.fromkeys(HOSTS, 0), []
        for name, (host, _options) in TASKS.items():
            results.append(f"{json.dumps(name)}: hostvars.{host}.result_{rounds[host]}")
            rounds[host] += 1
        content = "{{ {" + ", ".join(results) + "} | to_json }}"
        save = {"content": content, "dest": str(self.home / "results.json"), "mode": "0600"}
        tasks.append(
            {"name": "Keep the results", "ansible.builtin.copy": save, "diff": False, "run_once": True}
        )
        variables = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        return [{"hosts": "all", "gather_facts": False, "vars": variables, "tasks": tasks}]

    def _environment(self):
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "PYTEST_"))
        }
        return {
            **kept,
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"),
            "ANSIBLE_LOCAL_TEMP": str(self.home / "local"),
            "ANSIBLE_REMOTE_TEMP": str(self.home / "remote"),
            "ANSIBLE_PIPELINING": "true",
            "ANSIBLE_NOCOLOR": "true",
            "ANSIBLE_FORKS": str(len(HOSTS)),
        }


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return Run(tmp_path_factory.mktemp("play"))


@pytest.mark.parametrize("name", TASKS)
def test_each_task_failed_or_not(run, name):
    assert run.results[name]["failed"] == (name in FAILING), run.results[name].get("msg")


CHANGED = ("dry run on a new node", "new node", "shared", "texts that look like numbers")


@pytest.mark.parametrize("name", [name for name in TASKS if name not in FAILING])
def test_each_task_changed_or_not(run, name):
    assert run.results[name]["changed"] == (name in CHANGED)


def test_a_dry_run_tells_what_the_run_then_does_and_writes_nothing(run):
    assert run.results["dry run on a new node"]["diff"] == run.results["new node"]["diff"]
    assert f"- {URL}" in run.results["new node"]["diff"]["after"]
    assert "backup" not in run.results["new node"]  # so there was no file yet


def test_a_new_node_has_its_file_and_a_note(run):
    assert run.data("new") == {"mirrors": HUB}
    assert run.names("new") == ["homelab-registry.json", "registries.yaml"]
    assert stat.S_IMODE(run.path("new").stat().st_mode) == 0o600


def test_others_keep_their_entries_and_a_backup(run):
    auth = {"username": "me", "password": SECRET}
    assert run.data("shared")["configs"]["other:5000"] == {"auth": auth}
    assert run.data("shared")["mirrors"] == {
        "quay.io": {"endpoint": ["https://q.example"]}, "docker.io": {"endpoint": [URL]},
    }
    assert stat.S_IMODE(run.path("shared").stat().st_mode) == 0o600  # it was open to all
    assert Path(run.results["shared"]["backup"]).read_text(encoding="utf-8") == OTHERS
    assert run.names("shared") == ["backup", "homelab-registry.json", "registries.yaml"]


def test_a_lost_comment_is_told(run):
    (warning,) = run.results["shared"]["warnings"]
    assert "comments in the file do not survive" in warning
    assert "comments in the file do not survive" in run.output
    assert not run.results["shared again"].get("warnings")


MESSAGES = {
    "bad YAML": ("bad", "is not valid YAML near line 4, column "),
    "wrong type": ("wrong", "k3s would not start with {path}: mirrors.docker.io.endpoint must be a list"),
    "not UTF-8": ("latin", "{path} is not UTF-8 text"),
    "wrong wish": ("wish", "mirrors.docker.io.endpoint must be a list, not a string"),
    "a directory": ("directory", "{path} is not a regular file"),
}


@pytest.mark.parametrize(
    ("name", "folder", "said"), [(name, *rest) for name, rest in MESSAGES.items()], ids=MESSAGES
)
def test_a_failure_names_the_fault_and_changes_nothing(run, name, folder, said):
    assert said.format(path=run.path(folder)) in run.results[name]["msg"]
    assert run.names(folder) == ["registries.yaml"]
    if folder in BEFORE:
        content = BEFORE[folder]
        assert run.path(folder).read_bytes() == (content if isinstance(content, bytes) else content.encode())


def test_an_account_of_ours_is_written(run):
    assert run.data("shared")["configs"]["reg:5000"]["auth"]["password"] == OWN_SECRET
    note = run.path("shared").parent / "homelab-registry.json"
    assert json.loads(note.read_text(encoding="utf-8"))["configs"] == ["reg:5000"]
    assert OWN_SECRET not in note.read_text(encoding="utf-8")


def test_no_password_is_in_the_output(run):
    assert "********" in run.output  # it was shown, and masked
    assert SECRET not in run.output
    assert SECRET not in json.dumps(run.results)


def test_our_own_password_is_not_in_the_output_either(run):
    assert OWN_SECRET not in run.output
    assert OWN_SECRET not in json.dumps(run.results)


def test_texts_that_look_like_numbers_stay_what_k3s_reads(run):
    configs = yaml.load(run.path("scalars").read_text(encoding="utf-8"), Loader=yaml.BaseLoader)["configs"]
    assert configs["a:1"] == {"auth": {"username": "yes", "password": "0123"}, "tls": {"insecure_skip_verify": "true"}}
    assert configs["b:1"]["auth"] == {"username": "12:30", "password": "1e3"}
    read_again = yaml.safe_load(run.path("scalars").read_text(encoding="utf-8"))["configs"]
    assert read_again["a:1"]["auth"]["password"] == "0123", "quoted, so that no reader makes a number of it"
    assert read_again["a:1"]["tls"]["insecure_skip_verify"] is True
