"""The files that a synthetic retailer would deliver.

What belongs here: a retailer packed into files, as bytes. What does not: the retailer itself
(synthetic.py), the defects planted in its files (defects.py), and writing those bytes anywhere.
"""

import gzip
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from turnover_assets.core.defects import (
    HISTORY_FILE,
    MIN_HISTORY_FOR_DEFECTS,
    PLACEHOLDER,
    STORES_FILE,
    WEEKLY_FILE,
    PlantedDefect,
    Tables,
    describe,
    plant_all,
    week_of,
)
from turnover_assets.core.synthetic import Retailer, require

__all__ = [
    "HISTORY_FILE",
    "PLACEHOLDER",
    "STORES_FILE",
    "PlantedDefect",
    "Sample",
    "SampleFile",
    "sample_files",
]


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
        tables, planted = plant_all(tables, retailer.stores, np.random.default_rng(seed))
    files = [SampleFile(STORES_FILE, _csv(retailer.stores), "The stores: place, region and zone.")]
    for name, table in tables.items():
        content = _gzipped(_csv(table)) if name == HISTORY_FILE else _csv(table)
        files.append(SampleFile(name, content, _note(name, [d for d in planted if d.file == name])))
    return Sample(tuple(files), planted)


# Files -------------------------------------------------------------------------------------------


def _check_sample(weeks: int, recent_weeks: int, defects: bool, seed: int) -> None:
    history = weeks - recent_weeks
    require(0 <= recent_weeks < weeks, f"recent_weeks must be 0 to {weeks - 1}, not {recent_weeks}")
    require(seed >= 0, f"seed must be at least 0, not {seed}")
    require(not defects or recent_weeks >= 1, "with defects, recent_weeks must be at least 1, not 0")
    require(
        not defects or history >= MIN_HISTORY_FOR_DEFECTS,
        f"with defects, {MIN_HISTORY_FOR_DEFECTS + recent_weeks} weeks are needed (recent_weeks, here "
        f"{recent_weeks}, come on top of {MIN_HISTORY_FOR_DEFECTS} of history), not {weeks}",
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
        return describe(replaced[0])
    what = "Turnover before the recent weeks." if name == HISTORY_FILE else f"Turnover of {week_of(name)}."
    return " ".join([what, *map(describe, planted)])
