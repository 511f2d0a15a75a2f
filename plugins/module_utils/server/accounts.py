# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The accounts of the registry: what is wrong with them, and the server's htpasswd file. Pure.

The server checks bcrypt on every request, so the cost is paid by every pull: 2 to 8 ms at cost 5, 50 to 250 ms at
cost 10. It takes nothing but bcrypt, reads the file again when it changes, and gives every account all rights; the
roles pull, push and admin are enforced by what stands before it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Callable, Iterable, Mapping

#: From the least to the most.
ROLES = ("pull", "push", "admin")
KEYS = ("name", "password", "role")
#: What bcrypt looks at; the rest of a longer password would not count.
LONGEST_PASSWORD = 72
#: 5 to 8 is what makes sense: below, a stolen file is cheap to guess from; above, every request is dear.
COSTS = range(4, 13)
BCRYPT_MISSING = (
    "the Python package bcrypt is missing on this machine, which registry_auth=htpasswd needs: "
    "pip install -r requirements/run.txt, or apt-get install python3-bcrypt"
)
_STANDARD = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_BCRYPT = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


def problems(users: object, auth: str, node_user: str = "") -> list[str]:
    """What is wrong with registry_users; one message each, which never shows a password.

    Args:
        users: the variable as it is.
        auth: registry_auth.
        node_user: registry_node_user, the account of the nodes; "" chooses one.
    """
    if not isinstance(users, list) or not all(isinstance(user, Mapping) for user in users):
        return ["registry_users is not a list of accounts: write it as [{name: …, password: …, role: pull}]"]
    if auth == "none":
        return []
    found = []
    if not users:
        found.append(
            f"registry_auth is {auth}, but registry_users is empty, so that nobody could log in: give at least one "
            "account with role admin (keep its password in a vault), or set registry_auth to none"
        )
    for number, user in enumerate(users):
        found += [f"registry_users[{number}]: {fault}" for fault in _faults(user)]
    names = [user.get("name") for user in users]
    twice = sorted({str(name) for name in names if names.count(name) > 1})
    found += [f"registry_users has {name!r} twice: keep one" for name in twice]
    if node_user and node_user not in names:
        found.append(f"registry_node_user is {node_user!r}, which is none of registry_users: name one of them")
    return found


def _faults(user: Mapping):
    name, password, role = user.get("name"), user.get("password"), user.get("role", "pull")
    for key in user:
        if key not in KEYS:
            yield f"has the unknown key {key!r}: known are {', '.join(KEYS)}"
    if not isinstance(name, str) or not name:
        yield "has no name: give one as text"
    elif ":" in name:
        yield f"the name {name!r} holds a colon, which ends the name in a login: choose another name"
    elif name.startswith("#") or name != name.strip() or re.search(r"[\x00-\x1f\x7f]", name):
        yield f"the name {name!r} begins with '#', or has blanks around it or control characters: choose another name"
    if not isinstance(password, str) or not password:
        yield f"({name}) has no password: give one as text, in quotes, from a vault"
    elif "\x00" in password or "\n" in password or "\r" in password:
        yield f"({name}) the password holds a line break or a NUL character, which no client can send: choose another"
    elif len(password.encode("utf-8")) > LONGEST_PASSWORD:
        yield (
            f"({name}) the password is longer than {LONGEST_PASSWORD} bytes, and bcrypt ignores the rest: choose a "
            "shorter one"
        )
    if role not in ROLES:
        yield f"({name}) the role is {role!r}: use one of {', '.join(ROLES)}"


def htpasswd(users: Iterable[Mapping], secret: str, cost: int, hashpw: Callable[[bytes, bytes], bytes]) -> str:
    """The text of the server's htpasswd file.

    The salt is made of `secret`, name and password instead of by chance: the same accounts always give the same
    file, on every replica and without the old one at hand, while no two accounts share a salt and nobody without the
    secret can foresee one.

    Args:
        users: accounts that `problems` has nothing against.
        secret: text that only this fleet has, such as the server's own secret.
        cost: of bcrypt, as the power of two.
        hashpw: bcrypt; takes a password and `$2b$<cost>$<salt>`.
    """
    lines = []
    for user in users:
        name, password = user["name"], user["password"]
        seed = hmac.new(secret.encode(), f"htpasswd\0{name}\0{password}".encode(), hashlib.sha256).digest()[:16]
        salt = base64.b64encode(seed).decode("ascii").rstrip("=").translate(str.maketrans(_STANDARD, _BCRYPT))
        hashed = hashpw(password.encode("utf-8"), f"$2b${int(cost):02d}${salt}".encode("ascii")).decode("ascii")
        # The same algorithm; this is how Apache's and everybody's htpasswd spells it.
        lines.append(f"{name}:$2y${hashed[4:]}\n")
    return "".join(lines)
