# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask a started registry whether it is what was configured.

The server ignores unknown and misplaced keys: TLS, authentication or deletion can be off without a word in
its log. So everything the configuration promises is tried.
"""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import asdict, dataclass

from ..errors import HomelabError
from ..oci import canary
from ..oci.client import Registry
from ..oci.manifest import OCI_CONFIG, OCI_MANIFEST, digest_of

LATENCY_SAMPLES = 20


@dataclass(frozen=True)
class Check:
    """One promise of the configuration, kept or not."""

    name: str
    ok: bool
    detail: str


@dataclass
class Report:
    """All checks in the order they were made; `latency_ms` is the median of GET /v2/ on one connection."""

    url: str
    checks: list[Check]
    latency_ms: float | None = None
    canary_missing: tuple = ()

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self.checks)

    def failures(self) -> str:
        """The broken promises in one line."""
        return "; ".join(f"{check.name}: {check.detail}" for check in self.checks if not check.ok)

    def as_dict(self) -> dict:
        return asdict(self)


def wait(registry: Registry, seconds: float) -> None:
    """Wait until the registry answers, not a gateway in its place.

    Raises:
        HomelabError: it did not within `seconds`; the last reason.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            answer = registry.request("GET", "/v2/")
            # a gateway whose registry is about to start
            if answer.status not in (502, 503, 504) or time.monotonic() >= deadline:
                return
        except HomelabError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(0.25)


def probe(
    registry: Registry,
    anonymous: Registry,
    *,
    auth: bool = False,
    delete: bool = True,
    readonly: bool = False,
    write: bool = True,
    plain: Registry | None = None,
) -> Report:
    """Try what the configuration promises.

    Args:
        registry: the client with the account to write with, if there is one.
        anonymous: the same server without an account.
        auth: whether the server must refuse those without credentials.
        delete: whether it must delete (else it must refuse to).
        readonly: whether it must refuse writes; nothing is written then.
        write: False only looks (check mode).
        plain: the same address over plain HTTP, at which nobody may answer as a registry; for https.
    """
    report = Report(url=registry.url, checks=[])

    def check(name: str, ok: bool, detail: str) -> bool:
        report.checks.append(Check(name, ok, "ok" if ok else detail))
        return ok

    if plain:
        check("no plain HTTP", *_is_no_registry(plain))
    status = anonymous.request("GET", "/v2/").status
    check("access without credentials", status == (401 if auth else 200),
          f"GET /v2/ answered {status}, expected {'401: authentication is off' if auth else '200'}")
    answer = registry.request("GET", "/v2/")
    if not check("API version", answer.status == 200 and "docker-distribution-api-version" in answer.headers,
                 f"GET /v2/ answered {answer.explain()[:120]}: is this a registry?"):
        return report
    report.latency_ms = _latency(registry)
    if readonly:
        refused = registry.request("POST", "/v2/homelab-canary/blobs/uploads/", headers={"Content-Length": "0"})
        check("read-only", refused.status == 405, f"an upload was answered {refused.status}, expected 405")
    elif write:
        try:
            check("write, read, delete", *_round_trip(registry, delete))
        except HomelabError as error:
            check("write, read, delete", False, str(error))
            return report
    report.canary_missing = tuple(canary.missing(registry))
    return report


def _is_no_registry(plain: Registry) -> tuple[bool, str]:
    """A TLS server answers plain HTTP with 400, or not at all."""
    try:
        status = plain.request("GET", "/v2/").status
    except HomelabError:
        return True, "ok"
    return status not in (200, 401), f"GET /v2/ over plain HTTP answered {status} on the same port: TLS is off"


def _latency(registry: Registry) -> float:
    samples = []
    while len(samples) < LATENCY_SAMPLES:
        start = time.monotonic()
        registry.request("GET", "/v2/")
        samples.append((time.monotonic() - start) * 1000)
    return round(statistics.median(samples), 2)


def _round_trip(registry: Registry, delete: bool) -> tuple[bool, str]:
    """Push a throw-away manifest, read it back, delete it. Its blobs are the same each time: nothing grows."""
    repository = canary.NAME
    config = registry.put_blob(repository, canary.PROBE_CONFIG)
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": config, "size": len(canary.PROBE_CONFIG)},
            "layers": [],
            # A digest of its own each time, or a stale cache entry of the last, deleted one could be met. Where
            # nothing can be deleted it stays the same, so that nothing piles up.
            "annotations": {canary.PROBE: str(time.time_ns() if delete else 0)},
        }
    ).encode("ascii")
    wanted = digest_of(manifest)
    registry.put_manifest(repository, "probe", manifest, OCI_MANIFEST)
    seen = registry.get_manifest(repository, "probe"), registry.get_blob(repository, config)
    if seen != (manifest, canary.PROBE_CONFIG):
        return False, "what was written is not what is read back"
    answer = registry.delete_manifest(repository, wanted)
    if delete and answer.status != 202:
        return False, f"DELETE answered {answer.explain()}: deletion is off (storage.delete.enabled)"
    if not delete and answer.status != 405:
        return False, f"DELETE answered {answer.explain()}, expected 405: deletion is on"
    if delete and registry.head_manifest(repository, "probe") is not None:
        return False, "a deleted manifest is still there"
    return True, "ok"
