# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A registry on loopback that answers as distribution 2.8 does, and badly on demand.

Faithful where a client can tell: Accept rules, status codes, error bodies, absolute Location headers, the
checks before a manifest is taken. All in memory; `requests` keeps every "METHOD path" in order, `seen` what came
with it. It is its own token server, and another one can be the object store that its blobs are redirected to.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import ssl
import subprocess
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, parse_qsl, urlsplit

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
    "wrong digest",  # names another digest than that of the manifest
    "no digest",  # names none
    "no range",  # ignores Range
    "wrong range",  # answers Range with other bytes than asked for
    "any digest",  # stores a blob under whatever digest it is sent as
    "no mount",  # starts an upload instead
    "chunked",  # sends blobs without saying how long they are
)


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def certificate(home, name="server"):
    """Make a certificate for 127.0.0.1, signed by itself; returns the paths of it and its key."""
    files = [str(Path(home) / f"{name}.{kind}") for kind in ("pem", "key")]
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=test"
    command += f" -addext subjectAltName=IP:127.0.0.1 -out {files[0]} -keyout {files[1]}"
    subprocess.run(command.split(), check=True, capture_output=True)
    return tuple(files)


class FakeRegistry:
    """Context manager; `url` is where it listens.

    Args:
        delete, readonly: as in the server's configuration.
        accounts: user name to password; None needs none.
        tokens: seconds that its bearer tokens say they live: accounts (all are anonymous where there are none) are
            then good for tokens only. `expire()` ends those that were given out.
        private: repositories for which the token server gives tokens to accounts only.
        tls: (certificate, key) files; None is plain HTTP.
        client_ca: the certificate that a client may identify itself with.
        plain: not a registry at all: a web server that says 200 to everything.
        store: the FakeRegistry that blobs are fetched from (307), as from an object store.
        page: names in a page of a list; None gives all, as 2.8 does for tags.
        referrers: whether it has the referrers API.
        faults: see FAULTS; may be changed while it runs.

    Attributes:
        requests: "METHOD path" of each request; `count("HEAD")` counts.
        seen: (method, path, headers, whether a client certificate came) of each request.
        headers: sent with each answer.
        delay: seconds before each answer.
        by_tag: whether it deletes a tag alone, as 3.x does; "with its manifest": as some other registries do.
        break_blobs: list; each entry ends one blob's answer after so many bytes.
        break_uploads: list; each entry closes the connection after so many bytes of one upload.
        full_after: bytes of an upload after which it answers `full` (500) and closes, without reading on.
    """

    def __init__(
        self,
        *,
        delete=True,
        readonly=False,
        accounts=None,
        tokens=None,
        private=(),
        tls=None,
        client_ca=None,
        plain=False,
        store=None,
        page=None,
        referrers=False,
        faults=(),
    ):
        assert set(faults) <= set(FAULTS)
        self.delete, self.readonly, self.accounts, self.plain = delete, readonly, accounts, plain
        self.tokens, self.private, self.store, self.page, self.referrers = tokens, private, store, page, referrers
        self.faults = set(faults)
        self.repositories = {}
        self.uploads = {}
        self.requests = []
        self.seen = []
        self.connections = 0
        self.headers = {}
        self.delay = 0
        self.by_tag = False
        self.break_blobs, self.break_uploads = [], []
        self.full_after, self.full = None, (500, {})
        self._said = []
        self.issued = {}
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.registry = self
        self._server.handle_error = lambda request, client_address: None  # a TLS handshake that was refused
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            if client_ca:
                context.verify_mode = ssl.CERT_OPTIONAL
                context.load_verify_locations(client_ca)
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

    def say(self, status, body=b"", *, method=None, path="", times=1, **headers):
        """Answer the next requests (of a method, with `path` in their path) with this instead."""
        self._said += [(method, path, status, body, headers)] * times

    def said(self, method, path):
        for number, (wanted, part, *answer) in enumerate(self._said):
            if wanted in (None, method) and part in path:
                del self._said[number]
                return answer
        return None

    def count(self, method, path="") -> int:
        """Requests of a method with `path` in their path."""
        return sum(one.startswith(f"{method} ") and path in one for one in self.requests)

    def expire(self):
        """No token that was given out is good any more."""
        self.issued.clear()

    def tags(self, name: str) -> dict:
        """Tag to digest; empty for a repository that is not there."""
        return dict(self.repositories.get(name, {}).get("tags", {}))


class _Server(ThreadingHTTPServer):
    # Clients with many threads connect all at once; beyond five waiting ones the kernel would let them try again.
    request_queue_size = 64


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
        for name, value in {"Content-Length": len(body), **self.server.registry.headers, **headers}.items():
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
        identified = registry.url.startswith("https") and bool(self.connection.getpeercert())
        registry.seen.append((self.command, self.path, dict(self.headers.items()), identified))
        if not self._read_body(registry):
            return
        if registry.delay:
            time.sleep(registry.delay)
        said = registry.said(self.command, self.path)
        if said:
            self._answer(said[0], said[1], **said[2])
            return
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

    def _read_body(self, registry):
        """False if the request ends here."""
        length = int(self.headers.get("Content-Length") or 0)
        if self.command == "PUT" and "/blobs/uploads/" in self.path:
            if registry.full_after is not None and length > registry.full_after:
                self.rfile.read(registry.full_after)
                body = {"errors": [{"code": "UNKNOWN", "message": "unknown error", "detail": {"Err": 28}}]}
                status, headers = registry.full
                self._answer(status, json.dumps(body).encode(), Connection="close", **headers)
                self.close_connection = True
                return False
            if registry.break_uploads:
                self.rfile.read(registry.break_uploads.pop(0))
                self.close_connection = True
                return False
        self.body = self.rfile.read(length)
        if len(self.body) < length:  # the client gave up
            self.close_connection = True
            return False
        return True

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _handle

    def _dispatch(self, registry):
        if registry.plain:
            self.send_response(200)
            self.send_header("Content-Length", "3")
            self.end_headers()
            self.wfile.write(b"hi\n")
            return
        parts = urlsplit(self.path)
        if parts.path == "/token":
            self._token(registry, parts.query)
            return
        if registry.tokens is not None:
            missing = self._missing_scope(registry, parts)
            if missing is not None:
                scope = f',scope="{missing}"' if missing else ""
                challenge = f'Bearer realm="{registry.url}/token",service="fake, registry"{scope}'
                self._refuse(401, "UNAUTHORIZED", "authentication required", WWW_Authenticate=challenge)
                return
        elif registry.accounts is not None and not self._known(registry.accounts):
            self._refuse(401, "UNAUTHORIZED", "authentication required", WWW_Authenticate='Basic realm="test"')
            return
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        if parts.path == "/v2/":
            self._answer(200, b"{}")
        elif parts.path == "/v2/_catalog":
            self._list(registry, "repositories", sorted(registry.repositories), query)
        elif match := re.fullmatch(r"/v2/(.+)/blobs/uploads/(\S*)", parts.path):
            self._upload(registry, match[1], match[2], query)
        elif match := re.fullmatch(r"/v2/(.+)/blobs/([^/]+)", parts.path):
            self._blob(registry, match[1], match[2].replace("%3A", ":"))
        elif match := re.fullmatch(r"/v2/(.+)/manifests/([^/]+)", parts.path):
            self._manifest(registry, match[1], match[2].replace("%3A", ":"))
        elif match := re.fullmatch(r"/v2/(.+)/tags/list", parts.path):
            self._tags(registry, match[1], query)
        elif (match := re.fullmatch(r"/v2/(.+)/referrers/([^/]+)", parts.path)) and registry.referrers:
            self._referrers(registry, match[1], match[2])
        elif match := re.fullmatch(r"/store/(.+)", parts.path):
            self._send_blob(registry, registry.repository("store")["blobs"][match[1]], match[1])
        else:
            self._answer(404, b"404 page not found\n")

    def _known(self, accounts):
        scheme, token = [*(self.headers.get("Authorization") or "").split(" ", 1), ""][:2]
        if scheme != "Basic":
            return False
        user, password = [*base64.b64decode(token).decode().split(":", 1), ""][:2]
        return accounts.get(user) == password

    # --- tokens --------------------------------------------------------------------------------------------
    def _token(self, registry, query):
        given = parse_qsl(query) + parse_qsl(self.body.decode())
        fields = dict(given)
        user = None
        if self.command == "POST":
            user = (registry.accounts or {}).get("<token>") == fields["refresh_token"]
        elif self.headers.get("Authorization"):
            user = self._known(registry.accounts or {})
        if user is False:
            self._answer(401, b'{"details":"incorrect username or password"}')
            return
        scopes = " ".join(value for key, value in given if key == "scope").split()
        if not user:
            scopes = [scope for scope in scopes if scope.split(":")[1] not in registry.private]
        if registry.accounts is not None and not user:
            scopes = [re.sub("(:pull)?,push$|:push$", r"\1", scope) for scope in scopes]
        token = f"token-{uuid.uuid4()}"
        registry.issued[token] = scopes
        body = {"access_token" if self.command == "POST" else "token": token}
        if registry.tokens:
            body["expires_in"] = registry.tokens
        self._answer(200, json.dumps(body).encode())

    def _missing_scope(self, registry, parts):
        """The scope that the request's token lacks, "" for any token, None if it is good."""
        issued = registry.issued.get((self.headers.get("Authorization") or "").removeprefix("Bearer "))
        match = re.match("/v2/(.+)/(blobs|manifests|tags|referrers)/", parts.path)
        if match:
            action = {"GET": "pull", "HEAD": "pull", "DELETE": "delete"}.get(self.command, "push")
            if action == "delete" and match[2] == "blobs":
                action = "push"
            kind, name = "repository", match[1]
            shown = {"push": "pull,push"}.get(action, action)
        elif parts.path == "/v2/_catalog":
            kind, name, action, shown = "registry", "catalog", "*", "*"
        else:
            return None if issued is not None else ""
        for scope in issued or ():
            have = scope.split(":")
            if have[:2] == [kind, name] and action in have[2].split(","):
                return None
        return f"{kind}:{name}:{shown}"

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
            if query.get("mount") in source["blobs"] and "no mount" not in registry.faults:
                repository["blobs"][query["mount"]] = source["blobs"][query["mount"]]
                place = f"{registry.url}/v2/{name}/blobs/{query['mount']}"
                self._answer(201, Docker_Content_Digest=query["mount"], Location=place)
                return
            upload = str(uuid.uuid4())
            registry.uploads[upload] = b""
            headers = {} if "no location" in registry.faults else {"Location": self._location(registry, name, upload)}
            self._answer(202, **headers)  # also for POST ?digest=: nothing is stored
        elif upload not in registry.uploads:
            self._refuse(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
        elif self.command == "DELETE":
            del registry.uploads[upload]
            self._answer(204)
        elif self.command == "PATCH":
            registry.uploads[upload] += self.body
            self._answer(202, Location=self._location(registry, name, upload))
        else:
            data = registry.uploads.pop(upload) + self.body
            if "any digest" in registry.faults:
                registry.repository(name)["blobs"][query["digest"]] = data
                self._answer(201)
                return
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
            if registry.store and self.command == "GET":
                registry.store.repository("store")["blobs"][digest] = data
                place = f"{registry.store.url}/store/{digest}?signature=S3cret"
                self._answer(307, b"<a>Temporary Redirect</a>", Location=place)
            else:
                self._send_blob(registry, self._bytes(registry, data), digest)

    def _send_blob(self, registry, data, digest):
        status, headers = 200, {"Docker_Content_Digest": digest}
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if match and "no range" not in registry.faults:
            start = int(match[1])
            if start >= len(data):
                self._answer(416, Content_Range=f"bytes */{len(data)}")
                return
            start -= "wrong range" in registry.faults
            status, headers["Content_Range"] = 206, f"bytes {start}-{len(data) - 1}/{len(data)}"
            data = data[start:]
        if self.command == "HEAD" or not (registry.break_blobs or "chunked" in registry.faults):
            self._answer(status, data, **headers)
            return
        whole, data = len(data), data[: registry.break_blobs.pop(0)] if registry.break_blobs else data
        self.send_response(status)
        for name, value in {**headers, **registry.headers}.items():
            self.send_header(name.replace("_", "-"), value)
        if "chunked" in registry.faults:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data) if data else b"")
            self.wfile.write(b"0\r\n\r\n" if len(data) == whole else b"")
        else:
            self.send_header("Content-Length", str(whole))
            self.end_headers()
            self.wfile.write(data)
        self.close_connection = len(data) < whole

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
            told = digest_of(b"another") if "wrong digest" in registry.faults else digest
            named = {} if "no digest" in registry.faults else {"Docker_Content_Digest": told}
            self._answer(200, self._bytes(registry, data), Content_Type=kind, ETag=f'"{digest}"', **named)

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
        told = digest_of(b"another") if "wrong digest" in registry.faults else digest
        headers = {"OCI_Subject": data["subject"]["digest"]} if registry.referrers and "subject" in data else {}
        place = f"{registry.url}/v2/{name}/manifests/{digest}"
        self._answer(201, Docker_Content_Digest=told, Location=place, **headers)

    def _delete_manifest(self, registry, repository, reference):
        if not registry.delete:
            self._refuse(405, "UNSUPPORTED", "The operation is unsupported.")
        elif ":" not in reference and registry.by_tag:
            if reference not in repository["tags"]:
                self._refuse(404, "MANIFEST_UNKNOWN", "manifest unknown")
                return
            digest = repository["tags"].pop(reference)
            if registry.by_tag == "with its manifest":
                del repository["manifests"][digest]
            self._answer(202)
        elif ":" not in reference:
            self._refuse(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
        elif reference not in repository["manifests"]:
            self._refuse(404, "MANIFEST_UNKNOWN", "manifest unknown")
        else:
            if "keeps deleted" not in registry.faults:
                del repository["manifests"][reference]
                repository["tags"] = {tag: aim for tag, aim in repository["tags"].items() if aim != reference}
            self._answer(202)

    # --- lists ---------------------------------------------------------------------------------------------
    def _tags(self, registry, name, query):
        held = registry.repositories.get(name)
        if not held or (held["blobs"] and not held["tags"] and not held["manifests"]):  # blobs alone make none
            self._refuse(404, "NAME_UNKNOWN", "repository name not known to registry")
        else:
            self._list(registry, "tags", list(registry.tags(name)), query)

    def _list(self, registry, key, names, query):
        """A page; as in 3.1 a full last page names another, which holds null."""
        headers = {}
        if registry.page:
            names = [name for name in sorted(names) if name > query.get("last", "")][: registry.page]
            if len(names) == registry.page:
                path = urlsplit(self.path).path
                headers["Link"] = f'<{path}?last={names[-1]}&n={registry.page}>; rel="next"'
        self._answer(200, json.dumps({key: names or None}).encode(), **headers)

    def _referrers(self, registry, name, digest):
        found = []
        for known, (kind, data) in registry.repository(name)["manifests"].items():
            document = json.loads(data)
            if document.get("subject", {}).get("digest") == digest:
                found.append({"mediaType": kind, "digest": known, "size": len(data)})
        body = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": found}).encode()
        self._answer(200, body, Content_Type=OCI_INDEX)
