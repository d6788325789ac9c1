"""Slow, obvious re-computations, written from the definitions and never from the code under test.

Everything here is plain Python over dictionaries and loops, so that a reader can check it by eye.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

import holidays as holiday_calendars
import numpy as np
import pandas as pd
from dateutil.easter import easter

Series = Mapping[int, float]  # values of one series by period index

# Cleaning ----------------------------------------------------------------------------------------

MISSING = {"", "na", "nan", "null"}


def text_of(value: str | None) -> str | None:
    """A raw text, None where it stands for a missing value."""
    return None if value is None or value.strip().lower() in MISSING else value.strip()


def number_of(text: str, delimiter: str = ",") -> float | None:
    """A finite number in decimal notation, as Python reads it."""
    plain = text.replace(",", ".") if delimiter == ";" else text
    if not plain.isascii() or not set(plain) <= set("0123456789+-.eE"):
        return None
    try:
        value = float(plain)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def whole_of(text: str) -> int | None:
    """A whole number of at most 18 digits, perhaps written with zeros behind a point."""
    digits = text.lstrip("+-").split(".")[0]
    if not text.isascii() or not set(text) <= set("0123456789+-.") or not 1 <= len(digits) <= 18:
        return None
    try:
        value = Decimal(text)
    except InvalidOperation:
        return None
    return int(value) if value == value.to_integral_value() else None


def date_of(text: str) -> date | None:
    """An ISO date, perhaps with midnight behind it."""
    day, rest = text[:10], text[10:]
    if len(day) != 10 or day[4] != "-" or day[7] != "-" or not day.replace("-", "").isdigit():
        return None
    if rest and rest not in {f"{t}{clock}" for t in " T" for clock in ("00:00", "00:00:00", "00:00:00.000")}:
        return None
    try:
        return datetime.strptime(day, "%Y-%m-%d").date()
    except ValueError:
        return None


@dataclass(frozen=True)
class RawRow:
    """One row of turnover of the default panel as landed."""

    file_no: int
    line: int
    delimiter: str
    texts: Mapping[str, str | None]
    malformed: str | None = None


def broken_rule(row: RawRow, stores: set[int] | None) -> str | None:  # noqa: C901 - one rule a line
    """The first rule of the default panel that a turnover row breaks; stores is None if not binding."""
    if row.malformed is not None:
        return "malformed_row"
    texts = {name: text_of(value) for name, value in row.texts.items()}
    for key in ("store", "department"):
        if texts[key] is None:
            return "key_missing"
        if whole_of(texts[key]) is None:
            return "key_unreadable"
    if texts["week"] is None:
        return "date_missing"
    day = date_of(texts["week"])
    if day is None:
        return "not_a_date"
    if not 1900 <= day.year <= 2199:
        return "date_out_of_range"
    if day.strftime("%A") != "Saturday":
        return "not_a_period"
    if texts["turnover"] is None:
        return "value_missing"
    if number_of(texts["turnover"], row.delimiter) is None:
        return "not_a_number"
    if abs(number_of(texts["turnover"], row.delimiter) or 0) > 1e15:
        return "value_out_of_range"
    if stores is not None and whole_of(texts["store"]) not in stores:
        return "unknown_store"
    return None


@dataclass(frozen=True)
class Cleaned:
    """What should become of turnover rows: by (file_no, line)."""

    kept: dict[tuple[int, int], tuple[int, int, date, float]]
    rejected: dict[tuple[int, int], str]
    restated: set[tuple[int, int]]


def clean_turnover(rows: Iterable[RawRow], stores: set[int] | None) -> Cleaned:
    """Judge row by row in the order in which they landed; a later good row replaces an earlier one."""
    latest: dict[tuple[int, int, date], tuple[int, int]] = {}
    kept: dict[tuple[int, int], tuple[int, int, date, float]] = {}
    rejected: dict[tuple[int, int], str] = {}
    restated: set[tuple[int, int]] = set()
    for row in sorted(rows, key=lambda row: (row.file_no, row.line)):
        place = (row.file_no, row.line)
        rule = broken_rule(row, stores)
        if rule:
            rejected[place] = rule
            continue
        texts = {name: text_of(value) or "" for name, value in row.texts.items()}
        store, department = whole_of(texts["store"]), whole_of(texts["department"])
        week, value = date_of(texts["week"]), number_of(texts["turnover"], row.delimiter)
        assert store is not None
        assert department is not None
        assert week is not None
        assert value is not None
        key = (store, department, week)
        if key in latest:
            before = latest[key]
            del kept[before]
            if before[0] == row.file_no:
                rejected[before] = "repeated_key"
            else:
                restated.add(before)
        latest[key] = place
        kept[place] = (*key, value)
    return Cleaned(kept, rejected, restated)


# Features ----------------------------------------------------------------------------------------


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of what is known."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def total(values: Iterable[float | None]) -> float | None:
    """Sum of what is known."""
    known = [value for value in values if value is not None]
    return math.fsum(known) if known else None


def ratio(above: float | None, below: float | None) -> float | None:
    """A ratio, None where one of the two is missing or nothing."""
    return None if above is None or below is None or below == 0 else above / below


def limited(value: float | None) -> float | None:
    """A ratio of growth, kept from a fifth to five."""
    return None if value is None else min(max(value, 0.2), 5.0)


def product(*factors: float | None) -> float | None:
    """A product, None where a factor is missing."""
    return (
        None if any(factor is None for factor in factors) else math.prod(f for f in factors if f is not None)
    )


@dataclass(frozen=True)
class Shape:
    """What the frequency says: periods of a year, of the short cycle, lags, means, growth windows."""

    season: int
    cycle: int
    lags: tuple[int, ...]
    means: tuple[int, ...]
    short: int
    medium: int


WEEKLY = Shape(52, 1, (0, 1, 2, 3), (4, 8, 13, 26, 52), 4, 13)
DAILY = Shape(364, 7, (0, 1, 2, 3, 4, 5, 6), (7, 28, 91, 364), 28, 91)


@dataclass(frozen=True)
class History:
    """Values by series, the members of each level by series, and the level that gives the scale."""

    values: Mapping[Any, Series]
    members: Mapping[str, Mapping[Any, Any]]
    report_level: str
    shape: Shape
    horizon: int

    def known(self, cutoff: int) -> "History":
        """Only what is known at a cutoff; a series without a value does not exist yet."""
        cut = {s: {t: y for t, y in values.items() if t <= cutoff} for s, values in self.values.items()}
        return History(
            {s: values for s, values in cut.items() if values},
            self.members,
            self.report_level,
            self.shape,
            self.horizon,
        )


def features(history: History, series: Any, cutoff: int, horizon: int) -> dict[str, float | None]:  # noqa: C901
    """Features of one row, the calendar, attributes and covariates left out.

    All from what is known at the cutoff: the values after it are thrown away first.
    """
    history = history.known(cutoff)
    shape, target = history.shape, cutoff + horizon
    y = history.values[series]
    scale = scale_of(history, series, cutoff)
    found: dict[str, float | None] = {}

    def back(first: int, last: int, at: int = cutoff) -> list[float | None]:
        """Values of the series from `first` to `last` periods before a period."""
        return [y.get(at - k) for k in range(last, first + 1)]

    for k in shape.lags:
        found[f"lag_{k}"] = ratio(y.get(cutoff - k), scale)
    for k in shape.means:
        found[f"mean_{k}"] = ratio(mean(back(k - 1, 0)), scale)
    recent = [value for value in back(shape.medium - 1, 0) if value is not None]
    found["deviation"] = float(np.std(recent)) / scale if recent else None
    found["zero_share"] = mean([1.0 if value <= 0 else 0.0 for value in recent])
    found["periods_since_seen"] = cutoff - max(y)
    found["log_scale"] = math.log(scale)
    found["age"] = min(cutoff - min(y), 3 * shape.season)
    found["horizon_ahead"] = horizon
    growth = {k: limited(growth_of([y], shape, cutoff, k)) for k in (shape.short, shape.medium)}
    found |= {f"growth_{k}": value for k, value in growth.items()}

    year_ago = target - shape.season
    for name, step in {"minus_2": -2, "minus_1": -1, "same": 0, "plus_1": 1, "plus_2": 2}.items():
        found[f"year_ago_{name}"] = ratio(y.get(year_ago + step * shape.cycle), scale)
    around: dict[tuple[int, int], float | None] = {}
    report = history.members[history.report_level]
    of_report = _totals([v for s, v in history.values.items() if report[s] == report[series]])
    for years in (1, 2):
        middle = target - years * shape.season
        for width, name in ((1, "narrow"), (2, "wide")):
            reach = width * shape.cycle
            flat = mean(y.get(t) for t in range(middle - reach, middle + reach + 1))
            around[years, width] = product(flat, peak_of(of_report, history, middle))
            found[f"around_{years}_{name}"] = ratio(around[years, width], scale)
    if shape.cycle > 1:
        nearest = math.ceil(history.horizon / shape.cycle) * shape.cycle
        for j in range(4):
            found[f"cycle_{j}"] = ratio(y.get(target - nearest - j * shape.cycle), scale)
    found["year_ago_grown"] = ratio(product(y.get(year_ago), growth[shape.medium]), scale)
    found["around_grown"] = ratio(product(around[1, 1], growth[shape.short]), scale)
    near: dict[int, float | None] = {}
    for years in (1, 2, 3):
        middle = target - years * shape.season
        flat = mean(y.get(t) for t in range(middle - shape.cycle, middle + shape.cycle + 1))
        near[years] = product(flat, peak_of(of_report, history, middle))
    found["around_years"] = ratio(mean(near.values()), scale)
    for k in (shape.short, shape.medium):
        pooled = limited(pooled_ratio(near, y, shape, cutoff, k))
        found[f"pooled_{k}"] = ratio(product(mean(back(k - 1, 0)), pooled), scale)
    level_now = mean(back(shape.means[0] - 1, 0))
    for years, name in ((1, "recent_shaped"), (2, "recent_shaped_older")):
        base = mean(back(years * shape.season + shape.short - 1, years * shape.season))
        found[name] = ratio(product(level_now, limited(ratio(around[years, 1], base))), scale)

    for level, members in history.members.items():
        within = [v for s, v in history.values.items() if members[s] == members[series]]
        totals = _totals(within)
        grown = {k: limited(growth_of(within, shape, cutoff, k)) for k in (shape.short, shape.medium)}
        found |= {f"{level}_growth_{k}": value for k, value in grown.items()}
        around_level: dict[int, float | None] = {}
        same_level: dict[int, float | None] = {}
        for years in (1, 2, 3):
            middle = target - years * shape.season
            window = range(middle - shape.cycle, middle + shape.cycle + 1)
            flat = mean(totals.get(t) for t in window)
            around_level[years] = product(flat, peak_of(totals, history, middle))
            same_level[years] = totals.get(middle)
        base = mean(totals.get(cutoff - shape.season - k) for k in range(shape.short))
        shaped = limited(ratio(around_level[1], base))
        found[f"{level}_shape_1"] = shaped
        found[f"recent_{level}_shape_1"] = ratio(product(level_now, shaped), scale)
        for kind, values in (("around", around_level), ("same", same_level)):
            for k in (shape.short, shape.medium):
                pooled = limited(pooled_ratio(values, totals, shape, cutoff, k))
                name = f"pooled_{level}_{kind}_{k}"
                found[name] = ratio(product(mean(back(k - 1, 0)), pooled), scale)
        found[f"year_ago_{level}_grown"] = ratio(product(y.get(year_ago), grown[shape.medium]), scale)
        found[f"around_{level}_grown"] = ratio(product(around[1, 1], grown[shape.short]), scale)
    return found


def peak_of(totals: Series, history: History, t: int) -> float:
    """How far a level's total stands out from the mean of itself and those a cycle before and after it.

    Of its logarithm the share d^2 / (d^2 + (2 * 1.4826 * median)^2) counts, with the median of the sizes of
    all logarithms from a season before to as far ahead as is known when the same period of the next season
    is forecast.
    """
    season, cycle = history.shape.season, history.shape.cycle

    def outstanding(at: int) -> float | None:
        near = mean(totals.get(at + k * cycle) for k in (-1, 0, 1))
        total_at = totals.get(at)
        return math.log(total_at / near) if total_at and near and total_at > 0 and near > 0 else None

    d = outstanding(t)
    last = t + max(season - 2 * cycle - history.horizon, 0)
    sizes = [abs(x) for x in map(outstanding, range(t - season + 1, last + 1)) if x is not None]
    if d is None:
        return 1.0
    usual = 2 * 1.4826 * float(np.median(sizes))
    return math.exp(d**3 / max(d**2 + usual**2, 1e-12))


def pooled_ratio(
    near: Mapping[int, float | None], y: Series, shape: Shape, cutoff: int, length: int
) -> float | None:
    """What stood around the target over what stood before the cutoff, all years that have both together."""
    above = below = 0.0
    for years, value in near.items():
        base = mean(y.get(cutoff - years * shape.season - k) for k in range(length))
        if value is not None and base is not None:
            above, below = above + value, below + base
    return ratio(above, below)


def scale_of(history: History, series: Any, cutoff: int) -> float:
    """Mean absolute value of the last season, and at least a hundredth of what is usual in its level."""
    season = range(cutoff - history.shape.season + 1, cutoff + 1)
    y, members = history.values[series], history.members[history.report_level]
    own = mean(abs(y[t]) for t in season if t in y)
    within = [v for s, v in history.values.items() if members[s] == members[series]]
    usual = mean(mean(abs(v[t]) for v in within if t in v) for t in season)
    return max(own or 0.0, 0.01 * (usual or 0.0), 1e-9)


def growth_of(within: Sequence[Series], shape: Shape, cutoff: int, length: int) -> float | None:
    """Sum of the last periods over that of a year ago, of the series and periods that have both."""
    pairs = [
        (y[t], y[t - shape.season])
        for y in within
        for t in range(cutoff - length + 1, cutoff + 1)
        if t in y and t - shape.season in y
    ]
    return ratio(total(now for now, _ in pairs), total(then for _, then in pairs))


def season_error(history: History, t: int, fewest: int) -> float | None:
    """How far off a season's values, grown, were around that time of the last three seasons.

    Of so many series at least, that sold something then or a season before.
    """
    season, reach = history.shape.season, 2 * history.shape.cycle
    of_years = (
        mean(_naive_error(history, t - years * season + away, fewest) for away in range(-reach, reach + 1))
        for years in (1, 2, 3)
    )
    return mean(of_years)


def _naive_error(history: History, t: int, fewest: int) -> float | None:
    """Median over the series of the absolute logarithm of what came over what was to be expected."""
    shape, ahead, found = history.shape, math.ceil(history.horizon / 2), []
    for y in history.values.values():
        growth = limited(growth_of([y], shape, t - ahead, shape.medium))
        usual = mean(abs(y[u]) for u in range(t - shape.season + 1, t + 1) if u in y)
        sold = any(y.get(u) for u in (t, t - shape.season))
        if sold and t in y and t - shape.season in y and growth is not None and usual:
            now, expected = (max(v, 0.0) + 0.05 * usual for v in (y[t], y[t - shape.season] * growth))
            found.append(abs(math.log(now / expected)))
    return float(np.median(found)) if len(found) >= fewest else None


def _totals(within: Sequence[Series]) -> dict[int, float]:
    parts: dict[int, list[float]] = defaultdict(list)
    for y in within:
        for t, value in y.items():
            parts[t].append(value)
    return {t: math.fsum(values) for t, values in parts.items()}


def calendar_features(start: date, days: int, season: int, country: str | None) -> dict[str, float]:
    """Calendar facts of a period that starts on a day, counted day by day."""

    def count(first: date) -> int:
        if country is None:
            return 0
        return sum(day in holidays for day in (first + timedelta(days=k) for k in range(days)))

    years = range(start.year - 2, start.year + 3)
    holidays = set(holiday_calendars.country_holidays(country, years=years)) if country else set()
    middle = start + timedelta(days=(days - 1) // 2)
    phase = 2 * math.pi * (middle.timetuple().tm_yday - 1) / 365.25
    christmas = min(((date(y, 12, 25) - middle).days for y in years), key=lambda d: (abs(d), -d))
    return {
        "season_sin": math.sin(phase),
        "season_cos": math.cos(phase),
        "month": middle.month,
        "holidays": count(start),
        "holidays_before": count(start - timedelta(days=days)),
        "holidays_after": count(start + timedelta(days=days)),
        "holidays_last_year": count(start - timedelta(days=days * season)),
        "days_to_year_end": christmas,
        **{f"days_to_{name}": days_to(middle, days) for name, days in moving(country, years).items()},
    }


def moving(country: str | None, years: range) -> dict[str, list[date]]:
    """The dates of moving holidays, from their rules."""
    if country == "FR":
        found = {"easter_monday": 1, "ascension_day": 39}
        return {name: [easter(y) + timedelta(days=k) for y in years] for name, k in found.items()}
    if country == "US":
        rules = {
            "martin_luther_king_jr_day": (1, 0, 3),
            "washington_s_birthday": (2, 0, 3),
            "labor_day": (9, 0, 1),
            "columbus_day": (10, 0, 2),
            "thanksgiving_day": (11, 3, 4),
        }
        last_mondays = [max(d for d in nth_weekdays(y, 5, 0)) for y in years]
        found_us = {name: [nth_weekdays(y, m, d)[n - 1] for y in years] for name, (m, d, n) in rules.items()}
        return {**found_us, "memorial_day": last_mondays}
    return {}


def nth_weekdays(year: int, month: int, weekday: int) -> list[date]:
    """All Mondays of a month, say."""
    days = (date(year, month, 1) + timedelta(days=k) for k in range(31))
    return [day for day in days if day.weekday() == weekday and day.month == month]


def days_to(middle: date, days: list[date]) -> int:
    """Days to the nearest of them, at most three weeks either way."""
    nearest = min(((day - middle).days for day in days), key=abs)
    return max(-21, min(21, nearest))


# Reports -----------------------------------------------------------------------------------------


def monthly_turnover(
    amounts: Iterable[tuple[Any, date, float]], days: int
) -> dict[tuple[int, Any, int], float]:
    """Amounts by (year, member, month), from (member, first day, amount), one day after the other."""
    found: dict[tuple[int, Any, int], float] = defaultdict(float)
    for member, first, amount in amounts:
        for k in range(days):
            day = first + timedelta(days=k)
            found[day.year, member, day.month] += amount / days
    return dict(found)


def seasonal_profile(amounts: Iterable[tuple[Any, date, float]], days: int) -> dict[tuple[Any, int], float]:
    """Share of each week of the year by (member, week), from (member, first day, amount)."""
    sums: dict[Any, dict[int, dict[int, float]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(float))
    )
    for member, first, amount in amounts:
        middle = first + timedelta(days=(days - 1) // 2)
        week = min(52, (middle.timetuple().tm_yday - 1) // 7 + 1)
        sums[member][middle.year][week] += amount
    profile: dict[tuple[Any, int], float] = {}
    for member, years in sums.items():
        positive = {year: weeks for year, weeks in years.items() if sum(weeks.values()) > 0}
        whole = {year: weeks for year, weeks in positive.items() if len(weeks) == 52}
        shares: dict[int, list[float]] = defaultdict(list)
        for weeks in (whole or positive).values():
            for week, amount in weeks.items():
                shares[week].append(amount / sum(weeks.values()))
        means = {week: sum(values) / len(values) for week, values in shares.items()}
        profile |= {(member, week): value / sum(means.values()) for week, value in means.items()}
    return profile


# Frames ------------------------------------------------------------------------------------------


def values_by_series(
    frame: pd.DataFrame, keys: Sequence[str], time: str, target: str, index: Callable[[date], int]
) -> dict[Any, dict[int, float]]:
    """A frame of ISO dates as values by series (a tuple of keys) and period index."""
    found: dict[Any, dict[int, float]] = defaultdict(dict)
    for row in frame.to_dict("records"):
        series = tuple(row[key] for key in keys)
        found[series][index(date.fromisoformat(row[time]))] = float(row[target])
    return dict(found)
