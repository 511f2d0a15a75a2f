# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""registryctl as one file: the core's own modules in a zip archive that Python runs.

The same sources, packed by the same Python, give the same bytes on whatever machine, so that copying the file to a
host is idempotent: sorted names, one time stamp, fixed permissions, and stored (another zlib packs differently).
Each module is there compiled as well: nothing is cached for a module in an archive, and compiling all of them anew at
every start is most of what a run without news costs. A host with another Python takes the sources.
"""

from __future__ import annotations

import importlib.util
import io
import marshal
import zipfile
from pathlib import Path

PACKAGE = "homelab_registry"
#: The earliest time a zip archive can hold.
EPOCH = (1980, 1, 1, 0, 0, 0)
MAIN = f"""\
import sys

if sys.version_info < (3, 9):
    sys.exit("registryctl needs Python 3.9 or newer, this is %s" % sys.version.split()[0])
from {PACKAGE}.cli import main

sys.exit(main(sys.argv[1:]))
"""


def build(core: Path, python: str = "/usr/bin/python3") -> bytes:
    """The archive.

    Args:
        core: the directory of the core (this file's).
        python: the interpreter on the host; -I keeps it from importing what lies about in PYTHONPATH or the
            working directory of root.
    """
    files = {f"{PACKAGE}/{path.relative_to(core).as_posix()}": path.read_bytes() for path in core.rglob("*.py")}
    files.update({f"{name}c": _compiled(name, source) for name, source in files.items()})
    files["__main__.py"] = MAIN.encode()
    packed = io.BytesIO()
    packed.write(f"#!{python} -I\n".encode())
    with zipfile.ZipFile(packed, "a", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.create_system = 3  # Unix, also where it is packed elsewhere
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, files[name])
    return packed.getvalue()


def _compiled(name, source):
    """A .pyc that is used without a look at the source's time (PEP 552, unchecked hash)."""
    # Version 2 of the format has no references, which depend on what else the process has in memory.
    code = marshal.dumps(compile(source, name, "exec", dont_inherit=True), 2)
    flags = (0b01).to_bytes(4, "little")
    return importlib.util.MAGIC_NUMBER + flags + importlib.util.source_hash(source) + code
