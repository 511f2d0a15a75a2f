# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Garbage collection of a real registry whose cache is in a real Redis, which survives the registry's restart."""

from __future__ import annotations

import pytest
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.oci.client import ReadOnly
from ansible_collections.homelab.registry.plugins.module_utils.storage import garbage, maintenance
from ansible_collections.homelab.registry.tests.integration.real_images import Content, assert_whole
from ansible_collections.homelab.registry.tests.integration.real_redis import PASSWORD, RealRedis
from ansible_collections.homelab.registry.tests.unit import images

DB = 3


@pytest.fixture
def redis(tmp_path):
    with RealRedis(tmp_path) as redis:
        yield redis


@pytest.fixture
def registry(registries, redis):
    registry = registries.start()  # its version decides how the address is written
    address = {"addr": redis.address} if registry.major == 2 else {"addrs": [redis.address]}
    over = {
        "storage": {"cache": {"blobdescriptor": "redis"}},
        "redis": {**address, "password": PASSWORD, "db": DB},
    }
    registry.configure(over)
    return registry


def collect(registry, home, **redis):
    return maintenance.collect(
        {"container": registry.name, "redis": redis}, registry.access(), state_dir=home / "state"
    )


def test_what_was_swept_can_be_pushed_again(registry, redis, tmp_path):
    content = Content()
    made = images.single(content, "app", "v1", layers=[images.data("layer")])
    content.push(registry.client())
    assert redis.keys(DB)
    assert registry.client().delete_manifest("app", made["digest"]).status == 202
    with redis.connect(0) as other:
        other._ask("SET", "somebody's", "else")
    report = collect(registry, tmp_path)
    assert report.blobs == 3
    assert redis.keys(DB) == []
    assert redis.keys(0) == [b"somebody's"]
    # With the old entries the layers would not be sent, and the push "succeed".
    content.push(registry.client())
    assert_whole(registry.client())


def test_a_database_that_is_not_the_registrys_alone_is_left(registry, redis, tmp_path):
    registry.client().put_blob("app", b"garbage")
    with redis.connect(DB) as other:
        other._ask("SET", "session:1", "x")
    before = redis.keys(DB)
    with pytest.raises(HomelabError, match="also holds what is not the registry's, such as 'session:1'"):
        collect(registry, tmp_path)
    assert redis.keys(DB) == before
    registry.client().put_blob("app", b"still writable")


def test_a_redis_that_does_not_answer(registry, redis, tmp_path, monkeypatch):
    registry.client().put_blob("app", b"garbage")
    with pytest.raises(HomelabError, match="cannot be asked"):
        collect(registry, tmp_path, addr="127.0.0.1:1")
    registry.client().put_blob("app", b"still writable")
    real = garbage.remove_uploads

    def dies(*args):
        redis.stop()
        return real(*args)

    monkeypatch.setattr(garbage, "remove_uploads", dies)
    # Blobs are gone of which Redis may know when it is back: writes have to wait for it.
    with pytest.raises(HomelabError, match="stays read-only, because its cache cannot be emptied"):
        collect(registry, tmp_path)
    with pytest.raises(ReadOnly):
        registry.client().put_blob("app", b"refused")
    redis.start()
    settings = ({"container": registry.name}, registry.access(), tmp_path / "state")
    assert maintenance.recover(*settings).phase == maintenance.WRITABLE
    registry.client().put_blob("app", b"writable")
    assert maintenance.recover(*settings) is None
