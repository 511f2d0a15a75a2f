# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role jobs as far as it goes without systemd, on this machine in a directory of its own: dry run, run, again."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[4]
SECRET = "S3cret-of-the-registry"
SETTINGS = {"registry": {"url": "http://reg:5000", "username": "me", "password": SECRET}, "mirror": {"workers": 2}}
IMAGES = ["node:20-alpine", {"name": "postgres", "tags": {"newest": 2}}]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """(output, changed tasks) of the three runs, and where they wrote."""
    home = tmp_path_factory.mktemp("jobs")
    play = {
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "vars": {"ansible_python_interpreter": sys.executable},
        "tasks": [
            {
                "name": "Install",
                "ansible.builtin.include_role": {"name": "homelab.registry.jobs", "tasks_from": "install"},
                "vars": {
                    "jobs_registry": SETTINGS["registry"],
                    "jobs_mirror_images": IMAGES,
                    "jobs_mirror_settings": SETTINGS["mirror"],
                    "jobs_python": sys.executable,
                },
            }
        ],
    }
    playbook = home / "play.yml"
    playbook.write_text(yaml.safe_dump([play]))
    places = {
        "__jobs_program": str(home / "registryctl"),
        "__jobs_config_dir": str(home / "etc"),
        "__jobs_state_dir": str(home / "state"),
    }
    command = [
        str(Path(sys.executable).with_name("ansible-playbook")),
        "-i",
        "localhost,",
        str(playbook),
        "-vvv",
        "--diff",
        "-e",
        json.dumps(places),
    ]
    done = []
    for more in (["--check"], [], []):
        run = subprocess.run(
            [*command, *more],
            cwd=ROOT,
            env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_LOCALHOST_WARNING": "0"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stdout + run.stderr
        done.append((run.stdout + run.stderr, int(re.search(r"changed=(\d+)", run.stdout).group(1))))
    return home, done


def test_a_dry_run_says_what_would_change(runs):
    assert runs[1][0][1] == 3


def test_the_second_run_changes_nothing(runs):
    assert [changed for _output, changed in runs[1][1:]] == [3, 0]


def test_the_program_runs(runs):
    done = subprocess.run([runs[0] / "registryctl", "mirror", "--help"], capture_output=True, text=True, check=True)
    assert "--dry-run" in done.stdout


def test_the_settings_are_what_registryctl_reads(runs):
    path = runs[0] / "etc" / "registryctl.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert json.loads(path.read_text()) == {
        "registry": SETTINGS["registry"],
        "mirror": {**SETTINGS["mirror"], "images": IMAGES},
        # nothing is set for these
        **dict.fromkeys(("host", "cleanup", "verify", "guard", "notify"), {}),
        "state_dir": str(runs[0] / "state"),
    }


def test_no_output_shows_the_password(runs):
    assert [SECRET in output for output, _changed in runs[1]] == [False, False, False]
