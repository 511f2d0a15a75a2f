# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The registry server's configuration: build it from typed settings, check it, show it without secrets.

The server ignores unknown and misplaced keys without a word, so that a misspelt key is TLS or authentication
switched off. Nothing is written here that the schema of the server's version (``schema.py``) does not know.
"""

from __future__ import annotations

import copy
import difflib
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from os.path import commonprefix

from ..errors import HomelabError
from ..yaml_writer import dump
from .schema import REMEDIES, SCHEMAS, STORAGE_DRIVERS, child, fields, find, places

MASK = "********"

# Where the images of each major version look for their configuration. A file at the other version's place
# is ignored: the server then runs with its built-in one, without authentication.
_CONFIG_PATHS = {2: "/etc/docker/registry/config.yml", 3: "/etc/distribution/config.yml"}
_VERSION_LABEL = "org.opencontainers.image.version"

_USERINFO = re.compile(r"(?<=://)[^/\s]+(?=@)")


# --- which server -------------------------------------------------------------------------------------------


def detect_major(image_config: dict) -> int | None:
    """Return the server's major version, 2 or 3, from an image's inspect data, or None if it does not tell.

    Args:
        image_config: one element of ``docker image inspect``; used are ``Config.Cmd``, ``Config.Entrypoint``
            and ``Config.Labels``. The configuration's path in the command outweighs the label, which an
            image may have inherited from its base.
    """
    config = image_config.get("Config") or {}
    command = [*(config.get("Entrypoint") or []), *(config.get("Cmd") or [])]
    for major, path in _CONFIG_PATHS.items():
        if path in command:
            return major
    version = re.match(r"v?(\d+)\.", (config.get("Labels") or {}).get(_VERSION_LABEL) or "")
    major = int(version.group(1)) if version else None
    return major if major in SCHEMAS else None


def config_path(major: int) -> str:
    """Return where the image of a major version reads its configuration, as a path in the container."""
    _schema(major)
    return _CONFIG_PATHS[major]


def _schema(major: int) -> dict:
    """Return the schema of a major version; raise HomelabError if there is none."""
    if major not in SCHEMAS:
        known = " or ".join(str(version) for version in SCHEMAS)
        raise HomelabError(
            f"registry version {major} is not supported", "registry_image", f"use an image of version {known}"
        )
    return SCHEMAS[major]


# --- checking -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a configuration. Reads as one sentence and never shows a secret.

    Attributes:
        path: where, in dots and brackets: ``notifications.endpoints[0].url``.
        message: what is wrong, to be read after the path: ``must be true or false, not "yes"``.
        suggestion: what to do, as an instruction: ``use http.tls``.
    """

    path: str
    message: str
    suggestion: str

    def __str__(self) -> str:
        return f"{self.path} {self.message}: {self.suggestion}"


def validate(config: dict, major: int) -> list[Problem]:
    """Return everything the server of a major version would ignore, misread or refuse in ``config``.

    Args:
        config: the whole configuration, as it would be written to the server's file.
        major: the server's major version, 2 or 3.

    Raises:
        HomelabError: the major version is not supported.
    """
    problems = list(_walk(config, _schema(major), (), major))
    if isinstance(config, (dict, type(None))):
        problems += _rules(config or {}, major)
    return problems


def _walk(value: object, kind: object, trail: tuple, major: int) -> Iterator[Problem]:
    """Yield the problems of one value against its kind (see ``schema.py``) and of all below it."""
    if isinstance(kind, dict):
        if isinstance(value, (dict, type(None))):
            yield from _walk_mapping(value or {}, kind, trail, major)
        else:
            yield _wrong(trail, "a mapping", _type_of(value), "write it as keys and values below this key")
    elif isinstance(kind, list):
        if isinstance(value, list):
            for index, item in enumerate(value):
                yield from _walk(item, kind[0], (*trail, index), major)
        else:
            yield _wrong(trail, "a list", _type_of(value), "write it as a list, also if it has one item")
    else:
        is_valid, expected, remedy = _scalar(kind)
        if not is_valid(value):
            yield _wrong(trail, expected, _type_of(value) if kind == "secret" else _shown(value), remedy)


def _walk_mapping(mapping: dict, kind: dict, trail: tuple, major: int) -> Iterator[Problem]:
    """Yield the problems of a mapping: of its values, its unknown keys, the keys it lacks."""
    for key, value in mapping.items():
        inner = child(kind, key)
        if inner is None:
            yield _unknown(trail, str(key), value, major)
        else:
            yield from _walk(value, inner, (*trail, key), major)
    for mark, inner in kind.items():
        key = mark.rstrip("!")
        if mark == key or key in mapping:
            continue
        if isinstance(inner, dict):  # say what it would have to hold
            yield from _walk(None, inner, (*trail, key), major)
        else:
            yield Problem(_dotted((*trail, key)), "is missing", "set it")


def _dotted(trail: tuple) -> str:
    """Return a trail as people write it: ``health.http[0].uri``."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in trail).lstrip(".")


def _wrong(trail: tuple, expected: str, found: str, remedy: str) -> Problem:
    """Return the problem of a value of the wrong type or out of range."""
    return Problem(_dotted(trail) or "the configuration", f"must be {expected}, not {found}", remedy)


def _type_of(value: object) -> str:
    """Return the type of a value in the user's words."""
    if value is None:
        return "empty"
    names = {bool: "a boolean", str: "a string", dict: "a mapping", list: "a list"}
    return next((name for kind, name in names.items() if isinstance(value, kind)), "a number")


def _shown(value: object) -> str:
    """Return a value as it may stand in a message: short, scalars only, no credentials of a URL."""
    if not isinstance(value, (bool, int, float, str)):
        return _type_of(value)
    text = json.dumps(_without_userinfo(value), ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


# Scalars: what is valid, what the user is told we expect, what to do.

# time.ParseDuration of Go, without its signs.
_DURATION = re.compile(r"0|((\d+(\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h))+")
_ADDRESS = re.compile(r"(\[[^\s\[\]]*\]|[^\s:/\[\]]*):(\d{1,5})")
_URL = re.compile(r"https?://[^\s/?#]+\S*")


def _is_text(value: object, pattern: re.Pattern | None = None) -> bool:
    return isinstance(value, str) and (pattern is None or pattern.fullmatch(value) is not None)


def _is_address(value: object) -> bool:
    if not isinstance(value, str):
        return False
    match = _ADDRESS.fullmatch(value)
    return value.startswith("/") or (match is not None and 1 <= int(match.group(2)) <= 65535)


def _is_whole(value: object, least: int | None) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and (least is None or value >= least)


_SCALARS = {
    "any": (lambda value: True, "", ""),
    "string": (_is_text, "a string", "put it in quotes"),
    "secret": (_is_text, "a string", "put it in quotes"),
    "bool": (lambda value: isinstance(value, bool), "true or false", "write it without quotes"),
    "duration": (
        partial(_is_text, pattern=_DURATION),
        "a duration",
        'write whole numbers with their units, such as "30s", "1h30m" or "168h"',
    ),
    "address": (
        _is_address,
        "host:port or :port, with a port from 1 to 65535",
        'write it like ":5000" or "192.168.1.5:5000"',
    ),
    "url": (
        partial(_is_text, pattern=_URL),
        "a URL that starts with http:// or https://",
        'write it like "https://registry.example.lan:5000"',
    ),
}


def _scalar(kind: object) -> tuple[Callable[[object], bool], str, str]:
    """Return for a scalar kind: the test of a value, the expectation in words, the remedy."""
    if isinstance(kind, tuple):
        # As text: the version of the configuration is mostly written as the number 0.1.
        return lambda value: str(value) in kind, f"one of {', '.join(kind)}", "use one of these"
    if kind.startswith("int"):
        least = int(kind[5:]) if kind[5:] else None
        expected = "a whole number" if least is None else f"a whole number of at least {least}"
        return partial(_is_whole, least=least), expected, "write such a number, without quotes"
    return _SCALARS[kind]


# Unknown keys: find the key that was meant.


def _unknown(trail: tuple, key: str, value: object, major: int) -> Problem:
    """Return the problem of a key unknown at this place, with the most likely way out."""
    here = (*trail, key)
    others = [version for version, schema in SCHEMAS.items() if find(schema, here) is not None]
    message = f"is not a key of registry {major}"
    if others:
        message += f", only of registry {others[0]}"
    remedy = REMEDIES[major].get(_dotted(here))
    if remedy is None and others:
        remedy = f"remove it, or run registry {others[0]}"
    if remedy is None:
        meant = _nearest(trail, key, value, SCHEMAS[major])
        known = ", ".join(fields(find(SCHEMAS[major], trail))) or "none"
        remedy = f"use {_dotted(meant)}" if meant else f"remove it (known here: {known})"
    return Problem(_dotted(here), message, remedy)


def _nearest(trail: tuple, key: str, value: object, schema: dict) -> tuple | None:
    """Return the trail of the key that was probably meant, or None.

    Looked at, in this order: keys beside it with a similar name (misspelt), keys elsewhere with the same name
    (misplaced), keys elsewhere with nearly the same name (both). The first to which the value fits wins; if
    it fits none, the first that is not doubly wrong.
    """
    name = key.lower()
    beside = fields(find(schema, trail))
    elsewhere: dict[str, list[tuple]] = {}
    # Those that share the longest way with the wrong place first, then the shallow ones.
    for place in sorted(places(schema), key=lambda place: (-len(commonprefix([place, trail])), len(place))):
        elsewhere.setdefault(place[-1], []).append(place)
    candidates = [(*trail, near) for near in difflib.get_close_matches(name, beside, cutoff=0.65)]
    candidates += elsewhere.get(name, [])
    doubly_wrong = difflib.get_close_matches(name, elsewhere.keys() - {name}, cutoff=0.8)
    everything = candidates + [place for near in doubly_wrong for place in elsewhere[near]]
    fitting = [place for place in everything if _fits(value, find(schema, place))]
    return next(iter(fitting or candidates), None)


def _fits(value: object, kind: object) -> bool:
    """Return whether a value could have been meant for a kind, without looking further down."""
    if isinstance(kind, dict):
        is_mapping = isinstance(value, (dict, type(None)))
        return is_mapping and all(child(kind, key) is not None for key in value or {})
    if isinstance(kind, list):
        return isinstance(value, list)
    return _scalar(kind)[0](value)


# What concerns more than one key.

# What the server does without this section; with a part of it, it does not start.
_PURGING = {"enabled": True, "age": "168h", "interval": "24h", "dryrun": False}


def _get(config: object, path: str) -> object:
    """Return the value at a dotted path, or None where there is nothing or no mapping."""
    for key in path.split("."):
        config = config.get(key) if isinstance(config, dict) else None
    return config


def _rules(config: dict, major: int) -> Iterator[Problem]:
    """Yield the problems that no single key shows: choices of one, and keys that need each other."""
    yield from _storage_rules(config, major)
    yield from _tls_rules(config)

    auth = _get(config, "auth")
    if isinstance(auth, dict) and len(auth) > 1:
        yield Problem("auth", f"has more than one type ({', '.join(map(str, auth))})", "keep one of them")
    token = _get(config, "auth.token")
    if major == 3 and isinstance(token, dict) and not ("rootcertbundle" in token or "jwks" in token):
        yield Problem("auth.token", "has no keys to check a token with", "set its rootcertbundle or jwks")


def _storage_rules(config: dict, major: int) -> Iterator[Problem]:
    """Yield the problems of ``storage``: the one driver, the cache's redis, complete upload purging."""
    storage = config.get("storage") or {}
    if not isinstance(storage, dict):
        return
    # The server takes every key it does not know beside the drivers for a driver; those are reported as
    # unknown already.
    beside = set(fields(child(_schema(major), "storage"))) - set(STORAGE_DRIVERS)
    drivers = [key for key in storage if key in STORAGE_DRIVERS]
    if len(drivers) > 1:
        yield Problem("storage", f"has more than one driver ({', '.join(drivers)})", "keep one of them")
    elif not set(storage) - beside:
        yield Problem("storage", "has no driver", "set one, such as storage.filesystem")

    cache = _get(storage, "cache.blobdescriptor") or _get(storage, "cache.layerinfo")
    if cache == "redis" and not _get(config, "redis"):
        address = "redis.addr" if major == 2 else "redis.addrs"
        yield Problem("storage.cache.blobdescriptor", "is redis, but there is no redis", f"set {address}")

    purging = _get(storage, "maintenance.uploadpurging")
    if isinstance(purging, dict) and purging.get("enabled") is not False:
        for key in _PURGING:
            if key != "enabled" and key not in purging:
                path = f"storage.maintenance.uploadpurging.{key}"
                yield Problem(path, "is missing; the server does not start with some of these keys", "set it")


def _tls_rules(config: dict) -> Iterator[Problem]:
    """Yield the problems of ``http.tls``; a section without a certificate is plain HTTP to the server."""
    tls = _get(config, "http.tls")
    if not isinstance(tls, dict) or not tls:
        return
    certificate, key, acme = tls.get("certificate"), tls.get("key"), _get(tls, "letsencrypt.cachefile")
    if certificate and acme:
        yield Problem("http.tls.letsencrypt", "cannot be used with a certificate", "keep one of the two")
    if certificate and not key:
        yield Problem("http.tls.key", "is missing", "set the key of http.tls.certificate")
    if not certificate and not acme:
        yield Problem(
            "http.tls.certificate",
            "is missing, so that the server would speak plain HTTP",
            "set http.tls.certificate and http.tls.key, or remove http.tls",
        )


# --- building -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Setting:
    """One setting of the role and its place in the configuration.

    Attributes:
        name: the role's variable without its prefix ``registry_``.
        path: its place, dotted; by major version where they differ, absent where a version has none; None
            for a switch that only decides about other settings.
        needs: (setting, value): this one counts only if that one has that value; True: if it is on.
        convert: what to do with the value before it goes to its place.
    """

    name: str
    path: str | dict[int, str] | None
    needs: tuple[str, object] | None = None
    convert: Callable[[object], object] | None = None


def _negated(value: object) -> object:
    """Return the opposite of a boolean; anything else stays, for ``validate`` to refuse."""
    return not value if isinstance(value, bool) else value


def _section(value: object) -> dict:
    """Return the empty section that chooses a driver or a type."""
    return {value: {}}


# The order here is the order in the file.
_SETTINGS = (
    _Setting("log_level", "log.level"),
    _Setting("log_format", "log.formatter"),
    _Setting("access_log", "log.accesslog.disabled", convert=_negated),
    _Setting("storage", "storage", convert=_section),
    _Setting("storage_root", "storage.filesystem.rootdirectory", ("storage", "filesystem")),
    _Setting("storage_max_threads", "storage.filesystem.maxthreads", ("storage", "filesystem")),
    _Setting("storage_s3", "storage.s3", ("storage", "s3")),
    _Setting("storage_azure", "storage.azure", ("storage", "azure")),
    _Setting("storage_gcs", "storage.gcs", ("storage", "gcs")),
    _Setting("storage_redirect", "storage.redirect.disable", convert=_negated),
    _Setting("delete_enabled", "storage.delete.enabled"),
    _Setting("upload_purging_enabled", "storage.maintenance.uploadpurging.enabled"),
    _Setting("upload_purging_age", "storage.maintenance.uploadpurging.age"),
    _Setting("upload_purging_interval", "storage.maintenance.uploadpurging.interval"),
    _Setting("readonly", "storage.maintenance.readonly.enabled"),
    _Setting("cache", "storage.cache.blobdescriptor"),
    # Registry 2 does not limit its cache.
    _Setting("cache_size", {3: "storage.cache.blobdescriptorsize"}, ("cache", "inmemory")),
    _Setting("auth", "auth", convert=_section),
    _Setting("auth_realm", "auth.htpasswd.realm", ("auth", "htpasswd")),
    _Setting("auth_htpasswd", "auth.htpasswd.path", ("auth", "htpasswd")),
    _Setting("auth_token", "auth.token", ("auth", "token")),
    _Setting("http_addr", "http.addr"),
    _Setting("http_host", "http.host"),
    _Setting("http_relativeurls", "http.relativeurls"),
    _Setting("http_secret", "http.secret"),
    _Setting("http_headers", "http.headers"),
    _Setting("drain_timeout", "http.draintimeout"),
    _Setting("tls_enabled", None),
    _Setting("tls_certificate", "http.tls.certificate", ("tls_enabled", True)),
    _Setting("tls_key", "http.tls.key", ("tls_enabled", True)),
    _Setting("tls_minimum", "http.tls.minimumtls", ("tls_enabled", True)),
    _Setting("tls_client_cas", "http.tls.clientcas", ("tls_enabled", True)),
    _Setting("debug_enabled", None),
    _Setting("debug_addr", "http.debug.addr", ("debug_enabled", True)),
    _Setting(
        "metrics_path",
        "http.debug.prometheus",
        ("debug_enabled", True),
        lambda path: {"enabled": True, "path": path},
    ),
    _Setting("redis_addr", {2: "redis.addr"}, ("cache", "redis")),
    _Setting("redis_addr", {3: "redis.addrs"}, ("cache", "redis"), lambda address: [address]),
    _Setting("redis_password", "redis.password", ("cache", "redis")),
    _Setting("redis_db", "redis.db", ("cache", "redis")),
    _Setting("health_storage_enabled", "health.storagedriver.enabled"),
    _Setting("health_storage_interval", "health.storagedriver.interval"),
    _Setting("health_storage_threshold", "health.storagedriver.threshold"),
    _Setting("proxy_remoteurl", "proxy.remoteurl"),
    _Setting("proxy_username", "proxy.username"),
    _Setting("proxy_password", "proxy.password"),
    _Setting("proxy_ttl", "proxy.ttl"),
)
_EXTRA = "config_extra"
# Settings the role puts together from several variables.
_COMPOSED = {
    "http_addr": "registry_bind_address, registry_port",
    "debug_addr": "registry_debug_bind_address, registry_debug_port",
    "auth_token": "registry_token_realm, registry_token_service, registry_token_issuer, registry_token_rootcertbundle, "
    "registry_token_jwks",
}


def _variable(name: str) -> str:
    """Return what the user has to change for a setting: the name of the role's variable, or of several."""
    return _COMPOSED.get(name, f"registry_{name}")


def render(settings: dict, major: int) -> dict:
    """Build the server's configuration from the role's settings and make sure the server will honour it.

    Args:
        settings: the role's variables without their prefix ``registry_``. One that is absent, null or empty
            leaves the server's default; ``none`` for ``auth`` or ``cache`` leaves the section out. Settings
            of a driver, type or switch that is not chosen are ignored, and so is ``cache_size`` for
            registry 2, which has no limit. ``config_extra`` is merged over the result: mappings key by key,
            while lists and scalars replace.
        major: the server's major version, 2 or 3.

    Raises:
        HomelabError: names every problem with its path, value, remedy and the variable it came from; also
            for a setting that does not exist and for an unsupported version.
    """
    _schema(major)
    extra = settings.get(_EXTRA) or {}
    _check_settings(settings, extra)
    config: dict = {"version": 0.1}
    for setting in _SETTINGS:
        value = settings.get(setting.name)
        path = _place(setting, major)
        if path is None or _is_left_out(setting, value):
            continue
        if setting.needs and settings.get(setting.needs[0]) != setting.needs[1]:
            continue
        config = merge(config, _nested(path, setting.convert(value) if setting.convert else value))
    purging = _get(config, "storage.maintenance.uploadpurging")
    if purging:
        purging.update({**_PURGING, **purging})
    config = merge(config, extra)
    problems = validate(config, major)
    if problems:
        raise _refusal(problems, extra, major)
    return config


def merge(base: dict, over: dict) -> dict:
    """Return ``base`` with ``over`` laid upon it: mappings are merged, everything else is replaced."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(merged.get(key), dict) and isinstance(value, dict)
        merged[key] = merge(merged[key], value) if both else copy.deepcopy(value)
    return merged


def _nested(path: str, value: object) -> dict:
    """Return the mapping that holds only ``value``, at a dotted path."""
    for key in reversed(path.split(".")):
        value = {key: value}
    return value


def _place(setting: _Setting, major: int) -> str | None:
    """Return the path of a setting for a major version, or None if it has none there."""
    return setting.path.get(major) if isinstance(setting.path, dict) else setting.path


def _is_left_out(setting: _Setting, value: object) -> bool:
    """Return whether a value means that the server's default is to stay."""
    return value in (None, "", [], {}) or (setting.name in ("auth", "cache") and value == "none")


def _check_settings(settings: dict, extra: object) -> None:
    """Raise HomelabError for what ``validate`` cannot see in the result: stray settings, unclear switches."""
    known = {setting.name for setting in _SETTINGS}
    for name in settings:
        if name != _EXTRA and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            remedy = f"use {_variable(near[0])}" if near else "remove it"
            raise HomelabError("there is no such setting", _variable(name), remedy)
    for names, kind in ((("debug_enabled", "tls_enabled"), bool), (("auth", "storage"), str)):
        for name in names:
            value = settings.get(name)
            if value not in (None, "") and not isinstance(value, kind):
                expected = "true or false" if kind is bool else "a string"
                raise HomelabError(
                    f"must be {expected}, not {_type_of(value)}", _variable(name), "correct it"
                )
    if not isinstance(extra, dict):
        remedy = "write it as the keys of the server's configuration"
        raise HomelabError(f"must be a mapping, not {_type_of(extra)}", _variable(_EXTRA), remedy)


def _refusal(problems: list[Problem], extra: dict, major: int) -> HomelabError:
    """Return the error that lists all problems and where each came from."""
    sources = [_source(problem.path, extra, major) for problem in problems]
    if len(problems) == 1:
        problem = problems[0]
        return HomelabError(f"{problem.path} {problem.message}", sources[0], problem.suggestion)
    listing = "; ".join(
        f"({number}) {problem.path} {problem.message} ({source}): {problem.suggestion}"
        for number, (problem, source) in enumerate(zip(problems, sources), 1)
    )
    return HomelabError(
        f"the registry's configuration has {len(problems)} problems: {listing}",
        ", ".join(dict.fromkeys(sources)),
    )


def _source(path: str, extra: dict, major: int) -> str:
    """Return the variable to change for a problem at ``path``.

    That is ``registry_config_extra`` if it holds this very key, else the setting whose place is this key or
    the nearest above it. A missing key so leads to the variable that would have set it.
    """
    steps = re.sub(r"\[\d+\]", "", path).split(".")
    if _holds(extra, steps):
        return _variable(_EXTRA)
    owners = {_place(setting, major): setting.name for setting in _SETTINGS}
    above = (".".join(steps[:length]) for length in range(len(steps), 0, -1))
    return _variable(next((owners[place] for place in above if place in owners), _EXTRA))


def _holds(data: object, steps: list[str]) -> bool:
    """Return whether nested mappings have a key at the end of these steps."""
    for step in steps:
        if not isinstance(data, dict) or step not in data:
            return False
        data = data[step]
    return True


# --- showing ------------------------------------------------------------------------------------------------


def redact(config: dict) -> dict:
    """Return a deep copy of a configuration that may be shown: secrets are replaced by ``********``.

    Shown is only what the schema of some version knows to be harmless, so that a secret under a misspelt or
    misplaced key stays hidden, too. Credentials inside a URL are masked in place.
    """
    return _redacted(config, list(SCHEMAS.values()))


def _redacted(value: object, kinds: list) -> object:
    """Return a value as it may be shown; ``kinds`` is what it is in each version (None: unknown there)."""
    mappings = [kind for kind in kinds if isinstance(kind, dict)]
    lists = [kind for kind in kinds if isinstance(kind, list)]
    scalars = [kind for kind in kinds if isinstance(kind, (str, tuple))]
    if "any" in scalars:
        return copy.deepcopy(value)
    if isinstance(value, dict) and mappings:
        return {key: _redacted(item, [child(kind, key) for kind in mappings]) for key, item in value.items()}
    if isinstance(value, list) and lists:
        return [_redacted(item, [kind[0] for kind in lists]) for item in value]
    is_scalar = not isinstance(value, (dict, list))
    if value is None or (is_scalar and scalars and "secret" not in scalars):
        return _without_userinfo(value)
    return MASK


def _without_userinfo(value: object) -> object:
    """Return a value; in a string, without the credentials of a URL."""
    return _USERINFO.sub(MASK, value) if isinstance(value, str) else value


def to_yaml(config: dict, comment: str = "") -> str:
    """Return the text of the server's configuration file, with ``comment`` at its top.

    Raises:
        HomelabError: a value is not plain data (see ``yaml_writer.dump``).
    """
    return dump(config, comment=comment)


def digest(text: str) -> str:
    """Return the digest of a text's UTF-8 bytes as ``sha256:<hex>``, to recognise an unchanged file."""
    return "sha256:" + hashlib.sha256(text.encode("utf-8")).hexdigest()
