"""What automation costs beyond the work itself: a week's file from its landing to published forecasts.

What belongs here: every look of every sensor until all is done, and what Dagster adds around the steps of the
runs that they ask for, in one process, as a share of the steps; and what looks cost while nothing happens.
What does not: starting processes, which depends on the launcher (benchmarks/year.py has it in it), and the
steps (case_study_run.py).

The aim is 5 s for a week.
"""

import argparse
import statistics
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg

from turnover_assets.definitions import build_definitions
from turnover_assets.runner import bring_up_to_date
from turnover_assets.settings import Settings
from turnover_assets_tests.factories import BASELINES_ONLY, land_retailer, next_week, quiet

AIM_SECONDS = 5.0
WEEK_SECONDS = 7 * 24 * 3600
ROUNDS = 12  # more than a week's file needs
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass
class Costs:
    """Seconds: of looks by sensor, of steps, and of runs as a whole."""

    looks: dict[str, list[float]] = field(default_factory=dict)
    steps: float = 0.0
    runs: float = 0.0
    jobs: list[str] = field(default_factory=list)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weeks", type=int, default=3, help="weekly files; the median counts")
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as root:
        home = land_retailer(Path(root), BASELINES_ONLY)
        settings = home.settings
        bring_up_to_date(settings, home.folder, quiet)
        sensors = Sensors(settings)
        sensors.until_idle(Costs())
        weeks = []
        for week in range(1, chosen.weeks + 1):
            (settings.landing_path / f"week-{week}.csv").write_text(next_week(home, ahead=week))
            weeks.append(Costs())
            sensors.until_idle(weeks[-1])
        return account(weeks, sensors.idle(), settings)


class Sensors:
    """Looks of all sensors in turn, and the runs that they ask for, as the daemon does it."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._definitions = settings, build_definitions(settings)
        self._cursors: dict[str, str | None] = {}

    def until_idle(self, costs: Costs) -> None:
        """Look until nobody asks for anything any more, and a file could have held still meanwhile."""
        quiet_rounds = 0
        for _ in range(ROUNDS):
            quiet_rounds = 0 if self._round(costs) else quiet_rounds + 1
            if quiet_rounds == 3:
                return
        raise RuntimeError(f"after {ROUNDS} rounds there are still runs to make: {costs.jobs}")

    def idle(self) -> float:
        """Seconds of a round of looks in which nothing happens (median of five)."""
        rounds = []
        for _ in range(5):
            costs = Costs()
            self._round(costs)
            rounds.append(sum(map(sum, costs.looks.values())))
        return statistics.median(rounds)

    def _round(self, costs: Costs) -> bool:
        """One look of each sensor; whether a run was made."""
        made = False
        with dg.DagsterInstance.from_config(str(self._settings.dagster_path)) as instance:
            for sensor in self._definitions.sensors or []:
                assert isinstance(sensor, dg.SensorDefinition)
                context = dg.build_sensor_context(
                    instance, self._cursors.get(sensor.name), definitions=self._definitions
                )
                began = time.perf_counter()
                tick = sensor.evaluate_tick(context)
                costs.looks.setdefault(sensor.name, []).append(time.perf_counter() - began)
                self._cursors[sensor.name] = tick.cursor or self._cursors.get(sensor.name)
                for asked in tick.dynamic_partitions_requests or []:
                    instance.add_dynamic_partitions(asked.partitions_def_name, asked.partition_keys)
                for request in tick.run_requests or []:
                    self._run(instance, str(sensor.job_name), request, costs)
                    made = True
        return made

    def _run(self, instance: dg.DagsterInstance, job: str, request: dg.RunRequest, costs: Costs) -> None:
        began = time.perf_counter()
        result = self._definitions.resolve_job_def(job).execute_in_process(
            instance=instance, tags=request.tags, run_config=QUIET
        )
        costs.runs += time.perf_counter() - began
        ends = [e for e in result.all_events if e.event_type is dg.DagsterEventType.STEP_SUCCESS]
        costs.steps += sum(event.step_success_data.duration_ms for event in ends) / 1000
        costs.jobs.append(job)


def account(weeks: list[Costs], idle: float, settings: Settings) -> int:
    """Print the figures; 1 where the aim is missed."""
    beyond = []
    print("| week | runs | looks | seconds of looks | steps, s | Dagster around them, s | automation, s |")
    print("|---|---|---|---|---|---|---|")
    for number, costs in enumerate(weeks, 1):
        looks = sum(map(sum, costs.looks.values()))
        around = costs.runs - costs.steps
        beyond.append(looks + around)
        print(
            f"| {number} | {', '.join(costs.jobs)} | {sum(map(len, costs.looks.values()))} | {looks:.2f} "
            f"| {costs.steps:.1f} | {around:.2f} | {looks + around:.2f} |"
        )
    found = statistics.median(beyond)
    every = settings.sensor_interval_seconds
    print(
        f"\nAutomation of a week: {found:.2f} s beyond the assets' own work (median; aim {AIM_SECONDS:g} s)."
    )
    print(
        f"A round of looks in which nothing happens: {idle * 1000:.0f} ms; every {every} s all week that is "
        f"{idle / every:.2%} of a core, {idle * WEEK_SECONDS / every:.0f} s."
    )
    return 1 if found > AIM_SECONDS else 0


if __name__ == "__main__":
    sys.exit(main())
