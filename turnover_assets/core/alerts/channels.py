"""Where alerts go: a log, a webhook, e-mail; what each needs to be told.

What belongs here: the fields of a channel, validated each by itself. What does not: sending
(storage/alert_channels.py), and the whole file (rules.py).
"""

import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

ADDRESS = re.compile(r"[^@\s<>,;:\"()\[\]\\]+@[^@\s<>,;:\"()\[\]\\]+")
URL = re.compile(r"https?://[^\s/?#]+\S*")


class Severity(StrEnum):
    """How bad it is, from the mildest on."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """0 for the mildest."""
        return list(Severity).index(self)


class Channel(BaseModel):
    """What all channels have.

    Attributes:
        minimum_severity: The mildest alerts that go this way.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, populate_by_name=False)
    minimum_severity: Severity = Severity.WARNING


class LogChannel(Channel):
    """A line of JSON for each message, in alerts/alerts.log of the home, and one in the run's log."""

    minimum_severity: Severity = Severity.INFO


class WebhookChannel(Channel):
    """A POST of JSON as Slack takes it, and Mattermost or Rocket.Chat as well.

    Attributes:
        url: The address, which is a secret; better not in the file.
        url_file: A file that holds the address, in place of `url`.
        timeout_seconds: How long to wait for an answer.
    """

    url: SecretStr | None = None
    url_file: Path | None = None
    timeout_seconds: float = Field(5.0, gt=0, le=60)


class EmailChannel(Channel):
    """A message to some addresses through an SMTP server.

    Attributes:
        host: The server.
        port: Its port.
        security: `starttls`, `tls` from the first byte on, or `none`.
        user: Who logs in; nobody where left out.
        password_file: A file that holds the password.
        sender: The address in From.
        recipients: The addresses in To.
        timeout_seconds: How long to wait for each answer.
    """

    host: str = Field(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9.:_\-]+$")
    port: int = Field(587, ge=1, le=65535, strict=True)
    security: Literal["starttls", "tls", "none"] = "starttls"
    user: str = ""
    password_file: Path | None = None
    sender: str = Field(alias="from")
    recipients: tuple[str, ...] = Field(alias="to", min_length=1)
    timeout_seconds: float = Field(10.0, gt=0, le=60)


CHANNELS: Mapping[str, type[Channel]] = {"log": LogChannel, "webhook": WebhookChannel, "email": EmailChannel}


def channel_slips(kind: str, raw: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What is wrong with the fields of a channel that are of the right type; never shows a secret."""
    if check := {"webhook": _webhook_slips, "email": _email_slips}.get(kind):
        yield from check(raw)


def _webhook_slips(raw: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if "url" in raw and "url_file" in raw:
        yield "url", "stands beside a url_file; keep one of the two"
    if isinstance(url := raw.get("url"), str) and not URL.fullmatch(url):
        yield "url", "is no address that begins with https:// or http:// (it is not shown, being a secret)"


def _email_slips(raw: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    named = {"from": [raw.get("from")], "to": raw.get("to")}
    for field, addresses in named.items():
        for address in addresses if isinstance(addresses, list) else []:
            if isinstance(address, str) and not ADDRESS.fullmatch(address):
                yield field, f"{address!r} is no plain address, such as planning@example.com"
    if "password_file" in raw and not raw.get("user"):
        yield "user", "is left out, though there is a password_file"
    if raw.get("security") == "none" and raw.get("user"):
        yield "security", "is none, which would send the password in the clear; use starttls or tls"
