#!/usr/bin/python
# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Documentation only: the work is done by the action plugin of the same name, because parsing YAML needs a
# library that the controller has and a target may not have.

from __future__ import annotations

DOCUMENTATION = r"""
module: registries_yaml
short_description: Make a k3s node use a registry
version_added: 0.1.0
description:
  - Brings mirrors and configs into k3s' C(registries.yaml). Entries of others survive, in their order; those
    that an earlier run of this module added and that are no longer wanted are removed (they are noted in
    C(homelab-registry.json) beside the file).
  - The file is judged as k3s' own parser would, before and after. One that would keep k3s from starting is
    never written, and never left unmentioned. Keys that k3s would silently ignore are reported as warnings.
  - k3s reads the file at its start only; this module does not restart it.
author:
  - homelab.registry contributors (@homelab-registry)
extends_documentation_fragment:
  - homelab.registry.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details: Passwords and tokens are masked.
  idempotent:
    support: full
options:
  path:
    description: The file. RKE2 has C(/etc/rancher/rke2/registries.yaml), in the same format.
    type: path
    default: /etc/rancher/k3s/registries.yaml
  mirrors:
    description:
      - Upstream host name to a dictionary with C(endpoint), a list of URLs that are asked before those of others.
      - An empty dictionary removes those added before.
    type: dict
    default: {}
  configs:
    description: V(host:port) of an endpoint to a dictionary with C(tls) and C(auth).
    type: dict
    default: {}
  overlap:
    description: Only add, while a registry changes over; what an earlier call added stays.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Docker Hub and Quay images come from the registry
  homelab.registry.registries_yaml:
    mirrors:
      docker.io:
        endpoint: ["http://registry.home.lan:5000"]
      quay.io:
        endpoint: ["http://registry.home.lan:5000/v2/quay.io"]
  register: registries_yaml

- name: Restart k3s if something changed
  ansible.builtin.service:
    name: k3s
    state: restarted
  when: registries_yaml is changed
"""

RETURN = r"""
backup:
  description: Copy of the file as it was, on the node, if one was replaced.
  returned: when a file was replaced
  type: str
"""
