# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The server's certificate: names, dates, when it is made anew. What the facts about files look like is
community.crypto's."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from ansible_collections.homelab.registry.plugins.module_utils.server.certificate import (
    alternative_names,
    covers,
    host_of,
    plan_own,
    problems,
)

NOW = datetime(2026, 11, 24, 12, tzinfo=timezone.utc)


def at(days):
    return (NOW + timedelta(days=days)).strftime("%Y%m%d%H%M%SZ")


CERTIFICATE = {
    "not_before": at(-1),
    "not_after": at(400),
    "public_key": "PEM 1",
    "subject_alt_name": ["DNS:reg.lan", "IP:10.0.0.5", "DNS:localhost", "IP:127.0.0.1", "IP:::1"],
    "authority_key_identifier": "aa:bb",
}
KEY = {"public_key": "PEM 1\n"}
CA = {"not_before": at(-1), "not_after": at(3650), "public_key": "PEM 2", "subject_key_identifier": "aa:bb"}
NAMES = alternative_names("reg.lan:5000", ["10.0.0.5"])


# --- names ---------------------------------------------------------------------------------------------------
def test_names_come_from_endpoint_hosts_and_loopback_once_each():
    assert alternative_names("Reg.lan:5000", ["reg.lan", "10.0.0.5", "my_host", ""], ["fd00::5", "alias.lan"]) == [
        "DNS:reg.lan", "IP:10.0.0.5", "IP:fd00::5", "DNS:alias.lan", "DNS:localhost", "IP:127.0.0.1", "IP:::1",
    ]


@pytest.mark.parametrize(
    ("endpoint", "host"), [("reg:5000", "reg"), ("10.0.0.5:80", "10.0.0.5"), ("[fd00::5]:5000", "fd00::5")]
)
def test_the_host_of_an_endpoint(endpoint, host):
    assert host_of(endpoint) == host


COVERS = [
    (["DNS:reg.lan"], "reg.lan", True),
    (["DNS:REG.lan"], "reg.LAN", True),
    (["DNS:*.lan"], "reg.lan", True),
    (["DNS:*.lan"], "a.reg.lan", False),
    (["DNS:*.lan"], "lan", False),
    (["DNS:reg.lan"], "reg", False),
    (["DNS:10.0.0.5"], "10.0.0.6", False),
    (["IP:10.0.0.5"], "10.0.0.5", True),
    (["IP:fd00:0:0:0:0:0:0:5"], "fd00::5", True),
    (["email:reg.lan"], "reg.lan", False),
    ([], "reg.lan", False),
]


@pytest.mark.parametrize(("names", "host", "good"), COVERS)
def test_whom_a_certificate_is_for(names, host, good):
    assert covers(names, host) is good


# --- one that is given -----------------------------------------------------------------------------------------
def test_a_good_one():
    assert problems(CERTIFICATE, KEY, "reg.lan", NOW) == []


BAD = {
    "no certificate": ({"failed": True, "msg": "not PEM"}, KEY, "reg.lan", "not a certificate in PEM: not PEM"),
    "no key": (CERTIFICATE, {"failed": True, "msg": "passphrase"}, "reg.lan", "without a passphrase"),
    "another key": (CERTIFICATE, {"public_key": "PEM 3"}, "reg.lan", "do not belong together"),
    "expired": ({**CERTIFICATE, "not_after": at(-1)}, KEY, "reg.lan", "has expired on 2026-11-23"),
    "to come": ({**CERTIFICATE, "not_before": at(2)}, KEY, "reg.lan", "not valid before 2026-11-26"),
    "another name": (CERTIFICATE, KEY, "other.lan", "nodes use 'other.lan'"),
    "no name": ({**CERTIFICATE, "subject_alt_name": None}, KEY, "reg.lan", "no name at all"),
}


@pytest.mark.parametrize(("certificate", "key", "host", "words"), BAD.values(), ids=BAD)
def test_a_bad_one_is_refused_with_its_reason(certificate, key, host, words):
    found = problems(certificate, key, host, NOW, "/a.crt", "/a.key")
    assert len(found) == 1
    assert words in found[0]
    assert "/a." in found[0]


# --- our own ---------------------------------------------------------------------------------------------------
def own(**options):
    there = {"ca": CA, "server": CERTIFICATE, "server_key": KEY, "names": NAMES, "days": 825, "renew_days": 60}
    return plan_own(now=NOW, **{**there, **options})


def test_nothing_is_made_anew_without_a_reason():
    assert own() == {"ca": False, "server": False, "reason": "", "ca_days": 3650}


PLANS = {
    # what is there -> new CA, new certificate, words
    "nothing": ({"ca": None, "server": None, "server_key": None}, True, True, "no CA yet"),
    "a failed look": ({"ca": {"failed": True, "msg": "x"}}, True, True, "no CA yet"),
    "rotation": ({"rotate": True}, True, True, "asks for a new CA"),
    "the CA could not hold another": ({"ca": {**CA, "not_after": at(884)}}, True, True, "the CA ends on"),
    "it just can": ({"ca": {**CA, "not_after": at(886)}}, False, False, ""),
    "no certificate": ({"server": None}, False, True, "no certificate yet"),
    "no key": ({"server_key": {"failed": True}}, False, True, "no certificate yet"),
    "half of a change": ({"server_key": {"public_key": "PEM 9"}}, False, True, "do not belong together"),
    "another CA's": ({"server": {**CERTIFICATE, "authority_key_identifier": "cc"}}, False, True, "another CA"),
    "it ends in 60 days": ({"server": {**CERTIFICATE, "not_after": at(60)}}, False, True, "ends on 2027-01-23"),
    "it ends in 61 days": ({"server": {**CERTIFICATE, "not_after": at(61)}}, False, False, ""),
    "it has ended": ({"server": {**CERTIFICATE, "not_after": at(-5)}}, False, True, "ends on"),
    "a new name": ({"names": [*NAMES, "DNS:new.lan"]}, False, True, "lacks DNS:new.lan"),
    "a name less": ({"names": NAMES[1:]}, False, False, ""),
}


@pytest.mark.parametrize(("there", "ca", "server", "words"), PLANS.values(), ids=PLANS)
def test_what_is_made_anew(there, ca, server, words):
    plan = own(**there)
    assert (plan["ca"], plan["server"]) == (ca, server)
    assert words in plan["reason"]
