"""`turnover alerts`: what is wrong and was told, whether the rules are valid, and whether messages arrive.

What belongs here: showing incidents with their messages, and trying the channels. What does not: evaluating
the rules (defs/alerts.py), and the tables for people (_alert_texts.py).
"""

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from turnover_assets.commands import _alert_texts as texts
from turnover_assets.commands.console import err, plain_errors
from turnover_assets.errors import AlertRulesError

if TYPE_CHECKING:
    from turnover_assets.core.alerts.incidents import Message
    from turnover_assets.core.alerts.rules import AlertRules
    from turnover_assets.settings import Settings
    from turnover_assets.storage.alert_channels import Secrets, Send
    from turnover_assets.storage.alert_store import AlertStore

app = typer.Typer(help="Alerts: see them, check the rules, try the channels.", no_args_is_help=True)
AT_ONCE = 1000  # messages that `send` tries at most


class AlertFormat(StrEnum):
    """How incidents are listed."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"


@app.command("list")
def list_alerts(
    days: Annotated[int, typer.Option(min=0, help="Days back; what is open is always shown.")] = 30,
    list_format: Annotated[AlertFormat, typer.Option("--format", help="Format.")] = AlertFormat.TABLE,
) -> None:
    """Show open and recent incidents, and what became of the messages on them."""
    with plain_errors():
        store = _store(_settings())
        incidents = store.incidents(datetime.now(UTC) - timedelta(days=days)) if store.path.exists() else []
        deliveries = store.deliveries() if incidents else []
        if not incidents and list_format is AlertFormat.TABLE:
            err.print(f"Nothing is wrong, and nothing was in the last {days} days.")
            return
        shown = {"table": texts.as_table, "csv": texts.as_csv, "json": texts.as_json}[list_format.value]
        typer.echo(shown(incidents, deliveries))


@app.command()
def check() -> None:
    """Validate the rules and see that every channel's secret can be read; lists all that is wrong."""
    with plain_errors():
        settings = _settings()
        rules, secrets = _rules(settings)
        from turnover_assets.storage.alert_channels import missing_secrets

        path = settings.alert_rules_path
        if problems := missing_secrets(rules.channels, secrets, settings.home.absolute()):
            raise AlertRulesError(str(path), problems)
        what = f"{len(rules.rules)} rules, messages to {', '.join(rules.channels)}"
        state = "is valid" if path.exists() else "is not there, so the shipped rules apply"
        err.print(f"{escape(str(path))} {state}: {what}.", soft_wrap=True)


@app.command("test")
def try_channels() -> None:
    """Send a test message through each channel, and say whether it arrived."""
    from turnover_assets.storage.alert_channels import DeliveryError

    with plain_errors():
        settings = _settings()
        ways, name = _senders(settings), f"test.{datetime.now(UTC):%Y%m%dT%H%M%S%f}"
        failed = False
        for kind, send in ways.items():
            try:
                remark = send(_test_message(), name)
                err.print(f"[green]sent[/]    {kind}{escape(f' ({remark})' if remark else '')}")
            except DeliveryError as error:
                failed = True
                err.print(f"[red]failed[/]  {kind}: {escape(str(error))}", soft_wrap=True)
        if failed:
            raise typer.Exit(1)


@app.command()
def send() -> None:
    """Send the messages that wait now, also those whose next attempt is not due yet."""
    from turnover_assets.storage.alert_channels import workbook_senders
    from turnover_assets.storage.alert_outbox import deliver_all

    with plain_errors():
        settings = _settings()
        ways, store = _senders(settings), _store(settings)
        rules, secrets = _rules(settings)
        mail = workbook_senders(rules.channels, secrets, settings.home.absolute())
        sent = deliver_all(store, ways, mail, AT_ONCE, due_only=False) if store.path.exists() else []
        for attempt in sent:
            state = f"[red]failed[/]  {escape(attempt.error)}:" if attempt.error else "[green]sent[/]   "
            title = escape(attempt.delivery.message.title)
            err.print(f"{state} {attempt.delivery.channel}: {title}", soft_wrap=True)
        left = len(store.deliveries(under_way=True)) if store.path.exists() else 0
        err.print(f"{sum(not one.error for one in sent)} sent, {left} still waiting.")
        if left:
            raise typer.Exit(1)


@app.command()
def look() -> None:
    """Look for failed runs, late data, refused files and failed checks now, as the sensors do, and send."""
    from turnover_assets.maintenance import look_for_alerts

    with plain_errors():
        report = look_for_alerts(_settings())
        err.print(f"{escape(report.sentence)}.", soft_wrap=True)
        for incident in report.open:
            err.print(f"  {incident.severity.value:<9}{escape(incident.sentence)}", soft_wrap=True)
        if report.failed:
            raise typer.Exit(1)


@app.command()
def close(
    incident_id: Annotated[int, typer.Argument(min=1, help="Number from the list.", metavar="NUMBER")],
) -> None:
    """End an incident by hand, without a message; it opens again if its rule still holds at the next look."""
    with plain_errors():
        incident = _store(_settings()).close(incident_id, datetime.now(UTC))
        err.print(f"Closed: {escape(incident.sentence)}", soft_wrap=True)


def _settings() -> "Settings":
    from turnover_assets.settings import load_settings

    return load_settings()


def _store(settings: "Settings") -> "AlertStore":
    from turnover_assets.storage.alert_store import AlertStore

    return AlertStore(settings.incidents_path)


def _rules(settings: "Settings") -> "tuple[AlertRules, Secrets]":
    from turnover_assets.storage.alert_channels import Secrets
    from turnover_assets.storage.alert_rules import read_alert_rules

    rules = read_alert_rules(settings.alert_rules_path, settings.panel_spec)
    return rules, Secrets(settings.alert_webhook_url, settings.alert_smtp_password)


def _senders(settings: "Settings") -> "dict[str, Send]":
    from turnover_assets.storage.alert_channels import senders

    rules, secrets = _rules(settings)
    return senders(rules.channels, secrets, settings.home.absolute(), lambda _: None)


def _test_message() -> "Message":
    from turnover_assets.core.alerts.channels import Severity
    from turnover_assets.core.alerts.incidents import Message

    return Message(
        "test",
        Severity.INFO,
        "Test: alerts of turnover-assets arrive here",
        ("This message was asked for with `turnover alerts test`. Nothing is wrong.",),
        "",
        datetime.now(UTC),
    )
