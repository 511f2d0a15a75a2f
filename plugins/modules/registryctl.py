#!/usr/bin/python
# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Documentation only: the work is done by the action plugin of the same name, because the program is packed on the
# controller, from the collection's own files.

from __future__ import annotations

DOCUMENTATION = r"""
module: registryctl
short_description: Install registryctl on a host
version_added: 0.1.0
description:
  - Packs the collection's core as one file that C(python3) runs, and copies it to a host. The same version of the
    collection gives the same file, so that a second run changes nothing.
  - The host needs Python 3.9 or newer, and nothing else.
author:
  - homelab.registry contributors (@homelab-registry)
extends_documentation_fragment:
  - homelab.registry.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  dest:
    description: Where the program goes.
    type: path
    default: /usr/local/bin/registryctl
  python:
    description: The host's interpreter.
    type: path
    default: /usr/bin/python3
"""

EXAMPLES = r"""
- name: Install registryctl
  homelab.registry.registryctl:
"""

RETURN = r"""
dest:
  description: Where the program is.
  returned: success
  type: str
checksum:
  description: Its SHA-1.
  returned: success
  type: str
"""
