# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose logins are written and taken back, and with whose rights."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import tempfile
from pathlib import Path

import pytest
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.modules import docker_logins

LOGIN = {"registry": "reg:5000", "username": "nodes", "password": "canary"}
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up its rights")


@pytest.fixture
def homes(monkeypatch):
    """Makes a user of the node with a home, and returns that; every user can come there."""
    base = Path(tempfile.mkdtemp())
    base.chmod(0o755)
    users = {}

    def user(name, uid=None):
        uid = os.getuid() if uid is None else uid
        home = base / name
        home.mkdir()
        os.chown(home, uid, -1)
        users[name] = pwd.struct_passwd((name, "x", uid, os.getgid() if uid == os.getuid() else uid, "", str(home), ""))
        return home

    monkeypatch.setattr(docker_logins.pwd, "getpwnam", lambda name: users[name])
    monkeypatch.setattr(docker_logins.pwd, "getpwall", lambda: list(users.values()))
    yield user
    shutil.rmtree(base)


def run(users, logins=(LOGIN,), overlap=False, check=False):
    return docker_logins.run({"users": users, "logins": list(logins), "overlap": overlap}, check)


def auths(home):
    return list(json.loads((home / ".docker/config.json").read_text(encoding="utf-8")).get("auths", {}))


def test_logins_come_and_go_with_the_users_that_are_listed(homes):
    one, two = homes("one"), homes("two")
    homes("without anything")
    assert run(["one", "two"])["paths"] == [str(one / ".docker/config.json"), str(two / ".docker/config.json")]
    assert (one / ".docker/config.json").stat().st_mode & 0o777 == 0o600
    assert run(["one", "two"])["changed"] is False
    assert run(["one"], check=True)["changed"] is True
    assert run(["one"], overlap=True)["changed"] is False, "not before the registry has changed over"
    assert auths(two) == ["reg:5000"]
    assert run(["one"])["paths"] == [str(two / ".docker/config.json")]
    assert (auths(one), auths(two)) == (["reg:5000"], [])
    assert run(["one"])["changed"] is False


def test_nobody_s_login(homes):
    with pytest.raises(HomelabError, match="no user nobody-here"):
        run(["nobody-here"])


@ROOT
def test_a_link_leads_nowhere_where_the_user_could_not_have_written(homes):
    home, secret = homes("user", 65534), homes("root's")
    secret.chmod(0o700)
    (home / ".docker").mkdir()
    (home / ".docker/config.json").symlink_to(secret / "cron")
    os.chown(home / ".docker", 65534, -1)
    with pytest.raises(HomelabError, match="cannot be"):
        run(["user"])
    assert list(secret.iterdir()) == []
    assert os.geteuid() == 0


@ROOT
def test_what_is_written_belongs_to_the_user(homes):
    home = homes("user", 65534)
    run(["user"])
    assert {path.stat().st_uid for path in (home / ".docker").rglob("*")} == {65534}
    assert (home / ".docker").stat().st_uid == 65534
