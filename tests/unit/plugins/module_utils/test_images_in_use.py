# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The digests that Docker and k3s tell of the images of their containers."""

from __future__ import annotations

import json

import pytest
from ansible_collections.homelab.registry.plugins.module_utils.engine import Engine
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.nodes import images_in_use as module
from ansible_collections.homelab.registry.plugins.module_utils.nodes.images_in_use import (
    docker_images_in_use,
    find_k3s,
    k3s_images_in_use,
)
from ansible_collections.homelab.registry.tests.unit.fake_engine import FakeEngine


def digest(letter):
    return "sha256:" + letter * 64


ID, INDEX, OTHER, MANIFEST, UNUSED = map(digest, "abcde")


@pytest.fixture
def fake():
    with FakeEngine() as fake:
        yield fake


def inspected(identity, *digests, **more):
    return {"Id": identity, "RepoDigests": [f"nas:5000/app@{one}" for one in digests], **more}


CASES = {
    "no containers": ([], [], set()),
    # Docker 20.10: the ID is the configuration's digest; it was pulled through a mirror and pushed elsewhere
    "classic store": ([{"Image": "app:1", "ImageID": ID}], [inspected(ID, INDEX, OTHER)], {ID, INDEX, OTHER}),
    # containerd's store: the ID is that of the index, the container's platform has a descriptor of its own
    "containerd's store": (
        [{"Image": "app:1", "ImageID": INDEX, "ImageManifestDescriptor": {"digest": MANIFEST}}],
        [inspected(INDEX, INDEX, Descriptor={"digest": INDEX})],
        {INDEX, MANIFEST},
    ),
    "by digest": ([{"Image": f"nas:5000/app@{INDEX}", "ImageID": ID}], [inspected(ID)], {ID, INDEX}),
    "removed by force": ([{"Image": ID, "ImageID": ID}], [], {ID}),
    "built here, never pushed": ([{"Image": "app", "ImageID": ID}], [{"Id": ID, "RepoDigests": None}], {ID}),
    "two of one image": ([{"Image": "a", "ImageID": ID}, {"Image": "b", "ImageID": ID}], [inspected(ID)], {ID}),
}


@pytest.mark.parametrize(("containers", "images", "expected"), CASES.values(), ids=CASES.keys())
def test_docker(fake, containers, images, expected):
    fake.listed = containers
    fake.inspected = {one["Id"]: one for one in [*images, inspected(UNUSED, UNUSED)]}
    assert set(docker_images_in_use(Engine(fake.address))) == expected
    assert "GET /containers/json?all=1" in fake.requests, "stopped ones too"


def test_no_engine(tmp_path):
    with pytest.raises(HomelabError, match="no Docker engine answers"):
        docker_images_in_use(Engine(f"unix://{tmp_path}/none"))


def crictl(containers, images):
    asked = []

    def run(arguments):
        asked.append(arguments)
        return json.dumps({"ps": {"containers": containers}, "images": {"images": images}}[arguments[0]])

    run.asked = asked
    return run


def listed(identity, *digests, tags=(), **more):
    return {"id": identity, "repoTags": list(tags), "repoDigests": [f"reg/app@{one}" for one in digests], **more}


K3S = {
    "none": ([], [listed(ID, INDEX)], set()),
    "null": (None, None, set()),
    # containerd: image and imageRef are the configuration's digest
    "by id": ([{"image": {"image": ID}, "imageRef": ID}], [listed(ID, INDEX), listed(UNUSED)], {ID, INDEX}),
    "by tag": ([{"image": {"image": "reg/app:1"}}], [listed(ID, INDEX, tags=["reg/app:1"])], {ID, INDEX}),
    "by digest": (
        [{"image": {"image": f"reg/app@{INDEX}"}, "imageRef": f"reg/app@{INDEX}", "imageId": ID}],
        [listed(ID, INDEX)],
        {ID, INDEX},
    ),
    "image gone from the store": ([{"image": {"image": ID}, "imageRef": ID}], [], {ID}),
    "pinned": ([], [listed(ID, INDEX, pinned=True), listed(UNUSED, OTHER, pinned=False)], {ID, INDEX}),
}


@pytest.mark.parametrize(("containers", "images", "expected"), K3S.values(), ids=K3S.keys())
def test_k3s(containers, images, expected):
    run = crictl(containers, images)
    assert set(k3s_images_in_use(run)) == expected
    assert ["ps", "-a", "-o", "json"] in run.asked, "exited ones too"


@pytest.mark.parametrize("answer", ["", "[]", '{"items": []}', '{"containers": ["a"]}'])
def test_an_answer_that_makes_no_sense(answer):
    with pytest.raises(HomelabError, match="no list of containers"):
        k3s_images_in_use(lambda arguments: answer)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """k3s, if at all, is in this directory."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(module, "K3S", (str(tmp_path / "hidden" / "k3s"),))
    monkeypatch.setattr(module, "K3S_DATA", str(tmp_path / "data"))
    return tmp_path


def program(path, text):
    path.parent.mkdir(exist_ok=True)
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return str(path)


def test_no_k3s_yet(place):
    assert find_k3s() is None
    assert k3s_images_in_use() == []


def test_k3s_that_is_not_in_the_path(place):
    path = program(place / "hidden" / "k3s", "")
    assert find_k3s() == path
    path = program(place / "k3s", "")
    assert find_k3s() == path


def test_data_without_a_program(place):
    (place / "data").mkdir()
    with pytest.raises(HomelabError, match="there is no k3s"):
        find_k3s()


def test_k3s_that_does_not_answer(place):
    program(place / "k3s", "echo 'connection refused' >&2; exit 1")
    with pytest.raises(HomelabError, match="k3s crictl ps failed: connection refused"):
        k3s_images_in_use()
