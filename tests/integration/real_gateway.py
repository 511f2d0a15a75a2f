# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real gateway: nginx in a container on loopback before a real registry, with the configuration the role writes.

The image is GATEWAY_IMAGE, or made from the distribution's package as the role makes it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import time
import uuid
from pathlib import Path

from ansible_collections.homelab.registry.plugins.module_utils.oci.client import Registry
from ansible_collections.homelab.registry.plugins.module_utils.server import gateway, package_image
from ansible_collections.homelab.registry.tests.integration.real_registry import LABEL, docker, free_port

PACKAGE_IMAGE = "homelab-gateway:package"
#: bcrypt (cost 4) of the password "secret", in both spellings that are about.
HASHES = ("$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW",
          "$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW")
PASSWORD = "secret"
ACCOUNTS = {"node": "pull", "builder": "push", "boss": "admin"}


def image(home: Path) -> str:
    """The image under test."""
    wanted = os.environ.get("GATEWAY_IMAGE") or PACKAGE_IMAGE
    if subprocess.run(["docker", "image", "inspect", wanted], capture_output=True, timeout=60, check=False).returncode:
        if wanted != PACKAGE_IMAGE:
            docker("pull", wanted)
        else:
            package_image.build("nginx", wanted, str(home / "gateway.tar.gz"))
            docker("load", "-i", str(home / "gateway.tar.gz"))
    return wanted


class RealGateway:
    """A gateway before a registry of real_registry.

    Args:
        home: a directory of its own.
        registry: the RealRegistry behind it.
        authority: Authority of its certificate; None speaks plain HTTP.
        changes: fields of gateway.Settings.
    """

    def __init__(self, home: Path, registry, authority=None, **changes):
        self.name = f"test-gateway-{uuid.uuid4().hex[:12]}"
        self.folder = Path(home) / self.name
        self.folder.mkdir(parents=True)
        self.port = free_port()
        self.netloc = f"127.0.0.1:{self.port}"
        self.url = f"{'https' if authority else 'http'}://{self.netloc}"
        self.authority = authority
        self.settings = gateway.Settings(**{
            "listen": self.netloc, "backend": registry.netloc, "accounts": ACCOUNTS, "tls": bool(authority), **changes,
        })
        if authority:
            authority.issue(self.folder)
            for old, new in (("server.pem", "tls.crt"), ("server.key", "tls.key")):
                (self.folder / old).rename(self.folder / new)
        # never root: it could not become anybody else without capabilities
        self.user = os.getuid() or 101
        self.passwords(self.settings.accounts)
        self.write()
        docker(
            "run", "-d", "--name", self.name, "--network", "host", "--user", f"{self.user}:{self.user}",
            "--read-only", "--tmpfs", "/tmp:size=1m", "--cap-drop", "ALL", "--security-opt", "no-new-privileges:true",
            "--label", f"{LABEL}={os.getpid()}",
            "--entrypoint", "nginx", "-v", f"{self.folder}:{gateway.DIRECTORY}:ro", image(self.folder),
            "-c", f"{gateway.DIRECTORY}/nginx.conf", "-g", "daemon off;",
        )
        until = time.monotonic() + 20
        anonymous = self.client(None)
        while True:
            try:
                anonymous.request("GET", "/v2/")
                break
            except Exception:
                running = docker("inspect", "-f", "{{.State.Running}}", self.name) == "true"
                assert running and time.monotonic() < until, f"the gateway does not answer: {self.log()}"
                time.sleep(0.05)

    def _give(self):
        if not os.getuid():
            for path in (self.folder, *self.folder.iterdir()):
                os.chown(path, self.user, self.user)

    def write(self, **changes) -> None:
        """Its configuration, with some settings changed."""
        self.settings = dataclasses.replace(self.settings, **changes)
        (self.folder / "nginx.conf").write_text(gateway.render(self.settings), encoding="utf-8")
        self._give()

    def passwords(self, accounts, hashes=HASHES) -> None:
        """Its htpasswd file; the accounts have the hashes by turns."""
        lines = (f"{name}:{hashes[number % len(hashes)]}\n" for number, name in enumerate(accounts))
        new = self.folder / "htpasswd.new"
        new.write_text("".join(lines), encoding="utf-8")
        self._give()
        new.rename(self.folder / "htpasswd")

    def reload(self) -> None:
        docker("kill", "--signal", "HUP", self.name)

    def client(self, account: str | None, password: str = PASSWORD, **options) -> Registry:
        """Our client; `account` None is a stranger."""
        if self.authority:
            options.setdefault("ca_path", str(self.authority.ca_path))
        return Registry(self.url, username=account, password=password if account else None, **options)

    def log(self) -> str:
        done = subprocess.run(["docker", "logs", self.name], capture_output=True, text=True, timeout=60, check=False)
        return done.stdout + done.stderr

    def requests(self) -> list[dict]:
        """Its access log."""
        return [json.loads(line) for line in self.log().splitlines() if line.startswith("{")]

    def remove(self) -> None:
        docker("rm", "-f", self.name, check=False)
