# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Docker engine on a unix socket: the few calls that node work makes, answered as dockerd does."""

from __future__ import annotations

import json
import shutil
import socketserver
import tempfile
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

LOOPBACK = ["127.0.0.0/8", "::1/128"]


class FakeEngine:
    """Context manager; `address` is what clients are given.

    Attributes:
        config: its daemon.json (Path); `reload` reads it as a SIGHUP makes dockerd do.
        insecure, mirrors: the settings in effect.
        images: short references in the store.
        listed: the containers that it lists; inspected: what it says of images, by their IDs.
        registry: name:tag that can be pulled, to its digest; an Exception is an error in the stream.
        reloads: how often it was told to reload.
        obeys: keys that a reload takes over; dockerd keeps its old settings when it dislikes something.
        broken: makes `/info` and pulls answer half of what they should.
        containers: name to what `inspect` says.
        output: what a container that is run prints, pairs of (1 or 2, bytes), and `code` its exit code.
        created: settings of the containers that were made.
        lingers: status (None for no answer) of a removal, and how often the container is still seen after it.
    """

    def __init__(self, config: Path | None = None):
        self.config = config
        self.insecure, self.mirrors = [], []
        self.images, self.registry = set(), {}
        self.listed, self.inspected = [], {}
        self.requests = []
        self.reloads = 0
        self.obeys = {"insecure-registries", "registry-mirrors"}
        self.broken = False
        self.containers, self.created = {}, []
        self.output, self.code = [], 0
        self.lingers = None
        # pytest's own directories may be too long for a socket's path
        self._home = tempfile.mkdtemp(prefix="engine-")
        self.address = f"unix://{self._home}/docker.sock"
        self._server = _Server(f"{self._home}/docker.sock", _Handler)
        self._server.engine = self

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_exception):
        self._server.shutdown()
        self._server.server_close()
        shutil.rmtree(self._home)

    def reload(self):
        """Take over the keys that are in the file; an absent one leaves its setting as it is."""
        self.reloads += 1
        try:
            wanted = json.loads(self.config.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return
        if "insecure-registries" in wanted and "insecure-registries" in self.obeys:
            self.insecure = wanted["insecure-registries"]
        if "registry-mirrors" in wanted and "registry-mirrors" in self.obeys:
            self.mirrors = wanted["registry-mirrors"]

    def info(self):
        networks = [entry for entry in self.insecure if "/" in entry]
        names = [entry for entry in self.insecure if "/" not in entry]
        indexes = {name: {"Name": name, "Mirrors": [], "Secure": False} for name in names}
        mirrors = [entry.rstrip("/") + "/" for entry in self.mirrors]
        indexes["docker.io"] = {"Name": "docker.io", "Mirrors": mirrors, "Secure": True, "Official": True}
        return {
            "ServerVersion": "26.1.5",
            "RegistryConfig": {
                "IndexConfigs": indexes,
                "InsecureRegistryCIDRs": [*networks, *LOOPBACK],
                "Mirrors": mirrors or None,
            },
        }


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format, *args):  # noqa: A002 - the base class names it so
        pass

    def _answer(self, status, data=None, promised=0):
        body = b"" if data is None else json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(promised or len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _handle(self):
        engine = self.server.engine
        parts = urlsplit(self.path)
        path = unquote(parts.path)
        engine.requests.append(f"{self.command} {path}" + (f"?{parts.query}" if path == "/containers/json" else ""))
        image = _short(path[len("/images/"):].removesuffix("/json"))
        self.close_connection = True
        if path == "/_ping":
            self._answer(200, "OK")
        elif path == "/info":
            self._answer(200, engine.info(), promised=10**6 if engine.broken else 0)
        elif path == "/images/create":
            self._pull(engine, **{key: values[0] for key, values in parse_qs(parts.query).items()})
        elif path == "/containers/json":
            self._answer(200, engine.listed)
        elif self.command == "GET" and image in engine.inspected:
            self._answer(200, engine.inspected[image])
        elif path.startswith("/containers/"):
            self._container(engine, path[len("/containers/"):], parse_qs(parts.query))
        elif image not in engine.images:
            self._answer(404, {"message": f"No such image: {image}"})
        elif self.command == "DELETE":
            engine.images.remove(image)
            self._answer(200, [{"Untagged": image}])
        else:
            self._answer(200, {"RepoTags": [image]})

    do_GET = do_POST = do_DELETE = _handle

    def _container(self, engine, path, query):
        name, _slash, verb = path.rpartition("/")
        if path == "create":
            engine.created.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            name = query["name"][0]
            if name in engine.containers:
                self._answer(409, {"message": f"Conflict. The container name {name} is already in use"})
                return
            engine.containers[name] = {"Id": name, "State": {"Running": False}}
            self._answer(201, {"Id": name})
        elif (path if self.command == "DELETE" else name) not in engine.containers:
            self._answer(404, {"message": f"No such container: {name or path}"})
        elif self.command == "DELETE" and engine.lingers:
            if engine.lingers[0]:
                self._answer(engine.lingers[0], {"message": f"removal of container {path} is already in progress"})
        elif self.command == "DELETE":
            del engine.containers[path]
            self._answer(204)
        elif verb == "json":
            self._answer(200, engine.containers[name])
            if engine.lingers:
                engine.lingers = (engine.lingers[0], engine.lingers[1] - 1)
                if engine.lingers[1] == 0:
                    del engine.containers[name]
        elif verb in ("start", "restart"):
            engine.containers[name]["State"]["Running"] = True
            self._answer(204)
        elif verb == "attach":
            self.send_response(200)
            self.end_headers()
            frames = b"".join(bytes([n, 0, 0, 0]) + len(data).to_bytes(4, "big") + data for n, data in engine.output)
            self.wfile.write(frames[:-1] if engine.broken else frames)
        else:
            self._answer(200, {"StatusCode": engine.code})

    def _pull(self, engine, fromImage, tag):  # noqa: N803 - the API's own name
        reference = f"{fromImage}:{tag}"
        found = engine.registry.get(reference)
        if found is None:
            self._answer(404, {"message": f"manifest for {_short(reference)} not found: manifest unknown"})
            return
        events = [{"status": f"Pulling from {fromImage}", "id": tag}]
        if isinstance(found, Exception):
            events.append({"errorDetail": {"message": str(found)}, "error": str(found)})
        else:
            events += [{"status": f"Digest: {found}"}, {"status": "Status: Downloaded newer image"}]
            engine.images.add(_short(reference))
        self.send_response(200)
        self.end_headers()
        for event in events:
            text = json.dumps(event).encode() + b"\r\n"
            self.wfile.write(text[:9] if engine.broken else text)


def _short(reference: str) -> str:
    return reference.removeprefix("docker.io/library/")
