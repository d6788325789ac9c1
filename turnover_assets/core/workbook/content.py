"""What a workbook is made from: the frames of one member of a level, and where they come from.

What belongs here: the frames and what follows from them for more than one sheet. What does not: sheets.
"""

import re
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cached_property
from hashlib import sha256

import pandas as pd

from turnover_assets.core.aggregates import TOTAL
from turnover_assets.panel import PanelSpec

LAST_YEAR, REPORTED_LAST_YEAR = "last_year", "reported_last_year"
HISTORY_SHOWN = {"week": 52, "day": 91}  # periods before the forecasts that the chart shows
LONGEST_NAME = 80  # characters of a file's name
NAIVE = "seasonal_naive"


@dataclass(frozen=True)
class Origin:
    """Which publishing a workbook is of.

    Attributes:
        snapshot: Id of the snapshot.
        created_at: When it was published, with a time zone.
        cutoff: Label of the last period known.
        candidate: Name of the champion's candidate.
        model_version: The champion's version.
        data_version: Version of the cleaned data.
        code_version: The release that published it.
    """

    snapshot: str
    created_at: datetime
    cutoff: date
    candidate: str
    model_version: int
    data_version: str
    code_version: str


@dataclass(frozen=True)
class Content:
    """One member's frames; amounts are in units of the target, dates are labels of periods.

    Attributes:
        panel: The panel.
        origin: The publishing.
        level: A level of the panel, or `total`.
        member: The member as text; empty for the total.
        forecasts: A row for each series and horizon, by keys and horizon: the keys, levels that are no keys,
            the time column, `horizon`, `forecast`, the bounds, `last_year` (the same period a year ago after
            adjustment, in the scale reported now; NaN where there was none), `reported_last_year`, and
            `sentence` (why; missing where not explained).
        sums: A row for each horizon: the time column, `horizon`, `forecast` and the bounds of the sum.
        history: A row for each period of the two seasons up to the cutoff, of the series that are forecast:
            the time column, `reported`, and `comparable` (after adjustment, in the scale reported now).
        stopped: What no longer reports: a row for each such series with its keys and `reported_last_year` in
            the periods a year before those forecast.
        promised: The champion's and seasonal naive's accuracy in the last backtest: `model` (`champion` or
            `seasonal_naive`), `basis`, `wape`, `bias`, `coverage_80`, `coverage_95`, `rows`.
        tests: The champion's sums in it: `cutoff`, the time column, `horizon`, `forecast`, `actual`.
        live: Accuracy of what was published, for each cutoff, newest first: `cutoff`, `model_version`,
            `periods`, `wape`, `wape_promised`, `wape_seasonal_naive`, `bias`, `coverage_80`.
        outcomes: Published sums beside what was reported, newest first: the time column, `cutoff`,
            `horizon`, `forecast`, `actual`; of each period the newest forecast.
        adjustments: Those that concern it: `status`, `selector`, `since`, `until`, `kind`, `factor`,
            `value`, `reason`, `who`, `rows`.
        checks: Checks that failed when this was published: `asset`, `check_name`, `severity`, `figure`,
            `at_least`, `at_most`.
        missing: Series without a row at the cutoff: the keys, `last_reported`.
        restatements: Reported values that later files changed, newest first: the keys, the time column,
            `old_value`, `new_value`, `new_file`.
    """

    panel: PanelSpec
    origin: Origin
    level: str
    member: str
    forecasts: pd.DataFrame
    sums: pd.DataFrame
    history: pd.DataFrame
    stopped: pd.DataFrame
    promised: pd.DataFrame
    tests: pd.DataFrame
    live: pd.DataFrame
    outcomes: pd.DataFrame
    adjustments: pd.DataFrame
    checks: pd.DataFrame
    missing: pd.DataFrame
    restatements: pd.DataFrame

    @property
    def title(self) -> str:
        """What it is of, in words.

        Example: `Region 65`, or `Total`.
        """
        name = self.level.replace("_", " ").capitalize()
        return name if self.level == TOTAL else f"{name} {self.member}"

    @cached_property
    def periods(self) -> list[date]:
        """Labels of the forecast periods, in order."""
        return [as_date(label) for label in self.sums[self.panel.time]]

    @property
    def a_year_ago(self) -> list[date]:
        """Labels of the periods a season before them."""
        season = timedelta(days=self.panel.frequency.season * self.panel.frequency.days)
        return [period - season for period in self.periods]

    @cached_property
    def texts(self) -> list[str]:
        """Columns that tell series apart: the keys, then levels that are none and have several members."""
        levels = [name for name in self.panel.level_names if name not in self.panel.keys]
        known = [name for name in levels if name in self.forecasts]
        several = [name for name in known if self.forecasts[name].nunique(dropna=False) > 1]
        return [*self.panel.keys, *several]

    @property
    def period_word(self) -> str:
        """`week` or `day`."""
        return self.panel.frequency.every

    @property
    def amounts(self) -> str:
        """What amounts are of, for example `turnover, EUR`."""
        target = self.panel.series.target
        name = target.name.replace("_", " ")
        return f"{name}, {target.unit}" if target.unit else name

    @property
    def usual_amount(self) -> float:
        """Size of a usual forecast of a series."""
        return float(self.forecasts["forecast"].abs().mean())

    @property
    def usual_sum(self) -> float:
        """Size of a usual forecast of the sum."""
        return float(self.sums["forecast"].abs().mean())

    @property
    def file_name(self) -> str:
        """A name for the file, which no other member of the level and no other cutoff has."""
        return f"{file_stem(self.level, self.member)}_{self.origin.cutoff}.xlsx"


def file_stem(level: str, member: str) -> str:
    """A name that any file system takes; what it cannot hold of a member is told by a digest.

    Example:
        >>> file_stem("region", "65"), file_stem("total", "")
        ('region-65', 'total')
        >>> file_stem("shop", "a/b")
        'shop-a_b-c14cddc0'
    """
    if not member:
        return level
    plain = re.sub(r"[^\w.-]", "_", member)[:LONGEST_NAME]
    folded = (
        plain != member or plain != plain.lower()
    )  # two names that differ in case are one to some systems
    digest = f"-{sha256(member.encode()).hexdigest()[:8]}" if folded else ""
    return f"{level}-{plain}{digest}"


def as_date(value: object) -> date:
    """A date from whatever a frame has for one."""
    return pd.Timestamp(value).date()  # type: ignore[arg-type]
