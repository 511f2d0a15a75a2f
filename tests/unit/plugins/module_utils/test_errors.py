# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The error type: one sentence out of three parts."""

from __future__ import annotations

import pickle

import pytest
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        (("it is wrong",), "it is wrong"),
        (("it is wrong", "here"), "it is wrong (here)"),
        (("it is wrong", None, "mend it"), "it is wrong: mend it"),
        (("it is wrong", "here", "mend it"), "it is wrong (here): mend it"),
        (("it is wrong", "", ""), "it is wrong"),
    ],
)
def test_text(parts, text):
    assert str(HomelabError(*parts)) == text


def test_parts_are_kept_even_between_processes():
    error = pickle.loads(pickle.dumps(HomelabError("wrong", where="here", remedy="mend it")))
    assert (error.message, error.where, error.remedy) == ("wrong", "here", "mend it")
