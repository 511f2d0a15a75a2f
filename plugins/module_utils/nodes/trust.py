# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files with certificates of CAs, in which ours stand between two marks. Pure.

All readers (Docker, containerd, BuildKit, OpenSSL) take any number of certificates and skip the text between them, so
that others' certificates in the same file stay, and an old CA of ours can stand beside the new one while a registry
changes over.
"""

from __future__ import annotations

import re

from ..errors import HomelabError

BEGIN = "# BEGIN homelab.registry: kept up to date, do not edit"
END = "# END homelab.registry"
_OURS = re.compile(rf"^{re.escape(BEGIN)}\n(.*?)^{re.escape(END)}\n?", re.DOTALL | re.MULTILINE)
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----\s[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----")


def certificates(text: str) -> list[str]:
    """The certificates in a PEM text, each once, without what stands between them."""
    return list(dict.fromkeys("\n".join(found.split("\n")) for found in _CERTIFICATE.findall(text.replace("\r", ""))))


def is_ours(text: str | None) -> bool:
    """Whether the file holds a part of ours."""
    return bool(_OURS.search(text or ""))


def plan(text: str | None, wanted: str, overlap: bool = False) -> str | None:
    """What a file must become; None if it must not be there.

    Args:
        text: the file as it is, None if there is none.
        wanted: our certificates in PEM; empty takes ours out.
        overlap: keep those of ours that are no longer wanted as well.

    Raises:
        HomelabError: `wanted` holds something else than certificates.
    """
    ours = certificates(wanted)
    if wanted.strip() and not ours:
        raise HomelabError("there is no certificate in it", "content", "give the CA's certificate in PEM")
    before = text or ""
    if overlap:
        ours += [one for part in _OURS.findall(before) for one in certificates(part) if one not in ours]
    others = _OURS.sub("", before)
    if ours:
        block = "\n".join([BEGIN, *ours, END]) + "\n"
        return f"{others.rstrip()}\n{block}" if others.strip() else block
    if others.strip():
        return others
    return None if is_ours(before) or not before else before
