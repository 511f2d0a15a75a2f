# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The registry server's configuration: what is refused and why, what is built, what is shown."""

from __future__ import annotations

import copy
import json

import pytest
import yaml
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.server import config, schema

VERSIONS = sorted(schema.SCHEMAS)
MINIMAL = {"version": 0.1, "storage": {"filesystem": {}}, "http": {"addr": ":5000"}}
SETTINGS = {"storage": "filesystem", "storage_root": "/var/lib/registry", "http_addr": ":5000"}


def problems(extra, major):
    """Return the problems of the minimal configuration with ``extra`` merged over it, by path."""
    return {problem.path: problem for problem in config.validate(config.merge(MINIMAL, extra), major)}


def nested(trail, value):
    """Return mappings that hold ``value`` at a trail."""
    for key in reversed(trail):
        value = {key: value}
    return value


# --- the schema itself --------------------------------------------------------------------------------------

EXAMPLES = {
    "string": "text",
    "secret": "S3CRET",
    "bool": True,
    "duration": "1h30m",
    "address": "host:5000",
    "url": "https://host:5000",
    "any": "whatever",
}


def example(kind):
    """Return a valid value of a kind, with every key the schema knows."""
    if isinstance(kind, dict):
        named = {name: example(inner) for name, inner in schema.fields(kind).items()}
        return {**named, "X-Free": example(kind["*"])} if "*" in kind else named
    if isinstance(kind, list):
        return [example(kind[0])]
    if isinstance(kind, tuple):
        return kind[0]
    return EXAMPLES.get(kind, 2**30)


def everything(major):
    """Return a configuration that uses every key of a version, but for choices of one."""
    full = example(schema.SCHEMAS[major])
    for driver in schema.STORAGE_DRIVERS[1:]:
        full["storage"].pop(driver, None)
    full["auth"] = {"htpasswd": full["auth"]["htpasswd"]}
    del full["http"]["tls"]["letsencrypt"]
    return full


@pytest.mark.parametrize("major", VERSIONS)
def test_every_known_key_is_accepted(major):
    assert config.validate(everything(major), major) == []


@pytest.mark.parametrize("major", VERSIONS)
def test_every_misspelt_key_is_reported(major):
    for place in schema.places(schema.SCHEMAS[major]):
        wrong = (*place[:-1], place[-1] + "x")
        found = problems(nested(wrong, None), major)
        assert ".".join(wrong) in found, wrong


@pytest.mark.parametrize("major", VERSIONS)
def test_every_setting_has_its_place_in_the_schema(major):
    for setting in config._SETTINGS:
        place = config._place(setting, major)
        if place and setting.name != "proxy_ttl":
            assert schema.find(schema.SCHEMAS[major], tuple(place.split("."))) is not None, setting


def test_remedies_are_for_wrong_keys_only():
    for major, remedies in schema.REMEDIES.items():
        for path in remedies:
            assert schema.find(schema.SCHEMAS[major], tuple(path.split("."))) is None, path


# --- validate: unknown keys ---------------------------------------------------------------------------------

MEANT = [
    # misspelt
    ("http.tsl", {}, "http.tls"),
    ("storage.delete.enable", True, "storage.delete.enabled"),
    ("storage.filesystem.root_directory", "/x", "storage.filesystem.rootdirectory"),
    ("storage.filesytem", {"rootdirectory": "/x"}, "storage.filesystem"),
    ("auths", {"htpasswd": {}}, "auth"),
    ("auth.htpaswd", {"realm": "r", "path": "/p"}, "auth.htpasswd"),
    ("http.Addr", ":5000", "http.addr"),
    ("health.storagedriver.treshold", 3, "health.storagedriver.threshold"),
    # misplaced
    ("tls", {"certificate": "/c", "key": "/k"}, "http.tls"),
    ("debug", {"addr": ":5001"}, "http.debug"),
    ("http.certificate", "/c", "http.tls.certificate"),
    ("cache", {"blobdescriptor": "inmemory"}, "storage.cache"),
    ("readonly", {"enabled": True}, "storage.maintenance.readonly"),
    ("rootdirectory", "/x", "storage.filesystem.rootdirectory"),
    ("storage.enabled", True, "storage.delete.enabled"),
    ("secret", "S3CRET", "http.secret"),
    # both
    ("http.clientCA", ["/ca"], "http.tls.clientcas"),
]


@pytest.mark.parametrize("major", VERSIONS)
@pytest.mark.parametrize(("path", "value", "meant"), MEANT)
def test_the_key_that_was_meant(path, value, meant, major):
    problem = problems(nested(path.split("."), value), major)[path]
    assert problem.message == f"is not a key of registry {major}"
    assert problem.suggestion == f"use {meant}"


@pytest.mark.parametrize("major", VERSIONS)
@pytest.mark.parametrize(
    ("path", "value", "suggestion"),
    [
        ("gc", {"enabled": True}, "cleanup playbook"),
        ("storage.gc", {}, "cleanup playbook"),
        ("storage.s3.sessiontoken", "S3CRET", "AWS_SESSION_TOKEN"),
        ("http.foo", 1, "remove it"),
        ("proxy.url", "https://registry.example", "remove it"),
        ("http.debug.0", 1, "remove it"),
    ],
)
def test_keys_without_a_better_one(path, value, suggestion, major):
    problem = problems(nested(path.split("."), value), major)[path]
    assert suggestion in problem.suggestion
    assert "S3CRET" not in str(problem)


@pytest.mark.parametrize(
    ("major", "path", "value", "other", "suggestion"),
    [
        (3, "redis.addr", "redis:6379", 2, "use redis.addrs, a list"),
        (2, "redis.addrs", ["redis:6379"], 3, "use redis.addr,"),
        (3, "redis.pool", {"maxidle": 1}, 2, "redis.maxidleconns"),
        (3, "storage.swift", {}, 2, "use storage.s3"),
        (3, "storage.oss", {}, 2, "use storage.s3"),
        (3, "compatibility", {"schema1": {"enabled": True}}, 2, "remove it"),
        (3, "reporting", {"newrelic": {"name": "x"}}, 2, "remove it"),
        (2, "storage.s3.forcepathstyle", True, 3, "remove it"),
        (2, "storage.cache.blobdescriptorsize", 100, 3, "remove it"),
        (2, "storage.tag", {"concurrencylimit": 8}, 3, "run registry 3"),
        (2, "storage.azure.credentials", {"type": "shared_key"}, 3, "run registry 3"),
        (2, "http.h2c", {"enabled": True}, 3, "run registry 3"),
        (2, "http.tls.clientauth", "request-client-cert", 3, "run registry 3"),
        (2, "proxy.ttl", "24h", 3, "run registry 3"),
        (2, "tags", {"maxtags": 100}, 3, "run registry 3"),
        (3, "storage.azure.accountky", "S3CRET", None, "use storage.azure.accountkey"),
    ],
)
def test_keys_of_the_other_version(major, path, value, other, suggestion):
    problem = problems(nested(path.split("."), value), major)[path]
    assert problem.message.endswith(f", only of registry {other}") == bool(other)
    assert suggestion in problem.suggestion


def test_keys_inside_lists():
    endpoint = {"name": "a", "url": "https://a/b", "header": {"Authorization": ["Bearer S3CRET"]}}
    found = problems({"notifications": {"endpoints": [endpoint]}}, 3)
    assert list(found) == ["notifications.endpoints[0].header"]
    assert found["notifications.endpoints[0].header"].suggestion == "use notifications.endpoints[0].headers"


# --- validate: values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("major", VERSIONS)
@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("http", "x", "must be a mapping, not a string"),
        ("storage.filesystem", [], "must be a mapping, not a list"),
        ("storage.delete.enabled", "true", 'must be true or false, not "true"'),
        ("storage.delete.enabled", 1, "must be true or false, not 1"),
        ("storage.delete.enabled", None, "must be true or false, not empty"),
        ("storage.filesystem.rootdirectory", 5, "must be a string, not 5"),
        ("storage.filesystem.rootdirectory", "a" * 90, None),
        ("storage.filesystem.maxthreads", True, "must be a whole number of at least 25, not true"),
        ("storage.filesystem.maxthreads", "100", 'must be a whole number of at least 25, not "100"'),
        ("storage.filesystem.maxthreads", 24, "must be a whole number of at least 25, not 24"),
        ("storage.filesystem.maxthreads", 25, None),
        ("log.level", "warning", 'must be one of error, warn, info, debug, not "warning"'),
        ("log.level", "warn", None),
        ("log.fields", {"anything": [1, {}]}, None),
        ("version", 0.2, "must be one of 0.1, not 0.2"),
        ("version", "0.1", None),
        ("http.headers", {"X-A": "b"}, "must be a list, not a string"),
        ("http.headers", {"X-A": ["b", 1]}, "must be a string, not 1"),
        ("http.headers", {"X-A": ["b"], "X-B": []}, None),
        ("http.secret", 12345, "must be a string, not a number"),
        ("storage.inmemory", None, "has more than one driver (filesystem, inmemory)"),
        *(
            (("http.draintimeout", value, None))
            for value in ("0", "0s", "30s", "1h30m", "1.5h", "100ms", "5µs")
        ),
        *(
            ("http.draintimeout", value, "must be a duration, not ")
            for value in ("30", "30 s", "1d", "-5s", "s", "", 30, 0, None, True)
        ),
        *(
            ("http.addr", value, None)
            for value in (":5000", "0.0.0.0:1", "[::1]:65535", "nas.lan:80", "/run/r.sock")
        ),
        *(
            ("http.addr", value, "must be host:port or :port, with a port from 1 to 65535, not ")
            for value in ("5000", ":0", ":65536", ":five", "host", "http://host:5000", "::1:5000", 5000, "")
        ),
        *(("http.host", value, None) for value in ("https://r:5000", "http://r", "https://r/path")),
        *(
            ("http.host", value, "must be a URL that starts with")
            for value in ("r:5000", "https://", "ftp://r", 5)
        ),
    ],
)
def test_values(path, value, message, major):
    found = problems(nested(path.split("."), value), major)
    if message is None:
        assert found == {}
    else:
        assert any(problem.message.startswith(message) for problem in found.values()), found


@pytest.mark.parametrize("major", VERSIONS)
@pytest.mark.parametrize(
    "extra",
    [
        {"http": {"secret": ["S3CRET"]}},
        {"http": {"secret": {"S3CRET": "S3CRET"}}},
        {"storage": {"s3": "S3CRET"}},
        {"storage": {"s3": {"bucket": {"secretkey": "S3CRET"}}}},
        {"storage": {"gcs": {"bucket": "b", "credentials": "S3CRET"}}},
        {"proxy": {"remoteurl": "htps://user:S3CRET@registry.example"}},
        {"health": {"http": [{"uri": "http://a", "headers": {"Authorization": "S3CRET"}}]}},
        {"pasword": "S3CRET"},
    ],
)
def test_messages_show_no_secrets(extra, major):
    found = problems(extra, major)
    assert found
    assert "S3CRET" not in " ".join(map(str, found.values()))


def test_long_values_are_cut():
    (problem,) = problems({"log": {"level": "x" * 500}}, 3).values()
    assert len(problem.message) < 120


# --- validate: keys that need each other --------------------------------------------------------------------

TLS = {"certificate": "/c", "key": "/k"}


@pytest.mark.parametrize("major", VERSIONS)
@pytest.mark.parametrize(
    ("extra", "path"),
    [
        ({"storage": {"inmemory": {}}}, "storage"),
        ({"auth": {"htpasswd": {"realm": "r", "path": "/p"}, "none": {}}}, "auth"),
        ({"auth": {"htpasswd": {"realm": "r"}}}, "auth.htpasswd.path"),
        ({"auth": {"htpasswd": {"realm": "r", "path": "/p"}}}, None),
        ({"http": {"tls": TLS}}, None),
        ({"http": {"tls": {}}}, None),
        ({"http": {"tls": {"certificate": "/c"}}}, "http.tls.key"),
        ({"http": {"tls": {"key": "/k"}}}, "http.tls.certificate"),
        ({"http": {"tls": {"minimumtls": "tls1.3"}}}, "http.tls.certificate"),
        ({"http": {"tls": {"letsencrypt": {"cachefile": "/a"}}}}, None),
        ({"http": {"tls": {**TLS, "letsencrypt": {"cachefile": "/a"}}}}, "http.tls.letsencrypt"),
        ({"http": {"debug": {"prometheus": {"enabled": True}}}}, "http.debug.addr"),
        ({"storage": {"cache": {"blobdescriptor": "redis"}}}, "storage.cache.blobdescriptor"),
        ({"storage": {"cache": {"layerinfo": "redis"}}}, "storage.cache.blobdescriptor"),
        ({"storage": {"cache": {"blobdescriptor": "inmemory"}}}, None),
        ({"storage": {"redirect": {}}}, "storage.redirect.disable"),
        ({"storage": {"redirect": None}}, "storage.redirect.disable"),
        ({"storage": {"maintenance": {"readonly": None}}}, "storage.maintenance.readonly.enabled"),
        ({"storage": {"maintenance": {"uploadpurging": {"enabled": False}}}}, None),
        (
            {"storage": {"maintenance": {"uploadpurging": {"age": "1h", "interval": "1h"}}}},
            "storage.maintenance.uploadpurging.dryrun",
        ),
        ({"proxy": {"username": "u"}}, "proxy.remoteurl"),
    ],
)
def test_rules(extra, path, major):
    assert list(problems(extra, major)) == ([path] if path else [])


@pytest.mark.parametrize(
    ("major", "options", "paths"),
    [
        (2, {"rootcertbundle": "/b"}, []),
        (2, {}, ["auth.token.rootcertbundle"]),
        (3, {"rootcertbundle": "/b"}, []),
        (3, {"jwks": "/j"}, []),
        (3, {}, ["auth.token"]),
    ],
)
def test_token_keys(major, options, paths):
    token = {"realm": "https://a/token", "service": "s", "issuer": "i", **options}
    assert list(problems({"auth": {"token": token}}, major)) == paths


@pytest.mark.parametrize("major", VERSIONS)
@pytest.mark.parametrize(
    ("data", "paths"),
    [
        ({}, ["version", "http.addr", "storage"]),
        (None, ["version", "http.addr", "storage"]),
        ({"version": 0.1, "storage": None, "http": None}, ["http.addr", "storage"]),
        ([], ["the configuration"]),
        ({"version": 0.1, "storage": {}, "http": {}}, ["http.addr", "storage"]),
        ({"version": 0.1, "storage": {"delete": {"enabled": True}}, "http": {"addr": ":5000"}}, ["storage"]),
    ],
)
def test_what_must_be_there(data, paths, major):
    assert [problem.path for problem in config.validate(data, major)] == paths


def test_unsupported_version():
    with pytest.raises(HomelabError, match="registry version 4 is not supported.*2 or 3"):
        config.validate(MINIMAL, 4)


# --- render -------------------------------------------------------------------------------------------------

FULL = {
    "log_level": "debug",
    "log_format": "json",
    "access_log": False,
    "storage": "filesystem",
    "storage_root": "/var/lib/registry",
    "storage_max_threads": 50,
    "storage_s3": {"bucket": "ignored: another driver is chosen"},
    "storage_redirect": False,
    "delete_enabled": True,
    "upload_purging_enabled": True,
    "upload_purging_age": "100h",
    "readonly": False,
    "cache": "inmemory",
    "cache_size": 5000,
    "redis_addr": "ignored: no redis cache",
    "redis_db": 0,
    "auth": "htpasswd",
    "auth_realm": "Registry",
    "auth_htpasswd": "/auth/htpasswd",
    "http_addr": ":5000",
    "http_host": "https://registry.lan:5000",
    "http_relativeurls": False,
    "http_secret": "S3CRET",
    "http_headers": {"X-Content-Type-Options": ["nosniff"]},
    "drain_timeout": "20s",
    "tls_enabled": True,
    "tls_certificate": "/certs/registry.crt",
    "tls_key": "/certs/registry.key",
    "tls_minimum": "tls1.2",
    "tls_client_cas": [],
    "debug_enabled": True,
    "debug_addr": ":5001",
    "metrics_path": "/metrics",
    "health_storage_enabled": True,
    "health_storage_interval": "10s",
    "health_storage_threshold": 3,
    "proxy_remoteurl": "",
    "config_extra": {"log": {"fields": {"service": "registry"}}},
}

RENDERED = """
version: 0.1
log:
  level: debug
  formatter: json
  accesslog: {disabled: true}
  fields: {service: registry}
storage:
  filesystem: {rootdirectory: /var/lib/registry, maxthreads: 50}
  redirect: {disable: true}
  delete: {enabled: true}
  maintenance:
    uploadpurging: {enabled: true, age: 100h, interval: 24h, dryrun: false}
    readonly: {enabled: false}
  cache: {blobdescriptor: inmemory, blobdescriptorsize: 5000}
auth:
  htpasswd: {realm: Registry, path: /auth/htpasswd}
http:
  addr: ":5000"
  host: https://registry.lan:5000
  relativeurls: false
  secret: S3CRET
  headers: {X-Content-Type-Options: [nosniff]}
  draintimeout: 20s
  tls: {certificate: /certs/registry.crt, key: /certs/registry.key, minimumtls: tls1.2}
  debug:
    addr: ":5001"
    prometheus: {enabled: true, path: /metrics}
health:
  storagedriver: {enabled: true, interval: 10s, threshold: 3}
"""


@pytest.mark.parametrize("major", VERSIONS)
def test_render_full(major):
    before = copy.deepcopy(FULL)
    wanted = yaml.safe_load(RENDERED)
    if major == 2:
        del wanted["storage"]["cache"]["blobdescriptorsize"]
    rendered = config.render(FULL, major)
    assert rendered == wanted
    assert before == FULL
    assert yaml.safe_load(config.to_yaml(rendered, "Managed by Ansible")) == rendered


@pytest.mark.parametrize("major", VERSIONS)
def test_render_leaves_the_servers_defaults(major):
    rendered = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": "/var/lib/registry"}},
        "http": {"addr": ":5000"},
    }
    assert config.render(SETTINGS, major) == rendered
    empty = {name: None for name in FULL if name not in SETTINGS}
    switched_off = {"cache": "none", "auth": "none", "tls_enabled": False, "debug_enabled": False}
    assert config.render({**empty, **switched_off, **SETTINGS}, major) == rendered


@pytest.mark.parametrize(
    ("settings", "major", "path", "value"),
    [
        ({"cache": "redis", "redis_addr": "r:6379", "redis_db": 1}, 2, "redis", {"addr": "r:6379", "db": 1}),
        (
            {"cache": "redis", "redis_addr": "r:6379", "redis_db": 1},
            3,
            "redis",
            {"addrs": ["r:6379"], "db": 1},
        ),
        ({"redis_addr": "r:6379", "redis_password": "S3CRET"}, 3, "redis", None),
        (
            {"storage": "s3", "storage_s3": {"bucket": "b", "region": "r"}},
            2,
            "storage",
            {"s3": {"bucket": "b", "region": "r"}},
        ),
        ({"storage": "gcs", "storage_gcs": {"bucket": "b"}}, 3, "storage", {"gcs": {"bucket": "b"}}),
        ({"storage": "inmemory"}, 3, "storage", {"inmemory": {}}),
        (
            {"upload_purging_enabled": False},
            2,
            "storage.maintenance.uploadpurging",
            {"enabled": False, "age": "168h", "interval": "24h", "dryrun": False},
        ),
        ({"upload_purging_interval": "1h"}, 2, "storage.maintenance.uploadpurging.age", "168h"),
        (
            {"debug_enabled": True, "debug_addr": ":5001", "metrics_path": ""},
            3,
            "http.debug",
            {"addr": ":5001"},
        ),
        ({"debug_enabled": False, "debug_addr": ":5001", "metrics_path": "/m"}, 3, "http.debug", None),
        ({"readonly": True}, 2, "storage.maintenance.readonly", {"enabled": True}),
        ({"access_log": True}, 2, "log.accesslog.disabled", False),
        (
            {"proxy_remoteurl": "https://registry.example", "proxy_ttl": "0s"},
            3,
            "proxy",
            {"remoteurl": "https://registry.example", "ttl": "0s"},
        ),
        (
            {"config_extra": {"storage": {"delete": {"enabled": True}}}, "delete_enabled": False},
            3,
            "storage.delete.enabled",
            True,
        ),
        (
            {
                "config_extra": {"http": {"headers": {"X-A": ["2"]}}},
                "http_headers": {"X-A": ["1"], "X-B": ["1"]},
            },
            3,
            "http.headers",
            {"X-A": ["2"], "X-B": ["1"]},
        ),
        ({"config_extra": None}, 3, "log", None),
    ],
)
def test_render(settings, major, path, value):
    assert config._get(config.render({**SETTINGS, **settings}, major), path) == value


@pytest.mark.parametrize(
    ("settings", "where", "text"),
    [
        (
            {"http_addr": ":70000"},
            "registry_bind_address, registry_port",
            'http.addr must be .* not ":70000"',
        ),
        ({"http_addr": None}, "registry_bind_address, registry_port", "http.addr is missing"),
        (
            {"http_addr": "", "http_secret": "S3CRET"},
            "registry_bind_address, registry_port",
            "http.addr is missing",
        ),
        ({"drain_timeout": "20"}, "registry_drain_timeout", 'must be a duration, not "20"'),
        ({"delete_enabled": "yes"}, "registry_delete_enabled", 'must be true or false, not "yes"'),
        ({"access_log": "no"}, "registry_access_log", 'must be true or false, not "no"'),
        ({"debug_enabled": "yes"}, "registry_debug_enabled", "must be true or false, not a string"),
        (
            {"debug_enabled": True, "metrics_path": "/m"},
            "registry_debug_bind_address, registry_debug_port",
            "http.debug.addr is missing",
        ),
        ({"tls_enabled": True, "tls_certificate": "/c"}, "registry_tls_key", "http.tls.key is missing"),
        (
            {"storage": "s4"},
            "registry_storage",
            "storage.s4 is not a key.*known here: filesystem, inmemory, s3,",
        ),
        ({"storage": ["s3"]}, "registry_storage", "must be a string, not a list"),
        ({"storage": None, "storage_root": None}, "registry_storage", "storage has no driver"),
        (
            {"storage": "s3", "storage_s3": {"region": "r"}},
            "registry_storage_s3",
            "storage.s3.bucket is missing",
        ),
        (
            {"storage": "s3", "storage_s3": {"bucket": "b"}},
            "registry_storage_s3",
            "storage.s3.region is missing",
        ),
        (
            {"storage": "azure", "storage_azure": {"accountname": "a"}},
            "registry_storage_azure",
            "container is missing",
        ),
        ({"storage": "gcs"}, "registry_storage_gcs", "storage.gcs.bucket is missing"),
        ({"storage_max_threads": 5}, "registry_storage_max_threads", "at least 25, not 5"),
        ({"cache": "memory"}, "registry_cache", "must be one of inmemory, redis"),
        ({"cache": "redis"}, "registry_cache", "there is no redis .*: set redis.addrs"),
        ({"cache": "redis", "redis_db": 1}, "registry_redis_addr", "redis.addrs is missing"),
        ({"cache": "redis", "redis_addr": "r"}, "registry_redis_addr", "must be host:port"),
        ({"auth": "htpasswd", "auth_realm": "r"}, "registry_auth_htpasswd", "auth.htpasswd.path is missing"),
        (
            {"auth": "ldap"},
            "registry_auth",
            "auth.ldap is not a key.*known here: htpasswd, silly, none, token",
        ),
        ({"log_levl": "info"}, "registry_log_levl", "no such setting .*use registry_log_level"),
        ({"config_extra": ["x"]}, "registry_config_extra", "must be a mapping, not a list"),
        (
            {"config_extra": {"http": {"tsl": {}}}},
            "registry_config_extra",
            "http.tsl is not a key.*use http.tls",
        ),
        (
            {"config_extra": {"storage": {"delete": {"enable": True}}}, "delete_enabled": True},
            "registry_config_extra",
            "use",
        ),
        ({"config_extra": {"storage": {"inmemory": {}}}}, "registry_config_extra", "more than one driver"),
        ({"config_extra": {"http": {"addr": 5}}}, "registry_config_extra", "http.addr must be"),
        (
            {"config_extra": {"health": {"tcp": [{"addr": "x"}]}}},
            "registry_config_extra",
            r"health.tcp\[0\].addr must be",
        ),
        ({"config_extra": {"catalog": {"maxentries": 0}}}, "registry_config_extra", "at least 1, not 0"),
    ],
)
def test_render_names_the_variable(settings, where, text):
    with pytest.raises(HomelabError, match=text) as caught:
        config.render({**SETTINGS, **settings}, 3)
    assert caught.value.where == where
    assert "S3CRET" not in str(caught.value)


def test_render_on_the_wrong_version():
    with pytest.raises(HomelabError, match="proxy.ttl is not a key of registry 2.*run registry 3") as caught:
        config.render({**SETTINGS, "proxy_remoteurl": "https://quay.io", "proxy_ttl": "24h"}, 2)
    assert caught.value.where == "registry_proxy_ttl"


def test_render_lists_every_problem():
    settings = {
        **SETTINGS,
        "http_addr": ":0",
        "log_level": "loud",
        "config_extra": {"gc": {}, "log": {"levl": 1}},
    }
    with pytest.raises(HomelabError) as caught:
        config.render(settings, 3)
    assert (
        caught.value.where
        == "registry_log_level, registry_config_extra, registry_bind_address, registry_port"
    )
    text = str(caught.value)
    assert text.startswith("the registry's configuration has 4 problems: (1) ")
    for part in (
        'error, warn, info, debug, not "loud" (registry_log_level): use one of these',
        "log.levl is not a key of registry 3 (registry_config_extra): use log.level",
        "gc is not a key of registry 3 (registry_config_extra)",
        'not ":0" (registry_bind_address, registry_port)',
    ):
        assert part in text


def test_merge_leaves_its_arguments_alone():
    base, over = {"a": {"b": [1], "c": 1}}, {"a": {"b": [2]}, "d": {"e": [3]}}
    merged = config.merge(base, over)
    merged["d"]["e"].append(4)
    merged["a"]["b"].append(4)
    assert merged == {"a": {"b": [2, 4], "c": 1}, "d": {"e": [3, 4]}}
    assert (base, over) == ({"a": {"b": [1], "c": 1}}, {"a": {"b": [2]}, "d": {"e": [3]}})


# --- redact, to_yaml, digest --------------------------------------------------------------------------------


@pytest.mark.parametrize("major", VERSIONS)
def test_redact_hides_every_secret_and_nothing_else(major):
    full = example(schema.SCHEMAS[major])
    shown = config.redact(full)
    assert "S3CRET" in json.dumps(full)
    assert json.dumps(shown) == json.dumps(full).replace("S3CRET", config.MASK)


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        ({"http": {"secret": "x", "addr": ":5000"}}, {"http": {"secret": "********", "addr": ":5000"}}),
        ({"http": {"tls": {"key": "/k"}}}, {"http": {"tls": {"key": "/k"}}}),
        (
            {"redis": {"password": "x", "db": 1, "addr": "r:1"}},
            {"redis": {"password": "********", "db": 1, "addr": "r:1"}},
        ),
        (
            {"notifications": {"endpoints": [{"name": "a", "headers": {"Authorization": ["Bearer x"]}}]}},
            {"notifications": {"endpoints": [{"name": "a", "headers": {"Authorization": ["********"]}}]}},
        ),
        ({"http": {"headers": {"X-A": ["b"]}}}, {"http": {"headers": {"X-A": ["b"]}}}),
        (
            {"storage": {"gcs": {"keyfile": "/k", "credentials": {"private_key": "x"}}}},
            {"storage": {"gcs": {"keyfile": "/k", "credentials": {"private_key": "********"}}}},
        ),
        (
            {"proxy": {"remoteurl": "https://u:x@quay.io/a"}},
            {"proxy": {"remoteurl": "https://********@quay.io/a"}},
        ),
        ({"storage": {"inmemory": None}}, {"storage": {"inmemory": None}}),
        # What the schema does not know stays hidden: it may be a secret in the wrong place.
        ({"storage": {"s3": {"sessiontoken": "x"}}}, {"storage": {"s3": {"sessiontoken": "********"}}}),
        ({"secret": {"a": "x"}}, {"secret": "********"}),
        ({"storage": {"s3": "x"}}, {"storage": {"s3": "********"}}),
        ({"http": {"addr": ["x"]}}, {"http": {"addr": "********"}}),
    ],
)
def test_redact(data, shown):
    before = copy.deepcopy(data)
    assert config.redact(data) == shown
    assert data == before


def test_redact_copies_deeply():
    data = {"log": {"fields": {"a": [1]}}}
    config.redact(data)["log"]["fields"]["a"].append(2)
    assert data == {"log": {"fields": {"a": [1]}}}


def test_to_yaml():
    assert config.to_yaml(MINIMAL, "Managed") == (
        '# Managed\nversion: 0.1\nstorage:\n  filesystem: {}\nhttp:\n  addr: ":5000"\n'
    )


def test_digest():
    assert config.digest("") == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


# --- which server -------------------------------------------------------------------------------------------

VERSION_LABEL = "org.opencontainers.image.version"


@pytest.mark.parametrize(
    ("image", "major"),
    [
        ({"Entrypoint": ["/entrypoint.sh"], "Cmd": ["/etc/docker/registry/config.yml"], "Labels": None}, 2),
        ({"Entrypoint": ["/bin/registry"], "Cmd": ["serve", "/etc/docker/registry/config.yml"]}, 2),
        ({"Entrypoint": ["/entrypoint.sh"], "Cmd": ["/etc/distribution/config.yml"]}, 3),
        ({"Entrypoint": ["registry", "serve", "/etc/distribution/config.yml"], "Cmd": None}, 3),
        ({"Cmd": ["/etc/distribution/config.yml"], "Labels": {VERSION_LABEL: "2.8.3"}}, 3),
        ({"Cmd": ["serve"], "Labels": {VERSION_LABEL: "2.8.3"}}, 2),
        ({"Cmd": ["serve"], "Labels": {VERSION_LABEL: "v3.1.1"}}, 3),
        ({"Cmd": ["serve"], "Labels": {VERSION_LABEL: "22.04"}}, None),
        ({"Cmd": ["serve"], "Labels": {VERSION_LABEL: "edge"}}, None),
        ({"Cmd": ["serve"], "Labels": {"other": "3.1.1"}}, None),
        ({}, None),
        (None, None),
    ],
)
def test_detect_major(image, major):
    assert config.detect_major({"Config": image}) == major


def test_config_path():
    assert config.config_path(2) == "/etc/docker/registry/config.yml"
    assert config.config_path(3) == "/etc/distribution/config.yml"
    with pytest.raises(HomelabError, match="registry version 1 is not supported"):
        config.config_path(1)
