# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The running registry as maintenance needs it: its container, its configuration on this machine, its cache.

Nothing of a registry can be switched while it runs (no signal, no API), so it is made read-only by another config.yml
and a restart. The container itself stays as it is: what site.yml made is what it finds again.
"""

from __future__ import annotations

import http.client
import os
import shutil
import ssl
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ..engine import Engine, Finished
from ..errors import HomelabError
from ..keys import refuse_unknown_keys
from ..oci import canary
from ..oci.client import Registry
from ..redis import Redis
from ..server.config import detect_major
from ..server.config_file import ConfigFile
from ..text_file import write_atomic

#: Every container of the role registry has it, however it was deployed.
LABEL = "homelab.registry.config-digest"
#: Added to the name of config.yml while the server is read-only: the original, byte for byte.
KEPT = ".before-maintenance"
#: Added to the container's name for the one in which garbage-collect runs.
HELPER = "-garbage-collect"
#: Seconds a started server is given to answer.
PATIENCE = 60
_PACE = 0.05
_DATA_DIR = "/var/lib/registry"


@dataclass(frozen=True)
class Host:
    """How the registry's container and directories are reached on this machine.

    Attributes:
        docker_host: the engine's socket. container: name of the registry's container.
        data_path, config_path: directories (or names of volumes) that it must have mounted; None takes what it has. A
            volume may be mounted here under any path that ends in its name.
        redis: where to reach the cache from here, if the server's configuration names it in another way: `addr`
            (host:port), and if they differ too, `username`, `password` and `db`.
    """

    docker_host: str = "unix:///var/run/docker.sock"
    container: str = "registry"
    data_path: str | None = None
    config_path: str | None = None
    redis: dict | None = None

    @classmethod
    def from_dict(cls, data: dict) -> Host:
        """From settings.

        Raises:
            HomelabError: an unknown key.
        """
        refuse_unknown_keys(data, cls.__dataclass_fields__, "host", None)
        refuse_unknown_keys(data.get("redis") or {}, ("addr", "username", "password", "db"), "host.redis", None)
        return cls(**{key: value for key, value in data.items() if value is not None})


class Server:
    """The registry on this machine.

    Args:
        host: Host.
        access: how its API is reached: the arguments of oci.client.Registry, with `url`. Its account may push.
        stopped: whether its container may be stopped.

    Attributes:
        name: of the container. major: of the server's version, 2 or 3.
        config_path: its configuration on this machine; kept_path: the original during maintenance.
        config: that original. driver: of its storage.
        root: its data on this machine, None unless the driver is `filesystem`.

    Raises:
        HomelabError: there is no such container, it is not ours, or cannot be worked with from here.
    """

    def __init__(self, host: Host, access: dict, stopped: bool = False) -> None:
        self.name = host.container
        self._host = host
        self.engine = Engine(host.docker_host)
        self._container = self._find(stopped)
        self._registry = Registry(**{key: value for key, value in access.items() if value is not None})
        self.major = self._major()
        inner = Path(self._inner_config())
        self.config_path = Path(self._mounted(str(inner.parent), host.config_path), inner.name)
        self.kept_path = Path(f"{self.config_path}{KEPT}")
        self.config = self._read_config()
        self.driver = self.config.driver()
        self.root = None
        if self.driver == "filesystem":
            root = self.config.get("storage", "filesystem", "rootdirectory") or _DATA_DIR
            self.root = self._mounted(root, host.data_path)
        self._refuse_what_does_not_fit()

    # --- finding it -----------------------------------------------------------------------------------------
    def _find(self, stopped):
        found = self.engine.container(self.name)
        if found is None:
            raise HomelabError(
                f"there is no container {self.name}", self._host.docker_host, "name the registry's container"
            )
        if LABEL not in (found["Config"].get("Labels") or {}):
            raise HomelabError(
                f"the container {self.name} was not made by site.yml (image {found['Config'].get('Image')})",
                self._host.docker_host,
                "name the registry's container, or deploy the registry by site.yml",
            )
        state = found["State"]
        if not stopped and not state.get("Running"):
            raise HomelabError(
                f"the registry's container {self.name} is not running: {state.get('Status')},"
                f" exit code {state.get('ExitCode')}",
                self._host.docker_host,
                f"start it (docker start {self.name}), or see why it ends (docker logs {self.name})",
            )
        return found

    def _major(self):
        major = detect_major(self._container)
        if major is None:
            raise HomelabError(
                f"the version of the registry in the container {self.name} is not known",
                self._host.docker_host,
                "deploy it by site.yml with registry_major_version",
            )
        return major

    def _inner_config(self):
        config = self._container["Config"]
        for word in reversed([*(config.get("Entrypoint") or []), *(config.get("Cmd") or [])]):
            if word.endswith((".yml", ".yaml")):
                return word
        raise HomelabError(
            f"the command of the container {self.name} names no configuration", self._host.docker_host, "run site.yml"
        )

    def _mounted(self, inner, wanted):
        """The directory on this machine that the container sees as `inner`."""
        inner = os.path.normpath(inner)
        mounts = [
            mount
            for mount in self._container.get("Mounts") or []
            if inner == mount["Destination"] or inner.startswith(mount["Destination"].rstrip("/") + "/")
        ]
        if not mounts:
            raise HomelabError(
                f"{inner} of the container {self.name} is not mounted from this machine",
                self._host.docker_host,
                "deploy the registry by site.yml",
            )
        mount = max(mounts, key=lambda one: len(one["Destination"]))
        source, volume = mount["Source"], mount.get("Name")
        if wanted and volume and wanted != volume and Path(wanted).name == volume:
            source = wanted  # the jobs' container has the volume mounted there
        if wanted and wanted != volume and os.path.realpath(wanted) != os.path.realpath(source):
            raise HomelabError(
                f"the container {self.name} has {source} mounted at {mount['Destination']}, not {wanted}",
                self._host.docker_host,
                "is it the right container? Else correct the path",
            )
        return os.path.normpath(f"{source}/{os.path.relpath(inner, mount['Destination'])}")

    def _read_config(self):
        path = self.kept_path if self.kept_path.exists() else self.config_path
        try:
            return ConfigFile(path.read_text(encoding="utf-8"), str(path))
        except (OSError, UnicodeDecodeError) as error:
            said = getattr(error, "strerror", None) or error
            raise HomelabError(
                f"the registry's configuration cannot be read: {said}", str(path), "run it as root on the registry host"
            ) from error

    def _refuse_what_does_not_fit(self):
        if self.config.keys("proxy") or self.config.get("proxy"):
            raise HomelabError(
                f"the registry in the container {self.name} is a pull-through cache, which clears up by itself",
                str(self.config_path),
                "name the container of the registry that images are pushed to",
            )
        for setting in self._container["Config"].get("Env") or []:
            if setting.startswith("REGISTRY_STORAGE"):
                raise HomelabError(
                    f"{setting.partition('=')[0]} in the container's environment goes before its configuration",
                    f"container {self.name}",
                    "put it into the configuration (registry_config_extra)",
                )

    @property
    def url(self) -> str:
        """Address of its API."""
        return self._registry.url

    @property
    def switched(self) -> bool:
        """Whether a maintenance has begun that did not put the configuration back."""
        return self.kept_path.exists()

    @property
    def configured_read_only(self) -> bool:
        """Whether it is to be read-only anyway."""
        return self.config.get("storage", "maintenance", "readonly", "enabled") == "true"

    # --- writes ---------------------------------------------------------------------------------------------
    def takes_writes(self) -> bool:
        """Ask it: it begins an upload, which is given up at once, or refuses.

        A full disk counts as taking writes: nothing forbids them.

        Raises:
            Denied: the account may not push. HomelabError: it does not answer, or not as a registry.
        """
        repository = canary.NAME
        answer = self._registry.request(
            "POST",
            f"/v2/{repository}/blobs/uploads/",
            headers={"Content-Length": "0"},
            scopes=(f"repository:{repository}:pull,push",),
            retry=False,
        )
        if answer.status == 405:
            return False
        if answer.status == 202:
            with suppress(HomelabError):
                self._registry.request(
                    "DELETE", answer.headers.get("location", ""), scopes=(f"repository:{repository}:pull,push",)
                )
            return True
        if answer.status in (500, 507):
            return True
        self._registry.check(answer, (202,), f"starting an upload to {repository}")
        return True

    def is_read_only(self) -> bool:
        """Whether it refuses writes; see takes_writes."""
        return not self.takes_writes()

    def _wait(self, writes):
        """Wait until it answers, and takes writes or refuses them."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                if self.takes_writes() == writes:
                    return
                problem = HomelabError(
                    "the registry still takes writes" if not writes else "the registry still refuses writes",
                    self._registry.url,
                    f"is this the address of the container {self.name}?",
                )
            except HomelabError as error:
                problem = error
            if time.monotonic() >= deadline:
                raise problem
            time.sleep(_PACE)

    def restart(self) -> None:
        """Restart the container, which also empties a cache in the server's memory. Running requests may end first
        (registry_drain_timeout).

        Raises:
            HomelabError: the engine cannot.
        """
        self.engine.restart(self._container["Id"], (self._container["Config"].get("StopTimeout") or 10) + 60)
        self._registry.close()

    def make_read_only(self) -> None:
        """Pulls go on, writes are refused.

        Raises:
            HomelabError: the configuration cannot be changed, or the server still takes writes then.
        """
        text = self.config.read_only()
        self._keep()
        write_atomic(str(self.config_path), text, 0o400)
        self.restart()
        self._wait(writes=False)

    def _keep(self):
        try:
            try:
                os.link(self.config_path, self.kept_path)  # the very file: owner, mode, times
            except FileExistsError:
                raise
            except OSError:  # not every file system has links
                temporary = Path(f"{self.kept_path}.new")
                shutil.copy2(self.config_path, temporary)
                state = self.config_path.stat()
                os.chown(temporary, state.st_uid, state.st_gid)
                temporary.rename(self.kept_path)
            _sync(self.config_path.parent)
        except OSError as error:
            raise HomelabError(
                f"the registry's configuration cannot be kept: {error.strerror}", str(self.kept_path), "run it as root"
            ) from error

    def put_config_back(self) -> bool:
        """Put the original configuration in place, from any state in which that was left; whether it was not there."""
        try:
            for left in (*self.config_path.parent.glob(f".{self.config_path.name}.*"), Path(f"{self.kept_path}.new")):
                left.unlink(missing_ok=True)  # of a write that was cut off
            if not self.kept_path.exists():
                return False
            if self._is_another_s():
                self.kept_path.unlink()
            else:
                self.kept_path.replace(self.config_path)
            _sync(self.config_path.parent)
        except OSError as error:
            raise HomelabError(
                f"the registry's configuration cannot be put back: {error.strerror}",
                str(self.kept_path),
                f"rename it to {self.config_path.name} and restart the container {self.name}",
            ) from error
        return True

    def _is_another_s(self):
        """Whether config.yml is neither missing nor the one that make_read_only has written: the original itself, which
        to rename onto itself would leave both, or a newer one of site.yml, which must not be lost."""
        try:
            return self.config_path.read_text(encoding="utf-8") != self.config.read_only()
        except FileNotFoundError:
            return False
        except UnicodeDecodeError:
            return True

    def make_writable(self, writes: bool = True) -> None:
        """Put its configuration back and restart it.

        Args:
            writes: False for one that is configured to be read-only.

        Raises:
            HomelabError: the engine cannot, or it still refuses writes.
        """
        self.put_config_back()
        self.restart()
        self._wait(writes)

    # --- the cache ------------------------------------------------------------------------------------------
    def check_cache(self) -> None:
        """Make sure that the cache can be emptied later, and that nobody else's data is in it.

        Raises:
            HomelabError: it cannot, or there is.
        """
        if redis := self._redis():
            with redis:
                foreign = redis.foreign_key()
            if foreign:
                raise HomelabError(
                    f"database {redis.db} of Redis at {redis.address} also holds what is not the registry's, such as"
                    f" {foreign[:80]!r}",
                    "redis",
                    "give the registry a database of its own (registry_redis_db)",
                )

    def flush_cache(self) -> None:
        """Empty a cache that outlives the server.

        Raises:
            HomelabError: it cannot be emptied.
        """
        if redis := self._redis():
            with redis:
                redis.flush()

    def _redis(self):
        config = self.config
        if "redis" not in (
            config.get("storage", "cache", "blobdescriptor"),
            config.get("storage", "cache", "layerinfo"),
        ):
            return None
        given = self._host.redis or {}
        address = given.get("addr") or config.get("redis", "addr") or config.get("redis", "addrs", 0)
        if not address:
            raise HomelabError("the address of Redis is not known", config.where, "set redis.addr")
        username = given.get("username") or config.get("redis", "username")
        password = given.get("password") or config.get("redis", "password")
        db = given.get("db")
        return Redis(address, password, int(config.get("redis", "db") or 0) if db is None else db, username)

    # --- garbage-collect ------------------------------------------------------------------------------------
    @property
    def helper(self) -> str:
        """Name of the container in which garbage-collect runs."""
        return self.name + HELPER

    def refuse_if_collecting(self) -> None:
        """Raises HomelabError if a garbage collection runs already, also one of another machine's making."""
        found = self.engine.container(self.helper)
        if found and found["State"].get("Running"):
            raise HomelabError(
                "a garbage collection is under way on this registry",
                f"container {self.helper}, since {found['State'].get('StartedAt', '')[:19]}Z",
                "wait until it is done",
            )

    def garbage_collect(self, dry_run: bool) -> Finished:
        """Run the server's own `garbage-collect`, never with --delete-untagged, in a container of its own: the same
        image, user, directories and environment as the server's.

        Raises:
            HomelabError: it cannot be run; when it is not a dry run, also: it failed.
        """
        self.engine.remove_container(self.helper)  # of a run that was cut off
        container, inner = self._container, self._inner_config()
        config, host = container["Config"], container["HostConfig"]
        finished = self.engine.run(
            self.helper,
            {
                "Image": container["Image"],
                "Entrypoint": config.get("Entrypoint"),
                "Cmd": ["garbage-collect", *(["--dry-run"] if dry_run else []), inner],
                "User": config.get("User") or "",
                "Env": config.get("Env") or [],
                "Labels": {"homelab.registry": "garbage-collect"},
                "AttachStdout": True,
                "AttachStderr": True,
                "HostConfig": {
                    "Mounts": [_mount(one) for one in container.get("Mounts") or []],
                    # Object stores are reached as the server reaches them.
                    "NetworkMode": "none" if self.driver == "filesystem" else f"container:{container['Id']}",
                    "ReadonlyRootfs": bool(host.get("ReadonlyRootfs")),
                    "Tmpfs": host.get("Tmpfs"),
                    "CapAdd": host.get("CapAdd"),
                    "CapDrop": host.get("CapDrop"),
                    "SecurityOpt": host.get("SecurityOpt"),
                    "UsernsMode": host.get("UsernsMode") or "",
                    "LogConfig": {"Type": "none"},
                },
            },
        )
        if finished.code and not dry_run:
            said = [line for line in (finished.output + finished.errors).splitlines() if line.strip()]
            raise HomelabError(
                f"the server's garbage collection ended with code {finished.code}: {(said or ['nothing'])[-1][-300:]}",
                f"container {self.helper}",
                "run verify to see what is damaged",
            )
        return finished

    def stop_collecting(self) -> None:
        """Kill a garbage collection that is left over."""
        self.engine.remove_container(self.helper)


def _mount(mount):
    named = mount.get("Type") == "volume"
    return {
        "Type": "volume" if named else "bind",
        "Source": mount["Name"] if named else mount["Source"],
        "Target": mount["Destination"],
        "ReadOnly": not mount.get("RW", True),
    }


def _sync(directory):
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Watch:
    """Asks a server again and again whether it answers at all, as a client of it would meet it; a context manager.

    Attributes:
        unreachable: seconds in which it did not. longest: of them the longest time at one go.
    """

    def __init__(self, url: str) -> None:
        self.unreachable = self.longest = 0.0
        self._url = urlsplit(url)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_error) -> None:
        self._over.set()
        self._thread.join(10)

    def _connect(self):
        host, port = self._url.hostname, self._url.port
        if self._url.scheme != "https":
            return http.client.HTTPConnection(host, port, timeout=2)
        context = ssl.create_default_context()
        # Nothing is sent that anybody may not see, and only whether something answers counts.
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return http.client.HTTPSConnection(host, port, timeout=2, context=context)

    def _run(self):
        connection, since = None, None
        while True:
            asked, answers = time.monotonic(), False
            try:
                connection = connection or self._connect()
                connection.request("GET", "/v2/")
                response = connection.getresponse()
                response.read()
                answers = response.status < 500
                if response.will_close:
                    connection.close()
            except (OSError, http.client.HTTPException):
                if connection:
                    connection.close()
                connection = None
            if not answers and since is None:
                since = asked
            if since is not None and (answers or self._over.is_set()):
                gap, since = time.monotonic() - since, None
                self.unreachable += gap
                self.longest = max(self.longest, gap)
            if self._over.wait(_PACE) and since is None:
                return
