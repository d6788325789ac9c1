"""Sensors that forecast when something has changed, and train when that is due.

What belongs here: two sensors, and the pure functions that decide for them. What does not: the work, the
policy of retraining (core/retraining.py) and its facts (retraining.py).

A sensor never works itself: it looks, decides, and says why, also where it does nothing. All runs made for
one cause without another in between count as attempts, whoever made them and however they ended, so that
nothing can ask for ever; who goes back and forth between two champions by hand is not kept from it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import dagster as dg

from turnover_assets.defs import common, jobs
from turnover_assets.defs.decisions import recorded
from turnover_assets.defs.runs import attempts_made, unfinished_runs
from turnover_assets.errors import TurnoverError
from turnover_assets.settings import Settings
from turnover_assets.storage.home_panel import check_panel
from turnover_assets.storage.registry import ModelRegistry
from turnover_assets.storage.snapshots import find_current


@dataclass(frozen=True)
class Present:
    """What the sensors compare with what is published.

    Attributes:
        made_from: Versions of ledger, settings, release and champion as they are now.
        is_whole: Whether the published snapshot is there; one that was deleted is made again.
        unusable: Tells why no champion can forecast; empty where one can. Asked only where it matters, since
            it reads the model.
    """

    made_from: Mapping[str, Any]
    is_whole: bool
    unusable: Callable[[], str]

    @classmethod
    def of(cls, settings: Settings) -> "Present":
        """How things are now.

        Raises:
            TurnoverError: The ledger cannot be read, or the home cannot go on with the panel.
        """
        check_panel(settings)
        panel = settings.panel_spec
        registry = ModelRegistry.of(settings)
        return cls(
            jobs.made_from(settings),
            find_current(settings.published_path) is not None,
            lambda: registry.why_unusable(panel),
        )


Look = Callable[[dg.DagsterInstance, int, Present], dg.RunRequest | dg.SkipReason]


def build(settings: Settings) -> list[dg.SensorDefinition]:
    """The sensors, switched on."""
    return [
        _sensor(
            settings,
            jobs.REFRESH,
            look_for_changes,
            "Cleans, forecasts with the champion and publishes when something has changed.",
        ),
        _sensor(
            settings,
            jobs.RETRAIN,
            look_for_retraining,
            "Trains where no champion can forecast, and where the policy says that it is due.",
        ),
    ]


def _sensor(settings: Settings, job: str, look: Look, description: str) -> dg.SensorDefinition:
    @dg.sensor(
        name=f"{job}_sensor",
        job_name=job,
        minimum_interval_seconds=settings.sensor_interval_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=description,
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        def decide(present: Present) -> dg.RunRequest | dg.SkipReason:
            return look(context.instance, settings.sensor_attempts, present)

        return recorded(settings, f"{job}_sensor", lambda: with_present(settings, decide))

    return sensor


def with_present(
    settings: Settings, look: Callable[[Present], dg.RunRequest | dg.SkipReason]
) -> dg.RunRequest | dg.SkipReason:
    """What a look decides, given how things are; a ledger that cannot be read is a reason to do nothing."""
    try:
        present = Present.of(settings)
    except TurnoverError as error:
        return dg.SkipReason(str(error))
    return look(present)


def look_for_changes(
    instance: dg.DagsterInstance, limit: int, present: Present
) -> dg.RunRequest | dg.SkipReason:
    """Whether what landed, or what is made from it, differs from what is published; a run, or why not.

    Args:
        instance: The Dagster instance.
        limit: Runs made for one cause at most.
        present: How things are now.
    """
    landed = landed_version(instance)
    if landed is None:
        return dg.SkipReason("Nothing to forecast has landed yet.")
    changed = is_changed(instance, landed, present)
    if not changed:
        return dg.SkipReason(f"What landed (version {landed}) is published already.")
    if running := under_way(instance):
        return dg.SkipReason(running)
    if unusable := present.unusable():
        return dg.SkipReason(f"Training comes first: {unusable}")
    return _request(instance, jobs.REFRESH, jobs.cause_tags(landed, present.made_from), {}, limit)


def look_for_retraining(
    instance: dg.DagsterInstance, limit: int, present: Present
) -> dg.RunRequest | dg.SkipReason:
    """Whether to train now: no champion can forecast, or the policy has said so since the last training."""
    landed = landed_version(instance)
    if landed is None:
        return dg.SkipReason("Nothing to learn from has landed yet.")
    if running := under_way(instance):
        return dg.SkipReason(running)
    tags = jobs.cause_tags(landed, present.made_from)
    if is_changed(instance, landed, present) and (unusable := present.unusable()):
        return _request(instance, jobs.RETRAIN, tags, jobs.training_tags("champion", unusable), limit)
    verdict = common.latest_metadata(instance, common.RETRAINING)
    if not verdict.get("due"):
        return dg.SkipReason(str(verdict.get("sentence", "The policy has not been asked yet.")))
    asked, trained = (common.latest_time(instance, key) for key in (common.RETRAINING, common.CHAMPION))
    if asked and trained and trained >= asked:
        return dg.SkipReason("A model was trained since the policy asked for it.")
    why = jobs.training_tags(str(verdict["cause"]), str(verdict["sentence"]))
    return _request(instance, jobs.RETRAIN, tags, why, limit)


def landed_version(instance: dg.DagsterInstance) -> str | None:
    """Version of what has landed; None where that is nothing."""
    newest = common.latest_metadata(instance, common.LANDED)
    landed = newest.get("landed_version")
    return None if landed is None or newest.get("dagster/row_count") == 0 else str(landed)


def is_changed(instance: dg.DagsterInstance, landed: str, present: Present) -> bool:
    """Whether what is published was not made from just this."""
    published = common.latest_metadata(instance, common.PUBLISHED)
    made_from = {name: published.get(name) for name in jobs.MADE_FROM}
    same = published.get("landed_version") == landed and made_from == dict(present.made_from)
    backfilled = common.latest_run(instance, common.AS_OF)
    return not (present.is_whole and same and backfilled in (None, published.get("as_of_run")))


def under_way(instance: dg.DagsterInstance) -> str:
    """What to wait for; empty where nothing is under way."""
    for job in (jobs.INGEST, jobs.REFRESH, jobs.RETRAIN):
        if running := unfinished_runs(instance, job):
            return f"Waiting for the {job} run {running[0]} to end."
    return ""


def _request(
    instance: dg.DagsterInstance, job: str, tags: Mapping[str, str], why: Mapping[str, str], limit: int
) -> dg.RunRequest | dg.SkipReason:
    """The next attempt for a cause, unless the newest runs were all made for it in vain.

    Args:
        instance: The Dagster instance.
        job: The job.
        tags: What the run is made for.
        why: Why a training is made.
        limit: Runs made for one cause at most, without one for another cause in between.
    """
    cause = dict(tags) | {name: text for name, text in why.items() if name == jobs.TRAINING_TAG}
    newest = instance.get_runs(dg.RunsFilter(job_name=job), limit=limit)
    told = " ".join(cause.values())
    if len(newest) == limit and all(cause.items() <= run.tags.items() for run in newest):
        return dg.SkipReason(
            f"Gave up on {told} after {limit} {job} runs that did not publish it; mend the cause (see the "
            "newest failed run), then start the job by hand, land another file or correct the ledger."
        )
    number = 1 + attempts_made(instance, dg.RunsFilter(job_name=job, tags=cause))
    return dg.RunRequest(f"{told}#{number}", tags={**tags, **why, jobs.ATTEMPT_TAG: str(number)})
