"""The published measures, as alert rules read them.

What belongs here: reading them from the current snapshot. What does not: computing them (monitoring), and
what the rules make of them (core/alerts/conditions.py).
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from turnover_assets.storage.snapshots import lease

MEASURES = "measures"
COLUMNS = ["measure", "level", "member", "cutoff", "value"]
CUTOFFS = 60  # looked at, the newest; a rule asks for at most 52 in a row


@dataclass(frozen=True)
class Measured:
    """What was measured up to the published cutoff.

    Attributes:
        rows: Columns COLUMNS, a row for each value; empty where nothing was measured yet.
        cutoffs: The cutoffs at which anything was measured, newest first.
    """

    rows: pd.DataFrame
    cutoffs: tuple[date, ...]


def read_measures(published: Path, measures: Collection[str], levels: Collection[str]) -> Measured:
    """Some measures of the current snapshot, of some levels, at its newest cutoffs.

    Raises:
        NoSnapshotError: Nothing is published, or it cannot be read.
    """
    with lease(published) as snapshot:
        if MEASURES not in snapshot.facts["tables"]:
            return Measured(pd.DataFrame(columns=COLUMNS), ())
        path = snapshot.path(MEASURES)
        days = pc.unique(pq.read_table(path, columns=["cutoff"])["cutoff"]).to_pylist()
        cutoffs = sorted(filter(None, days), reverse=True)[:CUTOFFS]
        chosen = pc.field("cutoff").isin(cutoffs)
        for column, wanted in (("measure", measures), ("level", levels)):
            chosen &= pc.field(column).isin(pa.array(sorted(wanted), pa.string()))
        rows = pq.read_table(path, columns=COLUMNS, filters=chosen)
    return Measured(rows.to_pandas(), tuple(cutoffs))
