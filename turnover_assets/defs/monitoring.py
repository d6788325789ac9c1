"""Monitoring: how published forecasts turned out, and what came in, brought up to date at each publishing.

What belongs here: the assets of schema monitoring that follow the forecasts. What does not: the figures
(core/monitoring), the record of runs, alert rules.
"""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import duckdb
import pandas as pd

from turnover_assets.core.accuracy import OF_SERIES, TOTAL
from turnover_assets.core.calendar import label_of
from turnover_assets.core.cutoffs import last_period
from turnover_assets.core.models import BASELINE
from turnover_assets.core.monitoring import inputs, promises, tables
from turnover_assets.core.monitoring.measures import run_measures
from turnover_assets.core.monitoring.pictures import accuracy_by_cutoff
from turnover_assets.core.monitoring.update import update_drift, update_history, update_measures
from turnover_assets.core.tables import has_table
from turnover_assets.defs import common, jobs
from turnover_assets.defs.model import BACKTEST, BACKTEST_SUMS, PLAN, ChallengerPlan
from turnover_assets.defs.resources import RegistryResource, WarehouseResource
from turnover_assets.panel import PanelSpec
from turnover_assets.settings import Settings
from turnover_assets.storage.kept import KeptFiles, kept_files
from turnover_assets.storage.registry import ModelRegistry

CODE_VERSION = "1"
SHOWN_CUTOFFS = 60  # in the picture
DESCRIPTIONS = {
    "accuracy": "How published forecasts turned out, by cutoff, horizon, level and member, beside seasonal "
    "naive and what the backtest promised.",
    "stability": "How much the forecast of a period moved from one cutoff to the next.",
    "drift": "Features and target of the newest cutoff against a year ago.",
    "inputs": "What came in at each publishing: series missing, rows rejected, files refused.",
    "measures": "One figure for each measure as it was seen at each cutoff, for alerts and operators.",
}

COLUMNS = common.COLUMN_DESCRIPTIONS | {
    "basis": "series where errors are those of single series, sums where they are those of sums.",
    "bytes": "Bytes of the accepted files that landed since the cutoff before.",
    "change": "Sum over series of |new - old forecast| over the sum of |old|.",
    "coverage_80": "Share of outcomes inside the 80 % interval.",
    "coverage_80_promised": "The same in the backtest, for the same horizons.",
    "coverage_95": "Share of outcomes inside the 95 % interval.",
    "coverage_95_promised": "The same in the backtest, for the same horizons.",
    "files_accepted": "Files accepted since the cutoff before.",
    "files_refused": "Files refused since the cutoff before.",
    "forecast": "Forecast of this cutoff, summed over the series that both cutoffs forecast.",
    "horizon": "Periods after the cutoff; empty where all are together.",
    "is_drifted": "Whether the PSI is above its limit.",
    "kind": "feature or target.",
    "last_file_no": "Newest file on record.",
    "made_at": "When it was published.",
    "mean": "Mean of the newest values.",
    "measure": "Name of the measure.",
    "missing_share": "Share of what is expected that is missing.",
    "name": "The feature, or the target.",
    "periods": "Target periods that have an outcome.",
    "previous_cutoff": "The cutoff published before.",
    "previous_forecast": "Its forecast of the same series.",
    "psi": "Population stability index against a year ago.",
    "psi_limit": "The PSI from which it counts as drifted; larger where there are few series.",
    "quarantine_rate": "Rows rejected over rows landed.",
    "reference_mean": "Mean of the values a year ago.",
    "reference_missing_share": "Share of the values a year ago that is missing.",
    "reference_rows": "Values a year ago.",
    "rows": "Values, or forecasts with an outcome.",
    "rows_landed": "Rows in the files accepted since the cutoff before.",
    "rows_rejected": "Rows of these that were rejected.",
    "run_id": "The run that published it.",
    "series_expected": "Series expected in the newest period.",
    "series_missing": "Those of them that did not report.",
    "shift": "(new - old) / |old| of the sums of forecasts.",
    "tracking_signal": "Sum of the errors of sums over their mean size; beyond 4 either way is biased.",
    "updated_at": "When it was judged last.",
    "value": "What was measured.",
    "wape_promised": "WAPE in the backtest, for the same horizons.",
    "wape_seasonal_naive": "WAPE of the seasonal naive forecast on the same rows.",
    "wasserstein": "Wasserstein distance from a year ago, in standard deviations of then.",
}


def key(table: str) -> dg.AssetKey:
    """Asset key of a monitoring table."""
    return dg.AssetKey(["monitoring", table])


def build(settings: Settings) -> list[dg.AssetsDefinition]:
    """One operation that brings all of them up to date in one transaction, so that they always agree."""
    panel = settings.panel_spec

    @dg.multi_asset(name="monitor", specs=_specs(panel), pool=common.POOL)
    def monitor(
        context: dg.AssetExecutionContext, warehouse: WarehouseResource, registry: RegistryResource
    ) -> Iterator[dg.MaterializeResult[None]]:
        with warehouse.open().transaction() as con:
            judged = update(con, settings, registry.open(), context.run.run_id)
            results = list(_results(con, judged))
        yield from results

    return [monitor]


def _specs(panel: PanelSpec) -> list[dg.AssetSpec]:
    above = [
        common.RUN_RECORDS,
        common.FORECASTS,
        common.AGGREGATES,
        common.SCORING,
        common.cleaned_key(panel.series.name),
        common.cleaned_key("rejected"),
    ]
    return [
        dg.AssetSpec(
            key(table),
            deps=[*above, *(key(t) for t in DESCRIPTIONS if table == "measures" and t != table)],
            group_name="monitoring",
            description=description,
            owners=[common.SCIENTISTS if table in ("accuracy", "drift") else common.ENGINEERS],
            kinds={"duckdb"},
            code_version=CODE_VERSION,
        )
        for table, description in DESCRIPTIONS.items()
    ]


def update(con: duckdb.DuckDBPyConnection, settings: Settings, registry: ModelRegistry, run_id: str) -> int:
    """Bring every table up to date; returns how many cutoffs were judged."""
    panel = settings.panel_spec
    tables.prepare(con, panel)
    last = last_period(con, panel)
    keep_promises(con, panel, registry)
    judged = update_history(con, panel, last)
    drift = update_drift(con, panel, last)
    kept = kept_files(settings.warehouse_path.parent)
    came_in = _keep_inputs(con, settings, last, {"run_id": run_id}, kept)
    others = {
        "missing_share": came_in["missing_share"],
        "quarantine_rate": came_in["quarantine_rate"],
        "refused_files": came_in["files_refused"],
        **run_measures(con, (jobs.REFRESH, jobs.RETRAIN)),
    }
    update_measures(con, panel, last, drift, others)
    return len(judged)


def _keep_inputs(
    con: duckdb.DuckDBPyConnection, settings: Settings, last: int, facts: dict[str, Any], kept: KeptFiles
) -> dict[str, Any]:
    panel = settings.panel_spec
    cutoff = label_of(panel, last)
    landed = inputs.landed_since(con, cutoff)
    sizes = [
        kept.path(digest).stat().st_size for digest in inputs.landed_digests(con, cutoff) if kept.has(digest)
    ]
    expected = inputs.missing_series(con, panel, last, settings.alive_periods)
    return inputs.keep_inputs(con, panel, cutoff, expected, {**facts, **landed, "bytes": sum(sizes)})


def keep_promises(con: duckdb.DuckDBPyConnection, panel: PanelSpec, registry: ModelRegistry) -> None:
    """Keep what the backtest promised of the newest model, and what is known of the champion.

    Every version is the newest when it is trained, so its promises are kept before it forecasts. Only of
    those trained by an earlier release, or before the warehouse was lost, there are just the figures that
    were registered.
    """
    newest, champion = int(registry.newest_tags()["version"]), registry.champion_version()
    if not promises.has_promises(con, newest) and all(has_table(con, t) for t in (BACKTEST, PLAN)):
        model = ChallengerPlan.read(con).name
        rows = con.execute(f"SELECT * FROM {BACKTEST} WHERE is_compared AND model = ?", [model]).df()
        naive = con.execute(f"SELECT * FROM {BACKTEST} WHERE is_compared AND model = ?", [BASELINE]).df()
        sums = con.execute(
            f"SELECT * FROM {BACKTEST_SUMS} WHERE model = ? AND cutoff IN "
            f"(SELECT cutoff FROM {BACKTEST} WHERE is_compared)",
            [model],
        ).df()
        promises.keep_promises(con, newest, promises.promises_of(rows, sums, naive, panel))
    if not promises.has_promises(con, champion):
        figures = registry.load(champion).backtest
        found = promises.promise_of_figures(figures, f"wape_{BASELINE}")
        promises.keep_promises(con, champion, found)


def _results(con: duckdb.DuckDBPyConnection, judged: int) -> Iterator[dg.MaterializeResult[None]]:
    """The tables, each with what a person would look at first."""
    shown = {
        "accuracy": _accuracy_shown(con, judged),
        "stability": _preview(
            con, f"FROM {tables.STABILITY} WHERE level = '{TOTAL}' ORDER BY cutoff DESC, 3 LIMIT 20"
        ),
        "drift": _preview(
            con,
            f"FROM {tables.DRIFT} WHERE cutoff = (SELECT max(cutoff) FROM {tables.DRIFT}) "
            "ORDER BY psi DESC NULLS LAST LIMIT 20",
        ),
        "inputs": _preview(con, f"FROM {tables.INPUTS} ORDER BY made_at DESC LIMIT 8"),
        "measures": _preview(
            con,
            f"SELECT measure, value FROM {tables.MEASURES} WHERE level = '{TOTAL}' "
            f"AND cutoff = (SELECT max(cutoff) FROM {tables.MEASURES}) ORDER BY measure LIMIT 20",
        ),
    }
    for table, metadata in shown.items():
        schema = common.table_metadata(con, f"monitoring.{table}", COLUMNS)
        yield dg.MaterializeResult(asset_key=key(table), metadata={**schema, **metadata})


def _preview(con: duckdb.DuckDBPyConnection, query: str) -> dict[str, Any]:
    return {"newest": common.preview(con.execute(query).df())}


def _accuracy_shown(con: duckdb.DuckDBPyConnection, judged: int) -> dict[str, Any]:
    columns = "cutoff, periods, wape, wape_seasonal_naive, wape_promised"
    table = con.execute(
        f"SELECT {columns} FROM {tables.ACCURACY} WHERE level = '{TOTAL}' AND basis = '{OF_SERIES}' "
        "AND horizon IS NULL ORDER BY cutoff DESC LIMIT ?",
        [SHOWN_CUTOFFS],
    ).df()
    shown = {"judged_cutoffs": judged, "newest": common.preview(table)}
    if len(table):
        image = accuracy_by_cutoff(table.iloc[::-1].assign(cutoff=pd.to_datetime(table["cutoff"])))
        shown["picture"] = common.picture(image, "accuracy of published forecasts")
    return shown
