# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table at the end of site.yml."""

from __future__ import annotations

import pytest
from ansible_collections.homelab.registry.plugins.module_utils.report.summary import fleet_summary
from ansible_collections.homelab.registry.plugins.module_utils.report.table import render

GROUPS = {"registry": ["nas"], "docker_nodes": ["pc", "nas2"], "k3s_nodes": ["sbc"]}
PULLED = {"steps": {"pull by name": "0.2 s", "pull through the mirror": "0.1 s"}}
PROBED = {"latency_ms": 1.5}


def cells(node, facts, groups=None, check=False):
    line = fleet_summary([node], groups or GROUPS, {node: facts}, check).splitlines()[2]
    return [cell for cell in line.split("  ") if cell]


def strip(row):
    return [cell.strip() for cell in row]


NODES = {
    "registry": ("nas", {"__registry_probe": PROBED}, ["nas", "registry", "-", "-", "ok, answers in 1.5 ms"]),
    "registry that was not probed": ("nas", {}, ["nas", "registry", "-", "-", "ok"]),
    "docker": ("pc", {"proof_pull": PULLED}, ["pc", "docker", "0.2 s", "0.1 s", "ok"]),
    "docker that was not tried": ("pc", {}, ["pc", "docker", "-", "-", "not tried"]),
    "a skipped proof": ("pc", {"proof_pull": {"skipped": True}}, ["pc", "docker", "-", "-", "not tried"]),
    "k3s": ("sbc", {"proof_pull": PULLED}, ["sbc", "k3s", "0.2 s", "0.1 s", "ok"]),
    "k3s without k3s": ("sbc", {}, ["sbc", "k3s", "-", "-", "configured; no k3s to pull with yet"]),
    "failed": (
        "pc", {"client_failure": "unreachable:  no answer", "proof_pull": PULLED},
        ["pc", "docker", "0.2 s", "0.1 s", "FAILED: unreachable:", "no answer"],
    ),
    "no mirror": (
        "pc", {"proof_pull": {"steps": {"pull by name": "1.0 s"}}}, ["pc", "docker", "1.0 s", "-", "ok"],
    ),
}


@pytest.mark.parametrize(("node", "facts", "row"), NODES.values(), ids=NODES)
def test_a_node(node, facts, row):
    assert strip(cells(node, facts)) == row


def test_a_dry_run_tries_nothing_but_tells_failures():
    assert cells("pc", {"proof_pull": PULLED}, check=True)[-1] == "not tried (dry run)"
    assert cells("pc", {"client_failure": "bad file"}, check=True)[-1] == "FAILED: bad file"


def test_a_node_with_two_parts():
    facts = {"__registry_probe": PROBED, "proof_pull": PULLED}
    row = strip(cells("nas", facts, {"registry": ["nas"], "docker_nodes": ["nas"]}))
    assert row == ["nas", "registry+docker", "0.2 s", "0.1 s", "ok, answers in 1.5 ms"]


def test_the_whole_table():
    hostvars = {
        "nas": {"__registry_probe": PROBED},
        "pc": {"proof_pull": PULLED},
        "sbc": {"client_failure": "k3s did not come back"},
    }
    assert fleet_summary(hostvars, GROUPS, hostvars, False) == (
        "node  part      pull by name  mirror path  result\n"
        "----  --------  ------------  -----------  ------\n"
        "nas   registry  -             -            ok, answers in 1.5 ms\n"
        "pc    docker    0.2 s         0.1 s        ok\n"
        "sbc   k3s       -             -            FAILED: k3s did not come back"
    )


def test_render_takes_anything_and_does_not_cut_the_last_column():
    reason = "x" * 200
    assert render([[1, None], ["long name", reason]], ["a", "b"]).splitlines() == [
        "a          b", "---------  -", "1          None", f"long name  {reason}",
    ]


def test_render_without_rows():
    assert render([], ["node", "result"]) == "node  result\n----  ------"
