# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a playbook as the user would, and look at what it says and how it ends."""

import json
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"])


@dataclass
class Run:
    """Exit code and output of ansible-playbook."""

    code: int
    output: str

    def says(self, *parts):
        """Assert that the output holds each part; line breaks of the callback do not matter."""
        flat = " ".join(self.output.split())
        for part in parts:
            assert " ".join(part.split()) in flat, f"{part!r} is not in:\n{self.output[-6000:]}"

    def changed(self, host):
        """Number of changes on a host, from the recap."""
        found = re.search(rf"^{re.escape(host)} .*changed=(\d+)", self.output, re.MULTILINE)
        assert found, f"{host} is not in the recap:\n{self.output[-3000:]}"
        return int(found[1])


def run_playbook(playbook, *options, inventory=None, env=None, **variables):
    """ansible-playbook with the project's ansible.cfg; `variables` become extra variables, typed."""
    inventory = inventory or Path(os.environ["MOLECULE_INVENTORY_FILE"]).parent
    command = ["ansible-playbook", str(playbook), "-i", str(inventory), *options]
    if variables:
        command += ["-e", json.dumps(variables)]
    done = subprocess.run(
        command,
        cwd=PROJECT,
        env={
            **os.environ,
            "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"),
            "ANSIBLE_FORCE_COLOR": "0",
            "ANSIBLE_NOCOLOR": "1",
            **(env or {}),
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    return Run(done.returncode, re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr))
