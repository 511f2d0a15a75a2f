# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The settings file of registryctl: what may be in it, and reading it. Not with the verbs: those are loaded on need."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

from ..errors import HomelabError
from ..oci.access import Access

CONFIG = "/etc/homelab-registry/registryctl.json"

#: Types of a setting's value.
TEXT, YES_NO, NUMBER, LIST, MAPPING = (str,), (bool,), (int,), (list,), (dict,)
_ANY_NUMBER = (int, float)
#: What may be in the file; a mapping of types is a section.
TYPES = {
    "registry": {**dict.fromkeys(Access.__dataclass_fields__, TEXT), "validate_certs": YES_NO, "timeout": _ANY_NUMBER},
    "host": {"docker_host": TEXT, "container": TEXT, "data_path": TEXT, "config_path": TEXT, "redis": MAPPING},
    "mirror": {
        "images": (list, str),
        "platforms": LIST,
        "referrers": YES_NO,
        "short_names": YES_NO,
        "name_template": TEXT,
        "workers": NUMBER,
        "reserve_pulls": NUMBER,
        "prune": YES_NO,
        "prune_protect": LIST,
        "prune_keep": NUMBER,
        "upstreams": LIST,
        "docker_config": TEXT,
        "state_path": TEXT,
    },
    "cleanup": {
        "policy": MAPPING,
        "gc": YES_NO,
        "in_use_path": TEXT,
        "in_use_days": _ANY_NUMBER,
        "nodes": LIST,
    },
    "verify": {"deep": YES_NO},
    "guard": {"warn": _ANY_NUMBER, "critical": _ANY_NUMBER, "cleanup": YES_NO},
    "notify": {"command": LIST, "webhook": (*MAPPING, *TEXT), "mail": MAPPING, "host": TEXT},
    "schedule": {"jobs": LIST},
    "state_dir": TEXT,
}


def load_config(given: str | None, optional: bool = False) -> dict:
    """Read and check the settings; `{}` where there are none.

    Args:
        given: the file, None for the usual one.
        optional: whether the usual one may be left out if this user may not read it.

    Raises:
        HomelabError: the file is not there although it was named, cannot be read, is not JSON, has an unknown key or
            a value of the wrong type, or holds a password and can be read by others.
    """
    path = Path(given or CONFIG)
    try:
        with path.open(encoding="utf-8") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            text = file.read()
    except FileNotFoundError as error:
        if given:
            raise HomelabError("there is no such file", str(path), "correct --config") from error
        return {}
    except PermissionError as error:
        if optional and not given:
            return {}
        raise HomelabError(
            "the settings cannot be read", str(path), "run it as root, or name others (--config)"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise HomelabError(f"the settings cannot be read: {error}", str(path)) from error
    try:
        config = json.loads(text)
    except ValueError as error:
        raise HomelabError(f"not JSON: {error}", str(path), "correct it; site.yml writes it anew") from error
    sections = {key: section for key, section in TYPES.items() if isinstance(section, dict)}
    _check(config, {**TYPES, **dict.fromkeys(sections, MAPPING)}, str(path))
    for key, section in sections.items():
        _check(config.get(key) or {}, section, f"{path}, {key}")
    if mode & 0o077 and (_holds_password(config) or (config.get("notify") or {}).get("webhook")):
        raise HomelabError("holds a password and can be read by others", str(path), f"chmod 600 {path}")
    return config


def _check(values, types, where):
    if not isinstance(values, dict):
        raise HomelabError("not a mapping of settings", where, f"there are {', '.join(types)}")
    for key, value in values.items():
        if key not in types:
            raise HomelabError(f"unknown setting {key!r}", where, f"there are {', '.join(types)}")
        # True is a number to Python, not to the user
        fits = isinstance(value, types[key]) and (bool in types[key] or not isinstance(value, bool))
        if value is not None and not fits:
            names = {
                str: "a text",
                bool: "true or false",
                int: "a number",
                float: "",
                list: "a list",
                dict: "a mapping",
            }
            wanted = " or ".join(filter(None, (names[one] for one in types[key])))
            raise HomelabError(f"{key} is not {wanted}", where, "correct it")


def _holds_password(settings):
    if isinstance(settings, dict):
        return bool(settings.get("password")) or any(map(_holds_password, settings.values()))
    return isinstance(settings, list) and any(map(_holds_password, settings))
