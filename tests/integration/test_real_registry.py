# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab of these tests itself: servers come, keep their data over restarts, and go."""

from __future__ import annotations

import pytest
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.tests.integration.real_images import Content, assert_whole, parts
from ansible_collections.homelab.registry.tests.integration.real_registry import Registries, docker
from ansible_collections.homelab.registry.tests.unit import images


def test_data_stays_over_stop_kill_and_restart_and_the_container_goes(tmp_path):
    registries = Registries(tmp_path)
    try:
        registry = registries.start()
        content = Content()
        digest = images.multi(content, "team/app", "1", [images.data("base")])
        content.push(registry.client())
        assert [one.status for one in registry.requests() if one.method == "PUT" and one.path.endswith("/1")] == [201]
        registry.stop()
        with pytest.raises(HomelabError):
            registry.client().request("GET", "/v2/")
        registry.start()
        registry.kill()
        registry.start()
        registry.configure({"storage": {"maintenance": {"readonly": {"enabled": True}}}})
        client = registry.client()
        assert client.head_manifest("team/app", "1") == digest
        assert parts(client, "team/app", "1") == images.parts(content, "team/app", digest)
        assert_whole(client)
        assert (registry.v2 / "repositories/team/app/_manifests/tags/1/current/link").read_text() == digest
    finally:
        registries.close()
    assert docker("ps", "-aq", "--filter", f"name={registry.name}") == ""


def test_the_access_log_is_read_without_what_it_was_asked_before(registries):
    registry = registries.start(cache=None)
    registry.client().tags("none")
    (one,) = registry.requests()
    assert (one.method, one.path.partition("?")[0], one.status) == ("GET", "/v2/none/tags/list", 404)
    assert registry.requests() == []


def test_a_server_with_tls_and_accounts(registries):
    registry = registries.start(tls=True, users=("alice", "bob"))
    assert registry.url.startswith("https://")
    for user in ("alice", "bob"):
        assert registry.client(user).request("GET", "/v2/").status == 200
    assert registry.client(None).request("GET", "/v2/").status == 401


def test_a_configuration_that_the_server_would_ignore_is_refused(registries):
    with pytest.raises(AssertionError, match="deleted"):
        registries.start(config={"storage": {"deleted": {"enabled": True}}})
