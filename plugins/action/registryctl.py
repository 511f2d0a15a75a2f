# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action plugin of registryctl: pack the core on the controller, copy it to the host."""

from __future__ import annotations

import tempfile
from pathlib import Path

from ansible.plugins.action import ActionBase
from ansible_collections.homelab.registry.plugins.module_utils import zipapp_build


class ActionModule(ActionBase):
    """Run with the options documented in the module of the same name."""

    _requires_connection = True

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        _validated, args = self.validate_argument_spec(
            {
                "dest": {"type": "path", "default": "/usr/local/bin/registryctl"},
                "python": {"type": "path", "default": "/usr/bin/python3"},
            }
        )
        with tempfile.TemporaryDirectory() as folder:
            archive = Path(folder, "registryctl")
            archive.write_bytes(zipapp_build.build(Path(zipapp_build.__file__).parent, args["python"]))
            result.update(self._copy(str(archive), args["dest"], task_vars))
        return result

    def _copy(self, source: str, dest: str, task_vars: dict) -> dict:
        """By Ansible's own copy, which is atomic and compares checksums; a zip archive has no diff to show."""
        task = self._task.copy()
        task.args = {"src": source, "dest": dest, "mode": "0755"}
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
        done = copy.run(task_vars=task_vars)
        return {key: done[key] for key in ("changed", "failed", "msg", "dest", "checksum") if key in done}
