"""Defects planted on purpose in the files of a synthetic retailer, and the list of what was planted.

What belongs here: spoiling tables in ways that real files are spoilt. What does not: packing tables into
files (samples.py), and anything that detects or repairs a defect.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Literal

import numpy as np
import pandas as pd

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


Planted = tuple[pd.DataFrame, PlantedDefect]  # the spoiled table, and what was done to it


def plant_all(
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
    row, week = int(rng.choice(table.index.to_numpy())), week_of(name)
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
    return f"{week_of(name).year}-02-31"


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
    week = week_of(name)
    defect = PlantedDefect("restated_week", _renamed(name, "restated"), rows, week, week, original=name)
    return table.assign(turnover=values), defect


def _copy(table: pd.DataFrame, name: str) -> Planted:
    week = week_of(name)
    return table, PlantedDefect(
        "duplicate_file", _renamed(name, "copy"), len(table), week, week, original=name
    )


def _renamed(name: str, ending: str) -> str:
    # An underscore sorts after the dot, so that the new name comes after the old one.
    return f"{name.removesuffix('.csv')}_{ending}.csv"


def describe(defect: PlantedDefect) -> str:
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


def week_of(name: str) -> date:
    """The week of a file that has it in its name."""
    return date.fromisoformat(name.removeprefix("turnover_").removesuffix(".csv"))
