# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""daemon.json: what is read, refused, kept, written, and when the engine follows it."""

from __future__ import annotations

import json

import pytest
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.nodes import daemon_json

PATH = "/etc/docker/daemon.json"
INSECURE, MIRRORS = daemon_json.INSECURE, daemon_json.MIRRORS
ENDPOINT, URL = "reg:5000", "http://reg:5000"


def plan(text, insecure=(ENDPOINT,), mirrors=(URL,), **more):
    if not isinstance(text, (str, type(None))):
        text = json.dumps(text, indent=2) + "\n"
    wanted = {"insecure_registries": list(insecure), "registry_mirrors": list(mirrors)}
    return daemon_json.plan(text, PATH, **wanted, **more)


def refused(text, **more):
    with pytest.raises(HomelabError) as caught:
        plan(text, **more)
    assert "nothing was changed" in str(caught.value)
    return str(caught.value)


def data(result):
    return json.loads(result.after)


# --- planning ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [None, "", " \n", "{}", "{}\n"])
def test_nothing_there_yet(text):
    result = plan(text)
    assert result.changed
    assert result.before == text
    assert result.after == (
        '{\n  "insecure-registries": [\n    "reg:5000"\n  ],\n'
        '  "registry-mirrors": [\n    "http://reg:5000"\n  ]\n}\n'
    )
    assert result.owned == {INSECURE: [ENDPOINT], MIRRORS: [URL]}
    assert result.set == {INSECURE: [ENDPOINT], MIRRORS: [URL]}
    assert result.warnings == []


@pytest.mark.parametrize("text", [None, "", "{}", '{"debug":true}', "{\n\t\"log-level\" :  \"warn\"}\n"])
def test_nothing_wanted_and_nothing_ours_changes_nothing(text):
    result = plan(text, insecure=[], mirrors=[])
    assert not result.changed
    assert result.after == (text or "")
    assert result.set == {}


def test_order_and_unknown_keys_survive():
    before = {
        "zzz-new": {"b": [1, {"c": None}], "a": 1.5},
        "live-restore": True,
        MIRRORS: ["https://x"],
        "bip": "1/8",
    }
    after = data(plan(before))
    assert list(after) == [*before, INSECURE]
    assert {key: after[key] for key in before if key != MIRRORS} == {
        key: before[key] for key in before if key != MIRRORS
    }


def test_entries_of_others_survive_ours_is_the_first_mirror():
    result = plan({INSECURE: ["nas:5000", "10.0.0.0/8"], MIRRORS: ["https://other", "https://third"]})
    assert data(result) == {
        INSECURE: ["nas:5000", "10.0.0.0/8", ENDPOINT],
        MIRRORS: [URL, "https://other", "https://third"],
    }
    assert result.owned == {INSECURE: [ENDPOINT], MIRRORS: [URL]}


def test_a_changed_endpoint_takes_the_old_one_out_and_only_that():
    before = {INSECURE: ["nas:5000", "old:5000"], MIRRORS: ["http://old:5000", "https://other"]}
    result = plan(before, owned={INSECURE: ["old:5000"], MIRRORS: ["http://old:5000"]})
    assert data(result) == {INSECURE: ["nas:5000", ENDPOINT], MIRRORS: [URL, "https://other"]}


def test_removal_writes_empty_lists_as_the_engine_needs_them():
    result = plan(
        {INSECURE: [ENDPOINT], MIRRORS: [URL], "debug": True}, insecure=[], mirrors=[],
        owned={INSECURE: [ENDPOINT], MIRRORS: [URL]},
    )
    assert data(result) == {INSECURE: [], MIRRORS: [], "debug": True}
    assert result.set == {INSECURE: [], MIRRORS: []}
    assert result.owned == {INSECURE: [], MIRRORS: []}


def test_removal_does_not_touch_what_a_person_wrote():
    before = {INSECURE: [ENDPOINT], MIRRORS: [URL]}
    result = plan(before, insecure=[], mirrors=[], owned={})
    assert not result.changed
    assert data(result) == before


def test_while_a_registry_changes_over_old_and_new_stand_side_by_side():
    old, theirs = "http://old:5000", "https://mirror.example"
    text = json.dumps({"insecure-registries": ["old:5000", "their:1"], "registry-mirrors": [old, theirs]})
    owned = {"insecure-registries": ["old:5000"], "registry-mirrors": [old]}
    over = plan(text, insecure=[], mirrors=["https://new:5000"], owned=owned, overlap=True)
    assert data(over)["registry-mirrors"] == ["https://new:5000", old, theirs]
    assert data(over)["insecure-registries"] == ["old:5000", "their:1"]
    assert not plan(over.after, insecure=[], mirrors=["https://new:5000"], owned=over.owned, overlap=True).changed
    end = plan(over.after, insecure=[], mirrors=["https://new:5000"], owned=over.owned)
    assert data(end)["registry-mirrors"] == ["https://new:5000", theirs]
    assert data(end)["insecure-registries"] == ["their:1"]


def test_an_entry_of_a_person_stays_theirs_when_we_want_it_too():
    result = plan({INSECURE: [ENDPOINT], MIRRORS: [URL]})
    assert not result.changed
    assert result.owned == {INSECURE: [], MIRRORS: []}


SPELLINGS = {
    "slash of a mirror": ({INSECURE: [ENDPOINT], MIRRORS: [URL + "/"]}, {}),
    "wanted with a slash": ({INSECURE: [ENDPOINT], MIRRORS: [URL]}, {"mirrors": [URL + "/"]}),
    "scheme of an insecure registry": ({INSECURE: [URL], MIRRORS: [URL]}, {}),
    "wanted with a scheme": ({INSECURE: [ENDPOINT], MIRRORS: [URL]}, {"insecure": [URL]}),
    "network": ({INSECURE: ["10.1.2.3/8"], MIRRORS: [URL]}, {"insecure": ["10.0.0.0/8"]}),
}


@pytest.mark.parametrize(("before", "wanted"), SPELLINGS.values(), ids=SPELLINGS)
def test_another_spelling_of_the_same_is_no_change(before, wanted):
    assert not plan(before, **wanted).changed


@pytest.mark.parametrize(
    ("before", "wanted"),
    [
        ({INSECURE: [ENDPOINT], MIRRORS: ["https://reg:5000"]}, [URL]),  # another scheme is another mirror
        ({INSECURE: [ENDPOINT], MIRRORS: ["http://reg:5001"]}, [URL]),
    ],
)
def test_another_mirror_is_a_change(before, wanted):
    assert data(plan(before, mirrors=wanted))[MIRRORS] == [*wanted, *before[MIRRORS]]


@pytest.mark.parametrize(
    "text",
    [
        '{"insecure-registries":["reg:5000"],"registry-mirrors":["http://reg:5000"]}',
        '{\n\t"registry-mirrors" : [ "http://reg:5000/" ],\n\n\t"insecure-registries": ["reg:5000"]}\n\n',
        '{"insecure-registries":["reg:5000"],"registry-mirrors":["http://reg:5000"],"labels":["k=\\u00fc"]}',
    ],
)
def test_byte_identical_when_nothing_changes(text):
    result = plan(text)
    assert result.after == text
    assert not result.changed
    assert result.set[INSECURE] == [ENDPOINT]  # still to be compared with the engine


@pytest.mark.parametrize(
    ("text", "indent"),
    [
        ('{\n    "debug": true\n}\n', "    "),
        ('{\n\t"debug": true\n}\n', "\t"),
        ('{\n "debug": true\n}\n', " "),
        ('{"debug": true}', "  "),
    ],
)
def test_indentation_is_kept(text, indent):
    lines = plan(text).after.splitlines()
    assert lines[1] == f'{indent}"debug": true,'
    assert lines[3] == f'{indent * 2}"reg:5000"'


def test_unicode_stays_readable_and_comes_through():
    result = plan({"labels": ["ort=Küche 🍳", "zeile=\u2028x"]})
    assert "Küche 🍳" in result.after
    assert data(result)["labels"] == ["ort=Küche 🍳", "zeile=\u2028x"]


def test_a_second_run_changes_nothing():
    first = plan({"debug": True, INSECURE: ["nas:5000"]})
    second = plan(first.after, owned=first.owned)
    assert not second.changed
    assert second.owned == first.owned


# --- reading -----------------------------------------------------------------------------------------------


def test_a_trailing_comma_is_named_with_its_place():
    said = refused('{\n  "debug": true,\n  "dns": ["1.1.1.1",]\n}\n')
    assert f"{PATH} is not valid JSON: a trailing comma or a comment near line 3, column " in said
    assert '"dns": ["1.1.1.1",]' in said
    assert "docker_client_repair=true" in said


def test_a_comment_is_named_with_its_place():
    said = refused('{\n  // my mirror\n  "debug": true\n}\n')
    assert "a trailing comma or a comment near line 2, column 3: '// my mirror'" in said


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{\n  "debug": true\n  "bip": "x"\n}\n', 3),
        ('{\n  "debug": true\n', 3),  # cut off: the place is behind the last line
        ("{\n", 2),
        ("debug: true\n", 1),
        ('{"a": "b\x85", c}', 1),  # Python would see two lines here
    ],
)
def test_other_bad_json_is_named_without_offering_a_repair(text, line):
    said = refused(text)
    assert f"near line {line}, column " in said
    assert "docker_client_repair" not in said
    assert "near line" in refused(text, repair=True)


@pytest.mark.parametrize(("text", "kind"), [("[]", "a list"), ('"x"', "a string"), ("1", "a number")])
def test_json_that_is_no_object(text, kind):
    with pytest.raises(HomelabError, match=f"{PATH} holds {kind}, not a JSON object"):
        plan(text)


def test_a_broken_line_with_a_password_is_not_shown_with_it():
    said = refused('{\n  "proxies": {"http-proxy": "http://me:S3cret@proxy:3128",}\n}\n')
    assert "near line 2" in said
    assert "S3cret" not in said


REPAIRS = {
    "trailing commas": ('{"dns": ["1.1.1.1",], "debug": true,}', {"dns": ["1.1.1.1"], "debug": True}),
    "spread over lines": ('{"dns": ["1.1.1.1"\n,\n],\n}', {"dns": ["1.1.1.1"]}),
    "line comment": ('{ // why\n "debug": true // not\n}', {"debug": True}),
    "block comment": ('{/* a\n , ] } */ "debug": true}', {"debug": True}),
    "comma before a comment": ('{"debug": true, // last\n}', {"debug": True}),
    "strings are left alone": (
        '{"labels": ["a=// no,]", "b=/* no */", "c=\\",}",],}',
        {"labels": ["a=// no,]", "b=/* no */", 'c=",}']},
    ),
}


@pytest.mark.parametrize(("text", "meant"), REPAIRS.values(), ids=REPAIRS)
def test_repair(text, meant):
    assert daemon_json.parse(text, PATH, repair=True) == meant
    result = plan(text, insecure=[], mirrors=[], repair=True)
    assert result.changed
    assert data(result) == meant


def test_repair_leaves_a_sound_file_alone():
    assert not plan('{"debug":true}', insecure=[], mirrors=[], repair=True).changed


# --- judging -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key", ["insecure_registries", "registry_mirrors", "insecure_registry", "registry_mirror"]
)
def test_a_misspelt_key_that_stops_dockerd_is_an_error(key):
    assert f'unknown key "{key}": the right name is "{daemon_json.MISSPELT[key]}"' in refused({key: []})


@pytest.mark.parametrize("key", ["insecure-registry", "registry-mirror"])
def test_a_misspelt_key_that_dockerd_ignores_is_a_warning(key):
    result = plan({key: ["x"]})
    assert result.changed
    assert result.warnings == [
        f'{PATH}: key "{key}" is silently ignored by dockerd: the right name is "{daemon_json.MISSPELT[key]}"'
    ]


WRONG_TYPES = {
    "string for a list": ({INSECURE: ENDPOINT}, f'"{INSECURE}" must be a list, not a string: "reg:5000"'),
    "object for a list": ({MIRRORS: {}}, f'"{MIRRORS}" must be a list, not an object: {{}}'),
    "string for a boolean": ({"debug": "true"}, '"debug" must be true or false, not a string: "true"'),
    "number for a boolean": ({"live-restore": 1}, '"live-restore" must be true or false, not a number: 1'),
    "boolean for a number": ({"mtu": True}, '"mtu" must be a number, not a boolean: true'),
    "list for an object": ({"log-opts": []}, '"log-opts" must be an object, not a list: []'),
    "number for a string": ({"log-level": 3}, '"log-level" must be a string, not a number: 3'),
    "number in our list": ({INSECURE: [5000]}, f'"{INSECURE}" entry 5000: must be a non-empty string'),
    "list in our list": ({MIRRORS: [["http://x"]]}, f'"{MIRRORS}" entry ["http://x"]: must be a string'),
}


@pytest.mark.parametrize(("before", "said"), WRONG_TYPES.values(), ids=WRONG_TYPES)
def test_wrong_types(before, said):
    message = refused(before)
    assert f"dockerd would not start with {PATH}: " in message
    assert said in message


def test_all_faults_are_named_at_once():
    said = refused({"debug": "yes", "dns": "1.1.1.1", MIRRORS: ["x:1"]})
    assert all(name in said for name in ('"debug"', '"dns"', '"x:1"'))


BAD_MIRRORS = {
    "reg:5000": "a mirror needs a scheme: http://reg:5000 or https://reg:5000",
    "reg": "a mirror needs a scheme",
    "": "a mirror needs a scheme",
    "ftp://reg:5000": "a mirror needs a scheme",
    "http://": "has no host name",
    "http://:5000": "has no host name",
    "http://reg:5000/v2": "must have no path",
    "http://reg:5000?x=1": "must have no path",
    "http://reg:port": "is not a URL",
    "http://[::1:5000": "is not a URL",
}


@pytest.mark.parametrize(("mirror", "said"), BAD_MIRRORS.items())
def test_bad_mirrors_of_others_and_of_ours(mirror, said):
    assert f'entry {json.dumps(mirror)}: {said}' in refused({MIRRORS: [mirror]})
    wanted = refused(None, mirrors=[mirror])
    assert said in wanted
    assert "the wanted settings are not valid" in wanted
    assert "docker_client_registry_mirrors" in wanted


def test_credentials_in_a_mirror_are_refused_and_not_shown():
    said = refused({MIRRORS: ["http://me:S3cret@reg:5000"]})
    assert "must not hold credentials" in said
    assert "reg:5000" in said
    assert "S3cret" not in said


@pytest.mark.parametrize(
    "entry", ["reg", ENDPOINT, URL, "https://reg:5000", "[::1]:5000", "10.0.0.0/8", "fd00::/8"]
)
def test_good_insecure_registries(entry):
    assert data(plan(None, insecure=[entry]))[INSECURE] == [entry]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("", "must be a non-empty string"),
        ("reg:5000/app", "without a path"),
        ("http://reg:5000/v2", "without a path"),
    ],
)
def test_bad_insecure_registries(entry, said):
    assert said in refused({INSECURE: [entry]})
    assert said in refused(None, insecure=[entry])


# --- flags -------------------------------------------------------------------------------------------------


def source(*argv, where="unit X"):
    return daemon_json.FlagSource(where, ["dockerd", *argv])


CONFLICTS = {
    # flags, keys of the file, flags that are named
    "--flag=value": (["--insecure-registry=x:1"], [INSECURE], {INSECURE: "--insecure-registry"}),
    "--flag value": (["--registry-mirror", "http://x"], [MIRRORS], {MIRRORS: "--registry-mirror"}),
    "given twice, told once": (["--insecure-registry=x", "--insecure-registry=y"], [INSECURE],
                               {INSECURE: "--insecure-registry"}),
    "-H": (["-H", "fd://"], ["hosts"], {"hosts": "-H"}),
    "-H with its value": (["-Hfd://"], ["hosts"], {"hosts": "-H"}),
    "--host": (["--host=fd://"], ["hosts"], {"hosts": "--host"}),
    "-H without hosts in the file": (["-H", "fd://"], [INSECURE, "debug"], {}),
    "-D": (["-D"], ["debug"], {"debug": "-D"}),
    "same name": (["--live-restore", "--mtu=1400"], ["mtu", "live-restore"],
                  {"live-restore": "--live-restore", "mtu": "--mtu"}),
    "plural in the file": (["--label", "a=b", "--storage-opt=x"], ["labels", "storage-opts"],
                           {"labels": "--label", "storage-opts": "--storage-opt"}),
    "a value is no flag": (["--log-level", "debug"], ["debug"], {}),
    "containerd's flag": (["--containerd=/run/containerd/containerd.sock"], [INSECURE], {}),
}


@pytest.mark.parametrize(("flags", "keys", "named"), CONFLICTS.values(), ids=CONFLICTS)
def test_flag_conflicts(flags, keys, named):
    found = daemon_json.flag_conflicts(dict.fromkeys(keys), [source(*flags)])
    assert found == [f'"{key}" is also set by the flag {flag} in unit X' for key, flag in named.items()]


def test_a_conflict_with_what_is_to_be_written_is_refused():
    said = refused(None, sources=[source("--insecure-registry=reg:5000", where="/etc/a.conf")])
    assert '"insecure-registries" is also set by the flag --insecure-registry in /etc/a.conf' in said
    assert "take the flag out" in said


def test_a_conflict_of_another_key_is_refused_too_since_dockerd_would_not_start():
    assert '"hosts" is also set by the flag -H' in refused({"hosts": ["fd://"]}, sources=[source("-H", "fd://")])


def test_flags_without_a_key_in_the_file_are_no_conflict():
    assert plan({"debug": True}, sources=[source("-H", "fd://", "--mtu=1400")]).changed


UNIT = """\
# /lib/systemd/system/docker.service
[Unit]
Description=Docker
# a comment
[Service]
EnvironmentFile=-/etc/default/docker
ExecStart=/usr/sbin/dockerd -H fd:// --containerd=/run/containerd/containerd.sock $DOCKER_OPTS
ExecReload=/bin/kill -s HUP $MAINPID
"""
DROP_IN = "\n# /etc/systemd/system/docker.service.d/mine.conf\n[Service]\n"
UNITS = {
    "the unit": (
        UNIT,
        {},
        [
            (
                "/lib/systemd/system/docker.service",
                ["/usr/sbin/dockerd", "-H", "fd://", "--containerd=/run/containerd/containerd.sock"],
            ),
        ],
    ),
    "its environment": (
        UNIT,
        {"DOCKER_OPTS": "--mtu 1400 --label 'a b'"},
        [
            (
                "/lib/systemd/system/docker.service",
                [
                    "/usr/sbin/dockerd",
                    "-H",
                    "fd://",
                    "--containerd=/run/containerd/containerd.sock",
                    "--mtu",
                    "1400",
                    "--label",
                    "a b",
                ],
            ),
        ],
    ),
    "drop-in that resets": (
        UNIT + DROP_IN + "ExecStart=\nExecStart=/usr/bin/dockerd ${OPTS}\n",
        {"OPTS": "-D"},
        [("/etc/systemd/system/docker.service.d/mine.conf", ["/usr/bin/dockerd", "-D"])],
    ),
    "reset with blanks": (
        UNIT + DROP_IN + "ExecStart =  \n ExecStart = /usr/bin/dockerd -D\n",
        {},
        [("/etc/systemd/system/docker.service.d/mine.conf", ["/usr/bin/dockerd", "-D"])],
    ),
    "line continuation": (
        DROP_IN + "ExecStart=-/usr/bin/dockerd \\\n  --insecure-registry=x:5000 \\\n  -D\n",
        {},
        [
            (
                "/etc/systemd/system/docker.service.d/mine.conf",
                ["/usr/bin/dockerd", "--insecure-registry=x:5000", "-D"],
            )
        ],
    ),
    "drop-in that says nothing of it": (
        DROP_IN + "LimitNOFILE=1\n# ExecStart=/usr/bin/dockerd -D\n",
        {},
        [],
    ),
    "open quote": (
        "ExecStart=/usr/bin/dockerd --label 'x -D\n",
        {},
        [("the unit", ["/usr/bin/dockerd", "--label", "'x", "-D"])],
    ),
    "no unit": ("", {}, []),
}


@pytest.mark.parametrize(("text", "environment", "found"), UNITS.values(), ids=UNITS)
def test_unit_sources(text, environment, found):
    sources = daemon_json.unit_sources(text, environment)
    assert [(source.where, source.argv) for source in sources] == found


def test_shell_variables():
    text = """\
# DOCKER_OPTS="--dns 8.8.8.8"
DOCKER_OPTS="--insecure-registry=x:5000 -D"
export HTTP_PROXY=http://proxy:3128
  OTHER='a b'
not a variable
"""
    assert daemon_json.shell_variables(text) == {
        "DOCKER_OPTS": "--insecure-registry=x:5000 -D",
        "HTTP_PROXY": "http://proxy:3128",
        "OTHER": "a b",
    }


# --- the engine --------------------------------------------------------------------------------------------


def engine(insecure=(), networks=("127.0.0.0/8", "::1/128"), mirrors=()):
    indexes = {name: {"Name": name, "Secure": False} for name in insecure}
    indexes["docker.io"] = {"Name": "docker.io", "Secure": True}
    return {
        "IndexConfigs": indexes,
        "InsecureRegistryCIDRs": list(networks),
        "Mirrors": list(mirrors) or None,
    }


EFFECTS = {
    "all in effect": (engine([ENDPOINT], mirrors=[URL + "/"]), {INSECURE: [ENDPOINT], MIRRORS: [URL]}, []),
    "nothing in effect": (
        engine(),
        {INSECURE: [ENDPOINT], MIRRORS: [URL]},
        ["reg:5000 is not taken as insecure", "mirror http://reg:5000 is not in use"],
    ),
    "spelt with a scheme": (engine([ENDPOINT]), {INSECURE: [URL]}, []),
    "still there after the removal": (
        engine([ENDPOINT], mirrors=[URL + "/"]),
        {INSECURE: [], MIRRORS: []},
        ["reg:5000 is still taken as insecure", "mirror http://reg:5000 is still in use"],
    ),
    "removed": (engine(), {INSECURE: [], MIRRORS: []}, []),
    "keys that are not in the file": (engine([ENDPOINT], mirrors=[URL]), {}, []),
    "a network": (engine(networks=["10.0.0.0/8", "127.0.0.0/8"]), {INSECURE: ["10.0.0.0/8"]}, []),
    "a network, spelt by one of its hosts": (engine(networks=["10.0.0.0/8"]), {INSECURE: ["10.1.2.3/8"]}, []),
    "a network not yet": (engine(), {INSECURE: ["10.0.0.0/8"]}, ["10.0.0.0/8 is not taken as insecure"]),
    "a network still": (
        engine(networks=["10.0.0.0/8"]),
        {INSECURE: []},
        ["10.0.0.0/8 is still taken as insecure"],
    ),
    "loopback is the engine's own": (engine(), {INSECURE: []}, []),
    "loopback named by the user": (engine(), {INSECURE: ["127.0.0.0/8"]}, []),
    "a secure index is not insecure": (
        engine(),
        {INSECURE: ["docker.io"]},
        ["docker.io is not taken as insecure"],
    ),
    "another mirror is left": (
        engine(mirrors=["https://old/", URL + "/"]),
        {MIRRORS: [URL]},
        ["mirror https://old is still in use"],
    ),
    "an engine that tells nothing": ({}, {INSECURE: [ENDPOINT]}, ["reg:5000 is not taken as insecure"]),
}


@pytest.mark.parametrize(("config", "wanted", "missing"), EFFECTS.values(), ids=EFFECTS)
def test_not_in_effect(config, wanted, missing):
    assert daemon_json.not_in_effect(config, wanted) == missing


# --- units with environments of their own -----------------------------------------------------------------------


def test_variables_of_a_unit_are_filled_in():
    unit = (
        "# /etc/systemd/system/docker.service\n"
        "[Service]\n"
        'Environment="OPTS=--debug" OTHER=1\n'
        "EnvironmentFile=-/etc/sysconfig/docker-extra\n"
        "ExecStart=/usr/bin/dockerd $OPTS ${EXTRA}\n"
    )
    assert daemon_json.environment_files(unit) == ["/etc/sysconfig/docker-extra"]
    (source,) = daemon_json.unit_sources(unit, {"EXTRA": "--mtu=1400"})
    assert source.argv == ["/usr/bin/dockerd", "--debug", "--mtu=1400"]


@pytest.mark.parametrize("key", ["debug", "insecure-registries", "registry-mirrors"])
def test_null_leaves_the_engine_s_default_and_is_no_fault(key):
    plan = daemon_json.plan(
        json.dumps({key: None}), "/etc/docker/daemon.json", insecure_registries=["r:5000"], registry_mirrors=["http://r:5000"]
    )
    assert plan.set == {"insecure-registries": ["r:5000"], "registry-mirrors": ["http://r:5000"]}


def test_explicit_spells_out_what_the_old_file_left_to_the_default():
    plan = daemon_json.plan(
        '{"debug": true, "insecure-registries": ["theirs:1"]}',
        "/etc/docker/daemon.json",
        insecure_registries=["r:5000"],
        registry_mirrors=["http://r:5000"],
    )
    undone = daemon_json.explicit(plan)
    assert json.loads(undone.after) == {"debug": True, "insecure-registries": ["theirs:1"], "registry-mirrors": []}
    assert undone.set == {"insecure-registries": ["theirs:1"], "registry-mirrors": []}
