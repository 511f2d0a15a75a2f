# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Image references: Docker's normalisation, and what is refused with which words."""

from __future__ import annotations

import pytest
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.oci.reference import (
    Reference,
    api_url,
    parse_reference,
    repository_fault,
)

DIGEST = "sha256:" + "a1" * 32
LONG = "sha512:" + "b2" * 64


@pytest.mark.parametrize(
    ("text", "full", "familiar"),
    [
        ("node", "docker.io/library/node", "node"),
        ("node:20-alpine", "docker.io/library/node:20-alpine", "node:20-alpine"),
        ("library/node", "docker.io/library/node", "node"),
        ("docker.io/node", "docker.io/library/node", "node"),
        ("index.docker.io/node:20", "docker.io/library/node:20", "node:20"),
        ("registry-1.docker.io/bitnami/redis", "docker.io/bitnami/redis", "bitnami/redis"),
        ("DOCKER.IO/bitnami/redis", "docker.io/bitnami/redis", "bitnami/redis"),
        ("docker.io/library/a/b", "docker.io/library/a/b", "library/a/b"),
        ("docker.io/quay.io/x:1", "docker.io/quay.io/x:1", "docker.io/quay.io/x:1"),  # shorter would be another image
        ("quay.io/prometheus/prometheus:v3.5.0",) * 3,
        (f"node@{DIGEST}", f"docker.io/library/node@{DIGEST}", f"node@{DIGEST}"),
        (f"node:20@{DIGEST}", f"docker.io/library/node:20@{DIGEST}", f"node:20@{DIGEST}"),
        (f"quay.io/a@{LONG}", f"quay.io/a@{LONG}", f"quay.io/a@{LONG}"),
        ("nas:5000/app", "nas:5000/app", "nas:5000/app"),
        ("NAS.lan:5000/app:V1", "nas.lan:5000/app:V1", "nas.lan:5000/app:V1"),
        ("localhost/app", "localhost/app", "localhost/app"),
        ("localhost:5000", "docker.io/library/localhost:5000", "localhost:5000"),  # a tag, as for Docker
        ("192.168.1.5:5000/a/b/c:1", "192.168.1.5:5000/a/b/c:1", "192.168.1.5:5000/a/b/c:1"),
        ("[FD00:0::1]:5000/app:1", "[fd00::1]:5000/app:1", "[fd00::1]:5000/app:1"),
        ("[::1]/app", "[::1]/app", "[::1]/app"),
        ("a_b/c__d/e---f/g.h:_x", "docker.io/a_b/c__d/e---f/g.h:_x", "a_b/c__d/e---f/g.h:_x"),
        ("q.io/" + "a" * 250, "q.io/" + "a" * 250, "q.io/" + "a" * 250),
        ("x:" + "t" * 128, "docker.io/library/x:" + "t" * 128, "x:" + "t" * 128),
    ],
)
def test_names(text, full, familiar):
    reference = parse_reference(text)
    assert (str(reference), reference.familiar) == (full, familiar)
    assert parse_reference(full) == parse_reference(familiar) == reference


@pytest.mark.parametrize(
    ("text", "tag", "digest", "target"),
    [
        ("node", None, None, "latest"),
        ("node:20", "20", None, "20"),
        (f"node:20@{DIGEST}", "20", DIGEST, DIGEST),
    ],
)
def test_target(text, tag, digest, target):
    reference = parse_reference(text)
    assert (reference.tag, reference.digest, reference.target) == (tag, digest, target)
    assert reference.name == "docker.io/library/node"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("  ", "is empty"),
        (3.2, "3.2 is not an image reference but a float"),
        (None, "NoneType"),
        ("Node:20", "'Node' has upper case, write 'node'"),
        ("quay.io/Team/app", "'Team' has upper case, write 'team'"),
        ("Bitnami/redis", "write bitnami/redis; if it is a registry's host, give its port or domain"),
        ("http://quay.io/x", "no scheme, but here is http:// .*write it without: quay.io/x"),
        ("docker://node:20", "docker:// .*write it without: node:20"),
        ("hub.docker.com/_/node", "web site, not its registry .*write node"),
        ("hub.docker.com/r/bitnami/redis", "write bitnami/redis"),
        ("node/", "empty part"),
        ("/node", "empty part"),
        ("a//b", "empty part"),
        ("quay.io/", "no repository"),
        ("quay.io/:1", "no repository"),
        ("node :20", "a blank at position 5"),
        (" node", "a blank at position 1"),
        ("node:", "its tag is empty"),
        ("node:-x", "begins with '-'"),
        ("node:1+2", r"has the character '\+'"),
        ("node:ä", "has the character 'ä'"),
        ("node:" + "t" * 129, "129 characters, 128 are allowed"),
        ("node:a:b", "two tags"),
        ("quay.io/a:1:2", "two tags"),
        ("node@sha256:12", "'sha256:12' after the @ .* has 2 hexadecimal digits: sha256 has 64"),
        ("node@md5:" + "a" * 32, "'md5'"),
        ("node@", "no algorithm"),
        ("me:secret@quay.io/x", r"holds credentials \(something@host"),
        (f"node@{DIGEST}@{DIGEST}", "not a digest"),
        (DIGEST, "a digest without a repository .*write it as name@sha256"),
        ("a1" * 32, "an image's ID"),
        ("näh", "has the character 'ä'"),
        ("a___b", "not allowed"),
        (".a", "at its beginning"),
        ("a-", "at its end"),
        ("a..b", "in a row that is not allowed"),
        ("nas:0/x", "port 0, which is not between"),
        ("nas:65536/x", "port 65536"),
        ("nas:/x", "host 'nas:' is none"),
        ("n_s:5000/x", "has the character '_', which no host name has"),
        ("-a.example/x", "is none"),
        ("[fd00::zz]:1/x", "is none"),
        ("[fd00:1]/x", "not an IPv6 address"),
        ("[::1/x", "is none"),
        ("q.io/" + "a/" * 125 + "b", "have 256 characters, 255 are allowed"),
    ],
)
def test_refused(text, said):
    with pytest.raises(HomelabError, match=said) as caught:
        parse_reference(text, "images[3]")
    assert caught.value.where == "images[3]"


@pytest.mark.parametrize("text", ["me:s3cret@quay.io/x", "me:s3cret@quay.io", "http://me:s3cret@quay.io/x"])
def test_no_password_in_a_message(text):
    with pytest.raises(HomelabError) as caught:
        parse_reference(text)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("registry", "scheme", "url"),
    [
        ("docker.io", "https", "https://registry-1.docker.io"),
        ("docker.io", "http", "https://registry-1.docker.io"),
        ("quay.io", "https", "https://quay.io"),
        ("nas:5000", "http", "http://nas:5000"),
        ("[fd00::1]:5000", "http", "http://[fd00::1]:5000"),
    ],
)
def test_api_url(registry, scheme, url):
    assert api_url(registry, scheme) == url


def test_a_reference_is_a_key():
    assert len({parse_reference("node"), parse_reference("docker.io/library/node"), Reference("quay.io", "node")}) == 2


@pytest.mark.parametrize("name", ["a", "library/node", "quay.io/a/b", "xn--a", "a__b"])
def test_repository_names(name):
    assert repository_fault(name) is None
