# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The YAML writer: the exact text where it matters, and a round trip through PyYAML everywhere."""

from __future__ import annotations

import math
import random

import pytest
import yaml
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.yaml_writer import dump

# What a YAML 1.1 or 1.2 reader, in Go or Python, takes for something other than this string.
_AMBIGUOUS_WORDS = """
    ~ null Null NULL true True false FALSE yes Yes no NO on On off OFF y Y n N = <<
    0 1 -1 +1 017 0o17 0O17 0x1F 0b101 1_000 1. .5 1.5 -0.1 1e3 1E+3 1.5e-7 6.02e23 0x1p-2
    .inf -.inf +.Inf .nan .NaN inf Infinity nan
    12:30 1:30:45 190:20:30.15 -1:30 2024-01-01 2024-1-1 2024-01-01T10:00:00Z ... ...x
    - -x -- --- ? ?x : :5000 , ,x [ [a] ] { {a} } # #a & &a * *a ! !a | > ' " % %a @ @a `
"""
AMBIGUOUS = [
    *_AMBIGUOUS_WORDS.split(),
    *("", " ", " a", "a ", "a: b", "a:", "a #b", "2024-01-01 10:00:00", "\t", "a\tb", "a\nb", "a\r\n"),
]

_PLAIN_WORDS = """
    a registry:5000 10.0.0.1 192.168.1.5:5000 http://registry:5000/v2/quay.io /var/lib/registry 30s 168h 5000m
    a:b a#b a,b a[0] a{b} it's a"b a'b a-b a_b a=b a@b a%b a*b 1a 1.2.3 v3.5.0 truely nullable on-off ~/x
    tls1.2 sha256:0123abc é Ünïcode 日本語 😀 x😀y
"""
PLAIN = [*_PLAIN_WORDS.split(), "two words", "a - b", "a ? b"]

UNPRINTABLE = ["\0", "\x07", "\x1b[0m", "\x7f", "\x85", "\xa0", "\u2028", "\ufeff", "\u200d", "\U000e0001"]
UNPRINTABLE += ['é"\\\n']


@pytest.mark.parametrize("text", AMBIGUOUS + UNPRINTABLE)
def test_quoted(text):
    written = dump({text: text})
    assert written.startswith('"')
    assert written.isascii() or "é" in written
    assert yaml.safe_load(written) == {text: text}


@pytest.mark.parametrize("text", PLAIN)
def test_left_bare(text):
    assert dump([text]) == f"- {text}\n"
    assert yaml.safe_load(dump({text: text})) == {text: text}


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("yes", '"yes"'),
        ('say "hi"\\', 'say "hi"\\'),
        ('"', '"\\""'),
        ("a\nb\t", '"a\\nb\\t"'),
        ("\x1b", '"\\u001B"'),
        ("\u2028", '"\\u2028"'),
        ("\U0001f600\n", '"😀\\n"'),
        ("\U000e0001", '"\\U000E0001"'),
    ],
)
def test_spelling_of_strings(text, written):
    assert dump(text) == f"{written}\n"


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (None, "null"),
        (True, "true"),
        (False, "false"),
        (0, "0"),
        (-5, "-5"),
        (10**20, "100000000000000000000"),
        (0.1, "0.1"),
        (1e16, "1.0e+16"),
        (1.5e300, "1.5e+300"),
        (1e-7, "1.0e-07"),
        (float("inf"), ".inf"),
        (float("-inf"), "-.inf"),
        ({}, "{}"),
        ([], "[]"),
    ],
)
def test_scalars(value, written):
    assert dump(value) == f"{written}\n"
    assert yaml.safe_load(dump([value])) == [value]


def test_not_a_number():
    assert math.isnan(yaml.safe_load(dump(float("nan"))))


def test_layout():
    data = {
        "version": 0.1,
        "storage": {"filesystem": {}, "cache": {"blobdescriptor": "inmemory"}},
        "endpoints": [{"name": "a", "headers": {"X": ["1", "b"]}}, {"name": "b", "events": []}],
        "matrix": [[1, 2], [], [[3]]],
        "last": None,
    }
    assert dump(data, comment="Managed.\n\nDo not edit.") == (
        "# Managed.\n"
        "#\n"
        "# Do not edit.\n"
        "version: 0.1\n"
        "storage:\n"
        "  filesystem: {}\n"
        "  cache:\n"
        "    blobdescriptor: inmemory\n"
        "endpoints:\n"
        "  - name: a\n"
        "    headers:\n"
        "      X:\n"
        '        - "1"\n'
        "        - b\n"
        "  - name: b\n"
        "    events: []\n"
        "matrix:\n"
        "  - - 1\n"
        "    - 2\n"
        "  - []\n"
        "  - - - 3\n"
        "last: null\n"
    )


class Text(str):
    """A string type of its own, such as the ones Ansible hands to modules."""


def test_subclasses_are_written_as_their_base():
    assert dump({Text("a"): Text("yes")}) == 'a: "yes"\n'


@pytest.mark.parametrize(
    ("data", "where", "message"),
    [
        ({"a": {"b": [0, {"c": (1,)}]}}, "a.b[1].c", "tuple"),
        (object(), "top level", "object"),
        ({"a": {1: 2}}, "a", "must be a string"),
        ({None: 1}, "top level", "must be a string"),
        ({"a": [b"x"]}, "a[0]", "bytes"),
        ({"a": "\ud83d"}, "a", "Unicode"),
    ],
)
def test_refused(data, where, message):
    with pytest.raises(HomelabError, match=message) as caught:
        dump(data)
    assert caught.value.where == where


def random_text(source):
    """Return a short string, mostly out of the characters and words that are trouble in YAML."""
    kind = source.random()
    if kind < 0.2:
        return source.choice(AMBIGUOUS + PLAIN + UNPRINTABLE)
    numbers = "0123456789.:_-+eExXobTZ"
    others = " \t\n\r:#-?,[]{}&*!|>'\"%@`\\~=<abn0é\x00\x85\u2028\ufeff😀"
    return "".join(source.choice(numbers if kind < 0.5 else others) for turn in range(source.randint(0, 8)))


def random_data(source, depth):
    """Return random nested data without NaN, which equals nothing."""
    kind = source.random()
    if depth and kind < 0.25:
        return {random_text(source): random_data(source, depth - 1) for turn in range(source.randint(0, 4))}
    if depth and kind < 0.5:
        return [random_data(source, depth - 1) for turn in range(source.randint(0, 4))]
    numbers = [source.randint(-(10**6), 10**6), source.uniform(-1e9, 1e9), 10 ** source.uniform(-30, 30)]
    return source.choice([None, True, False, *numbers, *(random_text(source) for turn in range(6))])


@pytest.mark.parametrize("seed", range(20))
def test_random_round_trip(seed):
    source = random.Random(seed)
    for _turn in range(100):
        data = random_data(source, 4)
        written = dump(data, comment="x")
        assert yaml.safe_load(written) == data
        # Equal is not enough: 1 == True == 1.0.
        assert repr(yaml.safe_load(written)) == repr(data)
