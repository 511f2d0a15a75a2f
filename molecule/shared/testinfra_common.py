# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the scenarios' tests share; on PYTHONPATH through .config/molecule/config.yml."""

import os
import time
from pathlib import Path

import testinfra

ADDRESSES = {
    "lab-reg": "172.30.55.10",
    "lab-n12": "172.30.55.12",
    "lab-n13": "172.30.55.13",
    "lab-k3s-server": "172.30.55.21",
    "lab-k3s-agent": "172.30.55.22",
    "lab-nas": "172.30.55.30",
}
PAYLOAD = "lab-busybox:1"


def node(name):
    """A testinfra host of the lab, by its inventory name."""
    inventory = os.environ["MOLECULE_INVENTORY_FILE"]
    return testinfra.get_host(f"ansible://{name}?ansible_inventory={inventory}")


def ok(host, command, *args):
    """Run a command that must succeed; its standard output. A failure shows both streams."""
    result = host.run(command, *args)
    assert result.rc == 0, f"{host}: {result.command} -> {result.rc}\n{result.stdout}\n{result.stderr}"
    return result.stdout.strip()


def wait_for(what, condition, seconds=30):
    """Poll until condition() is true; its value. Use it instead of sleeping."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"after {seconds} s: {what}"
        time.sleep(0.5)


def server_image():
    """The registry image under test (see lab/images.sh); on the hosts its archive is /lab/registry.tar."""
    cache = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"]) / ".lab" / "cache"
    return (cache / "registry.ref").read_text(encoding="utf-8").strip()
