"""Cleaned: typed tables, unique on their keys, with every rejected row kept apart.

What belongs here: the assets of cleaned tables and their blocking checks. What does not: the rules.
"""

from collections.abc import Iterator, Sequence

import dagster as dg
import duckdb

from turnover_assets.core import cleaning, pictures, reports
from turnover_assets.core.rows import rows_ahead
from turnover_assets.defs import common
from turnover_assets.defs.resources import WarehouseResource
from turnover_assets.panel import PanelSpec
from turnover_assets.settings import Settings
from turnover_assets.storage import landing

CODE_VERSION = "1"
REJECTED_LIMIT = 0.01  # share of rejected rows above which someone should look


def build(settings: Settings) -> list[dg.AssetsDefinition]:
    """One operation that cleans all tables in one transaction, so that they always agree."""
    panel = settings.panel_spec

    @dg.multi_asset(
        name="clean",
        specs=[_spec(panel, table) for table in [*_attribute_tables(panel), panel.series.name, "rejected"]],
        pool=common.POOL,
    )
    def clean(warehouse: WarehouseResource) -> Iterator[dg.MaterializeResult[None]]:
        with warehouse.open().transaction() as con:
            landing.prepare(con, panel)
            cleaning.clean_all(con, panel)
            results = list(_results(con, panel))
        yield from results

    return [clean]


def _attribute_tables(panel: PanelSpec) -> list[str]:
    return [table for table in panel.tables if table != panel.series.name]


def _spec(panel: PanelSpec, table: str) -> dg.AssetSpec:
    descriptions = {
        panel.series.name: f"Reported {panel.target} per series and {panel.time}, unique, with the adjusted "
        "value beside it.",
        "rejected": "Every rejected row, with file, line, the rule it broke and its content.",
    }
    return dg.AssetSpec(
        common.cleaned_key(table),
        deps=[common.LANDED],
        group_name="cleaned",
        description=descriptions.get(table, f"Attributes and values known ahead from the {table} files."),
        owners=[common.ENGINEERS],
        kinds={"duckdb", "sql"},
        code_version=CODE_VERSION,
    )


def _results(con: duckdb.DuckDBPyConnection, panel: PanelSpec) -> Iterator[dg.MaterializeResult[None]]:
    version = cleaning.content_version(con, panel)
    for table in _attribute_tables(panel):
        yield dg.MaterializeResult(
            asset_key=common.cleaned_key(table), metadata=common.table_metadata(con, f"cleaned.{table}")
        )
    history = reports.level_history(con, panel)
    yield dg.MaterializeResult(
        asset_key=common.cleaned_key(panel.series.name),
        data_version=dg.DataVersion(version),
        metadata={
            **common.table_metadata(con, f"cleaned.{panel.series.name}"),
            "data_version": version,
            "landed_version": landing.landed_version(landing.manifest(con, panel), panel),
            "picture": common.picture(
                pictures.history(history, panel.time, panel.report_level, panel.target),
                f"{panel.target} by {panel.report_level}",
            ),
        },
    )
    counts = con.execute(
        "SELECT table_name, rule, action, count(*) AS rows "
        f"FROM {cleaning.REJECTED} GROUP BY ALL ORDER BY ALL"
    ).df()
    yield dg.MaterializeResult(
        asset_key=common.cleaned_key("rejected"),
        metadata={**common.table_metadata(con, cleaning.REJECTED), "by_rule": common.preview(counts)},
    )


def build_checks(settings: Settings) -> list[dg.AssetChecksDefinition]:
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
