"""Forecasts: the next periods for every series alive, checked, and published as a snapshot.

What belongs here: the forecast and publishing assets. What does not: their checks (checks.py).
"""

from typing import Any

import dagster as dg
import duckdb
import pandas as pd

from turnover_assets import __version__
from turnover_assets.core import pictures, quality
from turnover_assets.core.adjustments import ADJUSTMENTS
from turnover_assets.core.anomalies.findings import FINDINGS
from turnover_assets.core.calendar import label_of
from turnover_assets.core.cutoffs import last_period
from turnover_assets.core.features import check_row_columns
from turnover_assets.core.forecasting import forecast_table
from turnover_assets.core.models import BASELINE
from turnover_assets.core.profiling import PROFILE
from turnover_assets.core.restatements import RESTATEMENTS
from turnover_assets.core.rows import read_rows
from turnover_assets.defs import common
from turnover_assets.defs.model import SCORES
from turnover_assets.defs.reports import monthly_name
from turnover_assets.defs.resources import RegistryResource, WarehouseResource
from turnover_assets.panel import PanelSpec
from turnover_assets.settings import Settings
from turnover_assets.storage import manifest, snapshots

CODE_VERSION = "1"
TABLE = "forecasts.latest"
YEARS_SHOWN = 2


def build(settings: Settings) -> list[dg.AssetsDefinition]:
    """The forecast assets."""
    panel = settings.panel_spec

    @dg.asset(
        key=common.FORECASTS,
        deps=[common.SCORING, common.CHAMPION],
        group_name="forecasts",
        description=f"The next {panel.horizon} periods of every series alive, with 80 % and 95 % bounds.",
        owners=[common.SCIENTISTS],
        kinds={"duckdb"},
        code_version=CODE_VERSION,
        pool=common.POOL,
    )
    def latest(warehouse: WarehouseResource, registry: RegistryResource) -> dg.MaterializeResult[None]:
        version = registry.open().champion_version()
        model = registry.open().load(version)
        with warehouse.open().transaction() as con:
            rows = read_rows(con, panel, "scoring")
            check_row_columns(rows.names, model.features)
            series = con.execute(f"SELECT series_id, {', '.join(panel.keys)} FROM features.series").df()
            table = forecast_table(panel, model.candidate, model.intervals, rows, series)
            table["model_version"] = version
            common.keep_table(con, TABLE, table)
            return dg.MaterializeResult(metadata=_forecast_metadata(con, panel, table))

    @dg.asset(
        key=common.PUBLISHED,
        deps=[
            common.FORECASTS,
            common.cleaned_key(panel.series.name),
            common.cleaned_key("rejected"),
            common.cleaned_key("restatements"),
            common.cleaned_key("findings"),
            common.cleaned_key("adjustments"),
            common.PROFILE,
            dg.AssetKey(["reports", monthly_name(panel)]),
            dg.AssetKey(["reports", "seasonal_profile"]),
        ],
        group_name="forecasts",
        description="An immutable snapshot of what readers see; CURRENT points to the newest one.",
        owners=[common.ENGINEERS],
        kinds={"parquet"},
        code_version=CODE_VERSION,
        freshness_policy=common.freshness(settings),
        pool=common.POOL,
    )
    def published(
        context: dg.AssetExecutionContext, warehouse: WarehouseResource
    ) -> dg.MaterializeResult[None]:
        folder = settings.published_path
        cleaned = common.latest_metadata(context.instance, common.cleaned_key(panel.series.name))
        with warehouse.open().transaction() as con:
            manifest.prepare(con, panel)
            quality.prepare(con)
            facts = _facts(con, panel) | {
                "landed_version": cleaned.get("landed_version"),
                "ledger_version": cleaned.get("ledger_version"),
                "data_version": cleaned.get("data_version"),
                "settings_version": settings.result_version,
                "dagster_run_id": context.run.run_id,
            }
            snapshot = snapshots.publish(con, folder, queries(panel), facts)
        removed = snapshots.prune(folder, settings.keep_snapshots)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(snapshot.name),
            metadata={
                "snapshot": snapshot.name,
                "folder": dg.MetadataValue.path(str(snapshot.folder)),
                "landed_version": str(facts["landed_version"]),
                "ledger_version": str(facts["ledger_version"]),
                "data_version": str(facts["data_version"]),
                "model_version": int(facts["model"]["version"]),
                "tables": {name: table["rows"] for name, table in snapshot.facts["tables"].items()},
                "removed_snapshots": removed,
            },
        )

    return [latest, published]


def queries(panel: PanelSpec) -> dict[str, str]:
    """The published tables: export name to the SQL that makes it."""
    name, target = panel.series.name, panel.target
    keys = ", ".join(panel.keys)
    return {
        "forecasts": f"SELECT * FROM {TABLE} ORDER BY {keys}, horizon",
        name: f"SELECT {keys}, {panel.time}, {target}, {target}_adjusted, adjustment_id FROM cleaned.{name} "
        f"ORDER BY {keys}, t",
        "findings": f"SELECT * FROM {FINDINGS} ORDER BY strength DESC, finding_id",
        "adjustments": f"SELECT * FROM {ADJUSTMENTS} ORDER BY ALL",
        "rejected": "SELECT * FROM cleaned.rejected ORDER BY table_name, file, line, rule",
        "restatements": f"SELECT * FROM {RESTATEMENTS} ORDER BY {keys}, {panel.time}, new_file_no",
        "files": manifest.FILES_QUERY,
        "accuracy": f"SELECT * FROM {SCORES} ORDER BY wape",
        "checks": quality.HISTORY_QUERY,
        "profile": f"SELECT * FROM {PROFILE} ORDER BY made_at, table_name, column_name",
        monthly_name(panel): f"SELECT * FROM reports.{monthly_name(panel)}",
        "seasonal_profile": "SELECT * FROM reports.seasonal_profile",
    }


def _facts(con: duckdb.DuckDBPyConnection, panel: PanelSpec) -> dict[str, Any]:
    cutoff, last, series, version = con.execute(
        f"SELECT max(cutoff), max({panel.time}), "
        f"count(DISTINCT ({', '.join(panel.keys)})), max(model_version) FROM {TABLE}"
    ).fetchall()[0]
    best = con.execute(f"SELECT model, wape FROM {SCORES} ORDER BY wape LIMIT 1").fetchall()[0]
    baseline = con.execute(f"SELECT wape FROM {SCORES} WHERE model = ?", [BASELINE]).fetchall()
    rejected = con.execute("SELECT count(*) FROM cleaned.rejected WHERE action = 'row rejected'").fetchall()
    return {
        "panel": panel.name,
        "cutoff": str(cutoff),
        "last_period": str(last),
        "horizon": panel.horizon,
        "series": series,
        "rejected_rows": rejected[0][0],
        "code_version": __version__,
        "model": {
            "version": version,
            "candidate": best[0],
            "wape": best[1],
            "wape_seasonal_naive": baseline[0][0] if baseline else None,
        },
    }


def _forecast_metadata(
    con: duckdb.DuckDBPyConnection, panel: PanelSpec, table: pd.DataFrame
) -> dict[str, Any]:
    time, target = panel.time, panel.target
    last, season = last_period(con, panel), panel.frequency.season
    totals = con.execute(
        f"SELECT t, CAST({time} AS TIMESTAMP) AS {time}, sum({target}) AS {target} "
        f"FROM cleaned.{panel.series.name} WHERE t > ? GROUP BY ALL ORDER BY t",
        [last - YEARS_SHOWN * season],
    ).df()
    ahead = table.groupby(time)["forecast"].sum().reset_index()
    ahead[time] = pd.to_datetime(ahead[time])
    steps = range(last + 1, last + 1 + panel.horizon)
    year_ago = totals.set_index("t")[target].reindex([t - season for t in steps])
    last_year = pd.DataFrame(
        {time: pd.to_datetime([label_of(panel, t) for t in steps]), target: year_ago.to_numpy()}
    ).dropna()
    image = pictures.forecast(totals, ahead, time, target, last_year)
    return {
        **common.table_metadata(con, TABLE),
        "cutoff": str(table["cutoff"].max()),
        "series": int(table.groupby(list(panel.keys)).ngroups),
        "total_forecast": float(table["forecast"].sum()),
        "picture": common.picture(image, "history and forecast"),
    }
