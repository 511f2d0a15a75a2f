# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What site.yml says at its end: one line a node."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .table import render

HEADER = ["node", "part", "pull by name", "mirror path", "result"]


def fleet_summary(nodes: Iterable[str], groups: Mapping, hostvars: Mapping, check: bool) -> str:
    """A table of the nodes of a run.

    Args:
        nodes: host names, in the order of the lines.
        groups: inventory group name to its hosts.
        hostvars: host name to its variables, among them what the run noted: `client_failure` (text),
            `proof_pull` (result of pull_check) and `__registry_probe` (result of registry_probe).
        check: whether this was a dry run, which pulls nothing.
    """
    rows = []
    for node in nodes:
        facts = hostvars[node]
        parts = [
            part
            for part, group in (("registry", "registry"), ("docker", "docker_nodes"), ("k3s", "k3s_nodes"))
            if node in (groups.get(group) or [])
        ]
        steps = (facts.get("proof_pull") or {}).get("steps") or {}
        rows.append(
            [
                node,
                "+".join(parts),
                steps.get("pull by name", "-"),
                steps.get("pull through the mirror", "-"),
                _result(facts, parts, steps, check),
            ]
        )
    return render(rows, HEADER)


def _result(facts: Mapping, parts: list[str], steps: Mapping, check: bool) -> str:
    if facts.get("client_failure"):
        return f"FAILED: {facts['client_failure']}"
    if check:
        return "not tried (dry run)"
    latency = (facts.get("__registry_probe") or {}).get("latency_ms")
    answers = f", answers in {latency} ms" if latency else ""
    if not steps and parts != ["registry"]:
        return "configured; no k3s to pull with yet" if "k3s" in parts else "not tried"
    return f"ok{answers}"
