# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The house's own rules: what the core may import, how big a module may be, which playbooks there are."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "plugins" / "module_utils"
CORE_FILES = sorted(CORE.rglob("*.py"))
MODULES = sorted((ROOT / "plugins" / "modules").glob("*.py"))
#: A target's python3 may be this old.
OLDEST = (3, 9)
#: Package of the core to the packages of it that may be used there; "" are the files beside the packages.
FLOORS = {
    "": set(),
    "oci": {""},
    "server": {"", "oci", "report"},
    "nodes": {"", "oci"},
    "report": {"", "oci"},
    "mirroring": {"", "oci"},
    "storage": {"", "oci", "server"},
    "retention": {"", "oci", "storage", "mirroring"},
    "ctl": {"", "oci", "server", "nodes", "mirroring", "storage", "retention", "report"},
    "cli.py": {"", "ctl"},
}


def name(path):
    return str(path.relative_to(ROOT))


def imports(path):
    """Full names of what a file imports, also inside functions; relative ones as paths below the core."""
    package = path.relative_to(CORE).parts[:-1] if CORE in path.parents else ()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), feature_version=OLDEST)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - (node.level - 1)]
            for alias in node.names:
                yield ".".join(["core", *above, *([node.module] if node.module else [alias.name])])


def floor_of(import_name):
    """The package of the core that is meant: "" for errors.py and the like."""
    parts = import_name.split(".")
    return parts[1] if (CORE / parts[1]).is_dir() else ""


@pytest.mark.parametrize("path", CORE_FILES, ids=name)
def test_the_core_needs_nothing_but_python(path):
    others = {used.split(".")[0] for used in imports(path)} - set(sys.stdlib_module_names) - {"core"}
    assert others == set()


@pytest.mark.parametrize("path", CORE_FILES, ids=name)
def test_the_core_keeps_its_floors(path):
    own = path.relative_to(CORE).parts[0]
    own = "" if path.parent == CORE and own not in FLOORS else own
    used = {floor_of(used) for used in imports(path) if used.startswith("core.")}
    assert used - FLOORS[own] - {own} == set()


def test_the_imports_are_seen():
    """What makes the two tests above mean something."""
    used = set(imports(CORE / "nodes" / "proof.py"))
    assert {"core.errors", "core.oci", "core.oci.client", "core.engine", "subprocess"} <= used


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_module_is_thin(path):
    assert path.stat().st_size < 24 * 1024


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_module_imports_only_ansible_s_base_and_the_core(path):
    core = "ansible_collections.homelab.registry.plugins.module_utils"
    strange = {
        used
        for used in imports(path)
        if used.split(".")[0] not in sys.stdlib_module_names and not used.startswith((core, "ansible.module_utils."))
    }
    assert strange == set()


def test_action_groups_name_modules_that_take_a_url():
    groups = yaml.safe_load((ROOT / "meta" / "runtime.yml").read_text(encoding="utf-8")).get("action_groups", {})
    files = {path.stem: path for path in MODULES}
    for group in groups.values():
        for module in group:
            if isinstance(module, dict):  # the group's metadata
                continue
            assert module in files
            assert "url" in documentation(files[module])["options"], f"{module} takes no url"


def documentation(path):
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == "DOCUMENTATION":
            return yaml.safe_load(node.value.value)
    raise AssertionError(f"{path} has no DOCUMENTATION")


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_module_s_documentation_has_its_name(path):
    assert documentation(path)["module"] == path.stem


def playbooks(folder):
    """Playbooks are lists of plays; other YAML files at the root are settings."""
    found = {}
    for path in folder.glob("*.yml"):
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        if isinstance(content, list):
            found[path.name] = content
    return found


def test_every_verb_can_be_typed_in_a_checkout():
    assert set(playbooks(ROOT)) == set(playbooks(ROOT / "playbooks"))


@pytest.mark.parametrize("verb", sorted(playbooks(ROOT)))
def test_a_root_playbook_only_imports_its_namesake(verb):
    (play,) = playbooks(ROOT)[verb]
    assert play["import_playbook"] == f"homelab.registry.{Path(verb).stem}"
    assert set(play) <= {"name", "import_playbook"}
