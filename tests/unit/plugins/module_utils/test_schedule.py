# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs on a host without systemd: when they run, as tables and as a real process."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest
from ansible_collections.homelab.registry.plugins.module_utils import on_calendar, zipapp_build
from ansible_collections.homelab.registry.plugins.module_utils.ctl import schedule
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError

START = "2026-11-24 22:10:05"  # a Tuesday


# --- calendar -----------------------------------------------------------------------------------------------
CALENDARS = [
    ("*-*-* 03:30:00", "2026-11-25 03:30:00"),
    ("03:30", "2026-11-25 03:30:00"),
    ("daily", "2026-11-25 00:00:00"),
    ("hourly", "2026-11-24 23:00:00"),
    ("weekly", "2026-11-30 00:00:00"),
    ("monthly", "2026-12-01 00:00:00"),
    ("quarterly", "2027-01-01 00:00:00"),
    ("Sun *-*-* 04:00:00", "2026-11-29 04:00:00"),
    ("Tue *-*-* 22:10:05", "2026-12-01 22:10:05"),
    ("Mon,Wed 23:00", "2026-11-25 23:00:00"),
    ("Fri..Sun 01:00", "2026-11-27 01:00:00"),
    ("Sat", "2026-11-28 00:00:00"),
    ("*-*-1,15 05:00", "2026-12-01 05:00:00"),
    ("*-02-29 12:00:00", "2028-02-29 12:00:00"),
    ("2027-*-* 00:00:00", "2027-01-01 00:00:00"),
    ("*:0/15", "2026-11-24 22:15:00"),
    ("*:0/20:30", "2026-11-24 22:20:30"),
    ("0/6:00", "2026-11-25 00:00:00"),
    ("8..10:30", "2026-11-25 08:30:00"),
    ("2020-01-01", None),
]


@pytest.mark.parametrize(("text", "expected"), CALENDARS)
def test_the_next_time(text, expected):
    found = on_calendar.parse(text).after(datetime.fromisoformat(START))
    assert (found and str(found)) == expected


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd here")
@pytest.mark.parametrize(("text", "expected"), CALENDARS)
def test_systemd_means_the_same(text, expected):
    command = ["systemd-analyze", "calendar", f"--base-time={START}", text]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=10, env={**os.environ, "TZ": "UTC"}
    )
    assert (expected or "never") in done.stdout


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tomorrow",
        "25:00",
        "*-13-01",
        "*-*~01",
        "Fryday 03:00",
        "Fri..Mon 03:00",
        "03:00 UTC",
        "*:0/0",
        "5..1:00",
        "1:2:3:4",
        "a-b",
    ],
)
def test_no_time(text):
    with pytest.raises(HomelabError, match="no time: .*: write it like"):
        on_calendar.parse(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("30min", 1800), ("1h 30min", 5400), ("12h", 43200), (90, 90), ("2.5s", 2.5), ("1d1s", 86401)]
)
def test_spans(text, seconds):
    assert on_calendar.span(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "5 parsecs", "-3s", "3 3 x"])
def test_no_span(text):
    with pytest.raises(HomelabError, match="no time span"):
        on_calendar.span(text)


# --- what is next -------------------------------------------------------------------------------------------
def at(text):
    return datetime.fromisoformat(text).timestamp()


def job(**more):
    return schedule.Job(**{"name": "mirror", "on_calendar": "03:30", "command": ("mirror",), **more})


def test_a_delay_is_within_its_bounds_differs_between_hosts_and_stays():
    late = job(randomized_delay=1800.0)
    runs = [schedule.decide(late, at(START), f"host{number}") for number in range(20)]
    assert {one.slot for one in runs} == {at("2026-11-25 03:30:00")}
    assert all(one.slot <= one.at < one.slot + 1800 for one in runs)
    assert len({one.at for one in runs}) == 20
    assert schedule.decide(late, at(START), "host0") == runs[0]


def test_several_missed_runs_are_one():
    last = schedule.caught_up(job(), at("2026-11-20 03:30:00"), at(START))
    assert last == at("2026-11-24 03:30:00")
    assert schedule.decide(job(), last).slot > at(START)


def test_the_end_of_a_calendar():
    assert schedule.decide(job(on_calendar="2020-01-01"), at(START)) is None


def test_a_day_without_that_hour_has_its_run(monkeypatch):
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    try:
        early = job(on_calendar="02:30")
        first = schedule.decide(early, at("2026-03-28 12:00:00"))  # the clock jumps from 2 to 3 that night
        assert str(datetime.fromtimestamp(first.slot)) == "2026-03-29 03:30:00"
        assert str(datetime.fromtimestamp(schedule.decide(early, first.slot).slot)) == "2026-03-30 02:30:00"
        twice = schedule.decide(early, at("2026-10-24 12:00:00"))  # and there are two of that hour
        assert str(datetime.fromtimestamp(schedule.decide(early, twice.slot).slot)) == "2026-10-26 02:30:00"
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("jobs", "part"),
    [
        ([{"name": "a"}], "job 1"),
        ([{"name": "a", "on_calendar": "x", "command": ["b"]}], "'x' is no time"),
        ([{"name": "a", "on_calendar": "daily", "command": ["b"], "on": 1}], "unknown setting 'on'"),
        ([{"name": "a", "on_calendar": "daily", "command": ["b"]}] * 2, "several jobs named 'a'"),
        ([{"name": "a", "on_calendar": "daily", "command": ["b"], "timeout": "x"}], "no time span"),
    ],
)
def test_wrong_jobs(jobs, part):
    with pytest.raises(HomelabError, match=part):
        schedule.jobs_of({"jobs": jobs})


def test_a_memory_of_a_wrong_clock_is_not_believed(tmp_path):
    memory = schedule.Memory(str(tmp_path))
    memory.keep("a", slot=at("2036-01-01 00:00:00"))
    assert schedule.Memory(str(tmp_path)).last("a", at(START)) == at(START)
    (tmp_path / "schedule.json").write_text("nonsense", encoding="utf-8")
    assert schedule.Memory(str(tmp_path)).last("a", at(START)) == at(START)


def test_a_full_disk_does_not_keep_jobs_from_running(tmp_path, capsys):
    memory = schedule.Memory(str(tmp_path / "state"))
    (tmp_path / "state").touch()  # no directory any more, so that nothing can be written
    memory.keep("guard", slot=1.0)
    memory.keep("guard", exit=0)
    assert memory.of("guard") == {"slot": 1.0, "exit": 0}
    assert capsys.readouterr().err.count("cannot be written") == 1


# --- the process --------------------------------------------------------------------------------------------
@pytest.fixture
def place(tmp_path):
    """registryctl as it is installed, with settings."""
    program = tmp_path / "registryctl"
    program.write_bytes(zipapp_build.build(Path(zipapp_build.__file__).parent))

    def settings(*jobs, **more):
        text = json.dumps({"state_dir": str(tmp_path / "state"), "schedule": {"jobs": list(jobs)}, **more})
        (tmp_path / "new").write_text(text, encoding="utf-8")
        (tmp_path / "new").replace(tmp_path / "settings.json")

    def call(*arguments):
        return [sys.executable, "-I", str(program), "schedule", "--config", str(tmp_path / "settings.json"), *arguments]

    settings.call = call
    settings.program = program
    settings.state = tmp_path / "state" / "schedule.json"
    return settings


def remembered(settings, name, condition, seconds=20):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if settings.state.exists():
            entry = json.loads(settings.state.read_text(encoding="utf-8")).get(name, {})
            if condition(entry):
                return entry
        time.sleep(0.1)
    raise AssertionError(f"{name}: {settings.state.exists() and settings.state.read_text(encoding='utf-8')}")


def test_jobs_run_settings_are_read_again_and_a_new_version_takes_over(place):
    each_second = {"on_calendar": "*:*:*", "command": ["schedule", "--list"]}
    place({"name": "fails", "on_calendar": "*:*:*", "command": ["schedule", "--now", "nothing"]})
    with subprocess.Popen(place.call(), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as running:
        try:
            remembered(place, "fails", lambda entry: entry.get("exit") == 2)
            place({"name": "works", **each_second})
            remembered(place, "works", lambda entry: entry.get("exit") == 0)
            fresh = place.program.with_name("fresh")
            fresh.write_bytes(place.program.read_bytes())
            fresh.replace(place.program)
            since = time.time()
            remembered(place, "works", lambda entry: (entry.get("finished") or 0) > since + 3)
        finally:
            running.send_signal(signal.SIGTERM)
            said = running.communicate(timeout=20)[1]
    assert running.returncode == 130
    assert "fails ended with 2" in said and "works ended with 0" in said
    assert said.count("the jobs are in my hands") == 2, said


def test_a_missed_run_is_made_up_for_once_and_a_stuck_one_is_stopped(place):
    daily = {"name": "daily", "on_calendar": "daily", "command": ["schedule", "--list"]}
    stuck = {"name": "stuck", "on_calendar": "daily", "command": ["schedule"], "timeout": "1s"}
    place(daily, stuck)
    place.state.parent.mkdir()
    old = time.time() - 3 * 86400
    place.state.write_text(json.dumps({"daily": {"slot": old}, "stuck": {"slot": old}}), encoding="utf-8")
    # "stuck" is a schedule in a schedule: it would run for ever, and has nothing to make up for once "daily" has run
    with subprocess.Popen(place.call(), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as running:
        try:
            first = remembered(place, "daily", lambda entry: entry.get("exit") == 0)
            remembered(place, "stuck", lambda entry: entry.get("exit") == 130)
        finally:
            running.send_signal(signal.SIGTERM)
            said = running.communicate(timeout=20)[1]
    assert said.count("daily ended") == 1
    assert "stuck took longer than 1.0 s and was stopped" in said
    assert time.time() - first["slot"] < 86400
    listed = subprocess.run(place.call("--list"), capture_output=True, text=True, check=True, timeout=20).stdout
    assert [line.split()[0].strip("-") for line in listed.splitlines()] == ["job", "", "daily", "stuck"]


def test_a_failure_is_told(place, tmp_path):
    told = {"command": ["/bin/sh", "-c", f"cat >>{tmp_path}/told"], "host": "nas"}
    place({"name": "fails", "on_calendar": "*:*:*", "command": ["schedule", "--now", "nothing"]}, notify=told)
    with subprocess.Popen(place.call(), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as running:
        try:
            once = remembered(place, "fails", lambda entry: entry.get("exit") == 2)
            remembered(place, "fails", lambda entry: (entry.get("started") or 0) > once["started"])
        finally:
            running.send_signal(signal.SIGTERM)
            running.wait(timeout=20)
    assert (tmp_path / "told").read_text(encoding="utf-8").count("nas: registry schedule failed") == 1


def test_one_job_by_hand(place):
    place({"name": "list", "on_calendar": "daily", "command": ["schedule", "--list"]})
    done = subprocess.run(place.call("--now", "list"), capture_output=True, text=True, check=False, timeout=20)
    assert (done.returncode, "list ended with 0" in done.stderr) == (0, True)
    done = subprocess.run(place.call("--now", "other"), capture_output=True, text=True, check=False, timeout=20)
    assert (done.returncode, "there are list" in done.stderr) == (2, True)
