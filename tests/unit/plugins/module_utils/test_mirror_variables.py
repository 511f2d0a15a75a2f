# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From an inventory's variables to a mirror run, and the lists that come with the collection."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from ansible_collections.homelab.registry.plugins.module_utils import arguments
from ansible_collections.homelab.registry.plugins.module_utils.ctl.settings import TYPES
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.mirroring import variables
from ansible_collections.homelab.registry.plugins.module_utils.mirroring.selection import parse_images
from ansible_collections.homelab.registry.plugins.module_utils.mirroring.variables import images_of, settings_of

ROOT = Path(__file__).resolve().parents[4]
URL = "http://reg:5000"
ACCESS = {"url": URL}
LISTS = yaml.safe_load((ROOT / "playbooks" / "vars" / "mirror_lists.yml").read_text(encoding="utf-8"))
K3S = {"v1.36.1+k3s1": ["rancher/mirrored-pause:3.6"]}


def test_nothing_is_set():
    assert settings_of({"ansible_host": "x", "mirror_username": "", "mirror_workers": None}, ACCESS) == {
        "registry": {"url": URL},
        "mirror": {},
        "files": {},
    }


def test_registryctl_takes_every_setting_that_an_inventory_can_make():
    """Else a variable that mirror.yml takes would stop the nightly run."""
    assert set(variables.MIRROR) <= set(TYPES["mirror"])
    assert set(variables.ACCESS) <= set(TYPES["registry"])
    assert settings_of({"mirror_state_dir": "/here", "mirror_lock_path": "/x"}, ACCESS)["mirror"] == {}


VALUES = {
    "another address": ("url", "https://r", "https://r"),
    "yes": ("referrers", True, True),
    "yes by -e": ("referrers", "Yes", True),
    "no by -e": ("validate_certs", "false", False),
    "number": ("workers", 4, 4),
    "number by -e": ("workers", "4", 4),
    "list": ("platforms", ["linux/amd64"], ["linux/amd64"]),
    "list by -e": ("platforms", "linux/amd64, linux/arm64", ["linux/amd64", "linux/arm64"]),
    "zero is a value": ("prune_keep", 0, 0),
    "off is a value": ("short_names", False, False),
    "upstreams": ("upstreams", [{"registry": "quay.io"}], [{"registry": "quay.io"}]),
}


@pytest.mark.parametrize(("name", "given", "value"), VALUES.values(), ids=VALUES)
def test_a_value(name, given, value):
    part = "registry" if name in variables.ACCESS else "mirror"
    assert settings_of({f"mirror_{name}": given}, ACCESS)[part][name] == value


WRONG = {
    "no yes": ("mirror_prune", "maybe"),
    "no number": ("mirror_workers", "many"),
    "a negative number": ("mirror_reserve_pulls", "-1"),
    "no list of mappings": ("mirror_upstreams", "quay.io"),
    "misspelt": ("mirror_platform", ["linux/amd64"]),
    "misspelt images": ("mirror_image", "a"),
}


@pytest.mark.parametrize(("name", "value"), WRONG.values(), ids=WRONG)
def test_a_wrong_value(name, value):
    with pytest.raises(HomelabError, match=name):
        settings_of({name: value}, ACCESS)


def test_a_variable_of_somebody_else():
    assert settings_of({"mirror_debian_suites": ["trixie"]}, ACCESS)["mirror"] == {}


IMAGES = {
    "nothing": (None, None, []),
    "a string": ("a, b", [], ["a, b"]),
    "a list": (["a", {"name": "b"}], "", ["a", {"name": "b"}]),
    "base": ([], ["base"], ["x"]),
    "both, by -e": (["a"], "base, k3s", ["a", "x", "rancher/mirrored-pause:3.6"]),
}


@pytest.mark.parametrize(("wanted", "lists", "images"), IMAGES.values(), ids=IMAGES)
def test_images(wanted, lists, images):
    assert images_of(wanted, lists, ["x"], K3S, "v1.36.1+k3s1") == images


@pytest.mark.parametrize(
    "text",
    ["v1.36.1+k3s1", "v1.36.1-k3s1", "k3s version v1.36.1+k3s1 (a9663261)\ngo version go1.25.9"],
    ids=["as it is", "as an image's tag", "k3s --version"],
)
def test_the_version_of_k3s(text):
    assert images_of([], ["k3s"], [], K3S, text) == ["rancher/mirrored-pause:3.6"]


BAD_LISTS = {
    "no such list": ("bases", "", "base and k3s"),
    "no version": ("k3s", "", "mirror_k3s_version"),
    "no version of k3s": ("k3s", "v1.36.1", "mirror_k3s_version"),
    "another version": ("k3s", "v1.99.0+k3s1", r"v1\.99\.0%2Bk3s1/k3s-images\.txt"),
}


@pytest.mark.parametrize(("lists", "version", "message"), BAD_LISTS.values(), ids=BAD_LISTS)
def test_a_bad_list(lists, version, message):
    with pytest.raises(HomelabError, match=message):
        images_of([], lists, [], K3S, version)


def test_the_shipped_lists_can_be_mirrored():
    for name, images in {"base": LISTS["mirror_list"], **LISTS["mirror_list_k3s"]}.items():
        specs, bad = parse_images(images)
        assert bad == []
        assert len(specs) == len(images), f"{name} has an image twice"
        assert all(spec.reference.tag for spec in specs), f"{name} has an image without a tag"


@pytest.mark.parametrize("version", LISTS["mirror_list_k3s"])
def test_a_shipped_list_of_k3s_is_found_and_whole(version):
    images = images_of([], ["k3s"], [], LISTS["mirror_list_k3s"], version)
    parts = (
        "klipper-helm",
        "klipper-lb",
        "local-path-provisioner",
        "coredns",
        "busybox",
        "traefik",
        "metrics-server",
        "pause",
    )
    assert [part for part in parts if not any(part in image for image in images)] == []


def test_every_option_of_the_module_is_a_variable():
    text = (ROOT / "plugins" / "modules" / "image_mirror.py").read_text(encoding="utf-8")
    documentation = yaml.safe_load(text.split('DOCUMENTATION = r"""')[1].split('"""')[0])
    options = {*documentation["options"], *arguments.access()}  # these come from a fragment
    assert {*variables.ACCESS, *variables.MIRROR, *variables.FILES, "images", "heal"} == options


def test_the_playbook_passes_every_variable():
    (play,) = yaml.safe_load((ROOT / "playbooks" / "mirror.yml").read_text(encoding="utf-8"))
    (options, again) = [task[name] for task in play["tasks"] for name in task if name.endswith(".image_mirror")]
    assert options == again
    assert set(options) == {*variables.ACCESS, *variables.MIRROR, *variables.FILES, "images", "heal"}
    for name, value in options.items():
        part = "registry" if name in variables.ACCESS else "files" if name in variables.FILES else "mirror"
        assert name in ("images", "heal") or f"__mirror_settings.{part}.{name}" in value
