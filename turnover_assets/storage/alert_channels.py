"""Sending one message through one channel: a log, a webhook, e-mail.

What belongs here: how a message looks in each, and sending it once. What does not: trying again
(alert_outbox.py), and which messages there are (core/alerts/incidents.py).

Names of members, files and errors come from outside: they are escaped for where they go, and cannot add mail
headers, mentions or markup. Secrets stand in no log, no error and no repr.
"""

import json
import os
import smtplib
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import format_datetime
from html import escape
from http.client import HTTPException
from pathlib import Path

from pydantic import SecretStr

from turnover_assets.core.alerts.channels import URL, Channel, EmailChannel, LogChannel, WebhookChannel
from turnover_assets.core.alerts.events import one_line
from turnover_assets.core.alerts.incidents import Message
from turnover_assets.errors import TurnoverError
from turnover_assets.storage.alert_store import WORKBOOKS

COLOURS = {"info": "#5b7083", "warning": "#d9a400", "critical": "#c62828"}
RECOVERED_COLOUR = "#2e7d32"
LONGEST_TITLE, LONGEST_TEXT = 150, 3000  # characters
WEBHOOK_VARIABLE = "TURNOVER_ALERT_WEBHOOK_URL"
PASSWORD_VARIABLE = "TURNOVER_ALERT_SMTP_PASSWORD"  # noqa: S105

WORKBOOK_TYPE = ("application", "vnd.openxmlformats-officedocument.spreadsheetml.sheet")

Send = Callable[[Message, str], str]  # sends a message of a name that stays the same; gives a remark


class DeliveryError(TurnoverError):
    """A message could not be sent now; the text holds no secret."""


@dataclass(frozen=True)
class Secrets:
    """What the settings hold of secrets, for channels that name no file of their own."""

    webhook_url: SecretStr | None = None
    smtp_password: SecretStr | None = None


def senders(
    channels: Mapping[str, Channel], secrets: Secrets, home: Path, tell: Callable[[str], None]
) -> dict[str, Send]:
    """For each channel what sends a message through it.

    Args:
        channels: The channels by kind.
        secrets: The secrets of the settings.
        home: The data home, in which paths that are not absolute begin.
        tell: Told each message that goes to the log, as for the log of a run.
    """
    made: dict[str, Send] = {}
    for kind, channel in channels.items():
        if isinstance(channel, LogChannel):
            made[kind] = _log_sender(home / "alerts" / "alerts.log", tell)
        elif isinstance(channel, WebhookChannel):
            made[kind] = _webhook_sender(channel, secrets, home)
        elif isinstance(channel, EmailChannel):
            made[kind] = _email_sender(channel, secrets, home)
    return made


def workbook_senders(channels: Mapping[str, Channel], secrets: Secrets, home: Path) -> dict[str, Send]:
    """What sends workbooks: the e-mail channel, where there is one, to the recipient of each message."""
    channel = channels.get("email")
    return {WORKBOOKS: _email_sender(channel, secrets, home)} if isinstance(channel, EmailChannel) else {}


def missing_secrets(channels: Mapping[str, Channel], secrets: Secrets, home: Path) -> list[tuple[str, str]]:
    """Channel and problem for each secret that cannot be read now."""
    problems = []
    for kind, channel in channels.items():
        try:
            if isinstance(channel, WebhookChannel):
                _webhook_url(channel, secrets, home)
            elif isinstance(channel, EmailChannel):
                _password(channel, secrets, home)
        except DeliveryError as error:
            problems.append((f"channels.{kind}", str(error)))
    return problems


# The log --------------------------------------------------------------------------------------------


def _log_sender(path: Path, tell: Callable[[str], None]) -> Send:
    def send(message: Message, name: str) -> str:
        line = json.dumps({"id": name, **message.as_dict()}, ensure_ascii=True) + "\n"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                os.write(handle, line.encode())
            finally:
                os.close(handle)
        except OSError as error:
            raise DeliveryError(f"{path} cannot be written ({error.strerror})") from None
        tell(f"{message.title}. {' '.join(message.lines)}")
        return ""

    return send


# The webhook ----------------------------------------------------------------------------------------


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the message to an address that nobody chose."""

    def redirect_request(self, *_: object, **__: object) -> None:
        return None


def _webhook_sender(channel: WebhookChannel, secrets: Secrets, home: Path) -> Send:
    def send(message: Message, name: str) -> str:
        url = _webhook_url(channel, secrets, home)
        body = json.dumps(slack_payload(message)).encode()
        headers = {"Content-Type": "application/json; charset=utf-8", "Idempotency-Key": name}
        request = urllib.request.Request(url, body, headers, method="POST")  # noqa: S310 - validated as http(s)
        opener = urllib.request.build_opener(_NoRedirect)
        with _plain_failure(url):
            opener.open(request, timeout=channel.timeout_seconds).close()
        return ""

    return send


def slack_payload(message: Message) -> dict[str, object]:
    """A message as Slack's incoming webhooks take it, and Mattermost's and Rocket.Chat's."""
    title, text = slack_escaped(message.title, LONGEST_TITLE), slack_escaped(message.text, LONGEST_TEXT)
    colour = RECOVERED_COLOUR if message.kind == "recovered" else COLOURS[message.severity.value]
    attachment = {
        "color": colour,
        "fallback": title,
        "text": text,
        "footer": "turnover-assets",
        "ts": int(message.at.timestamp()),
    }
    return {"text": title, "attachments": [attachment]}


def slack_escaped(text: str, longest: int) -> str:
    """A text in which nothing is a mention, a link or a channel.

    Example:
        >>> slack_escaped("<!channel> & co", 100)
        '&lt;!channel&gt; &amp; co'
    """
    cut = text if len(text) <= longest else f"{text[: longest - 1]}…"
    return cut.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _webhook_url(channel: WebhookChannel, secrets: Secrets, home: Path) -> str:
    given = channel.url or secrets.webhook_url
    url = _read(home / channel.url_file) if channel.url_file else given.get_secret_value() if given else ""
    if not url:
        raise DeliveryError(f"has no address: set url_file, or the variable {WEBHOOK_VARIABLE}")
    if not URL.fullmatch(url):
        raise DeliveryError("has an address that does not begin with https:// or http://")
    return url


# E-mail ---------------------------------------------------------------------------------------------


def _email_sender(channel: EmailChannel, secrets: Secrets, home: Path) -> Send:
    def send(message: Message, name: str) -> str:
        password = _password(channel, secrets, home)
        mail = email_of(message, channel, name)
        for path in message.attachments:
            _attach(mail, home / path)
        with _plain_failure(password), _server(channel) as server:
            if channel.user:
                server.login(channel.user, password)
            refused = server.send_message(mail, channel.sender, _recipients(message, channel))
        return f"refused for {', '.join(sorted(refused))}" if refused else ""

    return send


@contextmanager
def _server(channel: EmailChannel) -> Iterator[smtplib.SMTP]:
    """A connection, secure where it should be; never one that is not instead."""
    context, here = ssl.create_default_context(), one_line(socket.gethostname()) or "localhost"
    place = (channel.host, channel.port, here)
    if channel.security == "tls":
        server: smtplib.SMTP = smtplib.SMTP_SSL(*place, timeout=channel.timeout_seconds, context=context)
    else:
        server = smtplib.SMTP(*place, timeout=channel.timeout_seconds)
    with server:
        if channel.security == "starttls":
            server.starttls(context=context)
        yield server


def email_of(message: Message, channel: EmailChannel, name: str) -> EmailMessage:
    """A message as e-mail, as plain text and HTML; messages on one incident form a thread."""
    mail = EmailMessage()
    mail["Subject"] = one_line(f"[turnover] {message.title}", LONGEST_TITLE)
    mail["From"], mail["To"] = channel.sender, ", ".join(_recipients(message, channel))
    mail["Date"] = format_datetime(message.at)
    mail["Message-ID"] = f"<{name}@turnover-assets>"
    store = name.partition(".")[0]
    if message.incidents:
        mail["References"] = f"<{store}.incident-{message.incidents[0]}@turnover-assets>"
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(f"{message.text}\n")
    lines = "".join(f"<p>{escape(line)}</p>" for line in message.lines)
    advice = f"<p><b>What to do:</b> {escape(message.advice)}</p>" if message.advice else ""
    colour = RECOVERED_COLOUR if message.kind == "recovered" else COLOURS[message.severity.value]
    title = f'<h3 style="color:{colour}">{escape(message.title)}</h3>'
    mail.add_alternative(f"<html><body>{title}{lines}{advice}</body></html>\n", subtype="html")
    return mail


def _recipients(message: Message, channel: EmailChannel) -> list[str]:
    return [message.recipient] if message.recipient else list(channel.recipients)


def _attach(mail: EmailMessage, path: Path) -> None:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DeliveryError(f"has a file to send, {path}, which cannot be read ({error.strerror})") from None
    mail.add_attachment(content, *WORKBOOK_TYPE, filename=path.name)


def _password(channel: EmailChannel, secrets: Secrets, home: Path) -> str:
    if not channel.user:
        return ""
    given = secrets.smtp_password
    word = (
        _read(home / channel.password_file)
        if channel.password_file
        else given.get_secret_value()
        if given
        else ""
    )
    if not word:
        raise DeliveryError(
            f"has a user but no password: set password_file, or the variable {PASSWORD_VARIABLE}"
        )
    return word


# Both -----------------------------------------------------------------------------------------------


def _read(path: Path) -> str:
    """A secret from its file; without the line's end."""
    try:
        return path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        problem = getattr(error, "strerror", None) or "no UTF-8 text"
        raise DeliveryError(f"has a secret in {path}, which cannot be read ({problem})") from None


@contextmanager
def _plain_failure(secret: str) -> Iterator[None]:
    """Turn whatever sending raises into a line without the secret."""
    try:
        yield
    except urllib.error.HTTPError as error:
        with error:
            said = error.read(300).decode("utf-8", "replace")
        raise DeliveryError(_without(secret, f"the answer was {error.code} {said}")) from None
    except (OSError, HTTPException, smtplib.SMTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise DeliveryError(_without(secret, f"{type(reason).__name__}: {reason}")) from None


def _without(secret: str, text: str) -> str:
    """A text on one line, in which the secret, or its path if it is an address, is left out."""
    path = "/".join(secret.split("/")[3:])
    for part in (secret, path):
        if len(part) > 1:
            text = text.replace(part, "(secret)")
    return one_line(text)
