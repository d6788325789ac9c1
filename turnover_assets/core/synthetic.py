"""A synthetic retailer and the files it would deliver, for the demo, the tests and the benchmarks.

What belongs here: invented stores, departments and weekly turnover in the layout of the default
panel, files made of them as bytes, and defects planted on purpose together with the list of what was
planted. What does not: writing those bytes anywhere, reading real data, and anything that detects or
repairs a defect.
"""

import gzip
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal

import holidays as holiday_calendars
import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
DefectKind = Literal[
    "doubled", "placeholder", "unknown_store", "invalid_date", "restated_week", "duplicate_file"
]
Tables = dict[str, pd.DataFrame]  # by file name

HISTORY_FILE = "turnover_history.csv.gz"
STORES_FILE = "stores.csv"
WEEKLY_FILE = "turnover_{}.csv"  # of one week
PLACEHOLDER = 1_000_000.0
DOUBLED_WEEKS = 30
MIN_HISTORY_FOR_DEFECTS = 52  # weeks; leaves eleven normal ones on either side of the doubled ones
LAST_WEEK = date(2024, 6, 29)

SATURDAY = 5  # date.weekday()
SUNDAY = 6
DAYS_A_YEAR = 365.25
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


@dataclass(frozen=True)
class PlantedDefect:
    """One defect that a sample holds, for tests and detectors to be checked against.

    Attributes:
        kind: `doubled` (a department's rows at twice their value for some months), `placeholder`
            (one value replaced by exactly 1,000,000), `unknown_store` and `invalid_date` (a row more
            than there should be), `restated_week` (a later file with other values), or
            `duplicate_file` (the same bytes under another name).
        file: Name of the file that holds it.
        rows: Number of rows concerned.
        since: First week concerned (its Saturday); None where the row has no valid date.
        until: Last week concerned, inclusive.
        store: The store, where only one is concerned.
        department: The department, where only one is concerned.
        factor: What reported values were multiplied by, where that is what was done.
        original: For a restatement or a duplicate, the file that came before it.
    """

    kind: DefectKind
    file: str
    rows: int
    since: date | None = None
    until: date | None = None
    store: int | None = None
    department: int | None = None
    factor: float | None = None
    original: str | None = None


@dataclass(frozen=True)
class SampleFile:
    """A file to deliver: its name, its bytes, and one sentence on what is in it."""

    name: str
    content: bytes
    note: str


@dataclass(frozen=True)
class Sample:
    """Files in the order in which they would arrive, and the defects planted in them."""

    files: tuple[SampleFile, ...]
    defects: tuple[PlantedDefect, ...] = ()


@dataclass(frozen=True)
class _Profile:
    """A kind of department: its size and its year.

    Lifts are logarithmic and hold for a week that lies wholly in the season concerned.
    """

    weekly: float  # EUR a week in a store of middling size, off season
    peaks: tuple[tuple[float, float, float], ...]  # (day of the year, log height, sharpness)
    christmas: float
    easter: float
    carried: float = 1.0  # share of stores that have it


SUMMER = _Profile(260, ((183, 1.75, 4.0),), christmas=-0.1, easter=0.15)
WINTER = _Profile(26, ((14, 3.3, 2.5),), christmas=0.45, easter=-0.1, carried=0.65)
AUTUMN = _Profile(700, ((250, 1.05, 28.0), (10, 0.25, 30.0)), christmas=0.1, easter=0.05)
STEADY = _Profile(900, ((345, 0.25, 30.0),), christmas=0.75, easter=0.1)
PROFILES = (SUMMER, WINTER, AUTUMN, STEADY)


@dataclass(frozen=True)
class _Calendar:
    """What is known of each week; every array has one entry per week."""

    starts: tuple[date, ...]
    day_of_year: Floats  # of the week's middle
    years: Floats  # since the first week
    closed_days: Floats  # public holidays other than Sundays
    christmas: Floats  # share of the week in the season of gifts
    easter: Floats  # share of the week in the fortnight up to Easter Monday


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
        _require(value >= 1, f"{name} must be at least 1, not {value}")
    _require(seed >= 0, f"seed must be at least 0, not {seed}")
    _require(last_week.weekday() == SATURDAY, f"last_week must be a Saturday, not {last_week:%A %Y-%m-%d}")
    places, life, market, tills = np.random.default_rng(seed).spawn(4)
    table, region, latitude = _make_stores(stores, places)
    calendar = _make_calendar(weeks, last_week)
    kinds = [PROFILES[i % len(PROFILES)] for i in range(departments)]
    size = life.normal(0.0, 0.65, stores)
    carried = _carried(size, kinds, life)
    opens, closes = _lifetimes(stores, weeks, life)
    log_expected = _seasons(calendar, kinds, latitude, market)[:, region]
    log_expected += _levels(size, kinds, calendar.years, market)
    log_expected += _shocks(weeks, region, departments, market)
    log_expected += _ramp(weeks, opens)[:, :, None]
    sales = _ring_up(log_expected, tills)
    week = np.arange(weeks)[:, None]
    present = ((opens <= week) & (week < closes))[:, :, None] & carried
    return Retailer(_turnover_table(sales, present, calendar, table), table)


def sample_files(
    retailer: Retailer, *, recent_weeks: int = 4, defects: bool = False, seed: int = 7
) -> Sample:
    """Pack a retailer into the files that it would deliver; the same arguments give the same bytes.

    Args:
        retailer: The retailer; it is not changed.
        recent_weeks: Weeks at the end that come as files of their own, 0 to one less than there are
            weeks; the weeks before them are in the history file.
        defects: Whether to plant one defect of each kind; then there must be at least one recent
            week and 52 weeks of history.
        seed: Seed for the choice of what to spoil, at least 0.

    Returns:
        `stores.csv`, `turnover_history.csv.gz`, a `turnover_YYYY-MM-DD.csv` for each recent week and,
        with defects, a `..._restated.csv` and a `..._copy.csv`; and the defects planted.

    Raises:
        ValueError: If an argument is out of its range; the message names it.
    """
    weeks = sorted(retailer.turnover["day_id"].unique())
    _check_sample(len(weeks), recent_weeks, defects, seed)
    tables = _split(retailer.turnover, weeks[len(weeks) - recent_weeks :])
    planted: tuple[PlantedDefect, ...] = ()
    if defects:
        tables, planted = _plant_all(tables, retailer.stores, np.random.default_rng(seed))
    files = [SampleFile(STORES_FILE, _csv(retailer.stores), "The stores: place, region and zone.")]
    for name, table in tables.items():
        content = _gzipped(_csv(table)) if name == HISTORY_FILE else _csv(table)
        files.append(SampleFile(name, content, _note(name, [d for d in planted if d.file == name])))
    return Sample(tuple(files), planted)


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)


# Places ------------------------------------------------------------------------------------------


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


# Weeks -------------------------------------------------------------------------------------------


def _make_calendar(weeks: int, last_week: date) -> _Calendar:
    starts = tuple(last_week - timedelta(weeks=back) for back in range(weeks - 1, -1, -1))
    # A year more at the end: Easter and Christmas of a year that the last week only touches.
    years = range(starts[0].year, last_week.year + 2)
    public = holiday_calendars.country_holidays("FR", years=years, language="en_US")
    closed = {day for day in public if day.weekday() != SUNDAY}
    gifts = {date(year, 12, day) for year in years for day in range(7, 25)}
    mondays = public.get_named("Easter Monday")
    before_easter = {monday - timedelta(days=back) for monday in mondays for back in range(14)}
    middles = [start + timedelta(days=3) for start in starts]
    return _Calendar(
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


# Demand: logarithms of expected turnover, arrays over (week, store or region, department) ----------


def _seasons(
    calendar: _Calendar, kinds: Sequence[_Profile], latitude: Floats, rng: np.random.Generator
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


def _levels(size: Floats, kinds: Sequence[_Profile], years: Floats, rng: np.random.Generator) -> Floats:
    """Level and trend of each series."""
    shape = (len(size), len(kinds))
    weekly = np.log([kind.weekly for kind in kinds]) + rng.normal(0.0, 0.1, len(kinds))
    level = size[:, None] + weekly + rng.normal(0.0, 0.25, shape)
    growth = rng.normal(0.03, 0.03, len(kinds)) + rng.normal(0.0, 0.03, (len(size), 1))
    growth = growth + rng.normal(0.0, 0.02, shape)
    return np.asarray(level + years[:, None, None] * growth, dtype=np.float64)


def _shocks(weeks: int, region: Integers, departments: int, rng: np.random.Generator) -> Floats:
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


# Lives of stores ---------------------------------------------------------------------------------


def _carried(size: Floats, kinds: Sequence[_Profile], rng: np.random.Generator) -> NDArray[np.bool_]:
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


# Turnover ----------------------------------------------------------------------------------------


def _ring_up(log_expected: Floats, rng: np.random.Generator) -> Floats:
    """Turnover in EUR: a compound Poisson number of purchases, less those brought back."""
    basket = rng.uniform(12.0, 22.0, log_expected.shape[-1])
    purchases = np.exp(log_expected) / basket
    bought = rng.standard_gamma(2.0 * rng.poisson(purchases)) / 2.0
    returned = rng.standard_gamma(2.0 * rng.poisson(RETURNED * purchases)) / 2.0
    # Adding zero turns the negative zeros of rounding into zeros.
    return np.round(basket * (bought - returned), 2) + 0.0


def _turnover_table(
    sales: Floats, present: NDArray[np.bool_], calendar: _Calendar, stores: pd.DataFrame
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


# Files -------------------------------------------------------------------------------------------


def _check_sample(weeks: int, recent_weeks: int, defects: bool, seed: int) -> None:
    history = weeks - recent_weeks
    _require(0 <= recent_weeks < weeks, f"recent_weeks must be 0 to {weeks - 1}, not {recent_weeks}")
    _require(seed >= 0, f"seed must be at least 0, not {seed}")
    _require(not defects or recent_weeks >= 1, "with defects, recent_weeks must be at least 1, not 0")
    _require(
        not defects or history >= MIN_HISTORY_FOR_DEFECTS,
        f"with defects, recent_weeks must leave at least {MIN_HISTORY_FOR_DEFECTS} weeks of history,"
        f" not {history}",
    )


def _split(turnover: pd.DataFrame, recent: Sequence[str]) -> Tables:
    """The history, and a table for each recent week, by file name."""
    tables = {HISTORY_FILE: turnover[~turnover["day_id"].isin(recent)]}
    for week in recent:
        tables[WEEKLY_FILE.format(week)] = turnover[turnover["day_id"] == week]
    return tables


def _csv(table: pd.DataFrame) -> bytes:
    return table.to_csv(index=False, lineterminator="\n").encode()


def _gzipped(content: bytes) -> bytes:
    # Without a time stamp the same rows are the same bytes.
    return gzip.compress(content, 6, mtime=0)


def _note(name: str, planted: Sequence[PlantedDefect]) -> str:
    replaced = [defect for defect in planted if defect.original]
    if replaced:
        return _describe(replaced[0])
    what = "Turnover before the recent weeks." if name == HISTORY_FILE else f"Turnover of {_week_of(name)}."
    return " ".join([what, *map(_describe, planted)])


def _describe(defect: PlantedDefect) -> str:
    """One sentence on a defect."""
    series = f"store {defect.store}, department {defect.department}"
    sentences: dict[DefectKind, str] = {
        "doubled": f"Department {defect.department} is at double from {defect.since} to {defect.until}.",
        "placeholder": f"A placeholder of {PLACEHOLDER:.0f} for {series} in {defect.since}.",
        "unknown_store": f"A row more, of {series}; {STORES_FILE} does not list this store.",
        "invalid_date": f"A row more, for {series}, on a day that does not exist.",
        "restated_week": f"Restates {defect.original}: {defect.rows} rows have changed.",
        "duplicate_file": f"The same bytes as {defect.original} under another name.",
    }
    return sentences[defect.kind]


# Defects -----------------------------------------------------------------------------------------

Planted = tuple[pd.DataFrame, PlantedDefect]  # the spoiled table, and what was done to it


def _plant_all(
    tables: Tables, stores: pd.DataFrame, rng: np.random.Generator
) -> tuple[Tables, tuple[PlantedDefect, ...]]:
    """One defect of each kind, each in another recent file where there are enough of them."""
    weekly = [name for name in tables if name != HISTORY_FILE]
    copied, restated, stranger, undated = (weekly[i % len(weekly)] for i in range(4))
    history, doubled = _double(tables[HISTORY_FILE], rng)
    history, placeholder = _hold_place(history, doubled, rng)
    correction, restatement = _restate(tables[restated], restated, rng)
    spoiled = tables | {HISTORY_FILE: history}
    spoiled[stranger], unknown = _add_stranger(spoiled[stranger], stranger, stores, rng)
    spoiled[undated], invalid = _add_invalid_date(spoiled[undated], undated, rng)
    copy, duplicate = _copy(spoiled[copied], copied)
    spoiled |= {restatement.file: correction, duplicate.file: copy}
    return spoiled, (doubled, placeholder, unknown, invalid, restatement, duplicate)


def _week_of(name: str) -> date:
    return date.fromisoformat(name.removeprefix("turnover_").removesuffix(".csv"))


def _double(history: pd.DataFrame, rng: np.random.Generator) -> Planted:
    """Double one of the bigger departments in the middle of the history."""
    totals = history.groupby("dpt_num_department")["turnover"].sum().sort_values(ascending=False)
    department = int(rng.choice(totals.index.to_numpy()[: (len(totals) + 1) // 2]))
    weeks = sorted(history["day_id"].unique())
    first = (len(weeks) - DOUBLED_WEEKS) // 2
    since, until = weeks[first], weeks[first + DOUBLED_WEEKS - 1]
    concerned = (history["dpt_num_department"] == department) & history["day_id"].between(since, until)
    doubled = history["turnover"].where(~concerned, 2.0 * history["turnover"])
    defect = PlantedDefect(
        "doubled",
        HISTORY_FILE,
        int(concerned.sum()),
        date.fromisoformat(since),
        date.fromisoformat(until),
        department=department,
        factor=2.0,
    )
    return history.assign(turnover=doubled), defect


def _hold_place(history: pd.DataFrame, doubled: PlantedDefect, rng: np.random.Generator) -> Planted:
    """Replace a value away from the ends and the doubled weeks; in another department if there is one."""
    weeks = sorted(history["day_id"].unique())[8:-8]
    outside = history["day_id"].isin(weeks)
    outside &= ~history["day_id"].between(str(doubled.since), str(doubled.until))
    elsewhere = history["dpt_num_department"] != doubled.department
    candidates = history.index[outside & elsewhere] if elsewhere.any() else history.index[outside]
    row = int(rng.choice(candidates.to_numpy()))
    values = history["turnover"].where(history.index != row, PLACEHOLDER)
    week = date.fromisoformat(str(history.loc[row, "day_id"]))
    store, department = _series_of(history, row)
    defect = PlantedDefect("placeholder", HISTORY_FILE, 1, week, week, store, department)
    return history.assign(turnover=values), defect


def _add_stranger(table: pd.DataFrame, name: str, stores: pd.DataFrame, rng: np.random.Generator) -> Planted:
    row, week = int(rng.choice(table.index.to_numpy())), _week_of(name)
    store = int(stores["but_num_business_unit"].max()) + int(rng.integers(1, 100))
    spoiled = _insert(table, row, lambda copy: copy.assign(but_num_business_unit=store), rng)
    department = _series_of(table, row)[1]
    return spoiled, PlantedDefect("unknown_store", name, 1, week, week, store, department)


def _add_invalid_date(table: pd.DataFrame, name: str, rng: np.random.Generator) -> Planted:
    row = int(rng.choice(table.index.to_numpy()))
    spoiled = _insert(table, row, lambda copy: copy.assign(day_id=_no_such_day(name)), rng)
    store, department = _series_of(table, row)
    return spoiled, PlantedDefect("invalid_date", name, 1, store=store, department=department)


def _no_such_day(name: str) -> str:
    return f"{_week_of(name).year}-02-31"


def _insert(
    table: pd.DataFrame,
    row: int,
    spoil: Callable[[pd.DataFrame], pd.DataFrame],
    rng: np.random.Generator,
) -> pd.DataFrame:
    """The table with a spoiled copy of one row put in somewhere."""
    at = int(rng.integers(len(table) + 1))
    parts = [table.iloc[:at], spoil(table.loc[[row]]), table.iloc[at:]]
    return pd.concat(parts, ignore_index=True)


def _series_of(table: pd.DataFrame, row: int) -> tuple[int, int]:
    keys = table.loc[[row], ["but_num_business_unit", "dpt_num_department"]].to_numpy()
    return int(keys[0, 0]), int(keys[0, 1])


def _restate(table: pd.DataFrame, name: str, rng: np.random.Generator) -> Planted:
    """About one row in ten is corrected upwards, by 1 EUR and up to 15 percent."""
    rows = max(1, len(table) // 10)
    changed = table.index.isin(rng.choice(table.index.to_numpy(), rows, replace=False))
    more = 1.0 + rng.uniform(0.0, 0.15, len(table)) * table["turnover"].abs()
    values = table["turnover"].where(~changed, (table["turnover"] + more).round(2))
    week = _week_of(name)
    defect = PlantedDefect("restated_week", _renamed(name, "restated"), rows, week, week, original=name)
    return table.assign(turnover=values), defect


def _copy(table: pd.DataFrame, name: str) -> Planted:
    week = _week_of(name)
    return table, PlantedDefect(
        "duplicate_file", _renamed(name, "copy"), len(table), week, week, original=name
    )


def _renamed(name: str, ending: str) -> str:
    # An underscore sorts after the dot, so that the new name comes after the old one.
    return f"{name.removesuffix('.csv')}_{ending}.csv"
