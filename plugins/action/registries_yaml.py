# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action plugin of registries_yaml: fetch, parse and plan on the controller, write on the node."""

from __future__ import annotations

import base64
import re

import yaml
from ansible.plugins.action import ActionBase
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.nodes import files, registries_yaml


class _StepFailed(Exception):
    """A module on the node failed; `args[0]` is its result, which becomes ours."""


class ActionModule(ActionBase):
    """Run with the options documented in the module of the same name."""

    _requires_connection = True

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        _validated, args = self.validate_argument_spec(
            {
                "path": {"type": "path", "default": "/etc/rancher/k3s/registries.yaml"},
                "mirrors": {"type": "dict", "default": {}},
                "configs": {"type": "dict", "default": {}},
                "overlap": {"type": "bool", "default": False},
            }
        )
        try:
            result.update(self._bring_in_line(args, task_vars))
        except HomelabError as error:
            result.update(failed=True, msg=str(error))
        except _StepFailed as error:
            result.update(error.args[0])
        return result

    def _bring_in_line(self, args: dict, task_vars: dict) -> dict:
        path = args["path"]
        text = self._read(path, task_vars)
        owned_path = files.owned_path(path)
        owned_text = self._read(owned_path, task_vars)
        plan = registries_yaml.plan(
            text,
            _parse(text, path),
            path,
            mirrors=args["mirrors"],
            configs=args["configs"],
            owned=files.parse_owned(owned_text),
            overlap=args["overlap"],
        )
        result = {
            "changed": plan.changed,
            "warnings": plan.warnings,
            "diff": {
                "before": plan.before_shown,
                "after": plan.after_shown,
                "before_header": path,
                "after_header": path,
            },
        }
        if plan.changed:
            written = self._write(path, plan.after, "0600", task_vars, backup=text is not None)
            if written.get("backup_file"):
                result["backup"] = written["backup_file"]
        note = files.dump_owned(plan.owned)
        if note != owned_text and (owned_text or any(plan.owned.values())):
            self._write(owned_path, note, "0600", task_vars)
        return result

    def _read(self, path: str, task_vars: dict) -> str | None:
        found = self._step("ansible.legacy.stat", {"path": path}, task_vars)["stat"]
        if not found["exists"]:
            return None
        if not found.get("isreg"):
            raise HomelabError(f"{path} is not a regular file", remedy="k3s exits at its start like this: move it away")
        content = self._step("ansible.legacy.slurp", {"src": path}, task_vars)["content"]
        try:
            return base64.b64decode(content).decode("utf-8")
        except UnicodeDecodeError as error:
            raise HomelabError(f"{path} is not UTF-8 text: {error}", remedy="correct the file by hand") from error

    def _write(self, path: str, text: str, mode: str, task_vars: dict, backup: bool = False) -> dict:
        """Atomically, by Ansible's own copy; its diff would show passwords, so it makes none."""
        folder = path.rsplit("/", 1)[0]
        self._step("ansible.legacy.file", {"path": folder, "state": "directory"}, task_vars)
        task = self._task.copy()
        task.args = {"content": text, "dest": path, "mode": mode, "backup": backup}
        task.diff = False
        copy = self._shared_loader_obj.action_loader.get(
            "ansible.legacy.copy",
            task=task,
            connection=self._connection,
            play_context=self._play_context,
            loader=self._loader,
            templar=self._templar,
            shared_loader_obj=self._shared_loader_obj,
        )
        return _checked(copy.run(task_vars=task_vars))

    def _step(self, name: str, args: dict, task_vars: dict) -> dict:
        return _checked(self._execute_module(module_name=name, module_args=args, task_vars=task_vars))


def _checked(result: dict) -> dict:
    if result.get("failed"):
        raise _StepFailed({"failed": True, "msg": result.get("msg", "a step on the node failed")})
    return result


class _AsWritten(yaml.SafeLoader):
    """Scalars as k3s' own structs take them: text as it is written (a password 0123 is no number), but for
    null and for the one boolean."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in found if tag.rsplit(":", 1)[1] in ("null", "merge")]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node, deep=False):
        for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
            plain = isinstance(value, yaml.ScalarNode) and value.style is None
            if key.value == "insecure_skip_verify" and plain:
                value.tag = yaml.SafeLoader("").resolve(yaml.ScalarNode, value.value, (True, False))
        return super().construct_mapping(node, deep)


def _parse(text: str | None, path: str) -> object:
    try:
        return yaml.load(text or "", Loader=_AsWritten)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" near line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        # What the parser quotes may be a piece of a password.
        problem = re.sub(r"'[^']*'", "'…'", getattr(error, "problem", None) or "it cannot be parsed")
        raise HomelabError(
            f"{path} is not valid YAML{place}: {problem}. k3s would exit at its next start",
            remedy="correct the file by hand; nothing was changed",
        ) from error
