# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The few commands of Redis that emptying the registry's cache takes (RESP 2, https://redis.io/docs/reference/protocol-spec/)."""

from __future__ import annotations

import socket

from .errors import HomelabError

#: What the registry's keys begin with (distribution, registry/storage/cache/redis/redis.go).
REGISTRY_KEYS = (b"blobs::", b"repository::")


class Redis:
    """A connection to one database; a context manager.

    Args:
        address: `host:port`.
        password: None if it wants none. username: for servers with more than the default user.
        db: number of the database.
        timeout: seconds for each answer.

    Raises:
        HomelabError: on entering: it cannot be reached, or refuses the account or the database.
    """

    def __init__(
        self, address: str, password: str | None = None, db: int = 0, username: str | None = None, timeout: float = 10
    ) -> None:
        host, _colon, port = address.rpartition(":")
        if not host or not port.isdecimal():
            raise HomelabError(f"{address!r} is not host:port", "redis", "correct it")
        self.address, self.db = address, db
        self._place = (host.strip("[]"), int(port))
        self._login = [name for name in (username, password) if name] if password else []
        self._timeout = timeout
        self._socket = self._file = None

    def __enter__(self) -> Redis:
        try:
            self._socket = socket.create_connection(self._place, self._timeout)
            self._file = self._socket.makefile("rb")
        except OSError as error:
            raise self._failure(error) from error
        try:
            if self._login:
                self._ask("AUTH", *self._login)
            self._ask("SELECT", str(self.db))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_error) -> None:
        for one in (self._file, self._socket):
            one.close()

    def foreign_key(self) -> str | None:
        """A key that the registry did not write, None if there is none."""
        cursor = b"0"
        while True:
            cursor, keys = self._ask("SCAN", cursor, "COUNT", "1000")
            for key in keys:
                if not key.startswith(REGISTRY_KEYS):
                    return key.decode("utf-8", "replace")
            if cursor == b"0":
                return None

    def flush(self) -> None:
        """Remove all keys of the database.

        Raises:
            HomelabError: it refuses, or the connection breaks.
        """
        self._ask("FLUSHDB")

    def _ask(self, *words):
        words = [word if isinstance(word, bytes) else word.encode() for word in words]
        try:
            self._socket.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words))
            return self._answer(words[0].decode())
        except (OSError, ValueError) as error:
            raise self._failure(error) from error

    def _answer(self, command):
        line = self._file.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionResetError("the connection was closed")
        kind, text = line[:1], line[1:-2]
        if kind == b"-":
            # An error never quotes the password.
            raise HomelabError(
                f"Redis at {self.address} refuses {command}: {text.decode('utf-8', 'replace')}",
                "redis",
                "check its password and the database's number",
            )
        if kind == b"$":
            length = int(text)
            return None if length < 0 else self._file.read(length + 2)[:-2]
        if kind == b"*":
            return [self._answer(command) for _item in range(int(text))]
        if kind not in (b"+", b":"):
            raise ValueError(f"it answered {line[:40]!r}")
        return text

    def _failure(self, error):
        said = getattr(error, "strerror", None) or error
        return HomelabError(
            f"Redis at {self.address} cannot be asked: {said}", "redis", "is it running, and reached from here?"
        )
