"""Checks: what must hold of a table before anything below it runs, and what someone should look at.

What belongs here: the asset checks. What does not: the assets.
"""

from collections.abc import Sequence

import dagster as dg

from turnover_assets.core import cleaning
from turnover_assets.core.forecasting import disordered_forecasts, incomplete_series
from turnover_assets.core.rows import last_period, rows_ahead
from turnover_assets.defs import common
from turnover_assets.defs.resources import WarehouseResource
from turnover_assets.panel import PanelSpec
from turnover_assets.settings import Settings

REJECTED_LIMIT = 0.01  # share of rejected rows above which someone should look


def build(settings: Settings) -> list[dg.AssetChecksDefinition]:
    """All checks."""
    return [*_cleaned_checks(settings), *_forecast_checks(settings)]


def _cleaned_checks(settings: Settings) -> list[dg.AssetChecksDefinition]:
    """Blocking checks of the cleaned series table (nothing below it runs where one fails), and a warning."""
    panel = settings.panel_spec
    table, key = f"cleaned.{panel.series.name}", common.cleaned_key(panel.series.name)

    @dg.asset_check(asset=key, blocking=True, pool=common.POOL, description="The columns are as defined.")
    def schema(warehouse: WarehouseResource) -> dg.AssetCheckResult:
        with warehouse.open().transaction() as con:
            found = [row[0] for row in con.execute(f"DESCRIBE {table}").fetchall()]
        missing = sorted({*_columns(panel)} - {*found})
        return dg.AssetCheckResult(
            passed=not missing, metadata={"missing_columns": missing, "columns": found}
        )

    @dg.asset_check(asset=key, blocking=True, pool=common.POOL, description="One row a series and period.")
    def unique_keys(warehouse: WarehouseResource) -> dg.AssetCheckResult:
        repeated = _count(warehouse, _repeated_sql(table, [*panel.keys, "t"]))
        return dg.AssetCheckResult(passed=repeated == 0, metadata={"repeated_keys": repeated})

    @dg.asset_check(asset=key, blocking=True, pool=common.POOL, description="Rows, with keys and values.")
    def complete_rows(warehouse: WarehouseResource) -> dg.AssetCheckResult:
        needed = " OR ".join(f"{column} IS NULL" for column in [*panel.keys, panel.time, panel.target, "t"])
        empty = _count(warehouse, f"SELECT count(*) FROM {table} WHERE {needed}")
        rows = _count(warehouse, f"SELECT count(*) FROM {table}")
        return dg.AssetCheckResult(
            passed=rows > 0 and empty == 0, metadata={"rows": rows, "incomplete": empty}
        )

    @dg.asset_check(asset=common.cleaned_key("rejected"), pool=common.POOL, description="Few are rejected.")
    def few_rejected(warehouse: WarehouseResource) -> dg.AssetCheckResult:
        only_rows = "WHERE action = 'row rejected'"
        rejected = _count(warehouse, f"SELECT count(*) FROM {cleaning.REJECTED} {only_rows}")
        kept = _count(warehouse, f"SELECT count(*) FROM {table}")
        share = rejected / max(1, rejected + kept)
        return dg.AssetCheckResult(
            passed=share <= REJECTED_LIMIT,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={"rejected": rejected, "share": share, "limit": REJECTED_LIMIT},
        )

    @dg.asset_check(asset=key, pool=common.POOL, description="No rows ahead of the newest reported period.")
    def no_rows_ahead(warehouse: WarehouseResource) -> dg.AssetCheckResult:
        with warehouse.open().transaction() as con:
            ahead = rows_ahead(con, panel)
        return dg.AssetCheckResult(
            passed=ahead == 0, severity=dg.AssetCheckSeverity.WARN, metadata={"rows_ahead": ahead}
        )

    return [schema, unique_keys, complete_rows, few_rejected, no_rows_ahead]


def _columns(panel: PanelSpec) -> list[str]:
    return [*panel.keys, panel.time, panel.target, f"{panel.target}_adjusted", "adjustment_id", "t"]


def _repeated_sql(table: str, columns: Sequence[str]) -> str:
    keys = ", ".join(columns)
    return f"SELECT count(*) FROM (SELECT {keys} FROM {table} GROUP BY ALL HAVING count(*) > 1)"


def _count(warehouse: WarehouseResource, sql: str) -> int:
    with warehouse.open().transaction() as con:
        return int(con.execute(sql).fetchall()[0][0])


def _forecast_checks(settings: Settings) -> list[dg.AssetChecksDefinition]:
    """Blocking checks of the forecasts: nothing is published where one fails."""
    panel = settings.panel_spec

    @dg.asset_check(
        asset=common.FORECASTS,
        blocking=True,
        pool=common.POOL,
        description="Every series alive has a forecast for every horizon.",
    )
    def every_live_series(warehouse: WarehouseResource) -> dg.AssetCheckResult:
        with warehouse.open().transaction() as con:
            lacking = incomplete_series(con, panel, last_period(con, panel), settings.alive_periods)
        return dg.AssetCheckResult(
            passed=lacking.empty,
            metadata={"series_lacking_forecasts": len(lacking), "examples": common.preview(lacking)},
        )

    @dg.asset_check(
        asset=common.FORECASTS,
        blocking=True,
        pool=common.POOL,
        description="Forecasts are finite, inside their bounds, and not negative where the panel says so.",
    )
    def ordered_bounds(warehouse: WarehouseResource) -> dg.AssetCheckResult:
        with warehouse.open().transaction() as con:
            wrong = disordered_forecasts(con, nonnegative=panel.series.target.nonnegative)
        return dg.AssetCheckResult(passed=wrong == 0, metadata={"disordered_rows": wrong})

    return [every_live_series, ordered_bounds]
