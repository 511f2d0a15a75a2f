# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The registry's contents from wherever they can be had: its directory, which shows everything, else its API."""

from __future__ import annotations

import os
from collections.abc import Callable

from ..oci.client import Registry
from .tree import BELOW
from .verify import Report, verify_root
from .verify_api import verify_api


def at_hand(data_path: str | None) -> bool:
    """Whether a directory holds a registry that this user may read."""
    return bool(data_path) and os.access(os.path.join(data_path, BELOW), os.R_OK | os.X_OK)  # noqa: PTH118


def verify_anywhere(
    data_path: str | None,
    connect: Callable[[], Registry],
    *,
    deep: bool = False,
    mirrored=(),
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Report, str]:
    """Check every image; see verify.verify.

    Args:
        data_path: the server's root directory, if it is on this machine.
        connect: gives a client, where it is not.

    Returns:
        The report, and where it comes from.

    Raises:
        HomelabError: neither the directory nor the server can be read.
    """
    if at_hand(data_path):
        return verify_root(data_path, deep, mirrored, progress), data_path
    registry = connect()
    try:
        return verify_api(registry, deep, mirrored, progress), registry.url
    finally:
        registry.close()
