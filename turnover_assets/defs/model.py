"""Model: candidates compared on the holdout, and the best one registered as champion.

What belongs here: the two model assets. What does not: fitting and scoring (core), MLflow (storage).
"""

import json
from collections.abc import Mapping
from typing import Any

import dagster as dg
import duckdb
import pandas as pd

from turnover_assets import __version__
from turnover_assets.core import pictures
from turnover_assets.core.calendar import label_of
from turnover_assets.core.cutoffs import last_period
from turnover_assets.core.holdout import Holdout, compare
from turnover_assets.core.intervals import Intervals
from turnover_assets.core.models import BASELINE, CANDIDATES, candidate_class
from turnover_assets.core.rows import read_rows
from turnover_assets.defs import common
from turnover_assets.defs.resources import RegistryResource, WarehouseResource
from turnover_assets.settings import Settings
from turnover_assets.storage.ledger import ledger_content, version_of
from turnover_assets.storage.origin import Origin, landed_files, library_versions
from turnover_assets.storage.registry import TrainedModel, TrainingRecord

CODE_VERSION = "1"
SCORES = "reports.candidate_scores"
QUANTILES = "forecasts.residual_quantiles"
LEDGER_CHANGED = (
    "The ledger was changed while this run was under way, so what this model was made from is not recorded, "
    "and `turnover reproduce` cannot make it again. The next run, with the new ledger, trains another."
)


def build(settings: Settings) -> list[dg.AssetsDefinition]:
    """The model assets."""
    panel = settings.panel_spec

    @dg.asset(
        key=common.CANDIDATES,
        deps=[common.HOLDOUT_TRAINING, common.HOLDOUT],
        group_name="model",
        description="Every candidate, fitted on what was known before the holdout and scored on it.",
        owners=[common.SCIENTISTS],
        kinds={"xgboost", "scikitlearn"},
        code_version=CODE_VERSION,
        pool=common.POOL,
    )
    def candidates(
        context: dg.AssetExecutionContext, warehouse: WarehouseResource
    ) -> dg.MaterializeResult[None]:
        with warehouse.open().transaction() as con:
            training = read_rows(con, panel, "holdout_training")
            holdout = read_rows(con, panel, "holdout")
        found = compare(
            CANDIDATES,
            training,
            holdout,
            seed=settings.seed,
            threads=settings.threads,
            nonnegative=panel.series.target.nonnegative,
            progress=lambda name: context.log.info("fitting %s", name),
        )
        with warehouse.open().transaction() as con:
            schema = _keep_comparison(con, found)
        return dg.MaterializeResult(metadata={**schema, **_comparison_metadata(found)})

    @dg.asset(
        key=common.CHAMPION,
        deps=[common.CANDIDATES, common.TRAINING],
        group_name="model",
        description="The best candidate, fitted on all training rows and registered in MLflow as champion.",
        owners=[common.SCIENTISTS],
        kinds={"mlflow", "xgboost"},
        code_version=CODE_VERSION,
        pool=common.POOL,
    )
    def champion(
        context: dg.AssetExecutionContext, warehouse: WarehouseResource, registry: RegistryResource
    ) -> dg.MaterializeResult[None]:
        versions = _versions(context.instance, settings)
        with warehouse.open().transaction() as con:
            training, scores = read_rows(con, panel, "training"), _read_scores(con)
            intervals = _read_intervals(con, winner := str(scores["model"].iloc[0]))
            versions |= {"cutoff": str(label_of(panel, last_period(con, panel)))}
            origin = _origin(con, settings, versions, scores)
        if origin is None:
            context.log.warning(LEDGER_CHANGED)
        fitted = candidate_class(winner)().fit(training, seed=settings.seed, threads=settings.threads)
        model = TrainedModel(fitted, intervals, training.names, versions, origin)
        record = _record(settings, model, scores, len(training), context.run.run_id)
        version = registry.open().register(model, record)
        registry.open().promote(version)
        return dg.MaterializeResult(
            metadata={
                "model_version": version,
                "candidate": winner,
                "wape": float(scores["wape"].iloc[0]),
                **model.versions,
                **{name: common.picture(image, name) for name, image in record.pictures.items()},
            }
        )

    return [candidates, champion]


def _comparison_metadata(found: Holdout) -> dict[str, Any]:
    return {
        "scores": common.preview(found.scores),
        "picture": common.picture(pictures.scores(found.scores), "WAPE by candidate"),
        "winner": found.winner,
        "wape": found.wape_of(found.winner),
        "wape_seasonal_naive": found.wape_of(BASELINE),
    }


def _record(
    settings: Settings, model: TrainedModel, scores: pd.DataFrame, training_rows: int, run_id: str
) -> TrainingRecord:
    """What MLflow keeps beside the model's files."""
    shares = model.candidate.importance(model.features)
    images = {"scores": pictures.scores(scores)}
    if len(shares):
        images["importance"] = pictures.importance(shares)
    chosen = {"training_share": settings.training_share, "seed": settings.seed}
    return TrainingRecord(
        metrics=_metrics(scores) | {"training_rows": float(training_rows)},
        parameters=model.candidate.parameters() | chosen,
        tags={"dagster_run_id": run_id, **model.versions},
        tables={
            "candidate_scores": scores,
            "importance": shares.rename_axis("feature").reset_index(name="share"),
        },
        pictures=images,
    )


def _keep_comparison(con: duckdb.DuckDBPyConnection, found: Holdout) -> dict[str, Any]:
    """Keep the scores, and for each candidate the residual quantiles its intervals are made of."""
    quantiles = pd.concat(
        {name: Intervals.calibrate(found.rows, values).quantiles for name, values in found.forecasts.items()},
        names=["model", "horizon"],
    )
    common.keep_table(con, QUANTILES, quantiles.reset_index())
    return common.keep_table(con, SCORES, found.scores)


def _read_scores(con: duckdb.DuckDBPyConnection) -> pd.DataFrame:
    return con.execute(f"SELECT * FROM {SCORES} ORDER BY wape").df()


def _read_intervals(con: duckdb.DuckDBPyConnection, model: str) -> Intervals:
    table = con.execute(
        f"SELECT * EXCLUDE (model) FROM {QUANTILES} WHERE model = ? ORDER BY horizon", [model]
    ).df()
    return Intervals(table.set_index("horizon"))


def _versions(instance: dg.DagsterInstance, settings: Settings) -> dict[str, str]:
    """What was cleaned, and what with."""
    panel = settings.panel_spec
    cleaned = common.latest_metadata(instance, common.cleaned_key(panel.series.name))
    made_from = ("data_version", "landed_version", "ledger_version")
    return {name: str(cleaned.get(name, "")) for name in made_from} | {
        "settings_version": settings.result_version,
        "code_version": __version__,
        "panel": panel.digest,
        "horizon": json.dumps(panel.horizon),
    }


def _origin(
    con: duckdb.DuckDBPyConnection, settings: Settings, versions: Mapping[str, str], scores: pd.DataFrame
) -> Origin | None:
    """What the model is made from; None where the ledger is no longer the one that was cleaned with."""
    panel = settings.panel_spec
    ledger = ledger_content(settings.ledger_path)
    if version_of(ledger) != versions["ledger_version"]:
        return None
    return Origin(
        landed=landed_files(con, panel, versions["landed_version"]),
        ledger=ledger,
        panel=panel,
        settings=settings.result_settings,
        libraries=library_versions(),
        scores=dict(zip(scores["model"], map(float, scores["wape"]), strict=True)),
    )


def _metrics(scores: pd.DataFrame) -> dict[str, float]:
    """WAPE and bias of each candidate, and those of the best without its name."""
    found = {}
    for row in scores.to_dict("records"):
        found[f"wape_{row['model']}"], found[f"bias_{row['model']}"] = row["wape"], row["bias"]
    best = scores.iloc[0]
    return found | {"wape": float(best["wape"]), "bias": float(best["bias"])}
