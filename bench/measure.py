# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run commands, some at a time, and say what they cost; in the container, so that its start costs nothing.

measure.py < {"commands": [[…], …], "parallel": 4}
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main():
    """Prints wall and CPU seconds of all commands, and the memory (bytes) of the largest single process."""
    job = json.load(sys.stdin)
    with tempfile.TemporaryDirectory() as folder:
        json.dump(run(job["commands"], job["parallel"], Path(folder)), sys.stdout)


def run(commands, parallel, folder):
    """Run the commands, `parallel` at one time; their outputs go to files in the folder."""
    waiting, running, errors, cpu, memory = list(enumerate(commands)), {}, [], 0.0, 0
    started = time.monotonic()
    while waiting or running:
        while waiting and len(running) < parallel:
            number, command = waiting.pop(0)
            with (folder / str(number)).open("wb") as output:
                process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
            running[process.pid] = number, process
        pid, status, usage = os.wait4(-1, 0)
        number, process = running.pop(pid)
        process.returncode = os.waitstatus_to_exitcode(status)
        cpu += usage.ru_utime + usage.ru_stime
        memory = max(memory, usage.ru_maxrss * 1024)
        if status:
            text = (folder / str(number)).read_text(encoding="utf-8", errors="replace")
            errors.append(f"{' '.join(commands[number])[:200]}: exit {process.returncode}: {text[-2000:]}")
    return {"wall": time.monotonic() - started, "cpu": cpu, "memory": memory, "errors": errors}


if __name__ == "__main__":
    main()
