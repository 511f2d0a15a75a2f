# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Connections: where they go, through which proxy, with which TLS, and the idle ones that are kept."""

from __future__ import annotations

import base64
import http.client
import ipaddress
import os
import re
import select
import socket
import ssl
import threading
from collections import defaultdict
from contextlib import suppress
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from ..errors import HomelabError

#: Seconds for opening a connection at most: what does not answer by then drops packets.
CONNECT_TIMEOUT = 15
PORTS = {"http": 80, "https": 443}


class Origin(NamedTuple):
    """Scheme, host and port: what may share connections and secrets."""

    scheme: str
    host: str
    port: int

    @property
    def netloc(self) -> str:
        """As in a Host header: without the scheme's own port, which signed URLs leave out too."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.netloc}"


@lru_cache(maxsize=256)
def split_url(url: str) -> tuple[Origin, str]:
    """Origin and request target (path and query) of an absolute URL.

    Raises:
        ValueError: it is none.
    """
    parts = urlsplit(url)
    if parts.scheme not in PORTS or not parts.hostname or not parts.hostname.isascii():
        raise ValueError(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Origin(parts.scheme, parts.hostname, parts.port or PORTS[parts.scheme]), target


# --- proxies ------------------------------------------------------------------------------------------------
def environment_proxies() -> dict[str, str]:
    """`http`, `https` and `no` as the environment gives them; lower case wins, as with curl."""
    found = {}
    for name in ("http", "https", "no"):
        value = os.environ.get(f"{name}_proxy") or os.environ.get(f"{name}_proxy".upper())
        if value:
            found[name] = value
    return found


def bypasses(no_proxy: str, host: str, port: int) -> bool:
    """Whether `no_proxy` names a host: names with all below them, addresses, CIDR ranges, `host:port`, `*`.

    This machine itself is never asked through a proxy (as in Go, and so in the Docker client).
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        address = None
    if host == "localhost" or (address and address.is_loopback):
        return True
    for entry in no_proxy.lower().replace(",", " ").split():
        with_port = re.fullmatch(r"(\[.*\]|[^:]+):(\d+)", entry)
        if with_port and int(with_port[2]) != port:
            continue
        name = (with_port[1] if with_port else entry).strip("[]")
        if name == "*":
            return True
        if address:
            with suppress(ValueError):
                if address in ipaddress.ip_network(name, strict=False):
                    return True
        elif f".{host}".endswith("." + name.lstrip("*.")):
            return True
    return False


class _Proxy:
    """A proxy's address, and the header with its account."""

    def __init__(self, text):
        try:
            parts = urlsplit(text if "://" in text else f"http://{text}")
            self.host, self.port = parts.hostname, parts.port or 80
        except ValueError:
            parts = self.host = None
        if not self.host or parts.scheme != "http":
            shown = re.sub(r"//.*@|^[^/]*@", "", text)  # without its account
            raise HomelabError(
                f"the proxy {shown} cannot be used", remedy="give it as http://host:port, also for https traffic"
            )
        self.headers = {}
        if parts.username:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self.headers["Proxy-Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode("ascii")

    def __str__(self):
        return f"{self.host}:{self.port}"


class ProxyRefused(OSError):
    """A proxy did not open a tunnel; `status` is its answer's."""

    def __init__(self, proxy, status, reason):
        super().__init__(f"the proxy {proxy} answered {status} {reason}")
        self.status = status


# --- connections --------------------------------------------------------------------------------------------
class Line(http.client.HTTPConnection):
    """An open connection, that never opens itself again without being told.

    Attributes:
        reused: whether it has carried a request before.
        proxy: the HTTP proxy that needs the whole URL as request target, or None.
        spent: True if nothing may be sent over it any more.
    """

    auto_open = 0

    def __init__(self, origin, sock, proxy):
        super().__init__(origin.host, origin.port)
        self.sock = sock
        self.origin = origin
        self.proxy = proxy
        self.reused = False
        self.spent = False

    def start(self, method: str, target: str, headers: dict, body: bytes | None = None) -> None:
        """Send a request's head, and its body if it is known already."""
        if self.proxy:
            target = f"{self.origin}{target}"
            headers = {**headers, **self.proxy.headers}
        self.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        # A body that was compressed on its way would have another digest.
        for name, value in {"Host": self.origin.netloc, "Accept-Encoding": "identity", **headers}.items():
            self.putheader(name, value)
        self.endheaders(body)

    def is_alive(self) -> bool:
        """Whether an idle connection can be used: nothing to read means that the other end has not closed it."""
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        return not poll.poll(0)


class Pool:
    """Opens connections for one Transport and keeps the idle ones, the last used first. Thread-safe.

    Args:
        home: Origin that alone sees the client certificate.
        timeout: seconds for each read or write, and for connecting up to CONNECT_TIMEOUT.
        ca_path, client_cert, client_key, validate_certs, proxies: as for Transport.

    Raises:
        HomelabError: a file or a proxy's address cannot be used.
    """

    def __init__(self, home, timeout, ca_path, client_cert, client_key, validate_certs, proxies):
        self._home = home
        self._timeout = timeout
        self._ca_path = ca_path
        self._validate = validate_certs
        self._contexts = {}
        if home.scheme == "https":
            self._contexts[home] = self._context(ca_path)
            if client_cert:
                self._identify(self._contexts[home], client_cert, client_key)
        self._no_proxy = proxies.get("no", "")
        self._proxies = {scheme: _Proxy(proxies[scheme]) for scheme in PORTS if proxies.get(scheme)}
        self._lock = threading.Lock()
        self._idle = defaultdict(list)

    def take(self, origin: Origin, fresh: bool = False) -> Line:
        """A connection; with `fresh` a new one, and the idle ones are given up.

        Raises:
            OSError, http.client.HTTPException: it cannot be opened.
        """
        while True:
            with self._lock:
                line = self._idle[origin].pop() if self._idle[origin] else None
            if line is None:
                return self._open(origin)
            if not fresh and line.is_alive():
                line.reused = True
                return line
            line.close()

    def give(self, line: Line) -> None:
        """Take back a connection whose answer was read to its end."""
        with self._lock:
            self._idle[line.origin].append(line)

    def close(self) -> None:
        """Close the idle connections."""
        with self._lock:
            idle, self._idle = self._idle, defaultdict(list)
        for lines in idle.values():
            for line in lines:
                line.close()

    def proxy_for(self, origin: Origin) -> _Proxy | None:
        """The proxy on the way to an origin."""
        proxy = self._proxies.get(origin.scheme)
        return None if proxy is None or bypasses(self._no_proxy, origin.host, origin.port) else proxy

    def _open(self, origin):
        proxy = self.proxy_for(origin)
        place = (proxy.host, proxy.port) if proxy else (origin.host, origin.port)
        sock = socket.create_connection(place, min(self._timeout, CONNECT_TIMEOUT))
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.settimeout(self._timeout)
            if origin.scheme == "https":
                if proxy:
                    self._tunnel(sock, origin, proxy)
                sock = self._context_of(origin).wrap_socket(sock, server_hostname=origin.host)
        except BaseException:
            sock.close()
            raise
        return Line(origin, sock, proxy if origin.scheme == "http" else None)

    @staticmethod
    def _tunnel(sock, origin, proxy):
        host = f"[{origin.host}]" if ":" in origin.host else origin.host
        lines = [f"CONNECT {host}:{origin.port} HTTP/1.1", f"Host: {host}:{origin.port}"]
        lines += [f"{name}: {value}" for name, value in proxy.headers.items()]
        sock.sendall("\r\n".join([*lines, "", ""]).encode("ascii"))
        response = http.client.HTTPResponse(sock, method="CONNECT")
        try:
            response.begin()
        finally:
            response.close()
        if response.status != 200:
            raise ProxyRefused(proxy, response.status, response.reason)

    # --- TLS ------------------------------------------------------------------------------------------------
    def _context_of(self, origin):
        with self._lock:
            if origin not in self._contexts:
                # An object store behind a private registry often has a certificate of the same private CA.
                context = self._contexts[origin] = self._context(None)
                if self._ca_path:
                    context.load_verify_locations(self._ca_path)
            return self._contexts[origin]

    def _context(self, ca_path):
        try:
            context = ssl.create_default_context(cafile=ca_path)
        except (OSError, ssl.SSLError) as error:
            raise HomelabError(f"the CA file {ca_path} cannot be used: {error}", remedy="give a PEM file") from error
        if not self._validate:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    @staticmethod
    def _identify(context, certificate, key):
        try:
            # Without a password function OpenSSL would ask on the terminal for that of an encrypted key.
            context.load_cert_chain(certificate, key, password=lambda: "")
        except (OSError, ssl.SSLError) as error:
            raise HomelabError(
                f"the client certificate {certificate} with key {key or certificate} cannot be used: {error}",
                remedy="give PEM files that belong together; the key must not be encrypted",
            ) from error
