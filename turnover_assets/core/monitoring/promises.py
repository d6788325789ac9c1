"""What a model's backtest promised, kept when it was made.

What belongs here: figures of a backtest in the shape that outcomes are judged in, one set for each model
version, never changed afterwards. What does not: comparing with them (judging.py).
"""

from collections.abc import Mapping

import duckdb
import numpy as np
import pandas as pd

from turnover_assets.core.accuracy import ALL, OF_SERIES, OF_SUMS, TOTAL
from turnover_assets.core.aggregates import aggregate
from turnover_assets.core.monitoring.judging import PROMISED, judge_series, judge_sums
from turnover_assets.core.monitoring.tables import PROMISES
from turnover_assets.panel import PanelSpec

_ROW = ["level", "member", "cutoff", "t", "horizon"]


def promises_of(
    rows: pd.DataFrame, sums: pd.DataFrame, naive: pd.DataFrame, panel: PanelSpec
) -> pd.DataFrame:
    """The promises that follow from a backtest.

    Args:
        rows: The model's backtest rows over the compared windows.
        sums: Its sums over them, with bounds.
        naive: The seasonal naive candidate's rows over them.
        panel: The panel.

    Returns:
        A row for each basis, level, member and horizon (missing: all): PROMISED.
    """
    by = [*panel.keys, "cutoff", "horizon"]
    beside = naive[[*by, "forecast"]].rename(columns={"forecast": "naive"})
    own = rows.merge(beside, on=by, how="left").assign(group=0)
    naive_sums = aggregate(naive, panel.level_names)[[*_ROW, "forecast"]]
    own_sums = sums.merge(naive_sums.rename(columns={"forecast": "naive"}), on=_ROW, how="left").assign(
        group=0
    )
    found = pd.concat(
        [judge_series(own, panel).assign(basis=OF_SERIES), judge_sums(own_sums).assign(basis=OF_SUMS)],
        ignore_index=True,
    )
    return found[["basis", "level", "member", "horizon", *PROMISED]]


def promise_of_figures(figures: Mapping[str, float], naive: str) -> pd.DataFrame:
    """All that is known of a model whose backtest is gone: the figures that were registered with it.

    Args:
        figures: As training.promise gives them.
        naive: The name under which they have the WAPE of seasonal naive.
    """
    known = {**figures, "wape_seasonal_naive": figures.get(naive, np.nan)}
    row = {name: known.get(name, np.nan) for name in PROMISED}
    return pd.DataFrame([{"basis": OF_SERIES, "level": TOTAL, "member": ALL, "horizon": pd.NA, **row}])


def has_promises(con: duckdb.DuckDBPyConnection, version: int) -> bool:
    """Whether promises of a model version are kept."""
    found = con.execute(f"SELECT count(*) FROM {PROMISES} WHERE model_version = ?", [version]).fetchall()
    return bool(found[0][0])


def keep_promises(con: duckdb.DuckDBPyConnection, version: int, promises: pd.DataFrame) -> None:
    """Keep the promises of a model version; those kept before stay."""
    if has_promises(con, version):
        return
    con.register("promises_to_keep", promises.assign(model_version=version))
    con.execute(f"INSERT INTO {PROMISES} BY NAME SELECT * FROM promises_to_keep")
    con.unregister("promises_to_keep")


def read_promises(con: duckdb.DuckDBPyConnection) -> pd.DataFrame:
    """The promises of every model version."""
    found = con.execute(f"SELECT * FROM {PROMISES}").df()
    return found.astype({"horizon": "Int64", "model_version": "Int64"})
