# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An image from the distribution's package: apt and dpkg are stand-ins, everything else is real."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile

import pytest
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.server import config, package_image

NAME, VERSION = "homelab-registry:package", "2.8.2+ds1-1"
#: Unpacks a tree with what the two packages have, links as Debian makes them.
DPKG = f"""\
if [ "$1 $3" = "-f Version" ]; then echo {VERSION}; exit; fi
if [ "$1 $3" = "-f Depends" ]; then echo "adduser, libc6 (>= 2.34), libcrypt1, libssl3t64 | libssl3"; exit; fi
root="$3"; lib="$root/lib/x86_64-linux-gnu"
case "$2" in
*/nginx_*) : ;;
*nginx-core_*) mkdir -p "$root/usr/sbin"; printf nginx >"$root/usr/sbin/nginx" ;;
*libcrypt1_*) mkdir -p "$lib"; printf crypt >"$lib/libcrypt.so.1" ;;
*libssl3t64_*) mkdir -p "$root/usr/lib/x86_64-linux-gnu"; printf ssl >"$root/usr/lib/x86_64-linux-gnu/libssl.so.3" ;;
*docker-registry_*) mkdir -p "$root/usr/bin"; printf registry >"$root/usr/bin/docker-registry" ;;
*)
  mkdir -p "$lib" "$root/lib64" "$root/usr/share/doc/libc6"
  printf loader >"$lib/ld-2.36.so"; ln -s ld-2.36.so "$lib/ld-linux-x86-64.so.2"
  ln -s /lib/x86_64-linux-gnu/ld-linux-x86-64.so.2 "$root/lib64/ld-linux-x86-64.so.2"
  printf libc >"$lib/libc.so.6"; printf resolv >"$lib/libresolv.so.2"
  printf no >"$lib/libm.so.6"; printf no >"$root/usr/share/doc/libc6/copyright" ;;
esac
"""
APT = "shift 2; for name; do : >${name}_1_amd64.deb; done"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Stand-ins by name and body; calls are kept in `calls`."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    which = package_image.shutil.which
    monkeypatch.setattr(package_image.shutil, "which", lambda name: which(name, path=str(programs)))

    def install(name, body):
        path = programs / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >>{tmp_path}/calls\n{body}\n', encoding="utf-8")
        path.chmod(0o755)

    return install


def calls(tmp_path):
    return [" ".join(line.split()[:2]) for line in (tmp_path / "calls").read_text().splitlines()]


def read(path):
    """Manifest, configuration and layer of an archive, all checked as `docker load` would."""
    with tarfile.open(path, "r:gz") as archive:
        found = {member.name: archive.extractfile(member).read() for member in archive}
    (manifest,) = json.loads(found["manifest.json"])
    assert set(found) == {"manifest.json", manifest["Config"], *manifest["Layers"]}
    image = json.loads(found[manifest["Config"]])
    layers = [found[name] for name in manifest["Layers"]]
    assert image["rootfs"]["diff_ids"] == ["sha256:" + hashlib.sha256(layer).hexdigest() for layer in layers]
    assert manifest["Config"] == hashlib.sha256(found[manifest["Config"]]).hexdigest() + ".json"
    return manifest, image, tarfile.open(fileobj=io.BytesIO(layers[0]))


@pytest.mark.parametrize("without", ["nothing", "root/lib64"])
def test_the_image(machine, tmp_path, without):
    machine("apt-get", APT)
    machine("dpkg-deb", f'{DPKG}[ "$root" ] && rm -rf "${{root%root}}{without}"\nexit 0')
    assert package_image.build("registry", NAME, str(tmp_path / "image.tar.gz")) == VERSION
    manifest, image, layer = read(tmp_path / "image.tar.gz")
    assert manifest["RepoTags"] == [NAME]
    assert config.detect_major({"Config": image["config"]}) == 2
    assert image["config"]["Labels"]["org.opencontainers.image.version"] == VERSION
    with layer:
        content = {member.name: layer.extractfile(member).read() for member in layer if member.isfile()}
        modes = {member.name: member.mode for member in layer}
    assert content["bin/registry"] == b"registry"
    # the loader under the name the binary asks for, real bytes, no link
    assert content["lib64/ld-linux-x86-64.so.2"] == b"loader"
    assert content["lib/x86_64-linux-gnu/libc.so.6"] == b"libc"
    assert content["lib/x86_64-linux-gnu/libresolv.so.2"] == b"resolv"
    assert not any("libm" in name or "copyright" in name for name in content)
    assert content[config.config_path(2).lstrip("/")].startswith(b"version: 0.1\n")
    assert modes["bin/registry"] == modes["lib64/ld-linux-x86-64.so.2"] == 0o755
    assert (modes["tmp"], modes["var/lib/registry"]) == (0o1777, 0o755)
    assert modes[config.config_path(2).lstrip("/")] == 0o644


def test_the_image_of_the_gateway(machine, tmp_path):
    machine("apt-get", APT)
    machine("dpkg-deb", DPKG)
    assert package_image.build("nginx", NAME, str(tmp_path / "image.tar.gz")) == VERSION
    _manifest, image, layer = read(tmp_path / "image.tar.gz")
    assert image["config"]["Entrypoint"] == ["/bin/nginx"]
    # the package nginx of older releases is empty
    assert image["config"]["Labels"]["org.opencontainers.image.title"] == "nginx-core"
    with layer:
        content = {member.name: layer.extractfile(member).read() for member in layer if member.isfile()}
        links = {member.name: member.linkname for member in layer if member.issym()}
    assert content["bin/nginx"] == b"nginx"
    assert content["lib/x86_64-linux-gnu/libcrypt.so.1"] == b"crypt"
    assert content["lib/x86_64-linux-gnu/libssl.so.3"] == b"ssl"
    assert links == {"var/log/nginx/error.log": "/dev/stderr"}


def test_a_package_without_the_binary(machine, tmp_path):
    machine("apt-get", APT)
    machine("dpkg-deb", DPKG.replace("printf nginx", ": ").replace("/usr/sbin/nginx", "/usr/sbin/other"))
    with pytest.raises(HomelabError, match="none of the packages nginx, nginx-core") as caught:
        package_image.build("nginx", NAME, str(tmp_path / "image.tar.gz"))
    assert "gateway_image_source=archive" in caught.value.remedy


def test_equal_packages_give_an_equal_image(machine, tmp_path):
    machine("apt-get", APT)
    machine("dpkg-deb", DPKG)
    contents = []
    for name in ("a", "b"):
        package_image.build("registry", NAME, str(tmp_path / name))
        contents.append(gzip.decompress((tmp_path / name).read_bytes()))
    assert contents[0] == contents[1]


def test_package_lists_are_fetched_only_when_they_are_missing(machine, tmp_path):
    machine("dpkg-deb", DPKG)
    machine("apt-get", APT)
    package_image.build("registry", NAME, str(tmp_path / "a"))
    assert [call for call in calls(tmp_path) if call.startswith("apt-get")] == ["apt-get download"] * 2
    (tmp_path / "calls").unlink()
    machine(
        "apt-get",
        f"if [ $1 = update ]; then : >{tmp_path}/lists; else test -e {tmp_path}/lists || exit 100; {APT}; fi",
    )
    package_image.build("registry", NAME, str(tmp_path / "b"))
    assert [call for call in calls(tmp_path) if call.startswith("apt-get")] == [
        "apt-get download", "apt-get update", "apt-get download", "apt-get download",
    ]


def test_a_package_that_cannot_be_had(machine, tmp_path):
    machine("dpkg-deb", DPKG)
    machine(
        "apt-get", "echo 'W: something' >&2; echo 'E: Unable to locate package docker-registry' >&2; exit 100"
    )
    with pytest.raises(HomelabError, match="E: Unable to locate package docker-registry") as caught:
        package_image.build("registry", NAME, str(tmp_path / "image.tar.gz"))
    assert "registry_image_source=archive" in caught.value.remedy
    assert not (tmp_path / "image.tar.gz").exists()


def test_a_package_that_cannot_be_unpacked(machine, tmp_path):
    machine("apt-get", APT)
    machine("dpkg-deb", "echo 'dpkg-deb: error: no space left on device' >&2; exit 2")
    with pytest.raises(HomelabError, match="no space left on device"):
        package_image.build("registry", NAME, str(tmp_path / "image.tar.gz"))
    assert not (tmp_path / "image.tar.gz").exists()


@pytest.mark.parametrize("there", [[], ["apt-get"], ["dpkg-deb"]])
def test_a_machine_of_another_kind(machine, tmp_path, there):
    for name in there:
        machine(name, "exit 1")
    with pytest.raises(HomelabError, match="no apt-get") as caught:
        package_image.build("registry", NAME, str(tmp_path / "image.tar.gz"))
    assert "registry_image_archive" in caught.value.remedy


def test_nothing_is_left_in_the_temporary_directory(machine, tmp_path, monkeypatch):
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.setattr(package_image.tempfile, "tempdir", str(work))
    machine("apt-get", APT)
    machine("dpkg-deb", DPKG)
    package_image.build("registry", NAME, str(tmp_path / "image.tar.gz"))
    assert os.listdir(work) == []  # noqa: PTH208 - names only
