"""The platform as processes: `turnover ui` on a home, what it is doing now, and ways to kill it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import dagster as dg
import pandas as pd
import psutil
from dagster._core.scheduler.instigation import InstigatorTick, TickStatus

from turnover_assets.defs.runs import UNFINISHED
from turnover_assets.defs.sensors import LANDING_SENSOR
from turnover_assets.settings import Settings
from turnover_assets.storage.alert_store import AlertStore
from turnover_assets.storage.decision_log import DecisionLog
from turnover_assets.storage.landed_list import list_files
from turnover_assets.storage.snapshots import Snapshot, current
from turnover_assets_tests.factories import free_port
from turnover_assets_tests.waiting import PATIENCE, wait_until

SENSORS = (LANDING_SENSOR, "refresh_sensor", "retrain_sensor")
NOT_IDLE = ("Waiting", "under way", "once more", "Training comes first")
SETTLE_SECONDS = 1200.0  # a training with other work on the machine takes minutes


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
            self._process.wait(PATIENCE)

    def kill(self) -> list[str]:
        """Kill them and whatever they started, at once; the runs that were under way."""
        assert self._process is not None
        parent = psutil.Process(self._process.pid)
        for process in [parent, *parent.children(recursive=True)]:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        self._process.wait(20)
        return self.unfinished()

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
        wait_until(lambda: {*names} <= self.on_record(), landed, seconds=SETTLE_SECONDS)
        wait_until(self._is_idle, f"all is done, see {self._log}", seconds=SETTLE_SECONDS, every=0.5)
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

    def unfinished(self, job: str | None = None) -> list[str]:
        """The runs, of one job or of all, that have not ended by Dagster's records."""
        with self.instance() as instance:
            runs = instance.get_runs(dg.RunsFilter(job_name=job, statuses=UNFINISHED))
        return [run.run_id for run in runs]

    def kill_a_run(self, job: str, since: float) -> str:
        """Wait for a run of a job that began after a moment, and kill its process in the middle; its id."""
        found: list[tuple[str, int]] = []
        wait_until(lambda: found.extend(self._working(job, since)) or found, f"a {job} run works", every=0.5)
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

    def wait_for_tick(
        self,
        sensor: str,
        wanted: Callable[[InstigatorTick], bool],
        what: str,
        missed: Callable[[InstigatorTick], bool],
    ) -> InstigatorTick | None:
        """Wait until the newest look of a sensor is under way and as wanted; None once it was missed."""
        with self.instance() as instance:
            found: list[InstigatorTick] = []

            def looks() -> bool:
                ticks = newest_ticks(instance, sensor, 1)
                found.extend(t for t in ticks if t.status is TickStatus.STARTED and wanted(t))
                return bool(found) or any(missed(tick) for tick in ticks)

            wait_until(looks, what, every=0.002)
        return found[0] if found else None

    def tick(self, sensor: str, tick_id: int) -> InstigatorTick | None:
        """A look of a sensor as it is on record now."""
        with self.instance() as instance:
            return next((t for t in newest_ticks(instance, sensor, None) if t.tick_id == tick_id), None)

    def incident(self, family: str, since: datetime, word: str = "") -> str:
        """The sentence of an incident of a family that was opened since, and whether it ended."""
        for incident in AlertStore(self.settings.incidents_path).incidents(since):
            if incident.family == family and incident.opened_at >= since and word in incident.sentence:
                return incident.sentence + (" (recovered)" if incident.resolved_at else " (open)")
        return ""


def newest_ticks(instance: dg.DagsterInstance, sensor: str, limit: int | None) -> Collection[InstigatorTick]:
    """Looks of a sensor, the newest first; none before its first."""
    for state in instance.all_instigator_state():
        if state.instigator_name == sensor:
            return instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=limit)
    return []
