# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The benchmark's corpus: what a registry would serve from it is whole, and the same everywhere."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import io
import json
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCALE = 1e-5


def load():
    spec = importlib.util.spec_from_file_location("bench_corpus", ROOT / "bench" / "corpus.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    directory = tmp_path_factory.mktemp("corpus")
    return directory / "docker/registry/v2", load().make(directory, SCALE)


def blob(root, digest):
    data = (root / "blobs/sha256" / digest[7:9] / digest[7:] / "data").read_bytes()
    assert "sha256:" + hashlib.sha256(data).hexdigest() == digest
    return data


def linked(path, digest):
    return (path / digest[7:] / "link").read_text(encoding="ascii") == digest


def test_every_tag_leads_to_whole_images_of_three_platforms(corpus):
    root, summary = corpus
    assert len(summary["tags"]) == 20
    blobs = {}
    for tag, digest in summary["tags"].items():
        repository, _colon, name = tag.partition(":")
        place = root / "repositories" / repository
        assert (place / "_manifests/tags" / name / "current/link").read_text(encoding="ascii") == digest
        assert linked(place / "_manifests/revisions/sha256", digest)
        children = json.loads(blob(root, digest))["manifests"]
        assert [child["platform"].get("variant") for child in children] == [None, "v8", "v7"]
        for child in children:
            assert linked(place / "_manifests/revisions/sha256", child["digest"])
            manifest = json.loads(blob(root, child["digest"]))
            config = json.loads(blob(root, manifest["config"]["digest"]))
            assert config["architecture"] == child["platform"]["architecture"]
            assert len(config["rootfs"]["diff_ids"]) == len(manifest["layers"])
            for one in (manifest["config"], *manifest["layers"]):
                assert linked(place / "_layers/sha256", one["digest"])
                blobs[one["digest"]] = one["size"]
    assert len(blobs) == summary["blobs"]
    assert sum(blobs.values()) == summary["unique_bytes"]


def test_layers_are_the_archives_that_configs_name(corpus):
    root, summary = corpus
    index = json.loads(blob(root, summary["tags"][summary["one"]]))
    manifest = json.loads(blob(root, index["manifests"][0]["digest"]))
    config = json.loads(blob(root, manifest["config"]["digest"]))
    for layer, plain in zip(manifest["layers"], config["rootfs"]["diff_ids"]):
        data = blob(root, layer["digest"])
        assert len(data) == layer["size"]
        archive = gzip.decompress(data)
        assert "sha256:" + hashlib.sha256(archive).hexdigest() == plain
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            assert len(tar.getmembers()) == 1


def test_images_share_layers(corpus):
    _root, summary = corpus
    assert summary["unique_bytes"] < summary["repository_bytes"] < summary["tag_bytes"]


def test_the_same_bytes_everywhere(corpus, tmp_path):
    _root, summary = corpus
    assert load().make(tmp_path, SCALE) == summary
    assert summary["tags"]["node:20"] == "sha256:7ad5499db78a74c8e2b5a0405ee10e8ad3409aa61cdcf3cb0252e67a9a6ac663"


def test_a_layer_of_several_blocks_is_valid(tmp_path):
    module = load()
    plain = hashlib.sha256()
    packed = b"".join(module.gzip_stored(module.tar_of("big", 200_001), plain))
    archive = gzip.decompress(packed)
    assert hashlib.sha256(archive).hexdigest() == plain.hexdigest()
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        (member,) = tar.getmembers()
        assert member.size == 200_001
        assert len(tar.extractfile(member).read()) == 200_001
