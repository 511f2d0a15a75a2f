# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every key the CNCF distribution registry knows, as plain data.

The server ignores keys it does not know, in silence: a misspelt ``tls`` is plain HTTP. So we know them.

A schema is nested Python data:

``"string"``, ``"bool"``
    A scalar of that type. The server takes some of them as text too; we ask for the real type.
``"int"``, ``"int>=N"``
    A whole number, at least N.
``"secret"``
    A string that must never be shown.
``"duration"``
    A string in Go's syntax: ``30s``, ``1h30m``.
``"address"``
    ``host:port`` or ``:port``, port 1 to 65535; for a unix socket its absolute path.
``"url"``
    ``http://...`` or ``https://...``.
``"any"``
    Whatever a plugin makes of it.
``("a", "b")``
    One of these, as text.
``[kind]``
    A list of that kind.
``{"key": kind}``
    A mapping with these keys; ``"key!"`` must be present; ``"*"`` stands for any key. Null is an empty one.

Source: the Go sources of distribution at the tags v2.8.3 and v3.1.1 (``configuration/configuration.go`` for
the sections, ``FromParameters`` of each storage driver, ``registry/auth/*``, ``registry/handlers/app.go``
for what lies below ``storage``, ``registry/storage/driver/middleware/*``). Where upstream's page of options
differs, the sources win: swift's ``rootdirectory`` and the s3 ``sessiontoken`` are never read.
3.1 added ``tags``, ``proxy.cachewritetimeout`` and ``redis.tls.rootcas`` (3.0: ``clientcas``).
"""

from __future__ import annotations

from collections.abc import Iterator

_LEVEL = ("error", "warn", "info", "debug")
_STRINGS = ["string"]
_ANYTHING = {"*": "any"}
# A header name with its list of values. What we send may authenticate us; what we answer is public.
_REQUEST_HEADERS = {"*": ["secret"]}
_RESPONSE_HEADERS = {"*": _STRINGS}

_LOG = {
    "accesslog": {"disabled": "bool"},
    "level": _LEVEL,
    "formatter": ("text", "json", "logstash"),
    "fields": _ANYTHING,
    "hooks": [
        {
            "disabled": "bool",
            "type!": ("mail",),
            "levels": _STRINGS,
            "options": {
                "smtp": {"addr": "string", "username": "string", "password": "secret", "insecure": "bool"},
                "from": "string",
                "to": _STRINGS,
            },
        }
    ],
}

_HTTP = {
    "addr!": "address",  # without it the server listens on a random port
    "net": ("tcp", "unix"),
    "host": "url",
    "prefix": "string",
    "secret": "secret",
    "relativeurls": "bool",
    "draintimeout": "duration",
    "tls": {
        "certificate": "string",
        "key": "string",
        "clientcas": _STRINGS,
        "minimumtls": ("tls1.0", "tls1.1", "tls1.2", "tls1.3"),
        "ciphersuites": _STRINGS,
        "letsencrypt": {"cachefile": "string", "email": "string", "hosts": _STRINGS},
    },
    "headers": _RESPONSE_HEADERS,
    # Without an address there is no debug server, and so no metrics.
    "debug": {"addr!": "address", "prometheus": {"enabled": "bool", "path": "string"}},
    "http2": {"disabled": "bool"},
}

# The drivers below "storage". At run time exactly one of them may be there.
_FILESYSTEM = {"rootdirectory": "string", "maxthreads": "int>=25"}  # the server raises less than 25 to 25
_S3 = {
    "accesskey": "secret",
    "secretkey": "secret",
    "region!": "string",
    "regionendpoint": "string",
    "bucket!": "string",
    "encrypt": "bool",
    "keyid": "string",
    "secure": "bool",
    "skipverify": "bool",
    "v4auth": "bool",
    "chunksize": "int>=5242880",
    "multipartcopychunksize": "int>=5242880",
    "multipartcopymaxconcurrency": "int>=1",
    "multipartcopythresholdsize": "int>=0",
    "rootdirectory": "string",
    "storageclass": "string",
    "useragent": "string",
    "objectacl": "string",
}
_GCS = {
    "bucket!": "string",
    "keyfile": "string",
    "credentials": {"*": "secret"},
    "rootdirectory": "string",
    "chunksize": "int>=262144",
    "maxconcurrency": "int>=25",
}
_AZURE = {"accountname!": "string", "container!": "string", "realm": "string"}
_SWIFT = {
    "username!": "string",
    "password!": "secret",
    "authurl!": "string",
    "container!": "string",
    "tenant": "string",
    "tenantid": "string",
    "domain": "string",
    "domainid": "string",
    "tenantdomain": "string",
    "tenantdomainid": "string",
    "trustid": "string",
    "region": "string",
    "authversion": "int",
    "prefix": "string",
    "endpointtype": "string",
    "insecureskipverify": "bool",
    "chunksize": "int>=1048576",
    "secretkey": "secret",
    "accesskey": "secret",
    "tempurlcontainerkey": "bool",
    "tempurlmethods": _STRINGS,
}
_OSS = {
    "accesskeyid!": "secret",
    "accesskeysecret!": "secret",
    "region!": "string",
    "bucket!": "string",
    "endpoint": "string",
    "internal": "bool",
    "encrypt": "bool",
    "secure": "bool",
    "chunksize": "int>=5242880",
    "rootdirectory": "string",
}
_LOCAL = {"filesystem": _FILESYSTEM, "inmemory": {}}

# What stands beside the driver.
_STORAGE = {
    "delete": {"enabled": "bool"},
    "redirect": {"disable!": "bool"},  # an empty section is a panic at start
    "cache": {"blobdescriptor": ("inmemory", "redis"), "layerinfo": ("inmemory", "redis")},
    "maintenance": {
        "uploadpurging": {"enabled": "bool", "age": "duration", "interval": "duration", "dryrun": "bool"},
        "readonly": {"enabled!": "bool"},
    },
}

_AUTH = {
    "htpasswd": {"realm!": "string", "path!": "string"},
    "silly": {"realm!": "string", "service!": "string"},
    "none": _ANYTHING,
}
_TOKEN = {"realm!": "string", "service!": "string", "issuer!": "string", "autoredirect": "bool"}

# Stock binaries register middlewares for storage only; the other two are for builds of one's own.
_CLOUDFRONT_AND_REDIRECT = {
    "baseurl": "string",
    "privatekey": "string",  # the path of a file
    "keypairid": "string",
    "duration": "duration",
    "ipfilteredby": ("none", "aws", "awsregion"),
    "awsregion": "string",
    "updatefrenquency": "duration",  # sic
    "iprangesurl": "string",
}
_PLUGIN = {"name!": "string", "disabled": "bool", "options": {"*": "secret"}}
_MIDDLEWARE = {"registry": [_PLUGIN], "repository": [_PLUGIN]}

_HEALTH = {
    "storagedriver": {"enabled": "bool", "interval": "duration", "threshold": "int>=0"},
    "file": [{"file!": "string", "interval": "duration", "threshold": "int>=0"}],
    "http": [
        {
            "uri!": "url",
            "headers": _REQUEST_HEADERS,
            "statuscode": "int>=100",
            "timeout": "duration",
            "interval": "duration",
            "threshold": "int>=0",
        }
    ],
    "tcp": [{"addr!": "address", "timeout": "duration", "interval": "duration", "threshold": "int>=0"}],
}

_NOTIFICATIONS = {
    "events": {"includereferences": "bool"},
    "endpoints": [
        {
            "name!": "string",
            "disabled": "bool",
            "url!": "url",
            "headers": _REQUEST_HEADERS,
            "timeout": "duration",
            "threshold": "int>=0",
            "backoff": "duration",
            "ignoredmediatypes": _STRINGS,
            "ignore": {"mediatypes": _STRINGS, "actions": _STRINGS},
        }
    ],
}

_PROXY = {"remoteurl!": "url", "username": "string", "password": "secret"}
_REDIS = {
    "password": "secret",
    "db": "int>=0",
    "dialtimeout": "duration",
    "readtimeout": "duration",
    "writetimeout": "duration",
}
_URLS = {"urls": {"allow": _STRINGS, "deny": _STRINGS}}

_REGISTRY_2 = {
    "version!": ("0.1",),
    "log": _LOG,
    "loglevel": _LEVEL,  # deprecated in favour of log.level
    "storage!": {
        **_LOCAL,
        "s3": _S3,
        "s3aws": _S3,
        "azure": {**_AZURE, "accountkey!": "secret"},
        "gcs": _GCS,
        "swift": _SWIFT,
        "oss": _OSS,
        **_STORAGE,
    },
    "auth": {**_AUTH, "token": {**_TOKEN, "rootcertbundle!": "string"}},
    "middleware": {**_MIDDLEWARE, "storage": [{**_PLUGIN, "options": _CLOUDFRONT_AND_REDIRECT}]},
    "reporting": {
        "bugsnag": {"apikey": "secret", "releasestage": "string", "endpoint": "string"},
        "newrelic": {"licensekey": "secret", "name": "string", "verbose": "bool"},
    },
    "http!": _HTTP,
    "notifications": _NOTIFICATIONS,
    "redis": {
        "addr!": "address",
        **_REDIS,
        "pool": {"maxidle": "int>=0", "maxactive": "int>=0", "idletimeout": "duration"},
    },
    "health": _HEALTH,
    "catalog": {"maxentries": "int>=1"},
    "proxy": _PROXY,
    "compatibility": {"schema1": {"signingkeyfile": "string", "enabled": "bool"}},
    "validation": {"enabled": "bool", "disabled": "bool", "manifests": _URLS},
    "policy": {"repository": {"classes": _STRINGS}},
}

_S3_V3 = {
    **_S3,
    "forcepathstyle": "bool",
    "usedualstack": "bool",
    "accelerate": "bool",
    "usefipsendpoint": "bool",
    "loglevel": (
        "off",
        "debug",
        "debugwithsigning",
        "debugwithhttpbody",
        "debugwithrequestretries",
        "debugwithrequesterrors",
        "debugwitheventstreambody",
    ),
}

_REGISTRY_3 = {
    "version!": ("0.1",),
    "log": {**_LOG, "reportcaller": "bool"},
    "loglevel": _LEVEL,
    "storage!": {
        **_LOCAL,
        "s3": _S3_V3,
        "s3aws": _S3_V3,
        "azure": {
            **_AZURE,
            "accountkey": "secret",
            "connectionstring": "secret",
            "credentials": {
                "type": ("client_secret", "shared_key", "default_credentials"),
                "clientid": "string",
                "tenantid": "string",
                "secret": "secret",
            },
            "rootdirectory": "string",
            "serviceurl": "string",
            "max_retries": "int>=0",
            "retry_delay": "duration",
            "skipverify": "bool",
        },
        "gcs": {**_GCS, "useragent": "string"},
        **_STORAGE,
        "cache": {**_STORAGE["cache"], "blobdescriptorsize": "int>=1"},
        "tag": {"concurrencylimit": "int>=0"},
    },
    "auth": {
        **_AUTH,
        "token": {
            **_TOKEN,
            "autoredirectpath": "string",
            "rootcertbundle": "string",
            "jwks": "string",
            "signingalgorithms": _STRINGS,
        },
    },
    "middleware": {
        **_MIDDLEWARE,
        "storage": [
            {
                **_PLUGIN,
                "options": {
                    **_CLOUDFRONT_AND_REDIRECT,
                    "updatefrequency": "duration",
                    "scheme": "string",
                    "host": "string",
                    "trimpathprefix": "string",
                },
            }
        ],
    },
    "http!": {
        **_HTTP,
        "tls": {
            **_HTTP["tls"],
            "clientauth": (
                "request-client-cert",
                "require-any-client-cert",
                "verify-client-cert-if-given",
                "require-and-verify-client-cert",
            ),
            "minimumtls": ("tls1.2", "tls1.3"),
            "letsencrypt": {**_HTTP["tls"]["letsencrypt"], "directoryurl": "string"},
        },
        "h2c": {"enabled": "bool"},
    },
    "notifications": _NOTIFICATIONS,
    "redis": {
        "addrs!": ["address"],
        **_REDIS,
        "username": "string",
        "clientname": "string",
        "protocol": "int>=2",
        "sentinelusername": "string",
        "sentinelpassword": "secret",
        "mastername": "string",
        "maxretries": "int",  # -1 switches retries off
        "minretrybackoff": "duration",
        "maxretrybackoff": "duration",
        "contexttimeoutenabled": "bool",
        "poolfifo": "bool",
        "poolsize": "int>=0",
        "pooltimeout": "duration",
        "minidleconns": "int>=0",
        "maxidleconns": "int>=0",
        "maxactiveconns": "int>=0",
        "connmaxidletime": "duration",
        "connmaxlifetime": "duration",
        "maxredirects": "int",
        "readonly": "bool",
        "routebylatency": "bool",
        "routerandomly": "bool",
        "disableidentity": "bool",
        "identitysuffix": "string",
        "unstableresp3": "bool",
        "tls": {"certificate": "string", "key": "string", "rootcas": _STRINGS},
    },
    "health": _HEALTH,
    "catalog": {"maxentries": "int>=1"},
    "tags": {"maxtags": "int>=1"},
    "proxy": {
        **_PROXY,
        "exec": {"command!": "string", "lifetime": "duration"},
        "ttl": "duration",  # "0s" keeps cached images for ever
        "cachewritetimeout": "duration",
    },
    "validation": {
        "enabled": "bool",
        "disabled": "bool",
        "manifests": {
            **_URLS,
            "indexes": {
                "platforms!": ("all", "none", "list"),
                "platformlist": [{"architecture": "string", "os": "string"}],
            },
        },
    },
    "policy": {"repository": {"classes": _STRINGS}},
}

# By major version of the server.
SCHEMAS = {2: _REGISTRY_2, 3: _REGISTRY_3}

# The keys below "storage" that choose a driver; all others stand beside it.
STORAGE_DRIVERS = ("filesystem", "inmemory", "s3", "s3aws", "azure", "gcs", "swift", "oss")

_COLLECT = "remove it (garbage collection is a command, run by the cleanup playbook and its timer)"
_REMEDIES = {
    "gc": _COLLECT,
    "storage.gc": _COLLECT,
    "storage.s3.sessiontoken": "remove it (the server never reads it) and give all three credentials in the "
    "container's environment: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN",
}
_OTHER_STORE = "use storage.s3 with the regionendpoint of the store, or stay with registry 2"

# By major version: the way out for wrong keys to which the key with the nearest name is no answer.
REMEDIES = {
    2: {
        **_REMEDIES,
        "redis.addrs": "use redis.addr, one host:port",
        "storage.s3.forcepathstyle": "remove it (with a regionendpoint registry 2 always uses path style)",
        "storage.cache.blobdescriptorsize": "remove it (registry 2 does not limit its cache)",
    },
    3: {
        **_REMEDIES,
        "compatibility": "remove it (registry 3 knows no schema1 images)",
        "redis.addr": "use redis.addrs, a list of host:port",
        "redis.pool": "use redis.maxidleconns, redis.poolsize and redis.connmaxidletime",
        "redis.tls.clientcas": "use redis.tls.rootcas",
        "reporting": "remove it (registry 3 reports to neither Bugsnag nor New Relic)",
        "storage.oss": _OTHER_STORE,
        "storage.swift": _OTHER_STORE,
    },
}


# --- looking things up --------------------------------------------------------------------------------------
#
# A trail is the place of a value: the keys (str) and list positions (int) that lead to it.


def fields(kind: object) -> dict:
    """Return the keys a mapping's kind knows by name, with their kinds; nothing for any other kind."""
    known = kind.items() if isinstance(kind, dict) else ()
    return {name.rstrip("!"): inner for name, inner in known if name != "*"}


def child(kind: dict, key: object) -> object:
    """Return the kind of a key in a mapping's kind, or None if the mapping does not know the key."""
    return fields(kind).get(key, kind.get("*"))


def find(kind: object, trail: tuple) -> object:
    """Return the kind at a trail below ``kind``, or None."""
    for step in trail:
        if isinstance(kind, list):
            kind = kind[0]
        else:
            kind = child(kind, step) if isinstance(kind, dict) else None
    return kind


def places(kind: object, trail: tuple = ()) -> Iterator[tuple]:
    """Yield the trails of all named keys below ``kind``, except those inside lists."""
    for name, inner in fields(kind).items():
        yield (*trail, name)
        yield from places(inner, (*trail, name))
