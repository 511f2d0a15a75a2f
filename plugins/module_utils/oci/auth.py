# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Accounts of registries: challenges, bearer tokens, and the Docker client's config file."""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import threading
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlencode, urlsplit

from ..errors import HomelabError

#: Seconds a token lives when its server does not say (distribution spec, token authentication).
TOKEN_LIFE = 60
CLIENT_ID = "homelab.registry"
#: Seconds a credential helper may take.
HELPER_TIMEOUT = 15
#: Under this key the Docker client keeps the account of Docker Hub.
HUB_KEY = "https://index.docker.io/v1/"
HUB_HOSTS = frozenset(("docker.io", "index.docker.io", "registry-1.docker.io"))


class Denied(HomelabError):
    """The registry, or its token server, wants another account or none of ours (401, 403)."""


@dataclass(frozen=True)
class Credentials:
    """An account: user name and password, or an identity token (an OAuth2 refresh token)."""

    username: str | None
    password: str | None = field(default=None, repr=False)
    identity_token: str | None = field(default=None, repr=False)

    def basic(self) -> str:
        """The value of an Authorization header (RFC 7617, in UTF-8)."""
        pair = f"{self.username}:{self.password or ''}".encode()
        return "Basic " + base64.b64encode(pair).decode("ascii")

    def hide(self, text: str) -> str:
        """The text without our secrets, for a message that quotes a server."""
        for secret in (self.password, self.identity_token):
            if secret:
                text = text.replace(secret, "********")
        return text


# --- challenges ---------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Challenge:
    """One way to authenticate that a server offers; scheme and names of parameters in lower case."""

    scheme: str
    params: dict = field(hash=False)


_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
# A URL without quotes is no token, but some servers send their realm like that.
_PARAMETER = re.compile(rf'({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_SCHEME = re.compile(rf"({_TOKEN})(?=[\s,]|$)")


def parse_challenges(header: str) -> list[Challenge]:
    """What a WWW-Authenticate header offers (RFC 9110 section 11.6.1); several in one header are fine.

    What cannot be read ends the list: a server's nonsense is no reason to fail before its answer is shown.
    """
    found = []
    position = 0
    while True:
        position += len(header[position:]) - len(header[position:].lstrip(" \t,"))
        parameter = _PARAMETER.match(header, position) if found else None
        if parameter:
            name, quoted, plain = parameter.groups()
            value = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            found[-1].params[name.lower()] = value
            position = parameter.end()
            continue
        scheme = _SCHEME.match(header, position)
        if not scheme:
            return found
        found.append(Challenge(scheme[1].lower(), {}))
        position = scheme.end()


# --- tokens -------------------------------------------------------------------------------------------------
class Tokens:
    """Bearer tokens of one registry, shared by all threads.

    Args:
        credentials: Credentials, or None for anonymous tokens.
        fetch: function (method, url, headers, body) -> Answer that asks the token server.
        clock: seconds that only grow.
    """

    def __init__(self, credentials, fetch, clock):
        self._credentials = credentials
        self._fetch = fetch
        self._clock = clock
        self._lock = threading.Lock()
        self._locks = defaultdict(threading.Lock)
        self._cache = {}

    def get(self, realm: str, service: str | None, scopes, refused: str | None = None) -> str:
        """A token for some scopes, such as `repository:team/app:pull`, from memory as long as it lives.

        Args:
            refused: a token that the registry did not take; another one is fetched if that is what we have.

        Raises:
            Denied: the token server gives none.
            HomelabError: it gave something else.
        """
        key = (realm, service, frozenset(scopes))
        with self._lock:
            lock = self._locks[key]
        with lock:  # one thread asks, the others wait for its token
            token, until = self._cache.get(key, (None, 0))
            if token is None or token == refused or self._clock() >= until:
                token, until = self._ask(realm, service, sorted(key[2]))
                with self._lock:
                    self._cache[key] = token, until
            return token

    def drop(self, token: str) -> None:
        """Forget a token that the registry did not take."""
        with self._lock:
            self._cache = {key: kept for key, kept in self._cache.items() if kept[0] != token}

    def _ask(self, realm, service, scopes):
        asked = self._clock()
        parameters = [("service", service)] if service else []
        headers, body = {"Accept": "application/json"}, None
        if self._credentials and self._credentials.identity_token:
            method, url = "POST", realm
            parameters += [
                ("grant_type", "refresh_token"),
                ("client_id", CLIENT_ID),
                ("refresh_token", self._credentials.identity_token),
                ("scope", " ".join(scopes)),
            ]
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            body = urlencode(parameters).encode("ascii")
        else:
            parameters += [("scope", scope) for scope in scopes]
            query = urlencode(parameters, safe=":/,*", quote_via=quote)
            method, url = "GET", realm + (f"{'&' if '?' in realm else '?'}{query}" if query else "")
            if self._credentials:
                headers["Authorization"] = self._credentials.basic()
        answer = self._fetch(method, url, headers, body)
        if answer.status != 200:
            raise self._refusal(answer, realm, scopes)
        try:
            document = json.loads(answer.body)
            token = document.get("token") or document.get("access_token")
            life = float(document.get("expires_in") or TOKEN_LIFE)
        except (ValueError, TypeError, AttributeError):
            token = None
        if not isinstance(token, str) or not re.fullmatch(r"[\x21-\x7e]+", token):
            raise HomelabError(
                f"the token server {_place(realm)} gave no token", remedy="is the registry's realm set up right?"
            )
        # Counted from the question by our own clock, and a little less: a request takes time to arrive.
        return token, asked + life - min(30, life / 4)

    def _refusal(self, answer, realm, scopes):
        said = answer.explain()
        who = "without an account"
        if self._credentials:
            said = self._credentials.hide(said)
            who = f"for {self._credentials.username}" if self._credentials.username else "for the identity token"
        message = f"the token server {_place(realm)} gave no token {who} ({', '.join(scopes) or 'no scope'}): {said}"
        if answer.status not in (400, 401, 403):  # OAuth2 answers 400 to a refresh token it does not know
            return HomelabError(message, remedy="try again later, or look at the token server's log")
        if self._credentials:
            return Denied(message, remedy="check user name and password (or log in again), and what it may do")
        return Denied(message, remedy="unknown or private: check the repository's name, or give an account")


def _place(realm):
    parts = urlsplit(realm)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


class Authorizer:
    """Authorization headers for one registry, from what it last asked for.

    Args:
        url: the registry's.
        credentials, fetch, clock: as for Tokens.
    """

    def __init__(self, url, credentials, fetch, clock):
        self._url = url
        self._credentials = credentials
        self._tokens = Tokens(credentials, fetch, clock)
        self._challenge = None

    def learn(self, header: str | None) -> None:
        """Take in the WWW-Authenticate header of a 401.

        Raises:
            HomelabError: our account would have to go to a token server in clear text.
        """
        offered = {challenge.scheme: challenge for challenge in reversed(parse_challenges(header or ""))}
        bearer = offered.get("bearer")
        if bearer and bearer.params.get("realm", "").startswith(("https://", "http://")):
            if self._credentials and self._url.startswith("https:") and bearer.params["realm"].startswith("http:"):
                raise HomelabError(
                    f"{self._url} wants the account sent to {_place(bearer.params['realm'])} without TLS",
                    remedy="set the registry's realm to an https address",
                )
            self._challenge = bearer
        elif "basic" in offered or not offered:  # a proxy may have dropped the header
            self._challenge = Challenge("basic", {})

    def header(self, scopes, refused: str | None = None) -> str | None:
        """The Authorization header for a request, None if nothing was asked for or we have nothing to give.

        Args:
            refused: the header that was answered 401.

        Raises:
            HomelabError: as Tokens.get.
        """
        challenge = self._challenge
        if challenge is None:
            return None
        if challenge.scheme == "basic":
            return self._credentials.basic() if self._credentials and self._credentials.username else None
        asked = frozenset(challenge.params.get("scope", "").split())
        # The challenge may name more than we thought is needed, so it counts once ours was not enough.
        wanted = frozenset(scopes) | (asked if refused or not scopes else frozenset())
        token = (refused or "").partition(" ")[2] or None
        return "Bearer " + self._tokens.get(challenge.params["realm"], challenge.params.get("service"), wanted, token)

    def drop(self, header: str) -> None:
        """Forget the token in a header that was answered 401."""
        self._tokens.drop(header.partition(" ")[2])


# --- the Docker client's config ------------------------------------------------------------------------------
class DockerConfig:
    """Accounts from a `config.json` of the Docker client, or an `auth.json` in its format.

    Args:
        data: the file's content.
        where: its path, for messages.
        helper_timeout: seconds a credential helper may take.

    Raises:
        HomelabError: it is not such a file.
    """

    def __init__(self, data, where=None, helper_timeout=HELPER_TIMEOUT):
        self._where = where
        self._timeout = helper_timeout
        sections = {}
        for key, kind in (("auths", dict), ("credHelpers", dict), ("credsStore", str)):
            sections[key] = (data.get(key) if isinstance(data, dict) else data) or kind()
            if not isinstance(sections[key], kind):
                raise HomelabError(f"{key} is not what it should be in a Docker config", where, "run docker login anew")
        self._auths = {_host_of(key): value for key, value in sections["auths"].items()}
        self._helpers = {_host_of(key): value for key, value in sections["credHelpers"].items()}
        self._store = sections["credsStore"]

    @classmethod
    def load(cls, path) -> DockerConfig:
        """Read a file; one that is not there is like an empty one.

        Raises:
            HomelabError: it cannot be read, or is no JSON.
        """
        try:
            return cls(json.loads(Path(path).read_text(encoding="utf-8")), where=str(path))
        except FileNotFoundError:
            return cls({}, where=str(path))
        except OSError as error:
            raise HomelabError(
                f"the Docker config cannot be read: {error.strerror}", str(path), "check owner and permissions"
            ) from error
        except ValueError:  # its text may hold passwords: nothing of it is shown
            raise HomelabError("the Docker config is not JSON", str(path), "correct it, or run docker login") from None

    def lookup(self, host: str) -> Credentials | None:
        """The account for a registry, None if there is none.

        Args:
            host: `host` or `host:port` as in an image's name; `docker.io` for the Hub.

        Raises:
            HomelabError: the entry cannot be understood, or its credential helper is missing or fails.
        """
        host = _host_of(host)
        helper = self._helpers.get(host) or self._store
        if helper:
            found = self._ask_helper(helper, host)
            if found:
                return found
        return self._from_entry(host, self._auths.get(host) or {})

    def _from_entry(self, host, entry):
        broken = HomelabError(f"the entry of {host} is broken", self._where, f"run docker login {host} again")
        if not isinstance(entry, dict):
            raise broken
        username, password = entry.get("username"), entry.get("password")
        if entry.get("auth"):
            try:
                pair = base64.b64decode(entry["auth"], validate=True).decode("utf-8")
            except (binascii.Error, ValueError, TypeError):
                raise broken from None
            username, colon, password = pair.partition(":")
            if not colon:
                raise broken
            password = password.rstrip("\0")  # Docker pads
        if entry.get("identitytoken"):
            return Credentials(username, None, entry["identitytoken"])
        return Credentials(username, password) if username and password else None

    def _ask_helper(self, name, host):
        """The protocol of docker-credential-helpers: `get`, the server on stdin, JSON on stdout."""
        import shutil  # these three only here: most accounts need no program, and they take long to load
        import signal
        import subprocess

        program = f"docker-credential-{name}"
        path = shutil.which(program) if re.fullmatch(r"[\w.-]+", str(name)) else None
        if not path:
            raise HomelabError(
                f"the credential helper {program} is not installed", self._where, "install it, or give the account here"
            )
        try:
            process = subprocess.Popen(
                [path, "get"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # it and what it starts can be ended together
            )
        except OSError as error:
            raise HomelabError(
                f"the credential helper {path} cannot be run: {error.strerror}", self._where, "install it anew"
            ) from error
        try:
            output, _nothing = process.communicate(
                (HUB_KEY if host in HUB_HOSTS else host).encode(), timeout=self._timeout
            )
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            process.stdout.close()
            raise HomelabError(
                f"the credential helper {program} did not answer for {host} within {self._timeout} s",
                self._where,
                "does it wait for a keyring to be unlocked? Run it by hand",
            ) from None
        if process.returncode:
            if b"not found" in output.lower():  # how every helper says that it has none
                return None
            raise HomelabError(
                f"the credential helper {program} failed for {host} with exit code {process.returncode}",
                self._where,
                f"run: echo {host} | {program} get",
            )
        try:
            answer = json.loads(output)
            username, secret = answer["Username"], answer["Secret"]
        except (ValueError, KeyError, TypeError):
            raise HomelabError(
                f"the credential helper {program} gave no account for {host}", self._where, "run it by hand"
            ) from None
        if username == "<token>":
            return Credentials(None, None, secret)
        return Credentials(username, secret) if username else None


def _host_of(key):
    """The registry a key of the config is about; a path stays, as it stands for a part of that registry."""
    host = re.sub(r"^https?://", "", key)
    host = re.sub(r"/(v[12]/?)?$", "", host)
    return "docker.io" if host in HUB_HOSTS else host
