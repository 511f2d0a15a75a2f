# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Under which repositories of the mirror an upstream's image lies: where its clients look for it.

docker.io          node            -> library/node (what Docker and containerd ask a mirror for) and node
docker.io          bitnami/redis   -> bitnami/redis
quay.io            prometheus/prometheus -> quay.io/prometheus/prometheus
nas.lan:5000       app             -> nas.lan_5000/app
[fd00::1]:5000     app             -> fd00_0_0_0_0_0_0_1_5000/app

A colon cannot be in a repository name; `_` can, but in no host name, so that no other host is spelled so.
"""

from __future__ import annotations

import re
import string

from ..errors import HomelabError
from ..oci.reference import HUB, Reference, registry_path, repository_fault

#: Characters of a repository name (distribution's limit).
MAX_REPOSITORY = 255
TEMPLATE_FIELDS = ("registry", "repository", "namespace", "name")

#: First parts that `registry_path` gives to other upstreams. No Hub namespace is one of them (they consist of
#: letters and digits, some old ones have - or _), but a reference can say so.
_UPSTREAM_PATH = re.compile(r"localhost|.*\..*|.*_[0-9]{1,5}|[0-9a-f]{1,4}(_[0-9a-f]{1,4}){7}")


def target_repositories(reference: Reference, template: str | None = None, alias: bool = True) -> list[str]:
    """The repositories of the mirror that an image goes into; the first is the one that is copied to.

    Args:
        reference: the upstream's image; tag and digest play no part.
        template: how to name the one repository instead, with the fields {registry} (as `registry_path`
            writes it), {repository} (library/node), {namespace} (library) and {name} (node).
        alias: add the short name of an official Docker Hub image, for `FROM mirror:5000/node`.

    Raises:
        HomelabError: the template is not one, the result is no repository name, or a Docker Hub repository
            would lie where another upstream's images do.
    """
    if template is not None:
        return [_from_template(reference, template)]
    if reference.registry != HUB:
        targets = [f"{registry_path(reference.registry)}/{reference.repository}"]
    else:
        namespace, slash, name = reference.repository.partition("/")
        if _UPSTREAM_PATH.fullmatch(namespace):
            raise HomelabError(
                f"{reference} would lie in the mirror where the images of the registry {namespace} do",
                remedy=f"if you mean that registry, write {namespace}/{name}; Docker Hub has no such namespace",
            )
        targets = [reference.repository]
        if alias and namespace == "library" and "/" not in name:
            targets.append(name)
    for target in targets:
        _check(target, f"the name {target!r} in the mirror of {reference.name}")
    return targets


def collisions(targets: list[tuple[Reference, list[str]]]) -> list[str]:
    """What would overwrite each other: different images that go to the same repository and tag.

    Args:
        targets: each image, with its tag or digest, and its repositories as `target_repositories` gives them.

    Returns:
        One sentence for each pair; empty when there is none.
    """
    taken, messages = {}, []
    for reference, repositories in targets:
        # By digest alone the content decides: the same digest is the same image, wherever it comes from.
        if reference.tag is None and reference.digest:
            continue
        for repository in repositories:
            place = f"{repository}:{reference.tag or 'latest'}"
            other = taken.setdefault(place, reference)
            if (other.name, other.digest) != (reference.name, reference.digest):
                messages.append(f"{other.familiar} and {reference.familiar} would both be {place} in the mirror")
    return messages


def _from_template(reference: Reference, template: str) -> str:
    namespace, slash, name = reference.repository.rpartition("/")
    values = dict(zip(TEMPLATE_FIELDS, (registry_path(reference.registry), reference.repository, namespace, name)))
    shown = f"the name template {template!r}"
    known = ", ".join(f"{{{field}}}" for field in TEMPLATE_FIELDS)
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise HomelabError(f"{shown} has a brace out of place: {error}", remedy=f"its fields are {known}") from error
    for _text, field, spec, conversion in parts:
        if field is not None and field not in TEMPLATE_FIELDS:
            raise HomelabError(f"{shown} has the unknown field {{{field}}}", remedy=f"its fields are {known}")
        if spec or conversion:
            raise HomelabError(f"{shown} has a conversion or format in {{{field}}}", remedy=f"write {{{field}}}")
    target = template.format(**values)
    _check(target, f"{shown} names {reference.name} {target!r}, which")
    return target


def _check(target: str, subject: str) -> None:
    fault = repository_fault(target)
    if len(target) > MAX_REPOSITORY:
        fault = f"it has {len(target)} characters, {MAX_REPOSITORY} are allowed"
    if fault:
        raise HomelabError(f"{subject} is no repository name: {fault}", remedy="name it by a template that fits")
