"""What drives the demand of the synthetic retailer: calendar, seasons, levels and shocks.

What belongs here: logarithms of expected turnover, as arrays over (week, store or region, department).
What does not: stores, their lives, and the chance of single purchases (synthetic.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import holidays as holiday_calendars
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

SUNDAY = 6  # date.weekday()
DAYS_A_YEAR = 365.25


@dataclass(frozen=True)
class Profile:
    """A kind of department: its size and its year.

    Lifts are logarithmic and hold for a week that lies wholly in the season concerned.
    """

    weekly: float  # EUR a week in a store of middling size, off season
    peaks: tuple[tuple[float, float, float], ...]  # (day of the year, log height, sharpness)
    christmas: float
    easter: float
    carried: float = 1.0  # share of stores that have it


SUMMER = Profile(260, ((183, 1.75, 4.0),), christmas=-0.1, easter=0.15)
WINTER = Profile(26, ((14, 3.3, 2.5),), christmas=0.45, easter=-0.1, carried=0.65)
AUTUMN = Profile(700, ((250, 1.05, 28.0), (10, 0.25, 30.0)), christmas=0.1, easter=0.05)
STEADY = Profile(900, ((345, 0.25, 30.0),), christmas=0.75, easter=0.1)
PROFILES = (SUMMER, WINTER, AUTUMN, STEADY)


@dataclass(frozen=True)
class Calendar:
    """What is known of each week; every array has one entry per week."""

    starts: tuple[date, ...]
    day_of_year: Floats  # of the week's middle
    years: Floats  # since the first week
    closed_days: Floats  # public holidays other than Sundays
    christmas: Floats  # share of the week in the season of gifts
    easter: Floats  # share of the week in the fortnight up to Easter Monday


def make_calendar(weeks: int, last_week: date) -> Calendar:
    starts = tuple(last_week - timedelta(weeks=back) for back in range(weeks - 1, -1, -1))
    # A year more at the end: Easter and Christmas of a year that the last week only touches.
    years = range(starts[0].year, last_week.year + 2)
    public = holiday_calendars.country_holidays("FR", years=years, language="en_US")
    closed = {day for day in public if day.weekday() != SUNDAY}
    gifts = {date(year, 12, day) for year in years for day in range(7, 25)}
    mondays = public.get_named("Easter Monday")
    before_easter = {monday - timedelta(days=back) for monday in mondays for back in range(14)}
    middles = [start + timedelta(days=3) for start in starts]
    return Calendar(
        starts=starts,
        day_of_year=np.array([day.timetuple().tm_yday for day in middles], dtype=np.float64),
        years=np.arange(weeks, dtype=np.float64) * (7.0 / DAYS_A_YEAR),
        closed_days=_days_in(starts, closed),
        christmas=_days_in(starts, gifts) / 7.0,
        easter=_days_in(starts, before_easter) / 7.0,
    )


def _days_in(starts: Sequence[date], days: set[date]) -> Floats:
    counts = [sum(start + timedelta(days=day) in days for day in range(7)) for start in starts]
    return np.array(counts, dtype=np.float64)


def seasons(
    calendar: Calendar, kinds: Sequence[Profile], latitude: Floats, rng: np.random.Generator
) -> Floats:
    """The year of each region and department; peaks come later in the north."""
    delay = 1.5 * (latitude - 46.5) + rng.normal(0.0, 4.0, len(latitude))  # days
    result = np.empty((len(calendar.starts), len(latitude), len(kinds)))
    for i, kind in enumerate(kinds):
        own = rng.normal(0.0, 3.0)
        days = calendar.day_of_year[:, None] - delay - own
        lifts = sum((_bump(days, *peak) for peak in kind.peaks), np.zeros_like(days))
        moving = kind.christmas * calendar.christmas + kind.easter * calendar.easter
        moving = moving - rng.uniform(0.06, 0.12) * calendar.closed_days
        result[:, :, i] = lifts + moving[:, None]
    return result


def _bump(days: Floats, peak: float, height: float, sharpness: float) -> Floats:
    """A yearly peak in the shape of a von Mises density, `height` at its top."""
    angle = 2.0 * np.pi * (days - peak) / DAYS_A_YEAR
    return height * np.exp(sharpness * (np.cos(angle) - 1.0))


def levels(size: Floats, kinds: Sequence[Profile], years: Floats, rng: np.random.Generator) -> Floats:
    """Level and trend of each series."""
    shape = (len(size), len(kinds))
    weekly = np.log([kind.weekly for kind in kinds]) + rng.normal(0.0, 0.1, len(kinds))
    level = size[:, None] + weekly + rng.normal(0.0, 0.25, shape)
    growth = rng.normal(0.03, 0.03, len(kinds)) + rng.normal(0.0, 0.03, (len(size), 1))
    growth = growth + rng.normal(0.0, 0.02, shape)
    return np.asarray(level + years[:, None, None] * growth, dtype=np.float64)


def shocks(weeks: int, region: Integers, departments: int, rng: np.random.Generator) -> Floats:
    """Weather by region and department, each store's own fortune, and what no one can foresee."""
    stores = len(region)
    weather = _autocorrelated((weeks, int(region.max()) + 1, departments), 0.7, 0.09, rng)
    fortune = _autocorrelated((weeks, stores, 1), 0.92, 0.08, rng)
    result = rng.normal(0.0, 0.1, (weeks, stores, departments))
    result += weather[:, region]
    result += fortune
    return result


def _autocorrelated(shape: tuple[int, ...], rho: float, sd: float, rng: np.random.Generator) -> Floats:
    """Stationary AR(1) along the first axis with standard deviation `sd`."""
    values = rng.normal(0.0, sd, shape)
    for t in range(1, shape[0]):
        values[t] = rho * values[t - 1] + np.sqrt(1.0 - rho**2) * values[t]
    return values
