# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""k3s' registries.yaml: judge it as k3s' own parser would, and plan our entries into it.

Pure, and without a YAML parser (the standard library has none): the action plugin parses on the controller.

Sources: the structs of k3s' wharfie (mirrors: endpoint, rewrite; configs: auth, tls) which its non-strict
YAML reader fills. Bad YAML or a wrong type makes k3s exit at its next start; an unknown key is silently
ignored. Paths in endpoints (`http://host:port/v2/quay.io`) work with stock containerd, `rewrite` does not.
"""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from ..errors import HomelabError
from ..oci.reference import registry_path
from ..yaml_writer import dump
from .files import merge_list, without_userinfo

_STRING_MAP = {"*": str}
_AUTH = {"username": str, "password": str, "auth": str, "identity_token": str}
_TLS = {"ca_file": str, "cert_file": str, "key_file": str, "insecure_skip_verify": bool}
#: What k3s reads; "*" stands for any key.
SCHEMA = {
    "mirrors": {"*": {"endpoint": [str], "rewrite": _STRING_MAP}},
    "configs": {"*": {"auth": _AUTH, "tls": _TLS}},
    "auths": {"*": _AUTH},
}
SECRETS = ("password", "auth", "identity_token")
HEADER = (
    "homelab.registry keeps its entries in this file up to date and leaves all others alone.\n"
    "k3s reads it at its start only."
)


@dataclass(frozen=True)
class Plan:
    """What registries.yaml is and has to become. `before` is None when there is no file."""

    path: str
    before: str | None
    after: str
    before_shown: str
    after_shown: str
    owned: dict
    warnings: list[str] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        return (self.before or "") != self.after


def lint(data: object) -> tuple[list[str], list[str]]:
    """Errors (k3s would exit at its next start) and warnings (k3s would silently ignore the key)."""
    errors, warnings = [], []
    _walk(data if data is not None else {}, SCHEMA, "", errors, warnings)
    mirrors = data.get("mirrors") if isinstance(data, dict) else None
    for host, mirror in (mirrors if isinstance(mirrors, dict) else {}).items():
        endpoints = mirror.get("endpoint") if isinstance(mirror, dict) else None
        for endpoint in endpoints if isinstance(endpoints, list) else []:
            fault = isinstance(endpoint, str) and endpoint_fault(endpoint)
            if fault:
                errors.append(f"mirrors.{host}.endpoint {endpoint!r}: {fault}")
    if isinstance(data, dict) and data.get("auths"):
        warnings.append('"auths" is deprecated: use configs.<host:port>.auth')
    return [without_userinfo(error) for error in errors], warnings


def endpoint_fault(endpoint: str) -> str | None:
    """Why containerd could not use this endpoint, None if it can."""
    try:
        parts = urlsplit(endpoint if "://" in endpoint else f"https://{endpoint}")
        parts.port  # noqa: B018 - raises on a bad port
    except ValueError as error:
        return str(error)
    if parts.scheme not in ("http", "https"):
        return "must be a URL with http:// or https://"
    if not parts.hostname:
        return "has no host name"
    return None


def _walk(value: object, shape: object, path: str, errors: list, warnings: list) -> None:
    if value is None:  # an empty section; the struct stays at its zero value
        return
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            errors.append(f"{path or 'the file'} must be a mapping, not {_name(value)}")
            return
        for key, item in value.items():
            below = f"{path}.{key}" if path else str(key)
            if key in shape or "*" in shape:
                _walk(item, shape.get(key, shape.get("*")), below, errors, warnings)
            else:
                warnings.append(f"k3s does not know {below} and ignores it (known here: {', '.join(sorted(shape))})")
    elif isinstance(shape, list):
        if not isinstance(value, list):
            errors.append(f"{path} must be a list, not {_name(value)}: write it as [{value!r}]")
            return
        for number, item in enumerate(value):
            _walk(item, shape[0], f"{path}[{number}]", errors, warnings)
    elif shape is bool and not isinstance(value, bool):
        errors.append(f"{path} must be true or false, not {_name(value)}")
    elif shape is str and isinstance(value, (dict, list)):  # yaml.v2 takes any scalar for a string
        errors.append(f"{path} must be a string, not {_name(value)}")


def _name(value: object) -> str:
    # by isinstance: what comes from a playbook is of Ansible's subclasses; a boolean is a number as well
    names = {bool: "a boolean", list: "a list", dict: "a mapping", str: "a string", int: "a number"}
    return next((name for kind, name in names.items() if isinstance(value, kind)), type(value).__name__)


def redact(data: object) -> object:
    """A copy for eyes and logs: the values of passwords and tokens replaced."""
    if isinstance(data, dict):
        return {
            key: "********" if key in SECRETS and not isinstance(item, (dict, list)) and item else redact(item)
            for key, item in data.items()
        }
    if isinstance(data, list):
        return [redact(item) for item in data]
    return without_userinfo(data) if isinstance(data, str) else data


def mirrors_for(scheme: str, endpoint: str, upstreams: list[str]) -> dict:
    """The `mirrors` that make k3s ask our registry, before the upstream, for each upstream's images.

    Docker Hub's images lie under their full repository (`library/node`) and need no path; those of every
    other upstream lie under its host name, which a path in the endpoint adds.

    Args:
        scheme: http or https.
        endpoint: `host:port` of our registry.
        upstreams: host names such as docker.io or quay.io.
    """
    base = f"{scheme}://{endpoint}"
    mirrors = {endpoint: {"endpoint": [base]}}
    for upstream in upstreams:
        path = "" if upstream == "docker.io" else f"/v2/{registry_path(upstream)}"
        mirrors[upstream] = {"endpoint": [base + path]}
    return mirrors


def plan(
    text: str | None,
    data: object,
    path: str,
    *,
    mirrors: dict,
    configs: dict | None = None,
    owned: dict | None = None,
    overlap: bool = False,
) -> Plan:
    """What registries.yaml must become; entries of others survive, in their order.

    Args:
        text: the file as it is, None if there is none.
        data: the same, parsed.
        path: for messages.
        mirrors: wanted `mirrors` entries; only `endpoint` is used, ours go before those of others.
        configs: wanted `configs` entries by `host:port`; merged over what is there.
        owned: what an earlier run added: {"mirrors": {host: [endpoint]}, "configs": [host:port]}.
        overlap: only add, while a registry changes over: what an earlier run added stays, after the wanted endpoints,
            and so does an account that is there.

    Raises:
        HomelabError: k3s would not start with the file as it is, or with the wanted entries.
    """
    owned, configs = owned or {}, configs or {}
    errors, warnings = lint(data)
    if errors:
        raise HomelabError(
            f"k3s would not start with {path}: {'; '.join(errors)}",
            remedy="correct the file by hand; nothing was changed",
        )
    errors = lint({"mirrors": mirrors, "configs": configs})[0]
    errors += [
        f"mirrors.{host}.rewrite is not supported: give the path in the endpoint (http://host:port/v2/{host})"
        for host, mirror in mirrors.items()
        if isinstance(mirror, dict) and mirror.get("rewrite")
    ]
    if errors:
        raise HomelabError(
            f"the wanted settings are not valid: {'; '.join(errors)}",
            remedy="correct k3s_client_mirrors and k3s_client_configs; nothing was changed",
        )
    before = data or {}
    if overlap:
        mirrors, configs = _with_earlier(before, mirrors, configs, owned)
    after = copy.deepcopy(before)
    ours = {
        "mirrors": _plan_mirrors(after, mirrors, owned.get("mirrors") or {}, warnings),
        "configs": _plan_configs(after, configs, owned.get("configs") or []),
    }
    changed = after != before
    if changed and text and any(re.search(r"(^|\s)#", line) for line in text.splitlines() if line not in _header()):
        warnings.append("comments in the file do not survive the change; the backup beside it has them")
    return Plan(
        path=path,
        before=text,
        after=dump(after, comment=HEADER) if changed else (text or ""),
        before_shown=dump(redact(before)) if before else "",
        after_shown=dump(redact(after)) if after else "",
        owned=ours,
        warnings=[f"{path}: {warning}" for warning in warnings],
    )


def _header() -> list[str]:
    return [f"# {line}" for line in HEADER.splitlines()]


def _with_earlier(before: dict, mirrors: dict, configs: dict, owned: dict) -> tuple[dict, dict]:
    """The wanted entries and those of an earlier run that are still in the file."""
    merged = dict(mirrors)
    for host, endpoints in (owned.get("mirrors") or {}).items():
        found = ((before.get("mirrors") or {}).get(host) or {}).get("endpoint") or []
        wanted = (mirrors.get(host) or {}).get("endpoint") or []
        earlier = [endpoint for endpoint in endpoints if endpoint in found and endpoint not in wanted]
        if wanted or earlier:
            merged[host] = {"endpoint": [*wanted, *earlier]}
    table = before.get("configs") or {}
    ours = {host: table[host] for host in owned.get("configs") or [] if host in table}
    return merged, {**ours, **{host: {**(config or {}), **ours.get(host, {})} for host, config in configs.items()}}


def _plan_mirrors(after: dict, wanted: dict, owned: dict, warnings: list) -> dict:
    table = after.get("mirrors") or {}
    ours = {}
    for host in [*table, *(host for host in wanted if host not in table)]:
        entry = table.get(host) or {}
        merged, mine = merge_list(
            entry.get("endpoint") or [],
            owned.get(host, []),
            (wanted.get(host) or {}).get("endpoint") or [],
            first=True,
        )
        if mine:
            ours[host] = mine
        if merged != (entry.get("endpoint") or []):
            table[host] = {**entry, "endpoint": merged}
        if not merged and host in owned and set(entry) <= {"endpoint"}:
            table.pop(host, None)  # nothing but ours was in it
        elif host in wanted and entry.get("rewrite"):
            warnings.append(f"mirrors.{host}.rewrite applies to our endpoint too: images are asked for by other names")
    if table:
        after["mirrors"] = table
    return ours


def _plan_configs(after: dict, wanted: dict, owned: list) -> list:
    table = after.get("configs") or {}
    ours = []
    for host in owned:
        if host not in wanted:
            table.pop(host, None)
    for host, config in wanted.items():
        if host in owned or host not in table:
            ours.append(host)
            table[host] = config
        elif config:
            table[host] = {**(table[host] or {}), **config}
    if table:
        after["configs"] = table
    return ours
