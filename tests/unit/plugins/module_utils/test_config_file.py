# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The server's configuration file, read without a YAML reader; PyYAML says what is right."""

from __future__ import annotations

import random

import pytest
import yaml
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.server.config import merge
from ansible_collections.homelab.registry.plugins.module_utils.server.config_file import ConfigFile
from ansible_collections.homelab.registry.plugins.module_utils.yaml_writer import dump

READ_ONLY = {"storage": {"maintenance": {"readonly": {"enabled": True}}}}
TYPICAL = {
    "version": 0.1,
    "storage": {
        "filesystem": {"rootdirectory": "/var/lib/registry"},
        "delete": {"enabled": True},
        "maintenance": {"uploadpurging": {"enabled": True, "age": "168h"}},
        "cache": {"blobdescriptor": "redis"},
    },
    "redis": {"addrs": ["cache:6379", "other:1"], "password": 'a"b# c\\ \u00e4\U0001f600', "db": 3},
    "http": {"addr": ":5000", "headers": {"X-Content-Type-Options": ["nosniff"]}},
    "notifications": {"endpoints": [{"name": "a", "url": "http://x", "headers": {"A": ["b"]}}, {"name": "b"}]},
}


def read_only(text):
    return yaml.safe_load(ConfigFile(text, "config.yml").read_only())


def test_what_site_yml_writes_is_read():
    file = ConfigFile(dump(TYPICAL, comment="ours"), "config.yml")
    assert file.driver() == "filesystem"
    assert file.get("storage", "filesystem", "rootdirectory") == "/var/lib/registry"
    assert file.get("redis", "addrs", 0) == "cache:6379"
    assert file.get("redis", "password") == TYPICAL["redis"]["password"]
    assert file.get("redis", "db") == "3"
    assert file.get("notifications", "endpoints", 1, "name") == "b"
    assert file.get("proxy", "remoteurl") is None
    assert file.keys("http") == ["addr", "headers"]
    assert file.keys("proxy") == []


@pytest.mark.parametrize(
    "maintenance",
    [
        None,
        {},
        {"uploadpurging": {"enabled": False}},
        {"readonly": None},
        {"readonly": {}},
        {"readonly": {"enabled": False}},
        {"readonly": {"enabled": True}},
        {"uploadpurging": {"age": "1h"}, "readonly": {"enabled": False}},
    ],
)
def test_read_only_is_the_same_configuration_with_writes_refused(maintenance):
    config = merge(TYPICAL, {"storage": {"maintenance": maintenance}})
    if maintenance is not None:
        config["storage"]["maintenance"] = maintenance
    wanted = merge(config, READ_ONLY)
    assert read_only(dump(config)) == wanted
    assert read_only(ConfigFile(dump(config), "config.yml").read_only()) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "storage:\n    filesystem:\n        rootdirectory: /d\n    maintenance:\n        delete:\n          age: 1h\n",
        "storage: # x\n  # y\n  filesystem: {rootdirectory: /d}\n\n  maintenance:\n    readonly: {enabled: false}\n",
        "---\nlist:\n- a: 1\n  storage: 2\n- storage:\n    x: 1\nstorage:\n  'filesystem':\n    rootdirectory: \"/\"\n",
        'storage:\n  filesystem:\n  maintenance: ~\nlog: {"level": "info"}\n',
        "log:\n  text: |\n    storage:\n      maintenance: no\nstorage:\n  filesystem:\n    rootdirectory: '/it''s'\n",
    ],
)
def test_what_people_write(text):
    before = yaml.safe_load(text)
    assert read_only(text) == merge(before, merge({"storage": {"maintenance": {}}}, READ_ONLY))
    assert ConfigFile(text, "config.yml").driver() == "filesystem"


def _random_value(rnd, depth):
    kind = rnd.random()
    if depth and kind < 0.5:
        return {rnd.choice("abcdefgh") + str(key): _random_value(rnd, depth - 1) for key in range(rnd.randint(0, 3))}
    if depth and kind < 0.7:
        return [_random_value(rnd, depth - 1) for _item in range(rnd.randint(0, 3))]
    return rnd.choice(["x", "a: b", "- c", "# d", "", None, True, 1, 1.5, "storage:", '"', "'", "x # y", "{", "\n"])


@pytest.mark.parametrize("seed", range(60))
def test_any_configuration(seed):
    rnd = random.Random(seed)
    config = {"log": _random_value(rnd, 4)}
    config["storage"] = {"filesystem": {"rootdirectory": rnd.choice(["/d", "/a b", "~"])}, "delete": {"enabled": True}}
    config["last"] = _random_value(rnd, 3)
    if rnd.random() < 0.5:
        config["storage"]["maintenance"] = {"uploadpurging": _random_value(rnd, 1)}
    text = dump(config)
    assert read_only(text) == merge(config, READ_ONLY)
    file = ConfigFile(text, "config.yml")
    assert file.get("storage", "filesystem", "rootdirectory") == config["storage"]["filesystem"]["rootdirectory"]
    for key, value in config["storage"].items():
        assert file.keys("storage", key) == list(value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("version: 0.1\n", "there is no section storage"),
        ("storage: {filesystem: {}}\n", "storage is written in a way"),
        ("storage: inmemory\n", "storage is written in a way"),
        ("storage:\n  maintenance: {readonly: {enabled: false}}\n", "storage.maintenance is written in a way"),
        ("storage:\n  maintenance:\n    readonly: *x\n", "storage.maintenance.readonly is written"),
    ],
)
def test_what_cannot_be_changed_is_left(text, said):
    with pytest.raises(HomelabError, match=said) as caught:
        ConfigFile(text, "/etc/config.yml").read_only()
    assert caught.value.where == "/etc/config.yml"


@pytest.mark.parametrize(
    ("text", "path", "said"),
    [
        ("redis: {addr: x}\n", ("redis",), "redis is written in a way"),
        ("redis:\n  addr: *x\n", ("redis", "addr"), "redis.addr is written in a way"),
    ],
)
def test_no_value_is_guessed(text, path, said):
    with pytest.raises(HomelabError, match=said):
        ConfigFile(text, "x").get(*path)


@pytest.mark.parametrize("storage", ["  delete:\n    enabled: true\n", "  s3:\n    x: 1\n  filesystem:\n    a: 1\n"])
def test_one_driver_it_is(storage):
    with pytest.raises(HomelabError, match="not clear which storage driver"):
        ConfigFile(f"storage:\n{storage}", "x").driver()
