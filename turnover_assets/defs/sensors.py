"""Sensors: land new files, and bring everything up to date when what landed has changed.

What belongs here: two sensors, and the pure functions that decide for them. What does not: the work.

A sensor never works itself: it looks, decides, and says why, also where it does nothing. Run keys are
remembered by Dagster for ever, so each carries the number of its attempt, and attempts are bounded.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import dagster as dg

from turnover_assets.defs import common, jobs
from turnover_assets.defs.partitions import LANDED_FILES, digest_of, range_tags, ranges
from turnover_assets.errors import TurnoverError
from turnover_assets.settings import Settings
from turnover_assets.storage.landing import LandedFile, list_folder
from turnover_assets.storage.reader import fingerprint

UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
FAILED = [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
Stamp = tuple[int, int]  # size in bytes, time of last change in nanoseconds


@dataclass(frozen=True)
class LandingState:
    """What the landing sensor remembers between two looks.

    Attributes:
        seen: Size and time of each file at the last look, by name.
        handled: The same for the files that need no further look.
        attempts: Runs asked for so far, by partition key.
    """

    seen: Mapping[str, Stamp] = field(default_factory=dict)
    handled: Mapping[str, Stamp] = field(default_factory=dict)
    attempts: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def from_cursor(cls, cursor: str | None) -> "LandingState":
        """Read a cursor; an unreadable one counts as none, since landing twice does no harm."""
        try:
            data = json.loads(cursor or "{}")
            return cls(
                {name: (int(s[0]), int(s[1])) for name, s in data.get("seen", {}).items()},
                {name: (int(s[0]), int(s[1])) for name, s in data.get("handled", {}).items()},
                {key: int(n) for key, n in data.get("attempts", {}).items()},
            )
        except (ValueError, TypeError, AttributeError, KeyError, IndexError):
            return cls()

    def to_cursor(self) -> str:
        """The state as a cursor."""
        return json.dumps({"seen": self.seen, "handled": self.handled, "attempts": self.attempts})


def stamps(folder: Path) -> dict[str, Stamp]:
    """Size and time of last change of each file in the landing folder, by name.

    Raises:
        TurnoverError: The folder cannot be listed.
    """
    found = {}
    for path in list_folder(folder):
        try:
            stat = path.stat()
        except OSError:  # it vanished since the listing, or cannot be looked at; the next tick sees
            continue
        found[path.relative_to(folder).as_posix()] = (stat.st_size, stat.st_mtime_ns)
    return found


def held_still(now: Mapping[str, Stamp], state: LandingState) -> list[str]:
    """Names of the files that did not change since the last look and still need one, in order."""
    return sorted(
        name
        for name, stamp in now.items()
        if state.seen.get(name) == stamp and state.handled.get(name) != stamp
    )


def contents_to_land(files: Iterable[LandedFile], partitions: Sequence[str]) -> list[LandedFile]:
    """The files whose content has no partition yet, one for each content."""
    known = {digest_of(key) for key in partitions}
    new: dict[str, LandedFile] = {}
    for file in files:
        if digest_of(file.partition_key) not in known:
            new.setdefault(file.digest, file)
    return list(new.values())


def pending_partitions(
    partitions: Sequence[str], landed: Iterable[str], attempts: Mapping[str, int], limit: int
) -> list[str]:
    """Partitions that have not landed and may be tried once more, in their order."""
    done = set(landed)
    return [key for key in partitions if key not in done and attempts.get(key, 0) < limit]


def build(settings: Settings) -> list[dg.SensorDefinition]:
    """The sensors, switched on."""

    @dg.sensor(
        name="landing_sensor",
        job_name=jobs.INGEST,
        minimum_interval_seconds=settings.sensor_interval_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Lands a file once it has held still for two looks at the landing folder.",
    )
    def landing_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        return look_for_files(context.instance, context.cursor, settings)

    @dg.sensor(
        name="refresh_sensor",
        job_name=jobs.REFRESH,
        minimum_interval_seconds=settings.sensor_interval_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Cleans, trains and publishes again when the landed data has changed.",
    )
    def refresh_sensor(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        return look_for_changes(context.instance, settings.sensor_attempts)

    return [landing_sensor, refresh_sensor]


def look_for_files(
    instance: dg.DagsterInstance, cursor: str | None, settings: Settings
) -> dg.SensorResult | dg.SkipReason:
    """One look at the landing folder: which files to land now, or why none."""
    folder, state = settings.landing_path, LandingState.from_cursor(cursor)
    try:
        now = stamps(folder)
    except TurnoverError as error:
        return dg.SkipReason(str(error))  # the cursor stays: a folder that cannot be read is not empty
    if running := unfinished_runs(instance, jobs.INGEST):
        return dg.SkipReason(f"An ingestion is under way (run {running[0]}); its files come first.")
    partitions = instance.get_dynamic_partitions(LANDED_FILES.name or "")
    ready = held_still(now, state)
    files, unread = read_files(folder, ready)
    new = [file.partition_key for file in contents_to_land(files, partitions)]
    landed = instance.get_materialized_partitions(common.LANDED)
    wanted = pending_partitions([*partitions, *new], landed, state.attempts, settings.sensor_attempts)
    attempts = {**state.attempts, **{key: state.attempts.get(key, 0) + 1 for key in wanted}}
    handled = {name: now[name] for name in now if name in ready or state.handled.get(name) == now[name]}
    after = LandingState(now, {n: s for n, s in handled.items() if n not in unread}, attempts)
    requests = list(ingest_requests([*partitions, *new], wanted, attempts))
    waiting = len(now) - len(after.handled)
    return dg.SensorResult(
        run_requests=requests,
        skip_reason=None if requests else f"{len(now)} files, none new; {waiting} not holding still yet.",
        cursor=after.to_cursor(),
        dynamic_partitions_requests=[LANDED_FILES.build_add_request(new)] if new else [],
    )


def read_files(folder: Path, names: Iterable[str]) -> tuple[list[LandedFile], set[str]]:
    """Fingerprint files by name; also the names that could not be read now."""
    files, unread = [], set()
    for name in names:
        try:
            files.append(LandedFile(folder / name, name, fingerprint(folder / name)))
        except (OSError, TurnoverError):
            unread.add(name)
    return files, unread


def ingest_requests(
    order: Sequence[str], wanted: Sequence[str], attempts: Mapping[str, int]
) -> Iterable[dg.RunRequest]:
    """One run for each unbroken run of wanted partitions."""
    for first, last in ranges(wanted, order):
        chosen = order[order.index(first) : order.index(last) + 1]
        numbered = "\n".join(f"{key}#{attempts[key]}" for key in chosen)
        yield dg.RunRequest(
            run_key=sha256(numbered.encode()).hexdigest()[:24],
            tags={
                **range_tags(first, last),
                jobs.FILES_TAG: str(len(chosen)),
                "turnover/attempt": str(max(attempts[key] for key in chosen)),
            },
        )


def look_for_changes(instance: dg.DagsterInstance, limit: int) -> dg.RunRequest | dg.SkipReason:
    """Whether what landed differs from what is published; a run to mend that, or why there is none."""
    landed = common.latest_metadata(instance, common.LANDED).get("landed_version")
    published = common.latest_metadata(instance, common.PUBLISHED).get("landed_version")
    if landed is None:
        return dg.SkipReason("Nothing has landed yet.")
    if landed == published:
        return dg.SkipReason(f"What landed (version {landed}) is published already.")
    for job in (jobs.INGEST, jobs.REFRESH):
        if running := unfinished_runs(instance, job):
            return dg.SkipReason(f"Waiting for the {job} run {running[0]} to end.")
    filters = dg.RunsFilter(job_name=jobs.REFRESH, tags={jobs.CAUSE_TAG: str(landed)}, statuses=FAILED)
    failures = instance.get_runs_count(filters)
    if failures >= limit:
        return dg.SkipReason(
            f"Gave up on version {landed} after {failures} failed runs; mend the cause (see the newest failed "
            "run), then start the job by hand or land another file."
        )
    return dg.RunRequest(
        run_key=f"{landed}#{failures + 1}",
        tags={jobs.CAUSE_TAG: str(landed), "turnover/attempt": str(failures + 1)},
    )


def unfinished_runs(instance: dg.DagsterInstance, job: str) -> list[str]:
    """Ids of the runs of a job that have not ended, newest first."""
    runs = instance.get_runs(dg.RunsFilter(job_name=job, statuses=UNFINISHED), limit=5)
    return [run.run_id for run in runs]
