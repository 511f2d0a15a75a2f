# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The server's certificate: which names it needs, whether it may be used, when it has to be made anew. Pure.

Works on what community.crypto's x509_certificate_info and openssl_privatekey_info return.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta, timezone

LOOPBACK = ("localhost", "127.0.0.1", "::1")
#: How long a CA of our own lives.
CA_DAYS = 3650
_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST_NAME = re.compile(rf"(\*\.)?{_LABEL}(\.{_LABEL})*\.?")


def host_of(endpoint: str) -> str:
    """The name or address in `host:port`, without the brackets of an IPv6 address."""
    return endpoint.rsplit(":", 1)[0].strip("[]")


def alternative_names(endpoint: str, hosts: Iterable[str], extra: Iterable[str] = ()) -> list[str]:
    """Under which names and addresses the server answers, as `DNS:…` and `IP:…`, the endpoint's first.

    Args:
        endpoint: `host:port` as the nodes use it.
        hosts: names and addresses of the registry hosts; what no certificate can hold (`my_host`) is left out.
        extra: further ones the user wants.
    """
    names = []
    for host in (host_of(endpoint), *hosts, *extra, *LOOPBACK):
        name = _alternative_name(str(host))
        if name and name not in names:
            names.append(name)
    return names


def _alternative_name(host: str) -> str | None:
    try:
        return f"IP:{ipaddress.ip_address(host)}"
    except ValueError:
        return f"DNS:{host.rstrip('.').lower()}" if _HOST_NAME.fullmatch(host) else None


def covers(names: Iterable[str], host: str) -> bool:
    """Whether a certificate with these alternative names is one for `host`."""
    wanted = _alternative_name(host)
    for name in names or ():
        kind, _colon, value = name.partition(":")
        found = _alternative_name(value.replace("IP Address:", ""))
        if wanted is None or found is None or kind[:3] not in ("DNS", "IP"):
            continue
        if found == wanted:
            return True
        if found.startswith("DNS:*.") and wanted.startswith("DNS:") and wanted.partition(".")[2] == found[6:]:
            return True
    return False


def moment(text: str) -> datetime:
    """A time as certificates write it, `20290413202428Z`."""
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=timezone.utc)


def problems(
    certificate: Mapping,
    key: Mapping,
    host: str,
    now: datetime,
    certificate_at: str = "registry_tls_certificate",
    key_at: str = "registry_tls_key",
) -> list[str]:
    """Why a server must not be started with this certificate.

    Args:
        certificate: what x509_certificate_info returned, or its failure.
        key: what openssl_privatekey_info returned, or its failure.
        host: name or address the nodes use.
        now: aware time.
        certificate_at, key_at: where they came from, for the messages.
    """
    found = []
    if not certificate.get("not_after"):
        found.append(f"{certificate_at} is not a certificate in PEM: {_reason(certificate)}")
    if not key.get("public_key"):
        found.append(f"{key_at} is not a private key without a passphrase, in PEM: {_reason(key)}")
    if found:
        return found
    if certificate["public_key"].strip() != key["public_key"].strip():
        found.append(
            f"{certificate_at} and {key_at} do not belong together: give the key that the certificate was made for "
            "(the server's own certificate comes first in its file, those of CAs after it)"
        )
    if moment(certificate["not_after"]) <= now:
        found.append(f"{certificate_at} has expired on {_day(certificate['not_after'])}: give a renewed one")
    if moment(certificate["not_before"]) > now:
        found.append(
            f"{certificate_at} is not valid before {_day(certificate['not_before'])}: wait, or correct this machine's "
            "clock"
        )
    names = certificate.get("subject_alt_name") or []
    if not covers(names, host):
        found.append(
            f"{certificate_at} is for {', '.join(names) or 'no name at all (a common name does not count)'}, but nodes "
            f"use {host!r}: give a certificate for it, or set registry_endpoint to a name that it has"
        )
    return found


def _reason(result: Mapping) -> str:
    return str(result.get("msg") or "it cannot be read").rstrip(".")


def _day(text: str) -> str:
    return moment(text).strftime("%Y-%m-%d")


def plan_own(
    ca: Mapping | None,
    server: Mapping | None,
    server_key: Mapping | None,
    names: Iterable[str],
    now: datetime,
    *,
    days: int,
    renew_days: int,
    rotate: bool = False,
) -> dict:
    """What to make anew of our own CA and the server's certificate, and why.

    A CA must outlive every certificate it signs, so it is replaced while one of full length still fits in.

    Args:
        ca, server, server_key: what community.crypto tells of the files; None or empty for one that is not there.
        names: alternative names the server needs.
        now: aware time.
        days: how long a server's certificate is to be valid.
        renew_days: days before its end at which it is replaced.
        rotate: replace the CA in any case.

    Returns:
        `ca` and `server` (bool), `reason` (text, empty if nothing is to be done), `ca_days`: how long a CA lives.
    """

    def make(reason, with_ca=False):
        return {"ca": with_ca, "server": True, "reason": reason, "ca_days": CA_DAYS}

    if not ca or not ca.get("not_after"):
        return make("there is no CA yet", with_ca=True)
    if rotate:
        return make("registry_tls_rotate_ca asks for a new CA", with_ca=True)
    if moment(ca["not_after"]) - timedelta(days=days + renew_days) <= now:
        return make(f"the CA ends on {_day(ca['not_after'])}", with_ca=True)
    if not server or not server.get("not_after") or not server_key or not server_key.get("public_key"):
        return make("there is no certificate yet")
    if server["public_key"].strip() != server_key["public_key"].strip():
        return make("certificate and key do not belong together")
    if server.get("authority_key_identifier") != ca.get("subject_key_identifier"):
        return make("the certificate is of another CA")
    if moment(server["not_after"]) - timedelta(days=renew_days) <= now:
        return make(f"the certificate ends on {_day(server['not_after'])}")
    wanted = set(names)
    found = {_alternative_name(name.partition(":")[2]) for name in server.get("subject_alt_name") or []}
    if wanted - found:
        return make(f"the certificate lacks {', '.join(sorted(wanted - found))}")
    return {"ca": False, "server": False, "reason": "", "ca_days": CA_DAYS}
