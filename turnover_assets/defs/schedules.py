"""The weekly look: whether all is up to date, said once a week, and tried again where sensors gave up.

What belongs here: the schedule, and the pure function that decides for it. What does not: what sensors do
within seconds of a change (sensors.py, training_sensors.py).

Sensors bound their attempts, so that nothing asks for ever. What was mended by itself meanwhile, such as a
full disk or a server that was away, is tried once more each week by this.
"""

from datetime import date, datetime
from zoneinfo import ZoneInfo

import dagster as dg

from turnover_assets.core.calendar import index_of, last_ended
from turnover_assets.defs import common, jobs
from turnover_assets.defs.decisions import recorded_schedule
from turnover_assets.defs.training_sensors import Present, is_changed, landed_version, under_way, with_present
from turnover_assets.panel import PanelSpec
from turnover_assets.settings import Settings

WEEKLY = "weekly_look"


def build(settings: Settings) -> list[dg.ScheduleDefinition]:
    """The schedules, switched on.

    Raises:
        TurnoverError: A schedule in the settings is none.
    """
    return [
        recorded_schedule(
            settings,
            WEEKLY,
            "weekly_schedule",
            jobs.REFRESH,
            "Once a week: says whether all is up to date, and tries again what sensors gave up.",
            lambda context: with_present(
                settings,
                lambda present: look_weekly(
                    context.instance, context.scheduled_execution_time, settings, present
                ),
            ),
        )
    ]


def look_weekly(
    instance: dg.DagsterInstance, due: datetime, settings: Settings, present: Present
) -> dg.RunRequest | dg.SkipReason:
    """Ask for a refresh where something has changed since publishing, whatever was tried before.

    Args:
        instance: The Dagster instance.
        due: When the look is due, with a time zone.
        settings: The settings.
        present: How things are now.
    """
    landed = landed_version(instance)
    if landed is None:
        return dg.SkipReason("Nothing to forecast has landed yet.")
    day = due.astimezone(ZoneInfo(settings.timezone)).date()
    state = _state_of_data(instance, settings.panel_spec, day)
    if not is_changed(instance, landed, present):
        return dg.SkipReason(f"All that landed is published. {state}")
    if running := under_way(instance):
        return dg.SkipReason(f"{running} {state}")
    if unusable := present.unusable():
        return dg.SkipReason(f"Training comes first: {unusable} {state}")
    reason = f"Weekly look: what landed is not published yet, so it is tried again. {state}"
    tags = jobs.cause_tags(landed, present.made_from) | {jobs.REASON_TAG: reason[: jobs.LONGEST_TAG]}
    return dg.RunRequest(f"{WEEKLY} {due.isoformat()}", tags=tags)


def _state_of_data(instance: dg.DagsterInstance, panel: PanelSpec, day: date) -> str:
    """Up to when data has been forecast from, and what ought to have come since."""
    cutoff = common.latest_metadata(instance, common.FORECASTS).get("cutoff")
    if cutoff is None:
        return "Nothing has been forecast yet."
    behind = last_ended(panel, day) - index_of(panel, date.fromisoformat(str(cutoff)))
    if behind <= 0:
        return f"Data reaches {cutoff}; no {panel.frequency.every} has ended since."
    return f"Data reaches {cutoff}; {behind} {panel.frequency.every}(s) have ended since and are awaited."
