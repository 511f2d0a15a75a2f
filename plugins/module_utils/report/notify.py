# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell somebody: by a command, a webhook or a mail. What fails is reported and does no harm.

No text that comes from here holds the webhook's address, a header or a password: addresses of webhooks are secrets.
"""

from __future__ import annotations

import http.client
import json
import os
import smtplib
import socket
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.header import Header
from email.message import EmailMessage
from email.utils import formatdate, make_msgid, parseaddr
from urllib.parse import urlsplit

from ..errors import HomelabError
from ..keys import refuse_unknown_keys

#: Seconds for each way.
PATIENCE = 20
COMMAND_PATIENCE = 60
FORMATS = ("ntfy", "slack", "json")
SECURITY = ("none", "starttls", "tls")
#: ntfy's (https://docs.ntfy.sh/publish/): priorities and tags.
_NTFY = {"info": ("3", "white_check_mark"), "warning": ("4", "warning"), "critical": ("5", "rotating_light")}


@dataclass(frozen=True)
class Message:
    """What somebody is told.

    Attributes:
        title: a line. text: what is so, and what to do.
        level: info, warning or critical.
        host: where. source: the verb it is about.
    """

    title: str
    text: str
    level: str = "warning"
    host: str = ""
    source: str = ""


@dataclass(frozen=True)
class Notifier:
    """The configured ways; none is fine.

    Attributes:
        ways: name (`command`, `webhook`, `mail`) to what sends a Message and raises HomelabError if it cannot.
        host: name of this machine, as messages give it.
    """

    ways: Mapping[str, Callable[[Message], None]]
    host: str = ""

    def send(self, message: Message) -> list[str]:
        """Send it by every way; what failed, a line each."""
        failures = []
        for name, way in self.ways.items():
            try:
                way(message)
            except HomelabError as error:
                failures.append(f"{name}: {error}")
            except Exception as error:  # the other ways may work; its text may quote a secret
                failures.append(f"{name}: {type(error).__name__}")
        return failures


def parse_notify(settings: Mapping | None) -> Notifier:
    """From the settings `command`, `webhook`, `mail` and `host`.

    Raises:
        HomelabError: something in them is wrong.
    """
    settings = {key: value for key, value in (settings or {}).items() if value not in (None, "", [], {})}
    refuse_unknown_keys(settings, ("command", "webhook", "mail", "host"), "notify", None)
    ways = {}
    if "command" in settings:
        ways["command"] = _command(settings["command"])
    if "webhook" in settings:
        ways["webhook"] = _webhook(settings["webhook"])
    if "mail" in settings:
        ways["mail"] = _mail(settings["mail"])
    return Notifier(ways, settings.get("host") or socket.gethostname())


# --- command ------------------------------------------------------------------------------------------------
def _command(argv):
    if not isinstance(argv, (list, tuple)) or not all(isinstance(word, str) for word in argv) or not argv[0]:
        raise HomelabError("is not a list of words", "notify.command", "write it as [/usr/local/bin/tell, me]")

    def send(message):
        about = {
            "HOMELAB_TITLE": message.title,
            "HOMELAB_LEVEL": message.level,
            "HOMELAB_HOST": message.host,
            "HOMELAB_SOURCE": message.source,
        }
        try:
            # Its errors go where ours go: only the user knows whether they hold a secret.
            done = subprocess.run(
                list(argv),
                input=f"{message.title}\n{message.text}\n",
                text=True,
                env={**os.environ, **about},
                stdout=subprocess.DEVNULL,
                timeout=COMMAND_PATIENCE,
                check=False,
            )
        except OSError as error:
            raise HomelabError(f"{argv[0]} cannot be run: {error.strerror}", "notify.command", "correct it") from error
        except subprocess.TimeoutExpired as error:
            raise HomelabError(
                f"{argv[0]} took longer than {COMMAND_PATIENCE} s and was ended", "notify.command"
            ) from error
        if done.returncode:
            raise HomelabError(f"{argv[0]} ended with status {done.returncode}", "notify.command")

    return send


# --- webhook ------------------------------------------------------------------------------------------------
def _webhook(settings):
    if isinstance(settings, str):
        settings = {"url": settings}
    refuse_unknown_keys(settings, ("url", "format", "headers"), "webhook", "notify")
    url, kind, headers = settings.get("url"), settings.get("format") or "json", settings.get("headers") or {}
    if not isinstance(url, str) or urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise HomelabError("is not an address", "notify.webhook.url", "write it as https://host/…")
    if kind not in FORMATS:
        raise HomelabError(f"there is no format {kind!r}", "notify.webhook.format", f"there are {', '.join(FORMATS)}")
    if not isinstance(headers, Mapping) or not all(isinstance(value, str) for value in headers.values()):
        raise HomelabError(
            "is not a mapping of texts", "notify.webhook.headers", "write it as {Authorization: Bearer …}"
        )

    def send(message):
        body, about = _body(message, kind)
        try:
            request = urllib.request.Request(url, body, {**about, **headers}, method="POST")
            with urllib.request.build_opener(_NoRedirect).open(request, timeout=PATIENCE) as answer:
                answer.read(1 << 16)
        except urllib.error.HTTPError as error:
            raise HomelabError(f"it answered {error.code} {error.reason}", "notify.webhook", "correct it") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            # Some of these quote the address.
            reason = getattr(error, "reason", error)
            said = getattr(reason, "strerror", None) or type(reason).__name__
            raise HomelabError(f"it cannot be reached: {said}", "notify.webhook", "correct it") from None

    return send


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A message that is redirected would arrive as a GET without its text."""

    def redirect_request(self, *_arguments):
        return None


def _body(message, kind):
    text = f"{message.title}\n{message.text}"
    if kind == "ntfy":
        priority, tag = _NTFY[message.level]
        # RFC 2047, which ntfy takes, for what is not ASCII.
        title = message.title if message.title.isascii() else Header(message.title, "utf-8", maxlinelen=998).encode()
        return message.text.encode(), {"Title": title, "Priority": priority, "Tags": tag}
    if kind == "slack":
        for sign, code in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
            text = text.replace(sign, code)
        document = {"text": text}
    else:
        document = {
            "title": message.title,
            "message": message.text,
            "level": message.level,
            "host": message.host,
            "source": message.source,
        }
    return json.dumps(document).encode(), {"Content-Type": "application/json"}


# --- mail ---------------------------------------------------------------------------------------------------
def _mail(settings):
    known = ("to", "from", "server", "port", "security", "username", "password", "ca_path")
    refuse_unknown_keys(settings, known, "mail", "notify")
    receivers = settings.get("to")
    receivers = [receivers] if isinstance(receivers, str) else list(receivers or ())
    for address in [*receivers, *([settings["from"]] if settings.get("from") else [])] or [""]:
        if "@" not in parseaddr(str(address))[1] or any(sign in str(address) for sign in "\r\n"):
            raise HomelabError(f"{address!r} is not an address", "notify.mail", "write it as you@example.org")
    security = settings.get("security") or "none"
    if security not in SECURITY:
        raise HomelabError(
            f"there is no {security!r}", "notify.mail.security", f"there are {', '.join(SECURITY)}"
        )
    if settings.get("username") and security == "none":
        raise HomelabError(
            "a password would travel in clear", "notify.mail.security", "set it to starttls or tls, or leave username"
        )
    if not f"{settings.get('username') or ''}{settings.get('password') or ''}".isascii():
        raise HomelabError(
            "the account has letters that the login of SMTP does not carry",
            "notify.mail.username, password",
            "choose a password of ASCII letters, digits and signs",
        )
    server = settings.get("server") or "localhost"
    port = settings.get("port") or {"none": 25, "starttls": 587, "tls": 465}[security]

    def send(message):
        mail = EmailMessage()
        mail["Subject"] = message.title
        mail["From"] = settings.get("from") or receivers[0]
        mail["To"] = ", ".join(receivers)
        mail["Date"], mail["Message-ID"] = formatdate(localtime=True), make_msgid(domain=message.host or None)
        mail.set_content(message.text + "\n")
        try:
            context = ssl.create_default_context(cafile=settings.get("ca_path"))
            kind = {"tls": smtplib.SMTP_SSL}.get(security, smtplib.SMTP)
            with kind(server, port, timeout=PATIENCE, **({"context": context} if security == "tls" else {})) as smtp:
                if security == "starttls":
                    smtp.starttls(context=context)
                if settings.get("username"):
                    smtp.login(settings["username"], settings.get("password") or "")
                smtp.send_message(mail)
        except smtplib.SMTPAuthenticationError:
            raise HomelabError(
                f"{server} refuses the account {settings['username']}", "notify.mail", "correct its password"
            ) from None
        except smtplib.SMTPException as error:
            code = getattr(error, "smtp_code", None)
            said = f"{server} did not take the mail ({code or type(error).__name__})"
            raise HomelabError(said, "notify.mail", "see its log") from None
        except OSError as error:
            said = error.strerror or type(error).__name__
            raise HomelabError(f"{server}:{port} cannot be reached: {said}", "notify.mail", "correct it") from None

    return send
