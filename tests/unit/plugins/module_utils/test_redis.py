# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Emptying the registry's cache in Redis, against a small server of its protocol; a real one: tests/integration."""

from __future__ import annotations

import socket
import socketserver
import threading

import pytest
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.redis import Redis


class _Handler(socketserver.StreamRequestHandler):
    def handle(self):
        server, db, allowed = self.server, 0, not self.server.password
        while line := self.rfile.readline():
            words = []
            for _word in range(int(line[1:])):
                length = int(self.rfile.readline()[1:])
                words.append(self.rfile.read(length + 2)[:-2].decode())
            command, *arguments = words
            server.asked.append(command)
            if server.breaks == command:
                return
            if command == "AUTH":
                allowed = arguments[-1] == server.password
                answer = "+OK" if allowed else "-WRONGPASS invalid username-password pair or user is disabled."
            elif not allowed:
                answer = "-NOAUTH Authentication required."
            elif command == "SELECT":
                db = int(arguments[0])
                answer = "+OK" if db < 16 else "-ERR DB index is out of range"
            elif command == "SCAN":
                answer = self._scan(server.dbs.setdefault(db, {}), int(arguments[0]))
            elif command == "FLUSHDB":
                server.dbs[db] = {}
                answer = "+OK"
            self.wfile.write(answer.encode() + b"\r\n")

    @staticmethod
    def _scan(keys, cursor):
        found = sorted(keys)[cursor : cursor + 2]
        following = cursor + 2 if cursor + 2 < len(keys) else 0
        items = "".join(f"\r\n${len(key)}\r\n{key}" for key in found)
        return f"*2\r\n${len(str(following))}\r\n{following}\r\n*{len(found)}{items}"


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = allow_reuse_address = True
    password = breaks = None


@pytest.fixture
def server():
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.dbs, server.asked = {}, []
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        server.address = f"127.0.0.1:{server.server_address[1]}"
        yield server
        server.shutdown()


KEYS = [f"blobs::sha256:{number}" for number in range(5)] + ["repository::a/b::blobs", "repository::a::blobs::sha256:1"]


def test_only_its_own_database_is_flushed(server):
    server.dbs = {0: {"session": 1}, 2: dict.fromkeys(KEYS, 1)}
    with Redis(server.address, db=2) as redis:
        assert redis.foreign_key() is None
        redis.flush()
    assert server.dbs == {0: {"session": 1}, 2: {}}


def test_what_others_keep_there_is_found(server):
    server.dbs = {0: dict.fromkeys([*KEYS, "zzz session"], 1)}
    with Redis(server.address) as redis:
        assert redis.foreign_key() == "zzz session"


@pytest.mark.parametrize("username", [None, "registry"])
def test_an_account(server, username):
    server.password = "secret"
    with Redis(server.address, "secret", username=username) as redis:
        redis.flush()
    assert server.asked == ["AUTH", "SELECT", "FLUSHDB"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "refuses SELECT: NOAUTH"),
        ({"password": "hunter2"}, "refuses AUTH: WRONGPASS"),
        ({"password": "secret", "db": 99}, "refuses SELECT: ERR DB index"),
    ],
)
def test_refusals(server, options, said):
    server.password = "secret"
    with pytest.raises(HomelabError, match=said) as caught, Redis(server.address, **options):
        pass
    assert "hunter2" not in str(caught.value)


def test_a_connection_that_breaks(server):
    server.breaks = "FLUSHDB"
    with Redis(server.address) as redis, pytest.raises(HomelabError, match="the connection was closed"):
        redis.flush()


def test_nobody_listens():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # without listening
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(HomelabError, match=f"Redis at {address} cannot be asked"), Redis(address):
            pass


@pytest.mark.parametrize("address", ["", "cache", "cache:", ":6379", "cache:x"])
def test_no_address(address):
    with pytest.raises(HomelabError, match="is not host:port"):
        Redis(address)
