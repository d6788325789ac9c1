"""Charts over time: their geometry as SVG, and the same values for the script that makes them interactive.

What belongs here: scales, ticks, paths. What does not: markup (templates/macros.html.jinja), and colours
(static/style.css).

A chart is drawn into a square of SIZE by SIZE units that the page stretches to any width, so that lines fit a
phone as well as a desk while texts keep their size; positions of texts are therefore shares of the whole.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

from babel.dates import format_skeleton

from turnover_assets.serving.dashboard.formats import Formats

SIZE = 1000
TOP, BOTTOM = 60, 900  # of the plot within the square; labels of periods stand below
Y_TICKS, X_TICKS = 4, 7
STEPS_IN_MONTHS = (1, 2, 3, 6, 12, 24, 48, 120)
SPARK_WIDTH, SPARK_HEIGHT = 100, 24
Values = Sequence[float | None]


@dataclass(frozen=True)
class Line:
    """A line.

    Attributes:
        key: Its kind: the stylesheet and the script know its colour by it.
        name: For people.
        values: One for each period; None where there is none.
        dots: Whether points are drawn in place of a line.
    """

    key: str
    name: str
    values: Values
    dots: bool = False


@dataclass(frozen=True)
class Band:
    """The area between two bounds."""

    key: str
    name: str
    lower: Values
    upper: Values


@dataclass(frozen=True)
class Chart:
    """A chart over time.

    Attributes:
        name: Identifies it within a page.
        title: What it shows.
        summary: What a reader who does not see it should know.
        periods: The periods, ascending.
        lines: Drawn in order.
        bands: Drawn below the lines.
        begin: Position of the first period that is shown at first.
        cutoff: The last period known; None where none is to be marked.
        limit: Amount beyond which values go off the picture; None where all are within.
    """

    name: str
    title: str
    summary: str
    periods: Sequence[date]
    lines: Sequence[Line]
    bands: Sequence[Band] = ()
    begin: int = 0
    cutoff: date | None = None
    limit: float | None = None

    def drawing(self, formats: Formats) -> "Drawing":
        """The geometry of what is shown at first."""
        return Drawing.of(self, formats)

    def data(self) -> dict[str, Any]:
        """The values for the script."""
        return {
            "periods": [_seconds(day) for day in self.periods],
            "begin": self.begin,
            "cutoff": _seconds(self.cutoff) if self.cutoff else None,
            "limit": self.limit,
            "lines": [
                {"key": line.key, "name": line.name, "dots": line.dots, "values": _short(line.values)}
                for line in self.lines
            ],
            "bands": [
                {"key": band.key, "name": band.name, "lower": _short(band.lower), "upper": _short(band.upper)}
                for band in self.bands
            ],
        }


@dataclass(frozen=True)
class Tick:
    """A label, and where it stands: `at` in units of the square, `share` in per cent of it."""

    at: float
    share: float
    text: str
    minor: bool = False


@dataclass(frozen=True)
class Drawing:
    """What is drawn.

    Attributes:
        lines: Pairs of a line and its path.
        bands: Pairs of a band and its path.
        dots: Of lines that are drawn as points: the line and their places.
        y_ticks: Amounts.
        x_ticks: Periods.
        cutoff: Where the last known period is; None where it is not marked.
        zero: Where 0 is; None where it is not within.
    """

    lines: list[tuple[Line, str]] = field(default_factory=list)
    bands: list[tuple[Band, str]] = field(default_factory=list)
    dots: list[tuple[Line, list[tuple[float, float]]]] = field(default_factory=list)
    y_ticks: list[Tick] = field(default_factory=list)
    x_ticks: list[Tick] = field(default_factory=list)
    cutoff: float | None = None
    zero: float | None = None

    @classmethod
    def of(cls, chart: Chart, formats: Formats) -> "Drawing":
        """Draw a chart."""
        shown = slice(chart.begin, None)
        periods = chart.periods[shown]
        if not periods:
            return cls()
        every = [line.values[shown] for line in chart.lines]
        every += [side[shown] for band in chart.bands for side in (band.lower, band.upper)]
        limit = math.inf if chart.limit is None else chart.limit
        low, high, ticks = nice_scale(
            min(value, limit) for values in every for value in values if value is not None
        )
        x = _positions(periods)

        def y(value: float) -> float:
            return round(BOTTOM - (BOTTOM - TOP) * (min(value, high) - low) / (high - low), 1)

        drawn = cls(cutoff=x[periods.index(chart.cutoff)] if chart.cutoff in periods else None, zero=y(0.0))
        for band in chart.bands:
            drawn.bands.append((band, _area(x, band.lower[shown], band.upper[shown], y)))
        for line in chart.lines:
            places = _places(x, line.values[shown], y)
            if line.dots:
                drawn.dots.append((line, [place for run in places for place in run]))
            else:
                drawn.lines.append((line, " ".join(_polyline(run) for run in places)))
        drawn.y_ticks.extend(
            Tick(y(value), y(value) / SIZE * 100, _tick_text(value, ticks, formats)) for value in ticks
        )
        drawn.x_ticks.extend(_period_ticks(periods, x, formats))
        return drawn


def nice_scale(values: Iterable[float]) -> tuple[float, float, list[float]]:
    """A scale that holds values and 0: its ends, and round numbers on it.

    Example:
        >>> nice_scale([3.0, 87.0])
        (0.0, 100.0, [0.0, 25.0, 50.0, 75.0, 100.0])
    """
    found = list(values)
    low, high = min(0.0, *found, 0.0), max(0.0, *found, 0.0)
    if high == low:
        high = low + 1.0
    step = _nice_step((high - low) / Y_TICKS)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return first * step, last * step, [k * step for k in range(first, last + 1)]


def _nice_step(rough: float) -> float:
    size = 10.0 ** math.floor(math.log10(rough))
    return next(step * size for step in (1, 2, 2.5, 5, 10) if step * size >= rough * (1 - 1e-9))


def _positions(periods: Sequence[date]) -> list[float]:
    first, days = periods[0], max(1, (periods[-1] - periods[0]).days)
    return [round(SIZE * (period - first).days / days, 1) for period in periods]


def _places(x: Sequence[float], values: Values, y: Any) -> list[list[tuple[float, float]]]:
    """Runs of points without a gap."""
    runs: list[list[tuple[float, float]]] = [[]]
    for at, value in zip(x, values, strict=True):
        if value is None:
            runs.append([])
        else:
            runs[-1].append((at, y(value)))
    return [run for run in runs if run]


def _polyline(run: Sequence[tuple[float, float]]) -> str:
    if len(run) == 1:  # a point between two gaps
        return f"M{run[0][0]:g} {run[0][1]:g}h0.1"
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in run)


def _area(x: Sequence[float], lower: Values, upper: Values, y: Any) -> str:
    known = [
        (at, y(low), y(high))
        for at, low, high in zip(x, lower, upper, strict=True)
        if low is not None and high is not None
    ]
    if not known:
        return ""
    there = "L".join(f"{at:g} {high:g}" for at, _, high in known)
    back = "L".join(f"{at:g} {low:g}" for at, low, _ in reversed(known))
    return f"M{there}L{back}Z"


def _tick_text(value: float, ticks: Sequence[float], formats: Formats) -> str:
    """An amount of the scale, with as many decimals as tell it from its neighbours."""
    largest = max(abs(tick) for tick in ticks)
    if largest >= 10_000:
        return formats.short(value)
    step = ticks[1] - ticks[0]
    decimals = next((k for k in range(9) if abs(round(step, k) - step) < 1e-9 * step), 9)
    return formats.number(value, decimals)


def _period_ticks(periods: Sequence[date], x: Sequence[float], formats: Formats) -> list[Tick]:
    """Labels at the first periods of months, or of every few months; at days where the time is short."""
    months = (periods[-1] - periods[0]).days / 30.4
    if months < 3:
        every = max(1, math.ceil(len(periods) / X_TICKS))
        return [
            _period_tick(periods[k], x[k], "MMMd", formats, number)
            for number, k in enumerate(range(0, len(periods), every))
        ]
    step = next((step for step in STEPS_IN_MONTHS if months / step <= X_TICKS), STEPS_IN_MONTHS[-1])
    found, before = list[Tick](), None
    for period, at in zip(periods, x, strict=True):
        month = (period.year * 12 + period.month - 1) // step
        if before is not None and month != before:
            skeleton = "y" if step % 12 == 0 else "yMMM"
            found.append(_period_tick(period, at, skeleton, formats, len(found)))
        before = month
    return found


def _period_tick(period: date, at: float, skeleton: str, formats: Formats, number: int) -> Tick:
    text = format_skeleton(skeleton, period, locale=formats.locale)
    return Tick(at, at / SIZE * 100, text, minor=number % 2 == 1)


def _seconds(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())


def _short(values: Values) -> list[float | None]:
    """Values with as many digits as a picture shows."""
    return [None if value is None else float(f"{value:.6g}") for value in values]


@dataclass(frozen=True)
class Spark:
    """A line without axes: two paths, of what is known and of the forecast."""

    known: str
    ahead: str


def spark(values: Values, ahead: int) -> Spark:
    """The paths of a sparkline, whose last `ahead` values are forecasts."""
    found = [value for value in values if value is not None]
    if not found:
        return Spark("", "")
    low, high = min(0.0, *found), max(found)
    span = (high - low) or 1.0
    last = max(1, len(values) - 1)

    def y(value: float) -> float:
        return round(SPARK_HEIGHT - 1.5 - (SPARK_HEIGHT - 3) * (value - low) / span, 1)

    x = [round(SPARK_WIDTH * k / last, 1) for k in range(len(values))]
    turn = max(0, len(values) - ahead)
    known = _places(x[:turn], values[:turn], y)
    coming = _places(x[max(0, turn - 1) :], values[max(0, turn - 1) :], y)
    return Spark(" ".join(map(_polyline, known)), " ".join(map(_polyline, coming)))


@dataclass(frozen=True)
class Bar:
    """A bar from 0 to a value, in per cent of the width."""

    begin: float
    width: float
    negative: bool


def bars(values: Sequence[float]) -> list[Bar]:
    """Bars of values on one scale that holds 0."""
    low, high = min(0.0, *values, 0.0), max(0.0, *values, 0.0)
    span = (high - low) or 1.0
    return [
        Bar(round(100 * (min(value, 0.0) - low) / span, 2), round(100 * abs(value) / span, 2), value < 0)
        for value in values
    ]


def by_period(rows: Iterable[Mapping[str, Any]], periods: Sequence[date], column: str) -> list[float | None]:
    """The values of a column for each of the periods."""
    known = {row["period"]: row[column] for row in rows}
    return [known.get(period) for period in periods]
