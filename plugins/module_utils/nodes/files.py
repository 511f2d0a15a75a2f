# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files on a node that others own too: backups, and what we added to them."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

from ..text_file import write_atomic

#: Beside the file it speaks of: which entries of it are ours (so that a changed endpoint can be taken out
#: again without touching the entries a person wrote).
OWNED_NAME = "homelab-registry.json"
KEEP_BACKUPS = 5
_USERINFO = re.compile(r"(?<=://)[^/\s\"]+(?=@)")


def without_userinfo(text: str) -> str:
    """A text for eyes and logs: the credentials inside its URLs masked."""
    return _USERINFO.sub("********", text)


def back_up(path: str, text: str, mode: int = 0o600) -> str:
    """Keep `text`, the content that is about to be replaced, in `<path>.<time>.bak`; returns that path.

    Of the backups made here the newest KEEP_BACKUPS stay: a node that is looked after for years is not to fill up.
    """
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    backup = f"{path}.{stamp}.bak"
    write_atomic(backup, text, mode)
    target = Path(path)
    ours = re.compile(re.escape(target.name) + r"\.\d{8}T\d{6}Z\.bak")
    made_here = sorted(other for other in target.parent.iterdir() if ours.fullmatch(other.name))
    for old in made_here[:-KEEP_BACKUPS]:
        old.unlink(missing_ok=True)
    return backup


def parse_owned(text: str | None) -> dict:
    """What an earlier run noted as ours; a missing or damaged note means that nothing is."""
    try:
        data = json.loads(text or "{}")
    except ValueError:
        return {}
    # Lists of strings, or a table of such lists: anything else was not written by us.
    return {key: value for key, value in data.items() if _is_note(value)} if isinstance(data, dict) else {}


def _is_note(value: object) -> bool:
    if isinstance(value, dict):
        return all(isinstance(item, list) for item in value.values())
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def dump_owned(owned: dict) -> str:
    """The note's text."""
    note = {"_": "entries that homelab.registry added to the file beside this one; it removes only these"}
    return json.dumps({**note, **owned}, indent=2, sort_keys=True) + "\n"


def owned_path(path: str) -> str:
    """Where the note about `path` is kept."""
    return str(Path(path).parent / OWNED_NAME)


def merge_list(found: list, owned: list, wanted: list, *, first: bool, same=lambda entry: entry) -> tuple[list, list]:
    """Bring `wanted` into a list others write to as well.

    Args:
        found: the list as it is.
        owned: the entries an earlier run added; those no longer wanted go.
        wanted: the entries that must be there.
        first: put missing ones before the others' (order means priority) instead of after.
        same: key under which two spellings are one entry.

    Returns:
        The new list, and the entries of it that are ours (an entry a person had written stays theirs).
    """
    keep = {same(entry) for entry in wanted}
    ours = {same(entry) for entry in owned}
    kept = [entry for entry in found if same(entry) not in ours or same(entry) in keep]
    present = {same(entry) for entry in kept}
    missing = [entry for entry in wanted if same(entry) not in present]
    merged = missing + kept if first else kept + missing
    still_ours = [entry for entry in wanted if same(entry) in ours or same(entry) not in present]
    return merged, still_ours
