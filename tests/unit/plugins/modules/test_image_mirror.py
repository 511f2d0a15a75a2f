# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module image_mirror as Ansible sees it: arguments in as JSON, one result out as JSON."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from ansible_collections.homelab.registry.plugins.modules import image_mirror
from ansible_collections.homelab.registry.tests.unit import images
from ansible_collections.homelab.registry.tests.unit.mirror_lab import UPSTREAM, Lab, place

SECRETS = ("S3cret-of-target", "S3cret-of-source")


@pytest.fixture
def lab(tmp_path, monkeypatch):
    with Lab(tmp_path, monkeypatch) as lab:
        yield lab


@pytest.fixture
def module(lab, capsys):
    """Run the module in this process: its result and its exit code."""

    def run(images_, **more):
        settings = lab.settings(images_)
        del settings["workers"]
        with patch_module_args({**settings, **more}), pytest.raises(SystemExit) as left:
            image_mirror.main()
        return json.loads(capsys.readouterr().out), left.value.code

    return run


def name(image):
    return f"{UPSTREAM}/{image}"


def test_a_run_and_a_second_one(lab, module):
    digest = images.multi(lab.source, "app", "1")
    result, code = module(name("app:1"))
    assert code == 0
    assert (result["changed"], result["images"][0]["action"]) == (True, "copied")
    assert result["diff"] == {"before": f"{place('app')}:1 absent\n", "after": f"{place('app')}:1 {digest}\n"}
    assert result["transferred_bytes"] == result["transfer_bytes"] > 0
    assert result["source_requests"]["HEAD"] == 1
    result, code = module(name("app:1"))
    assert (code, result["changed"], result["images"][0]["action"]) == (0, False, "unchanged")
    assert result["diff"] == {"before": "", "after": ""}
    assert result["source_requests"] == {"HEAD": 1}


def test_check_mode_is_the_plan(lab, module):
    images.multi(lab.source, "app", "1")
    planned, code = module([name("app:1")], _ansible_check_mode=True)
    assert (code, planned["changed"], planned["check"]) == (0, True, True)
    assert planned["images"][0]["action"] == "would copy"
    assert lab.writes() == []
    assert not lab.state.exists()
    done, _code = module([name("app:1")])
    assert done["transferred_bytes"] == planned["transfer_bytes"]
    assert done["diff"] == planned["diff"]


def test_a_failed_image_fails_the_module_and_the_others_are_reported(lab, module):
    images.multi(lab.source, "app", "1")
    result, code = module([name("gone:1"), {"name": name("app"), "tags": ["1"]}, name("Bad:1")])
    assert (code, result["failed"], result["changed"]) == (1, True, True)
    assert result["msg"].startswith("2 of 3 images failed: ")
    assert f"{name('gone:1')}: " in result["msg"]
    assert {one["image"]: one["action"] for one in result["images"]} == {
        name("gone:1"): "failed",
        name("app:1"): "copied",
        name("Bad:1"): "failed",
    }


def test_a_deferred_image_is_a_warning(lab, module):
    result, code = module([{"name": name("gone:1"), "optional": True}])
    assert (code, result["changed"], result["images"][0]["action"]) == (0, False, "deferred")
    assert "warnings" not in result or name("gone:1") in str(result["warnings"])


def test_a_deletion_that_failed_fails_the_module(lab, module):
    for tag in ("1", "2"):
        images.single(lab.source, "app", tag, layers=[tag.encode()])
    module([name("app:1"), name("app:2")])
    del lab.source.repositories["app"]["tags"]["1"]
    lab.target.delete = False
    result, code = module([name("app:2")], prune=True)
    assert (code, result["pruned"][0]["action"]) == (1, "failed")
    assert f"{place('app')}:1" in result["msg"]
    assert "405" in result["msg"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"url": "registry:5000"}, "is not a registry's address"),
        ({"images": []}, "there are no images"),
        ({"platforms": ["amd64"]}, "is not a platform"),
        ({"upstreams": [{"registry": "quay.io", "user": "me"}]}, "user"),
        ({"upstreams": [{"url": "http://quay.io"}]}, "registry"),
        ({"username": "me"}, "username and password go together"),
        ({"workers": "many"}, "workers"),
        ({"ca_path": "/nowhere/ca.crt", "url": "https://registry:5000"}, "/nowhere/ca.crt"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
def test_arguments_that_are_refused(module, more, said):
    result, code = module(name("app:1"), **more)
    assert (code, result["failed"]) == (1, True)
    assert said in result["msg"]


def test_a_registry_that_is_not_there(lab, module):
    images.multi(lab.source, "app", "1")
    result, code = module(name("app:1"), url="http://127.0.0.1:9")
    assert (code, "nothing listens there" in result["msg"]) == (1, True)


def test_suboptions_of_upstreams_reach_the_upstream(tmp_path, monkeypatch, capsys):
    accounts = {"source": {"accounts": {"me": SECRETS[1]}}, "target": {"accounts": {"you": SECRETS[0]}}}
    with Lab(tmp_path, monkeypatch, **accounts) as lab:
        images.multi(lab.source, "app", "1")
        upstream = {"registry": UPSTREAM, "url": lab.source.url, "username": "me", "password": SECRETS[1], "timeout": 5}
        given = lab.settings(name("app:1"), username="you", password=SECRETS[0], upstreams=[upstream])
        for expected in ("copied", "unchanged"):
            with patch_module_args(given), pytest.raises(SystemExit) as left:
                image_mirror.main()
            text = capsys.readouterr().out
            assert left.value.code == 0
            assert json.loads(text)["images"][0]["action"] == expected
            assert "S3cret" not in text
            shown = json.loads(text)["invocation"]["module_args"]
            assert shown["password"] == shown["upstreams"][0]["password"] == "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER"
            assert shown["upstreams"][0]["username"] == "me"


def test_no_secret_in_a_failure(tmp_path, monkeypatch, capsys):
    with Lab(tmp_path, monkeypatch, source={"accounts": {"me": "another"}}) as lab:
        upstream = {"registry": UPSTREAM, "url": lab.source.url, "username": "me", "password": SECRETS[1]}
        with patch_module_args(lab.settings(name("app:1"), upstreams=[upstream])), pytest.raises(SystemExit):
            image_mirror.main()
        text = capsys.readouterr().out
        assert "401" in json.loads(text)["msg"]
        assert "S3cret" not in text


def test_it_runs_on_its_own_as_on_a_host(lab):
    images.multi(lab.source, "app", "1")
    given = {"ANSIBLE_MODULE_ARGS": {**lab.settings(name("app:1")), "_ansible_check_mode": True}}
    # What AnsiballZ does on the host: the module as __main__ with its arguments set beforehand.
    starter = (
        "import json, runpy, sys; from ansible.module_utils import basic;"
        "basic._ANSIBLE_ARGS = sys.stdin.buffer.read(); basic._ANSIBLE_PROFILE = 'legacy';"
        "runpy.run_module('ansible_collections.homelab.registry.plugins.modules.image_mirror', run_name='__main__')"
    )
    paths = [path for path in sys.path if path.endswith("collections")]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {paths!r}; {starter}"],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["changed"], result["images"][0]["action"]) == (True, "would copy")
    assert lab.writes() == []


def test_every_value_is_documented():
    returned = yaml.safe_load(image_mirror.RETURN)
    assert set(returned) == {
        "images",
        "pruned",
        "transfer_bytes",
        "transferred_bytes",
        "mounted_bytes",
        "source_requests",
    }
