# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files with certificates of CAs: ours between marks, those of others untouched."""

from __future__ import annotations

import pytest
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.nodes import trust, trust_files


def pem(letter):
    return f"-----BEGIN CERTIFICATE-----\n{letter * 64}\n-----END CERTIFICATE-----\n"


A, B, THEIRS = pem("A"), pem("B"), "their own\n" + pem("T")
ONLY_A = f"{trust.BEGIN}\n{A}{trust.END}\n"
A_AND_B = f"{trust.BEGIN}\n{B}{A}{trust.END}\n"


TABLE = {
    # before, wanted, overlap -> after
    "new": (None, A, False, ONLY_A),
    "unchanged": (ONLY_A, A, False, ONLY_A),
    "once": (None, A + A, False, ONLY_A),
    "beside others": (THEIRS, A, False, THEIRS + ONLY_A),
    "out of others": (THEIRS + ONLY_A, "", False, THEIRS),
    "out": (ONLY_A, "", False, None),
    "nothing to take out": (None, "", False, None),
    "others alone": (THEIRS, "", False, THEIRS),
    "old and new": (ONLY_A, B, True, A_AND_B),
    "old and new again": (A_AND_B, B, True, A_AND_B),
    "only add": (ONLY_A, "", True, ONLY_A),
    "in the end": (A_AND_B, B, False, f"{trust.BEGIN}\n{B}{trust.END}\n"),
}


@pytest.mark.parametrize(("before", "wanted", "overlap", "after"), TABLE.values(), ids=TABLE)
def test_what_a_file_becomes(before, wanted, overlap, after):
    assert trust.plan(before, wanted, overlap) == after


def test_what_is_no_certificate_is_refused():
    with pytest.raises(HomelabError, match="no certificate"):
        trust.plan(None, "/etc/ssl/ca.crt")


def test_a_key_never_gets_into_such_a_file():
    key = "-----BEGIN EC PRIVATE KEY-----\nKKKK\n-----END EC PRIVATE KEY-----\n"
    assert "KKKK" not in trust.plan(None, key + A)


def test_files_of_an_earlier_address_are_tidied_up_at_the_end_only(tmp_path):
    old, new, other = (tmp_path / name / "ca.crt" for name in ("old:5000", "new:5000", "theirs"))
    for path, text in ((old, ONLY_A), (other, THEIRS)):
        path.parent.mkdir()
        path.write_text(text, encoding="utf-8")
    pattern = [str(tmp_path / "*" / "ca.crt")]
    trust_files.apply(trust_files.plan(A, [str(new)], pattern, overlap=True))
    assert old.exists()
    assert new.read_text(encoding="utf-8") == ONLY_A
    trust_files.apply(trust_files.plan(A, [str(new)], pattern, overlap=False))
    assert not old.parent.exists()
    assert other.read_text(encoding="utf-8") == THEIRS
    assert trust_files.plan(A, [str(new)], pattern, overlap=False) == []
