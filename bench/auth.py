#!/usr/bin/env python3
# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a login costs: `GET /v2/` by the cost of bcrypt, at the server and at the gateway; see docs/bench.md.

auth.py [--rounds 5] [--costs 5-12]

A real registry and a real nginx in containers on loopback. 50 requests over one connection are one round, as a client
does them that pulls an image of many layers.
"""

from __future__ import annotations

import argparse
import base64
import concurrent.futures
import http.client
import os
import ssl
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

import bcrypt

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "collections"))
from ansible_collections.homelab.registry.tests.integration import real_gateway, real_registry  # noqa: E402

REQUESTS = 50
GOAL = 100  # milliseconds, p99
PASSWORD = "a password of some length"
HEADER = {"Authorization": "Basic " + base64.b64encode(f"alice:{PASSWORD}".encode()).decode("ascii")}


def ask(url: str, ca: str | None, count: int) -> list[float]:
    """Milliseconds of each of `count` requests over one connection; the first one opens it and does not count."""
    parts = urlsplit(url)
    if parts.scheme == "https":
        connection = http.client.HTTPSConnection(
            parts.hostname, parts.port, timeout=60, context=ssl.create_default_context(cafile=ca)
        )
    else:
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
    taken = []
    for _ in range(count + 1):
        start = time.perf_counter()
        connection.request("GET", "/v2/", headers=HEADER)
        answer = connection.getresponse()
        answer.read()
        taken.append((time.perf_counter() - start) * 1000)
        if answer.status != 200:
            raise RuntimeError(f"{url}/v2/ answered {answer.status}")
    connection.close()
    return taken[1:]


def row(name: str, taken: list[float]) -> str:
    """A line of the table."""
    ordered = sorted(taken)
    p99 = ordered[max(0, -(-len(ordered) * 99 // 100) - 1)]
    verdict = "met" if p99 < GOAL else "**not met**"
    return f"| {name} | {ordered[0]:.1f} | {median(ordered):.1f} | {p99:.1f} | {verdict} |"


def measure(url, ca, rounds):
    return [each for _ in range(rounds) for each in ask(url, ca, REQUESTS)]


def together(url, ca, clients):
    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        parts = pool.map(lambda _: ask(url, ca, REQUESTS), range(clients))
        return [each for part in parts for each in part]


def line(cost: int) -> str:
    """The account in an htpasswd file."""
    return f"alice:{bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(cost)).decode('ascii')}\n"


def replace(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text, encoding="ascii")
    if not os.getuid():
        os.chown(new, path.stat().st_uid, path.stat().st_gid)
    new.rename(path)


def main():
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--costs", default="5-12", help="from-to")
    arguments = parser.parse_args()
    first, last = (int(each) for each in arguments.costs.split("-"))
    with tempfile.TemporaryDirectory(prefix="bench-auth-") as folder:
        home = Path(folder)
        home.chmod(0o755)
        registries, gateways = real_registry.Registries(home), []
        try:
            run(arguments.rounds, range(first, last + 1), home, registries, gateways)
        finally:
            for gateway in gateways:
                gateway.remove()
            registries.close()


def run(rounds, costs, home, registries, gateways):
    """All measurements."""
    bare, guarded = registries.start(), registries.start(users=("alice",))
    behind = {"accounts": {"alice": "admin"}, "backend_username": "alice", "backend_password": "secret",
              "request_rate": 0}
    second = registries.start(users=("alice",))
    plain = real_gateway.RealGateway(home, second, **behind)
    gateways.append(plain)
    tls = real_gateway.RealGateway(home, second, registries.authority, **behind)
    gateways.append(tls)
    load = Path("/proc/loadavg").read_text(encoding="ascii").split()[0]
    print(f"{time.strftime('%Y-%m-%d')}, {real_registry.image()}, {real_gateway.image(home)}; {os.cpu_count()} CPUs, "
          f"load before {load}; {rounds} rounds of {REQUESTS} requests over one connection. Milliseconds:\n")
    print("| | min | median | p99 | p99 < 100 ms |\n| --- | --- | --- | --- | --- |")
    print(row("no accounts", measure(bare.url, None, rounds)), flush=True)
    ca = str(registries.authority.ca_path)
    for cost in costs:
        entry = line(cost)
        replace(guarded.config_dir / "htpasswd", entry)
        for gateway in gateways:
            replace(gateway.folder / "htpasswd", entry)
        print(row(f"server, cost {cost}", measure(guarded.url, None, rounds)))
        print(row(f"gateway, cost {cost}", measure(plain.url, None, rounds)))
        print(row(f"gateway with TLS, cost {cost}", measure(tls.url, ca, rounds)), flush=True)
    print("\nSeveral clients at once, each with its connection, through the gateway with TLS:\n")
    print("| | min | median | p99 | p99 < 100 ms |\n| --- | --- | --- | --- | --- |")
    for cost in (each for each in costs if each in (5, 6, 8, 10)):
        replace(tls.folder / "htpasswd", line(cost))
        for clients in (4, 16):
            print(row(f"cost {cost}, {clients} clients", together(tls.url, ca, clients)), flush=True)


if __name__ == "__main__":
    main()
