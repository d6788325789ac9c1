"""A year in fast motion: a synthetic retailer's weekly files land one by one under the real daemon.

What belongs here: the platform as processes, the deliveries with what is planted in them, and the questions
that are asked afterwards; for test_daemon.py (a few weeks) and benchmarks/year.py (a year). The product knows
nothing of it.

Planted are a bad file, a late one, a restatement, a change of level of all series, a department reported at
double, a killed run and a killed daemon. Everything is asked of what the platform itself has on record.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import psutil

from turnover_assets.core.synthetic import Retailer, make_retailer
from turnover_assets.defs import jobs
from turnover_assets.defs.partitions import name_of
from turnover_assets.defs.runs import UNFINISHED
from turnover_assets.runner import bring_up_to_date
from turnover_assets.settings import Settings
from turnover_assets.storage.alert_store import AlertStore
from turnover_assets.storage.decision_log import DecisionLog
from turnover_assets.storage.landed_list import list_files
from turnover_assets.storage.model_versions import ModelVersionFacts
from turnover_assets.storage.registry import ModelRegistry
from turnover_assets.storage.snapshots import Snapshot, current
from turnover_assets_tests.factories import BASELINES_ONLY, free_port, quiet, settings_for

STORES, DEPARTMENTS, HISTORY = 8, 3, 110
SENSORS = ("landing_sensor", "refresh_sensor", "retrain_sensor")
NOT_IDLE = ("Waiting", "under way", "once more", "Training comes first")
SETTLE_SECONDS = 900.0  # a training with other work on the machine takes minutes
LEVEL, DOUBLE, CORRECTION = 1.5, 2.0, 1.2  # factors that are planted
STORE, WEEK, AMOUNT = "but_num_business_unit", "day_id", "turnover"
DEPARTMENT = "dpt_num_department"
KEYS = [STORE, DEPARTMENT, WEEK]


@dataclass(frozen=True)
class Plan:
    """In which week what happens; weeks count from 1, and None is never.

    Attributes:
        weeks: Weekly files that land.
        bad: A file with other columns lands beside the week's.
        late: The week's file does not come until two weeks later.
        restated: A file lands that corrects two earlier weeks.
        killed: The refresh of the week's file is killed while it works.
        restarted: The daemon and all its processes are killed while the week's file lands.
        drift: From then on all series sell more by a factor.
        doubled: First and last week in which a department is reported at double.
        windows: Windows of the backtest; the gate needs several for its evidence.
    """

    weeks: int
    bad: int | None = None
    late: int | None = None
    restated: int | None = None
    killed: int | None = None
    restarted: int | None = None
    drift: int | None = None
    doubled: tuple[int, int] | None = None
    windows: int = 1


YEAR = Plan(52, bad=3, late=6, restated=10, killed=13, restarted=16, drift=20, doubled=(34, 46), windows=5)
WEEKS = Plan(6, bad=1, late=2, restated=3, killed=4, restarted=6)


@dataclass
class Seen:
    """What became of something planted.

    Attributes:
        event: What was planted.
        week: In which week.
        at: When.
        noticed: By what it was noticed; empty where it was not.
        after: How much later.
        done: What was done.
    """

    event: str
    week: int
    at: datetime
    noticed: str = ""
    after: str = ""
    done: str = ""


class Platform:
    """A home with `turnover ui`, and what it says of itself."""

    def __init__(self, settings: Settings, log: Path) -> None:
        self.settings, self._log = settings, log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start page and daemon."""
        environment = {**os.environ, **self.settings.environment()}
        command = [sys.executable, "-m", "turnover_assets.cli", "ui", "--port", str(free_port())]
        with self._log.open("ab") as stream:
            self._process = subprocess.Popen(
                command, env=environment, stdout=stream, stderr=stream, start_new_session=True
            )

    def stop(self) -> None:
        """End them as Ctrl-C does."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(60)

    def kill(self) -> None:
        """Kill them and whatever they started, at once."""
        assert self._process is not None
        parent = psutil.Process(self._process.pid)
        for process in [parent, *parent.children(recursive=True)]:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        self._process.wait(20)

    @contextmanager
    def instance(self) -> Iterator[dg.DagsterInstance]:
        """Dagster's records of the home."""
        with dg.DagsterInstance.from_config(str(self.settings.dagster_path)) as instance:
            yield instance

    def drop(self, name: str, content: str) -> None:
        """Let a file appear in the landing folder, in one step."""
        hidden = self.settings.landing_path / f".{name}"
        hidden.write_text(content)
        hidden.rename(self.settings.landing_path / name)

    def settle(self, *names: str) -> Snapshot:
        """Wait until files are on record, what follows is done, and no sensor has anything to do."""
        landed = f"{names} are on record, see {self._log}"
        wait_until(lambda: {*names} <= self.on_record(), SETTLE_SECONDS, landed)
        wait_until(self._is_idle, SETTLE_SECONDS, f"all is done, see {self._log}")
        return current(self.settings.published_path)

    def on_record(self) -> set[str]:
        """Names of the files that landed or were refused."""
        return {*list_files(self.settings.home)["name"]}

    def _is_idle(self) -> bool:
        with self.instance() as instance:
            if instance.get_runs_count(dg.RunsFilter(statuses=UNFINISHED)):
                return False
            (newest,) = instance.get_run_records(limit=1)
        since = pd.Timestamp(newest.end_time or time.time(), unit="s", tz="UTC")
        log = DecisionLog(self.settings.decisions_path)
        told = [log.read(name, newest=1) for name in SENSORS]
        return all(
            len(row) == 1
            and row["outcome"].iloc[0] == "skipped"
            and row["last_at"].iloc[0] > since
            and not any(word in row["reason"].iloc[0] for word in NOT_IDLE)
            for row in told
        )

    def kill_a_run(self, job: str, since: float) -> str:
        """Wait for a run of a job that began after a moment, and kill its process in the middle; its id."""
        found: list[tuple[str, int]] = []
        wait_until(lambda: bool(found.extend(self._working(job, since)) or found), 120, f"a {job} run works")
        run_id, process = found[0]
        psutil.Process(process).kill()
        return run_id

    def _working(self, job: str, since: float) -> list[tuple[str, int]]:
        """Runs of a job that are at work, each with its process."""
        with self.instance() as instance:
            started = dg.RunsFilter(job_name=job, statuses=[dg.DagsterRunStatus.STARTED])
            records = instance.get_run_records(started, limit=1)
            runs = [record.dagster_run.run_id for record in records if (record.start_time or 0) > since]
            return [
                (run_id, event.dagster_event.pid)
                for run_id in runs
                for event in instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_SUCCESS)[-1:]
                if event.dagster_event is not None and event.dagster_event.pid is not None
            ]

    def is_landing(self, names: Collection[str]) -> bool:
        """Whether a file is about to land, or has just landed."""
        with self.instance() as instance:
            under_way = instance.get_runs_count(dg.RunsFilter(job_name=jobs.INGEST, statuses=UNFINISHED))
        return bool(under_way) or bool({*names} & self.on_record())

    def incident(self, family: str, since: datetime, word: str = "") -> str:
        """The sentence of an incident of a family that was opened since, and whether it ended."""
        for incident in AlertStore(self.settings.incidents_path).incidents(since):
            if incident.family == family and incident.opened_at >= since and word in incident.sentence:
                return incident.sentence + (" (recovered)" if incident.resolved_at else " (open)")
        return ""


@dataclass
class Year:
    """Deliveries to a platform, and what it made of them.

    Attributes:
        platform: The platform.
        plan: What happens when.
        retailer: What was really sold.
        truth: What was reported last for each key, as the cleaned table must have it.
        seen: What was planted so far, by event.
        told: Called with news.
    """

    platform: Platform
    plan: Plan
    retailer: Retailer
    truth: pd.DataFrame
    seen: dict[str, Seen] = field(default_factory=dict)
    told: Callable[[str], None] = lambda _: None
    held: list[int] = field(default_factory=list)
    killed_run: str = ""
    seconds: list[float] = field(default_factory=list)

    @property
    def weeks(self) -> list[str]:
        """The weeks that are delivered one by one."""
        return sorted(self.retailer.turnover[WEEK].unique())[-self.plan.weeks :]

    def run(self) -> None:
        """Deliver all weeks, and look after each at what the platform noticed."""
        for number in range(1, self.plan.weeks + 1):
            began = time.monotonic()
            names = self._deliver(number)
            self._disturb(number, names)
            snapshot = self.platform.settle(*names)
            self.seconds.append(time.monotonic() - began)
            self._look(number, snapshot)
            self.told(f"week {number}: {snapshot.name}, {self.seconds[-1]:.0f} s")

    def _deliver(self, number: int) -> list[str]:
        """Drop the files of a week; their names."""
        files: dict[str, pd.DataFrame] = {}
        if number == self.plan.late:
            self.held.append(number)
            self._plant("late file", number)
        else:
            files[f"week-{number:02}.csv"] = self._reported(number)
        if self.held and number == self.held[0] + 2:
            late = self.held.pop()
            files[f"week-{late:02}-late.csv"] = self._reported(late)
        if number == self.plan.restated:
            self._plant("restatement", number)
            earlier = pd.concat([self._reported(number - 1), self._reported(number - 2)])
            corrected = (earlier[AMOUNT] * CORRECTION).round(2)
            files[f"correction-{number:02}.csv"] = earlier.assign(**{AMOUNT: corrected})
        for name, frame in files.items():
            self._note(frame)
            self.platform.drop(name, frame.to_csv(index=False))
        if number == self.plan.bad:
            self._plant("bad file", number)
            self.platform.drop("bad.csv", "shop;amount\n12;3,5\n")
            files["bad.csv"] = pd.DataFrame()
        return list(files)

    def _reported(self, number: int) -> pd.DataFrame:
        """The rows of a week as the retailer reports them."""
        rows = self.retailer.turnover
        rows = rows[rows[WEEK] == self.weeks[number - 1]].copy()
        if self.plan.drift and number >= self.plan.drift:
            self._plant("drift", self.plan.drift)
            rows[AMOUNT] = (rows[AMOUNT] * LEVEL).round(2)
        if self.plan.doubled and self.plan.doubled[0] <= number <= self.plan.doubled[1]:
            self._plant("doubled department", self.plan.doubled[0])
            double = rows[DEPARTMENT] == rows[DEPARTMENT].max()
            rows.loc[double, AMOUNT] = (rows.loc[double, AMOUNT] * DOUBLE).round(2)
        return rows

    def _note(self, frame: pd.DataFrame) -> None:
        """What was reported last counts."""
        self.truth = pd.concat([self.truth, frame]).drop_duplicates(KEYS, keep="last")

    def _plant(self, event: str, week: int) -> None:
        self.seen.setdefault(event, Seen(event, week, datetime.now(UTC)))

    def _disturb(self, number: int, names: list[str]) -> None:
        """Kill what is to be killed in a week."""
        if number == self.plan.killed:
            self._plant("killed run", number)
            self.killed_run = self.platform.kill_a_run(jobs.REFRESH, time.time() - 1.0)
        if number == self.plan.restarted:
            self._plant("killed daemon", number)
            wait_until(lambda: self.platform.is_landing(names), 120, "the file begins to land")
            self.platform.kill()
            self.platform.start()

    def _look(self, number: int, snapshot: Snapshot) -> None:
        """Ask the platform's records for what was planted and not noticed yet."""
        for event, look in LOOKS.items():
            seen = self.seen.get(event)
            if seen is None or seen.noticed:
                continue
            if found := look(self, seen.at, snapshot):
                seen.noticed, seen.done = found
                later = number - seen.week
                seen.after = f"{later} week(s)" if later else f"{self.seconds[-1]:.0f} s, the same week"

    def versions(self) -> list[ModelVersionFacts]:
        """Every model that was trained, and what the gate said of it."""
        return ModelRegistry.of(self.platform.settings).versions()

    def totals(self) -> pd.DataFrame:
        """The measures of the total by cutoff, as they are published."""
        table = current(self.platform.settings.published_path).read("measures")
        total = table[table["level"] == "total"]
        return total.pivot_table(index="cutoff", columns="measure", values="value", observed=True)

    # What was lost, doubled, or done more often than once ----------------------------------------

    def lost(self) -> int:
        """Rows whose reported value is not the one that was reported last, or that are not there."""
        found = current(self.platform.settings.published_path).read("turnover")
        found = found.assign(week=found["week"].astype(str)).rename(
            columns={"store": STORE, "department": DEPARTMENT, "week": WEEK}
        )
        both = self.truth.merge(found, on=KEYS, how="left", suffixes=("_true", ""))
        return int(((both[f"{AMOUNT}_true"] - both[AMOUNT]).abs() > 0.005).sum() + both[AMOUNT].isna().sum())

    def doubled(self) -> int:
        """Rows more than there are keys that were reported, and files that are on record twice."""
        snapshot = current(self.platform.settings.published_path)
        files = snapshot.read("files")["name"]
        return len(snapshot.read("turnover")) - len(self.truth) + len(files) - files.nunique()

    def runs_by_cause(self) -> Mapping[tuple[str, str], list[str]]:
        """How the automatic runs of each job ended, by what they were made for, oldest first."""
        found: dict[tuple[str, str], list[str]] = {}
        with self.platform.instance() as instance:
            for run in reversed(instance.get_runs()):
                if "dagster/sensor_name" in run.tags:
                    found.setdefault((run.job_name, cause_of(run.tags)), []).append(run.status.value)
        return found

    def repeated_runs(self) -> list[str]:
        """Causes for which more than one run ended well."""
        problems = []
        for (job, cause), ends in self.runs_by_cause().items():
            well = ends.count("SUCCESS")
            if well > 1:
                problems.append(f"{job} for {cause}: {well} runs")
        return problems


def cause_of(tags: Mapping[str, str]) -> str:
    """What an automatic run was made for."""
    names = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end", jobs.CAUSE_TAG)
    told = [tags.get(name, "") for name in (*names, jobs.MADE_WITH_TAG, jobs.TRAINING_TAG)]
    return " ".join(name_of(text) if "@" in text else text for text in told if text)


# Gives by what something was noticed, and what was done.
Look = Callable[[Year, datetime, Snapshot], tuple[str, str] | None]


def _bad_file(year: Year, since: datetime, _: Snapshot) -> tuple[str, str] | None:
    told = year.platform.incident("file_refused", since, "bad.csv")
    return (f"alert: {told}", "refused; the week's file landed and was forecast") if told else None


def _late_file(year: Year, _: datetime, snapshot: Snapshot) -> tuple[str, str] | None:
    files = snapshot.read("files")
    late = files[files["name"].str.contains("-late")]
    if late.empty:
        return None
    rows = int(late["rows"].iloc[0])
    return (
        f"landing_sensor: {rows} rows of an old week",
        f"history mended, published again as of {snapshot.facts['cutoff']}",
    )


def _restatement(year: Year, _: datetime, snapshot: Snapshot) -> tuple[str, str] | None:
    rows = snapshot.read("restatements")
    rows = rows[rows["new_file"].str.startswith("correction")]
    if rows.empty:
        return None
    return f"table restatements: {len(rows)} values", "old values on record, forecasts made again"


def _drift(_: Year, since: datetime, snapshot: Snapshot) -> tuple[str, str] | None:
    verdicts = snapshot.read("retraining")
    due = verdicts[verdicts["cause"].isin(["accuracy", "bias", "drift"]) & (verdicts["decided_at"] >= since)]
    return (f"policy: {due['sentence'].iloc[0]}", "trained; see the models") if len(due) else None


def _doubled(year: Year, _: datetime, snapshot: Snapshot) -> tuple[str, str] | None:
    table = snapshot.read("adjustments")
    member = {"department": int(year.retailer.turnover[DEPARTMENT].max())}
    mine = table[
        (table["status"] == "applied") & table["members"].map(lambda text: json.loads(text) == member)
    ]
    if mine.empty:
        return None
    row = mine.iloc[0]
    return f"finding: {row['selector']} since {row['since']}", f"divided by {row['factor']:.2f}, on record"


def _killed_run(year: Year, since: datetime, _: Snapshot) -> tuple[str, str] | None:
    with year.platform.instance() as instance:
        run = instance.get_run_by_id(year.killed_run)
    told = year.platform.incident("run_failed", since)
    if run is None or run.status is not dg.DagsterRunStatus.FAILURE or not told:
        return None
    return f"alert: {told}", "marked failed, tried again, published"


def _killed_daemon(year: Year, _: datetime, snapshot: Snapshot) -> tuple[str, str] | None:
    number = year.plan.restarted or 0
    known = snapshot.read("files")["name"].tolist()
    name = f"week-{number:02}.csv"
    return (
        ("daemon: runs left behind are closed", "landed once, published") if known.count(name) == 1 else None
    )


LOOKS: Mapping[str, Look] = {
    "bad file": _bad_file,
    "late file": _late_file,
    "restatement": _restatement,
    "killed run": _killed_run,
    "killed daemon": _killed_daemon,
    "drift": _drift,
    "doubled department": _doubled,
}


@contextmanager
def fast_motion(root: Path, plan: Plan, told: Callable[[str], None], **others: Any) -> Iterator[Year]:
    """A home with its history published and the daemon running, ready for the weeks of a plan.

    Args:
        root: An empty folder.
        plan: What happens when.
        told: Called with news.
        others: Settings other than those of quick runs.
    """
    settings = settings_for(
        root / "var",
        others.pop("training_share", BASELINES_ONLY),
        **{"backtest_windows": plan.windows, **others},
    )
    retailer = make_retailer(stores=STORES, departments=DEPARTMENTS, weeks=HISTORY + plan.weeks, seed=5)
    rows = retailer.turnover
    coming = sorted(rows[WEEK].unique())[-plan.weeks :]
    history = rows[~rows[WEEK].isin(coming)]
    settings.landing_path.mkdir(parents=True)
    history.to_csv(settings.landing_path / "history.csv", index=False)
    retailer.stores.to_csv(settings.landing_path / "stores.csv", index=False)
    bring_up_to_date(settings, settings.landing_path, quiet)
    platform = Platform(settings, root / "ui.log")
    platform.start()
    try:
        yield Year(platform, plan, retailer, history[[*KEYS, AMOUNT]], told=told)
    finally:
        platform.stop()


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait for something, at most so long.

    Raises:
        TimeoutError: It did not come.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:.0f} s until {what}")
        time.sleep(0.5)
