# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a type cannot say about the role's variables, found before anything on the host is touched."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping

from . import accounts, certificate

#: Docker's own grammar for names; a colon would end a path in a mount, and Ansible expands a dollar sign.
_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]*"
_SYSTEM = (
    "", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/opt", "/proc", "/root", "/run", "/sbin", "/srv", "/sys",
    "/tmp", "/usr", "/var",
)
_PATH_OR_VOLUME = re.compile(rf"/[^:$\x00-\x1f]+|{_NAME}")


def problems(values: Mapping, *, loopback: bool, others: list[str]) -> list[str]:
    """Everything wrong with a registry host's variables; each entry names the variable, its value and the remedy.

    Args:
        values: the role's variables by their full names (`registry_port` …).
        loopback: whether the registry's address, as nodes use it, is this-machine-only.
        others: the fleet's nodes besides the registry host.
    """
    found = [text for wrong, text in _checks(values, loopback, others) if wrong]
    return found + accounts.problems(values["registry_users"], values["registry_auth"], values["registry_node_user"])


def misspelt(names: Iterable[str], known: Iterable[str]) -> list[str]:
    """Variables that nothing reads but whose names are nearly those of the role's.

    Ansible ignores an unknown variable without a word, and `registry_bind_adress: 127.0.0.1` is a registry open to
    the whole network. Other names with this prefix are somebody's own affair.
    """
    known = list(known)
    near = {name: difflib.get_close_matches(name, known, n=1, cutoff=0.9) for name in names if name not in known}
    return [
        f"{name} is no variable of this role: did you mean {match[0]}? (If it is one of your own, rename it)"
        for name, match in sorted(near.items())
        if match
    ]


def _checks(values: Mapping, loopback: bool, others: list[str]):
    def of(name: str):
        return values[f"registry_{name}"]

    unix = str(of("docker_host")).startswith("unix://")
    for name in ("port", "debug_port"):
        yield not 1 <= int(of(name)) <= 65535, f"registry_{name} is {of(name)}: choose a port between 1 and 65535"
    yield (
        of("debug_enabled") and int(of("port")) == int(of("debug_port")),
        f"registry_port and registry_debug_port are both {of('port')}: choose another port for one of them",
    )
    yield (
        not re.match(r"(unix:///|ssh://[^/]|tcp://[^/])", str(of("docker_host"))),
        f"registry_docker_host is {of('docker_host')!r}: write it as unix:///var/run/docker.sock, ssh://user@host "
        "or tcp://host:port",
    )
    for name in ("data_path", "config_path"):
        yield (
            not _PATH_OR_VOLUME.fullmatch(str(of(name))),
            f"registry_{name} is {of(name)!r}: give an absolute path, or the plain name of a Docker volume",
        )
    yield (
        not re.fullmatch(r"/[^:$\x00-\x1f]*", str(of("home"))),
        f"registry_home is {of('home')!r}: give an absolute path",
    )
    yield (
        str(of("home")).rstrip("/") in _SYSTEM,
        f"registry_home is {of('home')!r}, a directory of the system: give one of its own, like /srv/registry",
    )
    yield (
        not re.fullmatch(_NAME, str(of("container_name"))),
        f"registry_container_name is {of('container_name')!r}: use letters, digits, '.', '_' and '-'",
    )
    yield (
        of("data_path") == of("config_path"),
        f"registry_data_path and registry_config_path are both {of('data_path')!r}: they must differ",
    )
    yield (
        of("deploy") == "compose" and not unix,
        f"registry_deploy is compose, which needs Python and the engine on the host itself (registry_docker_host is "
        f"{of('docker_host')}): use registry_deploy=container",
    )
    yield (
        of("deploy") == "compose" and not str(of("config_path")).startswith("/"),
        f"registry_deploy is compose, but registry_config_path is the volume {of('config_path')!r}: give a directory",
    )
    yield (
        of("image_source") == "archive" and not of("image_archive"),
        "registry_image_source is archive, but registry_image_archive is empty: give the path on the controller of a "
        "file made by 'docker save'",
    )
    yield (
        not re.fullmatch(r"([0-9]+(:[0-9]+)?)?", str(of("user"))),
        f"registry_user is {of('user')!r}: write it as uid or uid:gid in numbers (the image knows no names)",
    )
    yield (
        bool(of("user")) and not str(of("data_path")).startswith("/"),
        f"registry_user is {of('user')!r}, but registry_data_path is the volume {of('data_path')!r}, which belongs to "
        "root: give a directory, or leave registry_user empty",
    )
    yield (
        not re.fullmatch(r"([0-9]+(\.[0-9]+)?[bkmgBKMG]?)?", str(of("memory"))),
        f"registry_memory is {of('memory')!r}: write it like 512m or 1g",
    )
    bad = [item for item in of("upstreams") if not re.fullmatch(r"[A-Za-z0-9.-]+(:[0-9]+)?", str(item))]
    yield bool(bad), f"registry_upstreams has {bad}: give host names such as quay.io, without scheme and path"
    yield (
        loopback and bool(others),
        f"the registry's address is a loopback address, which means another machine on {', '.join(others)}: set "
        "ansible_host of the registry host, or registry_endpoint, to its address in the network",
    )
    yield from _security(of)


def _security(of):
    auth, tls, mode = of("auth"), of("tls"), of("tls_mode")
    yield (
        int(of("htpasswd_cost")) not in accounts.COSTS,
        f"registry_htpasswd_cost is {of('htpasswd_cost')}: choose 5 to 8 (every request pays it; 10 is 50 to 250 ms), "
        f"at most {accounts.COSTS[-1]}",
    )
    for name in ("realm", "service", "issuer"):
        yield (
            auth == "token" and not of(f"token_{name}"),
            f"registry_auth is token, but registry_token_{name} is empty: set it",
        )
    yield (
        auth == "token" and not of("token_rootcertbundle") and not of("token_jwks"),
        "registry_auth is token, but neither registry_token_rootcertbundle nor registry_token_jwks says which keys "
        "sign tokens: give the token server's certificate (registry 2 needs that one) or its key set",
    )
    yield (
        tls and mode != "own_ca" and not (of("tls_certificate") and of("tls_key")),
        f"registry_tls_mode is {mode}, but registry_tls_certificate or registry_tls_key is empty: give both, or use "
        "own_ca",
    )
    for name in ("tls_certificate", "tls_key"):
        yield (
            tls and mode == "acme_files" and "-----BEGIN" in str(of(name)),
            f"registry_{name} is a text, but registry_tls_mode is acme_files: give the path on the registry host, or "
            "use provided",
        )
        yield (
            bool(of(name)) and tls and mode == "own_ca",
            f"registry_{name} is set, but registry_tls_mode is own_ca, which makes its own: set registry_tls_mode to "
            "provided",
        )
    yield (
        not tls and bool(of("tls_certificate")),
        "registry_tls_certificate is set, but registry_tls is false: set registry_tls to true",
    )
    yield (
        int(of("tls_days")) <= int(of("tls_renew_days")) or int(of("tls_renew_days")) < 1,
        f"registry_tls_renew_days is {of('tls_renew_days')} of {of('tls_days')} days (registry_tls_days): choose "
        "fewer, but at least 1",
    )
    yield (
        tls and mode == "own_ca" and int(of("tls_days")) + int(of("tls_renew_days")) > certificate.CA_DAYS - 365,
        f"registry_tls_days is {of('tls_days')} and registry_tls_renew_days {of('tls_renew_days')}, but a CA of our "
        f"own lives {certificate.CA_DAYS} days and has to outlive what it signs, so that nearly each run would make a "
        f"new one: choose at most {certificate.CA_DAYS - 365} days for both together",
    )
