#!/usr/bin/python
# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: docker_logins
short_description: Keep the Docker logins of users
version_added: 0.1.0
description:
  - Brings logins into C(~/.docker/config.json) of users, without C(docker login), so that no engine and no registry
    has to answer. Logins for other registries stay; a login of an earlier run that is no longer wanted goes, and so
    does that of a user who is not listed any more.
  - Each file is read and written with the rights of its user, so that a link in a home directory leads nowhere where
    the user could not have written.
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
  users:
    description: Whose logins, users of the node.
    type: list
    elements: str
    default: [root]
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
paths:
  description: The files that were written.
  returned: success
  type: list
  elements: str
"""

import contextlib
import os
import pwd
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.homelab.registry.plugins.module_utils import text_file
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.nodes import docker_config, files


def run(params, check_mode):
    """Bring the files of all users in line; what the module returns."""
    accounts = [_account(name) for name in params["users"]]
    diffs, warnings = [], []
    for user in accounts + _former(accounts):
        with _rights_of(user):
            done = _bring_in_line(user, params["logins"] if user in accounts else [], params["overlap"], check_mode)
        warnings += done.warnings
        if done.changed:
            shown = {"before": done.before_shown, "after": done.after_shown}
            diffs.append({**shown, "before_header": done.path, "after_header": done.path})
    paths = [diff["after_header"] for diff in diffs]
    return {"changed": bool(diffs), "paths": paths, "diff": diffs, "warnings": warnings}


def _account(name):
    try:
        return pwd.getpwnam(name)
    except KeyError as error:
        raise HomelabError(
            f"there is no user {name} on this node", remedy="correct docker_client_login_users"
        ) from error


def _path(user):
    return f"{user.pw_dir}/.docker/config.json"


def _former(accounts):
    """Users who are not listed any more, but have our note of an earlier run beside their file."""
    listed = {_path(user) for user in accounts}
    found = {}
    for user in pwd.getpwall():
        with contextlib.suppress(OSError):  # most have none
            # some accounts of the system share a home with root
            if _path(user) not in listed and Path(files.owned_path(_path(user))).stat().st_uid == user.pw_uid:
                found[_path(user)] = user
    return list(found.values())


@contextlib.contextmanager
def _rights_of(user):
    """Only what this user may; who is not root has no other rights anyway."""
    if os.geteuid() != 0 or user.pw_uid == 0:
        yield
        return
    groups, group = os.getgroups(), os.getegid()
    os.initgroups(user.pw_name, user.pw_gid)
    os.setegid(user.pw_gid)
    os.seteuid(user.pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)


def _bring_in_line(user, logins, overlap, check_mode):
    path = _path(user)
    note = files.owned_path(path)
    owned = files.parse_owned(text_file.read_text(note)).get("auths") or []
    plan = docker_config.plan(text_file.read_text(path), path, logins, owned, overlap)
    if not check_mode:
        if plan.changed:
            _write(path, plan.after)
        if plan.owned != owned:
            _write(note, files.dump_owned({"auths": plan.owned}))
    return plan


def _write(path, text):
    """Readable by its owner only, from the first byte."""
    Path(path).parent.mkdir(mode=0o700, exist_ok=True)
    text_file.write_atomic(path, text, 0o600)
    Path(path).chmod(0o600)


def main():
    login = {
        "registry": {"type": "str", "required": True},
        "username": {"type": "str", "required": True},
        "password": {"type": "str", "required": True, "no_log": True},
    }
    module = AnsibleModule(
        argument_spec={
            "users": {"type": "list", "elements": "str", "default": ["root"]},
            "logins": {"type": "list", "elements": "dict", "default": [], "options": login},
            "overlap": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    try:
        result = run(module.params, module.check_mode)
    except HomelabError as error:
        module.fail_json(msg=str(error))
    for warning in result.pop("warnings"):
        module.warn(warning)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
