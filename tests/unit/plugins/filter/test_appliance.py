# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a NAS gets, and what is carried over to it."""

from __future__ import annotations

import json

from ansible_collections.homelab.registry.plugins.filter.appliance import appliance_daemon_json
from ansible_collections.homelab.registry.plugins.filter.jobs import jobs_problem
from ansible_collections.homelab.registry.plugins.filter.mirror import migrate_images, migrate_upstream

PLAIN = {"scheme": "http", "endpoint": "nas:5000", "url": "http://nas:5000", "anonymous_pull": True}


def test_the_daemon_json_of_the_appliance_is_kept():
    made = appliance_daemon_json('{"log-level": "warn"}', PLAIN)
    assert made["problem"] == ""
    assert json.loads(made["text"]) == {
        "log-level": "warn",
        "insecure-registries": ["nas:5000"],
        "registry-mirrors": ["http://nas:5000"],
    }


def test_with_tls_and_accounts_there_is_neither():
    closed = {"scheme": "https", "endpoint": "nas:5000", "url": "https://nas:5000", "anonymous_pull": False}
    assert json.loads(appliance_daemon_json("", closed)["text"] or "{}").get("registry-mirrors", []) == []


def test_what_was_offered_before_is_taken_back_by_an_empty_list():
    closed = {"scheme": "https", "endpoint": "nas:5000", "url": "https://nas:5000", "anonymous_pull": False}
    offered = appliance_daemon_json("", PLAIN)["text"]
    nothing = {"insecure-registries": [], "registry-mirrors": []}
    taken_back = appliance_daemon_json("", closed, offered)["text"]
    assert json.loads(taken_back) == nothing
    assert appliance_daemon_json("", closed, taken_back)["text"] == taken_back, "and stays so"
    assert json.loads(appliance_daemon_json('{"debug": true}', closed, offered)["text"]) == {"debug": True, **nothing}
    mirror = appliance_daemon_json("", {**closed, "anonymous_pull": True}, offered)["text"]
    assert json.loads(mirror) == {"insecure-registries": [], "registry-mirrors": ["https://nas:5000"]}
    moved = {**PLAIN, "endpoint": "new:5000", "url": "http://new:5000"}
    assert json.loads(appliance_daemon_json("", moved, offered)["text"]) == {
        "insecure-registries": ["new:5000"],
        "registry-mirrors": ["http://new:5000"],
    }
    assert appliance_daemon_json('{"debug": true}', closed)["text"] == '{"debug": true}', "nothing was ever offered"


def test_one_that_would_stop_the_engine_is_refused():
    made = appliance_daemon_json('{"log-level": "warn",}', PLAIN)
    assert made["text"] == ""
    assert "not valid JSON" in made["problem"]


def test_all_tags_of_another_registry():
    found = [{"name": "team/app", "tags": [{"name": "1"}, {"name": "2"}]}, {"name": "empty", "tags": []}]
    assert migrate_images(found, "http://fx:5000/") == [{"name": "fx:5000/team/app", "tags": ["1", "2"]}]


def test_only_what_is_given_is_said_of_it():
    assert migrate_upstream("http://fx:5000/", {"username": "", "password": ""}) == {
        "registry": "fx:5000",
        "url": "http://fx:5000",
    }
    assert migrate_upstream("https://fx", {"username": "a", "password": "b"})["username"] == "a"


def test_a_time_that_is_none():
    job = {"name": "mirror", "on_calendar": "03:30", "command": ["mirror"]}
    assert jobs_problem([job]) == ""
    assert "no time" in jobs_problem([{**job, "on_calendar": "late"}])
