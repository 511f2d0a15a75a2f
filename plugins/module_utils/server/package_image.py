# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An image of the registry server made from the distribution's own package `docker-registry`.

For a machine that reaches a Debian or Ubuntu mirror but no image registry: the server's binary, the C
library it is linked with and the machine's CA bundle, in the layout of the official registry:2 image.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from ..errors import HomelabError

PACKAGES = ("docker-registry", "libc6")
#: Of the C library's package: the loader and what a Go program linked with it opens at run time.
LIBRARIES = ("ld-linux*.so.*", "ld64.so.*", "libc.so.6", "libresolv.so.2", "libpthread.so.0", "libnss_dns.so.2",
             "libnss_files.so.2")
CONFIG_PATH = "etc/docker/registry/config.yml"
#: Like the official image's: usable for a look, always replaced by the role's own.
CONFIG = """\
version: 0.1
storage: {filesystem: {rootdirectory: /var/lib/registry}, delete: {enabled: true}}
http: {addr: ":5000"}
"""
GO_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "armv6l": "arm", "i686": "386"}


def build(reference: str, destination: str) -> str:
    """Make the image as an archive that `docker load` takes.

    Args:
        reference: name and tag the image gets.
        destination: path of the archive.

    Returns:
        The package's version.

    Raises:
        HomelabError: no apt on this machine, or the package cannot be had.
    """
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise HomelabError(
            "the registry image cannot be built from a package here: this machine has no apt-get",
            remedy="set registry_image_source=archive and registry_image_archive to a file made by 'docker save'",
        )
    with tempfile.TemporaryDirectory(prefix="homelab-registry-") as work:
        # apt drops to the user _apt for the download, which must be able to enter
        Path(work).chmod(0o755)
        root = Path(work) / "root"
        version = _unpack(Path(work), root)
        layer = _layer(root)
        _write_archive(Path(destination), reference, layer, version)
    return version


def _run(argv: list[str], cwd: Path) -> subprocess.CompletedProcess:
    return subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False, timeout=600)


def _unpack(work: Path, root: Path) -> str:
    download = ["apt-get", "download", "-q", *PACKAGES]
    done = _run(download, work)
    if done.returncode:  # a fresh machine has no package lists, an old one stale lists
        _run(["apt-get", "update", "-q"], work)
        done = _run(download, work)
    if done.returncode:
        raise HomelabError(
            f"the package docker-registry cannot be downloaded: {done.stderr.strip() or done.stdout.strip()}",
            remedy="check this machine's package sources (Ubuntu has it in 'universe'), or set "
            "registry_image_source=archive with a file made by 'docker save'",
        )
    version = ""
    for package in sorted(work.glob("*.deb")):
        done = _run(["dpkg-deb", "-x", str(package), str(root)], work)
        if done.returncode:
            raise HomelabError(
                f"the package {package.name} cannot be unpacked: {done.stderr.strip() or done.returncode}",
                remedy="see whether the disk of the temporary directory is full",
            )
        if package.name.startswith("docker-registry_"):
            version = _run(["dpkg-deb", "-f", str(package), "Version"], work).stdout.strip()
    return version


def _layer(root: Path) -> bytes:
    """The file system of the image as a tar; equal packages give equal bytes."""
    files = {"bin/registry": (root / "usr/bin/docker-registry").read_bytes()}
    for pattern in LIBRARIES:
        for found in root.rglob(pattern):
            files[str(found.relative_to(root)).removeprefix("usr/")] = _contents(found, root)
    files.update(_loader_alias(files))
    bundle = Path("/etc/ssl/certs/ca-certificates.crt")
    if bundle.exists():
        files["etc/ssl/certs/ca-certificates.crt"] = bundle.read_bytes()
    files["etc/passwd"] = b"root:x:0:0:root:/:/sbin/nologin\n"
    files["etc/nsswitch.conf"] = b"hosts: files dns\n"
    files[CONFIG_PATH] = CONFIG.encode("ascii")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, mode in (("tmp", 0o1777), ("var/lib/registry", 0o755)):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            archive.addfile(entry)
        for name in sorted(files):
            entry = tarfile.TarInfo(name)
            entry.size = len(files[name])
            entry.mode = 0o755 if name.startswith(("bin/", "lib")) else 0o644
            archive.addfile(entry, io.BytesIO(files[name]))
    return buffer.getvalue()


def _contents(path: Path, root: Path) -> bytes:
    """A file's bytes; a link is followed inside the package's tree, not on this machine."""
    while path.is_symlink():
        aim = path.readlink()
        path = root / str(aim).lstrip("/") if aim.is_absolute() else path.parent / aim
    return path.read_bytes()


def _loader_alias(files: dict[str, bytes]) -> dict[str, bytes]:
    """The loader once more under the absolute path that is written into the binary (x86-64: /lib64)."""
    loaders = {Path(name).name: data for name, data in files.items() if Path(name).name.startswith("ld")}
    return {f"{'lib64' if 'x86-64' in name else 'lib'}/{name}": data for name, data in loaders.items()}


def _write_archive(destination: Path, reference: str, layer: bytes, version: str) -> None:
    layer_hex = hashlib.sha256(layer).hexdigest()
    config = json.dumps(
        {
            "architecture": GO_ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": {
                "Entrypoint": ["/bin/registry"],
                "Cmd": ["serve", f"/{CONFIG_PATH}"],
                "Env": ["PATH=/bin"],
                "ExposedPorts": {"5000/tcp": {}},
                "Volumes": {"/var/lib/registry": {}},
                "Labels": {
                    "org.opencontainers.image.title": "docker-registry",
                    "org.opencontainers.image.version": version,
                    "org.opencontainers.image.source": "Debian package docker-registry",
                },
            },
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer_hex}"]},
            "history": [{"created": "1970-01-01T00:00:00Z", "created_by": f"package docker-registry {version}"}],
        },
        sort_keys=True,
    ).encode("ascii")
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = json.dumps(
        [{"Config": config_name, "RepoTags": [reference], "Layers": [f"{layer_hex}/layer.tar"]}]
    ).encode("ascii")
    with gzip.open(destination, "wb", compresslevel=1) as stream, tarfile.open(fileobj=stream, mode="w|") as archive:
        for name, data in (
            (config_name, config),
            (f"{layer_hex}/layer.tar", layer),
            ("manifest.json", manifest),
        ):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
