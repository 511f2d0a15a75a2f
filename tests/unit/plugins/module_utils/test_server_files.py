# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which files have to be written, as sh on the host tells it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import yaml
from ansible_collections.homelab.registry.plugins.module_utils.server.files import stale

WANTED = {"config.yml": "a: ä\n", "tls.key": "key\n"}
VARIABLES = Path(__file__).parents[4].joinpath("roles/registry/vars/main.yml").read_text(encoding="utf-8")


def seen(folder, *names):
    """What the role's own shell function prints."""
    script = yaml.safe_load(VARIABLES)["__registry_list_files"] + " list " + " ".join(names)
    done = subprocess.run(["sh", "-c", script], cwd=folder, capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.splitlines()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "new").mkdir()
    for name, text in WANTED.items():
        for path in (tmp_path / name, tmp_path / "new" / name):
            path.write_text(text, encoding="utf-8")
            path.chmod(0o400)
    return tmp_path


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda folder: None, []),
        (lambda folder: (folder / "tls.key").unlink(), ["tls.key"]),
        (lambda folder: (folder / "tls.key").chmod(0o440), ["tls.key"]),
        (lambda folder: (folder / "new" / "tls.key").unlink(), []),
        (lambda folder: os.truncate(folder / "config.yml", 1), ["config.yml"]),
    ],
)
def test_what_has_to_be_written(folder, change, expected):
    change(folder)
    lines = ["a banner", *seen(folder, *WANTED, "new/config.yml", "new/tls.key")]
    assert stale(WANTED, lines, os.getuid(), os.getgid()) == expected
    assert stale(WANTED, lines, os.getuid() + 1, os.getgid()) == list(WANTED)


def test_a_directory_beside_it(folder):
    lines = seen(folder, "new/config.yml", "new/tls.key")
    assert stale(WANTED, lines, os.getuid(), os.getgid(), "new/") == []
    assert stale(WANTED, lines, os.getuid(), os.getgid()) == list(WANTED)
