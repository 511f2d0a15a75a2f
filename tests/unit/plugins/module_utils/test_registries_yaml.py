# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""k3s' registries.yaml: what is refused, warned about, kept, written and shown."""

from __future__ import annotations

import pytest
import yaml
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.nodes import registries_yaml
from ansible_collections.homelab.registry.plugins.module_utils.nodes.registries_yaml import (
    endpoint_fault,
    lint,
    mirrors_for,
)

PATH = "/etc/rancher/k3s/registries.yaml"
URL = "http://reg:5000"
HUB = {"docker.io": {"endpoint": [URL]}}


def plan(content, mirrors=None, configs=None, owned=None, overlap=False):
    """Plan for a file given as text, or as data; Docker Hub is wanted unless something else is."""
    mirrors = HUB if mirrors is None else mirrors
    text = content if isinstance(content, (str, type(None))) else yaml.safe_dump(content, sort_keys=False)
    data = yaml.safe_load(text or "")
    return registries_yaml.plan(text, data, PATH, mirrors=mirrors, configs=configs, owned=owned, overlap=overlap)


def after(result):
    return yaml.safe_load(result.after)


def refused(content, **wanted):
    with pytest.raises(HomelabError) as caught:
        plan(content, **wanted)
    assert "nothing was changed" in str(caught.value)
    return str(caught.value)


# --- judging -----------------------------------------------------------------------------------------------

WRONG_TYPES = {
    "the file is a list": ("- a", "the file must be a mapping, not a list"),
    "the file is text": ("text", "the file must be a mapping, not a string"),
    "mirrors is a list": ({"mirrors": ["docker.io"]}, "mirrors must be a mapping, not a list"),
    "mirrors is text": ({"mirrors": "docker.io"}, "mirrors must be a mapping, not a string"),
    "a mirror is a list": (
        {"mirrors": {"docker.io": [URL]}},
        "mirrors.docker.io must be a mapping, not a list",
    ),
    "a mirror is text": (
        {"mirrors": {"docker.io": URL}},
        "mirrors.docker.io must be a mapping, not a string",
    ),
    "endpoint is text": (
        {"mirrors": {"docker.io": {"endpoint": URL}}},
        f"mirrors.docker.io.endpoint must be a list, not a string: write it as ['{URL}']",
    ),
    "an endpoint is a mapping": (
        {"mirrors": {"docker.io": {"endpoint": [{"url": URL}]}}},
        "mirrors.docker.io.endpoint[0] must be a string, not a mapping",
    ),
    "rewrite is a list": (
        {"mirrors": {"x": {"rewrite": ["a"]}}},
        "mirrors.x.rewrite must be a mapping, not a list",
    ),
    "a rewrite is a list": (
        {"mirrors": {"x": {"rewrite": {"a": []}}}},
        "mirrors.x.rewrite.a must be a string, not a list",
    ),
    "configs is a list": ({"configs": [1]}, "configs must be a mapping, not a list"),
    "auth is text": ({"configs": {"x": {"auth": "me:pw"}}}, "configs.x.auth must be a mapping, not a string"),
    "a password is a list": (
        {"configs": {"x": {"auth": {"password": ["S3cret"]}}}},
        "configs.x.auth.password must be a string, not a list",
    ),
    "tls is a boolean": ({"configs": {"x": {"tls": True}}}, "configs.x.tls must be a mapping, not a boolean"),
    "a boolean in quotes": (
        {"configs": {"x": {"tls": {"insecure_skip_verify": "true"}}}},
        "configs.x.tls.insecure_skip_verify must be true or false, not a string",
    ),
    "a boolean as a number": (
        {"configs": {"x": {"tls": {"insecure_skip_verify": 1}}}},
        "configs.x.tls.insecure_skip_verify must be true or false, not a number",
    ),
    "a CA file is a mapping": (
        {"configs": {"x": {"tls": {"ca_file": {}}}}},
        "configs.x.tls.ca_file must be a string",
    ),
    "auths is a list": ({"auths": []}, "auths must be a mapping, not a list"),
}


@pytest.mark.parametrize(("content", "said"), WRONG_TYPES.values(), ids=WRONG_TYPES)
def test_wrong_types(content, said):
    message = refused(content)
    assert f"k3s would not start with {PATH}: " in message
    assert said in message
    assert "S3cret" not in message


def test_all_faults_are_named_at_once():
    said = refused({"mirrors": {"a": [], "b": {"endpoint": "x"}}, "configs": 1})
    assert all(part in said for part in ("mirrors.a must", "mirrors.b.endpoint must", "configs must"))


UNKNOWN_KEYS = {
    "top": ({"mirror": {}}, "mirror", "auths, configs, mirrors"),
    "mirror": ({"mirrors": {"x": {"endpoints": [URL]}}}, "mirrors.x.endpoints", "endpoint, rewrite"),
    "auth token": (
        {"configs": {"x": {"auth": {"token": "S3cret"}}}}, "configs.x.auth.token",
        "auth, identity_token, password, username",
    ),
    "tls": (
        {"configs": {"x": {"tls": {"insecure": True}}}}, "configs.x.tls.insecure",
        "ca_file, cert_file, insecure_skip_verify, key_file",
    ),
}


@pytest.mark.parametrize(("content", "path", "known"), UNKNOWN_KEYS.values(), ids=UNKNOWN_KEYS)
def test_unknown_keys_are_warned_about_and_kept(content, path, known):
    result = plan(content)
    assert result.warnings == [f"{PATH}: k3s does not know {path} and ignores it (known here: {known})"]
    assert {key: after(result)[key] for key in content if key != "mirrors"} == {
        key: content[key] for key in content if key != "mirrors"
    }
    assert set(content.get("mirrors", {})) <= set(after(result)["mirrors"])


def test_the_deprecated_section_is_named():
    assert lint({"auths": {"x": {"username": "me"}}}) == (
        [], ['"auths" is deprecated: use configs.<host:port>.auth'],
    )


@pytest.mark.parametrize(
    "content",
    [
        None,
        {},
        {"mirrors": None, "configs": None},
        {"mirrors": {"x": None}},
        {"mirrors": {"x": {"endpoint": None}}},
        {"configs": {"x": {"tls": None}}},
    ],
)
def test_empty_sections_are_fine(content):
    assert lint(content) == ([], [])


ENDPOINTS = {
    "http://reg:5000": None,
    "https://reg": None,
    "reg:5000": None,  # k3s takes it as https
    "localhost:5000": None,
    "http://reg:5000/v2/quay.io": None,
    "http://[fd00::5]:5000": None,
    "ftp://reg": "must be a URL with http:// or https://",
    "unix:///run/reg.sock": "must be a URL with http:// or https://",
    "http://": "has no host name",
    "": "has no host name",
    "http://:5000": "has no host name",
    "http://reg:port": "Port could not be cast",
    "http://reg:99999": "Port out of range",
    "http://[fd00::5:5000": "Invalid IPv6 URL",
}


@pytest.mark.parametrize(("endpoint", "fault"), ENDPOINTS.items())
def test_endpoints(endpoint, fault):
    found = endpoint_fault(endpoint)
    assert found is None if fault is None else fault in found


def test_a_bad_endpoint_of_others_is_refused():
    said = refused({"mirrors": {"quay.io": {"endpoint": ["https://good", "ftp://bad"]}}})
    assert "mirrors.quay.io.endpoint 'ftp://bad': must be a URL" in said


def test_credentials_in_an_endpoint_are_in_no_message():
    said = refused({"mirrors": {"a": {"endpoint": ["ftp://me:S3cret@x"]}, "b": {"endpoint": "http://me:S3cret@x"}}})
    assert "mirrors.a.endpoint" in said
    assert "S3cret" not in said


WRONG_WISHES = {
    "endpoint is text": (
        {"mirrors": {"docker.io": {"endpoint": URL}}},
        "mirrors.docker.io.endpoint must be a list",
    ),
    "mirror is a list": ({"mirrors": {"docker.io": [URL]}}, "mirrors.docker.io must be a mapping"),
    "bad endpoint": ({"mirrors": {"docker.io": {"endpoint": ["ftp://x"]}}}, "must be a URL"),
    "config is text": ({"configs": {"x": "me:S3cret"}}, "configs.x must be a mapping"),
    "auth is a list": ({"configs": {"x": {"auth": ["S3cret"]}}}, "configs.x.auth must be a mapping"),
}


@pytest.mark.parametrize(("wanted", "said"), WRONG_WISHES.values(), ids=WRONG_WISHES)
@pytest.mark.parametrize("content", [None, {"mirrors": {"docker.io": {"endpoint": ["https://x"]}}}])
def test_wrong_wishes(content, wanted, said):
    message = refused(content, **wanted)
    assert said in message
    assert "the wanted settings are not valid" in message
    assert "k3s_client_mirrors" in message
    assert "S3cret" not in message


@pytest.mark.parametrize("wanted", [{"quay.io": None}, {"quay.io": {}}, {"quay.io": {"endpoint": None}},
                                    {"quay.io": {"endpoint": []}}])
@pytest.mark.parametrize("owned", [{}, {"mirrors": {"quay.io": [URL]}}])
def test_a_mirror_without_endpoints_is_no_mirror(wanted, owned):
    content = {"mirrors": {"docker.io": {"endpoint": ["https://x"]}}}
    assert not plan(content, mirrors=wanted, owned=owned).changed


# --- planning: mirrors -------------------------------------------------------------------------------------


def test_a_new_file():
    result = plan(None)
    assert result.changed
    assert result.before is None
    assert result.after == (
        "# homelab.registry keeps its entries in this file up to date and leaves all others alone.\n"
        "# k3s reads it at its start only.\n"
        "mirrors:\n  docker.io:\n    endpoint:\n      - http://reg:5000\n"
    )
    assert result.owned == {"mirrors": {"docker.io": [URL]}, "configs": []}
    assert result.warnings == []


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "# only a comment\n",
        "mirrors:\nconfigs:\n",
        "mirrors: {}\n",
        "mirrors: {docker.io: }\n",
        "configs:\n  x: {auth: {username:  me}}   # mine\n",
    ],
)
def test_nothing_wanted_and_nothing_ours_changes_no_byte(text):
    result = plan(text, mirrors={})
    assert not result.changed
    assert result.after == (text or "")
    assert result.warnings == []


def test_others_survive_in_their_order_and_ours_is_asked_first():
    content = {
        "configs": {"x": {"auth": {"username": "me"}}},
        "mirrors": {
            "quay.io": {"endpoint": ["https://q"]},
            "docker.io": {"endpoint": ["https://d"], "rewrite": {"^a": "b"}},
        },
    }
    result = plan(content)
    assert list(after(result)) == ["configs", "mirrors"]
    assert list(after(result)["mirrors"]) == ["quay.io", "docker.io"]
    assert after(result)["mirrors"]["docker.io"] == {"endpoint": [URL, "https://d"], "rewrite": {"^a": "b"}}
    assert after(result)["mirrors"]["quay.io"] == content["mirrors"]["quay.io"]
    assert after(result)["configs"] == content["configs"]


def test_a_second_run_changes_nothing():
    mirrors = mirrors_for("http", "reg:5000", ["docker.io", "quay.io"])
    first = plan({"mirrors": {"*": {"endpoint": ["https://x"]}}}, mirrors)
    second = plan(first.after, mirrors, owned=first.owned)
    assert not second.changed
    assert second.after == first.after
    assert second.owned == first.owned
    assert second.warnings == []


def test_removal_leaves_others():
    content = {"mirrors": {"quay.io": {"endpoint": ["https://q"]}, "docker.io": {"endpoint": ["https://d"]}}}
    mirrors = mirrors_for("http", "reg:5000", ["docker.io", "ghcr.io"])
    first = plan(content, mirrors)
    assert after(first) != content
    removed = plan(first.after, {}, owned=first.owned)
    assert after(removed) == content
    assert removed.owned == {"mirrors": {}, "configs": []}


def test_removal_keeps_what_a_person_put_into_our_mirror():
    content = {
        "mirrors": {"docker.io": {"endpoint": [URL], "rewrite": {"^a": "b"}}, "quay.io": {"endpoint": [URL]}}
    }
    result = plan(content, {}, owned={"mirrors": {"docker.io": [URL], "quay.io": [URL]}})
    assert after(result) == {"mirrors": {"docker.io": {"endpoint": [], "rewrite": {"^a": "b"}}}}


def test_removal_does_not_touch_what_a_person_wrote():
    assert not plan({"mirrors": HUB}, {}, owned={}).changed


def test_a_changed_endpoint_replaces_the_old_one():
    content = {"mirrors": {"docker.io": {"endpoint": ["http://old:5000", "https://d"]}, "old:5000": {
        "endpoint": ["http://old:5000"]}}}
    owned = {"mirrors": {"docker.io": ["http://old:5000"], "old:5000": ["http://old:5000"]}}
    result = plan(content, mirrors_for("http", "reg:5000", ["docker.io"]), owned=owned)
    assert after(result) == {"mirrors": {
        "docker.io": {"endpoint": [URL, "https://d"]}, "reg:5000": {"endpoint": [URL]},
    }}


def test_a_rewrite_on_a_mirror_of_ours_is_warned_about():
    content = {"mirrors": {"docker.io": {"rewrite": {"^a": "b"}}, "quay.io": {"rewrite": {"^a": "b"}}}}
    (warning,) = plan(content).warnings
    assert "mirrors.docker.io.rewrite applies to our endpoint too" in warning


COMMENTS = {
    "of a person": ("# mine\nmirrors: {}\n", True),
    "indented": ("mirrors:\n  # mine\n  quay.io: {}\n", True),
    "behind a value": ("mirrors: {} # mine\n", True),
    "ours": (f"# {registries_yaml.HEADER.splitlines()[0]}\nmirrors: {{}}\n", False),
    "a hash in a value": ("mirrors: {quay.io: {endpoint: ['https://q/#a']}}\n", False),
    "none": ("mirrors: {}\n", False),
}


@pytest.mark.parametrize(("text", "warned"), COMMENTS.values(), ids=COMMENTS)
def test_lost_comments_are_told(text, warned):
    assert [("comments" in warning) for warning in plan(text).warnings] == ([True] if warned else [])


# --- planning: configs -------------------------------------------------------------------------------------


def test_configs_are_added_noted_and_removed():
    wanted = {"reg:5000": {"tls": {"ca_file": "/ca.pem"}}}
    content = {"configs": {"x": {"auth": {"username": "me", "password": "S3cret"}}}}
    first = plan(content, {}, wanted)
    assert after(first) == {"configs": {**content["configs"], **wanted}}
    assert first.owned["configs"] == ["reg:5000"]
    assert not plan(first.after, {}, wanted, first.owned).changed
    assert after(plan(first.after, {}, {}, first.owned)) == content


def test_a_changed_config_of_ours_is_replaced():
    content = {"configs": {"reg:5000": {"tls": {"insecure_skip_verify": True}}}}
    wanted = {"reg:5000": {"tls": {"ca_file": "/ca.pem"}}}
    assert after(plan(content, {}, wanted, {"configs": ["reg:5000"]})) == {"configs": wanted}


def test_a_config_of_a_person_is_merged_and_stays_theirs():
    content = {"configs": {"reg:5000": {"auth": {"username": "me"}}}}
    result = plan(content, {}, {"reg:5000": {"tls": {"ca_file": "/ca.pem"}}})
    assert after(result)["configs"]["reg:5000"] == {"auth": {"username": "me"}, "tls": {"ca_file": "/ca.pem"}}
    assert result.owned["configs"] == []


def test_an_empty_config_of_a_person_can_be_filled():
    result = plan("configs:\n  reg:5000:\n", {}, {"reg:5000": {"tls": {"ca_file": "/ca.pem"}}})
    assert after(result) == {"configs": {"reg:5000": {"tls": {"ca_file": "/ca.pem"}}}}
    assert not plan("configs:\n  reg:5000: {tls: }\n", {}, {"reg:5000": None}).changed


# --- showing -----------------------------------------------------------------------------------------------

SECRETS = {
    "password": {"configs": {"x": {"auth": {"username": "me", "password": "S3cret"}}}},
    "a password of digits": {"configs": {"x": {"auth": {"password": 53637265}}}},
    "auth": {"configs": {"x": {"auth": {"auth": "bWU6UzNjcmV0"}}}},
    "identity token": {"configs": {"x": {"auth": {"identity_token": "S3cret"}}}},
    "deprecated section": {"auths": {"x": {"password": "S3cret"}}},
    "in an endpoint": {"mirrors": {"x": {"endpoint": ["https://me:S3cret@x"]}}},
}


@pytest.mark.parametrize("content", SECRETS.values(), ids=SECRETS)
def test_secrets_are_written_but_not_shown(content):
    result = plan(content)
    for secret in ("S3cret", "53637265", "bWU6UzNjcmV0"):
        assert secret not in result.before_shown + result.after_shown + "".join(result.warnings)
        assert (secret in str(content)) == (secret in result.after)
    assert "********" in result.before_shown
    assert "********" in result.after_shown


def test_what_is_no_secret_is_shown():
    content = {"configs": {"x": {"auth": {"username": "me", "password": ""}, "tls": {"ca_file": "/ca.pem"}}}}
    assert registries_yaml.redact(content) == content
    assert "/ca.pem" in plan(content).after_shown


def test_redacting_changes_a_copy():
    content = {"configs": {"x": {"auth": {"password": "S3cret"}}}}
    registries_yaml.redact(content)
    assert content["configs"]["x"]["auth"]["password"] == "S3cret"


def test_the_note_holds_no_secret():
    result = plan(None, {}, {"reg:5000": {"auth": {"password": "S3cret"}}})
    assert "S3cret" not in str(result.owned)


# --- what makes k3s ask us ---------------------------------------------------------------------------------


def test_an_upstream_with_a_port_is_asked_for_where_its_mirror_lies():
    mirrors = mirrors_for("http", "reg:5000", ["nas:5001"])
    assert mirrors["nas:5001"] == {"endpoint": ["http://reg:5000/v2/nas_5001"]}


def test_mirrors_for_several_upstreams():
    assert mirrors_for("https", "reg:5000", ["docker.io", "quay.io", "registry.k8s.io"]) == {
        "reg:5000": {"endpoint": ["https://reg:5000"]},
        "docker.io": {"endpoint": ["https://reg:5000"]},
        "quay.io": {"endpoint": ["https://reg:5000/v2/quay.io"]},
        "registry.k8s.io": {"endpoint": ["https://reg:5000/v2/registry.k8s.io"]},
    }


def test_mirrors_for_no_upstream_still_makes_the_registry_itself_usable():
    assert mirrors_for("http", "reg:5000", []) == {"reg:5000": {"endpoint": [URL]}}


def test_mirrors_for_passes_the_lint():
    assert lint({"mirrors": mirrors_for("http", "[fd00::5]:5000", ["docker.io", "quay.io"])}) == ([], [])


def test_a_wanted_rewrite_is_refused_with_the_way_to_do_it():
    with pytest.raises(HomelabError, match="mirrors.quay.io.rewrite is not supported: give the path in the endpoint"):
        mirror = {"endpoint": ["http://r:5000"], "rewrite": {"a": "b"}}
        registries_yaml.plan(None, None, PATH, mirrors={"quay.io": mirror})


# --- while a registry changes over ------------------------------------------------------------------------------
def test_old_and_new_stand_side_by_side_until_the_end():
    first = plan(None, mirrors={"docker.io": {"endpoint": ["http://reg:5000"]}}, configs={})
    wanted = {"docker.io": {"endpoint": ["https://reg:5000"]}}
    configs = {"reg:5000": {"tls": {"ca_file": "/ca.crt"}, "auth": {"username": "a", "password": "b"}}}
    over = plan(first.after, mirrors=wanted, configs=configs, owned=first.owned, overlap=True)
    assert after(over)["mirrors"]["docker.io"]["endpoint"] == ["https://reg:5000", "http://reg:5000"]
    assert after(over)["configs"] == configs
    again = plan(over.after, mirrors=wanted, configs=configs, owned=over.owned, overlap=True)
    assert not again.changed
    end = plan(over.after, mirrors=wanted, configs=configs, owned=over.owned)
    assert after(end)["mirrors"]["docker.io"]["endpoint"] == ["https://reg:5000"]


def test_an_old_address_and_its_account_stay_until_the_end():
    configs = {"old:1": {"auth": {"username": "a", "password": "b"}}}
    first = plan(None, mirrors={"old:1": {"endpoint": ["http://old:1"]}}, configs=configs)
    wanted = {"new:1": {"endpoint": ["http://new:1"]}}
    over = plan(first.after, mirrors=wanted, configs={"new:1": configs["old:1"]}, owned=first.owned, overlap=True)
    assert set(after(over)["mirrors"]) == set(after(over)["configs"]) == {"old:1", "new:1"}
    end = plan(over.after, mirrors=wanted, configs={"new:1": configs["old:1"]}, owned=over.owned)
    assert set(after(end)["mirrors"]) == set(after(end)["configs"]) == {"new:1"}


def test_a_new_password_waits_until_the_server_knows_it():
    configs = {"reg:1": {"auth": {"username": "a", "password": "old"}}}
    first = plan(None, mirrors={}, configs=configs)
    new = {"reg:1": {"auth": {"username": "a", "password": "new"}, "tls": {"ca_file": "/ca"}}}
    over = plan(first.after, mirrors={}, configs=new, owned=first.owned, overlap=True)
    assert after(over)["configs"]["reg:1"] == {**configs["reg:1"], "tls": {"ca_file": "/ca"}}
    assert after(plan(over.after, mirrors={}, configs=new, owned=over.owned))["configs"] == new
