# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The images that a node's containers were made from, running or not, as digests.

An engine's image ID is the digest of the image's configuration; with Docker's containerd store it is that of a
manifest or index. The digests that an image was pulled by are those of the manifest or index in the registry. All of
them are told, so that whoever compares them with a registry finds the image by one of them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterable

from ..engine import Engine
from ..errors import HomelabError
from ..oci.manifest import digest_fault

#: Where k3s lies if it is not in the path; sudo's path often lacks /usr/local/bin.
K3S = ("/usr/local/bin/k3s", "/opt/bin/k3s", "/usr/bin/k3s")
K3S_DATA = "/var/lib/rancher/k3s/agent"
TIMEOUT = 60


def docker_images_in_use(engine: Engine) -> list[str]:
    """Digests of the images of all containers of an engine.

    Raises:
        HomelabError: the engine does not answer.
    """
    found, ids = set(), set()
    for container in engine.containers():
        ids.add(container.get("ImageID"))
        found |= _digests([container.get("Image"), (container.get("ImageManifestDescriptor") or {}).get("digest")])
    found |= _digests(ids)
    for identity in sorted(filter(None, ids)):
        image = engine.image(identity)  # None: it was removed by force, and its containers go on
        if image is not None:
            found |= _digests([image.get("Id"), *(image.get("RepoDigests") or ())])
            found |= _digests([(image.get("Descriptor") or {}).get("digest")])
    return sorted(found)


def k3s_images_in_use(run: Callable[[list[str]], str] | None = None) -> list[str]:
    """Digests of the images of all containers of a k3s node, and of those that its containerd has pinned (pause).

    Args:
        run: runs `crictl` with arguments and returns what it prints; by default k3s's own.

    Raises:
        HomelabError: k3s does not answer.
    """
    if run is None:
        program = find_k3s()
        if program is None:
            return []  # not installed yet: nothing runs there
        run = _crictl(program)
    containers = _json(run(["ps", "-a", "-o", "json"]), "containers")
    images = _json(run(["images", "-o", "json"]), "images")
    named = {}
    for image in images:
        for name in (image.get("id"), *(image.get("repoTags") or ()), *(image.get("repoDigests") or ())):
            named.setdefault(name, image)
    wanted = [image for image in images if image.get("pinned")]
    found = set()
    for container in containers:
        spec = container.get("image") or {}
        names = [spec.get("image"), container.get("imageRef"), container.get("imageId"), spec.get("userSpecifiedImage")]
        found |= _digests(names)
        wanted += [named[name] for name in names if name in named]
    for image in wanted:
        found |= _digests([image.get("id"), *(image.get("repoDigests") or ())])
    return sorted(found)


def find_k3s() -> str | None:
    """The program; None where k3s is not installed.

    Raises:
        HomelabError: k3s has data here, but its program is not to be found.
    """
    program = shutil.which("k3s") or next((path for path in K3S if os.access(path, os.X_OK)), None)
    if program is None and os.path.isdir(K3S_DATA):  # noqa: PTH112 - a constant
        raise HomelabError("k3s has data on this node, but there is no k3s", K3S_DATA, f"put k3s into {K3S[0]}")
    return program


def _crictl(program):
    def run(arguments):
        try:
            done = subprocess.run(
                [program, "crictl", *arguments], capture_output=True, text=True, timeout=TIMEOUT, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise HomelabError(f"k3s crictl {arguments[0]} failed: {error}", program) from error
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise HomelabError(
                f"k3s crictl {arguments[0]} failed: {said}", program, "start k3s on this node; it needs root rights"
            )
        return done.stdout

    return run


def _json(text, key):
    try:
        found = json.loads(text)[key] or []
        if not all(isinstance(one, dict) for one in found):
            raise TypeError
    except (ValueError, KeyError, TypeError) as error:
        raise HomelabError(f"crictl's answer has no list of {key}", "k3s") from error
    return found


def _digests(names: Iterable) -> set[str]:
    """The digests among names such as sha256:…, nas:5000/app@sha256:…, nas:5000/app:1."""
    digests = {str(name).rpartition("@")[2] for name in names if name}
    return {digest for digest in digests if digest_fault(digest) is None}
