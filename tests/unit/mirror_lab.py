# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two registries on loopback and mirror runs between them, in which nobody waits for real."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from functools import partial

from ansible_collections.homelab.registry.plugins.module_utils.mirroring import run as run_module
from ansible_collections.homelab.registry.plugins.module_utils.oci import client as client_module
from ansible_collections.homelab.registry.tests.unit.fake_registry import FakeRegistry, digest_of

#: What the source is called in images' names, and in the target's repositories.
UPSTREAM = "up.example"
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


class HookedRegistry(FakeRegistry):
    """With answers that depend on the request.

    Attributes:
        hooks: called with the handler of each request; one that returns True has answered it.
        answers: (method, path, status) of each answer, in order.
    """

    def __init__(self, **options):
        super().__init__(**options)
        self.hooks = []
        self.answers = []
        base = self._server.RequestHandlerClass
        self._server.RequestHandlerClass = type("Handler", (_Hooks, base), {})

    def clear(self):
        """Forget the requests so far."""
        for log in (self.requests, self.answers, self.seen):
            log.clear()


class _Hooks:
    def _hooked(self):
        for hook in list(self.server.registry.hooks):
            if hook(self):
                self.server.registry.requests.append(f"{self.command} {self.path}")
                return
        super().do_GET()

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _hooked

    def send_response(self, code, message=None):
        self.server.registry.answers.append((self.command, self.path, code))
        super().send_response(code, message)


def answer(handler, status, body=b"", length=None, **headers):
    """From a hook: answer instead of the registry; a `length` that is not the body's breaks the connection."""
    handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), str(value))
    handler.send_header("Content-Length", str(len(body) if length is None else length))
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(body)
    handler.close_connection = length is not None
    return True


def refusal(method, part, status, body=b"", times=None, **headers):
    """A hook that refuses requests of a method with `part` in their path, for ever or so many times."""
    left = [times]

    def hook(handler):
        if handler.command not in method.split() or part not in handler.path or left[0] == 0:
            return False
        left[0] = left[0] and left[0] - 1
        return answer(handler, status, body, **headers)

    return hook


class Clock:
    """Real time, and what was slept besides, which takes none."""

    def __init__(self):
        self.slept = []
        self._lock = threading.Lock()

    def __call__(self):
        with self._lock:
            return time.monotonic() + sum(self.slept)

    def sleep(self, seconds):
        with self._lock:
            self.slept.append(seconds)


class Lab:
    """Context manager: `source` and `target` are HookedRegistry, `state` the path of the state file."""

    def __init__(self, home, monkeypatch, source=None, target=None):
        self.source, self.target = HookedRegistry(**(source or {})), HookedRegistry(**(target or {}))
        self.home, self.state, self.clock = home, home / "state.json", Clock()
        for name in PROXIES:
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("DOCKER_CONFIG", str(home / "docker"))
        monkeypatch.setenv("XDG_STATE_HOME", str(home / "xdg"))
        waiting = {"sleep": self.clock.sleep, "clock": self.clock, "random": lambda: 1.0}
        monkeypatch.setattr(client_module, "Transport", partial(client_module.Transport, **waiting))
        monkeypatch.setattr(run_module, "Copier", partial(run_module.Copier, sleep=self.clock.sleep))

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.source)
            stack.enter_context(self.target)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception):
        return self._stack.__exit__(*exception)

    def settings(self, images, **more):
        return {
            "url": self.target.url,
            "images": images,
            "upstreams": [{"registry": UPSTREAM, "url": self.source.url}],
            "state_path": str(self.state),
            "workers": 4,
            **more,
        }

    def run(self, *images, check=False, progress=None, **more):
        """One run with new connections and fresh logs; names without a registry are the source's."""
        self.source.clear()
        self.target.clear()
        images = [named(one) for one in images]
        return run_module.prepare(self.settings(images, **more)).run(check=check, progress=progress)

    def writes(self):
        """Requests that changed the target, or tried to."""
        return [one for one in self.target.requests if not one.startswith(("GET ", "HEAD "))]

    def tags(self, repository):
        """Tags that the target has of one of the source's repositories."""
        return self.target.tags(place(repository))

    def remember(self, blobs=None, tags=None):
        """Write the state file that an earlier run would have left."""
        data = {"version": 1, "target": self.target.netloc, "blobs": blobs or {}, "tags": tags or {}}
        self.state.write_text(json.dumps(data))

    def remembered(self):
        return json.loads(self.state.read_text())


def named(image):
    if isinstance(image, dict):
        return {**image, "name": named(image["name"])}
    return image if image.startswith(("docker.io/", "other.example/", "down.example")) else f"{UPSTREAM}/{image}"


def place(repository):
    """The repository of the target for one of the source."""
    return f"{UPSTREAM}/{repository}"


def actions(report):
    """Action by image, without the upstream's name."""
    return {one["image"].replace(f"{UPSTREAM}/", ""): one["action"] for one in report.images}


def only(report):
    """The one image of a report."""
    (image,) = report.images
    return image


def blob_path(content):
    return f"/blobs/{digest_of(content)}"
