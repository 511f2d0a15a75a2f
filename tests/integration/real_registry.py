# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real registry servers in containers on loopback: the image of REGISTRY_IMAGE, version 2 or 3.

Their data and configuration are directories of this machine, so that a test can look into them and break them.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import time
import uuid
from pathlib import Path
from typing import NamedTuple

from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.oci.client import Registry
from ansible_collections.homelab.registry.plugins.module_utils.server import config as server_config

ROOT = Path(__file__).resolve().parents[2]
#: Label of every container that is started here; its value is the process that has to remove it.
LABEL = "homelab-registry-test"
DATA = "/var/lib/registry"
#: Passwords of the accounts that `users` may name, and what bcrypt (cost 4) makes of them.
PASSWORDS = {"alice": "secret", "bob": "hunter2"}
_HASHES = {
    "alice": "$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW",
    "bob": "$2y$04$zyxwvutsrqponmlkjihgfeQtNclEdIKubIxcrYpq.juLDpW/aZ8ve",
}
_REQUEST = re.compile(r'"([A-Z]+) (/\S*) HTTP/[0-9.]+" ([0-9]{3}) ([0-9]+)')


class Asked(NamedTuple):
    """One line of a server's access log."""

    method: str
    path: str
    status: int
    size: int


def image() -> str:
    """The image under test."""
    default = ROOT / ".lab/cache/registry.ref"
    kept = default.read_text(encoding="utf-8").strip() if default.exists() else ""
    return os.environ.get("REGISTRY_IMAGE") or kept or "lab-registry:2"


def docker(*args: str, check: bool = True) -> str:
    """Output of a docker command; AssertionError with its message if it fails."""
    done = subprocess.run(("docker", *args), capture_output=True, text=True, timeout=120, check=False)
    assert not check or done.returncode == 0, f"docker {' '.join(args)}: {done.stderr}"
    return done.stdout.strip()


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def openssl(*args: str) -> None:
    subprocess.run(("openssl", *args), check=True, capture_output=True, timeout=60)


class Authority:
    """A CA of its own; `ca_path` is its certificate."""

    def __init__(self, home: Path):
        home.mkdir(parents=True, exist_ok=True)
        self._home, self.ca_path, self._key = home, home / "ca.pem", home / "ca.key"
        new = ("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
        openssl(*new, "-subj", f"/CN=test CA {home.name}", "-out", str(self.ca_path), "-keyout", str(self._key))

    def issue(self, folder: Path) -> None:
        """A certificate for 127.0.0.1 and localhost, with its key, as server.pem and server.key in a folder."""
        request, names = self._home / "server.csr", self._home / "names"
        new = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=registry")
        openssl(*new, "-out", str(request), "-keyout", str(folder / "server.key"))
        names.write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n", encoding="ascii")
        sign = ("x509", "-req", "-in", str(request), "-CA", str(self.ca_path), "-CAkey", str(self._key))
        more = ("-CAcreateserial", "-days", "2", "-extfile", str(names), "-out", str(folder / "server.pem"))
        openssl(*sign, *more)


class RealRegistry:
    """A registry server; `Registries.start` makes it.

    Attributes:
        name: of its container.
        major: 2 or 3.
        url, netloc: where it listens, on loopback; the same after a restart.
        data: the directory that is its storage root (`docker/registry/v2` is in it).
        config_dir: the directory that holds its config.yml.
        config: its configuration as a mapping; see `configure`.
        authority: Authority of its certificate, or None.
        users: names of the accounts it knows; see PASSWORDS.
    """

    def __init__(self, home, *, delete, readonly, users, tls, cache, proxy, config, data, authority, disk=None):
        self.name = f"test-registry-{uuid.uuid4().hex[:12]}"
        self.image = image()
        inspected = json.loads(docker("image", "inspect", self.image))[0]
        self.major = server_config.detect_major(inspected)
        assert self.major, f"{self.image} is no registry server that we know"
        self.data, self.config_dir = Path(data or home / "data"), home / "config"
        self._disk = disk
        self.users, self.authority = tuple(users), authority if tls else None
        self.port = free_port()
        self.netloc = f"127.0.0.1:{self.port}"
        self.url = f"{'https' if tls else 'http'}://{self.netloc}"
        self._inner = str(Path(server_config.config_path(self.major)).parent)
        self._seen = 0
        for folder in (self.data, self.config_dir):
            folder.mkdir(parents=True, exist_ok=True)
        self.config = {
            "version": "0.1",
            "log": {"level": "info", "accesslog": {"disabled": False}},
            "storage": {
                "filesystem": {"rootdirectory": DATA},
                "delete": {"enabled": delete},
                "maintenance": {"uploadpurging": {"enabled": False}, "readonly": {"enabled": readonly}},
                **({"cache": {"blobdescriptor": cache}} if cache else {}),
            },
            "http": {"addr": self.netloc, "secret": "the-same-after-a-restart"},
        }
        if users:
            lines = "".join(f"{name}:{_HASHES[name]}\n" for name in users)
            (self.config_dir / "htpasswd").write_text(lines, encoding="ascii")
            self.config["auth"] = {"htpasswd": {"realm": "test", "path": f"{self._inner}/htpasswd"}}
        if tls:
            authority.issue(self.config_dir)
            files = {"certificate": f"{self._inner}/server.pem", "key": f"{self._inner}/server.key"}
            self.config["http"]["tls"] = files
        if proxy:
            self.config["proxy"] = {"remoteurl": proxy} if isinstance(proxy, str) else dict(proxy)
        self._write(config or {})

    def _write(self, over):
        self.config = server_config.merge(self.config, over)
        problems = server_config.validate(self.config, self.major)
        assert not problems, f"the server would not do what this configuration says: {problems}"
        (self.config_dir / "config.yml").write_text(server_config.to_yaml(self.config), encoding="utf-8")

    # --- its life -------------------------------------------------------------------------------------------
    def create(self) -> None:
        """Start it for the first time, as the user who runs the tests, and wait until it answers."""
        small = ("--tmpfs", f"{DATA}:size={self._disk},mode=1777")
        mounts = small if self._disk else ("-v", f"{self.data}:{DATA}")
        mounts += ("-v", f"{self.config_dir}:{self._inner}:ro")
        # On the host's network, so that a pull-through cache reaches an upstream on loopback too.
        place = ("--network", "host", "--user", f"{os.getuid()}:{os.getgid()}", "--read-only", "--tmpfs", "/tmp")
        # The second label is what site.yml knows its registry by.
        labels = ("--label", f"{LABEL}={os.getpid()}", "--label", "homelab.registry.config-digest=sha256:test")
        more = (*labels, "--env", "OTEL_TRACES_EXPORTER=none")
        command = ("serve", f"{self._inner}/config.yml")
        docker("run", "-d", "--name", self.name, *place, *mounts, *more, self.image, *command)
        self.wait()

    def wait(self, seconds: float = 20) -> None:
        """Until it answers; AssertionError with its log if it does not."""
        until = time.monotonic() + seconds
        with_everything = self.client(timeout=2)
        while True:
            try:
                assert with_everything.request("GET", "/v2/").status == 200
                return
            except (HomelabError, AssertionError):
                running = docker("inspect", "-f", "{{.State.Running}}", self.name) == "true"
                if not running or time.monotonic() > until:
                    raise AssertionError(f"the registry {self.name} does not answer: {self.log()[-3000:]}") from None
            finally:
                with_everything.close()
            time.sleep(0.05)

    def start(self) -> None:
        """After stop or kill."""
        docker("start", self.name)
        self.wait()

    def stop(self) -> None:
        docker("stop", "-t", "10", self.name)

    def kill(self) -> None:
        """As a power cut does."""
        docker("kill", self.name)

    def restart(self) -> None:
        docker("restart", "-t", "10", self.name)
        self.wait()

    def configure(self, over: dict) -> None:
        """Change its configuration (mappings are merged) and restart it."""
        self._write(over)
        self.restart()

    def remove(self) -> None:
        docker("rm", "-f", "-v", self.name, check=False)

    # --- asking it ------------------------------------------------------------------------------------------
    def access(self, user: str | None = "") -> dict:
        """url, ca_path, username and password, as modules and settings take them; `user` None is a stranger."""
        user = next(iter(self.users), None) if user == "" else user
        return {
            "url": self.url,
            **({"ca_path": str(self.authority.ca_path)} if self.authority else {}),
            **({"username": user, "password": PASSWORDS[user]} if user else {}),
        }

    def client(self, user: str | None = "", **options) -> Registry:
        """Our client for it, with all that it needs."""
        access = self.access(user)
        return Registry(access.pop("url"), **{**access, **options})

    def log(self) -> str:
        """What it wrote so far, over restarts too."""
        return "".join(self._logs())

    def _logs(self):
        command = ["docker", "logs", self.name]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        return done.stdout, done.stderr

    def requests(self) -> list[Asked]:
        """What it was asked since the last call, from its access log."""
        mark = f"/v2/?mark={uuid.uuid4().hex}"
        client = self.client()
        client.request("GET", mark)
        client.close()
        until = time.monotonic() + 10
        while True:
            time.sleep(0.05)
            found = _REQUEST.findall(self._logs()[0])
            lines = [Asked(method, path, int(status), int(size)) for method, path, status, size in found]
            if any(one.path == mark for one in lines):
                new, self._seen = lines[self._seen :], len(lines)
                return [one for one in new if one.path != "/v2/" and "?mark=" not in one.path]
            assert time.monotonic() < until, "the access log does not show a request of a moment ago"

    def host(self) -> dict:
        """How maintenance reaches its container: the settings of storage.server.Host."""
        return {
            "docker_host": os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock",
            "container": self.name,
            "data_path": str(self.data),
            "config_path": str(self.config_dir),
        }

    @property
    def v2(self) -> Path:
        """Where its repositories and blobs are, on this machine."""
        return self.data / "docker/registry/v2"


class Registries:
    """Starts registries and removes them all again."""

    def __init__(self, home: Path):
        self._home, self._started, self._authority = Path(home), [], None

    @property
    def authority(self) -> Authority:
        """The CA of all servers that are started here with `tls`."""
        if self._authority is None:
            self._authority = Authority(self._home / "ca")
        return self._authority

    def start(
        self,
        *,
        delete: bool = True,
        readonly: bool = False,
        users: tuple = (),
        tls: bool = False,
        cache: str | None = "inmemory",
        proxy: str | dict | None = None,
        config: dict | None = None,
        data: Path | None = None,
        disk: str | None = None,
    ) -> RealRegistry:
        """A registry that answers.

        Args:
            delete, readonly: as in its configuration.
            users: names out of PASSWORDS; without any it asks for no account.
            tls: with a certificate of `authority`.
            cache: "inmemory", or None.
            proxy: it is a pull-through cache of this URL, or with this `proxy` section.
            config: more configuration, laid over all that.
            data: its storage root, if not a new directory.
            disk: its storage is in memory and no larger than this ("8m"); `data` is not used then.
        """
        options = {"delete": delete, "readonly": readonly, "users": users, "tls": tls, "cache": cache, "proxy": proxy}
        authority = self.authority if tls else None
        home = self._home / f"registry{len(self._started)}"
        registry = RealRegistry(home, config=config, data=data, authority=authority, disk=disk, **options)
        self._started.append(registry)
        registry.create()
        return registry

    def close(self) -> None:
        for registry in self._started:
            registry.remove()


def sweep() -> None:
    """Remove what a test run that was killed left behind."""
    listing = docker("ps", "-a", "--filter", f"label={LABEL}", "--format", f'{{{{.Names}}}} {{{{.Label "{LABEL}"}}}}')
    for name, owner in (line.split() for line in listing.splitlines()):
        if not Path(f"/proc/{owner}").exists():
            docker("rm", "-f", "-v", name, check=False)
