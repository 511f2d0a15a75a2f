#!/usr/bin/python
# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: docker_logins
short_description: Keep a user's Docker logins
version_added: 0.1.0
description:
  - Brings logins into C(~/.docker/config.json) of a user, without C(docker login), so that no engine and no registry
    has to answer. Logins for other registries stay; a login of an earlier run that is no longer wanted goes.
author:
  - homelab.registry contributors (@homelab-registry)
extends_documentation_fragment:
  - homelab.registry.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details: Passwords are masked.
  idempotent:
    support: full
options:
  user:
    description: Whose logins, a user of the node.
    type: str
    default: root
  path:
    description: The file. By default C(.docker/config.json) in the user's home directory.
    type: path
  logins:
    description: The logins.
    type: list
    elements: dict
    default: []
    suboptions:
      registry:
        description: The registry, as V(host:port).
        type: str
        required: true
      username:
        description: The account.
        type: str
        required: true
      password:
        description: Its password.
        type: str
        required: true
  overlap:
    description: Only add; logins that are there stay as they are until a call without this option.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Root can pull
  homelab.registry.docker_logins:
    logins:
      - registry: registry.home.lan:5000
        username: nodes
        password: "{{ vault_nodes_password }}"
"""

RETURN = r"""
path:
  description: The file.
  returned: success
  type: str
"""

import os
import pwd
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.homelab.registry.plugins.module_utils import text_file
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.nodes import docker_config, files


def run(module):
    params = module.params
    try:
        user = pwd.getpwnam(params["user"])
    except KeyError as error:
        raise HomelabError(
            f"there is no user {params['user']} on this node", remedy="correct docker_client_login_users"
        ) from error
    path = params["path"] or f"{user.pw_dir}/.docker/config.json"
    note = files.owned_path(path)
    owned = files.parse_owned(text_file.read_text(note))
    plan = docker_config.plan(
        text_file.read_text(path), path, params["logins"], owned.get("auths") or [], params["overlap"]
    )
    if not module.check_mode:
        if plan.changed:
            _write(path, plan.after, user)
        if plan.owned != (owned.get("auths") or []):
            _write(note, files.dump_owned({"auths": plan.owned}), user)
    diff = {"before": plan.before_shown, "after": plan.after_shown, "before_header": path, "after_header": path}
    return {"changed": plan.changed, "path": path, "diff": diff, "warnings": plan.warnings}


def _write(path, text, user):
    """Readable by its owner only, from the first byte."""
    folder = Path(path).parent
    if not folder.exists():
        folder.mkdir(mode=0o700, parents=True)
        os.chown(folder, user.pw_uid, user.pw_gid)
    text_file.write_atomic(path, text, 0o600)
    os.chown(path, user.pw_uid, user.pw_gid)
    Path(path).chmod(0o600)


def main():
    login = {
        "registry": {"type": "str", "required": True},
        "username": {"type": "str", "required": True},
        "password": {"type": "str", "required": True, "no_log": True},
    }
    module = AnsibleModule(
        argument_spec={
            "user": {"type": "str", "default": "root"},
            "path": {"type": "path"},
            "logins": {"type": "list", "elements": "dict", "default": [], "options": login},
            "overlap": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    try:
        result = run(module)
    except HomelabError as error:
        module.fail_json(msg=str(error))
    for warning in result.pop("warnings"):
        module.warn(warning)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
