# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a mirror run shows: numbers, the table, the meter."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest
from ansible_collections.homelab.registry.plugins.module_utils.report.mirror import image_line, mirror_summary
from ansible_collections.homelab.registry.plugins.module_utils.report.numbers import duration, size
from ansible_collections.homelab.registry.plugins.module_utils.report.progress import Bar, Lines

MIB = 1 << 20


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"), (1, "1 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), (10 * 1024 - 1, "10 KiB"),
        (1023.6 * 1024, "1.0 MiB"), (23 * MIB, "23 MiB"), (1.25 * 1024 * MIB, "1.2 GiB"), (5 << 40, "5.0 TiB"),
        (9000 << 40, "9000 TiB"),
    ],
)  # fmt: skip
def test_sizes(count, text):
    assert size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"), (0.04, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.4, "59 s"), (59.6, "1 min 0 s"),
        (185, "3 min 5 s"), (3599.6, "1 h 0 min"), (8040, "2 h 14 min"),
    ],
)  # fmt: skip
def test_durations(seconds, text):
    assert duration(seconds) == text


def image(name, action, **more):
    fields = {
        "reason": None,
        "transfer_bytes": 0,
        "transferred_bytes": 0,
        "mounted_bytes": 0,
        "seconds": 0.0,
        "notes": [],
    }
    return {"image": name, "action": action, **fields, **more}


def report(images, check=False, pruned=()):
    return {
        "check": check,
        "images": images,
        "pruned": list(pruned),
        **{key: sum(one[key] for one in images) for key in ("transfer_bytes", "transferred_bytes", "mounted_bytes")},
    }


def test_a_run():
    shown = mirror_summary(
        report(
            [
                image(
                    "node:20",
                    "copied",
                    transfer_bytes=3 * MIB,
                    transferred_bytes=3 * MIB,
                    mounted_bytes=MIB,
                    seconds=2.04,
                ),
                image("alpine:3", "unchanged"),
                image("nope:1", "failed", reason="no such image: check the name"),
                image("late:1", "deferred", reason="1 of 100 pulls left", notes=["upstream has no linux/arm of it"]),
            ],
            pruned=[
                {"repository": "old", "tag": "1", "action": "pruned", "reason": None},
                {"repository": "old", "tag": "2", "action": "kept", "reason": "protected"},
            ],
        )
    )
    assert shown == (
        "image     result     size     time   why\n"
        "--------  ---------  -------  -----  ---\n"
        "node:20   copied     3.0 MiB  2.0 s  -\n"
        "alpine:3  unchanged  -        -      -\n"
        "late:1    deferred   -        -      1 of 100 pulls left; upstream has no linux/arm of it\n"
        "nope:1    FAILED     -        -      no such image: check the name\n"
        "old:1     pruned     -        -      gone upstream\n"
        "old:2     kept       -        -      protected\n"
        "\n"
        "1 copied, 1 unchanged, 1 pruned, 1 kept, 1 deferred, 1 failed, 3.0 MiB travelled, 1.0 MiB did not have to"
    )


def test_a_dry_run_tells_what_would_travel():
    shown = mirror_summary(report([image("a:1", "would copy", transfer_bytes=2 * MIB)], check=True))
    assert shown.splitlines()[2] == "a:1    would copy  2.0 MiB  -     -"
    assert shown.endswith("1 would copy, 2.0 MiB would travel")


def test_a_run_in_which_everything_was_mounted():
    assert "0 B travelled, 1.0 MiB did not" in mirror_summary(report([image("a:1", "copied", mounted_bytes=MIB)]))


def test_nothing_to_tell():
    assert mirror_summary(report([image("a:1", "unchanged")])).endswith("\n\n1 unchanged")
    # as when there was only to heal, and nothing is damaged
    assert mirror_summary(report([])) == "no image had to be mirrored"


def result(name, action, **more):
    return SimpleNamespace(action=action, as_dict=lambda: image(name, action, **more))


def test_lines_in_a_log():
    out = io.StringIO()
    lines = Lines(out)
    copy, same = SimpleNamespace(action="copy"), SimpleNamespace(action="unchanged")
    lines.planned(SimpleNamespace(images=[copy, same], transfer=MIB))
    lines.moved(100)
    lines.finished(result("a:1", "unchanged"))
    lines.finished(result("b:1", "copied", transferred_bytes=MIB, seconds=1.0))
    lines.finished(result("c:1", "failed", reason="gone"))
    assert out.getvalue().splitlines() == [
        "1 of 2 images to copy, 1.0 MiB", "b:1: copied, 1.0 MiB in 1.0 s", "c:1: failed: gone",
    ]  # fmt: skip


def test_a_log_of_a_run_without_news_is_empty():
    out = io.StringIO()
    lines = Lines(out)
    lines.planned(SimpleNamespace(images=[SimpleNamespace(action="unchanged")], transfer=0))
    lines.finished(result("a:1", "unchanged"))
    assert out.getvalue() == ""


def test_the_bar():
    now = [0.0]
    out = io.StringIO()
    meter = Bar(out, clock=lambda: now[0], width=200)
    meter.planned(SimpleNamespace(images=[None, None], transfer=4 * MIB))
    now[0] = 2.0
    meter.moved(MIB)
    assert meter.line() == "[######                  ]  25%  1.0 MiB of 4.0 MiB  512 KiB/s  0/2 images"
    drawn = out.getvalue()
    meter.moved(1)  # not drawn for each piece
    assert out.getvalue() == drawn
    meter.finished(result("a:1", "copied", transferred_bytes=MIB, seconds=2.0))
    assert "1/2 images" in out.getvalue()
    assert "a:1" not in out.getvalue(), "the table at the end has it"
    meter.moved(4 * MIB)  # a blob that was begun again is counted back, but may show for a moment
    assert "100%" in meter.line()
    meter.close()
    assert out.getvalue().endswith("\r\x1b[K")


def test_no_bar_before_the_plan():
    out = io.StringIO()
    Bar(out, width=200).finished(result("a:1", "failed", reason="not an image"))
    assert out.getvalue() == ""


def test_the_bar_does_not_break_the_line():
    out = io.StringIO()
    meter = Bar(out, width=30)
    meter.planned(SimpleNamespace(images=[], transfer=0))
    assert len(out.getvalue().split("\r")[1].replace("\x1b[K", "")) == 29


def test_one_image_in_one_line():
    assert image_line(image("a:1", "deferred", reason="later")) == "a:1: deferred: later"
