# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real Redis on loopback, as a process of this test run."""

from __future__ import annotations

import shutil
import subprocess
import time

from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.redis import Redis
from ansible_collections.homelab.registry.tests.integration.real_registry import free_port

PASSWORD = "redis-secret"


class RealRedis:
    """A context manager; nothing is kept on disk, so a stopped one has forgotten everything.

    Attributes:
        address: host:port, the same after a restart.
    """

    def __init__(self, home):
        self._home, self.port = home, free_port()
        self.address = f"127.0.0.1:{self.port}"
        self._process = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_error):
        self.stop()

    def start(self):
        # Debian's redis-tools has the server, under the name of one of its tools: it goes by what it is called.
        program = shutil.which("redis-server") or shutil.which("redis-check-rdb")
        assert program, "there is no Redis on this machine: apt install redis-tools"
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        command += ["--requirepass", PASSWORD]
        self._process = subprocess.Popen(command, executable=program, cwd=self._home, stdout=subprocess.DEVNULL)
        until = time.monotonic() + 20
        while True:
            try:
                self.keys(0)
                return
            except HomelabError:
                assert time.monotonic() < until, "Redis does not answer"
                time.sleep(0.05)

    def stop(self):
        self._process.terminate()
        self._process.wait(20)

    def connect(self, db):
        return Redis(self.address, PASSWORD, db)

    def keys(self, db):
        with self.connect(db) as redis:
            return redis._ask("KEYS", "*")
