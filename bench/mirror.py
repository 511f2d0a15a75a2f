#!/usr/bin/env python3
# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How fast the collection mirrors, side by side with skopeo and crane: `make bench`, described in docs/bench.md.

Two registries on loopback, a made-up corpus in one of them, and every tool copies it to the other, in rounds, one
tool after the other. The exit code says whether everything could be measured, not who was fast.
"""

from __future__ import annotations

import argparse
import atexit
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
CORE = HERE.parent / "plugins" / "module_utils"
SERVER = os.environ.get("REGISTRY_IMAGE") or "lab-registry:2"
BASE = os.environ.get("BENCH_BASE") or "lab-debian:trixie"
CLIENT = "bench-client"
#: Where everything goes: skopeo sync keeps only the last part of a name.
PREFIX = "mirror"
STATE = "/var/tmp/mirror-state.json"
DELAY = 15  # milliseconds each way in front of the upstream, for the no-op
CASES = {"cold": "all images, empty target", "one": "one image, empty target", "no-op": "all in place, 30 ms away"}
INDEX = "application/vnd.oci.image.index.v1+json"
OURS, SKOPEO, CRANE, CRANE4 = "homelab.registry", "skopeo sync", "crane", "crane x4"
TOOLS = (OURS, SKOPEO, CRANE, CRANE4)

#: What role `jobs` installs.
_PACK = """
import sys
from pathlib import Path
sys.path.insert(0, "/core")
from module_utils.zipapp_build import build
Path("/usr/local/bin/registryctl").write_bytes(build(Path("/core/module_utils")))
Path("/usr/local/bin/registryctl").chmod(0o755)
"""
_REQUEST = re.compile(r'"([A-Z]+) (/\S*) HTTP/[0-9.]+" ([0-9]{3}) ([0-9]+)')


def say(text):
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def docker(*args, data=None):
    """Output of a docker command; RuntimeError with its message."""
    done = subprocess.run(("docker", *args), input=data, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"docker {' '.join(args)[:300]}: {done.stderr.strip()[-1000:]}")
    return done.stdout.strip()


def remove(kind, *names):
    """Remove containers or volumes, if they are there."""
    subprocess.run(["docker", kind, "rm", "-f", *(["-v"] if kind == "container" else []), *names], capture_output=True)


def busy():
    """Seconds of CPU time that this machine has spent on anything, of all CPUs."""
    fields = [int(each) for each in Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]]
    user, nice, system, _idle, _iowait, irq, softirq, _steal = fields
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port):
    for _attempt in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"nothing listens on 127.0.0.1:{port} after 10 s")


class Server:
    """One registry in a container; begun afresh for every run, so that its log and its CPU time are that run's."""

    def __init__(self, name, volume, port, mode="rw"):
        self.name, self.port = name, port
        remove("container", name)
        env = {
            "REGISTRY_HTTP_ADDR": f"127.0.0.1:{port}",
            "REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY": "/var/lib/registry",
            "REGISTRY_LOG_LEVEL": "error",
            "OTEL_TRACES_EXPORTER": "none",
        }
        variables = [f"--env={key}={value}" for key, value in env.items()]
        place = f"{volume}:/var/lib/registry:{mode}"
        docker("run", "-d", "--name", name, "--network", "host", "-v", place, *variables, SERVER)
        wait_for(port)
        self.pid = int(docker("inspect", "-f", "{{.State.Pid}}", name))

    def cpu(self):
        """Seconds of CPU time so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def requests(self):
        """What it was asked, from its access log: counts, and bytes of blobs it gave."""
        counts = {"HEAD": 0, "GET manifest": 0, "GET blob": 0, "other": 0}
        sent = 0
        log = subprocess.run(["docker", "logs", self.name], capture_output=True, text=True).stdout
        for method, path, _status, size in _REQUEST.findall(log):
            kind = "manifest" if "/manifests/" in path else "blob" if "/blobs/sha256" in path else None
            if method == "GET" and kind:
                counts[f"GET {kind}"] += 1
                sent += int(size) if kind == "blob" else 0
            else:
                counts["HEAD" if method == "HEAD" else "other"] += 1
        return {**counts, "all": sum(counts.values()), "blob bytes": sent}

    def digest(self, repository, tag):
        """The digest of a tag."""
        url = f"http://127.0.0.1:{self.port}/v2/{repository}/manifests/{tag}"
        request = urllib.request.Request(url, method="HEAD", headers={"Accept": INDEX})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.headers["Docker-Content-Digest"]


class Bench:
    """The set-up that all runs share."""

    def __init__(self, scale):
        atexit.register(self.close)
        self.proxy = None
        self.ports = {name: free_port() for name in ("source", "target", "far")}
        self.close()
        base = BASE if subprocess.run(["docker", "image", "inspect", BASE], capture_output=True).returncode == 0 else ""
        say(f"building the clients' image on {base or 'debian:trixie-slim'}")
        arguments = ["--build-arg", f"BASE={base}"] if base else []
        os.environ["DOCKER_BUILDKIT"] = "0"
        docker("build", "-q", "-t", CLIENT, *arguments, str(HERE / "peers"))
        mounts = ["-v", f"{HERE}:/bench:ro", "-v", f"{CORE}:/core/module_utils:ro", "-v", "bench-source:/corpus"]
        docker("run", "-d", "--init", "--name", CLIENT, "--network", "host", *mounts, CLIENT, "sleep", "infinity")
        docker("exec", "-i", CLIENT, "python3", "-", data=_PACK)
        say("making the corpus")
        self.corpus = json.loads(docker("exec", CLIENT, "python3", "/bench/corpus.py", "/corpus", str(scale)))
        listing = docker("exec", CLIENT, "dpkg-query", "-W", "-f", "${Package} ${Version}\n", "skopeo", "crane")
        self.versions = dict(line.split() for line in listing.splitlines())
        self.versions["python3"] = docker("exec", CLIENT, "python3", "-V").split()[1]
        command = [
            sys.executable,
            str(HERE / "proxy.py"),
            str(self.ports["far"]),
            str(self.ports["source"]),
            str(DELAY),
        ]
        self.proxy = subprocess.Popen(command)
        wait_for(self.ports["far"])

    def close(self):
        """Leave nothing behind."""
        if self.proxy:
            self.proxy.kill()
            self.proxy.wait()
        remove("container", CLIENT, "bench-source", "bench-target")
        remove("volume", "bench-source", "bench-target")

    def forget(self):
        """What clients remember of earlier runs."""
        docker("exec", CLIENT, "rm", "-rf", "/var/lib/containers/cache", STATE)

    def write(self, path, document):
        """A file for a client: JSON, which is YAML too."""
        docker("exec", "-i", CLIENT, "sh", "-c", f"cat > {path}", data=json.dumps(document))

    def commands(self, tool, tags, far):
        """What to run for a tool: (commands, how many at one time)."""
        source = f"127.0.0.1:{self.ports['far' if far else 'source']}"
        target = f"127.0.0.1:{self.ports['target']}"
        if tool == OURS:
            mirror = {
                "images": [f"{source}/{tag}" for tag in tags],
                "upstreams": [{"registry": source, "url": f"http://{source}"}],
                "name_template": PREFIX + "/{name}",
            }
            self.write("/var/tmp/registryctl.json", {"registry": {"url": f"http://{target}"}, "mirror": mirror})
            options = ["--config", "/var/tmp/registryctl.json", "--state", STATE, "--json"]
            return [["registryctl", "mirror", *options]], 1
        if tool == SKOPEO:
            images = {}
            for repository, tag in (name.split(":") for name in tags):
                images.setdefault(repository, []).append(tag)
            self.write("/var/tmp/sync.yml", {source: {"tls-verify": False, "images": images}})
            options = ["--all", "--src", "yaml", "--dest", "docker", "--dest-tls-verify=false"]
            return [["skopeo", "--insecure-policy", "sync", *options, "/var/tmp/sync.yml", f"{target}/{PREFIX}"]], 1
        return [
            ["crane", "copy", f"{source}/{tag}", f"{target}/{PREFIX}/{tag}"] for tag in tags
        ], 4 if tool == CRANE4 else 1

    def run(self, case, tool):
        """One tool, one case, once."""
        tags = [self.corpus["one"]] if case == "one" else list(self.corpus["tags"])
        if case != "no-op":
            remove("container", "bench-target")
            remove("volume", "bench-target")
            self.forget()
        os.sync()  # what the run before wrote is not written during this one
        load = os.getloadavg()[0]
        servers = {
            "source": Server("bench-source", "bench-source", self.ports["source"], "ro"),
            "target": Server("bench-target", "bench-target", self.ports["target"]),
        }
        commands, parallel = self.commands(tool, tags, case == "no-op")
        time.sleep(1)  # until the engine and the servers have come to rest
        before = {name: server.cpu() for name, server in servers.items()}
        job = {"commands": commands, "parallel": parallel}
        spent = busy()
        result = json.loads(docker("exec", "-i", CLIENT, "python3", "/bench/measure.py", data=json.dumps(job)))
        spent = busy() - spent
        for name, server in servers.items():
            result[f"{name} cpu"] = server.cpu() - before[name]
            result[name] = server.requests()
        spent -= sum(result[key] for key in ("cpu", "source cpu", "target cpu"))
        result["others"] = max(0.0, spent / result["wall"])
        for tag in tags:
            repository, _colon, name = tag.partition(":")
            if (
                not result["errors"]
                and servers["target"].digest(f"{PREFIX}/{repository}", name) != self.corpus["tags"][tag]
            ):
                result["errors"].append(f"{tag} has another digest at the target")
        return {"case": case, "tool": tool, "load": load, **result}


def measure(bench, cases, rounds):
    """All runs, the tools of a round one after the other, each round beginning with another one."""
    runs = []
    for case in cases:
        tools = list(TOOLS)
        if case == "one":
            tools.remove(CRANE4)
        if case == "no-op":
            # Fill the target, and let every tool see the upstream by its other address once.
            warm = [bench.run("cold", OURS)] + [bench.run("no-op", tool) for tool in tools]
            for one in warm:
                for error in one["errors"]:
                    raise RuntimeError(f"cannot fill the target, {one['tool']}: {error}")
        for number in range(rounds):
            for tool in tools[number % len(tools) :] + tools[: number % len(tools)]:
                run = {"round": number, **bench.run(case, tool)}
                runs.append(run)
                seen = f"load {run['load']:.1f}, others {run['others']:.1f}"
                say(f"{case} {number + 1}/{rounds} {tool}: {run['wall']:.2f} s, {seen}")
                for error in run["errors"]:
                    say(f"  {error}")
    return runs


class Table:
    """Medians of the runs."""

    def __init__(self, runs):
        self.runs = [run for run in runs if not run["errors"]]

    def of(self, case, tool):
        """The good runs of a tool in a case."""
        return [run for run in self.runs if (run["case"], run["tool"]) == (case, tool)]

    def median(self, case, tool, value):
        """Median over rounds; `value` is a function of a run, or a key of it."""
        get = value if callable(value) else lambda run: run[value]
        runs = self.of(case, tool)
        return median(get(run) for run in runs) if runs else float("nan")

    def ratio(self, case, peer, key):
        """Median over rounds of ours / the peer's in the same round."""
        peers = {run["round"]: run for run in self.of(case, peer)}
        pairs = [run[key] / peers[run["round"]][key] for run in self.of(case, OURS) if run["round"] in peers]
        return median(pairs) if pairs else float("nan")

    def markdown(self, case):
        """The table of a case."""
        head = ["tool", "wall s (min-max)", "ours/it", "client CPU s", "CPU s per GB", "source CPU s", "target CPU s"]
        head += ["RSS MB", "GB fetched", "source HEAD / GET manifest / all", "target requests", "load", "others"]
        lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
        for tool in TOOLS:
            runs = self.of(case, tool)
            if not runs:
                continue

            def mid(value, tool=tool):
                return self.median(case, tool, value)

            fetched = mid(lambda run: run["source"]["blob bytes"])
            walls, loads = [run["wall"] for run in runs], [run["load"] for run in runs]
            cells = [
                tool,
                f"{mid('wall'):.2f} ({min(walls):.2f}-{max(walls):.2f})",
                "" if tool == OURS else f"{self.ratio(case, tool, 'wall'):.3f}",
                f"{mid('cpu'):.2f}",
                f"{mid('cpu') / fetched * 1e9:.2f}" if case != "no-op" else "",
                f"{mid('source cpu'):.2f}",
                f"{mid('target cpu'):.2f}",
                f"{mid('memory') / 1e6:.0f}",
                f"{fetched / 1e9:.3f}",
                " / ".join(f"{mid(lambda run, k=k: run['source'][k]):.0f}" for k in ("HEAD", "GET manifest", "all")),
                f"{mid(lambda run: run['target']['all']):.0f}",
                f"{min(loads):.1f}-{max(loads):.1f}",
                f"{mid('others'):.1f}",
            ]
            lines.append("| " + " | ".join(cells) + " |")
        return "\n".join(lines)

    def goals(self, corpus):
        """(what, value, limit) of every goal that was measured."""
        found = []
        if self.of("cold", OURS):
            fetched = max(run["source"]["blob bytes"] for run in self.of("cold", OURS))
            found += [
                ("cold, wall / crane", self.ratio("cold", CRANE, "wall"), 0.45),
                ("cold, wall / skopeo sync", self.ratio("cold", SKOPEO, "wall"), 0.70),
                ("cold, bytes fetched / unique bytes", fetched / corpus["unique_bytes"], 1.0),
                ("cold, client CPU per GB / crane", self._per_gb(OURS) / self._per_gb(CRANE), 1.0),
                ("cold, peak RSS in MB", max(run["memory"] for run in self.of("cold", OURS)) / 1e6, 60),
            ]
        if self.of("no-op", OURS):
            heads = max(run["source"]["HEAD"] for run in self.of("no-op", OURS))
            gets = max(run["source"]["GET manifest"] for run in self.of("no-op", OURS))
            found += [
                ("no-op, source HEADs per tag", heads / len(corpus["tags"]), 1),
                ("no-op, source manifest GETs", gets, 0),
                ("no-op, wall / crane x4", self.ratio("no-op", CRANE4, "wall"), 0.3),
                ("no-op, wall / skopeo sync", self.ratio("no-op", SKOPEO, "wall"), 0.03),
            ]
        return found

    def _per_gb(self, tool):
        return self.median("cold", tool, lambda run: run["cpu"] / run["source"]["blob bytes"])


def report(facts):
    """Everything as Markdown."""
    table, corpus = Table(facts["runs"]), facts["corpus"]
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    sizes = [f"{corpus[key] / 1e9:.2f} GB" for key in ("unique_bytes", "repository_bytes", "tag_bytes")]
    lines = [
        f"{facts['started'][:10]}, {facts['server']}, {versions}; {facts['cpus']} CPUs, load before",
        f"{facts['load'][0]:.1f}; {facts['rounds']} rounds. {len(corpus['tags'])} tags, {corpus['blobs']} blobs:",
        f"{sizes[0]} unique, {sizes[1]} if each repository fetches for itself, {sizes[2]} if each tag does.",
    ]
    for case, what in CASES.items():
        if table.of(case, OURS):
            lines += ["", f"### {case}: {what}", "", table.markdown(case)]
    lines += ["", "### Goals", "", "| goal | at most | measured | |", "| --- | --- | --- | --- |"]
    for what, value, limit in table.goals(corpus):
        lines.append(f"| {what} | {limit} | {value:.3f} | {'met' if value <= limit else 'not met'} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each case (default 5)")
    parser.add_argument("--scale", type=float, default=1.0, help="factor for all sizes of the corpus, for a quick try")
    parser.add_argument("--case", action="append", choices=list(CASES), help="only this one; may be given again")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that close() runs
    started, load = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), os.getloadavg()
    bench = Bench(args.scale)
    runs = measure(bench, args.case or list(CASES), args.rounds)
    path = HERE / "results" / f"{started.replace(':', '')}.json"
    path.parent.mkdir(exist_ok=True)
    facts = {"started": started, "load": load, "server": SERVER, "versions": bench.versions, "scale": args.scale}
    facts |= {"cpus": os.cpu_count(), "rounds": args.rounds, "corpus": bench.corpus, "runs": runs}
    path.write_text(json.dumps(facts, indent=1), encoding="utf-8")
    print(report(facts))
    say(f"all numbers: {path}")
    return 1 if any(run["errors"] for run in runs) else 0


if __name__ == "__main__":
    sys.exit(main())
