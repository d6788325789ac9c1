"""Alerts: evaluated after each publishing and by two sensors, and delivered by whoever looked.

What belongs here: the asset, the sensors, and one look: facts in, incidents settled, messages sent. What does
not: judging (core/alerts), reading the facts (alert_facts.py), keeping and sending (storage).

The sensors are plain ones. Dagster's own sensor on failures begins with the first failure after it was
switched on, looks at one code location, to which runs of `turnover run` do not belong, and never sees a
success, which is what ends an incident. Ours look at how the newest runs ended, so that they find what they
missed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, partial
from typing import Any

import dagster as dg
import pandas as pd

from turnover_assets.core.alerts.conditions import Condition, conditions
from turnover_assets.core.alerts.events import (
    check_conditions,
    file_conditions,
    late_conditions,
    run_conditions,
)
from turnover_assets.core.alerts.incidents import Change, Incident
from turnover_assets.core.alerts.rules import AlertRules
from turnover_assets.defs import alert_facts, checks, common, jobs
from turnover_assets.defs.decisions import recorded
from turnover_assets.defs.runs import are_launched_elsewhere
from turnover_assets.errors import TurnoverError
from turnover_assets.settings import Settings
from turnover_assets.storage.alert_channels import Secrets, senders, workbook_senders
from turnover_assets.storage.alert_outbox import Sent, deliver_all
from turnover_assets.storage.alert_rules import read_alert_rules, rules_in_force
from turnover_assets.storage.alert_store import AlertStore
from turnover_assets.storage.measures import Measured, read_measures

CODE_VERSION = "1"
MESSAGES_AN_ASSET = 20  # sent at most; the sensor sends the rest
MESSAGES_A_TICK = 5
TOLD_BY_FILE = ("no_file_refused",)  # checks whose failures the rules on file_refused tell, with the file
NOTHING_MEASURED = "Nothing was measured yet."

Look = Callable[[Sequence[Incident]], Sequence[Condition]]


@dataclass(frozen=True)
class Report:
    """What a look came to.

    Attributes:
        changes: What it changed about incidents.
        sent: The attempts to send messages.
        open: The incidents that are open now, the worst first.
        note: What else there is to say.
    """

    changes: Sequence[Change]
    sent: Sequence[Sent]
    open: Sequence[Incident]
    note: str = ""

    def count(self, kind: str) -> int:
        """How many changes are of a kind."""
        return sum(change.kind == kind for change in self.changes)

    @property
    def failed(self) -> list[Sent]:
        """The attempts that failed."""
        return [attempt for attempt in self.sent if attempt.error]

    @property
    def sentence(self) -> str:
        """The look in a sentence or two, for a tick."""
        told = {kind: self.count(kind) for kind in ("opened", "escalated", "reminded", "recovered")}
        changed = ", ".join(f"{number} {kind}" for kind, number in told.items() if number) or "nothing new"
        parts = [f"{len(self.open)} open incidents, {changed}"]
        if self.sent:
            parts.append(f"{len(self.sent) - len(self.failed)} of {len(self.sent)} messages sent")
        parts += [f"{attempt.delivery.channel} failed: {attempt.error}" for attempt in self.failed]
        return "; ".join([*parts, self.note] if self.note else parts)


def build(settings: Settings) -> list[dg.AssetsDefinition]:
    """The asset of the alerts."""

    @dg.asset(
        key=common.ALERTS,
        deps=[common.PUBLISHED],
        group_name="monitoring",
        description="Alert rules on what was published: incidents opened and ended, messages sent.",
        owners=[common.ENGINEERS],
        kinds={"sqlite"},
        code_version=CODE_VERSION,
    )
    def alerts(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        rules, problem = rules_in_force(settings.alert_rules_path, settings.panel_spec)
        if problem:
            context.log.warning(problem)
        asked = [rule for rule in rules.rules if rule.measure]
        measured = read_measures(
            settings.published_path, {rule.measure for rule in asked}, {rule.level for rule in asked}
        )
        look = [_measures(settings, rules, measured), *_events(settings, context.instance, rules)]
        # Containers of runs know no secrets and reach no channel; there, what waits is sent by the sensors.
        limit = 0 if are_launched_elsewhere(context.instance) else MESSAGES_AN_ASSET
        report = look_around(settings, rules, look, context.log.info, limit)
        for attempt in report.failed:
            context.log.warning("%s failed: %s", attempt.delivery.channel, attempt.error)
        return dg.MaterializeResult(metadata=_metadata(report, measured))

    return [alerts]


def build_sensors(settings: Settings) -> list[dg.SensorDefinition]:
    """The sensors, switched on."""
    return [
        _sensor(
            settings, "failed_runs_sensor", "Tells of runs that failed, once for each cause.", _runs_only
        ),
        _sensor(
            settings,
            "alerts_sensor",
            "Tells of late data and forecasts, refused files and failed checks; sends what waits.",
            _events,
        ),
    ]


def _sensor(
    settings: Settings,
    name: str,
    description: str,
    looks: Callable[[Settings, dg.DagsterInstance, AlertRules], list[Look]],
) -> dg.SensorDefinition:
    @dg.sensor(
        name=name,
        minimum_interval_seconds=settings.sensor_interval_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=description,
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        def look() -> dg.SkipReason:
            rules, problem = rules_in_force(settings.alert_rules_path, settings.panel_spec)
            try:
                chosen = looks(settings, context.instance, rules)
                report = look_around(settings, rules, chosen, context.log.info, MESSAGES_A_TICK)
            except TurnoverError as error:
                return dg.SkipReason(str(error))
            return dg.SkipReason(f"{report.sentence} {problem}".strip())

        return recorded(settings, name, look)

    return sensor


def look_now(settings: Settings, instance: dg.DagsterInstance) -> Report:
    """Look at all that the sensors look at, for who has no daemon.

    Raises:
        TurnoverError: The rules have errors, or the alerts' file cannot be read or written.
    """
    rules = read_alert_rules(settings.alert_rules_path, settings.panel_spec)
    looks = [*_runs_only(settings, instance, rules), *_events(settings, instance, rules)]
    return look_around(settings, rules, looks, lambda _: None, MESSAGES_AN_ASSET)


def after_run(settings: Settings, instance: dg.DagsterInstance) -> str:
    """Tell of a run that has just ended, for who has no daemon; gives what went wrong with that, if anything.

    Nothing that goes wrong here may hide how the run itself ended, so nothing is raised.
    """
    try:
        rules, problem = rules_in_force(settings.alert_rules_path, settings.panel_spec)
        looks = _runs_only(settings, instance, rules)
        report = look_around(settings, rules, looks, lambda _: None, MESSAGES_A_TICK)
    except TurnoverError as error:
        return str(error)
    failed = [f"alert not sent by {one.delivery.channel}: {one.error}" for one in report.failed]
    return "; ".join([problem, *failed] if problem else failed)


def look_around(
    settings: Settings, rules: AlertRules, looks: Sequence[Look], tell: Callable[[str], None], limit: int
) -> Report:
    """Settle what some looks find, and send what waits.

    Args:
        settings: The settings.
        rules: The rules and channels.
        looks: Each gives conditions, told which incidents are open.
        tell: Told each message that goes to the log.
        limit: Messages sent at most.

    Raises:
        HomeError: The alerts' file cannot be read or written.
    """
    store = store_of(settings)
    changes = store.settle(
        rules, lambda found: [condition for look in looks for condition in look(found)], datetime.now(UTC)
    )
    secrets, home = secrets_of(settings), settings.home.absolute()
    ways = senders(rules.channels, secrets, home, tell)
    mail = workbook_senders(rules.channels, secrets, home)
    sent = deliver_all(store, ways, mail, limit, give_up=not rules.stand_in)
    return Report(changes, sent, store.open_incidents())


def store_of(settings: Settings) -> AlertStore:
    """Incidents and outbox of a home."""
    return AlertStore(settings.incidents_path)


def secrets_of(settings: Settings) -> Secrets:
    """The secrets of channels that the settings hold."""
    return Secrets(settings.alert_webhook_url, settings.alert_smtp_password)


def _measures(settings: Settings, rules: AlertRules, measured: Measured) -> Look:
    found = conditions(rules.rules, measured.rows, measured.cutoffs, settings.panel_spec)
    return lambda _: found


def _runs_only(settings: Settings, instance: dg.DagsterInstance, rules: AlertRules) -> list[Look]:
    return [lambda found: _runs(settings, instance, rules, found)]


def _events(settings: Settings, instance: dg.DagsterInstance, rules: AlertRules) -> list[Look]:
    """The looks at everything that is no measure and no run."""
    return [
        lambda _: _lateness(settings, instance, rules),
        lambda _: file_conditions(
            rules.on_event("file_refused"), alert_facts.file_fates(instance, settings.landing_path)
        ),
        lambda _: check_conditions(
            rules.on_event("check_failed"), alert_facts.check_states(instance, _checks(settings))
        ),
    ]


@cache
def _checks(settings: Settings) -> tuple[dg.AssetCheckKey, ...]:
    """The checks that are looked at; making them takes longer than looking."""
    keys = (key for one in checks.build(settings) for key in one.check_keys)
    return tuple(key for key in keys if key.name not in TOLD_BY_FILE)


def _runs(
    settings: Settings, instance: dg.DagsterInstance, rules: AlertRules, found: Sequence[Incident]
) -> list[Condition]:
    known = {one.member: (one.evidence, one.sentence) for one in found if one.family == "run_failed"}
    return run_conditions(
        rules.on_event("run_failed"),
        alert_facts.run_ends(instance, datetime.now(UTC)),
        known,
        partial(alert_facts.error_of, instance),
        settings.sensor_attempts,
        by_cause=jobs.INGEST,
        includes={jobs.RETRAIN: jobs.REFRESH},
    )


def _lateness(settings: Settings, instance: dg.DagsterInstance, rules: AlertRules) -> list[Condition]:
    """Whether data and forecasts are as fresh as their policy asks; old forecasts of old data are no news."""
    policy, now = common.freshness(settings), datetime.now(UTC)
    windows = common.freshness_windows(policy)
    landed = common.latest_time(instance, common.LANDED)
    published = common.latest_time(instance, common.PUBLISHED)
    excused = (
        landed is not None and published is not None and published >= landed and now - landed > windows[0]
    )
    data, forecast = rules.on_event("data_late"), rules.on_event("forecast_late")
    return [
        *late_conditions(data, "Data last landed", landed, now, windows),
        *late_conditions(forecast, "Forecasts were last published", published, now, windows, excused=excused),
    ]


def _metadata(report: Report, measured: Measured) -> dict[str, Any]:
    shown = pd.DataFrame(
        [
            {
                "severity": one.severity.value,
                "rule": one.rule,
                "what": one.sentence,
                "since": one.since,
                "seen": one.count,
            }
            for one in report.open
        ]
    )
    return {
        "open": len(report.open),
        **{kind: report.count(kind) for kind in ("opened", "escalated", "reminded", "recovered")},
        "sent": len(report.sent) - len(report.failed),
        "not_sent": len(report.failed),
        "cutoff": str(measured.cutoffs[0]) if measured.cutoffs else NOTHING_MEASURED,
        **({"open_incidents": common.preview(shown)} if len(shown) else {}),
    }
