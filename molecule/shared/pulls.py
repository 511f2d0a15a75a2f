# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the loops that prepare.yml has started have seen."""

import re
from typing import NamedTuple

from testinfra_common import node, ok

LOOPS = {
    "lab-n12": ("name",),
    "lab-n13": ("name",),
    "lab-k3s-server": ("name", "mirror"),
    "lab-k3s-agent": ("name", "mirror"),
}
#: Seconds by which two loops may see one thing at different times: the pause between two tries, a try, a busy machine.
SLACK = 3
#: What crictl says while its own runtime is not there, and seconds that may take.
RUNTIME_DOWN = re.compile(r"Errno|unavailable|connection|closed|not initialized", re.IGNORECASE)
RUNTIME_STARTS = 60


class Try(NamedTuple):
    begin: float
    end: float
    good: bool
    words: str


def tries(host, loop, since):
    lines = ok(node(host), f"cat /root/pulls/{loop}").splitlines()
    found = []
    for line in lines:
        begin, end, code, *words = line.split(" ", 3)
        found.append(Try(float(begin), float(end), code == "0", " ".join(words)))
    return [one for one in found if one.begin >= since]


def gaps(seen):
    """Stretches without a good try: (end of the last good one, end of the next, words of the first bad one)."""
    found, last, words = [], None, None
    for one in seen:
        if not one.good:
            words = words or one.words
            last = last if last is not None else one.begin
        else:
            if words is not None:
                found.append((last, one.end, words))
            last, words = one.end, None
    if words is not None:
        found.append((last, float("inf"), words))
    return found


def restarts(host, since):
    """When k3s was restarted: (it stops, its runtime may be up again)."""
    journal = ok(node(host), f"journalctl -u 'k3s*' --since @{int(since)} -o short-unix --no-pager").splitlines()
    stops = [float(line.split()[0]) for line in journal if " Stopping k3s" in line]
    return [(stop, stop + RUNTIME_STARTS) for stop in stops]


def report(since):
    """Gaps of each node's loops that neither the server's restart nor one of the node's own k3s explains, and a text
    with the longest of each."""
    server = gaps(tries("lab-reg", "server", since))
    lines = [f"server down: {', '.join(f'{end - begin:.1f} s' for begin, end, _words in server) or 'never'}"]
    unexplained = []
    for host, loops in LOOPS.items():
        own = restarts(host, since) if "k3s" in host else []
        for loop in loops:
            seen = tries(host, loop, since)
            assert len(seen) > 5, f"{host}: the loop {loop} does not run"
            found = gaps(seen)
            longest = max((end - begin for begin, end, _words in found), default=0)
            lines.append(f"{host} {loop}: {len(seen)} pulls, {len(found)} gaps, longest {longest:.1f} s")
            for begin, end, words in found:
                causes = [(a, b) for a, b, _words in server] + (own if RUNTIME_DOWN.search(words) else [])
                if not any(begin <= b + SLACK and end >= a - SLACK for a, b in causes):
                    unexplained.append(f"{host} {loop}: {end - begin:.1f} s: {words}")
    return unexplained, "\n".join(lines)
