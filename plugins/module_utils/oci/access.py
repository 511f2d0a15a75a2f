# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a registry is reached, as users write it."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import HomelabError


@dataclass(frozen=True)
class Access:
    """How one registry is reached.

    Attributes:
        url: `http://…` or `https://…`; None for an upstream means https and its own name.
        username, password: an account; None looks into the Docker config, then goes anonymous.
        ca_path, client_cert, client_key: PEM files.
        validate_certs: False trusts any certificate.
        timeout: seconds for connecting and for each read or write.
    """

    url: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_path: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    validate_certs: bool = True
    timeout: float = 60

    @classmethod
    def from_dict(cls, data: dict, where: str) -> Access:
        """From a user's mapping.

        Raises:
            HomelabError: an unknown key, or a password without a user name.
        """
        known = list(cls.__dataclass_fields__)
        unknown = sorted(set(data) - set(known))
        if unknown:
            raise HomelabError(f"unknown key {unknown[0]!r}", where=where, remedy=f"there are {', '.join(known)}")
        given = {key: value for key, value in data.items() if value is not None}
        if ("username" in given) != ("password" in given):
            raise HomelabError("username and password go together", where=where, remedy="give both or neither")
        return cls(**given)
