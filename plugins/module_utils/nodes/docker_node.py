# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring a Docker node's daemon.json in line: gather, write, reload, ask the engine, roll back."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from .. import text_file
from ..engine import Engine, daemon_process
from ..errors import HomelabError
from . import daemon_json, files

UNITS = ("docker.service", "snap.docker.dockerd.service")
#: Where systemd looks, the first wins (systemd.unit(5)).
UNIT_DIRECTORIES = (
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
)
ENVIRONMENT_FILES = ("/etc/default/docker", "/etc/sysconfig/docker")


@dataclass
class Outcome:
    """What `apply` did. `seconds`: from the signal until the engine reported the new settings."""

    changed: bool = False
    reloaded: bool = False
    seconds: float = 0.0
    backup: str = ""
    engine_version: str = ""
    warnings: list[str] = field(default_factory=list)


def gather_sources() -> list[daemon_json.FlagSource]:
    """Every command line this node starts dockerd with: the running one, the unit's and its drop-ins'.

    A drop-in that was written but not yet loaded counts too: it decides at the next boot.
    """
    sources = []
    environment, shell_file = {}, ""
    for name in ENVIRONMENT_FILES:
        text = _read(name)
        if text:
            environment.update(daemon_json.shell_variables(text))
            shell_file = name
    for unit in UNITS:
        text = unit_text(unit)
        for name in daemon_json.environment_files(text):
            environment.update(daemon_json.shell_variables(_read(name)))
        sources += daemon_json.unit_sources(text, environment)
    if not sources and environment.get("DOCKER_OPTS"):  # no systemd: the init script reads this file
        options = daemon_json.split_command(environment["DOCKER_OPTS"])
        sources.append(daemon_json.FlagSource(f"DOCKER_OPTS of {shell_file}", ["dockerd", *options]))
    running = daemon_process()
    if running:
        sources.append(daemon_json.FlagSource(f"the running dockerd (pid {running[0]})", running[1]))
    return sources


def unit_text(unit: str, directories: tuple[str, ...] = UNIT_DIRECTORIES) -> str:
    """A unit and its drop-ins as they are on disk, each under a comment with its path; empty if there is none.

    Not `systemctl cat`: it leaves out a drop-in that no daemon-reload has followed yet, but the next boot reads.
    """
    fragments = [Path(directory) / unit for directory in directories]
    drop_ins: dict[str, Path] = {}
    for directory in reversed(directories):  # one of the same name in a directory named earlier replaces it
        for path in Path(directory, f"{unit}.d").glob("*.conf"):
            drop_ins[path.name] = path
    files_found = [path for path in fragments if path.is_file()][:1] + [drop_ins[name] for name in sorted(drop_ins)]
    return "".join(f"# {path}\n{_read(str(path))}\n" for path in files_found)


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _output(argv: list[str]) -> str:
    if not shutil.which(argv[0]):
        return ""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def validate(text: str) -> str | None:
    """The complaint of `dockerd --validate` (23.0 and newer) about a daemon.json; None if it has none.

    None as well where this dockerd cannot judge (20.10: unknown flag; no dockerd in the path).
    """
    dockerd = shutil.which("dockerd") or shutil.which("dockerd", path="/usr/sbin:/usr/local/sbin:/usr/bin:/sbin")
    if not dockerd:
        return None
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as candidate:
        candidate.write(text)
        candidate.flush()
        done = subprocess.run(
            [dockerd, "--validate", f"--config-file={candidate.name}"],
            capture_output=True, text=True, check=False, timeout=30,
        )
    said = (done.stderr + done.stdout).strip()
    if done.returncode == 0 or "unknown flag: --validate" in said:
        return None
    return said.replace(candidate.name, "daemon.json")


def apply(plan: daemon_json.Plan, owned_before: dict, engine: Engine, timeout: float = 15) -> Outcome:
    """Do what the plan says; on any doubt the node is as it was before.

    Nothing is restarted: SIGHUP re-reads both keys in every engine since 20.10, containers and dockerd keep
    their processes. The judge is the engine: a reload's exit code says nothing.

    Args:
        plan: from `daemon_json.plan`, for this node.
        owned_before: the note of the earlier run.
        engine: the node's engine; when none answers, the checked file is written and takes effect at its start.
        timeout: seconds the engine is given to report the new settings.

    Raises:
        HomelabError: dockerd rejects the file, or did not take it over; the old file is in place again.
    """
    complaint = validate(plan.after)
    if complaint and plan.changed:
        raise HomelabError(
            f"dockerd rejects the planned {plan.path}: {complaint}",
            remedy="a fault from before, or a key this dockerd does not know: correct it; nothing was changed",
        )
    if complaint:
        raise HomelabError(
            f"dockerd would not start with {plan.path}: {complaint}",
            remedy="correct the file by hand; nothing was changed",
        )
    outcome = Outcome(warnings=list(plan.warnings))
    running = engine.available()
    if not running:
        outcome.warnings.append(f"no engine answers at {engine.address}: {plan.path} takes effect when it starts")
    stale = _missing(engine, plan) if running else []
    if plan.changed:
        if plan.before is not None:
            outcome.backup = files.back_up(plan.path, plan.before)
        text_file.write_atomic(plan.path, plan.after, 0o644)
    try:
        if running and (plan.changed or stale):
            outcome.seconds = _reload(plan, engine, timeout)
            outcome.reloaded = True
        note = files.owned_path(plan.path)
        if plan.owned != {key: owned_before.get(key, []) for key in plan.owned}:
            text_file.write_atomic(note, files.dump_owned({**owned_before, **plan.owned}), 0o644)
    except HomelabError:
        _roll_back(plan, engine if running else None)
        if outcome.backup:
            Path(outcome.backup).unlink(missing_ok=True)
        raise
    outcome.changed = plan.changed or outcome.reloaded
    if running:
        outcome.engine_version = engine.info().get("ServerVersion", "")
    return outcome


def would_reload(plan: daemon_json.Plan, engine: Engine) -> bool:
    """Whether `apply` would send a signal: the file changes, or the engine does not follow it yet."""
    return engine.available() and (plan.changed or bool(_missing(engine, plan)))


def _missing(engine: Engine, plan: daemon_json.Plan) -> list[str]:
    return daemon_json.not_in_effect(engine.info().get("RegistryConfig") or {}, plan.set)


def _reload(plan: daemon_json.Plan, engine: Engine, timeout: float) -> float:
    process = daemon_process()
    if not process:
        raise HomelabError(
            f"an engine answers at {engine.address}, but no dockerd process is visible here to be told of {plan.path}",
            remedy="is the engine in a container or another machine? Point docker_client at the machine it runs on",
        )
    start, started = time.monotonic(), time.time()
    try:
        os.kill(process[0], signal.SIGHUP)
    except OSError as error:  # it ended meanwhile, or it is another user's
        raise HomelabError(
            f"dockerd (pid {process[0]}) cannot be told of {plan.path}: {error.strerror}",
            remedy="run this as root (become) and see whether dockerd still runs; the old file is in place again",
        ) from error
    while True:  # the reload is asynchronous
        time.sleep(0.3)
        missing = _missing(engine, plan)
        elapsed = time.monotonic() - start
        # It may have had these settings before, and have refused the file for another key.
        refusal = _refusal(started)
        if refusal:
            raise HomelabError(
                f"the engine refuses {plan.path}: {refusal}",
                remedy="correct that key by hand; the old file is in place again",
            )
        if not missing:
            return elapsed
        if elapsed > timeout:
            raise HomelabError(
                f"the engine did not take {plan.path} over within {timeout:g} s: {'; '.join(missing)}",
                remedy="the old file is in place again; see journalctl -u docker",
            )


def _refusal(since: float) -> str | None:
    """What the engine has logged against its configuration file since a time (epoch seconds), if a journal tells.

    A reload's only sign of failure: "unable to configure …" (20.10 to 26), "Error reloading configuration" (28 and
    later), "Error reconfiguring the daemon" (a value it dislikes).
    """
    log = _output(["journalctl", "-u", "docker", "--since", f"@{since:.3f}", "--no-pager", "-o", "cat"])
    words = r"unable to configure the Docker daemon|[Ee]rror re(loading|configuring)|configuration validation failed"
    lines = [line for line in log.splitlines() if re.search(words, line)]
    return lines[-1].strip() if lines else None


def _roll_back(plan: daemon_json.Plan, engine: Engine | None) -> None:
    """The old file again, and the engine as the old file has it; the failure that led here is the one to tell."""
    if not plan.changed:
        return
    if engine:
        # A key that the old file does not have would stay in the engine: only an explicit empty list undoes it.
        explicit = daemon_json.explicit(plan)
        with contextlib.suppress(HomelabError):
            text_file.write_atomic(plan.path, explicit.after, 0o644)
            _reload(explicit, engine, timeout=3)
    if plan.before is None:
        Path(plan.path).unlink(missing_ok=True)
    else:
        text_file.write_atomic(plan.path, plan.before, 0o644)
