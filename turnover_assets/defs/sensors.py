"""The landing sensor: lands new files.

What belongs here: the sensor, and the pure functions that decide for it. What does not: the work, and the
sensors that forecast and train (training_sensors.py).

A sensor never works itself: it looks, decides, and says why, also where it does nothing. Run keys are
remembered by Dagster for ever, so each carries the number of its attempt, and attempts are bounded.
"""

import json
import logging
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

import dagster as dg

from turnover_assets.defs import common, jobs, training_sensors
from turnover_assets.defs.decisions import recorded
from turnover_assets.defs.partitions import LANDED_FILES, digest_of, name_of, range_tags, ranges
from turnover_assets.defs.runs import unfinished_runs
from turnover_assets.errors import TurnoverError
from turnover_assets.settings import Settings
from turnover_assets.storage.home_panel import check_panel
from turnover_assets.storage.landed_objects import fetch_objects
from turnover_assets.storage.landing_folder import LandedFile, list_folder, readable_name, scan
from turnover_assets.storage.reader import fingerprint

LANDING_SENSOR = "landing_sensor"
NAMES_SHOWN = 5
FETCH_SECONDS = 20.0  # after which a look begins to copy no further object: a tick has a minute
LONGEST_READING = 20.0  # seconds after which a look reads no further file
PARTS = 8  # runs that files are shared among which were tried before
log = logging.getLogger(__name__)
Stamp = tuple[int, int]  # size in bytes, time of last change in nanoseconds


@dataclass(frozen=True)
class LandingState:
    """What the landing sensor remembers between two looks.

    Attributes:
        seen: Size and time at the last look of each file that was not read yet, by name.
        handled: Size and time of each file that was read, and the partition key of its content, by name.
        attempts: Runs asked for so far, by key of a partition that has not landed.
        salt: Part of every run key, so that a sensor whose cursor was reset may ask once more.
    """

    seen: Mapping[str, Stamp] = field(default_factory=dict)
    handled: Mapping[str, tuple[Stamp, str]] = field(default_factory=dict)
    attempts: Mapping[str, int] = field(default_factory=dict)
    salt: str = field(default_factory=lambda: uuid4().hex[:8])

    @classmethod
    def from_cursor(cls, cursor: str | None) -> "LandingState":
        """Read a cursor; an unreadable one counts as none, since landing twice does no harm."""
        try:
            data = json.loads(cursor or "")
            return cls(
                {name: _stamp(stamp) for name, stamp in data["seen"].items()},
                {name: (_stamp(stamp), str(key)) for name, (stamp, key) in data["handled"].items()},
                {key: int(n) for key, n in data["attempts"].items()},
                str(data["salt"]),
            )
        except (ValueError, TypeError, AttributeError, KeyError):
            return cls()

    def to_cursor(self) -> str:
        """The state as a cursor."""
        return json.dumps(asdict(self))

    def unchanged(self, now: Mapping[str, Stamp]) -> dict[str, tuple[Stamp, str]]:
        """The files that were read and are still as they were."""
        return {name: known for name, known in self.handled.items() if now.get(name) == known[0]}


def _stamp(values: Sequence[int]) -> Stamp:
    size, time = values
    return int(size), int(time)


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
    """Names of the files that did not change since the last look and were not read yet, in order."""
    return sorted(name for name, stamp in now.items() if state.seen.get(name) == stamp)


def contents_to_land(here: Iterable[str], partitions: Iterable[str]) -> list[str]:
    """Partition keys of files whose content has no partition yet, one for each content."""
    known = {digest_of(key) for key in partitions}
    new: dict[str, str] = {}
    for key in here:
        if digest_of(key) not in known:
            new.setdefault(digest_of(key), key)
    return list(new.values())


def pending_partitions(
    partitions: Iterable[str], landed: Iterable[str], attempts: Mapping[str, int], limit: int
) -> list[str]:
    """Partitions that have not landed and may be tried once more, in their order."""
    done = set(landed)
    return [key for key in partitions if key not in done and attempts.get(key, 0) < limit]


def build(settings: Settings) -> list[dg.SensorDefinition]:
    """All sensors, switched on."""

    @dg.sensor(
        name=LANDING_SENSOR,
        job_name=jobs.INGEST,
        minimum_interval_seconds=settings.sensor_interval_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Lands a file once it has held still for two looks at the landing folder.",
    )
    def landing_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        return recorded(
            settings, LANDING_SENSOR, lambda: look_for_files(context.instance, context.cursor, settings)
        )

    return [landing_sensor, *training_sensors.build(settings)]


def look_for_files(
    instance: dg.DagsterInstance, cursor: str | None, settings: Settings
) -> dg.SensorResult | dg.SkipReason:
    """One look at the landing folder: which files to land now, or why none.

    Only partitions whose file is in the folder now are asked for: `turnover run --landing` makes some of
    files elsewhere, which no run of this sensor could find.
    """
    state = LandingState.from_cursor(cursor)
    folder = settings.landing_path
    if running := unfinished_runs(instance, jobs.INGEST):
        return dg.SkipReason(f"An ingestion is under way (run {running[0]}); its files come first.")
    away = _fetch(settings)  # files that are in the folder land all the same
    try:
        now = stamps(folder)
        check_panel(settings, lambda: scan(folder, settings.fingerprints_path))
    except TurnoverError as error:
        return dg.SkipReason(str(error))  # the cursor stays: a folder that cannot be read is not empty
    ready = held_still(now, state)
    read, tried = read_files(folder, ready, now)
    handled = state.unchanged(now) | read
    here = [key for _, key in handled.values()]
    partitions = instance.get_dynamic_partitions(LANDED_FILES.name or "")
    landed = instance.get_materialized_partitions(common.LANDED)
    new = contents_to_land(here, [key for key in partitions if key in landed or key in here])
    order = [*partitions, *new]
    open_keys = [key for key in order if key in here and key not in landed]
    wanted = pending_partitions(open_keys, landed, state.attempts, settings.sensor_attempts)
    attempts = {key: n for key, n in state.attempts.items() if key not in landed}
    attempts |= {key: attempts.get(key, 0) + 1 for key in wanted}
    seen = {name: stamp for name, stamp in now.items() if name not in handled}
    after = LandingState(seen, handled, attempts, state.salt)
    return dg.SensorResult(
        run_requests=(requests := ingest_requests(order, wanted, after)),
        skip_reason=None if requests else f"{away} {_why_none(after, ready, tried, open_keys)}".strip(),
        cursor=after.to_cursor(),
        dynamic_partitions_requests=[LANDED_FILES.build_add_request(new)] if new else [],
    )


def read_files(
    folder: Path, names: Sequence[str], now: Mapping[str, Stamp]
) -> tuple[dict[str, tuple[Stamp, str]], int]:
    """Stamp and partition key of files by name, and how many it came to before its time was over.

    Those that cannot be read now are left out; those that it did not come to, the next look reads.
    """
    read: dict[str, tuple[Stamp, str]] = {}
    until = time.monotonic() + LONGEST_READING
    for tried, name in enumerate(names):
        if read and time.monotonic() > until:
            return read, tried
        try:
            path = folder / name
            file = LandedFile(path, readable_name(path, folder), fingerprint(path))
        except TurnoverError:
            continue
        read[name] = now[name], file.partition_key
    return read, len(names)


def ingest_requests(order: Sequence[str], wanted: Sequence[str], state: LandingState) -> list[dg.RunRequest]:
    """One run for each unbroken run of wanted partitions; a few for those that were tried before.

    What ended a run may have been one of its files, and the others are not to share its fate again.
    """
    tried = [key for key in wanted if state.attempts[key] > 1]
    fresh = [key for key in wanted if state.attempts[key] == 1]
    few = math.ceil(len(tried) / PARTS)
    requests = []
    for chosen in (*_unbroken(fresh, order, len(order)), *_unbroken(tried, order, few)):
        first, last = chosen[0], chosen[-1]
        numbered = "\n".join([state.salt, *(f"{key}#{state.attempts[key]}" for key in chosen)])
        tags = {
            **range_tags(first, last),
            jobs.FILES_TAG: str(len(chosen)),
            jobs.ATTEMPT_TAG: str(max(state.attempts[key] for key in chosen)),
        }
        requests.append(dg.RunRequest(sha256(numbered.encode()).hexdigest()[:24], tags=tags))
    return requests


def _unbroken(keys: Sequence[str], order: Sequence[str], most: int) -> Iterator[Sequence[str]]:
    """Each unbroken run of keys in the order, at most so many at a time."""
    for first, last in ranges(keys, order):
        chosen = order[order.index(first) : order.index(last) + 1]
        yield from (chosen[start : start + most] for start in range(0, len(chosen), most))


def _fetch(settings: Settings) -> str:
    """Copy new objects of the store into the folder; why that cannot be."""
    try:
        fetch_objects(settings, seconds=FETCH_SECONDS)
    except TurnoverError as error:
        log.warning("%s", error)
        return str(error)
    return ""


def _why_none(state: LandingState, ready: Sequence[str], tried: int, given_up: Sequence[str]) -> str:
    """The reason of a look that asks for no run; it tried to read the first so many of the ready files."""
    unreadable = [name for name in ready[:tried] if name in state.seen]
    late = len(ready) - tried
    waiting = len(state.seen) - len(unreadable) - late
    reasons = [f"{len(state.seen) + len(state.handled)} files, none new"]
    if waiting:
        reasons.append(f"{waiting} to be looked at once more, to see whether they hold still")
    if late:
        reasons.append(f"{late} to be read by the next look, since this one took long")
    if unreadable:
        reasons.append(f"{len(unreadable)} that cannot be read ({', '.join(unreadable[:NAMES_SHOWN])})")
    if given_up:
        names = ", ".join(name_of(key) for key in given_up[:NAMES_SHOWN])
        reasons.append(
            f"gave up on {len(given_up)} after failed runs ({names}): mend the cause (see the newest failed "
            "run), then start the job by hand or use `turnover run`"
        )
    return "; ".join(reasons) + "."
