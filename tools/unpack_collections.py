#!/usr/bin/env python3
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Unpack single collections out of the wheel of the package `ansible`.

Usage: unpack_collections.py WHEEL DEST NAMESPACE.NAME...

The wheel carries about a hundred collections (half a gigabyte installed); a few megabytes are wanted.
A collection already there is replaced as a whole, so that no file of an older version stays behind.
"""

from __future__ import annotations

import shutil
import sys
import zipfile
from pathlib import Path


def main(wheel: str, dest: str, *names: str) -> int:
    folders = ["ansible_collections/{}/".format(name.replace(".", "/")) for name in names]
    with zipfile.ZipFile(wheel) as archive:
        for name, folder in zip(names, folders):
            members = [member for member in archive.namelist() if member.startswith(folder)]
            if not members:
                print(f"{wheel} holds no collection {name}", file=sys.stderr)
                return 1
            shutil.rmtree(Path(dest) / folder, ignore_errors=True)
            archive.extractall(dest, members)
            print(f"    {name}: {len(members)} files")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
