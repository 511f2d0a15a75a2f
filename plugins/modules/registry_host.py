#!/usr/bin/python
# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: registry_host
short_description: See whether a host without Python can hold the registry
version_added: 0.1.0
description:
  - First contact with a host that has a Docker engine and perhaps nothing else, such as a NAS. One call of its shell
    tells machine, engine, disks and memory; the module says what speaks against the host, finds the directory for
    the registry on its largest lasting volume, and derives how much of the machine the registry may take.
  - Runs on the controller.
author:
  - homelab.registry contributors (@homelab-registry)
extends_documentation_fragment:
  - homelab.registry.attributes
attributes:
  check_mode:
    support: full
    details: It only reads.
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  shell:
    description: The words that run one more word as a script in the host's shell, such as OpenSSH with its options and
      the target.
    type: list
    elements: str
    required: true
  container:
    description: Name of the registry's container. Where one is there already, its directory is kept.
    type: str
    default: registry
  home:
    description: Directory of everything. It is looked for if this is empty.
    type: str
    default: ''
  data_path:
    description: Directory of the images, or the name of a Docker volume, if it is not C(data) in the directory of
      everything.
    type: str
    default: ''
  min_free:
    description: Space a new registry must find.
    type: str
    default: 1G
  timeout:
    description: Seconds the host may take to answer.
    type: int
    default: 60
"""

EXAMPLES = r"""
- name: Can the NAS hold the registry
  homelab.registry.registry_host:
    shell: [ssh, -o, BatchMode=yes, sshd@192.168.1.10]
  delegate_to: localhost
  register: nas
"""

RETURN = r"""
report:
  description: What was seen, for people.
  returned: always, if the host answered
  type: list
  elements: str
  sample:
    - machine   x86_64, Linux 4.14.22, 4 cores, 3.8 GiB of memory (2.9 GiB available), as sshd (uid 0)
    - images    /shares/Volume_1/registry, found - /shares/Volume_1 on /dev/md1 (ext4), 2.9 TiB of 4.9 TiB free
home:
  description: The directory for everything.
  returned: success
  type: str
  sample: /shares/Volume_1/registry
limits:
  description: What fits this machine.
  returned: success
  type: dict
  sample: {memory: 960m, jobs_memory: 960m, storage_max_threads: 48, mirror_workers: 4}
memory_limits:
  description: Whether its kernel can limit the memory of a container.
  returned: success
  type: bool
time_zone:
  description: The host's time zone as the variable C(TZ) takes it; empty for UTC.
  returned: success
  type: str
  sample: CET-1CEST,M3.5.0,M10.5.0/3
python:
  description: Its Python, if it has one (from Entware, say).
  returned: success
  type: str
  sample: /opt/bin/python3
"""

import re
import subprocess

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.server import host_probe


def main():
    module = AnsibleModule(
        argument_spec={
            "shell": {"type": "list", "elements": "str", "required": True},
            "container": {"type": "str", "default": "registry"},
            "home": {"type": "str", "default": ""},
            "data_path": {"type": "str", "default": ""},
            "min_free": {"type": "str", "default": "1G"},
            "timeout": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    options = module.params
    number = re.fullmatch(r"(\d+)([KMGT]?)i?B?", options["min_free"], re.IGNORECASE)
    if not number:
        module.fail_json(msg=f"min_free is {options['min_free']!r}: write it like 500M or 2G")
    min_free = int(number[1]) << {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}[number[2].upper()]
    target = options["shell"][-1]
    try:
        script = host_probe.script(options["container"], options["home"], options["data_path"])
    except HomelabError as error:
        module.fail_json(msg=str(error))
    try:
        done = subprocess.run(
            [*options["shell"], script],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=options["timeout"],
        )
    except subprocess.TimeoutExpired:
        module.fail_json(msg=host_probe.explain_ssh(target, f"no answer in {options['timeout']} s: timed out"))
    except OSError as error:
        module.fail_json(msg=f"{options['shell'][0]} cannot be run here: {error.strerror}; install OpenSSH's client")
    host = host_probe.parse(done.stdout)
    if done.returncode == 255 and not host.complete:
        module.fail_json(msg=host_probe.explain_ssh(target, done.stderr))
    volume = bool(options["data_path"]) and not options["data_path"].startswith("/")
    verdict = host_probe.judge(host, options["home"], volume=volume, min_free=min_free)
    for text in verdict.warnings:
        module.warn(text)
    if verdict.refusals:
        reasons = "\n".join(f"- {text}" for text in verdict.refusals)
        seen = "\n".join(f"  {line}" for line in verdict.report)
        module.fail_json(
            msg=f"{target} cannot hold the registry:\n{reasons}\nWhat was seen:\n{seen}", report=verdict.report
        )
    module.exit_json(
        changed=False,
        report=verdict.report,
        home=verdict.home,
        limits=verdict.limits,
        memory_limits=host.info.get("MemoryLimit") is not False,
        time_zone=host.time_zone,
        python=host.python,
    )


if __name__ == "__main__":
    main()
