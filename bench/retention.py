#!/usr/bin/env python3
# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How fast a clean-up is planned, from the disk and over the API: `make bench-retention`, described in docs/bench.md.

A made-up directory tree, a registry container that serves it, and each way to a plan in a process of its own, in
rounds. The exit code says whether everything could be measured, not who was fast.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
SERVER = os.environ.get("REGISTRY_IMAGE") or "lab-registry:2"
NAME = "bench-retention"
#: A fixed day: the tree, and with it the plan, are the same in every run.
NOW = 1_800_000_000
POLICY = {"keep_last": 10, "max_age": 10, "group": "minor", "protect": "1.0.*", "max_delete_share": 1}
WAYS = {
    "disk": "from the directory tree, nothing remembered",
    "disk warm": "from the directory tree, manifests remembered",
    "api full": "over the API, nothing remembered",
    "api warm": "over the API, manifests remembered",
}
GOALS = (
    ("disk, wall s for 10,000 tags", 1.0, lambda got: got["disk"]["wall"]),
    ("disk warm, wall s for 10,000 tags", 1.0, lambda got: got["disk warm"]["wall"]),
    ("api warm, wall / api full", 0.25, lambda got: got["api warm"]["wall"] / got["api full"]["wall"]),
)


def cpu_seconds():
    """Of this process and of those it has had."""
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def measure(way, root, url, cache):
    """In a process of its own: read and plan once; prints JSON."""
    sys.path.insert(0, str(HERE.parent / "plugins"))
    from module_utils.oci.client import Registry
    from module_utils.retention import read_api
    from module_utils.retention.memory import Memory
    from module_utils.retention.plan import plan
    from module_utils.retention.policy import parse_policy
    from module_utils.storage.tree import Tree, read_inventory

    started, spent = time.monotonic(), cpu_seconds()
    requests = 0
    source, _space, warm = way.partition(" ")
    memory = Memory(f"{cache}.{source}" if warm == "warm" else None)
    if source == "disk":
        inventory = read_inventory(Tree(root), created=True, memory=memory if warm else None)
    else:
        registry = Registry(url, timeout=60)
        inventory = read_api.read_inventory(registry, memory)
        requests = sum(registry.transport.requests.values())
    memory.save(prune=True)
    read = time.monotonic()
    made = plan(inventory, parse_policy(POLICY), NOW)
    ended = time.monotonic()
    document = {
        "wall": ended - started,
        "plan": ended - read,
        "cpu": cpu_seconds() - spent,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "requests": requests,
        "tags": sum(len(one.tags) for one in inventory.repositories.values()),
        "deletions": len(made.deletions),
    }
    print(json.dumps(document))


class Server:
    """A registry container over the tree."""

    def __init__(self, root):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.close()
        env = {
            "REGISTRY_HTTP_ADDR": f"127.0.0.1:{port}",
            "REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY": "/var/lib/registry",
            "REGISTRY_LOG_LEVEL": "error",
            "REGISTRY_LOG_ACCESSLOG_DISABLED": "true",
            "OTEL_TRACES_EXPORTER": "none",
        }
        variables = [f"--env={key}={value}" for key, value in env.items()]
        command = ["docker", "run", "-d", "--name", NAME, "--network", "host", "-v", f"{root}:/var/lib/registry:ro"]
        subprocess.run([*command, *variables, SERVER], check=True, capture_output=True, text=True)
        for _attempt in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        inspected = ["docker", "inspect", "-f", "{{.State.Pid}}", NAME]
        self.pid = int(subprocess.run(inspected, check=True, capture_output=True, text=True).stdout)

    def cpu(self):
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @staticmethod
    def close():
        subprocess.run(["docker", "rm", "-f", "-v", NAME], capture_output=True)


def run(way, root, server, cache):
    command = [sys.executable, __file__, "--measure", way, str(root), server.url, str(cache)]
    before = server.cpu()
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=1800)
    return {**json.loads(done.stdout), "server": server.cpu() - before}


def case(repositories, tags, rounds, folder):
    """Medians by way, for a tree of that size."""
    sys.path.insert(0, str(HERE))
    import retention_corpus

    root = folder / f"tree-{repositories}"
    root.mkdir()
    print(f"making {repositories} repositories of {tags} tags", file=sys.stderr)
    retention_corpus.make(str(root), repositories, tags, NOW)
    server = Server(root)
    cache = folder / f"memory-{repositories}"
    try:
        for way in ("disk warm", "api warm"):  # they learn; and all of the tree gets into the system's memory
            run(way, root, server, cache)
        results = {way: [] for way in WAYS}
        for number in range(rounds):
            for way in list(WAYS)[number % len(WAYS) :] + list(WAYS)[: number % len(WAYS)]:
                results[way].append(run(way, root, server, cache))
                print(f"{way}: {results[way][-1]}", file=sys.stderr)
    finally:
        server.close()
        shutil.rmtree(root)
    return {way: {key: median(one[key] for one in found) for key in found[0]} for way, found in results.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repositories", type=int, default=200)
    parser.add_argument("--tags", type=int, default=50, help="in each repository")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(*arguments.measure)
        return
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="bench-retention-", dir=os.environ.get("TMPDIR") or "/var/tmp") as folder:
        sizes = sorted({max(1, arguments.repositories // 4), arguments.repositories})
        got = {size: case(size, arguments.tags, arguments.rounds, Path(folder)) for size in sizes}
    print(f"{SERVER}, python {sys.version.split()[0]}; {os.cpu_count()} CPUs, load before {load:.1f}\n")
    print("| tags | way | wall s | of it the plan | client CPU s | server CPU s | requests | RSS MB |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for found in got.values():
        for way, one in found.items():
            print(
                f"| {one['tags']} | {WAYS[way]} | {one['wall']:.2f} | {one['plan']:.2f} | {one['cpu']:.2f} |"
                f" {one['server']:.2f} | {one['requests']} | {one['memory']:.0f} |"
            )
    print("\n| goal | at most | measured | |\n| --- | --- | --- | --- |")
    largest = got[sizes[-1]]
    for name, limit, value in GOALS:
        print(f"| {name} | {limit} | {value(largest):.2f} | {'met' if value(largest) <= limit else 'not met'} |")
    if len(sizes) > 1:
        for way in WAYS:
            growth = largest[way]["cpu"] / got[sizes[0]][way]["cpu"]
            tags = largest[way]["tags"] / got[sizes[0]][way]["tags"]
            print(
                f"| {way}, client CPU for {tags:.0f} times the tags | {1.2 * tags:.1f} | {growth:.1f} | "
                f"{'met' if growth <= 1.2 * tags else 'not met'} |"
            )


if __name__ == "__main__":
    main()
