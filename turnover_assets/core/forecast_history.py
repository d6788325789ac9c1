"""The history of forecasts: what was forecast at each cutoff, by whom, and how it turned out.

What belongs here: keeping the rows, and joining them to what was reported since. What does not: making
forecasts, and deciding anything on their accuracy.

The tables outlive every run and are carried over when the warehouse is rebuilt, since no landed file can tell
what was forecast when.
"""

from collections.abc import Mapping, Sequence

import duckdb
import pandas as pd

from turnover_assets.core.calendar import index_of
from turnover_assets.core.intervals import BOUNDS
from turnover_assets.core.tables import has_table
from turnover_assets.panel import PanelSpec

HISTORY = "reports.forecast_history"
AGGREGATE_HISTORY = "reports.aggregate_history"
CHAMPION, CHALLENGER, BASELINE = ROLES = ("champion", "challenger", "baseline")
KEPT_CUTOFFS = 160  # newest cutoffs that are kept


def keep_forecasts(
    con: duckdb.DuckDBPyConnection, panel: PanelSpec, tables: Mapping[str, pd.DataFrame]
) -> int:
    """Keep forecasts of one cutoff in place of what was kept of it before.

    Args:
        con: Connection with schema reports.
        panel: The panel.
        tables: By role: forecasts as forecasting.forecast_table makes them, with `model_version`, all of the
            same cutoff.

    Returns:
        The rows kept of that cutoff.
    """
    table = pd.concat([table.assign(role=role) for role, table in tables.items()], ignore_index=True)
    columns = [*panel.keys, "cutoff", panel.time, "horizon", "forecast", *BOUNDS, "model_version", "role"]
    _keep(con, HISTORY, table[columns], ["role", *panel.keys, "horizon"])
    return len(table)


def keep_aggregates(con: duckdb.DuckDBPyConnection, table: pd.DataFrame, version: int) -> None:
    """Keep the champion's sums of one cutoff, with their bounds, in place of what was kept of it before.

    Args:
        con: Connection with schema reports.
        table: Sums as forecasting.aggregate_table makes them.
        version: The champion's version.
    """
    _keep(con, AGGREGATE_HISTORY, table.assign(model_version=version), ["level", "member", "horizon"])


def _keep(con: duckdb.DuckDBPyConnection, name: str, table: pd.DataFrame, order: Sequence[str]) -> None:
    """Put rows in place of those of their cutoffs, with the time; the oldest cutoffs go."""
    con.register("rows_of_cutoff", table)
    rows = "SELECT *, now() AS made_at FROM rows_of_cutoff"
    con.execute(f"CREATE TABLE IF NOT EXISTS {name} AS {rows} LIMIT 0")
    con.execute(f"DELETE FROM {name} WHERE cutoff IN (SELECT cutoff FROM rows_of_cutoff)")
    con.execute(f"INSERT INTO {name} BY NAME {rows} ORDER BY {', '.join(order)}")
    con.unregister("rows_of_cutoff")
    con.execute(
        f"DELETE FROM {name} WHERE cutoff NOT IN "
        f"(SELECT DISTINCT cutoff FROM {name} ORDER BY cutoff DESC LIMIT {KEPT_CUTOFFS})"
    )


def old_shadows(con: duckdb.DuckDBPyConnection, cutoffs: int, champion: int | None) -> list[tuple[str, int]]:
    """Cutoffs whose shadow forecasts are too old to keep, and the rows of each, oldest first.

    Those of the newest cutoffs are left out, and the baseline wherever the champion has forecast, since the
    policy of retraining compares the two over all of them.

    Args:
        con: Connection to the warehouse.
        cutoffs: How many of the newest cutoffs are left out.
        champion: Version of the champion; None where there is none.
    """
    if not has_table(con, HISTORY):
        return []
    found = con.execute(
        f"SELECT CAST(cutoff AS VARCHAR), count(*) FROM {HISTORY} WHERE {_OLD_SHADOW} GROUP BY 1 ORDER BY 1",
        _old_shadow_values(cutoffs, champion),
    ).fetchall()
    return [(str(cutoff), int(rows)) for cutoff, rows in found]


def remove_old_shadows(con: duckdb.DuckDBPyConnection, cutoffs: int, champion: int | None) -> None:
    """Remove what old_shadows lists; forecasts that were published stay."""
    if has_table(con, HISTORY):
        con.execute(f"DELETE FROM {HISTORY} WHERE {_OLD_SHADOW}", _old_shadow_values(cutoffs, champion))


_OLD_SHADOW = (
    f"role <> '{CHAMPION}' AND cutoff NOT IN "
    f"(SELECT DISTINCT cutoff FROM {HISTORY} ORDER BY cutoff DESC LIMIT ?) "
    f"AND NOT (role = '{BASELINE}' AND cutoff IN "
    f"(SELECT cutoff FROM {HISTORY} WHERE role = '{CHAMPION}' AND model_version = ?))"
)


def _old_shadow_values(cutoffs: int, champion: int | None) -> list[int]:
    return [cutoffs, champion or 0]


def published_versions(con: duckdb.DuckDBPyConnection) -> set[int]:
    """Model versions whose forecasts were published at a kept cutoff."""
    if not has_table(con, HISTORY):
        return set()
    found = con.execute(f"SELECT DISTINCT model_version FROM {HISTORY} WHERE role = '{CHAMPION}'").fetchall()
    return {int(version) for (version,) in found}


def outcomes(con: duckdb.DuckDBPyConnection, panel: PanelSpec, last: int) -> pd.DataFrame:
    """Every kept forecast whose target period was reported.

    Args:
        con: Connection with the cleaned tables.
        panel: The panel.
        last: Index of the last period that counts as reported.

    Returns:
        A row each: the series keys, `cutoff` and `t` (period indices), `horizon`, `actual` (reported),
        `forecast`, bounds, `model_version`, `role`; none where nothing was kept yet.
    """
    names = [*panel.keys, "cutoff", "t", "horizon", "actual", "forecast", *BOUNDS, "model_version", "role"]
    if not has_table(con, HISTORY):
        return pd.DataFrame({name: pd.Series(dtype=object if name == "role" else float) for name in names})
    columns = ", ".join(f"h.{name}" for name in (*panel.keys, "cutoff", "horizon", "forecast", *BOUNDS))
    on = " AND ".join(f"s.{key} = h.{key}" for key in (*panel.keys, panel.time))
    table = con.execute(
        f"SELECT {columns}, h.model_version, h.role, s.t, s.{panel.target} AS actual FROM {HISTORY} AS h "
        f"JOIN cleaned.{panel.series.name} AS s ON {on} WHERE s.t <= ? AND s.{panel.target} IS NOT NULL "
        "ORDER BY ALL",
        [last],
    ).df()
    periods = {label: index_of(panel, pd.Timestamp(label).date()) for label in table["cutoff"].unique()}
    return table.assign(cutoff=table["cutoff"].map(periods))[names]
