# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which images and tags a list means: words, versions, ranges, newest, and what is refused."""

from __future__ import annotations

import datetime
import random

import pytest
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.mirroring.selection import parse_images
from ansible_collections.homelab.registry.plugins.module_utils.mirroring.tags import (
    Selection,
    parse_range,
    parse_tags,
)
from ansible_collections.homelab.registry.plugins.module_utils.oci.versions import newest_first, parse_version

DIGEST = "sha256:" + "a1" * 32


# --- versions -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("tag", "numbers", "pre_release", "rest"),
    [
        ("v1.2.3", (1, 2, 3), (), (0, "", "")),
        ("1.2", (1, 2), (), (0, "", "")),
        ("20-alpine", (20,), (), (0, "-alpine", "")),
        ("1.2.3-alpine3.19", (1, 2, 3), (), (0, "-alpine3.19", "")),
        ("15.4-bookworm", (15, 4), (), (0, "-bookworm", "")),
        ("1.2.3.Final", (1, 2, 3), (), (0, ".Final", "")),
        ("4.0.9.2244-ls240", (4, 0, 9, 2244), (), (0, "-ls240", "")),
        ("1.2.3-rc.1", (1, 2, 3), ("rc", 1), (0, "", "")),
        ("1.2.3-RC1", (1, 2, 3), ("rc", 1), (0, "", "")),
        ("1.2.3-beta", (1, 2, 3), ("beta",), (0, "", "")),
        ("1.2.3-rc1-alpine", (1, 2, 3), ("rc", 1), (0, "-alpine", "")),
        ("1.2.3-alpine-rc1", (1, 2, 3), ("rc", 1), (0, "-alpine", "")),
        ("3-dev", (3,), ("dev",), (0, "", "")),
        ("1.2.3-M3", (1, 2, 3), ("m", 3), (0, "", "")),
        ("21-ea-10", (21,), ("ea", 10), (0, "", "")),
        ("3.13.0b1-slim", (3, 13, 0), ("beta", 1), (0, "-slim", "")),
        ("1.0-early", (1, 0), (), (0, "-early", "")),  # begins with ea, but is another word
        ("1.0-main", (1, 0), (), (0, "-main", "")),
        ("1.2.3-4", (1, 2, 3), (), (4, "", "")),
        ("1.2.3-4-gabcdef", (1, 2, 3), (), (4, "-gabcdef", "")),
        ("1.2.3_5", (1, 2, 3), (), (0, "", "5")),
        ("2024.12.3", (2024, 12, 3), (), (0, "", "")),
    ],
)
def test_versions(tag, numbers, pre_release, rest):
    version = parse_version(tag)
    assert (version.numbers, version.pre_release) == (numbers, pre_release)
    assert (version.revision, version.variant, version.metadata) == rest
    assert not version.is_date


@pytest.mark.parametrize(
    "tag", ["2024-01-05", "20240105", "2024-01", "2024-01-05-slim", "RELEASE.2024-01-05T22-17-24Z"]
)
def test_dates(tag):
    version = parse_version(tag)
    assert version.is_date
    assert version.numbers[:2] == (2024, 1)


@pytest.mark.parametrize("tag", ["latest", "edge", "sha-1a2b3c4", "7e3f", "1a2b", "1234567", "1.2.3foo", "alpine3.20"])
def test_no_versions(tag):
    assert parse_version(tag) is None


@pytest.mark.parametrize(
    "oldest_first",
    [
        ["1.2.3-alpha", "1.2.3-alpha.1", "1.2.3-beta.2", "1.2.3-beta.11", "1.2.3-rc.1", "1.2.3", "1.2.4"],
        ["1.9", "1.10", "v1.11", "2"],
        ["1.2", "1.2.0", "1.2.0.1", "1.2.1"],
        ["1.2.3", "1.2.3_1", "1.2.3-alpine3.9", "1.2.3-alpine3.10", "1.2.3-2"],
        ["v1.30.2-rc1-k3s1", "v1.30.2-k3s1", "v1.30.2-k3s2", "v1.30.10-k3s1"],
        ["edge", "jammy-20240111", "jammy-20240911", "latest", "20230901", "2024-01-05", "3.19", "3.20"],
        ["RELEASE.2024-01-05T22-17-24Z", "RELEASE.2024-01-05T23-00-00Z", "RELEASE.2024-11-07T00-52-20Z"],
    ],
)
def test_order(oldest_first):
    tags = list(oldest_first)
    random.Random(1).shuffle(tags)
    assert newest_first(tags) == oldest_first[::-1]


# --- ranges -------------------------------------------------------------------------------------------------
VERSIONS = ["0.0.3", "0.2.3", "0.3.0", "1.2.0-rc.1", "1.2.0", "1.2.9", "1.3.1", "1.4.5"]
VERSIONS += ["2.0.0-rc.1", "2.0.0", "2.1.0", "3.0.0"]


@pytest.mark.parametrize(
    ("text", "taken"),
    [
        ("*", "0.0.3 0.2.3 0.3.0 1.2.0 1.2.9 1.3.1 1.4.5 2.0.0 2.1.0 3.0.0"),
        ("x", "0.0.3 0.2.3 0.3.0 1.2.0 1.2.9 1.3.1 1.4.5 2.0.0 2.1.0 3.0.0"),
        (">=1.2 <2", "1.2.0 1.2.9 1.3.1 1.4.5"),
        (">= 1.2,<2", "1.2.0 1.2.9 1.3.1 1.4.5"),
        ("^1.2", "1.2.0 1.2.9 1.3.1 1.4.5"),
        ("^v1.3.0", "1.3.1 1.4.5"),
        ("^0.2.1", "0.2.3"),
        ("^0.0.3", "0.0.3"),
        ("^0.0", "0.0.3"),
        ("^0", "0.0.3 0.2.3 0.3.0"),
        ("~1.2.3", "1.2.9"),
        ("~1.2", "1.2.0 1.2.9"),
        ("~>1", "1.2.0 1.2.9 1.3.1 1.4.5"),
        ("1", "1.2.0 1.2.9 1.3.1 1.4.5"),
        ("1.2.x", "1.2.0 1.2.9"),
        ("=1.2.*", "1.2.0 1.2.9"),
        ("1.2.0", "1.2.0"),
        ("==1.2.0", "1.2.0"),
        (">1.2", "1.3.1 1.4.5 2.0.0 2.1.0 3.0.0"),
        (">1.2.0 <=1.4.5", "1.2.9 1.3.1 1.4.5"),
        (">=1 <=2", "1.2.0 1.2.9 1.3.1 1.4.5 2.0.0 2.1.0"),
        ("1.2 - 1.3", "1.2.0 1.2.9 1.3.1"),
        ("1.2.9 - 2.0.0", "1.2.9 1.3.1 1.4.5 2.0.0"),
        ("^1 !=1.3.1 !=1.2", "1.4.5"),
        ("~1.2 || ^3", "1.2.0 1.2.9 3.0.0"),
        (">=1.2.0-beta <2.0.0", "1.2.0-rc.1 1.2.0 1.2.9 1.3.1 1.4.5"),
        (">=2.0.0-rc.1", "2.0.0-rc.1 2.0.0 2.1.0 3.0.0"),
        ("<*", ""),
    ],
)
def test_ranges(text, taken):
    wanted = parse_range(text)
    assert [tag for tag in VERSIONS if wanted.contains(parse_version(tag))] == taken.split()


def test_a_fourth_number_is_another_version():
    versions = ["1.2.3", "1.2.3.4", "1.2.4"]
    assert [tag for tag in versions if parse_range("1.2.3").contains(parse_version(tag))] == ["1.2.3"]
    assert [tag for tag in versions if parse_range("!=1.2.3").contains(parse_version(tag))] == ["1.2.3.4", "1.2.4"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        (" ", "is empty"),
        (1.2, "1.2, which is not text: put it in quotes"),
        (">=1.2 <", "position 7: no version comes after '<'"),
        (">=1.2 <abc", "position 8: 'abc' is not a version"),
        (">=>1", "position 1: no version comes after '>=>1'"),
        ("^1 || ", "position 6: there is nothing on one side"),
        ("|| ^1", "position 1: there is nothing on one side"),
        ("^1 || ^ || 2", "position 7: no version"),
        (",", "position 1: it is empty"),
        ("1.2 -", "position 5: a hyphen"),
        ("1 2 - 3", "position 5: a hyphen"),
        (">1 - 3", "position 4: a hyphen"),
        ("1.2-1.4", "position 1: '1.2-1.4' is not a version"),
        ("x.2", "position 1"),
        ("1.*.3", "position 1"),
        ("1..2", "position 1"),
        (".1", "position 1"),
        (">=20-alpine", "position 3: '20-alpine' ends in 'alpine', .*put a variant into suffix"),
        ("latest", "'latest' is not a version"),
    ],
)
def test_ranges_that_are_none(text, said):
    with pytest.raises(HomelabError, match=said):
        parse_range(text)


# --- tags ---------------------------------------------------------------------------------------------------
NODE = (
    "latest lts edge sha-1a2b3c4 bookworm 20 20.1 20.1.0 20.1.1 20-alpine 20.1.1-alpine 20.1.1-alpine3.19 22 22.0 "
    "22.0.0 22.0.0-alpine 22.1.0 22.1.0-rc.1 22.1.0-alpine 23.0.0-rc.2 23.0.0-nightly 20240105 1234567 "
    f"sha256-{'a1' * 32}.sig"
).split()


@pytest.mark.parametrize(
    ("tags", "chosen", "missing"),
    [
        (["22", "20-alpine"], "22 20-alpine", ""),
        ("22, latest 20", "22 latest 20", ""),
        ([20, 22], "20 22", ""),
        (["22.0*", "lts"], "lts 22.0.0-alpine 22.0.0 22.0", ""),
        ("2?", "22 20", ""),
        ({"glob": "22.[01].0"}, "22.1.0 22.0.0", ""),
        ({"glob": ["lts", "nothing"]}, "lts", ""),
        ({"regex": r"2[0-9]\.[0-9]\.[0-9]"}, "22.1.0 22.0.0 20.1.1 20.1.0", ""),
        ({"glob": "sha*"}, "sha-1a2b3c4", ""),  # no signature
        ({"regex": "2"}, "", ""),  # the whole tag
        ({"semver": ">=20.1 <22"}, "20.1.1 20.1.0 20.1", ""),
        ({"semver": ">=22", "suffix": "-alpine"}, "22.1.0-alpine 22.0.0-alpine", ""),
        ({"semver": "^20", "suffix": "-alpine*"}, "20.1.1-alpine3.19 20.1.1-alpine 20-alpine", ""),
        ({"semver": ">=22.1.0-rc.1"}, "23.0.0-rc.2 23.0.0-nightly 22.1.0 22.1.0-rc.1", ""),
        ({"list": ["lts", "18"], "semver": "~22.1", "glob": "edge"}, "lts 22.1.0 edge", "18"),
        ({"glob": "2*", "exclude": ".*[-.].*"}, "22 20 20240105", ""),
        ({"glob": "*", "exclude": ["*[.-]*", "*[!0-9]*"]}, "22 20 20240105 1234567", ""),
        ({"list": ["22", "lts"], "exclude": ["l*"]}, "22", ""),
        # newest alone: versions without a variant, no pre-release, no 22 beside 22.1.0
        ({"newest": 3}, "22.1.0 22.0.0 20.1.1", ""),
        ({"newest": 99}, "22.1.0 22.0.0 20.1.1 20.1.0", ""),
        ({"newest": 2, "suffix": "-alpine"}, "22.1.0-alpine 22.0.0-alpine", ""),
        ({"newest": 1, "exclude": ["22*"]}, "20.1.1", ""),
        ({"newest": 1, "list": ["latest"]}, "latest 22.1.0", ""),
        ({"newest": 2, "semver": "*"}, "22.1.0 22.0.0", ""),
        ({"newest": 2, "semver": ">=22.0.0-rc.0"}, "23.0.0-rc.2 23.0.0-nightly", ""),
        ({"newest": 2, "glob": "2*-alpine"}, "22.1.0-alpine 22.0.0-alpine", ""),
        ({"newest": 1, "glob": "23*"}, "", ""),
        ({"newest": 1, "glob": "23*-rc*"}, "23.0.0-rc.2", ""),
        ({"newest": 1, "regex": r"23\.0\.0\Wrc\.\d"}, "23.0.0-rc.2", ""),
        ({"newest": 1, "regex": r"[\d]+"}, "22", ""),
        ({"newest": 2, "glob": "*t*"}, "lts latest", ""),
    ],
)
def test_select(tags, chosen, missing):
    shuffled = list(NODE)
    random.Random(2).shuffle(shuffled)
    assert parse_tags(tags).select(shuffled) == Selection(tuple(chosen.split()), tuple(missing.split()))


def test_newest_alone_takes_dates_where_there_is_no_version():
    tags = ["latest", "2024-01-05", "2024-03-01", "2023-12-24", "2024-03-01-slim"]
    assert parse_tags({"newest": 2}).select(tags).tags == ("2024-03-01", "2024-01-05")


@pytest.mark.parametrize(
    ("tags", "needs"),
    [
        (["20", "22"], False),
        ({"list": ["20"]}, False),
        ({"list": ["20"], "exclude": ["2*"]}, False),
        (["20*"], True),
        ({"list": ["20"], "newest": 1}, True),
        ({"regex": ".*"}, True),
        ({"semver": "*"}, True),
        ({"glob": "20"}, True),
    ],
)
def test_needs_listing(tags, needs):
    assert parse_tags(tags).needs_listing is needs


def test_without_a_listing_exact_tags_are_taken_to_be_there():
    assert parse_tags({"list": "22 20 22 lts", "exclude": "l.*"}).select() == Selection(("22", "20"))


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ([], "tags is empty"),
        ("", "tags is empty"),
        ({}, "chooses nothing"),
        ({"exclude": ["*"]}, "chooses nothing .*glob: '\\*' takes all"),
        ([3.2], "an item of tags is 3.2, which is not text .*put it in quotes"),
        ([datetime.date(2024, 1, 5)], "put it in quotes"),
        ([True], "True, which is not text"),
        (3.2, "put it in quotes"),
        (["a/b"], "'a/b' in tags is no tag: .*character '/'"),
        (["-a"], "begins with '-'"),
        (["a/*"], "is no glob"),
        ({"glob": [{"a": 1}]}, "an item of tags.glob is"),
        ({"regexp": "x"}, "unknown key 'regexp' .*did you mean regex"),
        ({"filter": "x"}, "unknown key 'filter' .*known are list, glob"),
        ({"regex": "("}, r"tags.regex '\(' is not a regular expression: missing \), .* position 0"),
        ({"regex": ["x"]}, "tags.regex is .*, which is not text"),
        ({"glob": "*", "exclude": "*-rc"}, "tags.exclude .*as an item of glob, or of a list in exclude"),
        ({"semver": ">=x.1"}, "position 3"),
        ({"semver": 20}, "put it in quotes"),
        ({"newest": 0}, "tags.newest is 0"),
        ({"newest": "3"}, "tags.newest is '3'"),
        ({"newest": True}, "tags.newest is True"),
        ({"semver": "*", "suffix": "alpine"}, "does not begin with - .*write -alpine"),
        ({"semver": "*", "suffix": 3}, "tags.suffix is 3"),
        ({"glob": "2*", "suffix": "-alpine"}, "suffix belongs to semver"),
        ({"glob": "2*", "newest": 2, "suffix": "-alpine"}, "suffix belongs to semver"),
    ],
)
def test_tags_that_are_refused(tags, said):
    with pytest.raises(HomelabError, match=said) as caught:
        parse_tags(tags, "images[1]")
    assert caught.value.where == "images[1]"


# --- images -------------------------------------------------------------------------------------------------
def names(value):
    images, bad = parse_images(value)
    assert bad == []
    return [str(image.reference) for image in images]


@pytest.mark.parametrize(
    ("value", "references"),
    [
        ("node:20-alpine,ubuntu:22.04", "docker.io/library/node:20-alpine docker.io/library/ubuntu:22.04"),
        ("node , quay.io/a/b:1\tredis", "docker.io/library/node:latest quay.io/a/b:1 docker.io/library/redis:latest"),
        ("# base\nnode:20  # for CI\n\n  ubuntu#x,\n", None),
        ("# base\nnode:20  # for CI\n\n  quay.io/a,\n", "docker.io/library/node:20 quay.io/a:latest"),
        (["node:20", "quay.io/a,quay.io/b"], "docker.io/library/node:20 quay.io/a:latest quay.io/b:latest"),
        (["quay.io/a\n# no\nquay.io/b"], "quay.io/a:latest quay.io/b:latest"),
        ([{"name": "quay.io/a:1"}, {"name": " quay.io/b "}], "quay.io/a:1 quay.io/b:latest"),
        ([f"quay.io/a@{DIGEST}"], f"quay.io/a@{DIGEST}"),
        (["node", "docker.io/library/node:latest", {"name": "node"}], "docker.io/library/node:latest"),
        ("", ""),
        ([], ""),
        (["", "# nothing"], ""),
    ],
)
def test_images(value, references):
    if references is None:
        images, bad = parse_images(value)
        assert [str(image.reference) for image in images] == ["docker.io/library/node:20"]
        assert [one.item for one in bad] == ["ubuntu#x"]
    else:
        assert names(value) == references.split()


def test_a_mapping_with_everything():
    item = {
        "name": "node",
        "tags": ["20", "22*"],
        "platforms": ["linux/arm64", "linux/aarch64", "linux/amd64"],
        "optional": True,
        "referrers": False,
    }
    (image,), bad = parse_images([item])
    assert bad == []
    assert (image.reference.name, image.reference.tag) == ("docker.io/library/node", None)
    assert (image.selector.exact, image.selector.globs) == (("20",), ("22*",))
    assert [str(platform) for platform in image.platforms] == ["linux/arm64", "linux/amd64"]
    assert (image.optional, image.referrers) == (True, False)


@pytest.mark.parametrize("platforms", ["linux/arm64,linux/arm", ["linux/arm64 linux/arm/v7"]])
def test_platforms_as_text(platforms):
    (image,), bad = parse_images([{"name": "node", "platforms": platforms}])
    assert [str(platform) for platform in image.platforms] == ["linux/arm64", "linux/arm/v7"]


def test_what_is_not_said():
    (image,), bad = parse_images(
        [{"name": "node", "tags": None, "platforms": None, "optional": None, "referrers": None}]
    )
    assert (image.selector, image.platforms, image.optional, image.referrers) == (None, (), False, None)
    assert image.reference.tag == "latest"


@pytest.mark.parametrize(
    ("value", "index", "text", "said"),
    [
        (["quay.io/good", "Node:20"], 1, "Node:20", r"'Node' has upper case, write 'node' \(images\[1\]\)"),
        ("quay.io/good,Node:20", 1, "Node:20", r"upper case, write 'node' \(images\)"),
        (["quay.io/good", "http://x/y"], 1, "http://x/y", "no scheme"),
        (["quay.io/good", 3.2], 1, "3.2", "neither a name nor a mapping"),
        (["quay.io/good", None], 1, "None", "neither a name"),
        (["quay.io/good", {"tags": ["1"]}], 1, "mapping of tags", "has no name"),
        (["quay.io/good", {"name": 3}], 1, "3", "has no name"),
        ([{"name": "x", "tag": "1"}, "quay.io/good"], 0, "x", "unknown key 'tag' .*did you mean tags"),
        ([{"name": "x", "plattform": []}, "quay.io/good"], 0, "x", "did you mean platforms"),
        ([{"name": "x", "zzz": 1}, "quay.io/good"], 0, "x", "known are name, tags, platforms, optional, referrers"),
        (["quay.io/good", {"name": "x:1", "tags": ["2"]}], 1, "x:1", "the tag 1 in its name and tags besides"),
        (["quay.io/good", {"name": f"x@{DIGEST}", "tags": ["2"]}], 1, f"x@{DIGEST}", "a digest in its name"),
        (["quay.io/good", {"name": "x", "tags": {"semver": "<"}}], 1, "x", "position 1"),
        (["quay.io/good", {"name": "x", "platforms": ["arm64"]}], 1, "x", "'arm64' is not a platform"),
        (["quay.io/good", {"name": "x", "platforms": {"a": 1}}], 1, "x", "an item of platforms"),
        (["quay.io/good", {"name": "x", "optional": "yes"}], 1, "x", "optional of x is 'yes' .*true or false"),
        (["quay.io/good", {"name": "x", "referrers": 1}], 1, "x", "referrers of x is 1"),
        (["quay.io/good", {"name": "quay.io/good", "platforms": "linux/arm64"}], 1, "quay.io/good", "listed twice"),
        (["quay.io/good", "me:s3cret@x.io/y"], 1, "…@x.io/y", "holds credentials"),
        (["quay.io/good", "http://me:s3cret@x.io/y"], 1, "…@x.io/y", "no scheme"),
    ],
)
def test_a_bad_item_does_not_lose_the_good_one(value, index, text, said):
    (good,), (bad,) = parse_images(value)
    assert str(good.reference) == "quay.io/good:latest"
    assert (bad.index, bad.item) == (index, text)
    with pytest.raises(HomelabError, match=said):
        raise bad.error
    assert "s3cret" not in str(bad)


def test_a_single_mapping_is_a_list_of_one():
    assert names({"name": "node"}) == ["docker.io/library/node:latest"]


@pytest.mark.parametrize("value", [3, True, None])
def test_no_list_at_all(value):
    images, (bad,) = parse_images(value, "mirror_images")
    assert images == []
    assert bad.error.where == "mirror_images[0]"


def test_a_list_that_ends_with_a_comma_may_have_been_cut_off():
    """ansible-playbook drops what follows a blank: -e images=a, b."""
    images, bad = parse_images("node:20,")
    assert [str(one.reference) for one in images] == ["docker.io/library/node:20"]
    assert [one.item for one in bad] == [","]
    assert "cut off" in str(bad[0].error)
