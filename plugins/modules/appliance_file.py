#!/usr/bin/python
# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: appliance_file
short_description: Write a file on a host without Python
version_added: 0.1.0
description:
  - Compares and writes a text file over a shell, BusyBox's too, such as the one OpenSSH gives on a NAS. The file is
    replaced at once. Runs on the controller.
author:
  - homelab.registry contributors (@homelab-registry)
extends_documentation_fragment:
  - homelab.registry.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  shell:
    description: The words that run one more word as a script in the host's shell, such as OpenSSH with its options and
      the target.
    type: list
    elements: str
    required: true
  path:
    description: The file.
    type: str
    required: true
  content:
    description: Its content.
    type: str
    required: true
  mode:
    description: Its mode.
    type: str
    default: '0644'
  timeout:
    description: Seconds the host may take to answer.
    type: int
    default: 60
"""

EXAMPLES = r"""
- name: Write a file on the NAS
  homelab.registry.appliance_file:
    shell: [ssh, -o, BatchMode=yes, sshd@192.168.1.10]
    path: /shares/Volume_1/registry/note
    content: "hello\n"
  delegate_to: localhost
"""

RETURN = r"""
path:
  description: The file.
  returned: success
  type: str
"""

import re
import shlex
import subprocess

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.homelab.registry.plugins.module_utils.server.host_probe import explain_ssh


def main():
    module = AnsibleModule(
        argument_spec={
            "shell": {"type": "list", "elements": "str", "required": True},
            "path": {"type": "str", "required": True},
            "content": {"type": "str", "required": True},
            "mode": {"type": "str", "default": "0644"},
            "timeout": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    path, content = module.params["path"], module.params["content"]
    mode = module.params["mode"].lstrip("0")
    if not re.fullmatch("[0-7]{3}", mode):
        module.fail_json(msg=f"mode is {module.params['mode']!r}: write it like '0644'")
    file = shlex.quote(path)

    def call(script, given=""):
        try:
            done = subprocess.run(
                [*module.params["shell"], script],
                input=given,
                capture_output=True,
                text=True,
                check=False,
                timeout=module.params["timeout"],
            )
        except subprocess.TimeoutExpired:
            module.fail_json(msg=explain_ssh(module.params["shell"][-1], "timed out"))
        if done.returncode == 255:
            module.fail_json(msg=explain_ssh(module.params["shell"][-1], done.stderr))
        if done.returncode:
            module.fail_json(msg=f"{path} cannot be written: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    # the mode in a line of its own, then the file; nothing at all if there is none
    seen = call(f"test ! -e {file} || {{ stat -c %a {file} && cat {file}; }}")
    found_mode, newline, before = seen.partition("\n")
    changed = not newline or before != content or found_mode != mode
    if changed and not module.check_mode:
        new = shlex.quote(f"{path}.new")
        call(
            f"mkdir -p {shlex.quote(path.rpartition('/')[0] or '/')} && (umask 077; cat >{new}) && chmod {mode} {new}"
            f" && mv -f {new} {file}",
            content,
        )
    module.exit_json(
        changed=changed,
        path=path,
        diff={"before_header": path, "after_header": path, "before": before, "after": content},
    )


if __name__ == "__main__":
    main()
