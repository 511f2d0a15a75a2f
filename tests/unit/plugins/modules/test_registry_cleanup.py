# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules registry_cleanup and images_in_use as Ansible sees them, and the table of cleanup.yml."""

from __future__ import annotations

import json

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.homelab.registry.plugins.filter.cleanup import FilterModule
from ansible_collections.homelab.registry.plugins.module_utils import lock
from ansible_collections.homelab.registry.plugins.module_utils.mirroring.state import State
from ansible_collections.homelab.registry.plugins.module_utils.report.cleanup import cleanup_summary
from ansible_collections.homelab.registry.plugins.modules import images_in_use, images_in_use_note, registry_cleanup
from ansible_collections.homelab.registry.tests.unit import images
from ansible_collections.homelab.registry.tests.unit.fake_engine import FakeEngine
from ansible_collections.homelab.registry.tests.unit.fake_registry import FakeRegistry

ID = "sha256:" + "a" * 64
SECRET = "S3cret-of-the-janitor"


@pytest.fixture
def fake():
    with FakeRegistry() as fake:
        for number in range(1, 5):
            images.single(fake, "app", f"v{number}", layers=[images.data(f"v{number}", 3000)])
        yield fake


@pytest.fixture
def module(fake, capsys, tmp_path):
    def run(**options):
        given = {"url": fake.url, "state_dir": str(tmp_path / "state"), "policy": {"keep_last": 2}, **options}
        with patch_module_args(given), pytest.raises(SystemExit) as left:
            registry_cleanup.main()
        return json.loads(capsys.readouterr().out), left.value.code

    return run


def test_a_run_and_a_second_one(fake, module):
    before = fake.tags("app")
    result, code = module()
    assert (code, result["changed"]) == (0, True)
    assert set(fake.tags("app")) == {"v3", "v4"}
    assert [(one["tag"], one["result"]) for one in result["items"]] == [("v2", "deleted"), ("v1", "deleted")]
    assert result["diff"]["before"] == f"app:v2 {before['v2']}\napp:v1 {before['v1']}\n"
    assert result["diff"]["after"] == "app:v2 absent\napp:v1 absent\n"
    assert (result["tags"], result["manifests"]) == ({"keep": 2, "delete": 2, "tag only": 0}, 2)
    assert result["freed"] > 6000
    result, code = module()
    assert (code, result["changed"], result["items"]) == (0, False, [])


def test_check_mode_is_the_plan(fake, module):
    planned, code = module(_ansible_check_mode=True, _ansible_diff=True)
    assert (code, planned["changed"]) == (0, True)
    assert not fake.count("DELETE")
    done, _code = module()
    assert done["diff"] == planned["diff"]

    def plan(result):
        return [{**one, "result": None, "reason": None} for one in result["items"]]

    assert plan(done) == plan(planned)


def test_numbers_as_text(fake, module):
    """As -e keep_last=3 gives them."""
    result, _code = module(policy={"keep_last": "3", "max_age": None})
    assert len(result["items"]) == 1
    assert len(fake.tags("app")) == 3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"policy": {"keep_last": -1}}, "keep_last is -1"),
        ({"policy": {"group": "("}}, "not a regular expression"),
        ({"policy": {"keep_lasst": 1}}, "keep_lasst"),
        ({"url": "registry:5000"}, "is not a registry's address"),
        ({"used": {"one": {"digests": "all"}}}, "one gave no list of digests"),
        ({"in_use_days": 0}, "in_use_days is 0"),
        ({"username": "janitor"}, "username, password"),
    ],
)
def test_bad_input(fake, module, options, said):
    result, code = module(**options)
    assert code == 1
    assert said in result["msg"]
    assert not fake.count("DELETE")


def test_too_much_is_refused_and_shown(fake, module):
    result, code = module(policy={"keep_last": 1})
    assert code == 1
    assert "3 of 4 tags would go" in result["msg"]
    assert {one["result"] for one in result["items"]} == {"refused"}
    assert not fake.count("DELETE")
    assert "set force" in cleanup_summary(result)
    _result, code = module(policy={"keep_last": 1, "force": True})
    assert (code, set(fake.tags("app"))) == (0, {"v4"})


def test_one_failure_fails_the_task_and_the_rest_is_done(fake, module):
    fake.say(403, b"{}", method="DELETE", path=fake.tags("app")["v1"])
    result, code = module()
    assert code == 1
    assert "app:v1: failed: " in result["msg"]
    assert "v2" not in fake.tags("app")


def test_a_policy_that_lets_nothing_go_says_so(module):
    result, code = module(policy={})
    assert (code, result["changed"]) == (0, False)
    assert "neither keep_last nor max_age is set: no tag goes" in cleanup_summary(result)


def test_another_run_is_named(module, tmp_path):
    path = tmp_path / "lock"
    with lock.hold(path, exclusive=True, verb="registryctl gc"):
        result, code = module(lock_path=str(path))
        assert code == 1
        assert "another run is under way on this registry: registryctl gc" in result["msg"]
        _result, code = module(lock_path=str(path), _ansible_check_mode=True)
        assert code == 0, "a dry run takes no lock"


def test_on_the_registry_host_there_is_always_a_lock(module, tmp_path):
    with lock.hold(tmp_path / "state" / "lock", exclusive=True, verb="registryctl gc"):
        result, code = module(host={"docker_host": f"unix://{tmp_path}/none.sock"})
        assert (code, "another run is under way" in result["msg"]) == (1, True)


def test_a_node_that_was_never_asked_stops_everything(fake, module):
    result, _code = module(nodes=["one"], used={"one": {"failure": "unreachable: no route"}})
    assert (result["changed"], len(fake.tags("app"))) == (False, 4)
    assert "one could not be asked: unreachable: no route; nothing goes" in cleanup_summary(result)
    result, _code = module(nodes=["one"], used={"one": {"digests": [fake.tags("app")["v1"]]}})
    assert [one["tag"] for one in result["items"]] == ["v2"]
    result, _code = module(nodes=["one"], used={"one": {"failure": "off"}}, policy={"keep_last": 1, "force": True})
    assert result["items"] == [], "it had images of this repository"


def test_what_was_mirrored_by_digest_stays(fake, module, tmp_path):
    state = State(tmp_path / "state" / "mirror-reg_5000.json", "reg:5000")
    state.pinned("app", fake.tags("app")["v1"], "docker.io/library/app@sha256:x")
    state.save()
    result, _code = module()
    assert [one["tag"] for one in result["items"]] == ["v2"]
    (tmp_path / "state" / "mirror-other.json").write_text("{")
    result, code = module()
    assert code == 1
    assert "which images were mirrored by digest alone" in result["msg"]


def test_no_secret_in_the_result(module):
    result, _code = module(username="janitor", password=SECRET)
    assert SECRET not in json.dumps({key: value for key, value in result.items() if key != "invocation"})


# --- images_in_use ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("check", [True, False])
def test_images_in_use(capsys, check):
    with FakeEngine() as engine:
        engine.listed = [{"Image": "app", "ImageID": ID}]
        given = {"engine": "docker", "docker_host": engine.address, "_ansible_check_mode": check}
        with patch_module_args(given), pytest.raises(SystemExit):
            images_in_use.main()
    result = json.loads(capsys.readouterr().out)
    assert (result["changed"], result["digests"]) == (False, [ID])


def test_no_engine_is_a_failure(capsys, tmp_path):
    with patch_module_args({"engine": "docker", "docker_host": f"unix://{tmp_path}/none"}), pytest.raises(SystemExit):
        images_in_use.main()
    assert "no Docker engine answers" in json.loads(capsys.readouterr().out)["msg"]


def test_a_note_for_the_timers(capsys, tmp_path, fake, module):
    """What it writes is what a run without answers goes by."""
    (tmp_path / "state").mkdir()
    path = tmp_path / "state" / "in-use.json"

    def note(**options):
        with patch_module_args({"path": str(path), **options}), pytest.raises(SystemExit):
            images_in_use_note.main()
        return json.loads(capsys.readouterr().out)

    used = {"one": {"digests": [fake.tags("app")["v1"]]}, "two": {"failure": "off"}}
    assert note(used=used, _ansible_check_mode=True)["changed"] is False
    assert not path.exists()
    result = note(used=used, nodes=["one"])
    assert (result["changed"], result["nodes"]) == (False, {"known": ["one"], "unknown": []})
    assert [one["tag"] for one in module(nodes=["one"], _ansible_check_mode=True)[0]["items"]] == ["v2"]
    assert note(used={"one": {"failure": "off"}})["nodes"] == {"known": [], "unknown": ["one"]}
    assert module(nodes=["one"], _ansible_check_mode=True)[0]["items"] == []
    path.write_text("{")
    assert "no list of the images in use" in note(used=used)["msg"]


# --- the table --------------------------------------------------------------------------------------------------------
def report(*items, **more):
    filled = [
        {
            "repository": "app", "tag": "v1", "digest": ID, "age": 40 * 86400, "age_source": "pushed", "freed": 0,
            "rule": "older than 30 d", "result": "deleted", "reason": None, **one,
        }
        for one in items
    ]  # fmt: skip
    return {
        "check": False, "items": filled, "notes": [], "tags": {"keep": 3}, "freed": 2048, "refused": None,
        "trouble": None, "garbage": None, **more,
    }  # fmt: skip


GARBAGE = {"freed": 4096, "read_only_seconds": 12.4, "unreachable_seconds": 1.1}


@pytest.mark.parametrize(
    ("given", "lines"),
    [
        (report(), ["nothing to delete, 3 tags kept"]),
        (
            report({"freed": 1536}, garbage=GARBAGE),
            [
                "app         v1   40 d (pushed)  1.5 KiB  deleted  older than 30 d",
                "1 deleted, 3 tags kept; 4.0 KiB freed in 12 s without pushes and 1.1 s without an answer",
            ],
        ),
        (report({}), ["1 deleted, 3 tags kept; a garbage collection will free 2.0 KiB"]),
        (
            report({"result": "would delete"}, check=True, garbage=GARBAGE),
            ["1 would delete, 3 tags kept; 2.0 KiB would become free; 4.0 KiB of garbage are there already"],
        ),
        (
            report({"result": "failed", "tag": None, "age": None, "age_source": None, "reason": "answered 500"}),
            ["app         sha256:aaaaaaaaaaaa  -    -      FAILED  older than 30 d; answered 500", "1 failed, 3 tags"],
        ),
        (report({"result": "refused"}, refused="3 of 4 tags would go"), ["NOT DONE: 3 of 4 tags would go"]),
        (report(notes=["rules[0]: no repository matches ci/*"]), ["- rules[0]: no repository matches ci/*"]),
    ],
)
def test_the_table(given, lines):
    text = cleanup_summary(given)
    for line in lines:
        assert line in text, text


def test_the_filters_are_there():
    assert set(FilterModule().filters()) == {"cleanup_problem", "cleanup_settings", "cleanup_summary", "cleanup_used"}


def test_the_filters_on_an_inventory():
    filters = FilterModule().filters()
    groups = {"registry": ["reg"], "docker_nodes": ["one"]}
    hostvars = {"reg": {"cleanup_keep_last": 3, "keep_last": "7"}, "one": {"__in_use_docker": {"digests": [ID]}}}
    assert filters["cleanup_settings"](groups, hostvars)["cleanup"]["policy"] == {"keep_last": 3}
    assert filters["cleanup_settings"](groups, hostvars, True)["cleanup"]["policy"] == {"keep_last": "7"}
    assert filters["cleanup_used"](groups, hostvars) == {"one": {"digests": [ID]}}
    assert filters["cleanup_problem"](groups, hostvars) == ""
    hostvars["reg"]["cleanup_kep_last"] = 1
    assert "did you mean cleanup_keep_last?" in filters["cleanup_problem"](groups, hostvars)
