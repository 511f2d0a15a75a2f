# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real damage on a real registry's disk: verification says so, and healing brings the image back."""

from __future__ import annotations

import json

import pytest
from ansible_collections.homelab.registry.plugins.module_utils import cli
from ansible_collections.homelab.registry.tests.integration.real_images import Content, assert_whole
from ansible_collections.homelab.registry.tests.unit import images

LAYER = images.data("a layer of all platforms", 40_000)


@pytest.fixture
def upstream(registries):
    registry = registries.start()
    content = Content()
    images.multi(content, "team/app", "1", [LAYER])
    images.single(content, "team/tool", "1", layers=[images.data("tool")])
    content.push(registry.client())
    return registry


@pytest.fixture
def target(registries, upstream):
    return registries.start()


@pytest.fixture
def ctl(target, upstream, tmp_path, capsys):
    """Run registryctl against the target; gives code, stdout, stderr."""
    settings = {
        "registry": target.access(),
        "mirror": {
            "images": [f"{upstream.netloc}/team/{name}:1" for name in ("app", "tool")],
            "upstreams": [{"registry": upstream.netloc, "url": upstream.url}],
        },
        "host": {"container": target.name, "data_path": str(target.data), "config_path": str(target.config_dir)},
        "state_dir": str(tmp_path / "state"),
    }
    config = tmp_path / "registryctl.json"

    def run(*arguments, host=True):
        used = settings if host else {key: value for key, value in settings.items() if key != "host"}
        config.write_text(json.dumps(used))
        config.chmod(0o600)
        code = cli.main([*arguments, "--config", str(config)])
        return (code, *capsys.readouterr())

    assert run("mirror")[0] == 0
    assert_whole(target.client())  # its memory of blobs is filled
    return run


def data(registry, digest):
    algorithm, digits = digest.split(":")
    return registry.v2 / "blobs" / algorithm / digits[:2] / digits / "data"


def layer(registry):
    return data(registry, images.digest_of(LAYER))


def parts(registry):
    """Files of the image's index and of one of its platforms' manifests."""
    (repository,) = [name for name in registry.client().catalog() if name.endswith("/team/app")]
    index = registry.client().read_manifest(repository, "1")
    return {"index": data(registry, index.digest), "child": data(registry, index.children[0].digest)}


def delete_layer(target, upstream):
    layer(target).unlink()


def cut_layer(target, upstream):
    path = layer(target)
    path.write_bytes(path.read_bytes()[:100])


def empty_layer(target, upstream):
    layer(target).write_bytes(b"")


def flip_layer(target, upstream):
    path = layer(target)
    path.write_bytes(path.read_bytes()[::-1])


def delete_index(target, upstream):
    parts(target)["index"].unlink()


def spoil_child(target, upstream):
    parts(target)["child"].write_bytes(b"{}")


DAMAGES = (delete_layer, cut_layer, empty_layer, flip_layer, delete_index, spoil_child)


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_found_and_healed(ctl, target, upstream, damage):
    damage(target, upstream)
    deep = ["--deep"] if damage is flip_layer else []
    code, out, _err = ctl("verify", *deep)
    assert (code, "1 of 2 images damaged" in out) == (1, True), out
    _code, out, _err = ctl("mirror")
    assert "copied" not in out, "an ordinary run compares tags, and heals nothing"
    code, out, err = ctl("mirror", "--heal", *deep, "--dry-run")
    assert (code, "1 would copy, 1 unchanged" in out) == (0, True), out + err
    assert ctl("verify", *deep)[0] == 1, "a dry run heals nothing"
    code, out, err = ctl("mirror", "--heal", *deep)
    assert (code, "1 copied, 1 unchanged" in out) == (0, True), out + err
    assert "still damaged" not in err
    assert ctl("verify", "--deep")[0] == 0
    assert_whole(target.client())
    code, out, err = ctl("mirror", "--heal")
    assert "no mirrored image is damaged" in err


def test_without_the_directory_what_is_missing_comes_back_after_a_restart(ctl, target, upstream):
    """The server answers HEAD from its memory: only reading, or a restart, shows what is gone."""
    layer(target).unlink()
    target.restart()
    code, out, _err = ctl("verify", host=False)
    assert (code, target.url in out) == (1, True)
    code, out, err = ctl("mirror", "--heal", host=False)
    assert code == 0, out + err
    assert_whole(target.client())


def test_without_the_directory_wrong_content_stays_in_the_way_and_that_is_said(ctl, target, upstream):
    path = layer(target)
    path.write_bytes(path.read_bytes()[:100])
    target.restart()
    code, _out, err = ctl("mirror", "--heal", host=False)
    assert code == 1
    assert "in the way" in err
    assert "still damaged" in err


def test_an_image_of_ones_own_is_named_and_left(ctl, target, upstream):
    content = Content()
    images.single(content, "own/app", "1", layers=[b"own layer"])
    content.push(target.client())
    data(target, images.digest_of(b"own layer")).write_bytes(b"owx layer")
    code, out, _err = ctl("verify", "--deep")
    assert (code, "no, push it again" in out) == (1, True)
    code, _out, err = ctl("mirror", "--heal", "--deep")
    assert (code, "own/app:1" in err) == (0, True)
    assert data(target, images.digest_of(b"own layer")).read_bytes() == b"owx layer", "it may be all there is left"
