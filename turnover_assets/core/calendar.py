"""Periods: dates to whole-number period indices and back, and the holidays that fall in them.

What belongs here: arithmetic of periods and calendar facts about a period. What does not: features
built from them (features.py).
"""

from collections import Counter
from datetime import date, timedelta

import holidays as holiday_calendars
import numpy as np
import pandas as pd

from turnover_assets.panel import WEEKDAYS, PanelSpec


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
            f"{panel.series.time.label} on a {WEEKDAYS[label_of(panel, index).weekday()]}"
        )
    return index


def label_sql(panel: PanelSpec, t: str) -> str:
    """SQL for the label date of the period index in expression `t`; see label_of."""
    first = epoch(panel) + timedelta(days=label_offset(panel))
    return f"(DATE '{first}' + CAST({t} AS INTEGER) * {panel.frequency.days})"


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
        `days_to_year_end` (days from the period's middle to the nearest 25 December, -182..183).
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
        }
    )


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
