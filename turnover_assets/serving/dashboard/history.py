"""History and forecasts of a series or a member: the rows behind charts, tables and downloads.

What belongs here: putting together what was reported, last year, what was forecast before and what is
forecast now. What does not: figures over the horizon (shown.py).
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from turnover_assets.core.intervals import BOUNDS
from turnover_assets.core.templating import Records
from turnover_assets.panel import PanelSpec
from turnover_assets.serving.dashboard.charts import Band, Chart, Line, by_period
from turnover_assets.serving.dashboard.formats import Formats
from turnover_assets.serving.dashboard.shown import SEASON_DAYS, Shown

SHOWN_DAYS = {"week": 2 * 364, "day": 26 * 7}  # before the cutoff, at first
FLATTENED = 3.0  # times the largest other amount
HEADROOM = 1.1
FIGURES = ("reported", "adjusted", "last_year", "past_forecast", "forecast", *BOUNDS)
LIVE, BACKTEST, NOTHING = "live", "backtest", ""


@dataclass(frozen=True)
class History:
    """All periods of a series or member, ascending.

    Attributes:
        rows: For each `period`: `reported`, `adjusted`, `last_year`, `past_forecast`, `past_lower_80`,
            `past_upper_80`, `past_cutoff`, `forecast` and bounds; None where there is none.
        cutoff: The last period known.
        source: Whether past forecasts were published (LIVE), or made by the backtest; NOTHING where there are
            none.
    """

    rows: Records
    cutoff: date
    source: str = NOTHING
    ahead: Records = field(default_factory=list)

    @property
    def past(self) -> Records:
        """The periods that were forecast and have been reported, newest first."""
        known = ("past_forecast", "reported")
        return [row for row in reversed(self.rows) if all(row[name] is not None for name in known)]

    @property
    def is_adjusted(self) -> bool:
        """Whether anything was adjusted."""
        return any(
            row["reported"] is not None and row["reported"] != row["adjusted"]
            for row in self.rows
            if row["period"] <= self.cutoff
        )

    def csv(self, time: str) -> str:
        """The rows as csv, in English numbers, for programs and spreadsheets."""
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow([time, *FIGURES])
        for row in self.rows:
            writer.writerow([row["period"], *("" if row[name] is None else row[name] for name in FIGURES)])
        return text.getvalue()


def error_of(past: Records) -> float | None:
    """Sum of absolute errors over that of what was reported; None where nothing was."""
    reported = sum(abs(row["reported"]) for row in past)
    return sum(abs(row["past_forecast"] - row["reported"]) for row in past) / reported if reported else None


def member_history(shown: Shown, level: str, name: str) -> History:
    """The history of a member of a level."""
    values = {"level": level, "member": name, "cutoff": shown.cutoff}
    ahead = shown.view.records(
        f"SELECT * EXCLUDE (cutoff), {shown.panel.time} AS period FROM aggregates "
        "WHERE level = $level AND member = $member ORDER BY horizon",
        {"level": level, "member": name},
    )
    rows = shown.view.records(
        "SELECT period, reported, adjusted, last_year FROM sums WHERE level = $level AND member = $member "
        "AND (period <= $cutoff OR reported IS NULL) ORDER BY period",
        values,
    )
    past = shown.view.records(
        "SELECT period, any_value(cutoff) AS cutoff, sum(forecast) AS forecast, "
        "CAST(NULL AS DOUBLE) AS lower_80, CAST(NULL AS DOUBLE) AS upper_80 "
        f'FROM past JOIN "its members" USING ({", ".join(shown.panel.keys)}) '
        "WHERE level = $level AND member = $member GROUP BY period",
        {"level": level, "member": name},
    )
    if past:
        return _together(shown, rows, ahead, past, LIVE)
    return _together(
        shown,
        rows,
        ahead,
        _backtest(shown, "backtest_aggregates", {"level": level, "member": name}),
        BACKTEST,
    )


def series_history(shown: Shown, keys: Mapping[str, Any]) -> History:
    """The history of a series."""
    panel, same = shown.panel, _is(keys)
    ahead = shown.view.records(
        f"SELECT *, {panel.time} AS period FROM forecasts WHERE {same} ORDER BY horizon", keys
    )
    rows = shown.view.records(
        _SERIES.format(panel=panel, same=same, season=SEASON_DAYS), {**keys, "cutoff": shown.cutoff}
    )
    past = shown.view.records(f"SELECT * FROM past WHERE {same}", keys)
    if past:
        return _together(shown, rows, ahead, past, LIVE)
    return _together(shown, rows, ahead, _backtest(shown, "backtest", keys), BACKTEST)


_SERIES = """
WITH own AS (
  SELECT {panel.time} AS period, {panel.target} AS reported, {panel.target}_adjusted AS adjusted
  FROM {panel.series.name} WHERE {same} AND {panel.time} <= $cutoff),
before AS (
  SELECT CAST(period + {season} AS DATE) AS period, adjusted AS last_year FROM own),
ahead AS (SELECT period, value AS last_year FROM "year ago" WHERE {same})
SELECT period, reported, adjusted, coalesce(a.last_year, b.last_year) AS last_year
FROM own FULL JOIN ahead AS a USING (period) LEFT JOIN before AS b USING (period) ORDER BY period
"""


def _is(names: Mapping[str, Any]) -> str:
    return " AND ".join(f"{name} = ${name}" for name in names)


def _backtest(shown: Shown, table: str, of: Mapping[str, Any]) -> Records:
    """What the champion forecast in the backtest, the newest cutoff of each period."""
    if not shown.view.has(table):
        return []
    time = shown.panel.time
    return shown.view.records(
        f"SELECT {time} AS period, max(cutoff) AS cutoff, max_by(forecast, cutoff) AS forecast, "
        f"max_by(lower_80, cutoff) AS lower_80, max_by(upper_80, cutoff) AS upper_80 FROM {table} "
        f"WHERE {_is(of)} AND model = $model GROUP BY {time}",
        {**of, "model": shown.judged_as},
    )


def _together(shown: Shown, rows: Records, ahead: Records, past: Records, source: str) -> History:
    empty = dict.fromkeys((*FIGURES, "past_lower_80", "past_upper_80", "past_cutoff"))
    found: dict[date, dict[str, Any]] = {row["period"]: {**empty, **row} for row in rows}
    for row in ahead:
        known = found.setdefault(row["period"], {**empty, "period": row["period"]})
        known.update({name: row[name] for name in ("forecast", *BOUNDS)})
    for row in past:
        known = found.setdefault(row["period"], {**empty, "period": row["period"]})
        known["past_forecast"], known["past_cutoff"] = row["forecast"], row["cutoff"]
        known["past_lower_80"], known["past_upper_80"] = row["lower_80"], row["upper_80"]
    ordered = [found[period] for period in sorted(found)]
    coming = [found[row["period"]] for row in ahead]
    return History(ordered, shown.cutoff, source if past else NOTHING, coming)


def chart(panel: PanelSpec, history: History, formats: Formats, title: str, name: str = "history") -> Chart:
    """The picture of a history."""
    rows = history.rows
    periods = [row["period"] for row in rows]

    def column(of: str) -> list[float | None]:
        return by_period(rows, periods, of)

    lines = [
        Line("last-year", "Last year", column("last_year")),
        Line("reported", "Reported", column("reported")),
    ]
    if history.is_adjusted:
        lines.insert(1, Line("adjusted", "Adjusted", column("adjusted")))
    if history.source:
        told = "Forecast at the time" if history.source == LIVE else "Backtest"
        lines.append(Line("past", told, column("past_forecast"), dots=True))
    lines.append(Line("forecast", "Forecast", _joined(history)))
    bands = [
        Band(f"band-{width}", formats.range_name(width), column(f"lower_{width}"), column(f"upper_{width}"))
        for width in (95, 80)
    ]
    first = _begin(periods, history.cutoff, SHOWN_DAYS[panel.frequency.every])
    summary = _summary(panel, history, formats)
    return Chart(
        name, title, summary, periods, lines, bands, first, history.cutoff, limit(history.rows[first:])
    )


def limit(
    rows: Records, others: Sequence[str] = ("adjusted", "last_year", "past_forecast", "forecast", "upper_95")
) -> float | None:
    """Where reported slips, which adjustments mend, would flatten all else: an amount that holds the rest."""
    most = max((row[name] for row in rows for name in others if row[name] is not None), default=0.0)
    reported = [row["reported"] for row in rows if row["reported"] is not None]
    kept = [value for value in reported if value <= most * FLATTENED]
    return max([most, *kept]) * HEADROOM if most > 0 and len(kept) < len(reported) else None


def _joined(history: History) -> list[float | None]:
    """The forecasts, with the last reported value before them, so that the lines meet."""
    values = [row["forecast"] for row in history.rows]
    for position, row in enumerate(history.rows):
        if row["period"] == history.cutoff and row["forecast"] is None:
            values[position] = row["reported"]
    return values


def _begin(periods: Sequence[date], cutoff: date, days: int) -> int:
    return next((k for k, period in enumerate(periods) if (cutoff - period).days <= days), 0)


def _summary(panel: PanelSpec, history: History, formats: Formats) -> str:
    """The picture in a sentence, for whoever does not see it."""
    if not history.ahead:
        return "Nothing is forecast, since nothing has been reported lately."
    first, last = history.ahead[0], history.ahead[-1]
    return (
        f"The forecast goes from {formats.money(first['forecast'])} on {formats.date(first['period'])} to "
        f"{formats.money(last['forecast'])} on {formats.date(last['period'])}. The table below has every "
        f"{panel.frequency.every}."
    )
