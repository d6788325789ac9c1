"""Model: the backtest of every candidate, the challenger that comes of it, and the gate.

What belongs here: the three model assets. What does not: fitting and scoring (core/backtest.py), deciding
(core/gate.py), the pictures and figures that are logged (defs/model_record.py), MLflow (storage).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import dagster as dg
import duckdb
import pandas as pd

from turnover_assets import __version__
from turnover_assets.core import gate, training
from turnover_assets.core.accuracy import accuracy_table
from turnover_assets.core.backtest import Backtest
from turnover_assets.core.calendar import label_of
from turnover_assets.core.cutoffs import last_period
from turnover_assets.core.evidence import Evidence
from turnover_assets.core.features import feature_names
from turnover_assets.core.forecast_history import CHALLENGER, CHAMPION, outcomes
from turnover_assets.core.gate_checks import Limits
from turnover_assets.core.intervals import Intervals
from turnover_assets.core.models import BASELINE, Candidate, candidate_class, make_candidate
from turnover_assets.core.rows import read_rows
from turnover_assets.core.trained_history import keep_trained_history
from turnover_assets.core.tuned import read_tuned
from turnover_assets.core.windows import recent_cutoffs
from turnover_assets.defs import common, model_record
from turnover_assets.defs.resources import RegistryResource, WarehouseResource
from turnover_assets.panel import PanelSpec
from turnover_assets.settings import Settings
from turnover_assets.storage.ledger import ledger_content, version_of
from turnover_assets.storage.origin import Origin, landed_files, library_versions
from turnover_assets.storage.registry import ModelRegistry, TrainedModel

CODE_VERSION = "2"
SCORES = "reports.candidate_scores"
BACKTEST = "reports.backtest"
BACKTEST_SUMS = "reports.backtest_aggregates"
ACCURACY = "reports.backtest_accuracy"
GATE_CHECKS = "reports.gate_checks"
PLAN = "forecasts.challenger_plan"
LEDGER_CHANGED = (
    "The ledger was changed while this run was under way, so what this model was made from is not recorded, "
    "and `turnover reproduce` cannot make it again. The next run, with the new ledger, trains another."
)


def build(settings: Settings) -> list[dg.AssetsDefinition]:
    """The model assets."""
    return [_backtest(settings), _challenger(settings), _champion(settings)]


def _backtest(settings: Settings) -> dg.AssetsDefinition:
    panel = settings.panel_spec

    @dg.asset(
        key=common.BACKTEST,
        deps=[common.cleaned_key(panel.series.name), common.cleaned_key("adjustments")],
        group_name="model",
        description="Every candidate and the champion, judged by rolling origin: a row a forecast.",
        owners=[common.SCIENTISTS],
        kinds={"xgboost", "scikitlearn"},
        code_version=CODE_VERSION,
        pool=common.POOL,
    )
    def backtest(
        context: dg.AssetExecutionContext, warehouse: WarehouseResource, registry: RegistryResource
    ) -> dg.MaterializeResult[None]:
        champion = usable_champion(registry.open(), panel)
        with warehouse.open().transaction() as con:
            tuned = read_tuned(con)
            cutoffs = recent_cutoffs(con, panel, settings.backtest_windows, settings.alive_periods)
        plan = common.training_plan(settings, tuned.parameters)
        who = training.entrants(tuned.parameters, feature_names(panel), champion)
        transaction, tell = warehouse.open().transaction, context.log.info
        found = training.backtest(transaction, panel, cutoffs, who, plan, tell)
        with warehouse.open().transaction() as con:
            kept = keep_backtest(con, found, ChallengerPlan.of(found, tuned.parameters))
        return dg.MaterializeResult(metadata={**kept, **model_record.backtest_metadata(found)})

    return backtest


def _challenger(settings: Settings) -> dg.AssetsDefinition:
    panel = settings.panel_spec

    @dg.asset(
        key=common.CHALLENGER,
        deps=[common.BACKTEST, common.TRAINING],
        group_name="model",
        description="The best candidate of the backtest, fitted on all training rows, registered in MLflow.",
        owners=[common.SCIENTISTS],
        kinds={"mlflow", "xgboost"},
        code_version=CODE_VERSION,
        pool=common.POOL,
    )
    def challenger(
        context: dg.AssetExecutionContext, warehouse: WarehouseResource, registry: RegistryResource
    ) -> dg.MaterializeResult[None]:
        versions = _versions(context.instance, settings)
        with warehouse.open().transaction() as con:
            rows, scores, plan = read_rows(con, panel, "training"), read_scores(con), ChallengerPlan.read(con)
            versions |= {"cutoff": str(label_of(panel, last_period(con, panel)))}
            origin = _origin(con, settings, versions, scores, plan)
            keep_trained_history(con, panel)
        if origin is None:
            context.log.warning(LEDGER_CHANGED)
        fitted = plan.candidate().fit(rows, seed=settings.seed, threads=settings.threads)
        versions |= {"recipe": training.recipe(fitted, rows.names)}
        model = TrainedModel(fitted, plan.intervals, rows.names, versions, origin, plan.figures)
        record = model_record.training_record(settings, model, scores, rows, context.run.run_id)
        version = registry.open().register(model, record)
        return dg.MaterializeResult(
            metadata={
                "model_version": version,
                "candidate": fitted.name,
                "wape": plan.figures["wape"],
                **model.versions,
                **{name: common.picture(image, name) for name, image in record.pictures.items()},
            }
        )

    return challenger


def _champion(settings: Settings) -> dg.AssetsDefinition:
    panel = settings.panel_spec

    @dg.asset(
        key=common.CHAMPION,
        deps=[common.BACKTEST, common.CHALLENGER],
        group_name="model",
        description="The gate: the challenger replaces the champion on evidence, or is refused for a reason.",
        owners=[common.SCIENTISTS],
        kinds={"mlflow"},
        code_version=CODE_VERSION,
        pool=common.POOL,
    )
    def champion(
        context: dg.AssetExecutionContext, warehouse: WarehouseResource, registry: RegistryResource
    ) -> dg.MaterializeResult[None]:
        models = registry.open()
        version = int(models.newest_tags()["version"])
        with warehouse.open().transaction() as con:
            evidence = gather_evidence(con, panel, models, version)
            decision = gate.decide(evidence, limits(settings))
            schema = common.keep_table(con, GATE_CHECKS, decision.checks)
        models.record_decision(version, decision)
        if evidence.champion is None and not evidence.is_absent and not decision.promoted:
            reason = "There is no other model: " + " ".join(decision.reasons)
            models.promote(version, reason=reason)
            context.log.warning(f"The model forecasts although the gate refuses it. {reason}")
        for sentence in (*decision.reasons, *decision.warnings):
            context.log.info(sentence)
        return dg.MaterializeResult(
            metadata={
                **schema,
                "model_version": models.champion_version(),
                "challenger": version,
                "promoted": decision.promoted,
                "reasons": dg.MetadataValue.md("\n".join(f"- {reason}" for reason in decision.reasons)),
                "warnings": dg.MetadataValue.md("\n".join(f"- {w}" for w in decision.warnings) or "none"),
                "checks": common.preview(decision.checks),
                **{name: float(value) for name, value in decision.figures.items()},
            }
        )

    return champion


@dataclass(frozen=True)
class ChallengerPlan:
    """What a backtest says is to be fitted.

    Attributes:
        name: The candidate.
        tuned: Parameters that a search has found.
        weights: Weights, where the candidate is a blend.
        intervals: Intervals from all windows.
        figures: WAPE and bias over the compared windows, and the baseline's WAPE.
    """

    name: str
    tuned: training.Tuned
    weights: Mapping[str, float]
    intervals: Intervals
    figures: Mapping[str, float]

    @classmethod
    def of(cls, found: Backtest, tuned: training.Tuned) -> "ChallengerPlan":
        """The plan that follows from a backtest."""
        chosen = training.challenger(found, tuned)
        intervals = found.intervals(chosen.name)
        if intervals is None:
            raise ValueError("a backtest without a window calibrates nothing")
        figures = training.promise(found, chosen.name)
        return cls(chosen.name, tuned, getattr(chosen, "weights", {}), intervals, figures)

    def keep(self, con: duckdb.DuckDBPyConnection) -> None:
        """Write it, in place of the one before."""
        facts = {**vars(self), "intervals": self.intervals.to_dict()}
        con.execute(
            f"CREATE OR REPLACE TABLE {PLAN} AS SELECT CAST(? AS VARCHAR) AS plan", [json.dumps(facts)]
        )

    @classmethod
    def read(cls, con: duckdb.DuckDBPyConnection) -> "ChallengerPlan":
        """Read what keep wrote."""
        facts = json.loads(con.execute(f"SELECT plan FROM {PLAN}").fetchall()[0][0])
        return cls(**{**facts, "intervals": Intervals.from_dict(facts["intervals"])})

    def candidate(self) -> Candidate:
        """The candidate, not fitted."""
        return make_candidate(candidate_class(self.name), self.tuned, self.weights)


def usable_champion(registry: ModelRegistry, panel: PanelSpec) -> training.Fitted | None:
    """The champion, where there is one that can forecast the panel now."""
    if registry.why_unusable(panel):
        return None
    model = registry.load(registry.champion_version())
    return training.Fitted(model.candidate, model.features, model.trained_until(panel))


def keep_backtest(con: duckdb.DuckDBPyConnection, found: Backtest, plan: ChallengerPlan) -> dict[str, Any]:
    """Keep rows, sums, accuracy and scores, in place of those before; returns metadata of the rows."""
    panel = found.panel
    judged = [name for name in (plan.name, training.CHAMPION) if name in found.entrants]
    shown = [*judged, *({BASELINE} & {*found.entrants} - {*judged})]
    parts = [found.rows(name, found.cutoffs, bounded=name in judged) for name in found.entrants]
    rows = pd.concat(parts, ignore_index=True)
    sums = pd.concat([found.aggregates(name, found.cutoffs) for name in judged], ignore_index=True)
    compared = rows["cutoff"].isin(found.compared)
    accuracy = accuracy_table(
        rows[compared & rows["model"].isin(shown)], panel, sums[sums["cutoff"].isin(found.compared)]
    )
    common.keep_table(con, BACKTEST_SUMS, sums)
    common.keep_table(con, ACCURACY, accuracy)
    common.keep_table(con, SCORES, found.scores())
    plan.keep(con)
    marked = rows.assign(is_compared=compared, is_shown=rows["model"].isin(shown))
    return common.keep_table(con, BACKTEST, marked)


def gather_evidence(
    con: duckdb.DuckDBPyConnection, panel: PanelSpec, registry: ModelRegistry, version: int
) -> Evidence:
    """The rows of challenger and champion, from the backtest and from forecasts that were published since."""
    rows = con.execute(
        f"SELECT * EXCLUDE (is_compared, is_shown) FROM {BACKTEST} WHERE is_compared "
        "ORDER BY model, series_id, cutoff, t"
    ).df()
    plan = ChallengerPlan.read(con)
    of = {str(name): table.drop(columns="model") for name, table in rows.groupby("model")}
    champion = of.get(training.CHAMPION)
    live = outcomes(con, panel, last_period(con, panel))
    return Evidence(
        panel,
        challenger=of[plan.name],
        champion=champion,
        naive=of.get(BASELINE),
        live_challenger=_live(live, CHALLENGER, registry.of_same_recipe(version)),
        live_champion=_live(live, CHAMPION, [registry.find_champion() or 0]),
        tuned_until=read_tuned(con).until,
        is_absent=champion is None and not registry.why_unusable(panel),
    )


def _live(table: pd.DataFrame, role: str, versions: list[int]) -> pd.DataFrame:
    """Published forecasts of some versions in a role."""
    return table[(table["role"] == role) & table["model_version"].isin(versions)].reset_index(drop=True)


def limits(settings: Settings) -> Limits:
    """The limits that the settings name."""
    return Limits(margin=settings.promotion_margin, alpha=settings.promotion_level)


def read_scores(con: duckdb.DuckDBPyConnection) -> pd.DataFrame:
    """How the candidates did, best first."""
    return con.execute(f"SELECT * FROM {SCORES} ORDER BY wape").df()


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
    con: duckdb.DuckDBPyConnection,
    settings: Settings,
    versions: Mapping[str, str],
    scores: pd.DataFrame,
    plan: ChallengerPlan,
) -> Origin | None:
    """What the model is made from; None where the ledger is no longer the one that was cleaned with."""
    panel = settings.panel_spec
    ledger = ledger_content(settings.ledger_path)
    if version_of(ledger) != versions["ledger_version"]:
        return None
    candidates = scores[scores["model"] != training.CHAMPION]
    return Origin(
        landed=landed_files(con, panel, versions["landed_version"]),
        ledger=ledger,
        panel=panel,
        settings=settings.result_settings,
        libraries=library_versions(),
        scores=dict(zip(candidates["model"], map(float, candidates["wape"]), strict=True)),
        tuned=plan.tuned,
    )
