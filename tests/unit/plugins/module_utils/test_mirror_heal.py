# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Healing: what is damaged is fetched again whatever the registry says of it, and nothing else is."""

from __future__ import annotations

import json

import pytest
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.mirroring.heal import parse_heal
from ansible_collections.homelab.registry.plugins.module_utils.mirroring.state import mirrored_names
from ansible_collections.homelab.registry.plugins.module_utils.oci.client import Registry
from ansible_collections.homelab.registry.plugins.module_utils.storage.verify_api import verify_api
from ansible_collections.homelab.registry.tests.unit import images
from ansible_collections.homelab.registry.tests.unit.mirror_lab import Lab, actions, answer, blob_path, only, place


@pytest.fixture
def lab(tmp_path, monkeypatch):
    with Lab(tmp_path, monkeypatch) as lab:
        images.multi(lab.source, "app", "1", layers=(b"a shared layer",))
        images.single(lab.source, "other", "1", layers=(b"another layer",))
        lab.run("app:1", "other:1")
        yield lab


def damages(lab):
    known = mirrored_names(lab.state, lab.target.netloc)
    report = verify_api(Registry(lab.target.url), deep=True, mirrored=known)
    return [damage.as_dict() for damage in report.damages]


def held(lab, repository="app"):
    return lab.target.repositories[place(repository)]


def child(lab, number=1):
    index = json.loads(held(lab)["manifests"][held(lab)["tags"]["1"]][1])
    return index["manifests"][number]["digest"]


def lose_layer(lab):
    del held(lab)["blobs"][images.digest_of(b"a shared layer")]


def lose_config(lab):
    document = json.loads(held(lab)["manifests"][child(lab)][1])
    del held(lab)["blobs"][document["config"]["digest"]]


def lose_child(lab):
    del held(lab)["manifests"][child(lab)]


def spoil_index(lab):
    digest = held(lab)["tags"]["1"]
    held(lab)["manifests"][digest] = (images.OCI_INDEX, b"{}")


def lose_much(lab):
    lose_config(lab)
    lose_child(lab)
    lose_layer(lab)


DAMAGES = (lose_layer, lose_config, lose_child, spoil_index, lose_much)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_image_is_whole_again(lab, damage):
    before = lab.tags("app")
    damage(lab)
    found = damages(lab)
    assert [(one["repository"], one["healable"]) for one in found] == [(place("app"), True)]
    unhealed = lab.run("app:1", "other:1")
    assert actions(unhealed) == {"app:1": "unchanged", "other:1": "unchanged"}, "the tags say that nothing is new"
    report = lab.run("app:1", "other:1", heal=found)
    assert actions(report) == {"app:1": "copied", "other:1": "unchanged"}
    assert report.images[0]["damaged"] == [place("app")]
    assert damages(lab) == []
    assert lab.tags("app") == before
    images.assert_whole(lab.target)


def test_only_what_is_damaged_travels(lab):
    lose_layer(lab)
    found = damages(lab)
    report = lab.run("app:1", "other:1", heal=found, check=True)
    assert (actions(report), lab.writes()) == ({"app:1": "would copy", "other:1": "unchanged"}, [])
    assert report.as_dict()["transfer_bytes"] == len(b"a shared layer")
    difference = report.diff()
    assert difference["before"].endswith(" damaged\n")
    assert f"{place('app')}:1" in difference["after"]
    report = lab.run("app:1", "other:1", heal=found)
    assert report.as_dict()["transferred_bytes"] == len(b"a shared layer")
    assert lab.source.count("GET", "/blobs/") == 1


def test_the_registry_s_word_is_not_taken(lab):
    """2.8 and 3.x answer HEAD from their memory when the file has gone."""
    lose_layer(lab)
    found = damages(lab)
    lie = blob_path(b"a shared layer")
    lab.target.hooks.append(
        lambda handler: handler.command == "HEAD" and lie in handler.path and answer(handler, 200, length=14)
    )
    assert actions(lab.run("app:1", heal=found)) == {"app:1": "copied"}
    assert held(lab)["blobs"][images.digest_of(b"a shared layer")] == b"a shared layer"


def test_an_image_that_is_not_on_the_list_any_more(lab):
    lose_layer(lab)
    report = lab.run("other:1", heal=damages(lab))
    assert actions(report) == {"other:1": "unchanged", "app:1": "copied"}
    assert damages(lab) == []


def test_no_list_at_all(lab):
    lose_layer(lab)
    assert actions(lab.run(heal=damages(lab))) == {"app:1": "copied"}
    assert lab.run(heal=[]).images == []
    with pytest.raises(HomelabError, match="no images"):
        lab.run()


def test_its_platforms_are_kept(lab):
    lab.run("app:1", platforms=["linux/amd64"])
    digest = lab.tags("app")["1"]
    lose_layer(lab)
    report = lab.run(heal=damages(lab))
    assert only(report)["digest"] == digest
    assert damages(lab) == []


@pytest.mark.parametrize("on_the_list", [True, False])
def test_what_is_pinned_by_digest(lab, on_the_list):
    digest = lab.source.tags("other")["1"]
    listed = [f"other@{digest}"] if on_the_list else []
    lab.run(f"other@{digest}")
    del held(lab, "other")["tags"]["1"]
    del held(lab, "other")["blobs"][images.digest_of(b"another layer")]
    lost = images.digest_of(b"another layer")
    damage = {"repository": place("other"), "tag": None, "digest": digest, "digests": [lost]}
    assert f"{place('other')}@{digest}" in mirrored_names(lab.state, lab.target.netloc)
    assert only(lab.run(*listed, heal=[damage]))["action"] == "copied"
    images.assert_whole(lab.target)


def test_somebody_else_s_image_is_left_alone(lab):
    images.single(lab.target, "team/own", "1", layers=(b"own layer",))
    del lab.target.repositories["team/own"]["blobs"][images.digest_of(b"own layer")]
    found = damages(lab)
    assert [one["healable"] for one in found] == [False]
    report = lab.run("app:1", heal=found)
    assert (actions(report), lab.writes()) == ({"app:1": "unchanged"}, [])


def test_the_upstream_has_moved_on(lab):
    lose_layer(lab)
    newer = images.multi(lab.source, "app", "1", layers=(b"a newer layer",))
    assert only(lab.run(heal=damages(lab)))["digest"] == newer
    assert damages(lab) == []


def test_the_upstream_is_gone(lab):
    lose_layer(lab)
    found = damages(lab)
    del lab.source.repositories["app"]
    report = lab.run(heal=found)
    assert only(report)["action"] == "failed"
    assert "upstream" in only(report)["reason"]


@pytest.mark.parametrize("wrong", ["app:1", [1], [{"repository": "a"}], [{"repository": "a", "tag": 1, "digests": []}]])
def test_what_is_no_damage(wrong):
    with pytest.raises(HomelabError, match="registry_info"):
        parse_heal(wrong)


@pytest.mark.parametrize("content", ["", "{", '{"version": 9, "target": "t", "tags": {}}', '{"version": 1}'])
def test_a_memory_that_says_nothing(tmp_path, content):
    path = tmp_path / "state.json"
    assert mirrored_names(path, "t") == frozenset()
    path.write_text(content)
    assert mirrored_names(path, "t") == frozenset()
