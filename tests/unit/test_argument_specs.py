# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One setting, one meaning: argument specs, defaults, the core and the roles' own files agree."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from ansible_collections.homelab.registry.plugins.module_utils.nodes import fleet
from ansible_collections.homelab.registry.plugins.module_utils.server import config

ROOT = Path(__file__).resolve().parents[2]
ROLES = sorted(path for path in (ROOT / "roles").iterdir() if path.is_dir())
TYPES = {"str": str, "bool": bool, "int": int, "float": float, "list": list, "dict": dict}


def load(path):
    return yaml.safe_load(path.read_text(encoding="utf-8")) or {}


def defaults(role):
    path = role / "defaults" / "main.yml"
    return load(path) if path.exists() else {}


def options(role):
    return load(role / "meta" / "argument_specs.yml")["argument_specs"]["main"].get("options", {})


def templated(value):
    return isinstance(value, str) and "{{" in value


@pytest.mark.parametrize("role", ROLES, ids=lambda path: path.name)
def test_spec_and_defaults_agree(role):
    promised = {name: option["default"] for name, option in options(role).items() if "default" in option}
    assert promised == defaults(role)


@pytest.mark.parametrize("role", ROLES, ids=lambda path: path.name)
def test_defaults_are_of_their_type_and_among_their_choices(role):
    for name, option in options(role).items():
        assert name.startswith(f"{role.name}_"), f"{name} needs the role's prefix"
        assert option.get("description"), f"{name} has no description"
        assert option["type"] in {*TYPES, "path", "raw"}, f"{name} has the type {option['type']}"
        assert option["type"] != "list" or "elements" in option, f"{name} does not say what it is a list of"
        default = option.get("default")
        if default is None or templated(default):
            continue
        expected = TYPES.get(option["type"], str)
        fits = isinstance(default, expected) and isinstance(default, bool) == (expected is bool)
        assert fits, f"the default of {name} is a {type(default).__name__}"
        if "choices" in option:
            assert default in option["choices"], f"the default of {name} is not among its choices"


@pytest.mark.parametrize("role", ROLES, ids=lambda path: path.name)
def test_every_default_is_used(role):
    files = [
        path
        for part in ("tasks", "vars", "templates", "handlers", "defaults")
        for path in (role / part).rglob("*.*")
    ]
    text = "\n".join(
        # a default's own line and a comment do not count, but another default that refers to it does
        re.sub(r"(?m)^\w+:|^\s*#.*", "", path.read_text(encoding="utf-8")) for path in files
    )
    used = set(re.findall(r"\w+", text))
    assert [name for name in options(role) if name not in used and name not in USED_BY_OTHERS] == []


#: Read through hostvars by all nodes, see nodes/fleet.py.
USED_BY_OTHERS = {"registry_endpoint"}


def test_what_others_use_is_used():
    source = Path(fleet.__file__).read_text(encoding="utf-8")
    assert [name for name in USED_BY_OTHERS if f'"{name}"' not in source] == []


def test_the_fleet_knows_the_role_s_defaults():
    role = defaults(ROOT / "roles" / "registry")
    assert {name: role[name] for name in fleet.DEFAULTS} == fleet.DEFAULTS


def test_every_setting_of_the_role_is_one_of_the_server_s():
    given = load(ROOT / "roles" / "registry" / "vars" / "main.yml")["__registry_settings"]
    known = {setting.name for setting in config._SETTINGS} | {config._EXTRA}
    assert set(given) - known == set()


def test_every_default_that_is_a_setting_reaches_the_server():
    given = load(ROOT / "roles" / "registry" / "vars" / "main.yml")["__registry_settings"]
    known = {f"registry_{setting.name}" for setting in config._SETTINGS} | {f"registry_{config._EXTRA}"}
    ours = set(defaults(ROOT / "roles" / "registry")) & known
    assert len(ours) > 20
    assert {name for name in ours if name.removeprefix("registry_") not in given} == set()


def test_a_misspelt_setting_is_refused():
    """What makes the two tests above mean something at run time as well."""
    with pytest.raises(config.HomelabError, match="no such setting"):
        config.render({"storage": "filesystem", "log_levle": "info"}, 3)
