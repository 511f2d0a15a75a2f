# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From an inventory's variables to the sections guard, verify and notify; the times that jobs have by default."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from ansible_collections.homelab.registry.plugins.module_utils import on_calendar
from ansible_collections.homelab.registry.plugins.module_utils.ctl.settings import load_config
from ansible_collections.homelab.registry.plugins.module_utils.ctl.variables import settings_of
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError

ROOT = Path(__file__).resolve().parents[4]
NOTHING = {"guard": {}, "verify": {}, "notify": {}}
GIVEN = {
    "nothing": ({}, NOTHING),
    "somebody else's": ({"notify_room": "kitchen", "guard_dog": "Rex"}, NOTHING),
    "limits, as -e gives them": (
        {"guard_warn": "60", "guard_critical": 90, "guard_cleanup": "no"},
        {**NOTHING, "guard": {"warn": 60, "critical": 90, "cleanup": False}},
    ),
    "every byte": ({"verify_deep": "yes"}, {**NOTHING, "verify": {"deep": True}}),
    "a command": ({"notify_command": ["tell", "a b"]}, {**NOTHING, "notify": {"command": ["tell", "a b"]}}),
    "a webhook": (
        {"notify_webhook_url": "https://ntfy.sh/x", "notify_webhook_format": "ntfy"},
        {**NOTHING, "notify": {"webhook": {"url": "https://ntfy.sh/x", "format": "ntfy"}}},
    ),
    "a mail": (
        {"notify_mail_to": "a@x, b@x", "notify_mail_port": "2525", "notify_mail_server": "mail"},
        {**NOTHING, "notify": {"mail": {"to": ["a@x", "b@x"], "port": 2525, "server": "mail"}}},
    ),
}
WRONG = {
    "limits that are none": ({"guard_warn": 90}, "guard_warn, guard_critical"),
    "no number": ({"guard_warn": "much"}, "guard_warn"),
    "misspelt": ({"notify_web_hook_url": "x"}, "did you mean notify_webhook_url"),
    "misspelt limit": ({"guard_warning": 70}, "did you mean guard_warn"),
    "half a webhook": ({"notify_webhook_format": "ntfy"}, "notify.webhook.url"),
    "no receiver": ({"notify_mail_server": "x"}, "notify.mail"),
}


@pytest.mark.parametrize(("variables", "settings"), GIVEN.values(), ids=GIVEN)
def test_what_is_set(variables, settings, tmp_path):
    assert settings_of(variables) == settings
    # and registryctl takes it as it is
    path = tmp_path / "registryctl.json"
    path.touch(0o600)
    path.write_text(json.dumps(settings))
    assert load_config(str(path)) == settings


@pytest.mark.parametrize(("variables", "said"), WRONG.values(), ids=WRONG)
def test_what_is_wrong(variables, said):
    with pytest.raises(HomelabError, match=said):
        settings_of(variables)


def test_the_usual_times_are_understood_on_hosts_without_systemd_too():
    defaults = yaml.safe_load((ROOT / "roles" / "jobs" / "defaults" / "main.yml").read_text(encoding="utf-8"))
    times = {name: value for name, value in defaults.items() if name.endswith("_on_calendar")}
    assert len(times) >= 4
    for value in times.values():
        assert on_calendar.parse(value)
