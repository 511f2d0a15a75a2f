# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small token server for tests: the Distribution project's token protocol, RS256, a process of its own.

token_server.py SETTINGS.json

Serves `GET /token` (account by Basic, none is a stranger) and `POST /token` (OAuth 2: password, refresh_token), and
gives of the scopes that are asked for those the account has. SETTINGS is read again for each request, so that a test
can make it sign with another key, name another issuer or give shorter lives:

    port, issuer, service, life (seconds), key (PEM file), certificate (PEM file; goes into x5c) or kid,
    accounts: {name: {password, refresh_token, grants: {"repository:team/*": ["pull"], "registry:catalog": ["*"]}}},
    with the stranger's grants under the name "".
"""

from __future__ import annotations

import base64
import fnmatch
import hmac
import json
import sys
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding


def encode(data: bytes) -> str:
    """base64url without padding (RFC 7515)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def granted(scopes: list[str], grants: dict) -> list[dict]:
    """The `access` claim: what was asked for, as far as it is allowed."""
    access = []
    for scope in scopes:
        kind, _colon, rest = scope.partition(":")
        name, _colon, wanted = rest.rpartition(":")
        allowed = set()
        for pattern, actions in grants.items():
            if fnmatch.fnmatchcase(f"{kind}:{name}", pattern):
                allowed.update(actions)
        actions = [action for action in wanted.split(",") if action in allowed]
        access.append({"type": kind, "name": name, "actions": actions})
    return access


def sign(settings: dict, subject: str, access: list[dict]) -> str:
    """A JSON web token (RFC 7519), with its certificate or the name of its key."""
    key = serialization.load_pem_private_key(Path(settings["key"]).read_bytes(), password=None)
    header = {"typ": "JWT", "alg": "RS256"}
    if settings.get("certificate"):
        certificate = x509.load_pem_x509_certificate(Path(settings["certificate"]).read_bytes())
        der = certificate.public_bytes(serialization.Encoding.DER)
        header["x5c"] = [base64.b64encode(der).decode("ascii")]  # not the URL kind (RFC 7515, 4.1.6)
    else:
        header["kid"] = settings["kid"]
    now = int(time.time())
    claims = {
        "iss": settings["issuer"], "sub": subject, "aud": settings["service"], "exp": now + settings["life"],
        "nbf": now - 10, "iat": now, "jti": uuid.uuid4().hex, "access": access,
    }
    signed = ".".join(encode(json.dumps(part).encode("utf-8")) for part in (header, claims))
    return f"{signed}.{encode(key.sign(signed.encode('ascii'), padding.PKCS1v15(), hashes.SHA256()))}"


def key_set(certificate: Path, kid: str) -> dict:
    """The JSON web key set with a certificate's key (RFC 7517)."""
    numbers = x509.load_pem_x509_certificate(certificate.read_bytes()).public_key().public_numbers()
    number = {
        name: encode(value.to_bytes((value.bit_length() + 7) // 8, "big"))
        for name, value in (("n", numbers.n), ("e", numbers.e))
    }
    return {"keys": [{"kty": "RSA", "alg": "RS256", "use": "sig", "kid": kid, **number}]}


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    protocol_version = "HTTP/1.1"
    settings_path: Path

    def do_GET(self):
        parts = urlsplit(self.path)
        asked = parse_qs(parts.query)
        name, password = "", None
        header = self.headers.get("Authorization", "")
        if header.startswith("Basic "):
            name, _colon, password = base64.b64decode(header[6:]).decode("utf-8").partition(":")
        self.grant(parts.path, asked, name, "password", password)

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        asked = parse_qs(body.decode("ascii"))
        kind = asked.get("grant_type", [""])[0]
        secret = asked.get({"password": "password", "refresh_token": "refresh_token"}.get(kind, ""), [""])[0]
        self.grant(urlsplit(self.path).path, asked, asked.get("username", [""])[0], kind, secret)

    def grant(self, path, asked, name, kind, secret):
        settings = json.loads(self.settings_path.read_text(encoding="utf-8"))
        accounts = settings["accounts"]
        if path != "/token" or asked.get("service", [settings["service"]]) != [settings["service"]]:
            return self.answer(404, {"details": "no such service"})
        if kind == "refresh_token":  # it tells who it is for
            name = next((one for one in accounts if accounts[one].get("refresh_token") == secret), name)
        known = accounts.get(name, {}).get(kind)
        stranger = not name and secret is None
        if not stranger and not (known and hmac.compare_digest(known.encode("utf-8"), str(secret).encode("utf-8"))):
            return self.answer(401, {"details": "wrong account"})
        scopes = " ".join(asked.get("scope", [])).split()
        token = sign(settings, name, granted(scopes, accounts.get(name, {}).get("grants", {})))
        document = {"token": token, "access_token": token, "expires_in": settings["life"]}
        if "true" in asked.get("offline_token", []) and accounts[name].get("refresh_token"):
            document["refresh_token"] = accounts[name]["refresh_token"]
        return self.answer(200, document)

    def answer(self, status, document):
        body = json.dumps(document).encode("utf-8")
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main():
    """Serve until the process is stopped; says so on stdout when it listens."""
    Handler.settings_path = Path(sys.argv[1])
    port = json.loads(Handler.settings_path.read_text(encoding="utf-8"))["port"]
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    print(f"listening on {port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
