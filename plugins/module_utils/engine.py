# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""This machine's own Docker engine, asked over its unix socket: no SDK and no command line needed."""

from __future__ import annotations

import base64
import http.client
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from .errors import HomelabError

#: Seconds between two looks at what the engine is doing.
_PACE = 0.2
#: Stands for the status of an answer that did not come.
_LATE = 504
PID_FILES = ("/run/docker.pid", "/var/run/docker.pid", "/run/snap.docker/docker.pid")


class _NoSuch(HomelabError):
    """The engine does not have it."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float):
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Finished(NamedTuple):
    """What a container that was run to its end left: exit code, standard output, standard error."""

    code: int
    output: str
    errors: str


class Engine:
    """The few calls of the Docker Engine API that are needed here. Unversioned paths: every engine has them.

    Args:
        address: `unix:///path/to/socket`.
        timeout: seconds for one call; a pull is given ten times as much between two lines of progress.
    """

    def __init__(self, address: str = "unix:///var/run/docker.sock", timeout: float = 10):
        path = address[len("unix://"):]
        if not address.startswith("unix:///"):
            raise HomelabError(
                f"the engine address {address!r} is not a unix socket",
                remedy="use unix:///var/run/docker.sock (this work is done on the node itself)",
            )
        self.address, self._path, self._timeout = address, path, timeout

    def _request(
        self,
        method: str,
        path: str,
        timeout: float | None = None,
        body: dict | None = None,
        headers: dict | None = None,
    ) -> http.client.HTTPResponse:
        connection = _UnixConnection(self._path, timeout or self._timeout)
        headers = dict(headers or {})
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            return connection.getresponse()
        except PermissionError as error:
            raise HomelabError(f"the Docker engine at {self.address} refuses us", None, "run it as root") from error
        except (OSError, http.client.HTTPException) as error:
            raise HomelabError(
                f"no Docker engine answers at {self.address}: {error}",
                remedy="start it (systemctl start docker) and look at its log (journalctl -u docker)",
            ) from error

    def _json(self, method: str, path: str, timeout: float | None = None, body: dict | None = None) -> object:
        return self._object(self._request(method, path, timeout, body), path)

    def _object(self, response: http.client.HTTPResponse, path: str) -> object:
        try:
            body = response.read()
            if response.status < 400:
                return json.loads(body or b"null")
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise HomelabError(
                f"the answer of the engine at {self.address} to {path} broke off: {error}",
                remedy="look at its log (journalctl -u docker)",
            ) from error
        kind = _NoSuch if response.status == 404 else HomelabError
        raise kind(f"the engine at {self.address} answered {response.status} to {path}: {_message(body)}")

    def available(self) -> bool:
        """Whether an engine answers."""
        try:
            return self._request("GET", "/_ping").status == 200
        except HomelabError:
            return False

    def info(self) -> dict:
        """`docker info`: among others ServerVersion, RegistryConfig, Driver."""
        return self._json("GET", "/info")

    def containers(self) -> list[dict]:
        """`docker ps --all`: of each container among others Image and ImageID."""
        return self._json("GET", "/containers/json?all=1")

    def image(self, reference: str) -> dict | None:
        """`docker image inspect`: among others Id and RepoDigests; None if it is not in the engine's store."""
        try:
            return self._json("GET", f"/images/{quote(reference)}/json")
        except _NoSuch:
            return None

    def has_image(self, reference: str) -> bool:
        """Whether the image is in the engine's store."""
        response = self._request("GET", f"/images/{quote(reference)}/json")
        response.read()
        return response.status == 200

    def remove_image(self, reference: str) -> None:
        """Remove a reference (untag); the image goes with its last one."""
        self._json("DELETE", f"/images/{quote(reference)}")

    def pull(self, name: str, tag: str, account: tuple[str, str] | None = None) -> str:
        """Pull `name:tag` as the user would by `docker pull`.

        Args:
            account: name and password for the registry, if it wants a login.

        Returns:
            The digest the registry gave for the tag, `sha256:…`.

        Raises:
            HomelabError: the engine's own words for what went wrong.
        """
        headers = {}
        if account:
            login = json.dumps({"username": account[0], "password": account[1]}).encode()
            headers["X-Registry-Auth"] = base64.urlsafe_b64encode(login).decode("ascii")
        response = self._request(
            "POST",
            f"/images/create?fromImage={quote(name, safe='')}&tag={quote(tag)}",
            timeout=self._timeout * 10,
            headers=headers,
        )
        digest = ""
        if response.status != 200:
            raise HomelabError(f"{name}:{tag} cannot be pulled: {_message(response.read())}")
        try:
            for line in response:
                event = json.loads(line)
                if "error" in event:
                    raise HomelabError(f"{name}:{tag} cannot be pulled: {event['error']}")
                status = event.get("status", "")
                if status.startswith("Digest: "):
                    digest = status[len("Digest: "):]
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise HomelabError(f"{name}:{tag} cannot be pulled: the engine's answer broke off: {error}") from error
        return digest

    # --- containers -----------------------------------------------------------------------------------------
    def container(self, name: str) -> dict | None:
        """`docker container inspect`; None if there is no such container."""
        response = self._request("GET", f"/containers/{quote(name, safe='')}/json")
        if response.status == 404:
            response.read()
            return None
        return self._object(response, f"/containers/{name}/json")

    def restart(self, container: str, patience: float) -> None:
        """Stop a container as it wants to be stopped, and start it; one that does not run is started.

        Args:
            patience: seconds after which it is not waited for any more: its own stop timeout, and some.

        Raises:
            HomelabError: the engine's words.
        """
        self._json("POST", f"/containers/{quote(container, safe='')}/restart", patience)

    def remove_container(self, name: str) -> bool:
        """Kill and remove a container; whether there was one. Its volumes stay.

        Raises:
            HomelabError: the engine refuses, or the container is still there after a while.
        """
        patience = self._timeout * 6
        try:
            response = self._request("DELETE", f"/containers/{quote(name, safe='')}?force=1", patience)
            status, said = response.status, _message(response.read())
        except HomelabError as error:  # on a slow disk it takes its time
            status, said = _LATE, error.message
        if status == 404:
            return False
        # 409: it is being removed already
        if status >= 400 and not (status in (409, _LATE) and self._is_gone(name, patience)):
            raise HomelabError(f"the container {name} cannot be removed: {said}")
        return True

    def _is_gone(self, name, patience):
        deadline = time.monotonic() + patience
        while self.container(name) is not None:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_PACE)
        return True

    def run(self, name: str, settings: dict, silence: float = 3600) -> Finished:
        """Run a container to its end, and remove it, also after an error.

        Args:
            name: for the container; one that is there already is an error.
            settings: the body of the API's `POST /containers/create`.
            silence: seconds it may print nothing.

        Raises:
            HomelabError: it cannot be made or started, or its output broke off.
        """
        patience = self._timeout * 6
        made = self._json("POST", f"/containers/create?name={quote(name, safe='')}", patience, settings)["Id"]
        try:
            # Attached before it starts, so nothing is missed, and no log needs room on a disk that may be full.
            stream = self._request("POST", f"/containers/{made}/attach?stream=1&stdout=1&stderr=1", silence)
            if stream.status != 200:
                raise HomelabError(f"the container {name} cannot be listened to: {_message(stream.read())}")
            self._json("POST", f"/containers/{made}/start", patience)
            parts = {1: [], 2: []}
            try:
                for number, data in _frames(stream):
                    parts.setdefault(number, []).append(data)
            except (OSError, http.client.HTTPException) as error:
                raise HomelabError(f"the output of the container {name} broke off: {error}") from error
            code = self._json("POST", f"/containers/{made}/wait", patience)["StatusCode"]
        finally:
            self.remove_container(made)
        return Finished(code, *(b"".join(parts[number]).decode("utf-8", "replace") for number in (1, 2)))


def _frames(stream: http.client.HTTPResponse) -> Iterator[tuple[int, bytes]]:
    """The pieces of a container's output: 1 for its standard output or 2 for its standard error, and the bytes (Engine
    API, "Attach to a container")."""
    while header := stream.read(8):
        length = int.from_bytes(header[4:], "big")
        data = stream.read(length)
        if len(header) < 8 or len(data) < length:
            raise http.client.IncompleteRead(data)
        yield header[0], data


def _message(body: bytes) -> str:
    try:
        return json.loads(body)["message"]
    except (ValueError, KeyError, TypeError):
        return body[:200].decode("utf-8", "replace")


def daemon_process() -> tuple[int, list[str]] | None:
    """Process id and command line of this machine's dockerd, None if none runs.

    Engines inside containers (a lab, docker-in-docker) are visible in /proc too: a process counts only in
    this process's own pid namespace.
    """
    candidates = []
    for pid_file in PID_FILES:
        try:
            candidates.append(int(Path(pid_file).read_text(encoding="ascii")))
        except (OSError, ValueError):
            continue
    candidates += sorted(int(name) for name in os.listdir("/proc") if name.isdigit())  # noqa: PTH208 - names only
    for pid in candidates:
        proc = Path(f"/proc/{pid}")
        try:
            if (proc / "comm").read_text(encoding="utf-8").strip() != "dockerd":
                continue
            if (proc / "ns/pid").readlink() != Path("/proc/self/ns/pid").readlink():
                continue
            argv = (proc / "cmdline").read_bytes().rstrip(b"\0").decode("utf-8", "replace").split("\0")
            return pid, argv
        except OSError:  # gone meanwhile, or not ours to see
            continue
    return None
