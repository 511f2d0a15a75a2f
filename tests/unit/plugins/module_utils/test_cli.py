# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""registryctl: what is typed, the settings, exit codes, the lock, the result; real runs on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import yaml
from ansible_collections.homelab.registry.plugins.module_utils import cli, lock, zipapp_build
from ansible_collections.homelab.registry.plugins.module_utils.ctl import mirror
from ansible_collections.homelab.registry.plugins.module_utils.ctl.mirror import mirror_settings
from ansible_collections.homelab.registry.plugins.module_utils.ctl.settings import load_config
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.oci import canary
from ansible_collections.homelab.registry.plugins.module_utils.oci.client import Registry
from ansible_collections.homelab.registry.tests.unit.fake_registry import FakeRegistry

ROOT = Path(__file__).resolve().parents[4]
PASSWORD = "S3cret-of-the-target"


@pytest.fixture
def source():
    with FakeRegistry() as registry:
        canary.push(Registry(registry.url), "team/app")
        yield registry


@pytest.fixture
def target():
    with FakeRegistry(accounts={"me": PASSWORD}) as registry:
        yield registry


@pytest.fixture
def config(tmp_path, source, target):
    """Writes settings that work, changed by its arguments; returns the file's name."""

    def write(**changes):
        settings = {
            "registry": {"url": target.url, "username": "me", "password": PASSWORD},
            "mirror": {
                "images": [f"{source.netloc}/team/app:1"],
                "upstreams": [{"registry": source.netloc, "url": source.url}],
                **changes,
            },
            "state_dir": str(tmp_path),
        }
        path = tmp_path / "registryctl.json"
        path.write_text(json.dumps(settings))
        path.chmod(0o600)
        return str(path)

    return write


# --- real runs ------------------------------------------------------------------------------------------------
def test_a_run_and_a_second_one(config, source, target, capsys):
    assert cli.main(["mirror", "--config", config()]) == 0
    out, err = capsys.readouterr()
    assert "1 copied" in out
    assert f"{source.netloc}/team/app:1: copied" in err
    source.requests.clear()
    assert cli.main(["mirror", "--config", config()]) == 0
    out, err = capsys.readouterr()
    assert "1 unchanged" in out
    assert err == ""
    assert source.requests == ["HEAD /v2/team/app/manifests/1"]


def test_a_dry_run_writes_nothing(config, source, target, tmp_path, capsys):
    name = config()
    assert cli.main(["mirror", "--config", name, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "1 would copy" in out
    assert f"{source.netloc}/team/app:1  would copy" in out, "a log has no line for it, so there is the table"
    assert target.repositories == {}
    assert [path.name for path in tmp_path.iterdir()] == [Path(name).name]


def test_one_bad_image_among_good_ones(config, source, target, capsys):
    images = [f"{source.netloc}/team/app:1", f"{source.netloc}/team/app:gone", "Up/Case:1"]
    assert cli.main(["mirror", "--config", config(images=images)]) == 1
    out, err = capsys.readouterr()
    assert "1 copied, 2 failed" in out
    assert "team/app:gone" in err
    assert "upper case" in err


def test_json_is_all_there_is_on_stdout(config, capsys):
    assert cli.main(["mirror", "--config", config(), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [one["action"] for one in report["images"]] == ["copied"]


def test_the_result_is_kept_for_others(config, tmp_path, capsys):
    result = tmp_path / "mirror.json"
    assert cli.main(["mirror", "--config", config(), "--result", str(result)]) == 0
    report = json.loads(result.read_text())
    assert report["images"][0]["action"] == "copied"
    assert report["started"] <= report["finished"]
    assert time.strptime(report["finished"], "%Y-%m-%dT%H:%M:%SZ")
    assert result.stat().st_mode & 0o777 == 0o644
    assert PASSWORD not in result.read_text()
    assert list(tmp_path.glob(".*")) == []


def test_a_run_that_cannot_do_anything(config, target, tmp_path, capsys):
    target.accounts = {"me": "another"}
    result = tmp_path / "mirror.json"
    assert cli.main(["mirror", "--config", config(), "--result", str(result)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert target.netloc in err
    assert PASSWORD not in err
    assert json.loads(result.read_text())["error"] in err


def test_the_account_is_not_for_another_registry(config, source, target, capsys):
    with FakeRegistry(accounts={"me": PASSWORD}) as other:
        assert cli.main(["mirror", "--config", config(), "--to", other.url]) == 2
        assert "Authorization" not in str(other.seen)
    assert cli.main(["mirror", "--config", config(), "--to", f"{target.url}/"]) == 0


# --- the lock -------------------------------------------------------------------------------------------------
LOCKS = {
    "mirror beside mirror": (False, [], 0),
    "mirror while something is deleted": (True, [], 75),
    "pruning while something is written": (False, ["--prune"], 75),
    "a dry run needs none": (True, ["--dry-run", "--prune"], 0),
}


@pytest.mark.parametrize(("exclusive", "more", "code"), LOCKS.values(), ids=LOCKS)
def test_the_lock(config, tmp_path, capsys, exclusive, more, code):
    result = tmp_path / "mirror.json"
    result.write_text("the other run's")
    with lock.hold(tmp_path / "lock", exclusive=exclusive):
        assert cli.main(["mirror", "--config", config(), "--result", str(result), *more]) == code
    if code:
        assert "another run is under way" in capsys.readouterr().err
        assert result.read_text() == "the other run's"


def test_an_error_in_the_program_is_no_failed_image(config, monkeypatch, capsys):
    monkeypatch.setattr(mirror, "mirror_settings", lambda *_arguments: {}["a bug"])
    assert cli.main(["mirror", "--config", config()]) == 70
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert "registryctl: an error in the program, please report it: KeyError: 'a bug'" in said


def test_a_lock_that_cannot_be_opened(config, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert cli.main(["mirror", "--config", config(), "--lock", str(tmp_path / "file" / "lock")]) == 2
    assert "--lock" in capsys.readouterr().err


# --- settings -------------------------------------------------------------------------------------------------
BAD_FILES = {
    "not JSON": ("{", "not JSON"),
    "a list": ("[]", "not a mapping"),
    "unknown key": ('{"mirrors": {}}', "unknown setting 'mirrors'"),
    "unknown key of the registry": ('{"registry": {"host": "x"}}', "unknown setting 'host'"),
    "unknown key of mirror": ('{"mirror": {"image": []}}', "unknown setting 'image'"),
    "a text for a number": ('{"mirror": {"workers": "4"}}', "workers is not a number"),
    "a yes for a number": ('{"mirror": {"workers": true}}', "workers is not a number"),
    "a text for a list": ('{"mirror": {"platforms": "linux/amd64"}}', "platforms is not a list"),
    "a number for yes": ('{"mirror": {"prune": 1}}', "prune is not true or false"),
    "no mapping": ('{"registry": []}', "registry is not a mapping"),
    "not text": (b"\xff", "cannot be read"),
}


@pytest.mark.parametrize(("text", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file(tmp_path, text, message):
    path = tmp_path / "c.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(HomelabError, match=message) as caught:
        load_config(str(path))
    assert str(path) in str(caught.value)


MODES = {
    "a password, for its owner": ({"registry": {"password": "p"}}, 0o600, True),
    "a password, for its group": ({"registry": {"password": "p"}}, 0o640, False),
    "an upstream's password, for all": ({"mirror": {"upstreams": [{"password": "p"}]}}, 0o644, False),
    "none, for all": ({"registry": {"url": "http://x", "password": None}}, 0o644, True),
}


@pytest.mark.parametrize(("settings", "mode", "good"), MODES.values(), ids=MODES)
def test_who_may_read_a_password(tmp_path, settings, mode, good):
    path = tmp_path / "c.json"
    path.write_text(json.dumps(settings))
    path.chmod(mode)
    if good:
        assert load_config(str(path)) == settings
        return
    with pytest.raises(HomelabError, match=f"chmod 600 {path}"):
        load_config(str(path))


def test_a_file_that_was_named_must_be_there(tmp_path, capsys):
    assert cli.main(["mirror", "--config", str(tmp_path / "none"), "node"]) == 2
    assert str(tmp_path / "none") in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [[], ["mirror", "--workers", "x"], ["mirrow"], ["mirror", "--password", "p"]],
    ids=["nothing", "no number", "no verb", "no such option"],
)
def test_what_cannot_be_understood(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert "usage: registryctl" in capsys.readouterr().err


CONFIG = {"registry": {"url": "http://reg:5000"}, "mirror": {"images": ["a"], "workers": 2}, "state_dir": "/s"}
TYPED = {
    "the file's": ([], {"images": ["a"], "workers": 2, "url": "http://reg:5000", "state_dir": "/s"}),
    "images": (["b", "c"], {"images": ["b", "c"]}),
    "platforms": (
        ["--platform", "linux/amd64", "--platform", "linux/arm64"],
        {"platforms": ["linux/amd64", "linux/arm64"]},
    ),
    "workers": (["--workers", "8"], {"workers": 8}),
    "prune": (["--prune", "--referrers"], {"prune": True, "referrers": True}),
    "state": (["--state", "/t"], {"state_path": "/t"}),
    "another registry": (["--to", "https://r"], {"url": "https://r"}),
}


@pytest.mark.parametrize(("arguments", "expected"), TYPED.values(), ids=TYPED)
def test_what_is_typed_goes_before_the_file(arguments, expected):
    settings = mirror_settings(cli._parser(["mirror"]).parse_args(["mirror", *arguments]), CONFIG)
    assert {key: settings[key] for key in expected} == expected


LISTS = {
    "lines": ("a:1  # one\n\n# two\nb", ["x", "a:1  # one\n\n# two\nb"]),
    "JSON": ('\n["a:1", {"name": "b"}]', ["x", "a:1", {"name": "b"}]),
}


@pytest.mark.parametrize(("text", "images"), LISTS.values(), ids=LISTS)
def test_a_list(tmp_path, text, images):
    path = tmp_path / "list"
    path.write_text(text)
    arguments = cli._parser(["mirror"]).parse_args(["mirror", "x", "--list", str(path)])
    assert mirror_settings(arguments, CONFIG)["images"] == images


@pytest.mark.parametrize("content", [None, b"\xff", b"[1,"], ids=["none", "not text", "not JSON"])
def test_a_bad_list(tmp_path, content):
    path = tmp_path / "list"
    if content:
        path.write_bytes(content)
    arguments = cli._parser(["mirror"]).parse_args(["mirror", "--list", str(path)])
    with pytest.raises(HomelabError, match="list"):
        mirror_settings(arguments, CONFIG)


# --- as one file ----------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def program(tmp_path_factory):
    path = tmp_path_factory.mktemp("bin") / "registryctl"
    path.write_bytes(zipapp_build.build(Path(cli.__file__).parent, sys.executable))
    path.chmod(0o755)
    return str(path)


def test_it_is_the_same_whenever_and_wherever_it_is_built(program, tmp_path):
    again = tmp_path / "core"
    for path in Path(cli.__file__).parent.rglob("*.py"):
        copy = again / path.relative_to(Path(cli.__file__).parent)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
        os.utime(copy, (1, 1))
        copy.chmod(0o600)
    (again / "cli.pyc").write_bytes(b"not ours")
    assert zipapp_build.build(again, sys.executable) == Path(program).read_bytes()


def test_another_process_builds_the_same(program):
    """What else is in memory must not show in compiled code."""
    script = "import sys; from pathlib import Path; from module_utils.zipapp_build import build; "
    script += "sys.stdout.buffer.write(build(Path(sys.argv[1]), sys.argv[2]))"
    core = Path(cli.__file__).parent
    run = [sys.executable, "-c", script, str(core), sys.executable]
    built = subprocess.run(run, cwd=core.parent, capture_output=True, check=True).stdout
    assert built == Path(program).read_bytes()


@pytest.mark.parametrize(("spoilt", "said"), [(".py", 0), (".pyc", 0), ("both", 1)])
def test_it_runs_from_compiled_code_and_elsewhere_from_the_source(program, tmp_path, spoilt, said):
    """A .pyc of another Python begins with another number."""
    other = tmp_path / "registryctl"
    with zipfile.ZipFile(program) as archive, zipfile.ZipFile(other, "w") as copy:
        for entry in archive.infolist():
            data = archive.read(entry)
            if entry.filename.endswith("c") and spoilt in (".pyc", "both"):
                data = b"\0\0\r\n" + data[4:]
            elif entry.filename.startswith("homelab") and entry.filename.endswith(".py") and spoilt in (".py", "both"):
                data = b"this is no Python"
            copy.writestr(entry, data)
    assert subprocess.run([sys.executable, other, "--version"], capture_output=True, check=False).returncode == said


def test_nothing_in_it_tells_when_or_where(program):
    with zipfile.ZipFile(program) as archive:
        entries = archive.infolist()
    assert [entry.filename for entry in entries] == sorted(entry.filename for entry in entries)
    about = {(entry.date_time, entry.external_attr, entry.create_system, entry.compress_type) for entry in entries}
    assert about == {((1980, 1, 1, 0, 0, 0), 0o100644 << 16, 3, zipfile.ZIP_STORED)}


def test_it_runs_alone(program, tmp_path):
    """Not from this checkout, and not with what lies about in the working directory or PYTHONPATH."""
    (tmp_path / "json.py").write_text("raise SystemExit('wrong json')")
    run = {"cwd": tmp_path, "env": {"PYTHONPATH": str(tmp_path)}, "capture_output": True, "text": True}
    version = yaml.safe_load((ROOT / "galaxy.yml").read_text())["version"]
    assert subprocess.run([program, "--version"], **run, check=True).stdout == f"registryctl {version}\n"
    assert "--dry-run" in subprocess.run([program, "mirror", "--help"], **run, check=True).stdout


def test_it_does_the_whole_job(program, config, target):
    run = [program, "mirror", "--config", config()]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert (done.returncode, "1 copied" in done.stdout) == (0, True), done.stderr
    assert len(target.repositories) == 1


def test_it_stops_when_asked_to(program, config, source, tmp_path):
    source.delay = 0.2
    source.requests.clear()
    process = subprocess.Popen([program, "mirror", "--config", config()], stderr=subprocess.PIPE, text=True)
    while not source.requests:
        assert process.poll() is None
        time.sleep(0.02)
    process.terminate()
    assert "what is complete stays" in process.communicate(timeout=30)[1]
    assert process.returncode == 130
