# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one exception type of the core."""

from __future__ import annotations


class HomelabError(Exception):
    """Something the user can act on: what happened, where, and what to do about it.

    Modules and registryctl show ``str(error)`` as it is, so none of the three parts may hold a secret.

    Attributes:
        message: what is wrong, without a final full stop (str).
        where: the variable, file, address or host it is about (str or None).
        remedy: what to do next, as an instruction (str or None).
    """

    def __init__(self, message: str, where: str | None = None, remedy: str | None = None) -> None:
        # All three go to Exception so that the error survives pickling between worker processes.
        super().__init__(message, where, remedy)
        self.message = message
        self.where = where
        self.remedy = remedy

    def __str__(self) -> str:
        """Return ``message (where): remedy``, leaving out the parts that were not given."""
        text = f"{self.message} ({self.where})" if self.where else self.message
        return f"{text}: {self.remedy}" if self.remedy else text
