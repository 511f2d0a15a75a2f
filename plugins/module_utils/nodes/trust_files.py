# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of `trust`, read and written."""

from __future__ import annotations

import glob
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from .. import text_file
from ..errors import HomelabError
from . import trust


class Change(NamedTuple):
    """A file's text before and after; None where there is no file."""

    path: str
    before: str | None
    after: str | None


def plan(content: str, paths: list[str], tidy: list[str], overlap: bool) -> list[Change]:
    """The files that have to change, see the module registry_ca; reads only.

    Raises:
        HomelabError: a file cannot be read, or `content` is not PEM.
    """
    wanted = dict.fromkeys(paths, content)
    if not overlap:
        for pattern in tidy:
            for path in sorted(glob.glob(pattern)):  # noqa: PTH207 - patterns are absolute
                wanted.setdefault(path, "")
    changes = []
    for path, certificates in wanted.items():
        before = text_file.read_text(path)
        after = trust.plan(before, certificates, overlap)
        if after != before:
            changes.append(Change(path, before, after))
    return changes


def apply(changes: list[Change]) -> None:
    """Write and remove them; a directory that is empty then goes as well.

    Raises:
        HomelabError: one of them cannot be written.
    """
    for change in changes:
        if change.after is not None:
            text_file.write_atomic(change.path, change.after, 0o644)
            continue
        try:
            Path(change.path).unlink()
        except OSError as error:
            raise HomelabError(
                f"{change.path} cannot be removed: {error.strerror}", remedy="remove it by hand"
            ) from error
        with suppress(OSError):
            Path(change.path).parent.rmdir()
