# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The registry's accounts and its htpasswd file."""

from __future__ import annotations

import string

import bcrypt
import pytest
from ansible_collections.homelab.registry.plugins.module_utils.server.accounts import htpasswd, problems

ADMIN = {"name": "keeper", "password": "canary", "role": "admin"}
NODES = {"name": "nodes", "password": "other", "role": "pull"}
SECRET = "the fleet's own"


def lines(text):
    return dict(line.split(":", 1) for line in text.splitlines())


def make(*users, secret=SECRET, cost=4):
    return htpasswd(users, secret, cost, bcrypt.hashpw)


# --- the file -------------------------------------------------------------------------------------------------
def test_the_same_accounts_give_the_same_file():
    assert make(ADMIN, NODES) == make(ADMIN, NODES)


def test_an_unchanged_password_keeps_its_hash_when_others_change():
    before, after = make(ADMIN, NODES), make({**ADMIN, "password": "new"}, NODES, {"name": "x", "password": "y"})
    assert lines(before)["nodes"] == lines(after)["nodes"]
    assert lines(before)["keeper"] != lines(after)["keeper"]


def test_a_removed_account_vanishes():
    assert list(lines(make(NODES))) == ["nodes"]


def test_a_changed_cost_makes_every_hash_anew():
    assert lines(make(ADMIN, cost=5))["keeper"].startswith("$2y$05$")
    assert lines(make(ADMIN, cost=4))["keeper"].startswith("$2y$04$")


def test_no_two_accounts_and_no_two_fleets_share_a_salt():
    salts = [
        hashed[7:29]
        for text in (make(ADMIN, {**ADMIN, "name": "twin"}), make(ADMIN, secret="another"))
        for hashed in lines(text).values()
    ]
    assert len(set(salts)) == len(salts) == 3


@pytest.mark.parametrize(
    "password",
    [string.punctuation, "a b\tc", "äöü€ 🙂", "'\"`$(id)\\{{ x }}{% y %}", "#first", ":", "x" * 72],
)
def test_any_password_is_hashed_so_that_the_server_takes_it(password):
    assert problems([{**ADMIN, "password": password}], "htpasswd") == []
    hashed = lines(make({**ADMIN, "password": password}))["keeper"]
    assert bcrypt.checkpw(password.encode(), hashed.encode())
    assert not bcrypt.checkpw(b"wrong", hashed.encode())


# --- what is refused -------------------------------------------------------------------------------------------
def test_good_ones():
    assert problems([ADMIN, NODES], "htpasswd", "nodes") == []
    assert problems([], "none") == []


BAD = {
    "nobody": ([], "registry_users is empty"),
    "no list": ("keeper", "not a list of accounts"),
    "no mapping": (["keeper"], "not a list of accounts"),
    "no name": ([{"password": "x"}], "has no name"),
    "a colon": ([{**ADMIN, "name": "a:b"}], "holds a colon"),
    "a comment": ([{**ADMIN, "name": "#a"}], "begins with '#'"),
    "blanks around": ([{**ADMIN, "name": "a "}], "has blanks around it"),
    "a line break in a name": ([{**ADMIN, "name": "a\nb"}], "control characters"),
    "no password": ([{"name": "a"}], "has no password"),
    "a number for a password": ([{"name": "a", "password": 1234}], "give one as text, in quotes"),
    "a line break": ([{**ADMIN, "password": "canary\nb"}], "line break"),
    "too long": ([{**ADMIN, "password": "canary" + "€" * 24}], "longer than 72 bytes"),
    "no such role": ([{**ADMIN, "role": "owner"}], "use one of pull, push, admin"),
    "misspelt": ([{**ADMIN, "passwort": "x"}], "unknown key 'passwort'"),
    "twice": ([ADMIN, ADMIN], "has 'keeper' twice"),
}


@pytest.mark.parametrize(("users", "words"), BAD.values(), ids=BAD)
def test_a_bad_one_is_named_and_its_password_is_not(users, words):
    found = problems(users, "htpasswd")
    assert any(words in text for text in found), found
    assert "canary" not in str(found)


def test_an_unknown_node_user():
    assert "none of registry_users" in problems([ADMIN], "htpasswd", "node")[0]
