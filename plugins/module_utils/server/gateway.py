# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gateway: nginx in front of the registry, which gives its accounts the rights the server does not know.

The server's own accounts may all push, delete and list. Here an account has a role, some images can be pulled
without one, and every request is logged with account and repository.

Why a Bearer challenge in front of passwords. Docker asks `GET /v2/` first, and what it is answered decides for
the whole session: after 200 it never sends an account, after a Basic challenge it asks for nothing without one
("no basic auth credentials"), also not for an image that everybody may have; and for `registry-mirrors` it never
has one. Only after a Bearer challenge it goes on without an account, by an anonymous token. So the gateway is a
token server as well: the token of an account is its `user:password` in base64, as a Basic header has it, the token
without an account is the word `anonymous`. Both kinds of header are checked in the same place.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ..errors import HomelabError
from .accounts import ROLES

#: What an account of a role may do, from the least to the most.
RIGHTS = {
    "pull": ("ping", "catalog", "pull"),
    "push": ("ping", "catalog", "pull", "push"),
    "admin": ("ping", "catalog", "pull", "push", "delete"),
}
PROTOCOLS = {"tls1.2": "TLSv1.2 TLSv1.3", "tls1.3": "TLSv1.3"}
#: Where the configuration's directory is mounted in the container. Paths in the configuration are relative to it, so
#: that new files can be tested as they are in a directory beside the running ones.
DIRECTORY = "/etc/homelab-gateway"
TOKEN_PATH = "/token"  # noqa: S105 - a path
#: Seconds a token counts; it is as good as its password, so that nothing is won by a short life.
TOKEN_LIFE = 3600
#: A wrong password is answered after this time, and one address gets so many of these answers at a time.
FAILED_DELAY = "1s"
FAILED_AT_ONCE = 20

_ACCOUNT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,127}")
_PATTERN = re.compile(r"\*|[a-z0-9][a-z0-9._/*-]{0,254}")
_HOST_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}")
_LISTEN = re.compile(r"((\[[0-9A-Fa-f:.]+\]|[0-9.]+|\*):)?[0-9]{1,5}")
# The names and references of the distribution specification. A path is passed on as it came and is judged as it
# came, so nothing in it may mean something else once it is decoded: only the colon of a digest may be encoded.
_NAME = r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*"
_REFERENCE = r"[A-Za-z0-9_](?:[A-Za-z0-9_.:+=-]|%3[Aa])*"
_END = r"(?:\?.*)?$"


@dataclass(frozen=True)
class Settings:
    """What the gateway's configuration is made of.

    Attributes:
        listen: port, or address:port, to listen on.
        backend: host:port of the registry as the gateway reaches it.
        resolver: address of a name server that is asked for the backend again and again, since a container's
            address changes; empty if `backend` is an address.
        auth: who checks accounts: htpasswd (the gateway), token (the registry; the gateway passes the token on) or
            none.
        accounts: name to role, for auth htpasswd; their passwords are in the file htpasswd beside the configuration.
        anonymous: repositories that are pulled without an account, for auth htpasswd; `*` stands for any text.
        backend_username, backend_password: the account with which the gateway goes to the registry, if that has one.
        tls: whether to speak TLS, with tls.crt and tls.key beside the configuration.
        tls_minimum: tls1.2 or tls1.3.
        request_rate: requests a second from one address, on average; 0: no limit.
        request_burst: requests that may come on top of that at once.
    """

    listen: str
    backend: str
    resolver: str = ""
    auth: str = "htpasswd"
    accounts: Mapping[str, str] = field(default_factory=dict)
    anonymous: Iterable[str] = ()
    backend_username: str = ""
    backend_password: str = field(default="", repr=False)
    tls: bool = False
    tls_minimum: str = "tls1.2"
    request_rate: int = 200
    request_burst: int = 2000


def check(settings: Settings) -> None:
    """Refuse what nginx would misread, or what would leave a hole.

    Raises:
        HomelabError: names the value, the variable and the remedy.
    """

    def refuse(wrong, message, where, remedy):
        if wrong:
            raise HomelabError(message, where, remedy)

    refuse(not _LISTEN.fullmatch(settings.listen), f"cannot listen on {settings.listen!r}",
           "registry_bind_address, registry_port", "give an IP address and a port")
    refuse(not _HOST_PORT.fullmatch(settings.backend), f"{settings.backend!r} is not host:port",
           "registry_container_name", "use letters, digits, '.', '_' and '-'")
    refuse(settings.auth not in ("htpasswd", "token", "none"), f"auth {settings.auth!r} is unknown", "registry_auth",
           "choose htpasswd, token or none")
    refuse(settings.tls_minimum not in PROTOCOLS, f"{settings.tls_minimum!r} is no version of TLS",
           "registry_tls_minimum", f"choose one of {', '.join(PROTOCOLS)}")
    for name, number in (("rate", settings.request_rate), ("burst", settings.request_burst)):
        refuse(isinstance(number, bool) or not isinstance(number, int) or number < 0,
               f"{number!r} is no number of requests", f"gateway_request_{name}",
               "give a whole number; a rate of 0 means no limit")
    if settings.auth != "htpasswd":
        return
    for name, role in settings.accounts.items():
        refuse(not _ACCOUNT.fullmatch(name), f"the account name {name!r} cannot be used by the gateway",
               "registry_users", "use up to 128 letters, digits and '._@-', a letter or digit first")
        refuse(role not in ROLES, f"account {name}: the role {role!r} is unknown", "registry_users",
               f"choose one of {', '.join(ROLES)}")
    refuse("admin" not in settings.accounts.values(), "no account has the role admin, so nobody could delete, and the "
           "registry could not be tried out", "registry_users", "give at least one with role admin")
    for pattern in settings.anonymous:
        refuse(not isinstance(pattern, str) or not _PATTERN.fullmatch(pattern),
               f"{pattern!r} is no pattern of repositories", "gateway_anonymous",
               "write repositories such as library/* or quay.io/*, in lower case, without host and tag")


def render(settings: Settings) -> str:
    """The text of nginx.conf.

    Raises:
        HomelabError: as `check`.
    """
    check(settings)
    return _MAIN + _http(settings)


def warnings(users: Iterable[Mapping], *, gateway: bool, auth: str) -> list[str]:
    """What the server will not do that the accounts seem to promise; for the end of a run.

    Args:
        users: `registry_users`.
        gateway: whether there is one.
        auth: `registry_auth`.
    """
    limited = sorted(str(user["name"]) for user in users if user.get("role", "pull") != "admin")
    if gateway or auth != "htpasswd" or not limited:
        return []
    several = len(limited) > 1
    return [
        f"{', '.join(limited)} {'have roles' if several else 'has a role'} (registry_users), but the registry itself "
        f"knows none: without registry_gateway {'these accounts' if several else 'this account'} may push and delete "
        "everything. Set registry_gateway: true"
    ]


# --- pieces -----------------------------------------------------------------------------------------------------
_MAIN = """\
# Written by the role homelab.registry.gateway; changes are lost.
worker_processes auto;
pid /tmp/nginx.pid;
error_log /dev/stderr warn;
# how long the old processes may finish their requests after a reload
worker_shutdown_timeout 1h;
events { worker_connections 4096; }
"""

#: Methods and paths of the distribution specification; everything else is answered 404.
_ACTIONS = (
    (rf"^(?:GET|HEAD) /v2/?{_END}", "ping"),
    (rf"^(?:GET|HEAD) /v2/_catalog{_END}", "catalog"),
    (rf"^(?:GET|HEAD) /v2/{_NAME}/(?:tags/list|manifests/{_REFERENCE}|blobs/{_REFERENCE}|referrers/{_REFERENCE}){_END}",
     "pull"),
    (rf"^PUT /v2/{_NAME}/manifests/{_REFERENCE}{_END}", "push"),
    (rf"^POST /v2/{_NAME}/blobs/uploads/?{_END}", "push"),
    # also to give an upload up
    (rf"^(?:GET|HEAD|PATCH|PUT|DELETE) /v2/{_NAME}/blobs/uploads/[A-Za-z0-9_=.-]+{_END}", "push"),
    (rf"^DELETE /v2/{_NAME}/(?:manifests|blobs)/{_REFERENCE}{_END}", "delete"),
)
_REPOSITORY = (
    rf"^/v2/(?<gateway_name>{_NAME})/(?:tags/list|manifests/{_REFERENCE}|blobs/{_REFERENCE}|referrers/{_REFERENCE}"
    rf"|blobs/uploads/?[A-Za-z0-9_=.-]*){_END}"
)

_HTTP = """\
    server_tokens off;
    autoindex off;
    default_type application/json;
    client_body_temp_path /tmp/body;
    proxy_temp_path /tmp/proxy;
    fastcgi_temp_path /tmp/fastcgi;
    uwsgi_temp_path /tmp/uwsgi;
    scgi_temp_path /tmp/scgi;

    # Layers are large and links are slow: no limit of size, nothing is kept on disk on its way.
    client_max_body_size 0;
    client_header_timeout 60s;
    client_body_timeout 900s;
    send_timeout 900s;
    keepalive_timeout 75s;
    keepalive_requests 10000;
    # the token of a token server may be long
    large_client_header_buffers 4 32k;
    map_hash_bucket_size 256;
    variables_hash_max_size 2048;

    # Paths without arguments (an upload's state is one of them), and never a header that holds a secret.
    map $request_uri $gateway_path { "~^(?<gateway_path_only>[^?]*)" $gateway_path_only; }
"""

_LOG = """\
    log_format gateway escape=json '{"time":"$time_iso8601","client":"$remote_addr","account":"$gateway_account",'
        '"method":"$request_method","action":"$gateway_action","repository":"$gateway_repository",'
        '"path":"$gateway_path","status":$status,"received":$request_length,"sent":$bytes_sent,'
        '"seconds":$request_time,"agent":"$http_user_agent"}';
    access_log /dev/stdout gateway;
"""

_PROXY = """\
            proxy_pass http://{upstream};
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Real-IP $remote_addr;
            proxy_set_header Connection "";
            proxy_set_header Authorization "{authorization}";
            proxy_request_buffering off;
            proxy_max_temp_file_size 0;
            proxy_connect_timeout 5s;
            proxy_read_timeout 900s;
            proxy_send_timeout 900s;
"""

_AUTH = """\
    # What a client proves itself with, whichever way it says so. Nothing that is not base64 gets any further.
    map $http_authorization $gateway_credentials {{
        "" "";
        "~*^bearer +anonymous$" "";
        "~*^(?:basic|bearer) +(?<gateway_pair>[A-Za-z0-9+/]+=*)$" $gateway_pair;
        default "-";
    }}
    map $gateway_credentials $gateway_token {{
        "" "anonymous";
        default $gateway_credentials;
    }}
    map $gateway_account $gateway_role {{
        "" "anonymous";
{accounts}        default "";
    }}
    map $gateway_repository $gateway_open {{
{anonymous}        default "";
    }}
    map "$gateway_role:$gateway_action:$gateway_open" $gateway_verdict {{
        "~^[a-z]*::" unknown;
{rights}        "~^anonymous:pull:yes$" pass;
        "~^anonymous:" login;
        default refuse;
    }}

    limit_conn_zone $http_x_gateway_client zone=failed:2m;

    # Who is it? The one place where passwords are looked at; reached only from the server below.
    server {{
        listen unix:/tmp/gateway-auth.sock;
        server_name _;
        access_log off;
        error_log /dev/stderr crit;
        root /var/empty;
        auth_delay {delay};
        limit_conn failed {at_once};
        limit_conn_status 429;
        limit_conn_log_level info;
        location / {{
            auth_basic "registry";
            auth_basic_user_file htpasswd;
            add_header X-Gateway-Account $remote_user;
            error_page 401 =403 /wrong;
            try_files /none =204;
        }}
        location = /wrong {{ internal; auth_basic off; try_files /none =403; }}
    }}
"""

_AUTH_LOCATIONS = """\
        location = /.gateway/who {{
            internal;
            if ($gateway_credentials = "") {{ return 204; }}
            proxy_pass http://unix:/tmp/gateway-auth.sock:/;
            proxy_pass_request_headers off;
            proxy_pass_request_body off;
            proxy_set_header Content-Length "";
            proxy_set_header X-Gateway-Client $remote_addr;
            proxy_set_header Authorization "Basic $gateway_credentials";
        }}
        location /v2 {{
            auth_request /.gateway/who;
            auth_request_set $gateway_account $upstream_http_x_gateway_account;
            error_page 403 = @login;
            error_page 500 = @busy;
            try_files /none @$gateway_verdict;
        }}
{token}        location @pass {{
{proxy}        }}
        location @login {{
            add_header WWW-Authenticate '{challenge}' always;
            add_header Docker-Distribution-Api-Version registry/2.0 always;
            return 401 '{{"errors":[{{"code":"UNAUTHORIZED","message":"authentication required"}}]}}';
        }}
        location @refuse {{
            return 403 '{{"errors":[{{"code":"DENIED","message":"this account may not do that"}}]}}';
        }}
        location @unknown {{
            return 404 '{{"errors":[{{"code":"UNSUPPORTED","message":"no such path or method"}}]}}';
        }}
        location @busy {{
            add_header Retry-After 2 always;
            return 429 '{{"errors":[{{"code":"TOOMANYREQUESTS","message":"too many wrong passwords"}}]}}';
        }}
"""

_TOKEN_LOCATION = """\
        location = {path} {{
            auth_request /.gateway/who;
            auth_request_set $gateway_account $upstream_http_x_gateway_account;
            error_page 403 = @login;
            error_page 500 = @busy;
            limit_except GET {{ deny all; }}
            try_files /none @token;
        }}
        location @token {{
            add_header Cache-Control no-store;
            return 200 '{{"token":"$gateway_token","access_token":"$gateway_token","expires_in":{life}}}';
        }}
"""


def _http(settings: Settings) -> str:
    parts = ["http {\n", _HTTP, _map("$request_uri", "$gateway_repository", [(f"~{_REPOSITORY}", "$gateway_name")])]
    actions = [(f"~{pattern}", action) for pattern, action in _ACTIONS]
    parts.append(_map('"$request_method $request_uri"', "$gateway_action", actions))
    if settings.auth != "htpasswd":
        # whom the registry knows the gateway cannot tell
        parts.append(_map("$host", "$gateway_account", []))
    parts.append(_LOG)
    if settings.request_rate:
        parts.append(f"    limit_req_zone $binary_remote_addr zone=requests:4m rate={settings.request_rate}r/s;\n")
    if settings.auth == "htpasswd":
        parts.append(_auth(settings))
    parts += ["\n", *_server(settings), "}\n"]
    return "".join(parts)


def _auth(settings: Settings) -> str:
    accounts = "".join(
        f"        {_quoted(_escaped_key(name))} {role};\n" for name, role in sorted(settings.accounts.items())
    )
    anonymous = "".join(
        f"        {_quoted(f'~^{_regex(pattern)}$')} yes;\n" for pattern in sorted(set(settings.anonymous))
    )
    rights = "".join(f'        "~^{role}:(?:{"|".join(RIGHTS[role])}):" pass;\n' for role in ROLES)
    return _AUTH.format(
        accounts=accounts, anonymous=anonymous, rights=rights, delay=FAILED_DELAY,
        at_once=FAILED_AT_ONCE,
    )


def _server(settings: Settings) -> list[str]:
    tls = " ssl" if settings.tls else ""
    parts = ["    server {\n", f"        listen {settings.listen}{tls};\n", "        server_name _;\n",
             "        root /var/empty;\n"]
    if settings.tls:
        parts.append(
            "        ssl_certificate tls.crt;\n"
            "        ssl_certificate_key tls.key;\n"
            f"        ssl_protocols {PROTOCOLS[settings.tls_minimum]};\n"
            "        ssl_session_cache shared:tls:2m;\n"
            "        ssl_session_tickets off;\n"
            "        error_page 497 @plain;\n"
            "        location @plain { return 400 '{\"errors\":[{\"code\":\"UNSUPPORTED\","
            "\"message\":\"this port speaks https only\"}]}'; }\n"
        )
    if settings.request_rate:
        parts.append(
            f"        limit_req zone=requests burst={settings.request_burst};\n"
            "        limit_req_status 429;\n"
        )
    parts.append("        location / { return 404; }\n")
    if settings.resolver:
        parts.append(
            f"        resolver {settings.resolver} valid=5s ipv6=off;\n"
            f"        set $gateway_backend {settings.backend};\n"
        )
    proxy = _proxy(settings)
    if settings.auth == "htpasswd":
        has_anonymous = any(True for _pattern in settings.anonymous)
        challenge, token = 'Basic realm="registry"', ""
        if has_anonymous:
            challenge = f'Bearer realm="$scheme://$http_host{TOKEN_PATH}",service="registry"'
            token = _TOKEN_LOCATION.format(path=TOKEN_PATH, life=TOKEN_LIFE)
        parts.append(_AUTH_LOCATIONS.format(challenge=challenge, token=token, proxy=proxy))
    else:
        parts += ["        location /v2 {\n", proxy, "        }\n"]
    parts.append("    }\n")
    return parts


def _proxy(settings: Settings) -> str:
    authorization = "$http_authorization"
    if settings.auth == "htpasswd":
        authorization = ""
        if settings.backend_username:
            pair = f"{settings.backend_username}:{settings.backend_password}".encode()
            authorization = "Basic " + base64.b64encode(pair).decode("ascii")
    return _PROXY.format(
        upstream="$gateway_backend" if settings.resolver else settings.backend, authorization=authorization
    )


def _map(source: str, target: str, entries: list) -> str:
    lines = "".join(f"        {_quoted(key)} {value};\n" for key, value in entries)
    return f'    map {source} {target} {{\n{lines}        default "";\n    }}\n'


def _escaped_key(name: str) -> str:
    """A map's key that is neither a pattern nor one of the map's own words."""
    return "\\" + name


def _quoted(text: str) -> str:
    """A string of nginx's configuration; the texts here have no quotation marks and no control characters."""
    return '"' + text.replace("\\", "\\\\") + '"'


def _regex(pattern: str) -> str:
    return ".*".join(re.escape(part).replace("\\-", "-").replace("\\/", "/") for part in pattern.split("*"))
