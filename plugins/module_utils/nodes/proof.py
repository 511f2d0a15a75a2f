# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The proof from a node: name, network, a pull by name and a pull through the Docker Hub mirror path."""

from __future__ import annotations

import socket
import subprocess
import time
from urllib.parse import urlsplit

from ..engine import Engine
from ..errors import HomelabError
from ..oci import canary
from ..oci.client import Registry


def prove(url: str, pull, ca_path: str | None = None, mirror: bool = True) -> dict[str, str]:
    """Go the way a pull goes, one step after the other, so that the first broken one is named.

    Args:
        url: the registry's address as this node uses it.
        pull: function of an image's name without tag, such as docker_puller's; raises HomelabError.
        ca_path: PEM file of the CA, for https.
        mirror: whether Docker Hub images must come from our registry too.

    Returns:
        Step -> what was seen; every step is there only if all went well.

    Raises:
        HomelabError: a step failed; names it.
    """
    parts = urlsplit(url)
    seen = {}
    try:
        addresses = {info[4][0] for info in socket.getaddrinfo(parts.hostname, None)}
    except (OSError, UnicodeError) as error:
        raise HomelabError(
            f"this node cannot resolve {parts.hostname}: {error}",
            remedy="add the name to your DNS or /etc/hosts, or use an address in registry_endpoint",
        ) from error
    seen["resolve"] = ", ".join(sorted(addresses))
    answer = Registry(url, ca_path=ca_path).request("GET", "/v2/")
    if answer.status not in (200, 401):
        raise HomelabError(f"{url}/v2/ answered {answer.explain()} to this node", remedy="is this the registry?")
    seen["reach"] = f"{answer.status}"
    steps = {"pull by name": f"{parts.netloc}/{canary.NAME}"}
    if mirror:
        steps["pull through the mirror"] = f"docker.io/library/{canary.NAME}"
    for step, name in steps.items():
        start = time.monotonic()
        try:
            pull(name)
        except HomelabError as error:
            raise HomelabError(f"{step} failed: {error.message}", remedy=error.remedy) from error
        seen[step] = f"{time.monotonic() - start:.1f} s"
    return seen


def docker_puller(engine: Engine, account: tuple[str, str] | None = None):
    """Pull by a Docker engine, check the digest, and leave no image behind that was not there before.

    Args:
        engine: the node's.
        account: name and password for the registry. A pull through the mirror never has them, as in Docker itself.
    """

    def pull(name: str) -> None:
        reference = f"{name.removeprefix('docker.io/library/')}:{canary.TAG}"
        there_before = engine.has_image(reference)
        mirrored = name.startswith("docker.io/")
        try:
            digest = engine.pull(name, canary.TAG, None if mirrored else account)
        except HomelabError as error:
            if not mirrored or not keeps_images_in_containerd(engine.info()):
                raise
            # What it says is of Docker Hub, which it asks next.
            raise HomelabError(
                f"{error.message}. This engine keeps its images in containerd, and then does not use the CA in certs.d "
                "for a mirror",
                remedy="if the registry has a CA of its own, set docker_client_system_trust to true, run site.yml and "
                "restart this engine once",
            ) from error
        if not there_before:
            engine.remove_image(reference)
        if digest != canary.digest():
            raise HomelabError(
                f"{reference} has digest {digest}, expected {canary.digest()}",
                remedy="another registry answered: look at registry-mirrors and the registry's address",
            )

    return pull


def keeps_images_in_containerd(info: dict) -> bool:
    """Whether an engine (`docker info`) has the containerd image store, as new installations of Docker 29 have."""
    return ["driver-type", "io.containerd.snapshotter.v1"] in (info.get("DriverStatus") or [])


def k3s_answers(k3s: str = "k3s") -> bool:
    """Whether there is a k3s on this node whose runtime answers."""
    try:
        return subprocess.run([k3s, "crictl", "info"], capture_output=True, check=False, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def k3s_puller(k3s: str = "k3s"):
    """Pull as the kubelet does, through the node's CRI socket (`k3s crictl pull`)."""

    def pull(name: str) -> None:
        reference = f"{name}:{canary.TAG}"
        for verb in ("pull", "rmi"):
            try:
                done = subprocess.run(
                    [k3s, "crictl", verb, reference], capture_output=True, text=True, check=False, timeout=120
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                raise HomelabError(f"k3s crictl {verb} {reference}: {error}", remedy="is k3s there?") from error
            if done.returncode:
                raise HomelabError(
                    f"k3s crictl {verb} {reference}: {(done.stderr or done.stdout).strip()[-400:]}",
                    remedy="look at /etc/rancher/k3s/registries.yaml and restart k3s; journalctl -u k3s -u k3s-agent",
                )

    return pull
