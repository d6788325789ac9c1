"""What is made of a snapshot for its pages: history and forecasts by member, ready to be asked.

What belongs here: the tables that pages share, made once when a snapshot is taken into use. What does not:
what one page alone asks (pages/).

Beside the published tables there are then, all in memory (names with a space, since no published one has it):
    - "all series": the keys and attributes of each series, and over the horizon `forecast`, `last_year`, and
      `next` (the next period's);
    - "its members": keys of each series with `level` and `member`, the total among the levels;
    - "year ago": keys, `period` to forecast, `value` a year before, adjusted, in the scale reported now;
    - "sums": `level`, `member`, `period`, `reported`, `adjusted`, `last_year` (adjusted, a year before);
    - "past": keys, `period`, `cutoff`, `forecast` and bounds of the newest forecast published before it was
      reported.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

import duckdb

from turnover_assets.core.aggregates import TOTAL
from turnover_assets.core.explanation_words import YEAR_AGO
from turnover_assets.core.forecast_history import CHAMPION
from turnover_assets.core.intervals import BOUNDS
from turnover_assets.panel import PanelSpec
from turnover_assets.serving.champion import Champions
from turnover_assets.serving.dashboard.formats import usual_size
from turnover_assets.serving.dashboard.members import column_types, member_address, member_title, name_sql
from turnover_assets.serving.served import Served, unusable
from turnover_assets.settings import Settings
from turnover_assets.storage.snapshots import Snapshot

if TYPE_CHECKING:
    from turnover_assets.serving.dashboard.lists import Row

SPARK_PERIODS = {"week": 52, "day": 56}  # of history in a sparkline
SEASON_DAYS = 364  # a season of any panel, in days


@dataclass(frozen=True)
class Member:
    """A member of a level, over the horizon.

    Attributes:
        level: The level; `total` for the sum of all.
        name: The member.
        parts: Series that are forecast.
        forecast: Over all periods to forecast.
        next: Of the next period.
        lower: Lower 80 % bound of the next period.
        upper: Upper 80 % bound of the next period.
        last_year: The same periods a year before, adjusted; None where nothing was reported.
        spark: Newest amounts, adjusted so that a slip does not flatten the rest, then the forecasts.
        ahead: How many of `spark` are forecasts.
        share: Of the total.
    """

    level: str
    name: str
    parts: int
    forecast: float
    next: float
    lower: float | None
    upper: float | None
    last_year: float | None
    spark: tuple[float | None, ...]
    ahead: int
    share: float | None

    @property
    def title(self) -> str:
        """What it is called."""
        return member_title(self.level, self.name)

    @property
    def address(self) -> str:
        """Its page."""
        return member_address(self.level, self.name)

    @property
    def change(self) -> float | None:
        """Forecast against last year."""
        return relative(self.forecast, self.last_year)


def relative(value: float | None, reference: float | None) -> float | None:
    """A relative change; None where it makes no sense."""
    if value is None or reference is None or reference <= 0:
        return None
    return value / reference - 1


class Shown:
    """A snapshot, ready for its pages; the follower makes it and closes it once nobody reads it.

    Args:
        snapshot: The snapshot.
        settings: Settings, with the panel that it must be of.
        champions: Where the model comes from that answers beside it; None where nothing is asked of it.

    Attributes:
        served: It as the REST API has it.
        view: Its tables.
        members: The members of each level by level and name, the total among the levels; largest first.
        usual: Size of a usual forecast of a series.

    Raises:
        NoSnapshotError: It is of another panel, or cannot be read.
    """

    def __init__(self, snapshot: Snapshot, settings: Settings, champions: Champions | None = None) -> None:
        snapshot.check_digests()
        self.panel = settings.panel_spec
        self.served = Served(snapshot, settings)
        self.view = self.served.view
        try:
            self.view.keep("explanations", self.panel.series.name)
            self._derive()
            self.members = self._members()
            forecasts = self.view.records("SELECT forecast FROM forecasts")
            self.served.champion = champions.take(snapshot) if champions else None
        except BaseException as error:
            self.served.close()
            if isinstance(error, duckdb.Error):
                raise unusable(snapshot, error) from None
            raise
        self.usual = usual_size([row["forecast"] for row in forecasts])

    @property
    def facts(self) -> Mapping[str, Any]:
        """What snapshot.json says."""
        return self.view.facts

    @cached_property
    def cutoff(self) -> date:
        """The last period known."""
        return date.fromisoformat(self.facts["cutoff"])

    @cached_property
    def published_at(self) -> datetime:
        """When it was published."""
        return datetime.fromisoformat(self.facts["created_at"])

    @cached_property
    def judged_as(self) -> str:
        """What the champion is called in the backtest: by its part, or else by its candidate."""
        if self.view.has("backtest_accuracy"):
            found = self.view.records(
                "SELECT DISTINCT model FROM backtest_accuracy WHERE model = $1", [CHAMPION]
            )
            if found:
                return CHAMPION
        return str(self.facts["model"]["candidate"])

    @cached_property
    def total(self) -> Member:
        """The sum of all series."""
        return next(iter(self.members[TOTAL].values()))

    @cached_property
    def series_rows(self) -> "list[Row]":
        """All series as rows of a list, largest first."""
        from turnover_assets.serving.dashboard.lists import series_rows

        return series_rows(self)

    def member(self, level: str, name: str) -> Member | None:
        """A member; None where there is none that is forecast."""
        return self.members.get(level, {}).get(name)

    def close(self) -> None:
        """Give the memory back."""
        self.served.close()

    def _derive(self) -> None:
        view, panel = self.view, self.panel
        keys = ", ".join(panel.keys)
        attributes = [table for table in panel.static if view.has(table.name)]
        joins = " ".join(f"LEFT JOIN {table.name} USING ({', '.join(table.keys)})" for table in attributes)
        missing = [
            f"CAST(NULL AS VARCHAR) AS {column.name}"
            for table in panel.static
            if table not in attributes
            for column in table.columns
        ]
        columns = ", ".join(["*", *missing])
        view.derive(
            "attributes of series",
            f"SELECT {columns} FROM (SELECT DISTINCT {keys} FROM {panel.series.name} "
            f"UNION SELECT DISTINCT {keys} FROM forecasts) {joins} ORDER BY {keys}",
        )
        view.derive("year ago", _year_ago(panel), {"season": SEASON_DAYS, "year_ago": YEAR_AGO})
        view.derive("all series", _all_series(panel))
        view.derive("its members", _its_members(panel))
        view.derive("sums", _sums(panel), {"season": SEASON_DAYS})
        view.derive("past", _past(panel), {"role": CHAMPION})

    def _members(self) -> dict[str, dict[str, Member]]:
        spark = SPARK_PERIODS[self.panel.frequency.every]
        rows = self.view.records(_MEMBERS.format(time=self.panel.time, spark=spark))
        total = next((row["forecast"] for row in rows if row["level"] == TOTAL), None)
        found: dict[str, dict[str, Member]] = {level: {} for level in (TOTAL, *self.panel.level_names)}
        for row in rows:
            history, ahead = row.pop("history") or [], row.pop("ahead")
            share = row["forecast"] / total if total and total > 0 else None
            found.setdefault(row["level"], {})[row["name"]] = Member(
                **row, spark=(*history, *ahead), ahead=len(ahead), share=share
            )
        return found


def _using(panel: PanelSpec, one: str, other: str) -> str:
    return " AND ".join(f"{one}.{key} = {other}.{key}" for key in panel.keys)


def _year_ago(panel: PanelSpec) -> str:
    """What every series had a year before each period to forecast, also those that no longer report."""
    keys = ", ".join(f"s.{key}" for key in panel.keys)
    before = f"CAST(s.{panel.time} + CAST($season AS INTEGER) AS DATE)"
    return (
        f"SELECT {keys}, {before} AS period, CASE WHEN e.compared_with = $year_ago THEN e.reference "
        f"ELSE s.{panel.target}_adjusted END AS value FROM {panel.series.name} AS s "
        f"LEFT JOIN explanations AS e ON {_using(panel, 'e', 's')} AND e.{panel.time} = {before} "
        f"WHERE {before} IN (SELECT DISTINCT {panel.time} FROM forecasts)"
    )


def _all_series(panel: PanelSpec) -> str:
    keys = ", ".join(panel.keys)
    return (
        'SELECT * FROM "attributes of series" '
        f"LEFT JOIN (SELECT {keys}, sum(forecast) AS forecast, min_by(forecast, horizon) AS next "
        f"FROM forecasts GROUP BY {keys}) USING ({keys}) "
        f'LEFT JOIN (SELECT {keys}, sum(value) AS last_year FROM "year ago" GROUP BY {keys}) USING ({keys})'
    )


def _its_members(panel: PanelSpec) -> str:
    keys, types = ", ".join(panel.keys), column_types(panel)
    parts = [f"SELECT {keys}, '{TOTAL}' AS level, '' AS member FROM \"all series\""] + [
        f"SELECT {keys}, '{level}' AS level, {name_sql(level, types[level])} AS member FROM \"all series\""
        for level in panel.level_names
    ]
    return f"SELECT * FROM ({' UNION ALL '.join(parts)}) ORDER BY level, member, {keys}"


def _sums(panel: PanelSpec) -> str:
    """History by member; a year before the newest periods stands in the scale that is reported now."""
    keys, target, time = ", ".join(panel.keys), panel.target, panel.time
    return (
        f"WITH history AS (SELECT level, member, {time} AS period, sum({target}) AS reported, "
        f'sum({target}_adjusted) AS adjusted FROM {panel.series.name} JOIN "its members" USING ({keys}) '
        "GROUP BY ALL), "
        "ahead AS (SELECT level, member, period, sum(value) AS last_year "
        f'FROM "year ago" JOIN "its members" USING ({keys}) GROUP BY ALL) '
        "SELECT level, member, period, h.reported, h.adjusted, "
        "coalesce(a.last_year, b.adjusted) AS last_year "
        "FROM history AS h FULL JOIN ahead AS a USING (level, member, period) "
        "LEFT JOIN (SELECT level, member, CAST(period + CAST($season AS INTEGER) AS DATE) AS period, "
        "adjusted FROM history) AS b USING (level, member, period) ORDER BY level, member, period"
    )


def _past(panel: PanelSpec) -> str:
    """Of each period that has been reported since, what was published last before it."""
    keys, time = ", ".join(panel.keys), panel.time
    return (
        f"WITH own AS (SELECT {keys}, cutoff, {time} AS period, horizon, forecast, {', '.join(BOUNDS)} "
        "FROM forecast_history WHERE role = $role), newest AS (SELECT period, max(cutoff) AS cutoff "
        "FROM own WHERE period <= (SELECT max(cutoff) FROM forecasts) GROUP BY period) "
        f"SELECT own.* FROM own JOIN newest USING (period, cutoff) ORDER BY {keys}, period"
    )


_MEMBERS = """
WITH forecast AS (
  SELECT level, member, sum(forecast) AS forecast, min_by(forecast, horizon) AS next,
    min_by(lower_80, horizon) AS lower, min_by(upper_80, horizon) AS upper, max(parts) AS parts,
    list(forecast ORDER BY horizon) AS ahead, list({time} ORDER BY horizon) AS periods
  FROM aggregates GROUP BY level, member),
before AS (
  SELECT s.level, s.member, sum(s.last_year) AS last_year FROM sums AS s
  WHERE s.period IN (SELECT DISTINCT {time} FROM aggregates) GROUP BY ALL),
newest AS (
  SELECT level, member, list(amount ORDER BY period) AS history FROM (
    SELECT level, member, period, coalesce(adjusted, reported) AS amount FROM sums
    WHERE period <= (SELECT max(cutoff) FROM forecasts)
    AND period IN (SELECT DISTINCT period FROM sums WHERE level = 'total'
      AND period <= (SELECT max(cutoff) FROM forecasts) ORDER BY period DESC LIMIT {spark}))
  GROUP BY ALL)
SELECT f.level, f.member AS name, f.parts, f.forecast, f.next, f.lower, f.upper, b.last_year, n.history,
  f.ahead
FROM forecast AS f LEFT JOIN before AS b USING (level, member) LEFT JOIN newest AS n USING (level, member)
ORDER BY f.forecast DESC, f.level, f.member
"""
