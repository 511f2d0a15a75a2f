# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Docker's daemon.json: read what others wrote, plan our two keys, judge the result before it lands.

Pure: takes texts and data, returns a plan. Doing it (writing, SIGHUP, asking the engine) is docker_node.py.

The rules come from running 20.10, 26.1, 28.5 and 29.7: both keys reload by SIGHUP; deleting a key and
reloading does *not* undo it, an explicit empty list does; a flag and the same key in the file stop dockerd
at its next start while a reload only logs it; so does a mirror without a scheme or a string for a list.
"""

from __future__ import annotations

import ipaddress
import json
import re
import shlex
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from ..errors import HomelabError
from .files import merge_list, without_userinfo

INSECURE = "insecure-registries"
MIRRORS = "registry-mirrors"

#: Spellings people use instead. With an underscore dockerd refuses to start; the flag's singular spelling is
#: accepted and silently ignored.
MISSPELT = {
    "insecure_registries": INSECURE,
    "registry_mirrors": MIRRORS,
    "insecure-registry": INSECURE,
    "registry-mirror": MIRRORS,
    "insecure_registry": INSECURE,
    "registry_mirror": MIRRORS,
}
IGNORED_BY_DOCKERD = ("insecure-registry", "registry-mirror")

_BOOL = ("debug", "experimental", "icc", "init", "ip-forward", "ip-masq", "iptables", "ip6tables", "ipv6",
         "live-restore", "no-new-privileges", "selinux-enabled", "tls", "tlsverify", "userland-proxy")
_LIST = (INSECURE, MIRRORS, "hosts", "dns", "dns-opts", "dns-search", "exec-opts", "storage-opts", "labels",
         "authorization-plugins", "default-address-pools")
_DICT = ("log-opts", "runtimes", "default-ulimits", "features", "builder", "proxies")
_INT = ("mtu", "max-concurrent-downloads", "max-concurrent-uploads", "max-download-attempts", "shutdown-timeout")
_STRING = ("log-driver", "log-level", "storage-driver", "data-root", "bip", "pidfile", "exec-root", "cgroup-parent")
#: JSON type of well-known keys: a wrong one stops dockerd at its next start.
TYPES = {
    **dict.fromkeys(_BOOL, bool),
    **dict.fromkeys(_LIST, list),
    **dict.fromkeys(_DICT, dict),
    **dict.fromkeys(_INT, int),
    **dict.fromkeys(_STRING, str),
}
_TYPE_NAMES = {bool: "true or false", list: "a list", dict: "an object", int: "a number", str: "a string"}

#: Flags whose key in the file is spelt differently.
FLAG_KEYS = {
    "insecure-registry": INSECURE,
    "registry-mirror": MIRRORS,
    "host": "hosts",
    "H": "hosts",
    "D": "debug",
    "l": "log-level",
    "s": "storage-driver",
    "g": "data-root",
    "graph": "data-root",
    "G": "group",
    "p": "pidfile",
    "b": "bridge",
    "label": "labels",
    "log-opt": "log-opts",
    "storage-opt": "storage-opts",
    "exec-opt": "exec-opts",
    "dns-opt": "dns-opts",
    "default-ulimit": "default-ulimits",
    "default-address-pool": "default-address-pools",
    "authorization-plugin": "authorization-plugins",
    "add-runtime": "runtimes",
}


@dataclass(frozen=True)
class FlagSource:
    """A dockerd command line and where it was found (a unit, a drop-in, the running process)."""

    where: str
    argv: list[str]


@dataclass(frozen=True)
class Plan:
    """What daemon.json is, what it has to become, and what to tell the user.

    `before` is None when there is no file. `set` holds our two keys as they end up in the file (only those
    that are in it), `owned` the entries of them that are ours.
    """

    path: str
    before: str | None
    after: str
    set: dict
    owned: dict
    warnings: list[str] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        return (self.before or "") != self.after


# --- reading ---------------------------------------------------------------------------------------------------
def strip_extras(text: str) -> str:
    """JSON without `//` and `/* */` comments and without trailing commas: what people type by mistake.

    Strings are left alone; newlines inside comments stay, so that line numbers keep their meaning.
    """
    token = re.compile(r'"(?:\\.|[^"\\])*"|//[^\n]*|/\*.*?\*/', re.DOTALL)
    text = token.sub(lambda m: m[0] if m[0].startswith('"') else "\n" * m[0].count("\n"), text)
    comma = re.compile(r'"(?:\\.|[^"\\])*"|,(?=\s*[\]}])', re.DOTALL)
    return comma.sub(lambda m: m[0] if m[0].startswith('"') else "", text)


def parse(text: str | None, path: str, repair: bool = False) -> dict:
    """The file as data, order and unknown keys kept; no file and an empty file are an empty object.

    Args:
        text: the file's text, None if there is no file.
        path: for messages.
        repair: accept comments and trailing commas.

    Raises:
        HomelabError: not JSON, or not an object; names line and column.
    """
    if text is None or not text.strip():
        return {}
    try:
        data = json.loads(strip_extras(text) if repair else text)
    except ValueError as error:
        line = getattr(error, "lineno", 1)
        shown = without_userinfo(text.split("\n")[line - 1].strip())
        try:
            json.loads(strip_extras(text))
            cause, option = "a trailing comma or a comment", ", or let the role mend it: docker_client_repair=true"
        except ValueError:
            cause, option = getattr(error, "msg", str(error)), ""
        raise HomelabError(
            f"{path} is not valid JSON: {cause} near line {line}, column {getattr(error, 'colno', 1)}: {shown!r}. "
            "The running engine still has its old settings, but dockerd will not start with this file",
            remedy=f"correct the file by hand{option}; nothing was changed",
        ) from error
    if not isinstance(data, dict):
        raise HomelabError(f"{path} holds {_name(data)}, not a JSON object", remedy='it must look like {"key": …}')
    return data


def _name(value: object) -> str:
    return {bool: "a boolean", list: "a list", dict: "an object", str: "a string", int: "a number"}.get(
        type(value), type(value).__name__
    )


def indent_of(text: str | None) -> str:
    """The file's own indentation (the first indented line's), two spaces for a new or one-line file."""
    found = re.search(r"^([ \t]+)\S", text or "", re.MULTILINE)
    return found[1] if found else "  "


# --- judging ---------------------------------------------------------------------------------------------------
def lint(config: dict) -> tuple[list[str], list[str]]:
    """Faults of a daemon.json that dockerd's own check misses or that it does not have (20.10).

    Returns:
        Errors (dockerd would not start with this) and warnings (it would ignore this silently).
    """
    errors, warnings = [], []
    for key, value in config.items():
        if key in IGNORED_BY_DOCKERD:
            warnings.append(f'key "{key}" is silently ignored by dockerd: the right name is "{MISSPELT[key]}"')
        elif key in MISSPELT:
            errors.append(f'unknown key "{key}": the right name is "{MISSPELT[key]}"')
        expected = TYPES.get(key)
        # a boolean is a number to Python, but not to dockerd
        wrong = expected and (not isinstance(value, expected) or (expected is int and isinstance(value, bool)))
        if wrong and value is not None:  # null leaves the engine's default
            errors.append(f'"{key}" must be {_TYPE_NAMES[expected]}, not {_name(value)}: {json.dumps(value)}')
    for key in (INSECURE, MIRRORS):
        if isinstance(config.get(key), list):
            for entry in config[key]:
                fault = (_mirror_fault if key == MIRRORS else _insecure_fault)(entry)
                if fault:
                    errors.append(f'"{key}" entry {json.dumps(entry)}: {fault}')
    return [without_userinfo(error) for error in errors], warnings


def _mirror_fault(entry: object) -> str | None:
    if not isinstance(entry, str):
        return "must be a string"
    try:
        parts = urlsplit(entry)
        parts.port  # noqa: B018 - raises on a bad port
    except ValueError as error:
        return f"is not a URL: {error}"
    if parts.scheme not in ("http", "https"):
        return f"a mirror needs a scheme: http://{entry} or https://{entry}"
    if not parts.hostname:
        return "has no host name"
    if parts.username or parts.password:
        return "must not hold credentials: Docker never sends any to a mirror"
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        return "must have no path: Docker 20.10 refuses to start with one"
    return None


def _insecure_fault(entry: object) -> str | None:
    if not isinstance(entry, str) or not entry:
        return "must be a non-empty string"
    bare = re.sub(r"^https?://", "", entry)
    if re.fullmatch(r"[0-9a-fA-F.:]+/\d{1,3}", bare):  # a network
        return None
    if "/" in bare:
        return "must be host, host:port or a network, without a path"
    return None


def flag_conflicts(config: dict, sources: list[FlagSource]) -> list[str]:
    """Keys of the file that are also given as a flag: dockerd refuses to start then, a reload only logs it."""
    found = []
    for source in sources:
        for token in source.argv[1:]:
            if not token.startswith("-") or token == "-":
                continue
            # a short flag may have its value attached: -Hfd://
            named = token.split("=", 1)[0] if token.startswith("--") else token[:2]
            key = FLAG_KEYS.get(named.lstrip("-"), named.lstrip("-"))
            text = f'"{key}" is also set by the flag {named} in {source.where}'
            if key in config and text not in found:
                found.append(text)
    return found


def unit_sources(unit_text: str, environment: dict[str, str]) -> list[FlagSource]:
    """Command lines of a unit with its drop-ins, each file under a comment with its path (`systemctl cat`).

    Args:
        unit_text: unit and drop-ins, in systemd's order; an empty `ExecStart=` takes back those before it.
        environment: variables of the unit's environment files, such as DOCKER_OPTS.
    """
    sources, where = [], "the unit"
    for line in re.findall(r"^\s*Environment\s*=(.*)", unit_text, re.MULTILINE):
        assignments = (word.partition("=") for word in split_command(line))
        environment = {**environment, **{name: value for name, equals, value in assignments if equals}}
    for line in re.sub(r"\\\n", " ", unit_text).splitlines():
        if re.match(r"# /\S+$", line):
            where = line[2:].strip()
        elif start := re.match(r"\s*ExecStart\s*=(.*)", line):
            command = start[1].strip().lstrip("-@:+!")
            if not command:
                sources = []
                continue
            command = re.sub(r"\$\{?(\w+)\}?", lambda m: environment.get(m[1], ""), command)
            sources.append(FlagSource(where, split_command(command)))
    return sources


def environment_files(unit_text: str) -> list[str]:
    """Paths of the `EnvironmentFile=` lines of a unit (a leading `-` means that it may be missing)."""
    return [path.strip().lstrip("-") for path in re.findall(r"^\s*EnvironmentFile\s*=(.*)", unit_text, re.MULTILINE)]


def split_command(command: str) -> list[str]:
    """A command line's words; one with an open quote is split at blanks rather than refused."""
    try:
        return shlex.split(command)
    except ValueError:
        return command.split()


def shell_variables(text: str) -> dict[str, str]:
    """The plain `NAME=value` lines of a file such as /etc/default/docker."""
    found = {}
    for line in text.splitlines():
        match = re.match(r"\s*(?:export\s+)?(\w+)=(.*)$", line)
        if match:
            found[match[1]] = " ".join(split_command(match[2]))
    return found


# --- planning --------------------------------------------------------------------------------------------------
def _same_mirror(entry: object) -> object:
    # dockerd adds the slash itself, so that both spellings are one mirror
    return entry.rstrip("/") if isinstance(entry, str) else json.dumps(entry)


def _same_name(entry: object) -> object:
    if not isinstance(entry, str):
        return json.dumps(entry)
    name = re.sub(r"^https?://", "", entry)
    try:
        return str(ipaddress.ip_network(name, strict=False)) if "/" in name else name
    except ValueError:
        return name


def plan(
    text: str | None,
    path: str,
    *,
    insecure_registries: list[str],
    registry_mirrors: list[str],
    owned: dict | None = None,
    sources: list[FlagSource] | None = None,
    repair: bool = False,
    overlap: bool = False,
) -> Plan:
    """What daemon.json must become so that the engine uses our registry.

    Entries and keys of others survive, in their order. A list that ends up empty is written as `[]`, since
    only that takes the setting out of a running engine.

    Args:
        text: the file as it is, None if there is none.
        path: for messages.
        insecure_registries: `host:port` of registries reached over plain HTTP.
        registry_mirrors: URLs asked for Docker Hub images before the Hub; ours go before those of others.
        owned: the entries an earlier run added, see `files.merge_list`.
        sources: the command lines that start dockerd on this node.
        repair: accept a file with comments and trailing commas; it is rewritten without them.
        overlap: keep the entries of the earlier run besides the wanted ones, while a registry changes over.

    Raises:
        HomelabError: the file, as it is or as it would be, keeps dockerd from starting. Nothing is written.
    """
    owned = owned or {}
    before = parse(text, path, repair)
    errors, warnings = lint(before)
    after, ours = dict(before), {}
    for key, wanted, first, same in (
        (INSECURE, insecure_registries, False, _same_name),
        (MIRRORS, registry_mirrors, True, _same_mirror),
    ):
        found = before.get(key)
        if found is None:
            found = []
        if not isinstance(found, list):
            continue  # lint has named it
        mine = owned.get(key) or []
        if overlap:
            wanted = wanted + [entry for entry in mine if entry in found and entry not in wanted]
        merged, ours[key] = merge_list(found, mine, wanted, first=first, same=same)
        if merged or before.get(key) is not None:
            after[key] = merged
    new_errors = [error for error in lint(after)[0] if error not in errors]
    if new_errors:
        raise HomelabError(
            "the wanted settings are not valid: " + "; ".join(new_errors),
            remedy="correct docker_client_insecure_registries and docker_client_registry_mirrors; nothing was changed",
        )
    conflicts = flag_conflicts(after, sources or [])
    errors += conflicts
    if errors:
        remedy = "correct the file by hand"
        if conflicts:
            remedy = "keep each setting in one place: take the flag out (and restart dockerd when it suits) or the key"
        raise HomelabError(
            f"dockerd would not start with {path}: " + "; ".join(errors), remedy=f"{remedy}; nothing was changed"
        )
    changed = after != before or (repair and _needs_repair(text))
    return Plan(
        path=path,
        before=text,
        after=json.dumps(after, indent=indent_of(text), ensure_ascii=False) + "\n" if changed else (text or ""),
        set={key: after[key] for key in (INSECURE, MIRRORS) if key in after},
        owned=ours,
        warnings=[f"{path}: {warning}" for warning in warnings],
    )


def explicit(done: Plan) -> Plan:
    """A plan that takes back what `done` has set in a running engine: the old file, with our keys spelt out."""
    config = parse(done.before, done.path, repair=True)
    keys = {key: config.get(key) or [] for key in done.set}
    return replace(done, after=json.dumps({**config, **keys}), set=keys)


def _needs_repair(text: str | None) -> bool:
    try:
        json.loads(text or "{}")
    except ValueError:
        return bool((text or "").strip())
    return False


# --- asking the engine -----------------------------------------------------------------------------------------
def not_in_effect(registry_config: dict, wanted: dict) -> list[str]:
    """Compare `RegistryConfig` of `docker info` with our keys of the file; returns what does not hold yet.

    Args:
        registry_config: IndexConfigs, InsecureRegistryCIDRs and Mirrors as the engine reports them.
        wanted: `Plan.set`. A key that is absent is not judged.
    """
    missing = []
    if INSECURE in wanted:
        indexes = registry_config.get("IndexConfigs") or {}
        networks = set(registry_config.get("InsecureRegistryCIDRs") or [])
        effective = {name for name, index in indexes.items() if not index.get("Secure", True)} | networks
        names = {_same_name(entry) for entry in wanted[INSECURE]}
        missing += [f"{name} is not taken as insecure" for name in sorted(names - effective)]
        # The engine adds the loopback networks by itself.
        surplus = effective - names - {"127.0.0.0/8", "::1/128"}
        missing += [f"{name} is still taken as insecure" for name in sorted(surplus)]
    if MIRRORS in wanted:
        effective = [_same_mirror(entry) for entry in registry_config.get("Mirrors") or []]
        names = [_same_mirror(entry) for entry in wanted[MIRRORS]]
        missing += [f"mirror {name} is not in use" for name in names if name not in effective]
        missing += [f"mirror {name} is still in use" for name in effective if name not in names]
    return missing
