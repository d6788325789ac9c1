"""Bringing the monitoring tables up to date, after a publishing's forecasts were made.

What belongs here: what is made of what, in which order, and what need not be made again. What does not: the
figures, which are those of the modules around.
"""

from collections.abc import Mapping
from datetime import date
from typing import Any

import duckdb
import pandas as pd

from turnover_assets.core.calendar import label_of
from turnover_assets.core.forecast_history import HISTORY
from turnover_assets.core.monitoring.accuracy import keep_accuracy
from turnover_assets.core.monitoring.drift import feature_drift, target_drift
from turnover_assets.core.monitoring.measures import (
    accuracy_measures,
    drift_measures,
    joined,
    of_total,
    stability_measures,
)
from turnover_assets.core.monitoring.outcomes import Outcomes, fingerprints
from turnover_assets.core.monitoring.promises import read_promises
from turnover_assets.core.monitoring.stability import keep_stability, read_pairs
from turnover_assets.core.monitoring.tables import DRIFT, JUDGED, MEASURES, replace_cutoffs
from turnover_assets.core.rows import read_rows, series_sql
from turnover_assets.panel import PanelSpec


def update_history(con: duckdb.DuckDBPyConnection, panel: PanelSpec, last: int) -> list[date]:
    """Bring accuracy and stability of every kept cutoff up to date.

    Args:
        con: Connection with the cleaned tables, the forecast history and the promises.
        panel: The panel.
        last: The last period that counts as reported.

    Returns:
        The cutoffs (labels) that were judged, since what they are made from has changed.
    """
    now = fingerprints(con, panel, last)
    before = con.execute(f"SELECT cutoff, outcomes, forecasts FROM {JUDGED}").fetchall()
    known = {cutoff: (outcomes, forecasts) for cutoff, outcomes, forecasts in before}
    changed = [[c for c, new in now.items() if new[i] != known.get(c, ("", ""))[i]] for i in range(2)]
    keep_accuracy(con, panel, changed[0], last)
    keep_stability(con, panel, changed[1])
    con.execute(f"DELETE FROM {JUDGED}")
    con.executemany(f"INSERT INTO {JUDGED} VALUES (?, ?, ?)", [[c, *new] for c, new in now.items()])
    return changed[0]


def update_drift(con: duckdb.DuckDBPyConnection, panel: PanelSpec, last: int) -> pd.DataFrame:
    """Compare features and target of the newest cutoff with a year ago; returns the rows that are kept."""
    rows, year_ago = read_rows(con, panel, "scoring"), read_rows(con, panel, "year_ago")
    series = con.execute(series_sql(panel)).df()
    found = feature_drift(panel, rows, year_ago, series) + target_drift(con, panel, last)
    cutoff = label_of(panel, last)
    table = pd.DataFrame(found).assign(cutoff=cutoff)
    replace_cutoffs(con, DRIFT, table, [cutoff])
    return table


def update_measures(
    con: duckdb.DuckDBPyConnection,
    panel: PanelSpec,
    last: int,
    drift: pd.DataFrame,
    others: Mapping[str, Any],
) -> pd.DataFrame:
    """Take the measures of the newest cutoff, in place of those taken of it before.

    Args:
        con: Connection with everything that is measured.
        panel: The panel.
        last: The last period that counts as reported.
        drift: As update_drift gives it.
        others: Measures that only the total has, by name.
    """
    cutoff = label_of(panel, last)
    oldest = label_of(panel, last - 2 * panel.horizon)
    cutoffs = [
        row[0]
        for row in con.execute(
            f"SELECT DISTINCT cutoff FROM {HISTORY} WHERE cutoff > ? AND cutoff < ?", [oldest, cutoff]
        ).fetchall()
    ]
    newest = Outcomes.read(con, panel, cutoffs, last).within(last - panel.horizon)
    table = joined(
        accuracy_measures(newest, read_promises(con), panel),
        stability_measures(read_pairs(con, panel, cutoff)),
        drift_measures(drift),
        of_total(others),
    )
    replace_cutoffs(con, MEASURES, table.assign(cutoff=cutoff), [cutoff])
    return table
