"""How incidents read: as a table for people, as CSV and as JSON.

What belongs here: text from incidents and deliveries. What does not: commands (alerts.py).
"""

import csv
import io
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from turnover_assets.commands.console import PIPED_WIDTH

if TYPE_CHECKING:
    from turnover_assets.core.alerts.incidents import Incident
    from turnover_assets.storage._alert_tables import Delivery

STYLES = {"info": "", "warning": "yellow", "critical": "bold red"}


def rows(incidents: "Sequence[Incident]", deliveries: "Sequence[Delivery]") -> list[dict[str, Any]]:
    """Incidents as plain data, each with the messages on it."""
    return [
        {
            "incident": one.incident_id,
            "state": "ended" if one.resolved_at else "open",
            "severity": one.severity.value,
            "rule": one.rule,
            "level": one.level,
            "member": one.member,
            "sentence": one.sentence,
            "advice": one.advice,
            "since": one.since,
            "value": one.value,
            "limit": one.limit,
            "count": one.count,
            "opened_at": _iso(one.opened_at),
            "seen_at": _iso(one.seen_at),
            "ended_at": _iso(one.resolved_at),
            "messages": [
                {
                    "kind": delivery.message.kind,
                    "channel": delivery.channel,
                    "state": delivery.state,
                    "attempts": delivery.attempts,
                    "delivered_at": _iso(delivery.delivered_at),
                    "next_at": _iso(delivery.next_at) if delivery.state == "pending" else None,
                    "last_error": delivery.last_error,
                }
                for delivery in deliveries
                if one.incident_id in delivery.message.incidents
            ],
        }
        for one in incidents
    ]


def as_json(incidents: "Sequence[Incident]", deliveries: "Sequence[Delivery]") -> str:
    """A list of objects."""
    return json.dumps(rows(incidents, deliveries), indent=2, ensure_ascii=False)


def as_csv(incidents: "Sequence[Incident]", deliveries: "Sequence[Delivery]") -> str:
    """A line for each incident; its messages in one cell."""
    found = [{**row, "messages": _messages(row)} for row in rows(incidents, deliveries)]
    names = list(found[0]) if found else ["incident", "state", "severity", "rule", "sentence"]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    return stream.getvalue().rstrip("\n")


def as_table(incidents: "Sequence[Incident]", deliveries: "Sequence[Delivery]") -> str:
    """A table for people."""
    table = Table(box=None, pad_edge=False)
    for name in ("no", "state", "severity", "rule", "what", "since", "seen", "messages"):
        table.add_column(name, no_wrap=name in ("no", "state", "severity"), overflow="fold")
    for row in rows(incidents, deliveries):
        style = STYLES[row["severity"]] if row["state"] == "open" else "dim"
        table.add_row(
            str(row["incident"]),
            row["state"],
            row["severity"],
            escape(row["rule"]),
            escape(row["sentence"]),
            escape(row["since"]),
            str(row["count"]),
            escape(_messages(row)),
            style=style or None,
        )
    console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPED_WIDTH)
    with console.capture() as captured:
        console.print(table)
    return captured.get().rstrip("\n")


def _messages(row: Mapping[str, Any]) -> str:
    """Messages in short: kind, channel and what became of it."""
    return "; ".join(
        f"{message['kind']} {message['channel']} {message['state']}"
        + (f" ({message['attempts']} attempts: {message['last_error']})" if message["last_error"] else "")
        for message in row["messages"]
    )


def _iso(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat(timespec="seconds")
