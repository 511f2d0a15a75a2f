# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `registryctl mirror --heal` does around the mirror run: find the damage, make way for it, look again."""

from __future__ import annotations

import argparse

from ..report.verify import damaged_names
from ..storage.maintenance import collect
from .common import OK, meter, say
from .gc import maintenance_settings, step
from .verify import look


def find(arguments: argparse.Namespace, config: dict) -> dict:
    """What verification says, see verify.look.

    Raises:
        HomelabError: nothing can be said.
    """
    with meter() as shown:
        return look(arguments, config, deep=arguments.deep, progress=shown)


def healable(found: dict) -> list[dict]:
    """The damages that a mirror run heals."""
    return [one for one in found["damages"] if one["healable"]]


def make_way(arguments: argparse.Namespace, config: dict, found: dict) -> None:
    """Remove wrong content of images that can be fetched again, and drop the server's memory of what is missing.

    It takes the registry's directory. Elsewhere what is missing can be fetched all the same, and what cannot shows when
    it is looked at again.

    Raises:
        HomelabError: the maintenance failed; the server is as it was.
    """
    damages = healable(found)
    wrong = sorted({digest for one in damages for digest in one["in_the_way"]})
    missing = sorted({digest for one in damages for digest in one["digests"]})
    if not missing or arguments.dry_run:
        return
    if found["source"] != (config.get("host") or {}).get("data_path"):
        if wrong:
            say("wrong content is in the way; it can only be removed on the registry host", OK)
        return
    # Also without wrong content: the server would go on believing that it has what is missing.
    settings = maintenance_settings(config)
    collect(**settings, damaged=wrong or missing, progress=step(quiet=arguments.json))


def outcome(before: dict, after: dict | None) -> dict:
    """For the result: names of images that were damaged, that still are, and that no mirror run brings."""
    return {
        "damaged": damaged_names(healable(before)),
        "still_damaged": damaged_names(healable(after)) if after else [],
        "not_mirrored": damaged_names(one for one in before["damages"] if not one["healable"]),
    }
