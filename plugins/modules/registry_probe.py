#!/usr/bin/python
# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: registry_probe
short_description: Prove that a started registry is what was configured
version_added: 0.1.0
description:
  - The registry server ignores unknown and misplaced configuration keys, so that TLS, authentication or
    deletion can be off without a word. This module tries them - scheme, status with and without credentials,
    a small write, read and delete - and measures the latency of C(GET /v2/).
  - Keeps the canary image, which exists in this registry only and which nodes pull to prove their own
    configuration, in the repositories C(library/homelab-canary) and C(homelab-canary).
author:
  - homelab.registry contributors (@homelab-registry)
extends_documentation_fragment:
  - homelab.registry.attributes
attributes:
  check_mode:
    support: full
    details: Only reads then.
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  url:
    description: The registry's address as nodes use it.
    type: str
    required: true
  username:
    description: An account that may write and delete.
    type: str
  password:
    description: Its password.
    type: str
  ca_path:
    description: PEM file with the CA of the registry's certificate.
    type: path
  ca:
    description: Text of that CA in PEM, instead of O(ca_path), to see whether this one alone is enough.
    type: str
  validate_certs:
    description: Whether the certificate must be valid.
    type: bool
    default: true
  auth:
    description: Whether the registry must refuse requests without credentials.
    type: bool
    default: false
  delete:
    description: Whether it must delete; if false it must refuse to.
    type: bool
    default: true
  readonly:
    description: Whether it must refuse writes.
    type: bool
    default: false
  wait:
    description: Seconds to wait for the first answer.
    type: int
    default: 30
  timeout:
    description: Seconds one request may take.
    type: int
    default: 20
"""

EXAMPLES = r"""
- name: Is the registry what it should be
  homelab.registry.registry_probe:
    url: http://registry.home.lan:5000
"""

RETURN = r"""
checks:
  description: Every check with its result.
  returned: success
  type: list
  elements: dict
  sample: [{"name": "write, read, delete", "ok": true, "detail": "ok"}]
latency_ms:
  description: Median of C(GET /v2/) over one connection, in milliseconds.
  returned: success
  type: float
canary_digest:
  description: Digest of the canary image that nodes must see.
  returned: success
  type: str
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.oci import canary
from ansible_collections.homelab.registry.plugins.module_utils.oci.client import Registry
from ansible_collections.homelab.registry.plugins.module_utils.server import probe


def run(module):
    params = module.params
    connection = {key: params[key] for key in ("timeout", "ca_path", "validate_certs")}
    if params["ca"]:
        connection["ca_path"] = str(Path(module.tmpdir, "ca.pem"))
        Path(connection["ca_path"]).write_text(params["ca"], encoding="ascii")
    anonymous = Registry(params["url"], **connection)
    registry = Registry(params["url"], username=params["username"], password=params["password"], **connection)
    probe.wait(anonymous, params["wait"])
    probe.wait(registry, params["wait"])
    plain = None
    if params["url"].startswith("https://"):
        plain = Registry("http" + params["url"][len("https"):], timeout=params["timeout"])
    writable = not params["readonly"] and not module.check_mode
    report = probe.probe(
        registry,
        anonymous,
        auth=params["auth"],
        delete=params["delete"],
        readonly=params["readonly"],
        write=writable,
        plain=plain,
    )
    if not report.ok:
        raise HomelabError(
            f"the registry at {report.url} is not what was configured: {report.failures()}",
            remedy="look at its log and configuration; another server on this port looks like this as well",
        )
    if writable:
        for repository in report.canary_missing:
            canary.push(registry, repository)
    changed = bool(report.canary_missing) and not params["readonly"]
    return {**report.as_dict(), "changed": changed, "canary_digest": canary.digest()}


def main():
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "username": {"type": "str"},
            "password": {"type": "str", "no_log": True},
            "ca_path": {"type": "path"},
            "ca": {"type": "str"},
            "validate_certs": {"type": "bool", "default": True},
            "auth": {"type": "bool", "default": False},
            "delete": {"type": "bool", "default": True},
            "readonly": {"type": "bool", "default": False},
            "wait": {"type": "int", "default": 30},
            "timeout": {"type": "int", "default": 20},
        },
        required_together=[("username", "password")],
        supports_check_mode=True,
    )
    try:
        result = run(module)
    except HomelabError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
