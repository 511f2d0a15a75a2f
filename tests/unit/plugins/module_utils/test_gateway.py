# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gateway's configuration as text. What nginx makes of it: tests/integration/test_gateway.py."""

from __future__ import annotations

import base64
import re

import pytest
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.server import gateway
from ansible_collections.homelab.registry.plugins.module_utils.server.gateway import Settings, render

ACCOUNTS = {"node": "pull", "builder": "push", "boss": "admin"}


def settings(**changes):
    return Settings(**{"listen": "5000", "backend": "registry:5000", "accounts": ACCOUNTS, **changes})


def block(text, start):
    """The lines from the one that begins with `start` to the brace that closes it."""
    lines = text.splitlines()
    first = next(number for number, line in enumerate(lines) if line.strip().startswith(start))
    depth, taken = 0, []
    for line in lines[first:]:
        taken.append(line.strip())
        bare = re.sub(r"\"[^\"]*\"|'[^']*'", "", line)
        depth += bare.count("{") - bare.count("}")
        if depth == 0:
            return "\n".join(taken)
    raise AssertionError(f"{start} does not end")


@pytest.mark.parametrize(
    ("changes", "there", "absent"),
    [
        ({}, ["listen 5000;", "proxy_pass http://registry:5000;", "client_max_body_size 0;", "server_tokens off;",
              "proxy_request_buffering off;", "autoindex off;", "limit_req zone=requests burst=2000;",
              "proxy_set_header X-Forwarded-Proto $scheme;", "proxy_set_header Host $http_host;",
              'proxy_set_header Authorization "";', "WWW-Authenticate 'Basic realm=\"registry\"' always"],
         ["ssl", "resolver", "/token"]),
        ({"listen": "[::]:443", "tls": True}, ["listen [::]:443 ssl;", "ssl_protocols TLSv1.2 TLSv1.3;",
                                               "ssl_certificate_key tls.key;", "https only"], []),
        ({"tls": True, "tls_minimum": "tls1.3"}, ["ssl_protocols TLSv1.3;"], ["TLSv1.2"]),
        ({"resolver": "127.0.0.11"}, ["resolver 127.0.0.11 valid=5s ipv6=off;", "set $gateway_backend registry:5000;",
                                      "proxy_pass http://$gateway_backend;"], ["proxy_pass http://registry"]),
        ({"anonymous": ["library/*"]}, ['"~^library/.*$" yes;', "location = /token", "Bearer realm="], ["Basic realm"]),
        ({"anonymous": ["quay.io/*", "node"]}, [r'"~^quay\\.io/.*$" yes;', '"~^node$" yes;'], []),
        ({"anonymous": ["*"]}, ['"~^.*$" yes;'], []),
        ({"request_rate": 0}, [], ["limit_req"]),
        ({"request_rate": 7, "request_burst": 8}, ["rate=7r/s", "burst=8;"], []),
        ({"auth": "none", "accounts": {}}, ['proxy_set_header Authorization "$http_authorization";'],
         ["auth_request", "auth_basic", "htpasswd"]),
        ({"auth": "token", "accounts": {}}, ['proxy_set_header Authorization "$http_authorization";'],
         ["auth_request", "auth_basic", "htpasswd"]),
    ],
)
def test_what_is_written(changes, there, absent):
    text = render(settings(**changes))
    assert [piece for piece in there if piece not in text] == []
    assert [piece for piece in absent if piece in text] == []
    assert text.count("{") == text.count("}")


def test_the_log_has_no_secrets():
    """Neither headers nor arguments: an upload's state is one of them."""
    line = render(settings()).split("log_format", 1)[1].split(";", 1)[0]
    variables = set(re.findall(r"\$(\w+)", line))
    assert not variables & {"request", "request_uri", "args", "http_authorization", "gateway_credentials",
                            "gateway_token", "remote_user", "query_string"}
    assert {"gateway_account", "gateway_repository", "status"} <= variables


def test_accounts_and_their_rights():
    text = render(settings(accounts={"node": "pull", "default": "push", "t.r-n@x": "admin"}))
    # a backslash: neither a pattern nor a word of the map itself; two, because the file's strings have escapes, too
    assert block(text, "map $gateway_account $gateway_role").splitlines()[2:-2] == [
        r'"\\default" push;', r'"\\node" pull;', r'"\\t.r-n@x" admin;',
    ]
    lines = block(text, 'map "$gateway_role').splitlines()
    verdicts = [line.split('"')[1].lstrip("~") for line in lines if line.endswith("pass;")]

    def may(case):
        return any(re.search(pattern, case) for pattern in verdicts)

    assert [role for role in gateway.ROLES if may(f"{role}:pull:")] == ["pull", "push", "admin"]
    assert [role for role in gateway.ROLES if may(f"{role}:push:yes")] == ["push", "admin"]
    assert [role for role in gateway.ROLES if may(f"{role}:delete:yes")] == ["admin"]
    assert may("anonymous:pull:yes")
    for case in ("anonymous:pull:", "anonymous:push:yes", "anonymous:ping:", "anonymous:catalog:", ":pull:yes",
                 "push::"):
        assert not may(case), case


DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("request_line", "action"),
    [
        ("GET /v2", "ping"),
        ("HEAD /v2/", "ping"),
        ("GET /v2/_catalog?n=5&last=a/b", "catalog"),
        ("GET /v2/a/tags/list", "pull"),
        ("HEAD /v2/library/node/manifests/20?ns=docker.io", "pull"),
        (f"GET /v2/quay.io/a__b/c--d/blobs/{DIGEST}", "pull"),
        (f"GET /v2/a/manifests/{DIGEST.replace(':', '%3A')}", "pull"),
        (f"GET /v2/a/referrers/{DIGEST}", "pull"),
        ("PUT /v2/a/manifests/latest", "push"),
        (f"POST /v2/a/b/blobs/uploads/?mount={DIGEST}&from=c", "push"),
        ("PATCH /v2/a/blobs/uploads/0b-1c?_state=x%3D%3D", "push"),
        ("DELETE /v2/a/blobs/uploads/0b-1c", "push"),
        (f"DELETE /v2/a/manifests/{DIGEST}", "delete"),
        (f"DELETE /v2/a/blobs/{DIGEST}", "delete"),
        ("GET /v2/blobs/uploads/manifests/1", "pull"),
        # everything else is nothing
        ("GET /v2/../secret", ""),
        ("GET /v2/library/../private/manifests/1", ""),
        ("GET /v2/library/%2e%2e/private/manifests/1", ""),
        ("GET /v2/library%2fnode/manifests/1", ""),
        ("GET /v2/a//b/manifests/1", ""),
        ("GET /v2/a/manifests/1/2", ""),
        ("GET /v2/A/manifests/1", ""),
        ("GET /v2x", ""),
        ("POST /v2/", ""),
        ("POST /v2/_catalog", ""),
        ("PUT /v2/a/tags/list", ""),
        ("OPTIONS /v2/a/manifests/1", ""),
        ("DELETE /v2/a", ""),
    ],
)
def test_actions(request_line, action):
    found = [name for pattern, name in gateway._ACTIONS if re.search(pattern, request_line)]
    assert found == ([action] if action else [])


def test_no_path_has_two_meanings():
    """Patterns of a right and of a greater one must not meet, whichever order nginx tries them in."""
    for path in ("/v2/a/blobs/uploads/manifests/x", "/v2/a/manifests/blobs/uploads/x", "/v2/a/blobs/uploads/blobs/x",
                 "/v2/uploads/blobs/uploads/x", "/v2/a/tags/list/manifests/x", "/v2/a/blobs/uploads/tags/list"):
        for method in ("GET", "HEAD", "PUT", "PATCH", "POST", "DELETE"):
            found = {name for pattern, name in gateway._ACTIONS if re.search(pattern, f"{method} {path}")}
            assert len(found) <= 1, (method, path)


@pytest.mark.parametrize(
    ("changes", "message", "where"),
    [
        ({"listen": "5000; include /etc/x"}, "cannot listen on", "registry_port"),
        ({"backend": "registry 5000"}, "is not host:port", "registry_container_name"),
        ({"auth": "basic"}, "auth 'basic' is unknown", "registry_auth"),
        ({"tls_minimum": "1.0"}, "'1.0' is no version of TLS", "registry_tls_minimum"),
        ({"request_rate": -1}, "-1 is no number of requests", "gateway_request_rate"),
        ({"request_burst": "many"}, "'many' is no number of requests", "gateway_request_burst"),
        ({"accounts": {}}, "no account has the role admin", "registry_users"),
        ({"accounts": {"a": "push", "b": "pull"}}, "no account has the role admin", "registry_users"),
        ({"accounts": {'a" admin; "b': "pull"}}, "cannot be used by the gateway", "registry_users"),
        ({"accounts": {"~a": "pull"}}, "cannot be used by the gateway", "registry_users"),
        ({"accounts": {"a$b": "pull"}}, "cannot be used by the gateway", "registry_users"),
        ({"accounts": {"a": "owner"}}, "account a: the role 'owner' is unknown", "registry_users"),
        ({"anonymous": ["registry:5000/node"]}, "is no pattern of repositories", "gateway_anonymous"),
        ({"anonymous": ["Library/*"]}, "is no pattern of repositories", "gateway_anonymous"),
        ({"anonymous": ["a.*$"]}, "is no pattern of repositories", "gateway_anonymous"),
        ({"anonymous": [5]}, "is no pattern of repositories", "gateway_anonymous"),
    ],
)
def test_what_is_refused(changes, message, where):
    with pytest.raises(HomelabError) as caught:
        render(settings(**changes))
    assert message in str(caught.value)
    assert where in caught.value.where
    assert caught.value.remedy


def test_the_account_behind_the_gateway():
    text = render(settings(backend_username="gateway", backend_password="canary-secret"))
    pair = base64.b64encode(b"gateway:canary-secret").decode("ascii")
    assert f'proxy_set_header Authorization "Basic {pair}";' in text
    assert "canary-secret" not in repr(settings(backend_password="canary-secret"))
    # a client's own header never gets behind it
    assert "$http_authorization;" not in text.replace("map $http_authorization", "")


@pytest.mark.parametrize(
    ("users", "arguments", "found"),
    [
        ([{"name": "a", "role": "pull"}], {"gateway": True, "auth": "htpasswd"}, None),
        ([{"name": "a", "role": "admin"}], {"gateway": False, "auth": "htpasswd"}, None),
        ([{"name": "a", "role": "pull"}], {"gateway": False, "auth": "none"}, None),
        ([{"name": "a", "role": "pull"}], {"gateway": False, "auth": "htpasswd"}, "a has a role"),
        ([{"name": "b", "role": "push"}, {"name": "a"}, {"name": "c", "role": "admin"}],
         {"gateway": False, "auth": "htpasswd"}, "a, b have roles"),
    ],
)
def test_accounts_without_a_gateway(users, arguments, found):
    messages = gateway.warnings(users, **arguments)
    assert [found in message for message in messages] == ([True] if found else [])
