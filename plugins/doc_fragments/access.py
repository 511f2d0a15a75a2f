# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a module reaches a registry, beside its address and the account's name; the spec is module_utils/arguments.py."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  password:
    description: The account's password.
    type: str
  ca_path:
    description: PEM file with the CA of the registry's certificate.
    type: path
  client_cert:
    description: PEM file with a client certificate for it.
    type: path
  client_key:
    description: PEM file with the key of O(client_cert).
    type: path
  validate_certs:
    description: Whether the registry's certificate must be valid.
    type: bool
    default: true
  timeout:
    description: Seconds for connecting and for each read or write.
    type: int
    default: 60
"""
