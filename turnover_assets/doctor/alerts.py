"""Checks of alerts: their rules, the secrets of their channels, and whether messages arrive.

What belongs here: files by hand and the outbox, also for workbooks that are sent by e-mail. What does not:
what is wrong with the data (data.py), and sending, which `turnover alerts test` does.
"""

from collections.abc import Iterator, Sequence
from datetime import timedelta

from turnover_assets.doctor import Patient, Told, check
from turnover_assets.errors import TurnoverError
from turnover_assets.storage._alert_tables import Delivery
from turnover_assets.storage.alert_channels import Secrets, missing_secrets
from turnover_assets.storage.alert_rules import read_alert_rules, rules_in_force
from turnover_assets.storage.alert_store import NOT_CONFIGURED, peek_deliveries
from turnover_assets.storage.workbook_files import read_recipients

RECENT = timedelta(days=7)  # for which messages that were given up are told
SLOW = timedelta(hours=1)  # after which a message that waits is told
LOOK = "`turnover alerts test` tries each channel, `turnover alerts send` sends what waits."


@check("alert rules")
def alert_rules(patient: Patient) -> Iterator[Told]:
    """The file of alert rules, where there is one, has no mistakes."""
    path = patient.settings.alert_rules_path
    if not path.exists():
        return
    try:
        read_alert_rules(path, patient.settings.panel_spec)
    except TurnoverError as error:
        remedy = "Until then the shipped rules apply, to the log alone. `turnover alerts check` looks again."
        yield "problem", str(error), remedy
        return
    yield "ok", str(path)


@check("alert channels")
def channels(patient: Patient) -> Iterator[Told]:
    """The secret of every channel can be read."""
    settings = patient.settings
    if patient.panel is None or not settings.alert_rules_path.exists():
        return
    rules, _ = rules_in_force(settings.alert_rules_path, patient.panel)
    secrets = Secrets(settings.alert_webhook_url, settings.alert_smtp_password)
    missing = missing_secrets(rules.channels, secrets, settings.home.absolute())
    for channel, problem in missing:
        yield "problem", f"{channel}: {problem}", "Until then nothing is sent by it; what is told waits."
    if not missing:
        yield "ok", f"messages go to {', '.join(rules.channels)}"


@check("alert messages")
def messages(patient: Patient) -> Iterator[Told]:
    """Messages arrive: none was given up of late, and none waits for long."""
    path = patient.settings.incidents_path
    if not path.exists():
        return
    found = peek_deliveries(path)
    lost = [
        one
        for one in found
        if one.given_up_at and one.given_up_at > patient.now - RECENT and one.last_error != NOT_CONFIGURED
    ]
    late = [one for one in found if one.state == "pending" and one.created_at < patient.now - SLOW]
    if lost:
        yield "problem", f"{_listed(lost)} given up in the last {RECENT.days} days", LOOK
    if late:
        yield "warning", f"{_listed(late)} waiting for more than an hour", LOOK
    if not lost and not late:
        yield "ok", f"{sum(one.state == 'delivered' for one in found):,} on record were delivered"


def _listed(deliveries: Sequence[Delivery]) -> str:
    """How many there are, of which channels, and what the newest failed by."""
    kinds = ", ".join(sorted({one.channel for one in deliveries}))
    error = deliveries[-1].last_error
    count = f"{len(deliveries)} message{'s' if len(deliveries) > 1 else ''}"
    return f"{count} by {kinds}{f' ({error})' if error else ''} {'were' if len(deliveries) > 1 else 'was'}"


@check("workbook recipients")
def recipients(patient: Patient) -> Iterator[Told]:
    """Who gets workbooks by e-mail is said without mistakes, and there is a channel to send them by."""
    path = patient.settings.workbook_recipients_path
    if patient.panel is None or not path.exists():
        return
    try:
        found = read_recipients(path, patient.panel)
        channels = read_alert_rules(patient.settings.alert_rules_path, patient.panel).channels
    except TurnoverError as error:
        yield "problem", str(error), "Until then no workbook is sent; docs/workbook.md shows the file."
        return
    if found and "email" not in channels:
        yield (
            "warning",
            f"{path} names {len(found)} addresses, but alerts.toml has no channel email",
            "Configure [channels.email]; docs/configuration.md has its fields.",
        )
    else:
        yield "ok", f"{len(found)} addresses in {path}"
