"""What tests of alerts share: rules, tables of measures, messages, and endpoints that record."""

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import Any

import pandas as pd

from turnover_assets.core.alerts.channels import Severity
from turnover_assets.core.alerts.incidents import Message
from turnover_assets.core.alerts.rules import AlertRules, parse_rules
from turnover_assets.panel import default_panel

NOW = datetime(2026, 11, 23, 6, 5, tzinfo=UTC)
NEWEST = date(2017, 6, 10)
WEEK = timedelta(days=7)


def rules_of(*rules: Mapping[str, Any], **others: Any) -> AlertRules:
    """Rules of the default panel; each gets a name where it has none."""
    named = [{"name": f"rule {number}", **rule} for number, rule in enumerate(rules, 1)]
    return parse_rules({"rule": named, **others}, default_panel(), "alerts.toml")


def weeks(count: int, newest: date = NEWEST) -> list[date]:
    """The newest weeks, newest first."""
    return [newest - n * WEEK for n in range(count)]


def measured(
    values: Mapping[str, Sequence[float | None]],
    measure: str = "coverage_80",
    level: str = "total",
    newest: date = NEWEST,
) -> pd.DataFrame:
    """A table of measures: by member its values, newest first; None where there is none."""
    rows = [
        {"measure": measure, "level": level, "member": member, "cutoff": newest - n * WEEK, "value": value}
        for member, listed in values.items()
        for n, value in enumerate(listed)
        if value is not None
    ]
    return pd.DataFrame(rows, columns=["measure", "level", "member", "cutoff", "value"])


def message(
    title: str = "Warning: bias in total", *lines: str, severity: str = "warning", **others: Any
) -> Message:
    """A message on incident 1."""
    return Message(
        others.pop("kind", "opened"),
        Severity(severity),
        title,
        lines or ("Bias is +12.0 % in total (limit 10 %).",),
        others.pop("advice", "Look at the newest weeks."),
        NOW,
        (1,),
    )


# Endpoints ------------------------------------------------------------------------------------------


@dataclass
class WebhookEndpoint:
    """Records what is posted, and answers as told: one answer a request, then the last again."""

    answers: list[int | Callable[[BaseHTTPRequestHandler], None]] = field(default_factory=lambda: [200])
    got: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    url: str = ""

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        length = int(request.headers.get("Content-Length", 0))
        self.got.append(json.loads(request.rfile.read(length) or b"null"))
        self.headers.append(dict(request.headers))
        answer = self.answers[min(len(self.got), len(self.answers)) - 1]
        if callable(answer):
            answer(request)
            return
        body = f"answer {answer} to {request.path}".encode()
        request.send_response(answer)
        if answer in (301, 302, 307, 308):
            request.send_header("Location", f"{self.url}/elsewhere")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)


@contextmanager
def webhook(*answers: int | Callable[[BaseHTTPRequestHandler], None]) -> Iterator[WebhookEndpoint]:
    """A webhook on a free port of loopback."""
    endpoint = WebhookEndpoint(list(answers) or [200])

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            endpoint.handle(self)

        def log_message(self, *_: object) -> None:
            pass

    with _serving(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as port:
        endpoint.url = f"http://127.0.0.1:{port}/services/T0/SECRET"
        yield endpoint


def hang(seconds: float) -> Callable[[BaseHTTPRequestHandler], None]:
    """An answer that does not come in time."""

    def wait(_: BaseHTTPRequestHandler) -> None:
        time.sleep(seconds)

    return wait


@dataclass
class MailServer:
    """A small SMTP server: takes messages, and a password; refuses as told."""

    password: str = "letters and signs"
    refuse_recipient: str = ""
    refuse_messages: int = 0  # so many at first, for the time being
    got: list[str] = field(default_factory=list)
    envelopes: list[tuple[str, list[str]]] = field(default_factory=list)
    port: int = 0


class _Dialogue(StreamRequestHandler):
    """One client of a mail server: a method for each verb, which gives the reply."""

    server_state: MailServer

    def handle(self) -> None:
        self.sender, self.recipients = "", list[str]()
        self.say("220 test")
        while line := self.read().rstrip("\r\n"):
            verb = line.split(" ")[0].lower()
            self.say(getattr(self, f"on_{verb}", lambda _: "502 not known")(line))
            if verb == "quit":
                return

    def say(self, reply: str) -> None:
        self.wfile.write(f"{reply}\r\n".encode())

    def read(self) -> str:
        return self.rfile.readline().decode()

    def on_ehlo(self, _: str) -> str:
        return "250-test\r\n250 AUTH PLAIN"

    def on_auth(self, line: str) -> str:
        given = base64.b64decode(line.split()[2]).decode().split("\0")[-1]
        return "235 ok" if given == self.server_state.password else f"535 wrong, {given}"

    def on_mail(self, line: str) -> str:
        self.sender, self.recipients = line.split("<")[1].split(">")[0], []
        return "250 ok"

    def on_rcpt(self, line: str) -> str:
        address = line.split("<")[1].split(">")[0]
        if address == self.server_state.refuse_recipient:
            return "550 nobody of that name"
        self.recipients.append(address)
        return "250 ok"

    def on_data(self, _: str) -> str:
        if self.server_state.refuse_messages:
            self.server_state.refuse_messages -= 1
            return "451 try again later"
        self.say("354 go on")
        lines = []
        while (text := self.read()) != ".\r\n":
            lines.append(text[1:] if text.startswith("..") else text)
        self.server_state.got.append("".join(lines))
        self.server_state.envelopes.append((self.sender, self.recipients))
        return "250 ok"

    def on_rset(self, _: str) -> str:
        return "250 ok"

    def on_quit(self, _: str) -> str:
        return "221 bye"


@contextmanager
def mail_server(**changes: Any) -> Iterator[MailServer]:
    """An SMTP server on a free port of loopback."""
    state = MailServer(**changes)

    class Handler(_Dialogue):
        server_state = state

    with _serving(ThreadingTCPServer(("127.0.0.1", 0), Handler)) as port:
        state.port = port
        yield state


@contextmanager
def _serving(server: ThreadingTCPServer) -> Iterator[int]:
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
