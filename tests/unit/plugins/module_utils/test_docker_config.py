# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A user's Docker logins."""

from __future__ import annotations

import base64
import json

import pytest
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.nodes.docker_config import plan

REG = "reg:5000"
OTHERS = {"auths": {"https://index.docker.io/v1/": {"auth": "someone"}}, "psFormat": "table"}


def login(registry=REG, username="nodes", password="canary:pass"):
    return {"registry": registry, "username": username, "password": password}


def make(config, logins, **options):
    text = config if isinstance(config, (str, type(None))) else json.dumps(config)
    return plan(text, "/root/.docker/config.json", logins, **options)


def after(done):
    return json.loads(done.after)


def test_a_login_is_what_docker_login_writes():
    done = make(None, [login()])
    assert base64.b64decode(after(done)["auths"][REG]["auth"]) == b"nodes:canary:pass"
    assert (done.changed, done.owned) == (True, [REG])
    again = make(done.after, [login()], owned=done.owned)
    assert (again.changed, again.after) == (False, done.after)


def test_others_stay_also_when_ours_goes():
    done = make(OTHERS, [login()])
    assert after(done)["psFormat"] == "table"
    assert after(done)["auths"]["https://index.docker.io/v1/"] == {"auth": "someone"}
    assert after(make(done.after, [], owned=done.owned)) == OTHERS


def test_a_login_that_a_person_made_is_not_taken_out():
    theirs = {"auths": {REG: {"auth": "x"}}}
    assert not make(theirs, []).changed


@pytest.mark.parametrize("text", [None, "", "{ broken", "[]"])
def test_without_logins_the_file_is_not_our_affair(text):
    done = make(text, [])
    assert (done.changed, done.owned) == (False, [])


def test_a_new_password_replaces_the_old():
    done = make(None, [login()])
    assert make(done.after, [login(password="new")], owned=[REG]).changed


def test_while_a_registry_changes_over_logins_are_only_added():
    done = make(None, [login()])
    over = make(done.after, [login(password="new"), login("new:5000")], owned=[REG], overlap=True)
    assert after(over)["auths"][REG] == after(done)["auths"][REG]
    assert set(after(over)["auths"]) == {REG, "new:5000"}
    assert over.owned == ["new:5000", REG]
    end = make(over.after, [login("new:5000")], owned=over.owned)
    assert set(after(end)["auths"]) == {"new:5000"}


def test_a_credentials_store_does_not_hide_the_login():
    done = make({"credsStore": "pass"}, [login()])
    assert after(done)["credHelpers"] == {REG: ""}
    assert after(make(done.after, [], owned=[REG])).get("credHelpers") == {}
    theirs = make({"credHelpers": {REG: "pass"}}, [login()])
    assert "the helper pass keeps the login" in theirs.warnings[0]


def test_no_secret_is_shown():
    done = make({"auths": {REG: {"auth": "c2VjcmV0"}}}, [login()])
    shown = done.before_shown + done.after_shown
    assert "c2VjcmV0" not in shown
    assert "canary" not in shown
    assert after(done)["auths"][REG]["auth"] not in shown


@pytest.mark.parametrize("text", ["{", "[]", '{"auths": [1]}', '{"auths": {"a": {"auth": "canary"'])
def test_a_broken_file_is_refused_and_not_quoted(text):
    with pytest.raises(HomelabError) as caught:
        make(text, [login()])
    assert "canary" not in str(caught.value)
