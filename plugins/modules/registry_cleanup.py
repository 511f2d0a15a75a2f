#!/usr/bin/python
# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: registry_cleanup
short_description: Delete the images of a registry that a policy lets go
version_added: 0.1.0
description:
  - Makes one plan for the whole registry, and carries it out. Everything in the policy says what to keep; a tag goes
    only if nothing keeps it, a manifest only if all its tags go and nothing that stays needs it. Children of an index
    and signatures go and stay with what they belong to.
  - Where the registry's directory is at hand, which O(host) says, it is read from there, with the times of pushes and
    with manifests without a tag; and the garbage is collected afterwards, as by M(homelab.registry.registry_gc).
    Elsewhere everything is asked over the API.
  - Each deletion is preceded by another look. What was pushed meanwhile, or is part of it, stays.
  - A plan that empties a repository, or removes more than RV(ignore:max_delete_share) of all tags, is refused unless it
    is forced.
author:
  - homelab.registry contributors (@homelab-registry)
extends_documentation_fragment:
  - homelab.registry.attributes
  - homelab.registry.access
attributes:
  check_mode:
    support: full
    details: Makes the very plan of a run.
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  url:
    description: The registry's address, as V(http://host:port) or V(https://host:port).
    type: str
    required: true
  username:
    description: An account that may delete there.
    type: str
  policy:
    description: What stays. Without O(policy.keep_last) and O(policy.max_age) no tag goes.
    type: dict
    default: {}
    suboptions:
      keep_last:
        description: So many of the newest images of each group stay. A number of 1 or more.
        type: raw
      max_age:
        description: What is younger stays, in days. With O(policy.keep_last) a tag goes only if both let it go.
        type: raw
      keep_min:
        description: So many images of a repository stay whatever the rest says; 1 if it is not set.
        type: raw
      group:
        description:
          - V(minor), the tags that have the first two numbers of their version in common; or a regular expression whose
            groups name a tag's group.
        type: str
      age_by:
        description: Which time counts, V(pushed), V(created), or V(newest) of both, as if it is not set.
        type: str
      untagged_grace:
        description: Manifests without a tag stay for so many days; 7 if it is not set.
        type: raw
      protect:
        description:
          - What always stays. A list of shell patterns of V(tag) or V(repository:tag) and of digests, or a dictionary
            with the lists V(tags), V(regex) and V(digests).
        type: raw
      rules:
        description:
          - What is different in some repositories. Dictionaries with C(repositories) (shell patterns) and any of the
            above. The numbers are those of the first rule that matches; protection adds up.
        type: list
        elements: dict
      in_use:
        description: Digests that run somewhere, of manifests or of configurations (image IDs).
        type: raw
      max_delete_share:
        description: Part of all tags, from 0 to 1, that may be removed without O(policy.force); 0.5 if it is not set.
        type: raw
      force:
        description: Remove more than that, and empty repositories, if the rest of the policy says so.
        type: bool
  gc:
    description: Whether the garbage is collected afterwards. Without it no space becomes free.
    type: bool
    default: true
  host:
    description: How the registry's container is reached, if it runs on this host. Without it the API must do.
    type: dict
    suboptions:
      docker_host:
        description: Socket of the engine that runs it.
        type: str
        default: unix:///var/run/docker.sock
      container:
        description: Its name.
        type: str
        default: registry
      data_path:
        description: Directory with the registry's data. By default the one that the container has mounted.
        type: path
      config_path:
        description: Directory with the registry's configuration. By default the one that the container has mounted.
        type: path
      redis:
        description: How this host reaches the registry's cache in Redis, if not as its configuration says.
        type: dict
        suboptions:
          addr:
            description: Its address, as V(host:port).
            type: str
          username:
            description: An account of it.
            type: str
          password:
            description: Its password.
            type: str
          db:
            description: Number of the registry's database.
            type: int
  used:
    description:
      - What the nodes said, by their names, C(digests) as the module M(homelab.registry.images_in_use) returns them, or
        C(failure), the reason why a node could not be asked.
    type: dict
    default: {}
  nodes:
    description:
      - All nodes that use the registry. Of one that could not be asked, what it used when last asked stays, and with it
        everything in the same repositories; if it was never asked, nothing goes. By default those that were asked.
    type: list
    elements: str
  in_use_path:
    description: File that remembers what the nodes said, for runs that cannot ask them.
    type: path
  in_use_days:
    description: An answer counts for so many days; a node that gave none since is as one that cannot be asked.
    type: float
    default: 30
  state_dir:
    description: Directory for what is remembered between runs.
    type: path
  lock_path:
    description:
      - File whose lock is held during the run. With O(host) it is C(lock) in O(state_dir) by default.
    type: path
"""

EXAMPLES = r"""
- name: What would go
  homelab.registry.registry_cleanup:
    url: http://registry.home.lan:5000
    policy:
      keep_last: 5
      max_age: 30
  check_mode: true
  diff: true

- name: Clean up on the registry host, and free the space
  homelab.registry.registry_cleanup:
    url: http://localhost:5000
    host:
      container: registry
    state_dir: /var/lib/homelab-registry
    lock_path: /var/lib/homelab-registry/lock
    policy:
      keep_last: 10
      max_age: 60
      protect: [latest, "v*.0"]
      rules:
        - repositories: ci/*
          keep_last: 3
          max_age: 7
          group: "^(.+)-[0-9]+$"
"""

RETURN = r"""
items:
  description: Every tag, and every manifest without one, that does not stay.
  returned: always, unless the registry cannot be used
  type: list
  elements: dict
  contains:
    repository:
      description: Its repository.
      type: str
    tag:
      description: The tag; null for a manifest without one.
      type: str
    digest:
      description: The manifest.
      type: str
    age:
      description: Seconds; null if nobody knows.
      type: int
    age_source:
      description: Which time the age is from, V(pushed) or V(created).
      type: str
    freed:
      description: Bytes that go because of it alone. Each byte is counted once.
      type: int
    action:
      description: V(delete), with its manifest, or V(tag only), since another tag on it stays.
      type: str
    rule:
      description: What decided.
      type: str
    result:
      description:
        - V(would delete), V(would remove the tag), V(deleted), V(tag removed), V(refused), V(skipped), V(failed), or
          V(left), a single tag that this server cannot remove.
      type: str
    reason:
      description: Why it was not as planned.
      type: str
tags:
  description: Number of tags by what is planned for them, V(keep), V(delete), V(tag only).
  returned: always, unless the registry cannot be used
  type: dict
manifests:
  description: Number of manifests that are planned to go, with children and signatures.
  returned: always, unless the registry cannot be used
  type: int
freed:
  description: Bytes that a garbage collection frees because of them.
  returned: always, unless the registry cannot be used
  type: int
refused:
  description: Why the plan was not carried out; null if it was.
  returned: always, unless the registry cannot be used
  type: str
trouble:
  description: Why the run did not come to its end; null if it did.
  returned: always, unless the registry cannot be used
  type: str
garbage:
  description: What the garbage collection did, as M(homelab.registry.registry_gc) returns it; null if there was none.
  returned: always, unless the registry cannot be used
  type: dict
notes:
  description: What you should know, such as settings without an effect and nodes that could not be asked.
  returned: always, unless the registry cannot be used
  type: list
  elements: str
source:
  description: Where the registry was read, its directory or its address.
  returned: always, unless the registry cannot be used
  type: str
"""

from contextlib import nullcontext

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.homelab.registry.plugins.module_utils import arguments, lock
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.report.cleanup import outcome_line
from ansible_collections.homelab.registry.plugins.module_utils.retention.run import prepare


def argument_spec():
    raw = {"type": "raw"}
    return {
        "url": {"type": "str", "required": True},
        **arguments.access(),
        "policy": {
            "type": "dict",
            "default": {},
            "options": {
                "keep_last": raw,
                "max_age": raw,
                "keep_min": raw,
                "group": {"type": "str"},
                "age_by": {"type": "str"},
                "untagged_grace": raw,
                "protect": raw,
                "rules": {"type": "list", "elements": "dict"},
                "in_use": raw,
                "max_delete_share": raw,
                "force": {"type": "bool"},
            },
        },
        "gc": {"type": "bool", "default": True},
        "host": {
            "type": "dict",
            "options": {
                **arguments.container(),
            },
        },
        "used": {"type": "dict", "default": {}},
        "nodes": {"type": "list", "elements": "str"},
        "in_use_path": {"type": "path"},
        "in_use_days": {"type": "float", "default": 30},
        "state_dir": {"type": "path"},
        "lock_path": {"type": "path"},
    }


def _lock(params):
    path = params["lock_path"] or (params["host"] and f"{params['state_dir'] or lock.STATE_DIR}/lock")
    return lock.hold(path, exclusive=True, verb="registry_cleanup") if path else nullcontext()


def main():
    module = AnsibleModule(
        argument_spec=argument_spec(),
        required_together=[("username", "password"), ("client_cert", "client_key")],
        supports_check_mode=True,
    )
    try:
        with nullcontext() if module.check_mode else _lock(module.params):
            report = prepare(module.params).run(check=module.check_mode)
    except HomelabError as error:
        module.fail_json(msg=str(error))
    result = {**report.as_dict(), "diff": report.diff()}
    failures = [report.refused, report.trouble, *map(outcome_line, report.failed)]
    if any(failures):
        module.fail_json(msg="; ".join(filter(None, failures)), **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
