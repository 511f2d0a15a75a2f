# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A user's Docker logins, `~/.docker/config.json`: ours are brought in, those for other registries stay. Pure.

The docker command line, buildx, podman and skopeo read this file. With `credsStore` it asks a helper instead, unless
`credHelpers` names an empty helper for the registry: then the file counts again (cli/config/configfile).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ..errors import HomelabError

SECRETS = ("auth", "password", "identitytoken", "registrytoken")


@dataclass(frozen=True)
class Plan:
    """What the file is and has to become; `owned` are the registries whose login is ours."""

    path: str
    before: str | None
    after: str
    before_shown: str
    after_shown: str
    owned: list
    warnings: list[str] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        return (self.before or "") != self.after


def plan(
    text: str | None, path: str, logins: Iterable[Mapping], owned: Iterable[str] = (), overlap: bool = False
) -> Plan:
    """What the file must become.

    Args:
        text: the file as it is, None if there is none.
        path: for messages.
        logins: `registry` (host:port), `username` and `password` each.
        owned: registries of an earlier run's logins; those no longer wanted go.
        overlap: only add; a login that is there stays as it is.

    Raises:
        HomelabError: the file is not what Docker could read.
    """
    logins, owned = list(logins), list(owned)
    if not logins and not owned:  # nothing of ours, nor will there be: whatever the file holds is not our affair
        return Plan(path, text, text or "", "", "", [])
    config = _parse(text, path)
    before = json.dumps(_redacted(config), indent=2, sort_keys=True) if text else ""
    auths = dict(config.get("auths") or {})
    helpers = dict(config.get("credHelpers") or {})
    wanted = {login["registry"]: _encode(login["username"], login["password"]) for login in logins}
    warnings = []
    for registry in owned:
        if registry not in wanted and not overlap:
            auths.pop(registry, None)
            if helpers.get(registry) == "":
                del helpers[registry]
    for registry, auth in wanted.items():
        if not (overlap and registry in auths) and (auths.get(registry) or {}).get("auth") != auth:
            auths[registry] = {"auth": auth}
        if helpers.get(registry):
            warnings.append(f"{path}: the helper {helpers[registry]} keeps the login for {registry}, not this file")
        elif config.get("credsStore"):
            helpers[registry] = ""
    after = {**config}
    for key, table in (("auths", auths), ("credHelpers", helpers)):
        if table or key in config:
            after[key] = table
    changed = after != config
    return Plan(
        path=path,
        before=text,
        after=json.dumps(after, indent="\t", ensure_ascii=False) + "\n" if changed else (text or ""),
        before_shown=before,
        after_shown=json.dumps(_redacted(after), indent=2, sort_keys=True) if changed else before,
        owned=sorted({*wanted, *(set(owned) if overlap else ())}),
        warnings=warnings,
    )


def _parse(text: str | None, path: str) -> dict:
    try:
        config = json.loads(text) if text and text.strip() else {}
    except ValueError as error:
        # what the parser quotes may be a password
        raise HomelabError(
            f"{path} is not valid JSON near line {getattr(error, 'lineno', 1)}", remedy="correct or remove the file"
        ) from error
    keys = ("auths", "credHelpers")
    tables = [config, *(config.get(key) or {} for key in keys)] if isinstance(config, dict) else [None]
    if not all(isinstance(table, dict) for table in tables):
        raise HomelabError(f"{path} is not a file of Docker's logins", remedy="correct or remove the file")
    return config


def _encode(username: str, password: str) -> str:
    return base64.b64encode(f"{username}:{password}".encode()).decode("ascii")


def _redacted(data: object) -> object:
    if isinstance(data, dict):
        return {key: "********" if key in SECRETS and value else _redacted(value) for key, value in data.items()}
    return data
