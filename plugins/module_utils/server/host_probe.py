# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""First contact with a host that has a Docker engine and perhaps nothing else: what is it, and can it hold a registry?

Pure: `script` gives what a shell there is to run, once; `parse` reads its output; `judge` says what speaks against the
host, where the registry's files go and how much of the machine it may use. Nothing is assumed about an appliance: its
root file system may be made anew at each boot, its engine may keep everything on a RAM disk, its disks may be slow.
"""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field

from ..errors import HomelabError
from ..report.numbers import size

#: Oldest engine that the roles were tried with, and its API.
ENGINE, API = (20, 10), "1.41"
#: File systems that are gone after a boot. An overlay or squashfs as root is that of an appliance.
VOLATILE = frozenset({"tmpfs", "ramfs", "rootfs", "devtmpfs", "overlay", "aufs", "squashfs", "cramfs", "romfs"})
#: File systems on disks of one's own.
DISK = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "jfs", "reiserfs", "ufsd", "bcachefs"})
#: What the vendors call their data volumes, the names that last: WD, Synology, QNAP, Asustor and TerraMaster, OMV.
ALIASES = (
    "/shares/Volume_[0-9]*",
    "/volume[0-9]*",
    "/share/CACHEDEV[0-9]*_DATA",
    "/share/MD[0-9]*_DATA",
    "/Volume[0-9]*",
    "/srv/dev-disk-by-*",
)
#: Below these lies the system's, also where it is a disk of its own.
_SYSTEM = (
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/lib",
    "/lib64",
    "/opt",
    "/proc",
    "/run",
    "/sbin",
    "/sys",
    "/tmp",
    "/usr",
    "/usr/local",
    "/var",
    "/root",
)
#: Where appliances have a client that a login shell finds and `ssh host command` does not.
_CLIENTS = (
    "/usr/local/bin/docker",
    "/usr/sbin/docker",
    "/sbin/docker",
    "/opt/bin/docker",
    "/var/packages/*/target/usr/bin/docker",
    "/share/*/.qpkg/container-station/bin/docker",
    "/shares/*/Nas_Prog/docker/docker/docker",
)
GIB = 1 << 30
MIB = 1 << 20


@dataclass(frozen=True)
class Place:
    """A path and what it lies on. `size` and `free` in bytes; `real` is the nearest directory that is there."""

    path: str
    real: str
    mount: str
    device: str
    kind: str
    size: int
    free: int
    writable: bool

    @property
    def persistent(self) -> bool:
        """Whether a boot leaves it alone."""
        return self.kind not in VOLATILE

    def __str__(self) -> str:
        return f"{self.path} on {self.device} ({self.kind}), {size(self.free)} of {size(self.size)} free"


@dataclass
class Host:
    """What the probe saw; empty and 0 where it could not see."""

    architecture: str = ""
    kernel: str = ""
    user: str = ""
    cores: int = 0
    memory: int = 0
    available: int = 0
    python: str = ""
    time_zone: str = ""
    client: str = ""
    elsewhere: list[str] = field(default_factory=list)
    engine: str = ""
    api: str = ""
    engine_error: str = ""
    info: dict = field(default_factory=dict)
    engine_root: Place | None = None
    data: Place | None = None
    volumes: list[Place] = field(default_factory=list)
    rotational: dict[str, bool] = field(default_factory=dict)
    #: Where the registry's container that is there already has its data and its configuration.
    data_mount: str = ""
    #: Volumes that hold images below the usual name already.
    held: list[str] = field(default_factory=list)
    complete: bool = False


@dataclass
class Verdict:
    """`home`: the directory of everything; `limits`: how much the registry may take; `refusals`: why it cannot be."""

    home: str
    limits: dict
    refusals: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    report: list[str] = field(default_factory=list)


# --- asking -----------------------------------------------------------------------------------------------------
def script(container: str, home: str = "", data_path: str = "") -> str:
    """For sh, BusyBox's too: everything in one go, a line each, fields separated by tabs.

    Args:
        container: name of the registry's container.
        home: the directory that was asked for; "" looks for one.
        data_path: the images' directory; "" or the name of a volume if it has none of its own.

    Raises:
        HomelabError: a directory is not absolute.
    """
    for name, given in (("registry_home", home), ("registry_data_path", data_path)):
        if given and not given.startswith("/") and (name == "registry_home" or "/" in given):
            raise HomelabError(f"{given!r} is no absolute path", name, f"write it as /{given.lstrip('./')}")
    data = data_path if data_path.startswith("/") else ""
    return f"""
say() {{ printf '%s\\t' "$@" | tr '\\n' ' '; echo; }}
place() {{
  at=$2
  while [ ! -d "$at" ]; do case $at in ?*/*) at=${{at%/*}} ;; *) at=/ ;; esac; done
  real=$(cd "$at" && pwd -P); w=no; [ -w "$at" ] && w=yes
  say "$1" "$2" "$real" "$w" "$(df -Pk "$at" 2>/dev/null | tail -n 1)"
}}
say architecture "$(uname -m)"
say kernel "$(uname -sr)"
say user "$(id -un 2>/dev/null)" "$(id -u)"
say cores "$(grep -c '^processor' /proc/cpuinfo)"
say memory "$(sed -n 's/^MemTotal: *//p' /proc/meminfo)" "$(sed -n 's/^MemAvailable: *//p' /proc/meminfo)"
for p in "$(command -v python3)" /opt/bin/python3; do [ -x "$p" ] && say python "$p" && break; done
say zone "$(cat /etc/TZ 2>/dev/null || tail -n 1 /etc/localtime 2>/dev/null)"
for d in /sys/block/*/queue/rotational; do
  [ -e "$d" ] && n=${{d#/sys/block/}} && say block "${{n%%/*}}" "$(cat "$d")"
done
while read -r device mount kind options rest; do say mount "$device" "$mount" "$kind" "$options"; done </proc/mounts
while read -r device mount kind options rest; do
  case $kind in {"|".join(sorted(DISK))})
    [ -d "$mount" ] && place volume "$mount" && [ -d "$mount/registry/data/docker/registry" ] && say held "$mount" ;;
  esac
done </proc/mounts
for a in {" ".join(ALIASES)}; do
  [ -d "$a" ] && place alias "$a" && [ -d "$a/registry/data/docker/registry" ] && say held "$a"
done
for p in {shlex.quote(data)} {shlex.quote(home)}; do [ -n "$p" ] && place data "$p" && break; done
say client "$(command -v docker)"
if ! command -v docker >/dev/null; then
  for c in {" ".join(_CLIENTS)}; do [ -x "$c" ] && say elsewhere "$c"; done
elif version=$(docker version --format '{{{{.Server.Version}}}} {{{{.Server.APIVersion}}}}' 2>&1); then
  say engine $version
  root=$(docker info --format '{{{{.DockerRootDir}}}}')
  place root "$root"
  say info "$(docker info --format '{{{{json .}}}}' 2>/dev/null)"
  say mounts "$(docker inspect --type container --format '{{{{json .Mounts}}}}' {shlex.quote(container)} 2>/dev/null)"
else
  say error "$version"
fi
say end
"""


def parse(output: str) -> Host:
    """What `script` printed; unknown lines (a login's banner) are skipped."""
    host = Host()
    mounts: list[list[str]] = []
    places: list[tuple[str, list[str]]] = []
    for line in output.splitlines():
        key, *values = line.rstrip("\t").split("\t")
        value = values[0].strip() if values else ""
        if key in ("architecture", "kernel", "python", "client"):
            setattr(host, key, value)
        elif key == "user":
            host.user = f"{value or '?'} (uid {values[1]})" if len(values) > 1 else value
        elif key == "cores":
            host.cores = _number(value)
        elif key == "memory":
            host.memory, host.available = ([_number(one) << 10 for one in values] + [0, 0])[:2]
        elif key == "zone" and re.fullmatch(r"<?[A-Za-z+0-9-]{3,}>?[-+0-9:]+[^\s\x00-\x1f]*", value):
            host.time_zone = value
        elif key == "block" and len(values) == 2:
            host.rotational[value] = values[1].strip() == "1"
        elif key == "mount" and len(values) >= 4:
            mounts.append([one.replace("\\040", " ") for one in values])
        elif key in ("volume", "alias", "data", "root"):
            places.append((key, values))
        elif key in ("elsewhere", "held"):
            getattr(host, key).append(value)
        elif key == "engine":
            host.engine, host.api = ([one.strip() for one in values] + ["", ""])[:2]
        elif key == "error":
            host.engine_error = value
        elif key == "info":
            host.info = _json(value, {})
        elif key == "mounts":
            found = {one.get("Destination"): one.get("Source") for one in _json(value, []) if isinstance(one, dict)}
            host.data_mount = found.get("/var/lib/registry") or ""
        elif key == "end":
            host.complete = True
    for key, values in places:
        place = _place(values, mounts)
        if place is None:
            continue
        if key == "data":
            host.data = place
        elif key == "root":
            host.engine_root = place
        else:
            host.volumes.append(place)
    return host


def _number(text):
    found = re.match(r"\d+", text.strip())
    return int(found[0]) if found else 0


def _json(text, otherwise):
    try:
        value = json.loads(text)
    except ValueError:
        return otherwise
    return value if isinstance(value, type(otherwise)) else otherwise


def _place(values, mounts):
    if len(values) < 4:
        return None
    path, real, writable, df = values[:4]
    numbers = re.search(r"\s(\d+)\s+(\d+)\s+(\d+)\s+\S+\s+/", df)
    holder = ["", "/", "?", ""]
    for mount in mounts:  # a later one on the same place lies on top
        at = mount[1].rstrip("/")
        if (real == at or real.startswith(f"{at}/")) and len(mount[1]) >= len(holder[1]):
            holder = mount
    blocks, _used, free = (int(one) << 10 for one in numbers.groups()) if numbers else (0, 0, 0)
    readonly = "ro" in holder[3].split(",")
    return Place(path, real, holder[1], holder[0], holder[2], blocks, free, writable == "yes" and not readonly)


# --- judging ----------------------------------------------------------------------------------------------------
def judge(host: Host, home: str = "", *, volume: bool = False, min_free: int = GIB) -> Verdict:
    """Whether this host can hold the registry, where, and with how much of the machine.

    Args:
        host: what `parse` read.
        home: the directory that was asked for; "" finds one: that of the registry that is there already, else
            `registry` on the largest volume of the machine.
        volume: the images are kept in a volume of the engine, not in a directory.
        min_free: bytes that must be free, unless the registry is there already.
    """
    found = home or _home(host)
    verdict = Verdict(found, _limits(host, found))
    place = host.data or _at(host, found)
    verdict.report = _report(host, place, found, verdict.limits, chosen=not home)
    if not host.complete:
        verdict.refusals.append(
            "the host did not answer the questions to the end: is its shell a shell (sh)? Run the same command again"
        )
        return verdict
    verdict.refusals = [text for wrong, text in _engine_faults(host) if wrong]
    if volume:
        place = host.engine_root
    verdict.refusals += [text for wrong, text in _place_faults(host, place, found, volume, min_free) if wrong]
    verdict.warnings = [text for wrong, text in _warnings(host) if wrong]
    return verdict


def _engine_faults(host):
    error = host.engine_error
    root = host.engine_root
    denied = "permission denied" in error.lower()
    yield (
        not host.client,
        "there is no docker in the path of a shell that runs one command ('ssh host docker version' must answer): "
        + (
            f"link it, as ln -s {host.elsewhere[0]} /usr/bin/docker, and see that this is done again after a boot"
            if host.elsewhere
            else "install the vendor's or a static Docker engine, and link docker into /usr/bin"
        ),
    )
    yield (
        denied,
        f"the user {host.user} may not use the Docker engine: name one who may in registry_docker_host (on WD it is "
        "sshd), or add this one to the group that owns /var/run/docker.sock",
    )
    yield (
        bool(error) and not denied,
        f"the Docker engine does not answer ({error[:200]}): start it in the appliance's web page or by its script",
    )
    yield (
        bool(host.engine) and _version(host.engine) < ENGINE,
        f"the Docker engine {host.engine} is too old, 20.10 or newer is needed (API {API}): update the vendor's "
        "package, or install a static engine",
    )
    yield (
        host.info.get("Driver") == "vfs",
        "the engine's storage driver is vfs, which copies every image whole and fills the disk: put its directory "
        f"({host.info.get('DockerRootDir')}) on an ext4 or xfs volume and use overlay2",
    )
    yield (
        bool(root) and not root.persistent,
        f"the engine keeps its containers in {root.path if root else ''}, which is gone after a boot "
        f"({root.kind if root else ''}): put its directory (data-root) on the data volume",
    )


def _version(text):
    numbers = re.findall(r"\d+", text)[:2]
    return tuple(int(one) for one in numbers)


def _place_faults(host, place, home, volume, min_free):
    if place is None or not home:
        yield (
            not volume,
            "there is no volume on a disk to keep images on (found: "
            + (", ".join(f"{one.path} ({one.kind})" for one in host.volumes) or "none")
            + "): set registry_home to a directory on the data volume",
        )
        return
    name = "the engine's directory" if volume else f"the directory {place.path if place is host.data else home}"
    yield (
        not place.persistent,
        f"{name} would lie on {place.mount} ({place.kind}), which is gone after a boot: set registry_home to a "
        "directory on the data volume" + _suggest(host),
    )
    yield (
        not place.writable and not volume,
        f"{name} cannot be written by {host.user}: {place.real} is read-only or belongs to another: log in as another "
        "user, or set registry_home to another directory",
    )
    there = bool(host.data_mount)
    yield (
        place.free < (min(16 * MIB, min_free) if there else min_free),
        f"{name} has {size(place.free)} free{'' if there else f', a new registry wants {size(min_free)}'}: the disk "
        "is full; free some space, or set registry_home to another volume",
    )


def _suggest(host):
    better = _largest(host)
    return f", such as {better.path.rstrip('/')}/registry" if better else ""


def _warnings(host):
    yield (
        host.info.get("MemoryLimit") is False,
        "this kernel cannot limit a container's memory: registry_memory has no effect here",
    )
    yield (
        bool(host.memory) and host.memory < GIB,
        f"{size(host.memory)} of memory is little: mirror few images at one time",
    )


def _home(host):
    if host.data_mount.startswith("/"):
        parent, _slash, last = host.data_mount.rpartition("/")
        if last == "data" and parent:
            for place in host.volumes:  # under the name that lasts, not the one the kernel resolved
                if place.path != place.real and parent.startswith(f"{place.real}/"):
                    return place.path + parent[len(place.real) :]
            return parent
    best = _largest(host)
    if best is None:
        return ""
    return "/srv/registry" if best.path == "/" else f"{best.path}/registry"


def _largest(host):
    """The largest volume that lasts: one with a registry first, vendors' own before what may be plugged in."""
    usable = [one for one in host.volumes if one.persistent and one.writable and not _is_system(one)]
    named = {one.real for one in usable if one.path != one.real or _is_alias(one.path)}

    held = {one.real for one in usable if one.path in host.held}

    def rank(one):
        first = (one.path != "/", one.real in held, one.real in named, _is_alias(one.path))
        return (*first, one.size, -len(one.path), one.path)

    return max(usable, key=rank, default=None)


def _is_alias(path):
    return any(re.fullmatch(re.sub(r"\*", "[^/]*", pattern), path) for pattern in ALIASES)


def _is_system(place):
    return any(place.real == top or place.real.startswith(f"{top}/") for top in _SYSTEM)


def _at(host, path):
    """The volume a path lies on, under either of its names."""
    inside = [
        one
        for one in host.volumes
        for name in (one.path, one.real)
        if path == name or path.startswith(f"{name.rstrip('/')}/")
    ]
    return max(inside, key=lambda one: len(one.real), default=None)


def _limits(host, home):
    """How much the registry and its jobs may take; "" and the usual numbers where nothing is known."""
    can = host.info.get("MemoryLimit") is not False
    place = _at(host, home)
    device = re.sub(r"^/dev/(mapper/)?", "", place.device) if place else ""
    disks = {name: turns for name, turns in host.rotational.items() if not re.match("loop|ram|zram|mtd|sr", name)}
    turning = disks.get(device, disks.get(re.sub(r"p?\d+$", "", device), any(disks.values())))
    cores = host.cores or 4

    def share(part, least, most):
        if not host.memory or not can:
            return ""
        # in steps, so that another kernel with a few pages more is not another container
        wanted = min(max(host.memory // part, least * MIB), most * MIB) // (64 * MIB) * 64
        return f"{wanted}m"

    return {
        "memory": share(4, 256, 1024),
        "jobs_memory": share(4, 256, 1024),
        # at least 25, says the server; a turning disk is faster with less at one time
        "storage_max_threads": max(25, 12 * cores) if turning else 100,
        "mirror_workers": min(8, max(2, 2 * cores if not turning else cores)),
    }


def _report(host, place, home, limits, chosen):
    engine = (
        f"{host.engine} (API {host.api}), {host.info.get('Driver', '?')}, containers in {host.engine_root or '?'}"
        if host.engine
        else f"does not answer: {host.engine_error or 'no docker in the path'}"
    )
    found = f"{', found' if chosen else ''}: {place}" if place else ""
    return [
        f"machine   {host.architecture or '?'}, {host.kernel or '?'}, {host.cores} cores, {size(host.memory)} of memory"
        f" ({size(host.available)} available), as {host.user or '?'}",
        f"engine    {engine}",
        f"images    {home or 'no place'}{found}",
        f"python3   {host.python or 'none; it is driven from here'}",
        f"limits    memory {limits['memory'] or 'cannot be limited'}, {limits['storage_max_threads']} file operations"
        f" and {limits['mirror_workers']} mirror workers at one time",
    ]


# --- no answer at all -------------------------------------------------------------------------------------------
def explain_ssh(target: str, text: str) -> str:
    """Why OpenSSH did not get in, with the remedy.

    Args:
        target: user@host as it was called.
        text: what ssh wrote on standard error.
    """
    host = target.rpartition("@")[2]
    said = " ".join(text.split())
    for pattern, meaning in (
        (
            "IDENTIFICATION HAS CHANGED",
            f"its host key is another one than in your known_hosts. After a reset of the appliance that is to be "
            f"expected: compare it, then 'ssh-keygen -R {host}' and log in once",
        ),
        ("Host key verification failed", f"its host key is unknown: log in once ('ssh {target}') and compare it"),
        (
            "Permission denied|Too many authentication failures",
            f"it accepts no key of yours for this user: put one there ('ssh-copy-id {target}', or the appliance's web "
            "page; some appliances forget it at a boot, see docs/nas.md), or correct the user in registry_docker_host "
            "(on WD it is sshd)",
        ),
        (
            "Could not resolve|Name or service not known|not known",
            "its name is unknown: correct registry_docker_host, or give the address",
        ),
        (
            "timed out|No route to host|refused|unreachable",
            "nothing answers there: is it switched on, is SSH enabled in its web page, is the address right?",
        ),
        ("closed by|Broken pipe|reset by", "the connection was cut: run the same command again"),
    ):
        if re.search(pattern, said, re.IGNORECASE):
            return f"no SSH connection to {target}: {meaning} ({said[-200:]})"
    return f"no SSH connection to {target}: {said[-300:] or 'ssh said nothing'}"
