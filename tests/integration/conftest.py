# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures of the tests with real registry servers: `make integration`."""

from __future__ import annotations

import subprocess

import pytest
from ansible_collections.homelab.registry.tests.integration.real_registry import Registries, image, sweep


@pytest.fixture(scope="session", autouse=True)
def _engine():
    """A Docker engine that has the image under test."""
    command = ["docker", "image", "inspect", image()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        pytest.fail(f"{done.stderr.strip()}: run make lab, or set REGISTRY_IMAGE to an image that is there")
    sweep()
    yield
    sweep()


def _started(home):
    registries = Registries(home)
    try:
        yield registries
    finally:
        registries.close()


@pytest.fixture
def registries(tmp_path):
    """Registries; what the test starts with `registries.start(...)` is gone after it."""
    yield from _started(tmp_path)


@pytest.fixture(scope="module")
def module_registries(tmp_path_factory):
    """Registries that all tests of a file share: they must not get into each other's way."""
    yield from _started(tmp_path_factory.mktemp("registries"))
