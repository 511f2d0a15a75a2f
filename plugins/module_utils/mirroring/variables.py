# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A mirror run's settings from an inventory's variables `mirror_*`. Pure; for mirror.yml and the daily timer."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..errors import HomelabError
from ..variables import given, number, refuse_misspelt, words, yes_no

#: Settings that are a variable `mirror_<name>` each: how the registry is reached, and the rest. The images are put
#: together by images_of.
ACCESS = ("url", "username", "password", "ca_path", "client_cert", "client_key", "validate_certs", "timeout")
MIRROR = (
    "platforms",
    "referrers",
    "short_names",
    "name_template",
    "workers",
    "reserve_pulls",
    "prune",
    "prune_protect",
    "prune_keep",
    "upstreams",
    "docker_config",
)
#: Where the machine that mirror.yml runs on keeps its memory; the timer has its own place on its own machine.
FILES = ("state_path", "state_dir", "lock_path")
#: Variables that are no setting.
OTHERS = ("images", "lists", "list", "list_k3s", "k3s_version", "run_on")
#: Those with another type than text, which -e gives as text.
TYPES = {
    **dict.fromkeys(("validate_certs", "referrers", "short_names", "prune"), yes_no),
    **dict.fromkeys(("timeout", "workers", "reserve_pulls", "prune_keep"), number),
    **dict.fromkeys(("platforms", "prune_protect"), words),
}


def settings_of(variables: Mapping, access: Mapping) -> dict:
    """The settings that are set.

    Args:
        variables: of the registry host.
        access: how the registry is reached, by the names of ACCESS; a variable `mirror_<name>` outweighs it.

    Returns:
        `registry` (how it is reached) and `mirror`, as in registryctl's file, and `files`.

    Raises:
        HomelabError: a variable has the wrong type, or nearly the name of another one.
    """
    refuse_misspelt(variables, "mirror_", (*ACCESS, *MIRROR, *FILES, *OTHERS))
    own, mirror, files = (given(variables, "mirror_", names, TYPES) for names in (ACCESS, MIRROR, FILES))
    upstreams = mirror.get("upstreams", [])
    if not (isinstance(upstreams, list) and all(isinstance(one, Mapping) for one in upstreams)):
        raise HomelabError(
            "is not a list of mappings",
            "mirror_upstreams",
            "write e.g. [{registry: quay.io, username: …, password: …}]",
        )
    return {"registry": {**access, **own}, "mirror": mirror, "files": files}


def images_of(wanted: object, lists: object, base: list, k3s: Mapping, k3s_version: str = "") -> list:
    """All images of a run: the user's own, then those of the named lists.

    Args:
        wanted: what selection.parse_images takes, or None.
        lists: names of lists, as a list or as a string.
        base: the list `base`.
        k3s: version (`v1.36.1+k3s1`) to its system images.
        k3s_version: the version, also as `k3s --version` prints it; only for the list `k3s`.

    Raises:
        HomelabError: an unknown list, or a version of k3s whose images are not known.
    """
    images = list(wanted) if isinstance(wanted, (list, tuple)) else [wanted] if wanted else []
    for name in words(lists) or ():
        if name == "base":
            images += base
        elif name == "k3s":
            images += _k3s_images(k3s, k3s_version)
        else:
            raise HomelabError(f"there is no list {name!r}", "mirror_lists", "there are base and k3s")
    return images


def _k3s_images(k3s, text):
    found = re.search(r"v[0-9]+\.[0-9]+\.[0-9]+\+k3s[0-9]+", (text or "").replace("-k3s", "+k3s"))
    if not found:
        raise HomelabError(
            "the version of k3s is not known" + (f": {text!r}" if text else ""),
            "mirror_k3s_version",
            "no host of the group k3s_servers could be asked; set it to what `k3s --version` says, as v1.36.1+k3s1",
        )
    version = found.group()
    if version not in k3s:
        release = version.replace("+", "%2B")
        raise HomelabError(
            f"the images of k3s {version} are not among the lists of this collection ({', '.join(k3s)})",
            "mirror_lists",
            f"put the lines of https://github.com/k3s-io/k3s/releases/download/{release}/k3s-images.txt into"
            " mirror_images, and k3s out of mirror_lists",
        )
    return list(k3s[version])
