# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Retries, rate limits, redirects, proxies, TLS and bodies of any size, against servers on loopback."""

from __future__ import annotations

import os
import select
import socket
import socketserver
import subprocess
import threading
import time
from contextlib import contextmanager
from email.utils import formatdate, parsedate_to_datetime

import pytest
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.oci import transport as module
from ansible_collections.homelab.registry.plugins.module_utils.oci.auth import Credentials
from ansible_collections.homelab.registry.plugins.module_utils.oci.connection import bypasses, environment_proxies
from ansible_collections.homelab.registry.plugins.module_utils.oci.transport import (
    RateLimit,
    RateLimited,
    Transport,
    Unreachable,
)
from ansible_collections.homelab.registry.tests.unit.fake_registry import FakeRegistry, certificate, digest_of

ME = Credentials("me", "S3cret")
DATA = os.urandom(300_000)
DIGEST = digest_of(DATA)
BLOB = f"/v2/app/blobs/{DIGEST}"


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self):
        self.now = 1000.0
        self.sleeps = []

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.sleeps.append(seconds)
        self.now += seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def fake():
    with FakeRegistry() as fake:
        fake.repository("app")["blobs"][DIGEST] = DATA
        yield fake


@pytest.fixture
def transport(fake, clock):
    return make(fake, clock)


def make(fake, clock=None, **more):
    clock = clock or Clock()
    return Transport(fake.url, **{"proxies": {}, "clock": clock, "sleep": clock.sleep, "random": lambda: 1.0, **more})


def read(response, size=64 << 10):
    """The whole body, by small pieces."""
    buffer, found = memoryview(bytearray(size)), b""
    while count := response.readinto(buffer):
        found += buffer[:count]
    return found


# --- retries -----------------------------------------------------------------------------------------------

STATUSES = {  # (status, method, retry): seconds slept, final status after two such answers
    (408, "GET", None): ([0.5, 1.0], 200),
    (429, "GET", None): ([0.5, 1.0], 200),
    (502, "GET", None): ([0.5, 1.0], 200),
    (503, "GET", None): ([0.5, 1.0], 200),
    (504, "HEAD", None): ([0.5, 1.0], 200),
    (500, "GET", None): ([0.5], 500),
    (404, "GET", None): ([], 404),
    (501, "GET", None): ([], 501),
    (502, "POST", None): ([], 502),
    (500, "POST", None): ([], 500),
    (503, "POST", None): ([0.5, 1.0], 202),  # these two say that nothing was done
    (429, "POST", None): ([0.5, 1.0], 202),
    (502, "POST", True): ([0.5, 1.0], 202),
    (502, "GET", False): ([], 502),
}


@pytest.mark.parametrize(("given", "expected"), STATUSES.items(), ids=["-".join(map(str, given)) for given in STATUSES])
def test_which_answers_are_worth_another_try(fake, clock, transport, given, expected):
    status, method, retry = given
    fake.say(status, times=2)
    path = "/v2/app/blobs/uploads/" if method == "POST" else BLOB
    answer = transport.request(method, path, retry=retry)
    assert (clock.sleeps, answer.status) == expected


def test_in_the_end_the_answer_stands(fake, clock, transport):
    fake.say(502, b"bad gateway", times=5)
    assert transport.request("GET", "/v2/").explain() == "502 bad gateway"
    assert clock.sleeps == [0.5, 1, 2, 4]


def test_the_pauses_have_an_end_and_are_random(fake, clock):
    fake.say(502, times=9)
    make(fake, clock, retries=9, random=lambda: 0.5).request("GET", "/v2/")
    assert clock.sleeps == [0.25, 0.5, 1, 2, 4, 8, 15, 15, 15]


def test_a_connection_that_breaks_is_tried_again(fake, clock, transport):
    fake.faults = {"close"}
    with pytest.raises(Unreachable, match="got no answer") as caught:
        transport.request("GET", "/v2/")
    assert caught.value.temporary
    assert clock.sleeps == [0.5, 1, 2, 4]
    assert len(fake.requests) == 5


@pytest.mark.parametrize(("method", "retry", "asked"), [("POST", None, 1), ("POST", True, 5), ("PUT", False, 1)])
def test_what_may_have_been_done_is_not_done_twice(fake, transport, method, retry, asked):
    fake.faults = {"close"}
    with pytest.raises(Unreachable):
        transport.request(method, "/v2/x", body=b"data", retry=retry)
    assert len(fake.requests) == asked


def test_a_whole_answer_that_breaks_off_is_tried_again(fake, clock, transport):
    fake.break_blobs = [1000, 0]
    assert transport.request("GET", BLOB).body == DATA
    assert len(clock.sleeps) == 2


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
def test_an_idle_connection_that_was_closed_is_no_failure(fake, clock, method):
    quick = make(fake, clock, retries=0)
    fake.faults = {"drop"}
    for _turn in range(20):
        assert quick.request(method, "/v2/", body=b"data" if method == "PUT" else None).status == 200
    assert clock.sleeps == []


def test_a_broken_connection_is_replaced_by_a_fresh_one_not_by_the_next_idle_one(fake, transport):
    with transport.stream(BLOB) as one, transport.stream(BLOB) as other:
        assert read(one) == read(other) == DATA
    fake.requests.clear()
    fake.faults = {"close"}
    with pytest.raises(Unreachable):
        transport.request("POST", "/v2/")
    assert len(fake.requests) == 2


def test_an_upload_is_not_begun_over_a_closed_connection(fake, transport):
    fake.faults = {"drop"}
    place = transport.request("POST", "/v2/app/blobs/uploads/").headers["location"]
    time.sleep(0.1)  # for the server to close it
    with transport.send("PUT", f"{place}&digest={DIGEST}", length=len(DATA)) as sending:
        sending.write(DATA)
        assert sending.finish().status == 201


def test_nonsense_is_not_asked_for_again(fake, clock, transport):
    fake.faults = {"garbage"}
    with pytest.raises(Unreachable) as caught:
        transport.request("GET", "/v2/")
    assert (caught.value.temporary, clock.sleeps) == (False, [])


def test_a_name_that_does_not_exist(clock):
    with pytest.raises(Unreachable, match="no-such-host.invalid"):
        Transport("http://no-such-host.invalid", proxies={}, sleep=clock.sleep, clock=clock, retries=1).request(
            "GET", "/"
        )


# --- being asked to wait -----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 503, 502])
def test_retry_after_is_kept_to(fake, clock, transport, status):
    fake.say(status, Retry_After="7")
    assert transport.request("GET", "/v2/").status == 200
    assert clock.sleeps == [7]


def test_a_date_is_counted_from_the_server_s_clock(fake, clock, transport):
    served = parsedate_to_datetime(transport.request("GET", "/v2/").headers["date"]).timestamp()
    fake.say(429, Retry_After=formatdate(served + 30, usegmt=True))
    transport.request("GET", "/v2/")
    assert 25 <= clock.sleeps[0] <= 30


@pytest.mark.parametrize(("server", "seconds"), [(4991, 9), (6000, 0)])
def test_how_long_until_a_date(server, seconds):
    headers = {"retry-after": formatdate(5000, usegmt=True), "date": formatdate(server, usegmt=True)}
    assert module._retry_after(headers) == seconds


@pytest.mark.parametrize("value", ["", "soon", "-5", "1.5", "Tue, 99 Foo 2026"])
def test_a_retry_after_that_makes_no_sense(value):
    assert module._retry_after({"retry-after": value}) is None


def test_all_threads_wait(fake, clock, transport):
    fake.say(429, Retry_After="30")
    asleep, awake = threading.Event(), threading.Event()

    def sleep(seconds):
        clock.sleeps.append(seconds)
        if len(clock.sleeps) == 2:
            asleep.set()
        awake.wait(5)
        clock.now = 1030

    transport._sleep = sleep
    threads = [threading.Thread(target=transport.request, args=("GET", "/v2/"))]
    threads[0].start()
    while not clock.sleeps:
        pass
    threads.append(threading.Thread(target=transport.request, args=("GET", "/v2/other")))
    threads[1].start()
    assert asleep.wait(5)
    assert fake.requests == ["GET /v2/"]
    awake.set()
    for thread in threads:
        thread.join()
    assert clock.sleeps == [30, 30]
    assert sorted(fake.requests) == ["GET /v2/", "GET /v2/", "GET /v2/other"]


def test_only_a_rate_limit_is_everybody_s(fake, clock, transport):
    fake.say(502)
    transport.request("GET", "/v2/")
    assert (clock.sleeps, transport._not_before) == ([0.5], {})


def test_a_long_pause_is_the_caller_s_affair(fake, clock, transport):
    fake.headers = {"RateLimit-Limit": "100;w=21600", "RateLimit-Remaining": "0;w=21600"}
    fake.say(429, Retry_After="3600")
    with pytest.raises(RateLimited, match="none for 3600 s; it allows 100 pulls in 6 h.*with an account") as caught:
        transport.request("GET", "/v2/")
    assert caught.value.retry_after == 3600
    clock.now += 600
    with pytest.raises(RateLimited) as caught:  # and it is not asked meanwhile
        transport.request("HEAD", "/v2/")
    assert caught.value.retry_after == 3000
    assert (len(fake.requests), clock.sleeps) == (1, [])
    clock.now += 3001
    assert transport.request("GET", "/v2/").status == 200


def test_a_429_that_does_not_end(fake, clock, transport):
    fake.say(429, times=5)
    with pytest.raises(RateLimited) as caught:
        transport.request("GET", "/v2/")
    assert (caught.value.retry_after, clock.sleeps) == (None, [0.5, 1, 2, 4])


def test_with_no_pull_left_there_is_no_second_try(fake, clock, transport):
    fake.headers = {"RateLimit-Limit": "100;w=21600", "RateLimit-Remaining": "0;w=21600"}
    fake.say(429)
    with pytest.raises(RateLimited), transport.stream(BLOB):
        pass
    assert len(fake.requests) == 1


RATES = {
    "Docker Hub": ({"ratelimit-limit": "100;w=21600", "ratelimit-remaining": "76;w=21600"}, (100, 76, 21600)),
    "no window": ({"ratelimit-limit": "100", "ratelimit-remaining": "76"}, (100, 76, None)),
    "only the rest": ({"ratelimit-remaining": "5;w=60"}, (None, 5, 60)),
    "none": ({}, None),
    "nonsense": ({"ratelimit-limit": "many"}, None),
}


@pytest.mark.parametrize(("headers", "found"), RATES.values(), ids=RATES)
def test_rate_limits(fake, transport, headers, found):
    assert transport.rate is None
    fake.headers = headers
    transport.request("HEAD", "/v2/")
    assert transport.rate == (RateLimit(*found) if found else None)
    fake.headers = {}
    transport.request("GET", "/v2/")
    assert transport.rate == (RateLimit(*found) if found else None)  # the last seen


# --- requests ----------------------------------------------------------------------------------------------


def test_what_is_sent(fake, transport):
    transport.request("GET", "/v2/?x=%20y", headers={"Accept": "a/b"})
    transport.request("POST", "/v2/")
    transport.request("PUT", "/v2/", body=b"data")
    (method, path, headers, _identified), post, put = fake.seen
    assert (method, path) == ("GET", "/v2/?x=%20y")
    expected = {"Host": fake.netloc, "User-Agent": "homelab.registry", "Accept": "a/b", "Accept-Encoding": "identity"}
    assert headers == expected
    assert (post[2]["Content-Length"], put[2]["Content-Length"]) == ("0", "4")
    assert dict(transport.requests) == {"GET": 1, "POST": 1, "PUT": 1}
    assert transport.sent == 4


@pytest.mark.parametrize("path", ["/v2/a b", "/v2/a\r\nX: y", "/v2/\x00", "/v2/ä", "v2/", "", "ftp://x/", "http://"])
def test_what_cannot_be_asked_for(fake, transport, path):
    with pytest.raises(HomelabError):
        transport.request("GET", path)
    assert fake.requests == []


def test_a_path_is_one_however_it_looks(fake, transport):
    assert transport.request("GET", "//other/v2/").status == 404
    assert len(fake.requests) == 1


@pytest.mark.parametrize("value", ["a\r\nX: y", "a\ny", "a\x00", "ä\u1234"])
def test_headers_hold_no_line_breaks(fake, transport, value):
    for call in (transport.request, transport.send):
        with pytest.raises(HomelabError, match="the header X-Test"):
            if call == transport.request:
                call("GET", "/v2/", headers={"X-Test": value})
            else:
                with call("PUT", "/v2/", headers={"X-Test": value}, length=0):
                    pass
    assert fake.requests == []


def test_headers_of_the_same_name_are_joined(fake, transport):
    fake.headers = {"X_a": "1", "X-A": "2"}
    assert transport.request("GET", "/v2/").headers["x-a"] == "1, 2"


def test_an_answer_that_is_too_large(fake, transport, monkeypatch):
    monkeypatch.setattr(module, "BODY_LIMIT", 1000)
    for faults in (set(), {"chunked"}):
        fake.faults = faults
        with pytest.raises(HomelabError, match="small document was expected"):
            transport.request("GET", BLOB)
    assert transport.request("GET", "/v2/").status == 200
    assert transport.request("HEAD", BLOB).status == 200


def test_secrets_are_in_no_message_and_no_repr(clock):
    with FakeRegistry(accounts={"me": "S3cret"}) as fake:
        registry = make(fake, clock, credentials=ME)
        registry.request("GET", "/v2/")
        fake.faults = {"close"}
        with pytest.raises(HomelabError) as caught:
            registry.request("GET", "/v2/?token=S3cret")
    assert "S3cret" not in f"{caught.value} {caught.value!r} {registry!r} {vars(registry)}"


def test_many_threads_share_connections(fake):
    registry = Transport(fake.url, proxies={})
    statuses = []

    def work():
        for _turn in range(20):
            statuses.append(registry.request("GET", BLOB).status)

    threads = [threading.Thread(target=work) for _number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 120
    assert fake.connections <= 6
    assert registry.requests["GET"] == 120
    assert registry.received == 120 * len(DATA)


# --- streams -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("faults", [set(), {"chunked"}])
@pytest.mark.parametrize("size", [1, 7919, 64 << 10, 1 << 20])
def test_streams(fake, transport, faults, size):
    fake.faults = faults
    fake.repository("app")["blobs"][digest_of(DATA[:20_000])] = DATA[:20_000]
    for data in (DATA, DATA[:20_000], DATA):
        if size == 1 and data is DATA:
            continue
        with transport.stream(f"/v2/app/blobs/{digest_of(data)}") as response:
            assert response.status == 200
            assert response.length == (None if faults else len(data))
            assert read(response, size) == data
            assert response.readinto(memoryview(bytearray(5))) == 0
    assert fake.connections == 1


@pytest.mark.parametrize("faults", [set(), {"chunked"}])
@pytest.mark.parametrize("kept", [0, 1, 100_000])
def test_a_stream_that_breaks_off_is_not_taken_for_whole(fake, transport, faults, kept):
    fake.faults, fake.break_blobs = faults, [kept]
    with (
        pytest.raises(Unreachable, match="got no complete answer: IncompleteRead") as caught,
        transport.stream(BLOB) as response,
    ):
        read(response)
    assert caught.value.temporary
    with transport.stream(BLOB) as response:
        assert read(response) == DATA


def test_a_stream_that_is_left_early_costs_its_connection_only(fake, transport):
    with transport.stream(BLOB) as response:
        response.readinto(memoryview(bytearray(10)))
    with transport.stream(BLOB) as response:
        assert read(response) == DATA
    assert fake.connections == 2
    assert transport.received == 10 + len(DATA)


def test_errors_of_a_stream_are_answers(fake, transport):
    with transport.stream("/v2/app/blobs/sha256:0") as response:
        assert response.status == 404
        assert response.answer().explain() == "404 BLOB_UNKNOWN blob unknown to registry"
    with transport.stream("/v2/app/blobs/sha256:0") as response:
        assert response.status == 404
    transport.request("GET", "/v2/")
    assert fake.connections == 1


def test_a_stream_s_beginning_is_tried_again(fake, clock, transport):
    fake.say(503, times=2)
    with transport.stream(BLOB) as response:
        assert read(response) == DATA
    assert len(clock.sleeps) == 2
    assert fake.connections == 1


def test_a_server_that_stops_sending(clock):
    with socket.create_server(("127.0.0.1", 0)) as server:
        registry = Transport(f"http://127.0.0.1:{server.getsockname()[1]}", proxies={}, timeout=0.1)

        def serve():
            connection, _address = server.accept()
            connection.recv(1000)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")
            gone.wait(5)
            connection.close()

        gone = threading.Event()
        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(Unreachable, match="timed out"), registry.stream("/v2/") as response:
            read(response)
        gone.set()
        thread.join()


# --- redirects ---------------------------------------------------------------------------------------------


@pytest.fixture
def stored():
    """A registry with an account whose blobs are in an object store."""
    with FakeRegistry() as store, FakeRegistry(accounts={"me": "S3cret"}, store=store) as fake:
        fake.repository("app")["blobs"][DIGEST] = DATA
        yield fake


def test_the_object_store_does_not_see_the_account(stored):
    registry = make(stored, credentials=ME)
    with registry.stream(BLOB, headers={"Range": "bytes=100-"}) as response:
        assert response.status == 206
        assert response.url == f"{stored.store.url}/store/{DIGEST}"
        assert read(response) == DATA[100:]
    assert registry.request("GET", BLOB).body == DATA
    for _method, path, headers, _identified in stored.store.seen:
        assert path.endswith("?signature=S3cret")
        assert "Authorization" not in headers
    assert stored.store.seen[0][2]["Range"] == "bytes=100-"
    assert stored.store.seen[0][2]["Host"] == stored.store.netloc


def test_a_broken_object_store_is_named_without_its_signature(stored):
    stored.store.faults = {"close"}
    registry = make(stored, credentials=ME, retries=1)
    with pytest.raises(Unreachable, match=f"GET {stored.store.url}/store/{DIGEST} got no answer") as caught:
        registry.request("GET", BLOB)
    assert "S3cret" not in str(caught.value)


def test_a_401_of_the_object_store_gets_no_account(stored):
    stored.store.say(401, WWW_Authenticate='Basic realm="x"')
    assert make(stored, credentials=ME).request("GET", BLOB).status == 401
    assert len(stored.store.seen) == 1
    assert "Authorization" not in stored.store.seen[0][2]


def test_the_object_store_s_rate_limit_is_its_own(stored):
    stored.store.headers = {"RateLimit-Limit": "5;w=1", "RateLimit-Remaining": "0;w=1"}
    registry = make(stored, credentials=ME)
    registry.request("GET", BLOB)
    assert registry.rate is None


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("place", ["/v2/?a", "{url}/v2/?a", "../v2/?a", "?a"])
def test_ways_to_redirect(status, place):
    with FakeRegistry(accounts={"me": "S3cret"}) as fake:
        registry = make(fake, credentials=ME)
        registry.request("GET", "/v2/")
        fake.say(status, b"moved", Location=place.format(url=fake.url))
        for method in ("GET", "HEAD"):
            assert registry.request(method, "/v2/").status == 200
        assert fake.seen[-2][1] == "/v2/?a"
        assert all("Authorization" in headers for _method, _path, headers, _identified in fake.seen[1:])
        assert fake.connections == 1


def test_several_redirects_lead_back_home():
    with FakeRegistry() as other, FakeRegistry(accounts={"me": "S3cret"}) as fake:
        registry = make(fake, credentials=ME)
        fake.say(307, path="/start", Location=f"{other.url}/far")
        other.say(302, Location=f"{fake.url}/v2/")
        assert registry.request("GET", "/start").status == 200
        assert "Authorization" not in other.seen[0][2]


def test_redirects_round_and_round(fake, transport):
    fake.say(307, times=50, Location="/v2/")
    with pytest.raises(HomelabError, match="redirects more than 5 times"):
        transport.request("GET", "/v2/")
    assert len(fake.requests) == 6


@pytest.mark.parametrize("place", ["ftp://x/y", "file:///etc/passwd", "http://[::1", "http://x:99999/"])
def test_redirects_to_nowhere(fake, transport, place):
    fake.say(307, Location=place)
    with pytest.raises(HomelabError, match="no web address"):
        transport.request("GET", "/v2/")


def test_a_redirect_with_blanks_in_it(fake, transport):
    fake.say(307, Location="/v2/?a b%20c")
    assert transport.request("GET", "/v2/").status == 200
    assert fake.requests[-1] == "GET /v2/?a%20b%20c"


def test_what_writes_is_not_redirected(fake, transport):
    fake.say(307, Location="/v2/")
    assert transport.request("POST", "/v2/x").status == 307
    fake.say(307)
    assert transport.request("GET", "/v2/x").status == 307  # it does not say where to


# --- uploads -----------------------------------------------------------------------------------------------


def upload(registry, data=DATA, digest=DIGEST, pieces=3, length=None):
    place = registry.request("POST", "/v2/app/blobs/uploads/").headers["location"]
    with registry.send("PUT", f"{place}&digest={digest}", length=len(data) if length is None else length) as sending:
        view, step = memoryview(data), len(data) // pieces + 1
        for start in range(0, len(data), step):
            if sending.write(view[start : start + step]):
                break
        return sending.finish()


def test_an_upload_in_pieces(fake, transport):
    data = os.urandom(5_000_000)
    assert upload(transport, data, digest_of(data)).status == 201
    assert fake.repository("app")["blobs"][digest_of(data)] == data
    assert transport.sent == len(data)
    assert upload(transport, b"", digest_of(b"")).status == 201
    assert upload(transport, digest=digest_of(b"")).status == 400
    assert fake.connections == 1


def test_a_disk_that_becomes_full_under_an_upload(fake, transport):
    fake.full_after = 100_000
    data = os.urandom(40_000_000)
    answer = upload(transport, data, digest_of(data), pieces=40)
    assert answer.explain() == "500 UNKNOWN unknown error No space left on device"
    assert transport.sent < len(data)
    assert transport.request("GET", "/v2/").status == 200


def test_a_server_that_answers_early_and_does_not_read_on():
    """What would come next over that connection would be taken for the rest of the body."""
    answers = [b"HTTP/1.1 500 No\r\nContent-Length: 4\r\n\r\nfull", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"]
    kept = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            for answer in answers:
                connection, _address = server.accept()
                kept.append(connection)
                connection.recv(100)
                connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        registry = Transport(f"http://127.0.0.1:{server.getsockname()[1]}", proxies={}, timeout=0.1, retries=0)
        piece = bytes(1 << 20)
        with registry.send("PUT", "/v2/", length=100 << 20) as sending:
            while not sending.write(piece):
                pass
            assert sending.write(piece).explain() == "500 full"
            assert sending.finish().explain() == "500 full"
        assert registry.request("GET", "/v2/").status == 200
        thread.join()
        for connection in kept:
            connection.close()


def test_an_upload_that_breaks_off_is_not_repeated(fake, clock, transport):
    fake.break_uploads = [100_000]
    data = os.urandom(40_000_000)
    with pytest.raises(Unreachable, match="PUT .* got no answer"):
        upload(transport, data, digest_of(data), pieces=40)
    assert (fake.count("PUT"), clock.sleeps) == (1, [])
    assert upload(transport).status == 201


def test_an_upload_that_is_given_up(fake, transport):
    place = transport.request("POST", "/v2/app/blobs/uploads/").headers["location"]
    with pytest.raises(KeyError), transport.send("PUT", f"{place}&digest={digest_of(b'ab')}", length=2) as sending:
        sending.write(b"a")
        raise KeyError
    assert transport.request("HEAD", f"/v2/app/blobs/{digest_of(b'ab')}").status == 404
    assert fake.connections == 2


@pytest.mark.parametrize(("length", "said"), [(2, "more bytes than announced"), (4, "1 bytes less than announced")])
def test_an_upload_of_another_length(transport, length, said):
    with pytest.raises(HomelabError, match=said) as caught:
        upload(transport, b"abc", digest_of(b"abc"), length=length)
    assert not isinstance(caught.value, Unreachable)
    assert "_state" not in str(caught.value)


def test_an_upload_takes_the_account_along():
    with FakeRegistry(accounts={"me": "S3cret"}, tokens=300) as fake:
        registry = make(fake, credentials=ME)
        scopes = ("repository:app:pull,push",)
        place = registry.request("POST", "/v2/app/blobs/uploads/", scopes=scopes).headers["location"]
        for status in (401, 201):
            if status == 401:
                fake.expire()
            with registry.send("PUT", f"{place}&digest={DIGEST}", length=len(DATA), scopes=scopes) as sending:
                sending.write(DATA)
                assert sending.finish().status == status


@pytest.mark.parametrize("status", [401, 429])
def test_an_early_answer_is_learnt_from_too(clock, status):
    with FakeRegistry(tokens=300) as fake:
        registry = make(fake, clock)
        scopes = ("repository:app:pull,push",)
        registry.request("POST", "/v2/app/blobs/uploads/", scopes=scopes)
        fake.full_after, fake.full = 1000, (status, {"Retry-After": "5"})
        data = bytes(8 << 20)
        fetched = fake.count("GET", "/token")
        with registry.send("PUT", "/v2/app/blobs/uploads/x", length=5 * len(data), scopes=scopes) as sending:
            if status == 429:
                with pytest.raises(RateLimited):
                    while not sending.write(data):
                        pass
            else:
                while not sending.write(data):
                    pass
        registry.request("GET", "/v2/app/tags/list", scopes=scopes)
        assert (fake.count("GET", "/token") - fetched, clock.sleeps) == ((1, []) if status == 401 else (0, [5]))


def test_an_upload_elsewhere_does_not_take_it():
    with FakeRegistry() as other, FakeRegistry(accounts={"me": "S3cret"}) as fake:
        registry = make(fake, credentials=ME)
        registry.request("GET", "/v2/")
        with registry.send("PUT", f"{other.url}/v2/", length=3) as sending:
            sending.write(b"abc")
            assert sending.finish().status == 200
        assert "Authorization" not in other.seen[0][2]


def test_an_upload_that_comes_too_soon(fake, clock, transport):
    fake.say(429, method="PUT", Retry_After="5")
    with pytest.raises(RateLimited) as caught:
        upload(transport)
    assert caught.value.retry_after == 5
    assert upload(transport).status == 201
    assert clock.sleeps == [5]


# --- proxies -----------------------------------------------------------------------------------------------


class _Proxy(socketserver.StreamRequestHandler):
    """Plain requests with a whole URL, and CONNECT; the head of each is kept."""

    def handle(self):
        lines = []
        while (line := self.rfile.readline().rstrip(b"\r\n")) != b"":
            lines.append(line.decode())
        self.server.heads.append(list(lines))
        method, target, _version = lines[0].split()
        if self.server.refuse:
            self.wfile.write(b"HTTP/1.1 %d No\r\nContent-Length: 0\r\n\r\n" % self.server.refuse)
            return
        if method == "CONNECT":
            self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            lines[0] = lines[0].replace(f"http://{target.split('/')[2]}", "")
        with socket.create_connection(self.server.place) as far:
            if method != "CONNECT":
                far.sendall("\r\n".join([*lines, "", ""]).encode())
            pair = [self.connection, far]
            while True:
                for one in select.select(pair, [], [], 5)[0]:
                    data = one.recv(65536)
                    if not data:
                        return
                    pair[1 - pair.index(one)].sendall(data)


@contextmanager
def proxy_to(fake):
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Proxy) as server:
        server.daemon_threads = True
        server.block_on_close = False
        server.heads, server.refuse = [], None
        server.place = ("127.0.0.1", int(fake.netloc.rpartition(":")[2]))
        server.url = f"me:p%40ss@127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def test_a_proxy_gets_whole_urls(fake):
    with proxy_to(fake) as proxy:
        registry = Transport("http://far.example", proxies={"http": proxy.url})
        assert registry.request("GET", "/v2/?a=b").status == 200
        registry.close()
    assert proxy.heads[0][0] == "GET http://far.example/v2/?a=b HTTP/1.1"
    assert "Host: far.example" in proxy.heads[0]
    assert "Proxy-Authorization: Basic bWU6cEBzcw==" in proxy.heads[0]


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    return certificate(tmp_path_factory.mktemp("tls"))


def test_a_proxy_makes_a_tunnel_for_tls(tls):
    with FakeRegistry(tls=tls) as fake, proxy_to(fake) as proxy:
        # 192.0.2.1 is nobody's (RFC 5737): only the proxy's tunnel can lead anywhere.
        registry = Transport("https://192.0.2.1:5000", validate_certs=False, proxies={"https": f"http://{proxy.url}/"})
        assert registry.request("GET", "/v2/").status == 200
        assert "Proxy-Authorization" not in fake.seen[0][2]
        registry.close()
    assert proxy.heads[0][0] == "CONNECT 192.0.2.1:5000 HTTP/1.1"
    assert "Proxy-Authorization: Basic bWU6cEBzcw==" in proxy.heads[0]


def test_a_proxy_that_refuses(tls, clock):
    with FakeRegistry(tls=tls) as fake, proxy_to(fake) as proxy:
        proxy.refuse = 407
        registry = Transport("https://far.example", proxies={"https": proxy.url}, sleep=clock.sleep, clock=clock)
        with pytest.raises(Unreachable, match=r"answered 407 No \(through the proxy 127.0.0.1:\d+\)") as caught:
            registry.request("GET", "/v2/")
        assert "p@ss" not in str(caught.value)
        assert clock.sleeps == []
        proxy.refuse = 502
        with pytest.raises(Unreachable):
            registry.request("GET", "/v2/")
        assert len(clock.sleeps) == 4


@pytest.mark.parametrize(
    "url", ["https://me:S3cret@proxy", "socks5://me:S3cret@proxy:1080", "http://", "http://me:S3cret@x:y"]
)
def test_a_proxy_that_cannot_be_used(url):
    with pytest.raises(HomelabError, match="proxy .* cannot be used") as caught:
        Transport("https://far.example", proxies={"https": url})
    assert "S3cret" not in str(caught.value)


def test_the_environment_s_proxies(fake, monkeypatch):
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    assert environment_proxies() == {}
    monkeypatch.setenv("HTTP_PROXY", "http://upper:1")
    monkeypatch.setenv("https_proxy", "http://lower:1")
    monkeypatch.setenv("HTTPS_PROXY", "http://upper:1")
    monkeypatch.setenv("NO_PROXY", "a,b")
    assert environment_proxies() == {"http": "http://upper:1", "https": "http://lower:1", "no": "a,b"}
    with proxy_to(fake) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        registry = Transport("http://far.example")
        assert registry.request("GET", "/v2/").status == 200
        registry.close()
        assert Transport(fake.url).request("GET", "/v2/").status == 200  # loopback: not through the proxy
        assert len(proxy.heads) == 1


BYPASS = [
    ("", "reg.lan", False),
    ("*", "reg.lan", True),
    ("reg.lan", "reg.lan", True),
    ("lan", "reg.lan", True),
    (".lan", "reg.lan", True),
    ("*.lan", "reg.lan", True),
    ("LAN", "reg.lan", True),
    ("an", "reg.lan", False),
    ("a, reg.lan ,b", "reg.lan", True),
    ("a reg.lan", "reg.lan", True),
    ("reg.lan:5000", "reg.lan", True),
    ("reg.lan:5001", "reg.lan", False),
    ("192.168.1.5", "192.168.1.5", True),
    ("192.168.0.0/16", "192.168.1.5", True),
    ("192.168.0.0/24", "192.168.1.5", False),
    ("192.168.0.0/16", "reg.lan", False),
    ("168.1.5", "192.168.1.5", False),
    ("fd00::/8", "fd00::1", True),
    ("fd00::1", "fd00::1", True),
    ("[fd00::1]:5000", "fd00::1", True),
    ("[fd00::1]:1", "fd00::1", False),
    ("", "localhost", True),
    ("", "127.0.0.2", True),
    ("", "::1", True),
    ("/", "10.0.0.1", False),
]


@pytest.mark.parametrize(("no_proxy", "host", "direct"), BYPASS)
def test_no_proxy(no_proxy, host, direct):
    assert bypasses(no_proxy, host, 5000) is direct


# --- TLS ---------------------------------------------------------------------------------------------------


def test_a_client_certificate_is_for_its_registry_only(tls, tmp_path):
    mine = certificate(tmp_path, "client")
    ours = {"ca_path": tls[0], "client_cert": mine[0], "client_key": mine[1]}
    with (
        FakeRegistry(tls=tls, client_ca=mine[0]) as store,
        FakeRegistry(tls=tls, client_ca=mine[0], store=store) as fake,
    ):
        fake.repository("app")["blobs"][DIGEST] = DATA
        with make(fake, **ours).stream(BLOB) as response:
            assert read(response) == DATA
        assert [one[3] for one in fake.seen] == [True]
        assert [one[3] for one in store.seen] == [False]


def test_tls_streams_and_uploads(tls):
    with FakeRegistry(tls=tls) as fake:
        registry = make(fake, ca_path=tls[0])
        data = os.urandom(3_000_000)
        assert upload(registry, data, digest_of(data)).status == 201
        with registry.stream(f"/v2/app/blobs/{digest_of(data)}") as response:
            assert read(response) == data
        assert fake.connections == 1


def test_trust_is_not_tried_again(tls, clock):
    with FakeRegistry(tls=tls) as fake, pytest.raises(Unreachable, match="CERTIFICATE_VERIFY_FAILED") as caught:
        make(fake, clock).request("GET", "/v2/")
    assert (caught.value.temporary, clock.sleeps) == (False, [])


def test_client_certificates_that_cannot_be_used(tls, tmp_path):
    other = certificate(tmp_path, "other")
    locked = str(tmp_path / "locked.key")
    subprocess.run(
        ["openssl", "ec", "-in", tls[1], "-aes128", "-passout", "pass:S3cret", "-out", locked],
        check=True,
        capture_output=True,
    )
    for key in (other[1], locked, str(tmp_path / "none"), __file__):
        with pytest.raises(HomelabError, match="client certificate .* cannot be used") as caught:
            Transport("https://reg:5000", client_cert=tls[0], client_key=key, proxies={})
        assert key in str(caught.value)
