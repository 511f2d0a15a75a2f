# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Telling somebody: what arrives, by every way, and that failures are said without secrets."""

from __future__ import annotations

import contextlib
import http.server
import json
import socketserver
import threading
import time

import pytest
from ansible_collections.homelab.registry.plugins.module_utils import cli
from ansible_collections.homelab.registry.plugins.module_utils.ctl import notify as ctl
from ansible_collections.homelab.registry.plugins.module_utils.errors import HomelabError
from ansible_collections.homelab.registry.plugins.module_utils.report.notify import Message, Notifier, parse_notify

SECRET = "S3cret-topic"
MESSAGE = Message("nas: the disk is \u201cfull\u201d", "80 % <in use> & more", "critical", "nas", "guard")


@contextlib.contextmanager
def served(server):
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def web():
    """A web server; `got` has (path, headers, body), `status` is what it answers."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.server.got.append((self.path, dict(self.headers), body))
            self.send_response(self.server.status)
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.got, server.status = [], 200
    server.url = f"http://127.0.0.1:{server.server_address[1]}/{SECRET}"
    with served(server):
        yield server


@pytest.fixture
def smtp():
    """A mail server (RFC 5321, as far as a client needs); `got` has what it was told, `refuse` a command it refuses."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            self.wfile.write(b"220 hello\r\n")
            for line in self.rfile:
                word = line.split()[0].upper() if line.split() else b""
                self.server.got.append(line)
                if self.server.refuse == word:
                    self.wfile.write(b"550 no\r\n")
                elif word == b"EHLO":
                    self.wfile.write(b"250-me\r\n250 8BITMIME\r\n")
                elif word == b"DATA":
                    self.wfile.write(b"354 go on\r\n")
                    while (text := self.rfile.readline()) != b".\r\n":
                        self.server.got.append(text)
                    self.wfile.write(b"250 taken\r\n")
                elif word == b"QUIT":
                    self.wfile.write(b"221 bye\r\n")
                    return
                else:
                    self.wfile.write(b"250 good\r\n")

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
    server.got, server.refuse, server.daemon_threads = [], None, True
    server.port = server.server_address[1]
    with served(server):
        yield server


def mail(smtp, **more):
    return {"mail": {"to": "me@example.org", "server": "127.0.0.1", "port": smtp.port, **more}}


# --- what arrives -----------------------------------------------------------------------------------------------
def test_a_command(tmp_path):
    place = tmp_path / "told"
    script = f'cat >{place}; echo "$HOMELAB_LEVEL $HOMELAB_SOURCE $1" >>{place}'
    notifier = parse_notify({"command": ["/bin/sh", "-c", script, "sh", "an; argument"]})
    assert notifier.send(MESSAGE) == []
    assert place.read_text() == f"{MESSAGE.title}\n{MESSAGE.text}\ncritical guard an; argument\n"


def test_json(web):
    assert parse_notify({"webhook": {"url": web.url, "headers": {"X-Token": "t"}}}).send(MESSAGE) == []
    ((path, headers, body),) = web.got
    assert (path, headers["Content-Type"], headers["X-Token"]) == (f"/{SECRET}", "application/json", "t")
    document = json.loads(body)
    assert (document["title"], document["message"], document["level"]) == (MESSAGE.title, MESSAGE.text, "critical")


def test_slack(web):
    assert parse_notify({"webhook": {"url": web.url, "format": "slack"}}).send(MESSAGE) == []
    assert json.loads(web.got[0][2]) == {"text": f"{MESSAGE.title}\n80 % &lt;in use&gt; &amp; more"}


def test_ntfy(web):
    assert parse_notify({"webhook": {"url": web.url, "format": "ntfy"}}).send(MESSAGE) == []
    ((_path, headers, body),) = web.got
    assert body.decode() == MESSAGE.text
    assert (headers["Priority"], headers["Tags"]) == ("5", "rotating_light")
    assert headers["Title"].startswith("=?utf-8?")


def test_mail(smtp):
    assert parse_notify(mail(smtp, **{"from": "registry@example.org"})).send(MESSAGE) == []
    text = b"".join(smtp.got).decode()
    assert "mail FROM:<registry@example.org>" in text
    assert "rcpt TO:<me@example.org>" in text
    assert "Subject: nas: the disk is =?utf-8?" in text
    assert "80 % <in use> & more" in text


def test_one_way_that_fails_does_not_keep_the_others(web):
    notifier = parse_notify({"command": ["/nonexistent"], "webhook": web.url})
    (failure,) = notifier.send(MESSAGE)
    assert failure.startswith("command: /nonexistent cannot be run")
    assert len(web.got) == 1


def test_nobody():
    assert parse_notify(None).send(MESSAGE) == []
    assert parse_notify({"command": [], "webhook": None, "mail": {}}).ways == {}


# --- failures -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("status", [302, 404, 500])
def test_a_webhook_that_refuses(web, status):
    web.status = status
    (failure,) = parse_notify({"webhook": web.url}).send(MESSAGE)
    assert str(status) in failure
    assert SECRET not in failure
    assert len(web.got) == 1


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "http://127.0.0.1:1/a b ", "http://nothing.invalid/"])
def test_a_webhook_that_is_not_there(url):
    (failure,) = parse_notify({"webhook": f"{url}{SECRET}"}).send(MESSAGE)
    assert "cannot be reached" in failure
    assert SECRET not in failure


def test_a_command_that_fails():
    (failure,) = parse_notify({"command": ["/bin/sh", "-c", "exit 3", SECRET]}).send(MESSAGE)
    assert "status 3" in failure
    assert SECRET not in failure


@pytest.mark.parametrize("refused", [b"MAIL", b"RCPT", b"DATA"])
def test_a_mail_that_is_refused(smtp, refused):
    smtp.refuse = refused
    (failure,) = parse_notify(mail(smtp)).send(MESSAGE)
    assert "did not take the mail" in failure


def test_a_mail_server_that_is_not_there():
    (failure,) = parse_notify({"mail": {"to": "me@example.org", "server": "127.0.0.1", "port": 1}}).send(MESSAGE)
    assert "127.0.0.1:1 cannot be reached" in failure


WRONG = {
    "an unknown way": ({"pigeon": "x"}, "pigeon"),
    "a command as a text": ({"command": "mail me"}, "notify.command"),
    "no address": ({"webhook": {"format": "ntfy"}}, "notify.webhook.url"),
    "another scheme": ({"webhook": f"file:///{SECRET}"}, "notify.webhook.url"),
    "another format": ({"webhook": {"url": "http://x/", "format": "xml"}}, "there are ntfy, slack, json"),
    "an unknown key": ({"webhook": {"adress": "x"}}, "adress"),
    "no receiver": ({"mail": {"server": "x"}}, "notify.mail"),
    "a receiver that is none": ({"mail": {"to": "me"}}, "'me' is not an address"),
    "a header in it": ({"mail": {"to": "me@x\r\nBcc: you@y"}}, "is not an address"),
    "headers as a text": ({"webhook": {"url": "http://x/", "headers": f"Authorization: {SECRET}"}}, "webhook.headers"),
    "a header that is no text": ({"webhook": {"url": "http://x/", "headers": {"X": 1}}}, "webhook.headers"),
    "a password beyond ASCII": (
        {"mail": {"to": "me@x", "security": "tls", "username": "me", "password": f"{SECRET}ü"}},
        "letters that the login of SMTP does not carry",
    ),
    "another security": ({"mail": {"to": "me@x", "security": "ssl"}}, "starttls"),
    "a password in clear": ({"mail": {"to": "me@x", "username": "me", "password": SECRET}}, "in clear"),
}


@pytest.mark.parametrize(("settings", "said"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_in_the_settings(settings, said):
    with pytest.raises(HomelabError, match=said) as caught:
        parse_notify(settings)
    assert SECRET not in str(caught.value)


def test_a_way_that_breaks_does_not_keep_the_others():
    told = []

    def broken(_message):
        raise TypeError(SECRET)

    failures = Notifier({"command": broken, "mail": told.append}).send(MESSAGE)
    assert (failures, told) == (["command: TypeError"], [MESSAGE])


# --- registryctl notify ---------------------------------------------------------------------------------------
@pytest.fixture
def notify(tmp_path, web, capsys):
    config = tmp_path / "registryctl.json"

    def run(*arguments, mode=0o600, **settings):
        known = {"state_dir": str(tmp_path), "notify": {"webhook": web.url, "host": "nas"}, **settings}
        config.write_text(json.dumps(known))
        config.chmod(mode)
        code = cli.main(["notify", "--config", str(config), *arguments])
        return (code, *capsys.readouterr())

    return run


RESULTS = {
    "an error": ({"error": "no disk"}, "no disk\n"),
    "a refusal": ({"refused": "too much"}, "too much\n"),
    "trouble": ({"refused": None, "trouble": "the garbage was not collected"}, "the garbage was not collected\n"),
    "not all seen": ({"whole": False, "damages": []}, "parts of the registry could not be read\n"),
    "damaged images": ({"damages": [{"repository": "a", "tag": "1", "digest": "d"}]}, "damaged images: a:1\n"),
    "failed images": (
        {"images": [{"image": "a:1", "action": "failed"}, {"image": "b:1", "action": "copied"}]},
        "failed images: a:1\n",
    ),
    "many": ({"damages": [{"repository": "a", "tag": str(n), "digest": "d"} for n in range(30)]}, "and 20 more\n"),
    "nothing known": (None, "See"),
    "killed after a good run": ({"changed": False}, "See"),
}


@pytest.mark.parametrize(("result", "said"), RESULTS.values(), ids=RESULTS)
def test_what_failed(notify, web, tmp_path, result, said):
    if result is not None:
        (tmp_path / "mirror.json").write_text(json.dumps(result))
    assert notify("mirror")[0] == 0
    document = json.loads(web.got[0][2])
    assert document["title"] == "nas: registry mirror failed"
    assert said in document["message"]
    assert "journalctl -u homelab-registry-mirror" in document["message"]


def test_the_same_is_told_once_a_day(notify, web, tmp_path, monkeypatch):
    (tmp_path / "verify.json").write_text('{"error": "one"}')
    for _again in range(3):
        assert notify("verify")[0] == 0
    assert len(web.got) == 1
    (tmp_path / "verify.json").write_text('{"error": "another"}')
    notify("verify")
    notify("gc")
    assert len(web.got) == 3
    later = time.time() + 86000
    monkeypatch.setattr(ctl.time, "time", lambda: later)
    notify("verify")
    assert len(web.got) == 4


def test_what_did_not_get_through_is_told_again(notify, web):
    web.status = 500
    code, _out, err = notify("gc")
    assert (code, "it answered 500" in err, SECRET in err) == (1, True, False)
    web.status = 200
    assert notify("gc")[0] == 0
    assert len(web.got) == 2


def test_a_test(notify, web):
    code, _out, err = notify("--test")
    assert (code, "sent by webhook" in err) == (0, True)
    assert "This is a test" in json.loads(web.got[0][2])["message"]
    code, _out, err = notify("--test", notify={})
    assert (code, "notify_command" in err) == (2, True)


def test_nobody_is_to_be_told(notify, web):
    assert notify("gc", notify={})[0] == 0
    assert web.got == []


def test_an_address_that_others_could_read(notify):
    code, _out, err = notify("gc", mode=0o644)
    assert (code, "chmod 600" in err, SECRET in err) == (2, True, False)


@pytest.mark.parametrize("arguments", [[], ["../x"], ["gc", "--test"]])
def test_what_cannot_be_understood(notify, arguments):
    try:
        assert notify(*arguments)[0] == 2
    except SystemExit as left:
        assert left.code == 2
