#!/usr/bin/python
# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: image_mirror
short_description: Copy images from other registries into the private one
version_added: 0.1.0
description:
  - Brings the images of a list up to date in a registry, registry to registry over HTTP, without a container
    engine, with all their platforms and their digests unchanged.
  - One call takes the whole list. Tags are compared with one HEAD request on each side, so that a run that finds
    nothing new costs no pull on Docker Hub. A blob that several images share travels once, and is mounted elsewhere;
    blobs are sent before manifests and tags last, so that no tag ever points at half an image.
  - One bad image does not keep the others from being mirrored; the module fails at the end and names it.
author:
  - homelab.registry contributors (@homelab-registry)
extends_documentation_fragment:
  - homelab.registry.attributes
  - homelab.registry.access
attributes:
  check_mode:
    support: full
    details:
      - Makes the same plan as a run, with the bytes that would travel. Reading manifests of changed images counts as
        pulls on Docker Hub.
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  url:
    description: The registry that is filled, as V(http://host:port) or V(https://host:port).
    type: str
    required: true
  username:
    description: An account that may push there. Without one O(docker_config) is asked.
    type: str
  images:
    description:
      - A string with images separated by commas or blanks, or a list of strings and mappings.
      - A mapping has RV(ignore:name) and may have C(tags), C(platforms), C(optional) and C(referrers).
        C(tags) is a tag, a glob, a list of these, or a mapping with C(list), C(glob), C(regex), C(semver), C(suffix),
        C(newest) and C(exclude).
      - C(optional) images are the last to use up a rate limit, and are not missed when they are not there.
    type: raw
    required: true
  platforms:
    description:
      - Only these platforms, as V(linux/amd64) or V(linux/arm/v7), of images that do not say their own.
        Empty means all.
      - An index that loses platforms gets another digest; the one upstream is noted in it as an annotation.
    type: list
    elements: str
    default: []
  referrers:
    description: Whether signatures, attestations and SBOMs are copied as well.
    type: bool
    default: false
  short_names:
    description: Whether official images of Docker Hub also get their short name (V(node) beside V(library/node)).
    type: bool
    default: true
  name_template:
    description:
      - Another name for the copies, with the fields V({registry}), V({repository}), V({namespace}) and V({name}).
      - Nodes that use the registry as a mirror find images under their default names only.
    type: str
  workers:
    description: Requests and blobs at one time, each with 1 MiB of memory. By default 2 for each core, at most 8.
    type: int
  reserve_pulls:
    description: Pulls to leave to others on an upstream that limits them. What does not fit is reported as deferred.
    type: int
    default: 0
  prune:
    description:
      - Whether tags that were mirrored here and are gone upstream are removed.
      - Nothing is removed when the upstream has no tags at all, or when somebody else has pushed the tag since.
    type: bool
    default: false
  prune_protect:
    description: Shell patterns of tags (V(1.*)) or of V(repository:tag) that are never removed.
    type: list
    elements: str
    default: []
  prune_keep:
    description: Tags that stay in a repository at least.
    type: int
    default: 1
  upstreams:
    description: How upstreams are reached, where HTTPS without an account does not do.
    type: list
    elements: dict
    default: []
    suboptions:
      registry:
        description: Its name in an image's name, as V(docker.io), V(quay.io) or V(nas:5000).
        type: str
        required: true
      url:
        description: Another address, for instance V(http://nas:5000) for one without TLS.
        type: str
      username:
        description: An account.
        type: str
      password:
        description: Its password or token.
        type: str
      ca_path:
        description: PEM file with the CA of its certificate.
        type: path
      client_cert:
        description: PEM file with a client certificate for it.
        type: path
      client_key:
        description: PEM file with the key of the client certificate.
        type: path
      validate_certs:
        description: Whether its certificate must be valid.
        type: bool
        default: true
      timeout:
        description: Seconds for connecting and for each read or write.
        type: int
        default: 60
  docker_config:
    description:
      - A Docker client's C(config.json) with accounts or credential helpers, for registries without an account here.
      - By default the one in E(DOCKER_CONFIG) or C(~/.docker), if there is one.
    type: path
  heal:
    description:
      - Damaged images, as C(damages) of RV(homelab.registry.registry_info#module:verify). Those that are on the list,
        or that an earlier run brought, are fetched again although their tags have the right digest.
      - Content that is there but wrong stays unless it was removed before.
    type: list
    elements: dict
  state_path:
    description:
      - File that remembers which blobs and tags earlier runs left in the registry. Only a hint, except for O(prune),
        which touches nothing else.
      - By default a file for each registry in O(state_dir).
    type: path
  state_dir:
    description:
      - Directory for such files. By default C(homelab-registry) in E(XDG_STATE_HOME) or C(~/.local/state).
    type: path
  lock_path:
    description:
      - File whose lock is held during the run, on the registry host C(/var/lib/homelab-registry/lock).
      - Runs that only add images share it; with O(prune) it is taken alone, as by everything else that deletes.
    type: path
"""

EXAMPLES = r"""
- name: Two images
  homelab.registry.image_mirror:
    url: http://registry.home.lan:5000
    images: node:20-alpine, quay.io/prometheus/prometheus:v3.5.0

- name: A list, for the machines that there are
  homelab.registry.image_mirror:
    url: http://registry.home.lan:5000
    platforms: [linux/amd64, linux/arm64]
    images:
      - ubuntu:22.04
      - name: postgres
        tags: {semver: ">=16 <18", newest: 3}
      - name: ghcr.io/home-assistant/home-assistant
        tags: [stable]
        platforms: [linux/arm64]
    upstreams:
      - registry: docker.io
        username: someone
        password: "{{ vault_docker_hub_token }}"
"""

RETURN = r"""
images:
  description: Every image of the list, with what was done or, in check mode, would be done.
  returned: always, unless the registry cannot be used
  type: list
  elements: dict
  contains:
    image:
      description: The image as Docker shows it.
      type: str
      sample: node:20-alpine
    action:
      description:
        - V(unchanged), V(copied), V(would copy), V(failed) or V(deferred).
        - An image is deferred when its upstream's rate limit is used up, or when it is optional and not there.
      type: str
      sample: copied
    reason:
      description: Why it failed or is deferred, and what to do.
      type: str
    targets:
      description: Its names in the registry.
      type: list
      elements: str
      sample: ["library/node:20-alpine", "node:20-alpine"]
    digest:
      description: Its digest in the registry.
      type: str
    source_digest:
      description: Its digest upstream; another one if platforms were left out.
      type: str
    before:
      description: Digest by repository before the run.
      type: dict
    damaged:
      description: Repositories in which it was damaged (O(heal)).
      type: list
      elements: str
    transfer_bytes:
      description: Bytes that have to come from upstream. What several images share counts for the first.
      type: int
    mount_bytes:
      description: Bytes that the registry has, or gets for another image.
      type: int
    transferred_bytes:
      description: Bytes that came from upstream.
      type: int
    mounted_bytes:
      description: Bytes that were mounted.
      type: int
    seconds:
      description: How long it took.
      type: float
    notes:
      description: What is worth knowing though nothing failed.
      type: list
      elements: str
pruned:
  description: Mirrored tags that are gone upstream, with what was done to them and why.
  returned: always, unless the registry cannot be used
  type: list
  elements: dict
  sample: [{"repository": "library/node", "tag": "19", "digest": "sha256:…", "action": "pruned", "reason": null}]
transfer_bytes:
  description: Bytes that have to come from upstreams.
  returned: always, unless the registry cannot be used
  type: int
transferred_bytes:
  description: Bytes that came from upstreams.
  returned: always, unless the registry cannot be used
  type: int
mounted_bytes:
  description: Bytes that did not have to.
  returned: always, unless the registry cannot be used
  type: int
source_requests:
  description: Requests to upstreams by method. Docker Hub counts a GET of a manifest as a pull, a HEAD not.
  returned: always, unless the registry cannot be used
  type: dict
  sample: {"HEAD": 12}
"""

from contextlib import nullcontext

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.homelab.registry.plugins.module_utils import arguments, lock
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.mirroring.run import prepare


def main():
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            **arguments.access(),
            "images": {"type": "raw", "required": True},
            "platforms": {"type": "list", "elements": "str", "default": []},
            "referrers": {"type": "bool", "default": False},
            "short_names": {"type": "bool", "default": True},
            "name_template": {"type": "str"},
            "workers": {"type": "int"},
            "reserve_pulls": {"type": "int", "default": 0},
            "prune": {"type": "bool", "default": False},
            "prune_protect": {"type": "list", "elements": "str", "default": []},
            "prune_keep": {"type": "int", "default": 1},
            "upstreams": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "registry": {"type": "str", "required": True},
                    "url": {"type": "str"},
                    **arguments.access(),
                },
            },
            "docker_config": {"type": "path"},
            "heal": {"type": "list", "elements": "dict"},
            "state_path": {"type": "path"},
            "state_dir": {"type": "path"},
            "lock_path": {"type": "path"},
        },
        supports_check_mode=True,
    )
    try:
        request = prepare(module.params)
        path = None if module.check_mode else module.params["lock_path"]
        with lock.hold(path, exclusive=module.params["prune"]) if path else nullcontext():
            report = request.run(check=module.check_mode)
    except HomelabError as error:
        module.fail_json(msg=str(error))
    result = {**report.as_dict(), "diff": report.diff()}
    failures = []
    if report.failed:
        names = "; ".join(f"{one['image']}: {one['reason']}" for one in report.failed)
        failures.append(f"{len(report.failed)} of {len(report.images)} images failed: {names}")
    for one in report.pruned:
        if one["action"] == "failed":
            failures.append(f"{one['repository']}:{one['tag']} could not be removed: {one['reason']}")
    if failures:
        module.fail_json(msg="; ".join(failures), **result)
    for one in report.deferred:
        module.warn(f"{one['image']} is deferred: {one['reason']}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
