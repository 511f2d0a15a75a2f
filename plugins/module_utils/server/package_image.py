# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images of the programs that run beside each other here, made from the distribution's own packages.

For a machine that reaches a Debian or Ubuntu mirror but no image registry: a program's binary, the libraries
it is linked with and the machine's CA bundle, in the layout of the official image.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import re
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import HomelabError

#: Of the C library's package: the loader and what a program linked with it opens at run time.
C_LIBRARY = ("ld-linux*.so.*", "ld64.so.*", "libc.so.6", "libresolv.so.2", "libpthread.so.0", "libnss_dns.so.2",
             "libnss_files.so.2")
GO_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "armv6l": "arm", "i686": "386"}


@dataclass(frozen=True)
class Program:
    """What of a package becomes which image.

    Attributes:
        packages: names of the package, in the order tried: the first one that has the binary counts (older
            releases have an empty package of that name which only depends on the real one).
        binary: path in the package.
        place: path in the image.
        needs: which of the package's dependencies are unpacked, too (a pattern).
        libraries: patterns of the files that are taken from those.
        variable: prefix of the role's variables, for the remedy of an error.
        config: the image's configuration (entry point, volumes and so on).
        files: path in the image to its bytes.
        directories: path in the image to its mode.
        links: path in the image to what it points to.
    """

    packages: tuple
    binary: str
    place: str
    needs: str
    libraries: tuple
    variable: str
    config: dict
    files: dict = field(default_factory=dict)
    directories: dict = field(default_factory=dict)
    links: dict = field(default_factory=dict)


REGISTRY_CONFIG = "etc/docker/registry/config.yml"
PROGRAMS = {
    "registry": Program(
        packages=("docker-registry",),
        binary="usr/bin/docker-registry",
        place="bin/registry",
        needs=r"libc6$",
        libraries=C_LIBRARY,
        variable="registry_image",
        config={
            "Entrypoint": ["/bin/registry"],
            "Cmd": ["serve", f"/{REGISTRY_CONFIG}"],
            "ExposedPorts": {"5000/tcp": {}},
            "Volumes": {"/var/lib/registry": {}},
        },
        # Like the official image's: usable for a look, always replaced by the role's own.
        files={REGISTRY_CONFIG: b"""\
version: 0.1
storage: {filesystem: {rootdirectory: /var/lib/registry}, delete: {enabled: true}}
http: {addr: ":5000"}
"""},
        directories={"var/lib/registry": 0o755},
    ),
    "nginx": Program(
        packages=("nginx", "nginx-core"),
        binary="usr/sbin/nginx",
        place="bin/nginx",
        needs=r"(libc6|libcrypt1|libpcre.*|libssl.*|zlib1g)$",
        # libcrypt: it is what understands bcrypt
        libraries=(*C_LIBRARY, "libcrypt.so.1", "libpcre*.so.*", "libssl.so.*", "libcrypto.so.*", "libz.so.1"),
        variable="gateway_image",
        config={"Entrypoint": ["/bin/nginx"], "Cmd": ["-g", "daemon off;"], "StopSignal": "SIGQUIT"},
        # The binary opens this one before it has read where its log is to go.
        directories={"var/log/nginx": 0o755},
        links={"var/log/nginx/error.log": "/dev/stderr"},
    ),
}


def build(program: str, reference: str, destination: str) -> str:
    """Make the image as an archive that `docker load` takes.

    Args:
        program: one of PROGRAMS.
        reference: name and tag the image gets.
        destination: path of the archive.

    Returns:
        The package's version.

    Raises:
        HomelabError: no apt on this machine, or the package cannot be had.
    """
    recipe = PROGRAMS[program]
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise HomelabError(
            f"the image of {program} cannot be built from a package here: this machine has no apt-get",
            remedy=f"set {recipe.variable}_source=archive and {recipe.variable}_archive to a file "
            "made by 'docker save'",
        )
    with tempfile.TemporaryDirectory(prefix="homelab-registry-") as work:
        # apt drops to the user _apt for the download, which must be able to enter
        Path(work).chmod(0o755)
        root = Path(work) / "root"
        package, version = _unpack(recipe, Path(work), root)
        layer = _layer(recipe, root)
        _write_archive(Path(destination), recipe, reference, layer, package, version)
    return version


def _run(argv: list[str], cwd: Path) -> subprocess.CompletedProcess:
    return subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False, timeout=600)


def _unpack(recipe: Program, work: Path, root: Path) -> tuple[str, str]:
    """The package with the binary and the libraries it depends on below `root`; its name and version."""
    for package in recipe.packages:
        _download(recipe, work, [package])
        (archive,) = work.glob(f"{package}_*.deb")
        _extract(archive, root, work)
        if (root / recipe.binary).exists():
            break
    else:
        raise HomelabError(
            f"none of the packages {', '.join(recipe.packages)} of this machine has /{recipe.binary}",
            remedy=f"set {recipe.variable}_source=archive with a file made by 'docker save'",
        )
    version = _run(["dpkg-deb", "-f", str(archive), "Version"], work).stdout.strip()
    depends = _run(["dpkg-deb", "-f", str(archive), "Depends"], work).stdout
    names = [re.split(r"[\s(:|]", item.strip())[0] for item in depends.split(",")]
    libraries = sorted({name for name in names if re.match(recipe.needs, name)})
    _download(recipe, work, libraries)
    for library in libraries:
        for archive in work.glob(f"{library}_*.deb"):
            _extract(archive, root, work)
    return package, version


def _download(recipe: Program, work: Path, packages: list) -> None:
    download = ["apt-get", "download", "-q", *packages]
    done = _run(download, work)
    if done.returncode:  # a fresh machine has no package lists, an old one stale lists
        _run(["apt-get", "update", "-q"], work)
        done = _run(download, work)
    if done.returncode:
        raise HomelabError(
            f"the package {' '.join(packages)} cannot be downloaded: {done.stderr.strip() or done.stdout.strip()}",
            remedy="check this machine's package sources (Ubuntu has docker-registry in 'universe'), or set "
            f"{recipe.variable}_source=archive with a file made by 'docker save'",
        )


def _extract(package: Path, root: Path, work: Path) -> None:
    done = _run(["dpkg-deb", "-x", str(package), str(root)], work)
    if done.returncode:
        raise HomelabError(
            f"the package {package.name} cannot be unpacked: {done.stderr.strip() or done.returncode}",
            remedy="see whether the disk of the temporary directory is full",
        )


def _layer(recipe: Program, root: Path) -> bytes:
    """The file system of the image as a tar; equal packages give equal bytes."""
    files = {recipe.place: (root / recipe.binary).read_bytes()}
    for pattern in recipe.libraries:
        for found in root.rglob(pattern):
            files[str(found.relative_to(root)).removeprefix("usr/")] = _contents(found, root)
    files.update(_loader_alias(files))
    bundle = Path("/etc/ssl/certs/ca-certificates.crt")
    if bundle.exists():
        files["etc/ssl/certs/ca-certificates.crt"] = bundle.read_bytes()
    files["etc/passwd"] = b"root:x:0:0:root:/:/sbin/nologin\n"
    files["etc/nsswitch.conf"] = b"hosts: files dns\n"
    files.update(recipe.files)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, mode in {"tmp": 0o1777, **recipe.directories}.items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            archive.addfile(entry)
        for name, aim in recipe.links.items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, aim
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


def _write_archive(
    destination: Path, recipe: Program, reference: str, layer: bytes, package: str, version: str
) -> None:
    layer_hex = hashlib.sha256(layer).hexdigest()
    config = json.dumps(
        {
            "architecture": GO_ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": {
                **recipe.config,
                "Env": ["PATH=/bin"],
                "Labels": {
                    "org.opencontainers.image.title": package,
                    "org.opencontainers.image.version": version,
                    "org.opencontainers.image.source": f"Debian package {package}",
                },
            },
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer_hex}"]},
            "history": [{"created": "1970-01-01T00:00:00Z", "created_by": f"package {package} {version}"}],
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
