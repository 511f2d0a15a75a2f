# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The disk guard: its judgement as tables, and registryctl guard with disks of any fill."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import pytest
from ansible_collections.homelab.registry.plugins.module_utils import cli
from ansible_collections.homelab.registry.plugins.module_utils.ctl import guard as ctl
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.storage import guard
from ansible_collections.homelab.registry.plugins.module_utils.storage.guard import (
    CRITICAL,
    FAILED,
    NO_POLICY,
    NOT_ENOUGH,
    OK,
    WARN,
    Limits,
    Memory,
)
from ansible_collections.homelab.registry.plugins.module_utils.storage.usage import FileSystem

HOUR, DAY, NOW = 3600, 86400, 1_800_000_000
LEVELS = {74.99: OK, 75: WARN, 79.99: WARN, 80: CRITICAL, 100: CRITICAL, 0: OK}


@pytest.mark.parametrize(("percent", "level"), LEVELS.items())
def test_levels(percent, level):
    assert Limits().level(percent) == level


@pytest.mark.parametrize(("warn", "critical"), [(0, 80), (81, 80), (75, 101), (-1, 5)])
def test_limits_that_are_none(warn, critical):
    with pytest.raises(HomelabError, match="warn is"):
        Limits(warn, critical)


CLEANUPS = {
    "enough space": (OK, True, 0, False),
    "the first time": (WARN, True, 0, True),
    "critical as well": (CRITICAL, True, 0, True),
    "no policy": (CRITICAL, False, 0, False),
    "half an hour ago": (WARN, True, NOW - HOUR // 2, False),
    "an hour ago": (WARN, True, NOW - HOUR, True),
    "a timer that is a little early": (WARN, True, NOW - HOUR + 30, True),
    "a clock that was set back": (WARN, True, NOW + DAY, True),
}


@pytest.mark.parametrize(("level", "policy", "cleaned_at", "wanted"), CLEANUPS.values(), ids=CLEANUPS)
def test_when_a_cleanup_runs(level, policy, cleaned_at, wanted):
    assert guard.wants_cleanup(level, policy, Memory(cleaned_at=cleaned_at), NOW) is wanted


CONCERNS = {
    "all is well": (OK, True, None, None),
    "it helped": (OK, True, {"failed": False}, None),
    "critical": (CRITICAL, True, {"failed": True}, CRITICAL),
    "no policy": (WARN, False, None, NO_POLICY),
    "it failed": (WARN, True, {"failed": True}, FAILED),
    "it did not help": (WARN, True, {"failed": False}, NOT_ENOUGH),
    "it has not run yet": (WARN, True, None, None),
}


@pytest.mark.parametrize(("level", "policy", "cleanup", "why"), CONCERNS.values(), ids=CONCERNS)
def test_what_somebody_should_know(level, policy, cleanup, why):
    assert guard.concern(level, policy, cleanup) == why


TOLD = {
    # why, level, told, hours ago -> told now, remembered
    "new": (CRITICAL, CRITICAL, None, 0, True, CRITICAL),
    "the same an hour later": (CRITICAL, CRITICAL, CRITICAL, 1, False, CRITICAL),
    "the same a day later": (CRITICAL, CRITICAL, CRITICAL, 24, True, CRITICAL),
    "worse": (CRITICAL, CRITICAL, NO_POLICY, 1, True, CRITICAL),
    "another reason": (FAILED, WARN, NO_POLICY, 1, True, FAILED),
    "a little better": (NOT_ENOUGH, WARN, CRITICAL, 1, False, CRITICAL),
    "a little better, a day later": (NOT_ENOUGH, WARN, CRITICAL, 25, True, NOT_ENOUGH),
    "well again": (None, OK, CRITICAL, 1, True, None),
    "well all the time": (None, OK, None, 100, False, None),
    "better, not well": (None, WARN, CRITICAL, 1, False, CRITICAL),
    "a clock that was set back": (CRITICAL, CRITICAL, CRITICAL, -5, True, CRITICAL),
}


@pytest.mark.parametrize(("why", "level", "told", "hours", "now", "after"), TOLD.values(), ids=TOLD)
def test_when_somebody_is_told(why, level, told, hours, now, after):
    memory = Memory(told=told, told_at=NOW - hours * HOUR)
    answer, later = guard.tell(why, level, memory, NOW)
    assert (answer, later.told) == (now, after)
    assert later.told_at == (NOW if now else memory.told_at)


def test_a_disk_that_goes_to_and_fro_does_not_write_every_hour():
    memory, told = Memory(), 0
    for hour in range(48):
        why = CRITICAL if hour % 2 else NOT_ENOUGH
        now, memory = guard.tell(why, CRITICAL if hour % 2 else WARN, memory, NOW + hour * HOUR)
        told += now
    assert told <= 4


@pytest.mark.parametrize("data", [None, {}, [], {"cleaned_at": "x", "told": None, "told_at": 0}])
def test_a_memory_that_makes_no_sense(data):
    assert Memory.from_dict(data) == Memory()
    memory = Memory(5.0, CRITICAL, 7.0)
    assert Memory.from_dict(json.loads(json.dumps(memory.as_dict()))) == memory


# --- registryctl guard ----------------------------------------------------------------------------------------
class Host:
    """A registry host: `percent` of its disk is in use, and what a clean-up makes of that."""

    def __init__(self, home, monkeypatch, capsys):
        self.home, self.capsys = home, capsys
        self.percent, self.after = 50, None
        self.code, self.result, self.cleanups = 0, {"freed": 1}, []
        self.clock = NOW
        self.recovers = self.recovery = 0
        self.inbox = home / "inbox"
        teller = home / "tell"
        teller.write_text(f"#!/bin/sh\n(cat; echo $HOMELAB_LEVEL; echo ---) >>{self.inbox}\n")
        teller.chmod(0o755)
        self.settings = {
            "host": {"data_path": str(home)},
            "cleanup": {"policy": {"keep_last": 3}},
            "notify": {"command": [str(teller)], "host": "nas"},
            "state_dir": str(home / "state"),
        }
        monkeypatch.setattr(ctl, "file_system", self.file_system)
        monkeypatch.setattr(ctl, "time", SimpleNamespace(time=lambda: self.clock))
        parser = cli._parser

        def with_cleanup(argv):
            made = parser(argv)
            made.set_defaults(main=self.cleanup)
            return made

        monkeypatch.setattr(cli, "_parser", with_cleanup)

    def file_system(self, path):
        assert path == str(self.home)
        return FileSystem(100 << 30, int(self.percent * (1 << 30)), int((100 - self.percent) * (1 << 30)))

    def cleanup(self, argv):
        if argv[0] == "recover":
            self.recovers += 1
            return self.recovery
        self.cleanups.append(argv)
        sys.stdout.write("the table of the clean-up\n")
        path = argv[argv.index("--result") + 1]
        with open(path, "w") as file:  # noqa: PTH123
            json.dump(self.result, file)
        self.percent = self.percent if self.after is None else self.after
        return self.code

    def guard(self, *arguments, later=0):
        self.clock += later
        config = self.home / "registryctl.json"
        config.write_text(json.dumps(self.settings))
        code = cli.main(["guard", "--config", str(config), *arguments])
        self.out, self.err = self.capsys.readouterr()
        return code

    def told(self):
        text = self.inbox.read_text() if self.inbox.exists() else ""
        self.inbox.unlink(missing_ok=True)
        return [one for one in text.split("---\n") if one]

    @property
    def kept(self):
        return json.loads((self.home / "state" / "guard.json").read_text())


@pytest.fixture
def host(tmp_path, monkeypatch, capsys):
    return Host(tmp_path, monkeypatch, capsys)


def test_enough_space(host):
    assert host.guard() == 0
    assert "50.0 % in use (ok), 50 GiB free of 100 GiB" in host.out
    assert (host.cleanups, host.told()) == ([], [])
    assert (host.kept["level"], host.kept["percent"]) == ("ok", 50.0)


def test_a_cleanup_that_helps_is_nobody_s_business(host):
    host.percent, host.after = 76, 40
    assert host.guard() == 0
    assert len(host.cleanups) == 1
    assert host.told() == []
    assert (host.kept["level"], host.kept["concern"]) == ("ok", None)


def test_a_cleanup_once_an_hour(host):
    host.percent = 76
    assert host.guard() == 1
    assert "does not free enough" in host.told()[0]
    host.guard(later=600)
    assert len(host.cleanups) == 1
    host.guard(later=3000)
    assert len(host.cleanups) == 2
    assert host.told() == []


def test_critical_is_told_on_a_change_and_daily(host):
    host.percent = 95
    assert host.guard() == 1
    (told,) = host.told()
    assert told.startswith("nas: the registry's disk is nearly full\n")
    assert "95.0 % in use (critical)" in told
    assert told.endswith("critical\n")
    for _hour in range(23):
        host.guard(later=HOUR)
    assert host.told() == []
    host.guard(later=HOUR)
    assert len(host.told()) == 1
    host.percent = 30
    assert host.guard(later=HOUR) == 0
    (told,) = host.told()
    assert "has space again" in told
    assert told.endswith("info\n")
    host.guard(later=DAY)
    assert host.told() == []


def test_without_a_policy_nothing_is_deleted_and_somebody_is_told(host):
    del host.settings["cleanup"]
    host.percent = 76
    assert host.guard() == 1
    assert host.cleanups == []
    assert "no clean-up policy is set" in host.out
    (told,) = host.told()
    assert "cleanup_keep_last" in told


def test_a_guard_that_is_only_to_tell(host):
    host.settings["guard"] = {"cleanup": False}
    host.percent = 76
    host.guard()
    assert host.cleanups == []


def test_other_limits(host):
    host.settings["guard"] = {"warn": 40, "critical": 90}
    host.guard()
    assert len(host.cleanups) == 1
    host.settings["guard"] = {"warn": 95}
    assert host.guard() == 2
    assert "warn is 95" in host.err


def test_a_cleanup_that_fails_is_told_with_its_reason(host):
    host.percent, host.code, host.result = 76, 2, {"error": "the plan would delete too much"}
    assert host.guard() == 1
    (told,) = host.told()
    assert "cleaning up failed" in told
    assert "the plan would delete too much" in told
    assert host.kept["cleanup"]["status"] == 2


def test_why_a_cleanup_kept_so_much_is_told(host):
    host.percent, host.result = 76, {"notes": ["n1 was never asked what it uses; nothing goes until it was"]}
    host.guard()
    assert "n1 was never asked what it uses" in host.told()[0]


def test_a_policy_that_only_protects_is_none(host):
    host.settings["cleanup"] = {"policy": {"protect": ["v*"], "keep_last": None}}
    host.percent = 76
    host.guard()
    assert host.cleanups == []
    assert "no clean-up policy is set" in host.out


def test_a_cleanup_of_somebody_else_is_under_way(host):
    host.percent, host.code = 76, 75
    assert host.guard() == 0
    assert (host.kept["cleanup"], host.told()) == (None, [])
    host.code, host.after = 0, 40
    host.guard(later=600)
    assert len(host.cleanups) == 2, "it was not the one of this hour"


def test_what_the_last_cleanup_said_is_still_so_while_another_run_is_under_way(host):
    host.percent, host.code, host.result = 76, 1, {"trouble": "the garbage was not collected"}
    assert host.guard() == 1
    assert "the garbage was not collected" in host.told()[0]
    host.code = 75
    assert host.guard(later=HOUR) == 1
    assert host.kept["cleanup"]["status"] == 1


@pytest.mark.parametrize(("recovery", "code"), [(0, 0), (75, 0), (2, 2), (70, 2), (130, 130)])
def test_a_registry_that_was_left_read_only_is_brought_back(host, recovery, code):
    host.recovery = recovery
    assert host.guard() == code
    assert host.recovers == 1
    if code == 2:
        assert "a maintenance was cut off" in host.kept["error"]


def test_json_is_all_there_is_on_stdout(host):
    host.percent, host.after = 76, 40
    host.guard("--json")
    assert json.loads(host.out)["level"] == "ok"
    assert "the table of the clean-up" in host.err


def test_a_dry_run(host):
    host.percent = 95
    assert host.guard("--dry-run") == 0
    assert "a clean-up would run" in host.out
    assert (host.cleanups, host.told()) == ([], [])
    assert not (host.home / "state").exists()


def test_telling_fails_and_is_tried_again(host):
    host.percent = 95
    good, host.settings["notify"]["command"] = host.settings["notify"]["command"], ["/nonexistent/tell"]
    assert host.guard() == 1
    assert "/nonexistent/tell cannot be run" in host.err
    host.settings["notify"]["command"] = good
    host.guard(later=600)
    assert len(host.told()) == 1


def test_a_mistake_in_the_settings_of_telling_does_not_stop_the_guard(host):
    host.percent, host.after = 76, 81
    host.settings["notify"] = {"command": ["x"], "webhook": "no address"}
    (host.home / "registryctl.json").touch(0o600)
    assert host.guard() == 1
    assert len(host.cleanups) == 1
    assert "notify.webhook.url" in host.err


def test_nowhere_to_look(host):
    host.settings["host"] = {}
    assert host.guard() == 2
    assert "on the registry host" in host.err


def test_a_state_that_cannot_be_written_does_not_stop_it(host):
    host.settings["state_dir"] = "/dev/null/state"
    host.percent = 95
    host.settings["guard"] = {"cleanup": False}
    assert host.guard() == 1
    assert len(host.told()) == 1
    assert "cannot be written" in host.err
