# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""HTTP as registries need it: accounts, redirects, retries, rate limits, and bodies of any size.

One Transport belongs to one registry and is shared by all threads. Other servers it meets on the way (a token
server, the object store behind a redirect) never see the registry's account or our client certificate.
"""

from __future__ import annotations

import http.client
import json
import random
import re
import socket
import ssl
import threading
import time
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import NamedTuple
from urllib.parse import quote, urljoin

from ..errors import HomelabError
from .auth import Authorizer
from .connection import Pool, ProxyRefused, environment_proxies, split_url

#: What a server that has spoken HTTP before does when it dies, and not because the port is another one's.
BROKEN_OFF = (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError)
USER_AGENT = "homelab.registry"
#: Bytes of a body that is held in memory: four times the largest manifest a registry takes.
BODY_LIMIT = 16 << 20
#: Seconds that are waited because a registry asked for it; for more, the caller does something else meanwhile.
PATIENCE = 60
#: Seconds; the pause before try n is a random part of BACKOFF_FIRST * 2**n, at most BACKOFF_LAST.
BACKOFF_FIRST, BACKOFF_LAST = 0.5, 30
REDIRECTS = 5
IDEMPOTENT = frozenset(("GET", "HEAD", "PUT", "DELETE"))
#: Seconds to look for an answer that a server gave before it had read the whole request.
EARLY_ANSWER = 5
#: Bytes worth reading to keep a connection.
DRAIN_LIMIT = 64 << 10


class Unreachable(HomelabError):
    """No complete HTTP answer: name, network, TLS or time. `temporary` says whether another try makes sense."""

    temporary = False


class RateLimited(HomelabError):
    """The registry wants fewer requests; `retry_after` says for how many seconds (None: it did not say)."""

    retry_after = None


class RateLimit(NamedTuple):
    """Pulls allowed in a window, and how many are left (Docker Hub's ratelimit-* headers)."""

    limit: int | None
    remaining: int | None
    window_seconds: int | None


@dataclass(frozen=True)
class Answer:
    """A complete answer; `headers` have lower-case names, `url` is who answered, without its query."""

    status: int
    headers: dict[str, str]
    body: bytes
    url: str = ""

    def explain(self) -> str:
        """Status and the registry's own words for an error, for a message."""
        try:
            error = json.loads(self.body)["errors"][0]
            if isinstance(error.get("detail"), dict) and '"Err": 28' in json.dumps(error["detail"]):
                error["detail"] = "No space left on device"  # what the server says is the number (ENOSPC)
            said = " ".join(str(error[key]) for key in ("code", "message", "detail") if error.get(key))
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            said = self.body[:200].decode("utf-8", "replace").strip()
        return f"{self.status} {said}".strip()


class Transport:
    """HTTP to one registry. Thread-safe.

    Args:
        url: `http://host[:port]` or `https://host[:port]`.
        timeout: seconds for connecting (15 at most) and for each read or write.
        credentials: auth.Credentials, sent only where this registry asks for them.
        ca_path: PEM file that is trusted instead of the system's certificates.
        client_cert, client_key: PEM files; one file may hold both.
        validate_certs: False trusts any certificate.
        retries: how often a request is sent again after a temporary failure.
        proxies: `{"http": url, "https": url, "no": "names"}`; None takes the environment's, {} uses none.
        sleep, clock, random: of one kind, for tests.

    Attributes:
        requests: number of requests sent, by method (Counter).
        received, sent: bytes of bodies.

    Raises:
        HomelabError: the URL is not one, or a file cannot be read.
    """

    def __init__(
        self,
        url,
        *,
        timeout=30,
        credentials=None,
        ca_path=None,
        client_cert=None,
        client_key=None,
        validate_certs=True,
        retries=4,
        proxies=None,
        sleep=time.sleep,
        clock=time.monotonic,
        random=random.random,
    ):
        self.url = url.rstrip("/")
        self._origin = _check_address(url)
        self._credentials = credentials
        self._retries = retries
        self._sleep, self._clock, self._random = sleep, clock, random
        self._pool = Pool(
            self._origin,
            timeout,
            ca_path,
            client_cert,
            client_key,
            validate_certs,
            environment_proxies() if proxies is None else proxies,
        )
        self._authorizer = Authorizer(self.url, credentials, self._ask_token_server, clock)
        self._introduced = credentials is None
        self._introducing = threading.Lock()
        self._lock = threading.Lock()
        self._not_before = {}
        self._rate = None
        self.requests = Counter()
        self.received = self.sent = 0
        self._answered = False

    @property
    def rate(self) -> RateLimit | None:
        """The rate limit as last told by the registry, None if it never did."""
        return self._rate

    def close(self) -> None:
        """Close the idle connections; the next request opens a new one."""
        self._pool.close()

    # --- what callers use -----------------------------------------------------------------------------------
    def request(self, method, path_or_url, *, headers=None, body=None, scopes=(), retry=None) -> Answer:
        """Send one request and read the whole answer, whatever its status.

        Redirects of GET and HEAD are followed. Temporary failures (no connection, 408, 429, 502, 503, 504, and
        500 once) are tried again after a pause.

        Args:
            path_or_url: path with query, or an absolute URL; only the registry's own get its account.
            body: bytes or None.
            scopes: what a bearer token must allow, such as `repository:team/app:pull`.
            retry: whether the request may be sent again though it may have been carried out; None decides by the
                method (RFC 9110 section 9.2.2).

        Raises:
            Unreachable: no complete answer.
            RateLimited: 429, or a pause of more than 60 s was asked for.
            Denied: the token server refuses.
            HomelabError: the answer is larger than 16 MiB, or redirected round and round.
        """
        return self._follow(method, path_or_url, headers, body, scopes, retry, whole=True)

    @contextmanager
    def stream(self, path_or_url, *, headers=None, scopes=()):
        """GET with an answer of any size: a context manager that gives a Response, whatever its status.

        Raises:
            as request; an answer that breaks off later raises Unreachable from `Response.readinto`.
        """
        response = self._follow("GET", path_or_url, headers, None, scopes, None, whole=False)
        try:
            yield response
        finally:
            response.close()

    @contextmanager
    def send(self, method, path_or_url, *, headers=None, length, scopes=()):
        """Send a body of `length` bytes piece by piece: a context manager that gives an Upload.

        No byte is sent twice: after a 401 or a failure the caller begins again. Left without `finish`, the
        connection is closed, which tells the server that the body is not complete.

        Raises:
            Unreachable, RateLimited, Denied, HomelabError: as request.
        """
        url = self._absolute(path_or_url)
        headers = {**_checked(headers), "Content-Length": str(length)}
        origin = split_url(url)[0]
        authorization = self._authorization(scopes) if origin == self._origin else None
        self._wait(origin)
        line = self._start(method, url, headers, authorization, None)
        upload = Upload(self, line, method, url, length, authorization)
        try:
            yield upload
        finally:
            upload.close()

    # --- redirects and retries ------------------------------------------------------------------------------
    def _absolute(self, path_or_url):
        url = self.url + path_or_url if path_or_url.startswith("/") else path_or_url
        try:
            split_url(url)
            if re.fullmatch(r"[\x21-\x7e]+", url):
                return url
        except ValueError:
            pass
        raise HomelabError(
            f"{path_or_url!r} cannot be asked for", remedy="give a path or a web address without blanks and line breaks"
        )

    def resolve(self, base: str, location: str) -> str:
        """The absolute URL that a Location or Link header means.

        Blanks and the like, which some servers send, are quoted; what is quoted already stays.

        Raises:
            HomelabError: it is none that can be asked for.
        """
        try:
            url = re.sub(r"[^\x21-\x7e]", lambda match: quote(match[0], safe=""), urljoin(base, location))
            split_url(url)
        except ValueError:
            raise HomelabError(
                f"{shown(base)} leads to {shown(location)!r}, which is no web address",
                remedy="is a proxy before the registry changing its headers?",
            ) from None
        return url

    def _follow(self, method, path_or_url, headers, body, scopes, retry, whole):
        url = self._absolute(path_or_url)
        headers = _checked(headers)
        for _hop in range(REDIRECTS + 1):
            got = self._persist(method, url, headers, body, scopes, retry, whole)
            location = got.headers.get("location")
            if got.status not in (301, 302, 303, 307, 308) or method not in ("GET", "HEAD") or not location:
                return got
            if not whole:
                got.close()
            url = self.resolve(url, location)
        raise HomelabError(
            f"{self.url} redirects more than {REDIRECTS} times, last to {shown(url)}",
            remedy="look at the storage and proxy configuration of the registry",
        )

    def _persist(self, method, url, headers, body, scopes, retry, whole, known=True):
        """One URL, tried as often as makes sense; an Answer or, if not `whole`, a Response."""
        origin = split_url(url)[0]
        own = known and origin == self._origin
        repeatable = method in IDEMPOTENT if retry is None else retry
        tries = 0
        while True:
            self._wait(origin)
            try:
                got = self._authenticated(method, url, headers, body, scopes, own)
                if whole:
                    got = got.answer()
            except Unreachable as error:
                if not (error.temporary and repeatable and tries < self._retries):
                    raise
                self._sleep(self._backoff(tries))
            else:
                pause = self._pause(origin, got, repeatable, tries)
                if pause is None:
                    return got
                if not whole:
                    got.close()
                if pause:
                    self._sleep(pause)
            tries += 1

    def _pause(self, origin, got, repeatable, tries):
        """Seconds until an answer's request is sent again, besides what all have to wait; None if it stands."""
        if got.status not in (408, 429, 500, 502, 503, 504):
            return None
        wanted = _retry_after(got.headers)
        if wanted is not None:
            self._hold(origin, wanted)
        last = tries >= self._retries
        if got.status == 429:
            # With no pull left, asking again within seconds makes it worse.
            if last or (wanted is None and self._rate and self._rate.remaining == 0):
                raise self._limited(origin, wanted)
        elif last or (got.status == 500 and tries) or not (repeatable or got.status == 503):
            return None
        if wanted is not None:
            return 0
        if got.status == 429:
            self._hold(origin, self._backoff(tries))
            return 0
        return self._backoff(tries)

    def _backoff(self, tries):
        return self._random() * min(BACKOFF_LAST, BACKOFF_FIRST * 2**tries)

    def _hold(self, origin, seconds):
        """No thread asks this origin for some seconds."""
        with self._lock:
            self._not_before[origin] = max(self._not_before.get(origin, 0), self._clock() + seconds)

    def _wait(self, origin):
        while True:
            with self._lock:
                left = self._not_before.get(origin, 0) - self._clock()
            if left <= 0:
                return
            if left > PATIENCE:
                raise self._limited(origin, left)
            self._sleep(left)

    def _limited(self, origin, seconds):
        said, remedy = f"{origin} answered that it gets too many requests", "run it again later"
        if seconds:
            said += f", and wants none for {seconds:.0f} s"
        if origin == self._origin and self._rate and self._rate.limit:
            said += f"; it allows {self._rate.limit} pulls"
            if self._rate.window_seconds:
                said += f" in {self._rate.window_seconds / 3600:g} h"
            remedy += "" if self._credentials else "; with an account it allows more"
        error = RateLimited(said, remedy=remedy)
        error.retry_after = seconds
        return error

    # --- accounts -------------------------------------------------------------------------------------------
    def _authenticated(self, method, url, headers, body, scopes, own):
        authorization = self._authorization(scopes) if own else None
        got = self._exchange(method, url, headers, body, authorization)
        if got.status != 401 or not own:
            return got
        self._authorizer.learn(got.headers.get("www-authenticate"))
        again = self._authorizer.header(scopes, refused=authorization)
        if again is None or again == authorization:
            return got
        got.close()
        return self._exchange(method, url, headers, body, again)

    def _authorization(self, scopes):
        with self._introducing:
            if not self._introduced:
                # Strangers may see less, or be allowed fewer pulls, without ever being asked who they are.
                answer = self._persist("GET", f"{self.url}/v2/", {}, None, (), True, whole=True, known=False)
                if answer.status == 401:
                    self._authorizer.learn(answer.headers.get("www-authenticate"))
                self._introduced = True
        return self._authorizer.header(scopes)

    def _ask_token_server(self, method, url, headers, body):
        return self._persist(method, self.resolve(self.url, url), headers, body, (), True, whole=True, known=False)

    # --- one exchange ---------------------------------------------------------------------------------------
    def _exchange(self, method, url, headers, body, authorization):
        """Send a request and read its answer's head."""
        if body is not None or method not in ("GET", "HEAD", "DELETE"):
            headers = {**headers, "Content-Length": str(len(body or b""))}
        fresh = False
        while True:
            line = self._start(method, url, headers, authorization, body, fresh)
            try:
                response = Response(self, line, line.getresponse(), method, url)
            except (OSError, http.client.HTTPException) as error:
                line.close()
                if line.reused and _was_dropped(error):
                    fresh = True
                    continue
                raise self.unreachable(method, url, error) from error
            self.count(sent=len(body or b""))
            return response

    def _start(self, method, url, headers, authorization, body, fresh=False):
        """A connection over which a request's head went out, and its body if there is one.

        Servers close idle connections at any moment; a request that met this did not arrive, whatever its method.
        """
        origin, target = split_url(url)
        headers = {"User-Agent": USER_AGENT, **headers, **({"Authorization": authorization} if authorization else {})}
        while True:
            line = None
            try:
                line = self._pool.take(origin, fresh)
                with self._lock:
                    self.requests[method] += 1
                line.start(method, target, headers, body)
                return line
            except (OSError, http.client.HTTPException) as error:
                if line:
                    line.close()
                if line and line.reused and _was_dropped(error):
                    fresh = True
                    continue
                raise self.unreachable(method, url, error) from error

    # --- for Response and Upload ----------------------------------------------------------------------------
    def take_back(self, line, response) -> None:
        """Keep a connection if its answer was read to the end and the server keeps it too."""
        if response.isclosed() and not response.will_close and line.sock and not line.spent:
            self._pool.give(line)
        else:
            response.close()
            line.close()

    def count(self, sent=0, received=0) -> None:
        """Add to the counters of bytes."""
        with self._lock:
            self.sent += sent
            self.received += received

    def note(self, url, status, headers) -> None:
        """Take in what an answer to anything tells about the rate limit."""
        self._answered = True
        origin = split_url(url)[0]
        if origin != self._origin:
            return
        rate = _rate_limit(headers)
        if rate:
            self._rate = rate

    def settle(self, url, answer, authorization) -> None:
        """Learn from an upload's answer for the next one: another token after a 401, a pause after a 429.

        Raises:
            RateLimited: 429.
        """
        if answer.status == 401 and authorization:
            self._authorizer.learn(answer.headers.get("www-authenticate"))
            self._authorizer.drop(authorization)
        if answer.status == 429:
            origin, wanted = split_url(url)[0], _retry_after(answer.headers)
            self._hold(origin, wanted or 0)
            raise self._limited(origin, wanted)

    def unreachable(self, method, url, error) -> Unreachable:
        """The error for a request that got no complete answer."""
        if isinstance(error, ssl.SSLCertVerificationError):
            remedy = "the certificate is not trusted here: give its CA (ca_path)"
        elif isinstance(error, ssl.SSLError):
            remedy = "does the server speak plain HTTP on this port? Compare registry_scheme with its configuration"
        elif isinstance(error, http.client.IncompleteRead) or (self._answered and isinstance(error, BROKEN_OFF)):
            remedy = "the server or the network broke off: try again"
        elif isinstance(error, http.client.HTTPException):
            remedy = "does the server speak TLS on this port? Compare registry_scheme with its configuration"
        elif isinstance(error, ProxyRefused):
            remedy = "check the proxy's address, account and rules, or name the registry in no_proxy"
        elif isinstance(error, ConnectionRefusedError):
            remedy = "nothing listens there: does the server run, and are address and port right?"
        else:
            remedy = "check the name, the network and the firewall between here and there"
        proxy = self._pool.proxy_for(split_url(url)[0])
        got = "no complete answer" if isinstance(error, http.client.IncompleteRead) else "no answer"
        found = Unreachable(
            f"{method} {shown(url)} got {got}: {error or type(error).__name__}",
            where=f"through the proxy {proxy}" if proxy else None,
            remedy=remedy,
        )
        found.temporary = _is_temporary(error)
        return found


class Response:
    """An answer whose body is still to be read.

    Attributes:
        status: HTTP status.
        headers: dict with lower-case names.
        length: bytes of the body that are still to come, None if the server did not say.
        url: who answered, without the query, which may be a signature.
    """

    def __init__(self, transport, line, response, method, url):
        self.status = response.status
        self.headers = {}
        for name, value in response.getheaders():
            name = name.lower()
            self.headers[name] = f"{self.headers[name]}, {value}" if name in self.headers else value
        self.url = shown(url)
        self._transport, self._line, self._response, self._method = transport, line, response, method
        self._received = 0
        transport.note(url, self.status, self.headers)

    @property
    def length(self) -> int | None:
        return self._response.length

    def readinto(self, buffer: memoryview) -> int:
        """Fill the buffer, or what is left of the body into its beginning; returns the number of bytes, 0 at the end.

        Raises:
            Unreachable: the body broke off before its end.
        """
        try:
            count = self._response.readinto(buffer)
            if not count and len(buffer) and self._response.length:
                raise http.client.IncompleteRead(b"", self._response.length)
        except (OSError, http.client.HTTPException) as error:
            raise self._transport.unreachable(self._method, self.url, error) from error
        self._received += count
        return count

    def answer(self) -> Answer:
        """The rest of the body as an Answer; the Response is closed.

        Raises:
            Unreachable: the body broke off before its end.
            HomelabError: it is larger than 16 MiB.
        """
        try:
            if (self.length or 0) > BODY_LIMIT:
                body = None
            else:
                body = self._response.read(BODY_LIMIT + 1)
                if self._response.length:
                    raise http.client.IncompleteRead(body, self._response.length)
                self._received += len(body)
        except (OSError, http.client.HTTPException) as error:
            raise self._transport.unreachable(self._method, self.url, error) from error
        finally:
            self.close()
        if body is None or len(body) > BODY_LIMIT:
            raise HomelabError(
                f"{self.url} answered with more than {BODY_LIMIT >> 20} MiB where a small document was expected",
                remedy="is this a registry?",
            )
        return Answer(self.status, self.headers, body, self.url)

    def close(self) -> None:
        """Give the connection back, or drop it if there is much left to read."""
        if self._line is None:
            return
        line, self._line = self._line, None
        with suppress(OSError, http.client.HTTPException):
            if self.length is not None and self.length <= DRAIN_LIMIT:
                self._response.read()
        self._transport.count(received=self._received)
        self._transport.take_back(line, self._response)


class Upload:
    """A request whose body is being sent."""

    def __init__(self, transport, line, method, url, length, authorization):
        self._transport, self._line, self._method, self._url = transport, line, method, url
        self._left = length
        self._authorization = authorization
        self._answer = None

    def write(self, data) -> Answer | None:
        """Send a piece of the body (bytes-like, not copied).

        Returns:
            None, or the server's Answer if it gave one before it had all (a full disk, no permission): nothing
            more is sent then, and `finish` returns the same.

        Raises:
            Unreachable: the connection broke, and no answer could be read.
            RateLimited: the answer was 429.
            HomelabError: more bytes than were announced.
        """
        if self._answer:
            return self._answer
        self._left -= memoryview(data).nbytes
        if self._left < 0:
            raise HomelabError(
                f"{shown(self._url)} was sent more bytes than announced", remedy="is the size in its manifest right?"
            )
        try:
            self._line.sock.sendall(data)
            self._transport.count(sent=memoryview(data).nbytes)
        except OSError as error:
            self._read_early(error)
        return self._answer

    def finish(self) -> Answer:
        """The server's answer, whatever its status.

        Raises:
            Unreachable: there is none.
            RateLimited: it was 429.
            HomelabError: fewer bytes were written than announced.
        """
        if not self._answer:
            if self._left:
                raise HomelabError(
                    f"{shown(self._url)} was sent {self._left} bytes less than announced",
                    remedy="is the size in its manifest right?",
                )
            try:
                self._read()
            except (OSError, http.client.HTTPException) as error:
                raise self._transport.unreachable(self._method, self._url, error) from error
        return self._answer

    def close(self) -> None:
        """Drop the connection, unless its answer was read."""
        if not self._answer:
            self._line.close()

    def _read_early(self, error):
        self._line.spent = True  # the server takes what comes next for the rest of the body
        try:
            self._line.sock.settimeout(EARLY_ANSWER)
            self._read()
        except (OSError, http.client.HTTPException):
            raise self._transport.unreachable(self._method, self._url, error) from error

    def _read(self):
        response = Response(self._transport, self._line, self._line.getresponse(), self._method, self._url)
        self._answer = response.answer()
        self._transport.settle(self._url, self._answer, self._authorization)


# --- small things -------------------------------------------------------------------------------------------
def shown(url: str) -> str:
    """A URL for a message: without its query, which may be a signature."""
    return url.partition("?")[0]


def _check_address(url):
    if "@" in url:  # it would show in every message
        raise HomelabError(
            "the registry's address holds credentials", remedy="give them apart, as username and password"
        )
    try:
        origin, target = split_url(url.rstrip("/"))
    except ValueError:
        origin = target = None
    if target != "/" or "?" in url or "#" in url:
        raise HomelabError(
            f"{url!r} is not a registry's address", remedy="write it as http://host:port or https://host:port"
        )
    return origin


def _checked(headers):
    for name, value in (headers or {}).items():
        if not re.fullmatch(r"[\t\x20-\x7e]*", value):
            raise HomelabError(f"the header {name} holds a line break or another forbidden character")
    return dict(headers or {})


def _was_dropped(error):
    """Whether the server closed the connection, as opposed to answering nonsense or being slow."""
    return isinstance(error, (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError))


def _is_temporary(error):
    if isinstance(error, ProxyRefused):
        return error.status >= 500
    if isinstance(error, (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError, http.client.IncompleteRead)):
        return True
    if isinstance(error, socket.gaierror):
        return error.errno == socket.EAI_AGAIN
    # Trust and protocol do not change by waiting.
    return isinstance(error, OSError) and not isinstance(error, ssl.SSLError)


def _retry_after(headers):
    """Seconds (RFC 9110 section 10.2.3), None if there is no such header or it makes no sense."""
    value = headers.get("retry-after", "").strip()
    if value.isdecimal():
        return int(value)
    try:
        now = parsedate_to_datetime(headers["date"]) if "date" in headers else datetime.now(timezone.utc)
        return max(0, (parsedate_to_datetime(value) - now).total_seconds())
    except (TypeError, ValueError, IndexError):
        return None


def _rate_limit(headers):
    """From `ratelimit-limit: 100;w=21600` and `ratelimit-remaining: 76;w=21600`."""
    found = {}
    for name in ("limit", "remaining"):
        match = re.match(r"\s*(\d+)(?:\s*;\s*w=(\d+))?", headers.get(f"ratelimit-{name}", ""))
        if match:
            found[name] = int(match[1])
            if match[2]:
                found["window"] = int(match[2])
    return RateLimit(found.get("limit"), found.get("remaining"), found.get("window")) if found else None
