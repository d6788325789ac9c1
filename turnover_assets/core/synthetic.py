"""A synthetic retailer, for the demo, the tests and the benchmarks.

What belongs here: invented stores, departments and weekly turnover in the layout of the default panel.
What does not: what drives demand (_demand.py), the files made of it (samples.py), and real data.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from turnover_assets.core._demand import (
    PROFILES,
    Calendar,
    Floats,
    Integers,
    Profile,
    levels,
    make_calendar,
    seasons,
    shocks,
)

LAST_WEEK = date(2024, 6, 29)

SATURDAY = 5  # date.weekday()
STORES_A_REGION, REGIONS_A_ZONE, MOST_REGIONS = 6, 3, 90
RETURNED = 0.05  # returned purchases for each purchase


@dataclass(frozen=True, eq=False)
class Retailer:
    """An invented retailer.

    Attributes:
        turnover: A row for each series and week that it was open: `day_id` (ISO date, the Saturday
            on which the week begins), `but_num_business_unit`, `dpt_num_department`, `turnover`
            (EUR, whole cents, negative where returns exceed sales). Ordered by week, store,
            department; no key and week occurs twice.
        stores: A row for each store: `but_num_business_unit`, `but_postcode` (text of five digits),
            `but_latitude`, `but_longitude` (degrees), `but_region_idr_region`, `zod_idr_zone_dgr`.
    """

    turnover: pd.DataFrame
    stores: pd.DataFrame


def make_retailer(
    stores: int = 30,
    departments: int = 4,
    weeks: int = 170,
    seed: int = 7,
    last_week: date = LAST_WEEK,
) -> Retailer:
    """Invent a retailer; the same arguments always give the same one.

    Departments take turns at four kinds of year, in the order of their numbers: a summer peak, a
    winter peak (carried by about two stores in three), an autumn peak, and an even year that peaks at
    Christmas. Each store has a size, trends, regional and local shocks that last for weeks, French
    public holidays, and a number of purchases that is a matter of chance, so that small series have
    weeks of nothing or of returns only. About one store in ten opens and one in twenty closes.

    Args:
        stores: Number of stores, at least 1.
        departments: Number of departments, at least 1.
        weeks: Number of weeks, at least 1.
        seed: Seed of the random numbers, at least 0.
        last_week: First day of the last week, a Saturday.

    Returns:
        At most stores x departments x weeks rows of turnover in EUR, and a row for each store.

    Raises:
        ValueError: If an argument is out of its range; the message names it.

    Example:
        >>> retailer = make_retailer(stores=3, departments=1, weeks=2)
        >>> len(retailer.turnover), len(retailer.stores), retailer.turnover["day_id"].max()
        (6, 3, '2024-06-29')
    """
    for name, value in (("stores", stores), ("departments", departments), ("weeks", weeks)):
        require(value >= 1, f"{name} must be at least 1, not {value}")
    require(seed >= 0, f"seed must be at least 0, not {seed}")
    require(last_week.weekday() == SATURDAY, f"last_week must be a Saturday, not {last_week:%A %Y-%m-%d}")
    places, life, market, tills = np.random.default_rng(seed).spawn(4)
    table, region, latitude = _make_stores(stores, places)
    calendar = make_calendar(weeks, last_week)
    kinds = [PROFILES[i % len(PROFILES)] for i in range(departments)]
    size = life.normal(0.0, 0.65, stores)
    carried = _carried(size, kinds, life)
    opens, closes = _lifetimes(stores, weeks, life)
    log_expected = seasons(calendar, kinds, latitude, market)[:, region]
    log_expected += levels(size, kinds, calendar.years, market)
    log_expected += shocks(weeks, region, departments, market)
    log_expected += _ramp(weeks, opens)[:, :, None]
    sales = _ring_up(log_expected, tills)
    week = np.arange(weeks)[:, None]
    present = ((opens <= week) & (week < closes))[:, :, None] & carried
    return Retailer(_turnover_table(sales, present, calendar, table), table)


def require(holds: bool, message: str) -> None:
    """Make sure that an argument is in its range.

    Raises:
        ValueError: With the message, where it is not.
    """
    if not holds:
        raise ValueError(message)


def _make_stores(count: int, rng: np.random.Generator) -> tuple[pd.DataFrame, Integers, Floats]:
    """The table of stores, each store's region as a number from 0, and the regions' latitudes."""
    regions = min(MOST_REGIONS, -(-count // STORES_A_REGION))
    zones = -(-regions // REGIONS_A_ZONE)
    low, high = np.array([42.5, -4.5]), np.array([51.0, 8.2])
    centres = rng.uniform(low + 0.5, high - 0.5, (regions, 2))
    near = centres[rng.integers(regions, size=count)]
    places = np.clip(near + rng.normal(0.0, [0.35, 0.5], (count, 2)), low, high)
    region = _nearest(places, centres)
    zone = _nearest(centres, centres[:zones])[region]
    numbers = np.sort(rng.choice(np.arange(1, 6 * count + 1), count, replace=False))
    postcodes = 1000 * (1 + region) + 10 * rng.integers(100, size=count)
    table = pd.DataFrame(
        {
            "but_num_business_unit": numbers,
            "but_postcode": [f"{code:05d}" for code in postcodes],
            "but_latitude": places[:, 0].round(6),
            "but_longitude": places[:, 1].round(6),
            "but_region_idr_region": 2 + 3 * region,
            "zod_idr_zone_dgr": 1 + zone,
        }
    )
    return table, region, centres[:, 0]


def _nearest(points: Floats, centres: Floats) -> Integers:
    # A degree of longitude is about 0.7 of a degree of latitude at 46 degrees north.
    north = points[:, None, 0] - centres[None, :, 0]
    east = 0.7 * (points[:, None, 1] - centres[None, :, 1])
    return np.asarray(np.argmin(north**2 + east**2, axis=1), dtype=np.int64)


def _carried(size: Floats, kinds: Sequence[Profile], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Which store has which department; bigger stores rather have those that not every one has."""
    result = np.ones((len(size), len(kinds)), dtype=np.bool_)
    for i, kind in enumerate(kinds):
        liking = size + rng.normal(0.0, 0.6, len(size))
        without = round((1.0 - kind.carried) * len(size))
        result[np.argsort(liking, kind="stable")[:without], i] = False
    return result


def _lifetimes(stores: int, weeks: int, rng: np.random.Generator) -> tuple[Integers, Integers]:
    """Each store's first week, and the first week after its last, counted from 0."""
    opens = np.zeros(stores, dtype=np.int64)
    closes = np.full(stores, weeks, dtype=np.int64)
    order = rng.permutation(stores)
    opening, closing = round(0.1 * stores), round(0.05 * stores)
    opens[order[:opening]] = np.floor(rng.uniform(0.25, 0.75, opening) * weeks)
    ends = np.ceil(rng.uniform(0.6, 0.95, closing) * weeks)
    closes[order[opening : opening + closing]] = ends
    return opens, closes


def _ramp(weeks: int, opens: Integers) -> Floats:
    """A new store begins at less than half of its level and is near it after half a year."""
    age = np.clip(np.arange(weeks)[:, None] - opens, 0, None)
    return np.where(opens > 0, -0.9 * np.exp(-age / 10.0), 0.0)


def _ring_up(log_expected: Floats, rng: np.random.Generator) -> Floats:
    """Turnover in EUR: a compound Poisson number of purchases, less those brought back."""
    basket = rng.uniform(12.0, 22.0, log_expected.shape[-1])
    purchases = np.exp(log_expected) / basket
    bought = rng.standard_gamma(2.0 * rng.poisson(purchases)) / 2.0
    returned = rng.standard_gamma(2.0 * rng.poisson(RETURNED * purchases)) / 2.0
    # Adding zero turns the negative zeros of rounding into zeros.
    return np.round(basket * (bought - returned), 2) + 0.0


def _turnover_table(
    sales: Floats, present: NDArray[np.bool_], calendar: Calendar, stores: pd.DataFrame
) -> pd.DataFrame:
    week, store, department = np.nonzero(present)
    days = pd.Series([start.isoformat() for start in calendar.starts], dtype="str")
    return pd.DataFrame(
        {
            "day_id": days.array.take(week),
            "but_num_business_unit": stores["but_num_business_unit"].to_numpy()[store],
            "dpt_num_department": 11 + 16 * department,
            "turnover": sales[present],
        }
    )
