"""Forecasts: the next periods for every series alive, checked, and published as a snapshot.

What belongs here: the forecast and publishing assets. What does not: their checks (checks.py).
"""

from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg
import duckdb
import numpy as np
import pandas as pd

from turnover_assets import __version__
from turnover_assets.core import pictures, quality
from turnover_assets.core.adjustments import ADJUSTMENTS
from turnover_assets.core.anomalies.findings import FINDINGS
from turnover_assets.core.as_of import AS_OF
from turnover_assets.core.calendar import label_of, label_sql
from turnover_assets.core.cutoffs import last_period
from turnover_assets.core.explanation_pictures import importance_picture
from turnover_assets.core.explanations import effect_shares, explain_forecasts
from turnover_assets.core.feature_words import feature_words
from turnover_assets.core.features import check_row_columns
from turnover_assets.core.forecast_history import BASELINE as BASELINE_ROLE
from turnover_assets.core.forecast_history import (
    CHALLENGER,
    CHAMPION,
    HISTORY,
    keep_aggregates,
    keep_forecasts,
)
from turnover_assets.core.forecasting import aggregate_table, forecast_table
from turnover_assets.core.golden import golden_rows
from turnover_assets.core.intervals import BOUNDS
from turnover_assets.core.level_changes import NONE, LevelChanges, kept_facts, since_training
from turnover_assets.core.models import BASELINE, Rows, candidate_class
from turnover_assets.core.monitoring.tables import prepare as prepare_monitoring
from turnover_assets.core.monitoring.tables import published_queries as monitoring_queries
from turnover_assets.core.profiling import PROFILE
from turnover_assets.core.restatements import RESTATEMENTS
from turnover_assets.core.retraining import RETRAINING
from turnover_assets.core.rows import USUAL_CHANGES, read_rows, series_sql
from turnover_assets.core.run_records import RUNS, STEPS
from turnover_assets.core.seen import TRAINING, ranges_sql
from turnover_assets.core.tables import has_table
from turnover_assets.defs import common
from turnover_assets.defs.as_of import add_cutoffs
from turnover_assets.defs.model import ACCURACY, BACKTEST, BACKTEST_SUMS, GATE_CHECKS, SCORES
from turnover_assets.defs.reports import monthly_name
from turnover_assets.defs.resources import RegistryResource, WarehouseResource
from turnover_assets.defs.run_records import DECISIONS
from turnover_assets.errors import TurnoverError
from turnover_assets.panel import PanelSpec
from turnover_assets.settings import Settings
from turnover_assets.storage import manifest, snapshots
from turnover_assets.storage.published_model import PublishedModel
from turnover_assets.storage.registry import ModelRegistry, TrainedModel

CODE_VERSION = "3"
TABLE = "forecasts.latest"
AGGREGATES = "forecasts.aggregates"
EXPLANATIONS = "forecasts.explanations"
MODEL = "forecasts.model"
LEVEL_CHANGES = "forecasts.level_changes"
OF_TRAINING = {
    "accuracy": SCORES,
    "backtest": BACKTEST,
    "backtest_aggregates": BACKTEST_SUMS,
    "backtest_accuracy": ACCURACY,
    "gate_checks": GATE_CHECKS,
    "feature_ranges": TRAINING,
}
OF_OTHERS = {
    "level_changes": LEVEL_CHANGES,
    "forecasts_as_of": AS_OF,
    "runs": RUNS,
    "steps": STEPS,
    "decisions": DECISIONS,
}
FIGURES = ("wape", "wape_seasonal_naive")
YEARS_SHOWN = 2


def build(settings: Settings) -> list[dg.AssetsDefinition]:
    """The forecast assets."""
    panel = settings.panel_spec

    @dg.multi_asset(
        name="forecast",
        specs=[_forecast_spec(key, text) for key, text in descriptions(panel).items()],
        pool=common.POOL,
    )
    def forecast(
        warehouse: WarehouseResource, registry: RegistryResource
    ) -> Iterator[dg.MaterializeResult[None]]:
        with warehouse.open().transaction() as con:
            made = make_forecasts(con, panel, registry.open())
            metadata = _forecast_metadata(con, panel, made)
            sums = common.table_metadata(con, AGGREGATES)
        yield dg.MaterializeResult(asset_key=common.FORECASTS, metadata=metadata)
        yield dg.MaterializeResult(asset_key=common.AGGREGATES, metadata=sums)

    @dg.asset(
        key=common.EXPLANATIONS,
        deps=[common.FORECASTS],
        group_name="forecasts",
        description="Why each forecast is what it is: steps from last year that add up to it, and in words.",
        owners=[common.SCIENTISTS],
        kinds={"duckdb"},
        code_version=CODE_VERSION,
        pool=common.POOL,
    )
    def explanations(warehouse: WarehouseResource, registry: RegistryResource) -> dg.MaterializeResult[None]:
        candidate = registry.open().load(registry.open().champion_version()).candidate
        with warehouse.open().transaction() as con:
            rows, year_ago = read_rows(con, panel, "scoring"), read_rows(con, panel, "year_ago")
            series = con.execute(f"{series_sql(panel)} ORDER BY series_id").df()
            kept = has_table(con, LEVEL_CHANGES)
            changes = LevelChanges(con.execute(f"FROM {LEVEL_CHANGES}").df()) if kept else NONE
            table = explain_forecasts(panel, candidate, rows, year_ago, series, changes)
            schema = common.keep_table(con, EXPLANATIONS, table)
        shares, words = candidate.importance(rows.names), feature_words(panel)
        image = importance_picture(effect_shares(panel, table), shares, words)
        return dg.MaterializeResult(
            metadata={
                **schema,
                "picture": common.picture(image, "what moves forecasts"),
                "sentences": common.preview(table[[*panel.keys, panel.time, "sentence"]].head(8)),
            }
        )

    @dg.asset(
        key=common.PUBLISHED,
        deps=[
            common.FORECASTS,
            common.AGGREGATES,
            common.EXPLANATIONS,
            common.RETRAINING,
            common.MONITORING,
            common.cleaned_key(panel.series.name),
            common.cleaned_key("rejected"),
            common.cleaned_key("restatements"),
            common.cleaned_key("findings"),
            common.cleaned_key("adjustments"),
            common.PROFILE,
            common.AS_OF,
            common.RUN_RECORDS,
            common.STEP_RECORDS,
            common.DECISIONS,
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
        context: dg.AssetExecutionContext, warehouse: WarehouseResource, registry: RegistryResource
    ) -> dg.MaterializeResult[None]:
        folder = settings.published_path
        cleaned = common.latest_metadata(context.instance, common.cleaned_key(panel.series.name))
        with warehouse.open().transaction() as con:
            manifest.prepare(con, panel)
            quality.prepare(con)
            prepare_monitoring(con, panel)
            facts = _facts(con, panel) | {
                "landed_version": cleaned.get("landed_version"),
                "ledger_version": cleaned.get("ledger_version"),
                "data_version": cleaned.get("data_version"),
                "settings_version": settings.result_version,
                "dagster_run_id": context.run.run_id,
            }
            add_cutoffs(context.instance, con, panel, settings.alive_periods)
            model = published_model(context, con, panel, registry.open())
            snapshot = snapshots.publish(con, folder, available_queries(con, panel), facts, model)
        removed = snapshots.prune(folder, settings.keep_snapshots)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(snapshot.name),
            metadata={
                "snapshot": snapshot.name,
                "folder": dg.MetadataValue.path(str(snapshot.folder)),
                "landed_version": str(facts["landed_version"]),
                "ledger_version": str(facts["ledger_version"]),
                "settings_version": settings.result_version,
                "code_version": __version__,
                "data_version": str(facts["data_version"]),
                "as_of_run": common.latest_run(context.instance, common.AS_OF),
                "bytes": sum(noted["bytes"] for noted in snapshot.files.values()),
                "model_version": int(facts["model"]["version"]),
                "tables": {name: table["rows"] for name, table in snapshot.facts["tables"].items()},
                "removed_snapshots": removed,
            },
        )

    return [forecast, explanations, published]


def descriptions(panel: PanelSpec) -> dict[dg.AssetKey, str]:
    """What the forecast tables are."""
    return {
        common.FORECASTS: f"The next {panel.horizon} periods of every series alive, with bounds.",
        common.AGGREGATES: "Their sums by level and in total, with bounds of their own.",
    }


def _forecast_spec(key: dg.AssetKey, description: str) -> dg.AssetSpec:
    return dg.AssetSpec(
        key,
        deps=[common.SCORING, common.CHAMPION],
        group_name="forecasts",
        description=description,
        owners=[common.SCIENTISTS],
        kinds={"duckdb"},
        code_version=CODE_VERSION,
    )


def make_forecasts(con: duckdb.DuckDBPyConnection, panel: PanelSpec, registry: ModelRegistry) -> pd.DataFrame:
    """Forecast with the champion, and beside it with the challenger and the baseline; keep all.

    Returns:
        The champion's forecasts, as published.
    """
    rows = read_rows(con, panel, "scoring")
    series = con.execute(f"{series_sql(panel)} ORDER BY series_id").df()
    version = registry.champion_version()
    champion = registry.load(version)
    check_row_columns(rows.names, champion.features)
    missed_by = _missed_by(con, panel, series)
    changes = missed_by(champion)
    own = forecast_table(panel, champion.candidate, champion.intervals, rows, series, changes)
    own["model_version"] = version
    kept = {CHAMPION: own, BASELINE_ROLE: _baseline(panel, champion, rows, series)}
    shadow = registry.challenger_version()
    if shadow is not None and not registry.why_unfit(shadow, panel):
        model = registry.load(shadow)
        missed = missed_by(model)
        kept[CHALLENGER] = forecast_table(panel, model.candidate, model.intervals, rows, series, missed)
        kept[CHALLENGER]["model_version"] = shadow
    keep_forecasts(con, panel, kept)
    sums = aggregate_table(panel, champion.intervals, own, rows, series)
    keep_aggregates(con, sums, version)
    common.keep_table(con, AGGREGATES, sums)
    common.keep_table(con, TABLE, own)
    common.keep_table(con, MODEL, _model_facts(version, champion))
    facts = {"cutoff": int(rows.identity["cutoff"].max()), "model_version": version}
    common.keep_table(con, LEVEL_CHANGES, kept_facts(changes.table, **facts))
    return own


def _missed_by(
    con: duckdb.DuckDBPyConnection, panel: PanelSpec, series: pd.DataFrame
) -> Callable[[TrainedModel], LevelChanges]:
    """Tells what a model has missed since its training; nothing where the rows are of an earlier release."""
    if not has_table(con, USUAL_CHANGES):
        return lambda _: NONE
    usual, members = con.execute(f"FROM {USUAL_CHANGES}").df(), series.drop(columns="first_t")
    recent = read_rows(con, panel, "recent")
    return lambda model: since_training(
        panel, model.candidate, model.trained_until(panel), recent, members, usual
    )


def _model_facts(version: int, model: TrainedModel) -> pd.DataFrame:
    """What readers are told of the champion: a row with `version`, `candidate` and its backtest's figures."""
    facts = {"version": version, "candidate": model.candidate.name}
    return pd.DataFrame([{**facts, **{name: model.backtest.get(name) for name in FIGURES}}])


def published_model(
    context: dg.AssetExecutionContext,
    con: duckdb.DuckDBPyConnection,
    panel: PanelSpec,
    registry: ModelRegistry,
) -> PublishedModel | None:
    """The files of the model that made the forecasts, with golden rows; None where they are lost.

    A registry that has lost them holds up what-if questions, and nothing else.
    """
    version = int(con.execute(f"SELECT version FROM {MODEL}").fetchall()[0][0])
    try:
        files = registry.files(version)
    except TurnoverError as error:
        context.log.warning("The snapshot is published without its model, so what-if waits: %s", error)
        return None
    rows, series = read_rows(con, panel, "scoring"), con.execute(series_sql(panel)).df()
    return PublishedModel(files, golden_rows(panel, rows, series, con.execute(f"FROM {TABLE}").df()))


def _baseline(panel: PanelSpec, champion: TrainedModel, rows: Rows, series: pd.DataFrame) -> pd.DataFrame:
    """The seasonal naive forecasts; their bounds are the champion's widths and say nothing."""
    table = forecast_table(panel, candidate_class(BASELINE)(), champion.intervals, rows, series)
    return table.assign(model_version=0, **dict.fromkeys(BOUNDS, np.nan))


def queries(panel: PanelSpec) -> dict[str, str]:
    """The published tables: export name to the SQL that makes it."""
    name, target = panel.series.name, panel.target
    keys, cutoff = ", ".join(panel.keys), f"{label_sql(panel, 'cutoff')} AS cutoff"
    target_period = f"{label_sql(panel, 't')} AS {panel.time}"
    return {
        "forecasts": f"SELECT * FROM {TABLE} ORDER BY {keys}, horizon",
        name: f"SELECT {keys}, {panel.time}, {target}, {target}_adjusted, adjustment_id FROM cleaned.{name} "
        f"ORDER BY {keys}, t",
        "findings": f"SELECT * FROM {FINDINGS} ORDER BY strength DESC, finding_id",
        "adjustments": f"SELECT * FROM {ADJUSTMENTS} ORDER BY ALL",
        "rejected": "SELECT * EXCLUDE file_no FROM cleaned.rejected ORDER BY table_name, file, line, rule",
        "restatements": f"SELECT * FROM {RESTATEMENTS} ORDER BY {keys}, {panel.time}, new_file_no",
        "files": manifest.FILES_QUERY,
        "aggregates": f"SELECT * FROM {AGGREGATES} ORDER BY level, member, horizon",
        "explanations": f"SELECT * FROM {EXPLANATIONS} ORDER BY {keys}, horizon",
        "accuracy": f"SELECT * FROM {SCORES} ORDER BY wape",
        "backtest": backtest_query(panel),
        "backtest_aggregates": f"SELECT * EXCLUDE t REPLACE ({cutoff}), {target_period} "
        f"FROM {BACKTEST_SUMS} ORDER BY model, level, member, cutoff, horizon",
        "backtest_accuracy": f"SELECT * REPLACE ({cutoff}) FROM {ACCURACY}",
        "gate_checks": f"SELECT * FROM {GATE_CHECKS}",
        "feature_ranges": ranges_sql(panel),
        "retraining": f"SELECT * FROM {RETRAINING} ORDER BY decided_at",
        "forecast_history": f"SELECT * FROM {HISTORY} ORDER BY cutoff, role, {keys}, horizon",
        "level_changes": f"SELECT * REPLACE ({cutoff}) FROM {LEVEL_CHANGES} ORDER BY ALL",
        "forecasts_as_of": f"SELECT * FROM {AS_OF} ORDER BY cutoff, {keys}, horizon",
        "runs": f"SELECT * FROM {RUNS} ORDER BY ended_at, run_id",
        "steps": f"SELECT * FROM {STEPS} ORDER BY run_id, step, asset",
        "decisions": f"SELECT * FROM {DECISIONS} ORDER BY last_at, automation",
        "checks": quality.HISTORY_QUERY,
        "profile": f"SELECT * FROM {PROFILE} ORDER BY made_at, table_name, column_name",
        monthly_name(panel): f"SELECT * FROM reports.{monthly_name(panel)}",
        "seasonal_profile": "SELECT * FROM reports.seasonal_profile",
        **given_queries(panel),
        **monitoring_queries(panel),
    }


def given_queries(panel: PanelSpec) -> dict[str, str]:
    """What is known beside the target: attributes, and values known ahead with the label of their period."""
    attributes = {
        table.name: f"SELECT {', '.join((*table.keys, *(column.name for column in table.columns)))} "
        f"FROM cleaned.{table.name} ORDER BY {', '.join(table.keys)}"
        for table in panel.static
    }
    ahead = {
        table.name: f"SELECT * EXCLUDE (t, file_no, line) REPLACE ({label_sql(panel, 't')} AS {panel.time}) "
        f"FROM cleaned.{table.name} ORDER BY {', '.join((*table.keys, panel.time))}"
        for table in panel.covariates
    }
    return attributes | ahead


def available_queries(con: duckdb.DuckDBPyConnection, panel: PanelSpec) -> dict[str, str]:
    """The queries of what there is.

    A warehouse that was lost and built anew has no backtest for a while, and there are forecasts as of past
    cutoffs only where they were asked for.
    """
    optional = OF_TRAINING | OF_OTHERS
    missing = {name for name, table in optional.items() if not has_table(con, table)}
    return {name: query for name, query in queries(panel).items() if name not in missing}


def backtest_query(panel: PanelSpec) -> str:
    """The compared windows of challenger, champion and baseline, as `turnover backtest` writes them."""
    keys = ", ".join(panel.keys)
    return (
        f"SELECT {keys}, {label_sql(panel, 'cutoff')} AS cutoff, {label_sql(panel, 't')} AS {panel.time}, "
        f"horizon, actual, forecast, {', '.join(BOUNDS)}, model FROM {BACKTEST} "
        f"WHERE is_compared AND is_shown ORDER BY model, {keys}, cutoff, horizon"
    )


def _facts(con: duckdb.DuckDBPyConnection, panel: PanelSpec) -> dict[str, Any]:
    cutoff, last, series = con.execute(
        f"SELECT max(cutoff), max({panel.time}), count(DISTINCT ({', '.join(panel.keys)})) FROM {TABLE}"
    ).fetchall()[0]
    model = con.execute(f"SELECT * FROM {MODEL}").df().astype(object).to_dict("records")[0]
    rejected = con.execute("SELECT count(*) FROM cleaned.rejected WHERE action = 'row rejected'").fetchall()
    return {
        "panel": panel.name,
        "cutoff": str(cutoff),
        "last_period": str(last),
        "horizon": panel.horizon,
        "series": series,
        "rejected_rows": rejected[0][0],
        "code_version": __version__,
        "model": {str(name): None if pd.isna(value) else value for name, value in model.items()},
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
        "level_changes": common.preview(con.execute(f"FROM {LEVEL_CHANGES} WHERE factor <> 1").df()),
        "picture": common.picture(image, "history and forecast"),
    }
