# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""First contact: what the probe's text becomes, which hosts are refused, and why."""

from __future__ import annotations

import json
import subprocess

import pytest
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.server.host_probe import (
    explain_ssh,
    judge,
    parse,
    script,
)

INFO = {"Driver": "overlay2", "MemoryLimit": True, "DockerRootDir": "/mnt/HD/HD_a2/Nas_Prog/_docker"}
GIB = 1 << 20  # in the blocks of df


def df(mount, total=5000 * GIB, free=3000 * GIB):
    return f"/dev/md1 {total} {total - free} {free} 31% {mount}"


def line(*fields):
    return "\t".join(fields) + "\t"


#: A PR4100 as the facts have it: root on a RAM disk, one RAID volume under two names, a USB disk.
PARTS = {
    "banner": "BusyBox v1.30",
    "architecture": line("architecture", "x86_64"),
    "kernel": line("kernel", "Linux 4.14.22"),
    "user": line("user", "sshd", "0"),
    "cores": line("cores", "4"),
    "memory": line("memory", "3932160 kB", "2932160 kB"),
    "zone": line("zone", "CET-1CEST,M3.5.0,M10.5.0/3"),
    "block": "\n".join([line("block", "loop0", "1"), line("block", "md1", "1"), line("block", "sdc", "0")]),
    "mounts": "\n".join(
        [
            line("mount", "rootfs", "/", "rootfs", "rw"),
            line("mount", "mdev", "/dev", "tmpfs", "rw"),
            line("mount", "/dev/md1", "/mnt/HD/HD_a2", "ext4", "rw,noatime"),
            line("mount", "/dev/mtdblock9", "/usr/local/config", "ext3", "rw"),
            line("mount", "/dev/sdc1", "/mnt/USB/USB1_c1", "ext4", "rw"),
        ]
    ),
    "volumes": "\n".join(
        [
            line("volume", "/mnt/HD/HD_a2", "/mnt/HD/HD_a2", "yes", df("/mnt/HD/HD_a2")),
            line("volume", "/usr/local/config", "/usr/local/config", "yes", df("/usr/local/config", 20000, 9000)),
            line("volume", "/mnt/USB/USB1_c1", "/mnt/USB/USB1_c1", "yes", df("/mnt/USB/USB1_c1", 9000 * GIB)),
            line("alias", "/shares/Volume_1", "/mnt/HD/HD_a2", "yes", df("/mnt/HD/HD_a2")),
        ]
    ),
    "data": "",
    "client": line("client", "/usr/sbin/docker"),
    "engine": line("engine", "20.10.12", "1.41"),
    "root": line("root", INFO["DockerRootDir"], INFO["DockerRootDir"], "yes", df("/mnt/HD/HD_a2")),
    "info": line("info", json.dumps(INFO)),
    "container": line("mounts", ""),
    "end": line("end"),
}


def host(**changes):
    return parse("\n".join({**PARTS, **changes}.values()))


def container(source):
    return line("mounts", json.dumps([{"Destination": "/var/lib/registry", "Source": source}]))


def data(path, real, *, writable="yes", **size):
    return line("data", path, real, writable, df("/x", **size))


def test_a_nas_as_it_should_be():
    verdict = judge(host())
    assert (verdict.refusals, verdict.warnings) == ([], [])
    assert verdict.home == "/shares/Volume_1/registry"
    assert verdict.limits == {
        "memory": "960m",
        "jobs_memory": "960m",
        "storage_max_threads": 48,
        "mirror_workers": 4,
    }
    assert "\n".join(verdict.report) == (
        "machine   x86_64, Linux 4.14.22, 4 cores, 3.8 GiB of memory (2.8 GiB available), as sshd (uid 0)\n"
        "engine    20.10.12 (API 1.41), overlay2, containers in /mnt/HD/HD_a2/Nas_Prog/_docker on /dev/md1 (ext4), "
        "2.9 TiB of 4.9 TiB free\n"
        "images    /shares/Volume_1/registry, found: /shares/Volume_1 on /dev/md1 (ext4), 2.9 TiB of 4.9 TiB free\n"
        "python3   none; it is driven from here\n"
        "limits    memory 960m, 48 file operations and 4 mirror workers at one time"
    )
    assert host().time_zone == "CET-1CEST,M3.5.0,M10.5.0/3"


@pytest.mark.parametrize(
    ("changes", "home"),
    [
        ({"container": container("/mnt/HD/HD_a2/mine/data")}, "/shares/Volume_1/mine"),
        ({"container": container("/mnt/USB/USB1_c1/r/data")}, "/mnt/USB/USB1_c1/r"),
        # its own name for the directory: the default place is as good as any
        ({"container": container("/mnt/HD/HD_a2/images")}, "/shares/Volume_1/registry"),
        ({"client": PARTS["client"] + "\n" + line("held", "/mnt/USB/USB1_c1")}, "/mnt/USB/USB1_c1/registry"),
        (
            {
                "mounts": line("mount", "/dev/sda2", "/", "ext4", "rw"),
                "volumes": line("volume", "/", "/", "yes", df("/")),
                "root": line("root", "/var/lib/docker", "/var/lib/docker", "yes", df("/")),
            },
            "/srv/registry",
        ),
    ],
    ids=["where it is", "on another disk", "data elsewhere", "images without a container", "a Linux host"],
)
def test_the_directory(changes, home):
    verdict = judge(host(**changes))
    assert (verdict.home, verdict.refusals) == (home, [])


@pytest.mark.parametrize(
    ("changes", "home", "parts"),
    [
        ({"engine": line("engine", "19.03.8", "1.40")}, "", ["the Docker engine 19.03.8 is too old", "update"]),
        (
            {"info": line("info", json.dumps({**INFO, "Driver": "vfs"}))},
            "",
            ["storage driver is vfs", INFO["DockerRootDir"], "ext4 or xfs"],
        ),
        (
            {"root": line("root", "/var/lib/docker", "/var/lib/docker", "yes", df("/"))},
            "",
            ["the engine keeps its containers in /var/lib/docker, which is gone after a boot (rootfs)", "data-root"],
        ),
        (
            {"data": data("/srv/registry/data", "/")},
            "/srv/registry",
            ["the directory /srv/registry/data would lie on / (rootfs)", "such as /shares/Volume_1/registry"],
        ),
        (
            {"data": data("/dev/x/data", "/dev")},
            "/dev/x",
            ["would lie on /dev (tmpfs), which is gone after a boot"],
        ),
        (
            {"data": data("/mnt/HD/HD_a2/r/data", "/mnt/HD/HD_a2", free=500 << 10)},
            "/mnt/HD/HD_a2/r",
            ["has 500 MiB free, a new registry wants 1.0 GiB: the disk is full; free some space"],
        ),
        (
            {"data": data("/mnt/HD/HD_a2/r/data", "/mnt/HD/HD_a2", free=5 << 10), "container": container("/x/data")},
            "/mnt/HD/HD_a2/r",
            ["has 5.0 MiB free: the disk is full"],
        ),
        (
            {
                "data": data("/mnt/HD/HD_a2/r/data", "/mnt/HD/HD_a2", writable="no"),
                "user": line("user", "admin", "501"),
            },
            "/mnt/HD/HD_a2/r",
            ["cannot be written by admin (uid 501)"],
        ),
        ({"volumes": ""}, "", ["there is no volume on a disk to keep images on (found: none): set registry_home"]),
        (
            {
                "client": line("client", ""),
                "engine": line("elsewhere", "/usr/local/bin/docker"),
                "root": "",
                "info": "",
            },
            "",
            ["no docker in the path", "'ssh host docker version' must answer", "ln -s /usr/local/bin/docker /usr/bin"],
        ),
        (
            {
                "engine": line("error", "Cannot connect to the Docker daemon at unix:///var/run/docker.sock."),
                "root": "",
            },
            "",
            ["the Docker engine does not answer (Cannot connect", "start it"],
        ),
        (
            {
                "engine": line("error", "Got permission denied while trying to connect to the Docker daemon socket"),
                "root": "",
                "info": "",
                "user": line("user", "admin", "501"),
            },
            "",
            ["the user admin (uid 501) may not use the Docker engine", "registry_docker_host"],
        ),
        ({"end": ""}, "", ["did not answer the questions to the end"]),
    ],
    ids=[
        "engine",
        "vfs",
        "engine's RAM disk",
        "root",
        "tmpfs",
        "no space",
        "full",
        "not its own",
        "no volume",
        "no client",
        "stopped",
        "no rights",
        "cut",
    ],
)
def test_refusals(changes, home, parts):
    verdict = judge(host(**changes), home)
    assert len(verdict.refusals) == 1, verdict.refusals
    for part in parts:
        assert part in verdict.refusals[0]


def test_all_that_is_wrong_is_said_at_once():
    verdict = judge(host(engine=line("engine", "18.09.1", "1.39"), data=data("/tmp/r/data", "/")), "/tmp/r")
    assert len(verdict.refusals) == 2


def test_images_in_a_volume_of_the_engine_lie_where_the_engine_does():
    assert judge(host(), "/shares/Volume_1/registry", volume=True).refusals == []
    full = line("root", INFO["DockerRootDir"], "/mnt/HD/HD_a2", "yes", df("/mnt/HD/HD_a2", free=10 << 10))
    assert "the engine's directory has 10 MiB free" in judge(host(root=full), "/x", volume=True).refusals[0]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"block": line("block", "md1", "0")}, {"storage_max_threads": 100, "mirror_workers": 8}),
        ({"cores": line("cores", "1")}, {"storage_max_threads": 25, "mirror_workers": 2}),
        ({"memory": line("memory", "524288 kB", "1 kB")}, {"memory": "256m"}),
        ({"memory": line("memory", "64000000 kB", "1 kB")}, {"memory": "1024m"}),
        ({"info": line("info", json.dumps({**INFO, "MemoryLimit": False}))}, {"memory": ""}),
        ({"memory": ""}, {"memory": ""}),
    ],
    ids=["flash", "one core", "little", "plenty", "a kernel that cannot", "not seen"],
)
def test_limits(changes, expected):
    limits = judge(host(**changes)).limits
    assert {name: limits[name] for name in expected} == expected


def test_a_kernel_that_cannot_limit_memory_is_mentioned():
    verdict = judge(host(info=line("info", json.dumps({**INFO, "MemoryLimit": False}))))
    assert (len(verdict.warnings), verdict.refusals) == (1, [])


@pytest.mark.parametrize("text", ["", "garbage", "memory\nmount\tx\nvolume\t/x\ninfo\t{\nmounts\t[1]\nuser\n"])
def test_nonsense_is_no_crash(text):
    assert judge(parse(text)).refusals


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("Host key verification failed.", "its host key is unknown: log in once ('ssh sshd@nas')"),
        ("@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.", "ssh-keygen -R nas"),
        ("sshd@nas: Permission denied (publickey).", "it accepts no key of yours for this user"),
        ("ssh: connect to host nas port 22: Connection refused", "is SSH enabled"),
        ("ssh: connect to host nas port 22: Connection timed out", "is it switched on"),
        ("ssh: Could not resolve hostname nas: Name or service not known", "its name is unknown"),
        ("Connection to nas closed by remote host.", "the connection was cut: run the same command again"),
        ("", "ssh said nothing"),
    ],
)
def test_no_way_in(text, part):
    assert part in explain_ssh("sshd@nas", text)


@pytest.mark.parametrize("shell", [["sh", "-c"], ["busybox", "sh", "-c"]], ids=["sh", "busybox"])
def test_a_real_shell_runs_it(shell, tmp_path):
    try:
        done = subprocess.run(
            [*shell, script("no-such-container", str(tmp_path / "with a blank" / "registry"))],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    except FileNotFoundError:
        pytest.skip(f"no {shell[0]} here")
    seen = parse(done.stdout)
    assert (seen.complete, done.stderr) == (True, "")
    assert seen.cores > 0 and seen.memory > 0 and seen.architecture and seen.data.size > 0
    assert seen.data.real == str(tmp_path.resolve())


@pytest.mark.parametrize(
    ("home", "data_path", "where"),
    [
        ("shares/Volume_1/registry", "", "registry_home"),
        ("./registry", "/srv/data", "registry_home"),
        ("", "shares/data", "registry_data_path"),
    ],
)
def test_a_path_without_its_slash_is_refused(home, data_path, where):
    with pytest.raises(HomelabError) as caught:
        script("registry", home, data_path)
    assert "is no absolute path" in str(caught.value) and where in str(caught.value)


def test_the_search_for_a_directory_always_ends():
    """Paths come from the host as well: from its mounts, and from its engine."""
    place = script("registry").split("place() {", 1)[1].split("real=", 1)[0]
    for path in ("shares/Volume_1", "shares", "/nowhere/at/all", "/nowhere", "", "/"):
        command = ["sh", "-c", f"set -- x '{path}'; {place} echo \"$at\""]
        assert subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout == "/\n", path
