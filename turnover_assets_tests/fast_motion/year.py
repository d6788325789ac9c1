"""The deliveries of a retailer to a platform, with what is planted in them.

Planted are a bad file, a late one, a restatement, a change of level of all series, a department reported at
double, a killed run, and a daemon that is killed: while a file lands, while a sensor looks, and after it has
asked for a run. What the platform made of it is asked in looks.py.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial

import pandas as pd
from dagster._core.scheduler.instigation import TickStatus

from turnover_assets.defs import jobs
from turnover_assets.defs.sensors import LANDING_SENSOR
from turnover_assets.storage.snapshots import Snapshot
from turnover_assets_tests.fast_motion.platform import Platform
from turnover_assets_tests.waiting import wait_until

LEVEL, DOUBLE, CORRECTION = 1.5, 2.0, 1.2  # factors that are planted
STORE, WEEK, AMOUNT = "but_num_business_unit", "day_id", "turnover"
DEPARTMENT = "dpt_num_department"
KEYS = [STORE, DEPARTMENT, WEEK]
BAD, LATE, CORRECTED = "bad.csv", "late.csv", "correction.csv"


@dataclass(frozen=True)
class Plan:
    """In which week what happens; weeks count from 1, and None is never.

    Attributes:
        weeks: Weeks that are delivered one by one.
        bad: A file with other columns lands beside the week's.
        late: The week's file does not come until two weeks later.
        restated: A file lands that corrects two earlier weeks.
        killed: The refresh of the week's file is killed while it works.
        restarted: The daemon and all its processes are killed while the week's file lands.
        looking: The same while the landing sensor looks for the week's file.
        asking: The same once the landing sensor has asked for a run, before its look has ended.
        drift: From then on all series sell more by a factor.
        doubled: First and last week in which a department is reported at double; week 0 and those before it
            are the end of the history.
        windows: Windows of the backtest; the gate needs several for its evidence.
    """

    weeks: int
    bad: int | None = None
    late: int | None = None
    restated: int | None = None
    killed: int | None = None
    restarted: int | None = None
    looking: int | None = None
    asking: int | None = None
    drift: int | None = None
    doubled: tuple[int, int] | None = None
    windows: int = 1


YEAR = Plan(
    52,
    bad=3,
    late=6,
    restated=10,
    killed=13,
    restarted=16,
    looking=26,
    asking=30,
    drift=20,
    doubled=(34, 46),
    windows=5,
)
WEEKS = Plan(
    6, bad=2, late=1, restated=4, killed=2, restarted=3, looking=4, asking=5, drift=2, doubled=(-6, 6)
)


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


# Asks the records of a platform by what something was noticed, and what was done; None where not yet.
Look = Callable[["Year", Seen, Snapshot], tuple[str, str] | None]


@dataclass
class Year:
    """Deliveries to a platform, and what it made of them.

    Attributes:
        platform: The platform.
        plan: What happens when.
        reported: What the retailer reports in all weeks, before it corrects anything.
        truth: What was reported last for each key, as the cleaned table must have it.
        looks: How to ask for what became of each event.
        told: Called with news.
        seen: What was planted so far, by event.
        held: Weeks whose file comes later.
        killed: Runs that were under way when something was killed, by event.
        ticks: The look in the middle of which the daemon was killed, by event.
        seconds: How long each delivery took until all was done.
    """

    platform: Platform
    plan: Plan
    reported: pd.DataFrame
    truth: pd.DataFrame
    looks: Mapping[str, Look]
    told: Callable[[str], None]
    seen: dict[str, Seen] = field(default_factory=dict)
    held: list[int] = field(default_factory=list)
    killed: dict[str, list[str]] = field(default_factory=dict)
    ticks: dict[str, int] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)

    @property
    def weeks(self) -> list[str]:
        """The weeks that are delivered."""
        return weeks_of(self.reported, self.plan)

    def run(self) -> None:
        """Deliver all weeks, and look after each at what the platform noticed."""
        for number in range(1, self.plan.weeks + 1):
            began = time.monotonic()
            names = self._deliver(number)
            self._disturb(number)
            snapshot = self.platform.settle(*names)
            self.seconds.append(time.monotonic() - began)
            self._look(number, snapshot)
            self.told(f"week {number}: {snapshot.name}, {self.seconds[-1]:.0f} s")

    def _deliver(self, number: int) -> list[str]:
        """Drop the files of a week; their names."""
        files: dict[str, pd.DataFrame] = {}
        if self.plan.drift and number >= self.plan.drift:
            self._plant("drift", self.plan.drift)
        if self.plan.doubled and number >= self.plan.doubled[0]:
            self._plant("doubled department", self.plan.doubled[0])
        if number == self.plan.late:
            self.held.append(number)
            self._plant("late file", number)
        else:
            files[week_file(number)] = self._rows_of(number)
        if self.held and number == self.held[0] + 2:
            files[LATE] = self._rows_of(self.held.pop())
        if number == self.plan.restated:
            self._plant("restatement", number)
            earlier = pd.concat([self._rows_of(number - 1), self._rows_of(number - 2)])
            corrected = (earlier[AMOUNT] * CORRECTION).round(2)
            files[CORRECTED] = earlier.assign(**{AMOUNT: corrected})
        for name, frame in files.items():
            self._note(frame)
            self.platform.drop(name, frame.to_csv(index=False))
        if number == self.plan.bad:
            self._plant("bad file", number)
            self.platform.drop(BAD, "shop;amount\n12;3,5\n")
            files[BAD] = pd.DataFrame()
        return list(files)

    def _rows_of(self, number: int) -> pd.DataFrame:
        """The rows of a week as the retailer reports them."""
        return self.reported[self.reported[WEEK] == self.weeks[number - 1]]

    def _note(self, frame: pd.DataFrame) -> None:
        """What was reported last counts."""
        self.truth = pd.concat([self.truth, frame]).drop_duplicates(KEYS, keep="last")

    def _plant(self, event: str, week: int) -> None:
        self.seen.setdefault(event, Seen(event, week, datetime.now(UTC)))

    def _disturb(self, number: int) -> None:
        """Kill what is to be killed in a week."""
        if number == self.plan.killed:
            self._plant("killed run", number)
            self.killed["killed run"] = [self.platform.kill_a_run(jobs.REFRESH, time.time() - 1.0)]
        if number == self.plan.restarted:
            self._plant("killed daemon", number)
            landing = partial(self.platform.unfinished, jobs.INGEST)
            wait_until(landing, "the file begins to land", every=0.02)
            self._restart("killed daemon")
        for event, week in (("killed look", self.plan.looking), ("killed request", self.plan.asking)):
            if number == week:
                self._kill_in_a_look(event, number)

    def _kill_in_a_look(self, event: str, number: int) -> None:
        """Kill the daemon while the landing sensor looks, or once it has asked for a run in that look.

        Where the look was over sooner, the next one is killed; of requests there is one a week.
        """
        self._plant(event, number)
        since, asked = self.seen[event].at.timestamp(), event == "killed request"
        while True:
            tick = self.platform.wait_for_tick(
                LANDING_SENSOR,
                lambda tick: (
                    tick.timestamp > since and bool(list(tick.reserved_run_ids_with_requests)) is asked
                ),
                f"the landing sensor {'asks' if asked else 'looks'}",
                lambda tick: asked and tick.timestamp > since and tick.status is TickStatus.SUCCESS,
            )
            if tick:
                self.killed.setdefault(event, []).extend(self.platform.kill())
                left = self.platform.tick(LANDING_SENSOR, tick.tick_id)
                self.platform.start()
                if left and left.status is TickStatus.STARTED:
                    self.ticks[event] = left.tick_id
                    return
            if asked:
                self.plan = replace(self.plan, asking=number + 1)
                del self.seen[event]
                return

    def _restart(self, event: str) -> None:
        """Kill the platform and start it again."""
        self.killed[event] = self.platform.kill()
        self.platform.start()

    def _look(self, number: int, snapshot: Snapshot) -> None:
        """Ask the platform's records for what was planted and not noticed yet."""
        for event, seen in self.seen.items():
            if seen.noticed:
                continue
            if found := self.looks[event](self, seen, snapshot):
                seen.noticed, seen.done = found
                later = number - seen.week
                seen.after = f"{later} week(s)" if later else f"{self.seconds[-1]:.0f} s, the same week"


def week_file(number: int) -> str:
    """Name of the file of a week."""
    return f"week-{number:02}.csv"


def weeks_of(turnover: pd.DataFrame, plan: Plan) -> list[str]:
    """The last weeks of a history, which a plan delivers."""
    return sorted(turnover[WEEK].unique())[-plan.weeks :]


def as_reported(turnover: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    """What a retailer reports of what it sold, with the planned drift and the planned doubling."""
    weeks = sorted(turnover[WEEK].unique())
    number = turnover[WEEK].map({week: i - len(weeks) + plan.weeks + 1 for i, week in enumerate(weeks)})
    factor = pd.Series(1.0, turnover.index)
    if plan.drift:
        factor[number >= plan.drift] *= LEVEL
    if plan.doubled:
        factor[number.between(*plan.doubled) & (turnover[DEPARTMENT] == doubled_department(turnover))] *= (
            DOUBLE
        )
    return turnover.assign(**{AMOUNT: (turnover[AMOUNT] * factor).round(2)})


def doubled_department(turnover: pd.DataFrame) -> int:
    """The department that a plan doubles."""
    return int(turnover[DEPARTMENT].max())
