"""Periods: dates to whole-number period indices and back, and the holidays that fall in them.

What belongs here: arithmetic of periods and calendar facts about a period. What does not: features
built from them (features.py).
"""

import re
from collections import Counter
from collections.abc import Mapping
from datetime import date, timedelta

import holidays as holiday_calendars
import numpy as np
import pandas as pd

from turnover_assets.panel import WEEKDAYS, PanelSpec

MOVING_YEARS = range(2001, 2031)  # by which holidays that move are told from those that do not
HOLIDAY_REACH = 21  # days beyond which a holiday is as good as none; the season says the rest


def epoch(panel: PanelSpec) -> date:
    """First day of period 0: the first anchor weekday of 1990 (1 January 1990 for daily panels)."""
    start = date(1990, 1, 1)  # a Monday
    if panel.frequency.every == "day":
        return start
    return start + timedelta(days=WEEKDAYS.index(panel.frequency.starts_on))


def label_offset(panel: PanelSpec) -> int:
    """Days from the first day of a period to the day that labels it in the files."""
    return 0 if panel.series.time.label == "start" else panel.frequency.days - 1


def label_of(panel: PanelSpec, t: int) -> date:
    """The date that labels period `t` in the files.

    Example:
        >>> from turnover_assets.panel import default_panel
        >>> label_of(default_panel(), index_of(default_panel(), date(2017, 8, 5)))
        datetime.date(2017, 8, 5)
    """
    return epoch(panel) + timedelta(days=t * panel.frequency.days + label_offset(panel))


def index_of(panel: PanelSpec, label: date) -> int:
    """The period that a date in the files labels.

    Raises:
        ValueError: The date is not a label: it falls on another weekday than the panel's periods.
    """
    days = (label - epoch(panel)).days - label_offset(panel)
    index, rest = divmod(days, panel.frequency.days)
    if rest:
        raise ValueError(
            f"{label} is a {WEEKDAYS[label.weekday()]}, but periods are labelled by their "
            f"{panel.series.time.label} on a {WEEKDAYS[label_of(panel, 0).weekday()]}"
        )
    return index


def last_ended(panel: PanelSpec, day: date) -> int:
    """The newest period whose last day lies before a day.

    Example:
        >>> from turnover_assets.panel import default_panel
        >>> panel = default_panel()  # weeks from Saturday, labelled by it
        >>> [str(label_of(panel, last_ended(panel, date(2017, 8, day)))) for day in (11, 12)]
        ['2017-07-29', '2017-08-05']
    """
    return (day - epoch(panel)).days // panel.frequency.days - 1


def label_sql(panel: PanelSpec, t: str) -> str:
    """SQL for the label date of the period index in expression `t`; see label_of."""
    first = epoch(panel) + timedelta(days=label_offset(panel))
    return f"(DATE '{first}' + CAST({t} AS INTEGER) * {panel.frequency.days})"


def index_sql(panel: PanelSpec, label: str) -> str:
    """SQL for the period index of the label date in expression `label`; see index_of."""
    days = f"(date_diff('day', DATE '{epoch(panel)}', CAST({label} AS DATE)) - {label_offset(panel)})"
    return f"CAST({days} // {panel.frequency.days} AS INTEGER)"


def holidays_between(panel: PanelSpec, first: date, last: date) -> dict[date, str]:
    """Public holidays from `first` to `last`, both included; empty where the panel has no calendar."""
    if panel.holidays is None:
        return {}
    calendar = holiday_calendars.country_holidays(
        panel.holidays.country,
        subdiv=panel.holidays.subdivision,
        years=range(first.year, last.year + 1),
        language="en_US",  # otherwise the names depend on the environment
    )
    return {day: name for day, name in sorted(calendar.items()) if first <= day <= last}


def calendar_table(panel: PanelSpec, first: int, last: int) -> pd.DataFrame:
    """Calendar facts for each period from `first` to `last`, both included.

    Nothing here depends on reported values, so all of it is known ahead.

    Returns:
        One row a period, indexed 0..n-1: `t`, `season_sin`, `season_cos` (phase of the year of the
        period's middle), `month`, `holidays` (public holidays in the period), `holidays_before` and
        `holidays_after` (in the neighbouring periods), `holidays_last_year` (one season earlier), and
        `days_to_year_end` (days from the period's middle to the nearest 25 December, -182..183), and for
        each of moving_holidays `days_to_<name>` (days from the period's middle to the nearest one, at most
        HOLIDAY_REACH either way).
    """
    season, days = panel.frequency.season, panel.frequency.days
    t = range(first, last + 1)
    start = pd.Timestamp(epoch(panel)) + pd.to_timedelta(np.array(t) * days, unit="D")
    middle = start + pd.Timedelta(days=(days - 1) // 2)
    counts = _holiday_counts(panel, first - season - 1, last + 1)
    phase = 2 * np.pi * (middle.dayofyear.to_numpy() - 1) / 365.25
    return pd.DataFrame(
        {
            "t": t,
            "season_sin": np.sin(phase),
            "season_cos": np.cos(phase),
            "month": middle.month.to_numpy(),
            "holidays": [counts[i] for i in t],
            "holidays_before": [counts[i - 1] for i in t],
            "holidays_after": [counts[i + 1] for i in t],
            "holidays_last_year": [counts[i - season] for i in t],
            "days_to_year_end": _days_to_christmas(middle),
            **_days_to_moving(panel, middle),
        }
    )


def moving_holidays(panel: PanelSpec) -> tuple[str, ...]:
    """Names of the holidays whose date changes from year to year, in lower case with underscores.

    Of several that keep the same distance of at most HOLIDAY_REACH days, only the first is named: the others
    say nothing that it does not. Those that some of MOVING_YEARS lack are left out.

    Example:
        >>> from turnover_assets.panel import default_panel
        >>> moving_holidays(default_panel())
        ('easter_monday', 'ascension_day')
    """
    if panel.holidays is None:
        return ()
    kept: dict[str, list[date]] = {}
    for name, days in _holidays_by_name(panel, MOVING_YEARS[0], MOVING_YEARS[-1]).items():
        moves = len({(day.month, day.day) for day in days}) > 1
        if moves and {day.year for day in days} == set(MOVING_YEARS) and _is_news(days, kept):
            kept[name] = days
    return tuple(kept)


def _is_news(days: list[date], kept: Mapping[str, list[date]]) -> bool:
    """Whether days keep no constant and short distance from any of those kept."""
    for other in kept.values():
        if len(days) == len(other):
            apart = {(a - b).days for a, b in zip(days, other, strict=True)}
            if len(apart) == 1 and abs(apart.pop()) <= HOLIDAY_REACH:
                return False
    return True


def _holidays_by_name(panel: PanelSpec, first: int, last: int) -> dict[str, list[date]]:
    """Dates of each holiday in the years from `first` to `last`, by name."""
    found: dict[str, list[date]] = {}
    for day, names in holidays_between(panel, date(first, 1, 1), date(last, 12, 31)).items():
        for name in names.split("; "):
            plain = re.sub(r"[^a-z0-9]+", "_", name.lower().replace("(estimated)", "")).strip("_")
            found.setdefault(plain, []).append(day)
    return found


def _days_to_moving(panel: PanelSpec, middle: pd.DatetimeIndex) -> dict[str, np.ndarray]:
    """Days from each period's middle to the nearest of each moving holiday, by the feature's name."""
    names = moving_holidays(panel)
    dates = _holidays_by_name(panel, middle[0].year - 1, middle[-1].year + 1) if names else {}
    return {f"days_to_{name}": _days_to(dates[name], middle) for name in names}


def _days_to(dates: list[date], middle: pd.DatetimeIndex) -> np.ndarray:
    days = pd.DatetimeIndex(dates).to_numpy()[None, :] - middle.to_numpy()[:, None]
    apart = days / np.timedelta64(1, "D")
    nearest = apart[np.arange(len(apart)), np.abs(apart).argmin(axis=1)]
    return np.asarray(np.clip(nearest, -HOLIDAY_REACH, HOLIDAY_REACH))


def _holiday_counts(panel: PanelSpec, first: int, last: int) -> Counter[int]:
    days = panel.frequency.days
    start = epoch(panel) + timedelta(days=first * days)
    end = epoch(panel) + timedelta(days=(last + 1) * days - 1)
    dates = holidays_between(panel, start, end)
    return Counter((day - epoch(panel)).days // days for day in dates)


def _days_to_christmas(middle: pd.DatetimeIndex) -> np.ndarray:
    ahead, since = (_days_to_25_december(middle, middle.year - back) for back in (0, 1))
    return np.where(ahead <= -since, ahead, since)


def _days_to_25_december(middle: pd.DatetimeIndex, years: pd.Index) -> np.ndarray:
    christmas = pd.to_datetime({"year": years, "month": 12, "day": 25})
    return np.asarray((christmas.to_numpy() - middle.to_numpy()) / np.timedelta64(1, "D"))
