# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A registry on loopback that answers as distribution 2.8 does, and badly on demand.

Faithful where a client can tell: Accept rules, status codes, error bodies, absolute Location headers, the
checks before a manifest is taken. All in memory; `requests` keeps every "METHOD path" in order.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import ssl
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
#: Types that are only given to those who ask for them, and what they are called in the refusal.
OCI_NAMES = {OCI_INDEX: ("OCI index", "OCI indexes"), OCI_MANIFEST: ("OCI manifest", "OCI manifests")}

FAULTS = (
    "close",  # closes the connection without an answer
    "drop",  # answers, then closes the connection without a word, as an idle timeout does
    "garbage",  # answers something that is not HTTP
    "wrong bytes",  # hands out other bytes than were stored
    "no location",  # starts an upload without saying where
    "keeps deleted",  # says 202 to a DELETE and keeps the manifest, like a stale cache
    "500",  # a full disk: every write fails
)


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


class FakeRegistry:
    """Context manager; `url` is where it listens.

    Args:
        delete, readonly: as in the server's configuration.
        accounts: user name to password; None needs none.
        tls: (certificate, key) files; None is plain HTTP.
        plain: not a registry at all: a web server that says 200 to everything.
        faults: see FAULTS; may be changed while it runs.
    """

    def __init__(self, *, delete=True, readonly=False, accounts=None, tls=None, plain=False, faults=()):
        assert set(faults) <= set(FAULTS)
        self.delete, self.readonly, self.accounts, self.plain = delete, readonly, accounts, plain
        self.faults = set(faults)
        self.repositories = {}
        self.uploads = {}
        self.requests = []
        self.connections = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.registry = self
        self._server.handle_error = lambda request, client_address: None  # a TLS handshake that was refused
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.netloc = f"127.0.0.1:{self._server.server_address[1]}"
        self.url = f"{'https' if tls else 'http'}://{self.netloc}"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_exception):
        self._server.shutdown()
        self._server.server_close()

    def repository(self, name: str) -> dict:
        return self.repositories.setdefault(name, {"blobs": {}, "manifests": {}, "tags": {}})

    def tags(self, name: str) -> dict:
        """Tag to digest; empty for a repository that is not there."""
        return dict(self.repositories.get(name, {}).get("tags", {}))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self):
        super().setup()
        self.server.registry.connections += 1

    def log_message(self, format, *args):  # noqa: A002 - the base class names it so
        pass

    # --- answers -------------------------------------------------------------------------------------------
    def _answer(self, status, body=b"", **headers):
        self.send_response(status)
        self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
        for name, value in {"Content-Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _refuse(self, status, code, message, **headers):
        body = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
        self._answer(status, body, Content_Type="application/json", **headers)

    def _handle(self):
        registry = self.server.registry
        registry.requests.append(f"{self.command} {self.path}")
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if "close" in registry.faults:
            self.close_connection = True
            return
        if "garbage" in registry.faults:
            self.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n")
            self.close_connection = True
            return
        self._dispatch(registry)
        if "drop" in registry.faults:
            self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _handle

    def _dispatch(self, registry):
        if registry.plain:
            self.send_response(200)
            self.send_header("Content-Length", "3")
            self.end_headers()
            self.wfile.write(b"hi\n")
            return
        if registry.accounts is not None and not self._known(registry.accounts):
            self._refuse(
                401, "UNAUTHORIZED", "authentication required", WWW_Authenticate='Basic realm="test"'
            )
            return
        parts = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        if parts.path == "/v2/":
            self._answer(200, b"{}")
        elif parts.path == "/v2/_catalog":
            self._answer(200, json.dumps({"repositories": sorted(registry.repositories)}).encode())
        elif match := re.fullmatch(r"/v2/(.+)/blobs/uploads/(\S*)", parts.path):
            self._upload(registry, match[1], match[2], query)
        elif match := re.fullmatch(r"/v2/(.+)/blobs/([^/]+)", parts.path):
            self._blob(registry, match[1], match[2])
        elif match := re.fullmatch(r"/v2/(.+)/manifests/([^/]+)", parts.path):
            self._manifest(registry, match[1], match[2].replace("%3A", ":"))
        elif match := re.fullmatch(r"/v2/(.+)/tags/list", parts.path):
            self._tags(registry, match[1])
        else:
            self._answer(404, b"404 page not found\n")

    def _known(self, accounts):
        scheme, token = [*(self.headers.get("Authorization") or "").split(" ", 1), ""][:2]
        if scheme != "Basic":
            return False
        user, password = [*base64.b64decode(token).decode().split(":", 1), ""][:2]
        return accounts.get(user) == password

    def _write_refused(self, registry):
        if registry.readonly:
            self._answer(405, b"Method not allowed\n")
        elif "500" in registry.faults:
            body = {"errors": [{"code": "UNKNOWN", "message": "unknown error", "detail": {"Err": 28}}]}
            self._answer(500, json.dumps(body).encode())
        else:
            return False
        return True

    # --- uploads and blobs ---------------------------------------------------------------------------------
    def _upload(self, registry, name, upload, query):
        if self._write_refused(registry):
            return
        if self.command == "POST":
            repository = registry.repository(name)
            source = registry.repositories.get(query.get("from", ""), {"blobs": {}})
            if query.get("mount") in source["blobs"]:
                repository["blobs"][query["mount"]] = source["blobs"][query["mount"]]
                place = f"{registry.url}/v2/{name}/blobs/{query['mount']}"
                self._answer(201, Docker_Content_Digest=query["mount"], Location=place)
                return
            upload = str(uuid.uuid4())
            registry.uploads[upload] = b""
            headers = (
                {}
                if "no location" in registry.faults
                else {"Location": self._location(registry, name, upload)}
            )
            self._answer(202, **headers)  # also for POST ?digest=: nothing is stored
        elif upload not in registry.uploads:
            self._refuse(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
        elif self.command == "PATCH":
            registry.uploads[upload] += self.body
            self._answer(202, Location=self._location(registry, name, upload))
        else:
            data = registry.uploads.pop(upload) + self.body
            if digest_of(data) != query.get("digest"):
                self._refuse(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
                return
            registry.repository(name)["blobs"][digest_of(data)] = data
            self._answer(201, Docker_Content_Digest=digest_of(data))

    def _location(self, registry, name, upload):
        return f"{registry.url}/v2/{name}/blobs/uploads/{upload}?_state=abc%3D%3D"

    def _blob(self, registry, name, digest):
        data = registry.repositories.get(name, {"blobs": {}})["blobs"].get(digest)
        if data is None:
            self._refuse(404, "BLOB_UNKNOWN", "blob unknown to registry")
        else:
            self._answer(200, self._bytes(registry, data), Docker_Content_Digest=digest)

    def _bytes(self, registry, data):
        return data[:-1] + b"?" if "wrong bytes" in registry.faults else data

    # --- manifests -----------------------------------------------------------------------------------------
    def _manifest(self, registry, name, reference):
        repository = registry.repositories.get(name, {"blobs": {}, "manifests": {}, "tags": {}})
        digest = reference if ":" in reference else repository["tags"].get(reference)
        if self.command == "PUT":
            if not self._write_refused(registry):
                self._put_manifest(registry, name, reference)
        elif self.command == "DELETE":
            if not self._write_refused(registry):
                self._delete_manifest(registry, repository, reference)
        elif digest not in repository["manifests"]:
            self._refuse(404, "MANIFEST_UNKNOWN", "manifest unknown")
        else:
            kind, data = repository["manifests"][digest]
            if kind in OCI_NAMES and kind not in self._accepted():
                one, many = OCI_NAMES[kind]
                said = f"{one} found, but accept header does not support {many}"
                self._refuse(404, "MANIFEST_UNKNOWN", said)
                return
            if kind == DOCKER_LIST and kind not in self._accepted():
                # the trap for tools that delete by digest: one child instead of the list
                children = json.loads(data)["manifests"]
                digest = {child["platform"]["architecture"]: child["digest"] for child in children}["amd64"]
                kind, data = repository["manifests"][digest]
            self._answer(
                200,
                self._bytes(registry, data),
                Content_Type=kind,
                Docker_Content_Digest=digest,
                ETag=f'"{digest}"',
            )

    def _accepted(self):
        given = ",".join(self.headers.get_all("Accept") or [])
        return {item.split(";")[0].strip() for item in given.split(",")}

    def _put_manifest(self, registry, name, reference):
        repository = registry.repository(name)
        digest, data = digest_of(self.body), json.loads(self.body)
        if data.get("mediaType", self.headers["Content-Type"]) != self.headers["Content-Type"]:
            self._refuse(400, "MANIFEST_INVALID", "manifest invalid")
            return
        if ":" in reference and reference != digest:
            self._refuse(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
            return
        children = {item["digest"] for item in data.get("manifests", [])} - set(repository["manifests"])
        parts = [data["config"], *data["layers"]] if "config" in data else []
        if children or {item["digest"] for item in parts} - set(repository["blobs"]):
            self._refuse(400, "MANIFEST_BLOB_UNKNOWN", "blob unknown to registry")
            return
        repository["manifests"][digest] = (self.headers["Content-Type"], self.body)
        if ":" not in reference:
            repository["tags"][reference] = digest
        self._answer(
            201, Docker_Content_Digest=digest, Location=f"{registry.url}/v2/{name}/manifests/{digest}"
        )

    def _delete_manifest(self, registry, repository, reference):
        if not registry.delete:
            self._refuse(405, "UNSUPPORTED", "The operation is unsupported.")
        elif ":" not in reference:
            self._refuse(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
        elif reference not in repository["manifests"]:
            self._refuse(404, "MANIFEST_UNKNOWN", "manifest unknown")
        else:
            if "keeps deleted" not in registry.faults:
                del repository["manifests"][reference]
                repository["tags"] = {tag: aim for tag, aim in repository["tags"].items() if aim != reference}
            self._answer(202)

    def _tags(self, registry, name):
        if name not in registry.repositories:
            self._refuse(404, "NAME_UNKNOWN", "repository name not known to registry")
        else:
            tags = list(registry.tags(name)) or None
            self._answer(200, json.dumps({"name": name, "tags": tags}).encode())
