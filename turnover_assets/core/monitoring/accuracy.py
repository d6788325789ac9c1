"""How published forecasts turned out, cutoff by cutoff: the table monitoring.accuracy.

What belongs here: which cutoffs are judged (again), and the rows kept of them. What does not: the metrics
(judging.py) and the figures of the newest periods (measures.py).

Invariants:
    - what is kept is what judging everything anew would give: a cutoff is judged again where its forecasts,
      a value of their periods, the members of a level or a promise is another than when it was judged;
    - a cutoff that has left the forecast history keeps its last rows.
"""

from collections.abc import Collection, Iterator, Sequence
from datetime import date
from itertools import islice

import duckdb
import pandas as pd

from turnover_assets.core.accuracy import OF_SERIES, OF_SUMS
from turnover_assets.core.calendar import label_of
from turnover_assets.core.monitoring.judging import (
    CELL,
    judge_series,
    judge_sums,
    promised_like,
    tracking_signals,
)
from turnover_assets.core.monitoring.outcomes import Outcomes
from turnover_assets.core.monitoring.promises import read_promises
from turnover_assets.core.monitoring.tables import ACCURACY, replace_cutoffs
from turnover_assets.panel import PanelSpec

BATCH = 16  # cutoffs judged at a time, so that memory is bounded
COLUMNS = [
    *("cutoff", "horizon", "level", "member", "basis", "model_version", "rows", "periods", "wape", "bias"),
    *("tracking_signal", "coverage_80", "coverage_95", "wape_seasonal_naive", "wape_promised"),
    *("coverage_80_promised", "coverage_95_promised"),
]


def keep_accuracy(
    con: duckdb.DuckDBPyConnection, panel: PanelSpec, cutoffs: Collection[date], last: int
) -> None:
    """Judge the forecasts of some cutoffs by what was reported up to the period `last`, and keep the rows."""
    promises = read_promises(con)
    for batch in _batches(sorted(cutoffs), BATCH):
        outcomes = Outcomes.read(con, panel, batch, last)
        table = accuracy_of(outcomes, promises, panel)
        table["cutoff"] = table["cutoff"].map(lambda t: label_of(panel, int(t)))
        table["updated_at"] = pd.Timestamp.now(tz="UTC")
        replace_cutoffs(con, ACCURACY, table, batch)


def accuracy_of(outcomes: Outcomes, promises: pd.DataFrame, panel: PanelSpec) -> pd.DataFrame:
    """The accuracy of each cutoff by level, member and horizon.

    Args:
        outcomes: The forecasts and what became of them.
        promises: As promises.read_promises gives them.
        panel: The panel.

    Returns:
        COLUMNS, `cutoff` as a period index; a row for each group that has an outcome. `horizon` is missing
        where all are together; only there is a `tracking_signal`, of sums.
    """
    rows, sums = (table.assign(group=table["cutoff"]) for table in (outcomes.rows, outcomes.sums))
    judged = pd.concat(
        [judge_series(rows, panel).assign(basis=OF_SERIES), judge_sums(sums).assign(basis=OF_SUMS)],
        ignore_index=True,
    )
    if judged.empty:
        return pd.DataFrame(columns=COLUMNS)
    judged["model_version"] = judged["group"].map(rows.groupby("cutoff")["model_version"].first())
    judged = _with_promises(judged, promises)
    judged = _with_periods(judged).merge(_signals(sums), on=[*CELL, "basis", "horizon"], how="left")
    return judged.rename(columns={"group": "cutoff"})[COLUMNS]


def _with_promises(judged: pd.DataFrame, promises: pd.DataFrame) -> pd.DataFrame:
    """With the promise for each horizon, and for those together that have outcomes."""
    by = [*CELL, "basis"]
    single = promised_like(judged, promises, [*by, "horizon"])
    together = promised_like(judged, promises, by).assign(horizon=pd.Series(dtype="Int64"))
    both = pd.concat([single, together], ignore_index=True)
    return judged.merge(both.astype({"horizon": "Int64"}), on=[*by, "horizon"], how="left")


def _with_periods(judged: pd.DataFrame) -> pd.DataFrame:
    """With the number of target periods: one for a horizon, as many as horizons for all together."""
    single = judged["horizon"].notna()
    counts = judged[single].groupby([*CELL, "basis"]).size().rename("periods").reset_index()
    found = judged.merge(counts, on=[*CELL, "basis"], how="left")
    found["periods"] = found["periods"].where(found["horizon"].isna(), 1)
    return found


def _signals(sums: pd.DataFrame) -> pd.DataFrame:
    signals = tracking_signals(sums)[[*CELL, "tracking_signal"]]
    return signals.assign(basis=OF_SUMS, horizon=pd.array([pd.NA] * len(signals), dtype="Int64"))


def _batches(items: Sequence[date], size: int) -> Iterator[list[date]]:
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch
