"""Deliveries: what is published, brought to other places that the settings name; none by default.

What belongs here: an asset for each place, the job that makes them, and the sensor that asks for it. What
does not: how a place is written (storage/snapshot_mirror.py, storage/postgres_copy.py).

They are a job of their own, after publishing: a bucket or a database that is away fails no forecast, holds up
no training, and is tried again without forecasting anew. The home stays the truth: what is delivered is what
CURRENT names there, and a delivery that failed is one that has not been made yet.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from turnover_assets.core.published_keys import published_keys
from turnover_assets.defs import common, jobs
from turnover_assets.defs.decisions import recorded
from turnover_assets.defs.runs import attempts_made, unfinished_runs
from turnover_assets.settings import Settings
from turnover_assets.storage.postgres_copy import Database
from turnover_assets.storage.snapshot_mirror import mirror
from turnover_assets.storage.snapshots import find_current, lease

GROUP = "deliveries"
OBJECT_STORE = dg.AssetKey([GROUP, "object_store"])
POSTGRES = dg.AssetKey([GROUP, "postgres"])
SENSOR = "delivery_sensor"
POOL = "deliveries"  # one at a time, beside runs that use the warehouse
CODE_VERSION = "1"
# For what passes in seconds; what lasts longer is for the sensor.
RETRIES = dg.RetryPolicy(max_retries=2, delay=3, backoff=dg.Backoff.EXPONENTIAL)
LONGEST_WAIT = timedelta(hours=6)


@dataclass(frozen=True)
class Undelivered:
    """What has not been delivered yet.

    Attributes:
        snapshot: The published snapshot.
        places: Where it is not yet.
    """

    snapshot: str
    places: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """The same as a sentence."""
        return f"Snapshot {self.snapshot} is not yet in {' and '.join(self.places)}."

    @property
    def tags(self) -> Mapping[str, str]:
        """Tags of a run that delivers it; another place is another cause."""
        mark = sha256("\n".join(self.places).encode()).hexdigest()[:8]
        return {
            jobs.CAUSE_TAG: f"{self.snapshot}@{mark}",
            jobs.REASON_TAG: self.sentence[: jobs.LONGEST_TAG],
        }

    @property
    def runs(self) -> dg.RunsFilter:
        """The runs that were made to deliver it."""
        return dg.RunsFilter(job_name=jobs.DELIVER, tags={jobs.CAUSE_TAG: self.tags[jobs.CAUSE_TAG]})


def places(settings: Settings) -> dict[dg.AssetKey, str]:
    """The places that the settings name, by asset, as people may read them."""
    found = {OBJECT_STORE: settings.publish_url or ""}
    if settings.postgres_url:
        found[POSTGRES] = database(settings).place
    return {key: place for key, place in found.items() if place}


def database(settings: Settings) -> Database:
    """The database that the settings name."""
    assert settings.postgres_url is not None
    return Database(settings.postgres_url, settings.postgres_schema)


def build(settings: Settings) -> list[dg.AssetsDefinition]:
    """An asset for each place that the settings name."""
    made = {OBJECT_STORE: _object_store, POSTGRES: _postgres}
    return [make(settings) for key, make in made.items() if key in places(settings)]


def build_jobs(settings: Settings) -> list[UnresolvedAssetJobDefinition]:
    """The job that delivers, where there is a place to deliver to."""
    if not places(settings):
        return []
    return [
        dg.define_asset_job(
            jobs.DELIVER,
            selection=dg.AssetSelection.groups(GROUP),
            description="Bring what is published to the object store and the database.",
            executor_def=dg.in_process_executor,
        )
    ]


def _object_store(settings: Settings) -> dg.AssetsDefinition:
    @dg.asset(
        key=OBJECT_STORE,
        deps=[common.PUBLISHED],
        group_name=GROUP,
        description="The published snapshots in an object store; its CURRENT is written last.",
        owners=[common.ENGINEERS],
        kinds={"s3", "parquet"},
        code_version=CODE_VERSION,
        pool=POOL,
        retry_policy=RETRIES,
    )
    def object_store() -> dg.MaterializeResult[None]:
        place = str(settings.publish_url)
        with lease(settings.published_path) as snapshot:
            done = mirror(snapshot, place, settings.keep_snapshots)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(done.name),
            metadata={
                "snapshot": done.name,
                "place": place,
                "objects": done.written,
                "bytes": done.written_bytes,
                "removed_snapshots": list(done.removed),
            },
        )

    return object_store


def _postgres(settings: Settings) -> dg.AssetsDefinition:
    @dg.asset(
        key=POSTGRES,
        deps=[common.PUBLISHED],
        group_name=GROUP,
        description="The published tables in Postgres, brought up to date in one transaction.",
        owners=[common.ENGINEERS],
        kinds={"postgres"},
        code_version=CODE_VERSION,
        pool=POOL,
        retry_policy=RETRIES,
    )
    def postgres() -> dg.MaterializeResult[None]:
        with lease(settings.published_path) as snapshot:
            done = database(settings).copy(snapshot, published_keys(settings.panel_spec))
        return dg.MaterializeResult(
            data_version=dg.DataVersion(done.name),
            metadata={
                "snapshot": done.name,
                "place": done.place,
                "rows": sum(done.tables.values()),
                "tables": dict(done.tables),
            },
        )

    return postgres


def build_sensors(settings: Settings) -> list[dg.SensorDefinition]:
    """The sensor, switched on, where there is a place to deliver to."""
    if not places(settings):
        return []

    @dg.sensor(
        name=SENSOR,
        job_name=jobs.DELIVER,
        minimum_interval_seconds=settings.sensor_interval_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Delivers what is published, and tries again what could not be delivered.",
    )
    def delivery_sensor(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        return recorded(
            settings, SENSOR, lambda: look_for_deliveries(context.instance, settings, datetime.now(UTC))
        )

    return [delivery_sensor]


def undelivered(instance: dg.DagsterInstance, settings: Settings) -> Undelivered | None:
    """What is published and not delivered yet; None where nothing is."""
    snapshot = find_current(settings.published_path)
    if snapshot is None:
        return None
    delivered = {key: common.latest_metadata(instance, key) for key in places(settings)}
    missing = tuple(
        place
        for key, place in places(settings).items()
        if (delivered[key].get("snapshot"), delivered[key].get("place")) != (snapshot.name, place)
    )
    return Undelivered(snapshot.name, missing) if missing else None


def look_for_deliveries(
    instance: dg.DagsterInstance, settings: Settings, now: datetime
) -> dg.RunRequest | dg.SkipReason:
    """Whether to deliver now: each failed attempt doubles the wait for the next, up to LONGEST_WAIT.

    Attempts do not end, since a place that is away for a day must not need anybody once it is back.
    """
    todo = undelivered(instance, settings)
    if todo is None:
        return dg.SkipReason("What is published is delivered.")
    if running := unfinished_runs(instance, jobs.DELIVER):
        return dg.SkipReason(f"Waiting for the delivery {running[0]} to end.")
    newest, made = instance.get_run_records(todo.runs, limit=1), attempts_made(instance, todo.runs)
    if newest:
        due = newest[0].update_timestamp.replace(tzinfo=UTC) + wait_after(made, settings)
        if due > now:
            failed = f"Attempt {made} failed; the next is due at {due:%H:%M:%S} UTC."
            return dg.SkipReason(f"{todo.sentence} {failed}")
    tags = {**todo.tags, jobs.ATTEMPT_TAG: str(made + 1)}
    return dg.RunRequest(f"{tags[jobs.CAUSE_TAG]}#{made + 1}", tags=tags)


def wait_after(attempts: int, settings: Settings) -> timedelta:
    """How long to wait after a failed attempt, by its number."""
    seconds = settings.sensor_interval_seconds * 2 ** min(attempts, 20)
    return min(timedelta(seconds=seconds), LONGEST_WAIT)
