"""Tuning: the search for a candidate's hyper-parameters, which the next training uses.

What belongs here: the asset that makes windows, searches and keeps the result. What does not: the search
(core/tuning.py), how it is logged (storage/search_log.py), and judging a model (model.py).

The asset is not in the pool of the warehouse, since a search may take hours in which forecasts must go on:
it holds the warehouse's own lock while it makes the windows, and while it keeps what was found.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import dagster as dg
import duckdb
from pydantic import Field

from turnover_assets.core import tuning, tuning_windows
from turnover_assets.core.backtest import compared_cutoffs
from turnover_assets.core.calendar import label_of
from turnover_assets.core.search_spaces import search_space
from turnover_assets.core.tables import has_table
from turnover_assets.core.trials import Search, Trial
from turnover_assets.core.tuned import Tuned, keep_tuned, read_tuned
from turnover_assets.core.tuning import Budget
from turnover_assets.core.tuning_pictures import search_picture
from turnover_assets.core.windows import Window, make_windows, recent_cutoffs
from turnover_assets.defs import common
from turnover_assets.defs.resources import RegistryResource, WarehouseResource
from turnover_assets.errors import TurnoverError
from turnover_assets.panel import PanelSpec
from turnover_assets.settings import Settings
from turnover_assets.storage.home_panel import check_panel
from turnover_assets.storage.search_log import SearchLog, search_log

CODE_VERSION = "1"


class TuningConfig(dg.Config):
    """What is searched, and for how long."""

    candidate: str = Field("xgboost", description="The candidate whose parameters are searched.")
    trials: int = Field(30, ge=1, description="Trials, the candidate's own parameters among them.")
    minutes: float | None = Field(30.0, gt=0, description="No trial begins after so many minutes.")
    windows: int = Field(4, ge=2, description="Windows on which a trial is judged.")
    max_rows: int = Field(200_000, ge=1000, description="Upper bound of the training rows of a window.")

    @property
    def budget(self) -> Budget:
        """Where the search ends."""
        return Budget(self.trials, self.minutes * 60 if self.minutes else None)


def build(settings: Settings) -> list[dg.AssetsDefinition]:
    """The asset of tuned parameters."""
    panel = settings.panel_spec

    @dg.asset(
        key=common.TUNED,
        deps=[common.cleaned_key(panel.series.name)],
        group_name="model",
        description="Parameters that a search found on windows before those that models are compared on.",
        owners=[common.SCIENTISTS],
        kinds={"mlflow", "xgboost"},
        code_version=CODE_VERSION,
    )
    def tuned_parameters(
        context: dg.AssetExecutionContext,
        config: TuningConfig,
        warehouse: WarehouseResource,
        registry: RegistryResource,
    ) -> dg.MaterializeResult[None]:
        tuning.require_optuna()
        search_space(config.candidate)
        check_panel(settings)
        with warehouse.open().transaction() as con:
            windows, before = windows_before_comparison(con, settings, config), read_tuned(con)
        tags = {"dagster_run_id": context.run.run_id}
        store = registry.open()
        with search_log(
            store.folder, panel.name, config.candidate, tags, store.artifacts_url, store.database
        ) as log:
            tell = _teller(panel, log, context.log.info, [window.cutoff for window in windows])
            found = _search(settings, config, windows, before, tell)
            _log_outcome(log, settings, found)
        with warehouse.open().transaction() as con:
            keep_tuned(con, found.result(read_tuned(con)))
        context.log.info(found.sentence())
        return dg.MaterializeResult(metadata={**_metadata(panel, found), "mlflow_run_id": log.run_id})

    return [tuned_parameters]


def windows_before_comparison(
    con: duckdb.DuckDBPyConnection, settings: Settings, config: TuningConfig
) -> tuple[Window, ...]:
    """The windows of a search: they end before those on which the next training compares models.

    Raises:
        TurnoverError: Nothing was cleaned yet, or the history is too short.
    """
    panel = settings.panel_spec
    if not has_table(con, f"cleaned.{panel.series.name}"):
        raise TurnoverError("Nothing was cleaned in this home yet. Run `turnover run` first.")
    recent = recent_cutoffs(con, panel, settings.backtest_windows, settings.alive_periods)
    cutoffs = tuning_windows.tuning_cutoffs(con, panel, compared_cutoffs(recent), config.windows)
    limits = common.row_limits(settings)
    bounded = replace(limits, max_rows=min(limits.max_rows, config.max_rows))
    return tuning_windows.usable_windows(make_windows(con, panel, cutoffs, bounded, common.repairs(settings)))


def _search(
    settings: Settings,
    config: TuningConfig,
    windows: tuple[Window, ...],
    before: Tuned,
    told: Callable[[Trial], None],
) -> Search:
    return tuning.search(
        windows,
        settings.panel_spec,
        config.candidate,
        config.budget,
        in_use=before.parameters.get(config.candidate),
        seed=settings.seed,
        threads=settings.threads,
        told=told,
    )


def _teller(
    panel: PanelSpec, log: SearchLog, info: Callable[[str], None], cutoffs: list[int]
) -> Callable[[Trial], None]:
    """Tells of a trial: its sentence to the run's log, its figures to MLflow."""
    labels = [str(label_of(panel, cutoff)) for cutoff in cutoffs]

    def tell(trial: Trial) -> None:
        info(trial.sentence())
        by_window = {f"wape_{label}": w for label, w in zip(labels, trial.wapes, strict=False)}
        figures = {"wape": trial.wape, "seconds": trial.seconds, **by_window}
        log.trial(f"trial {trial.number}", trial.parameters, figures, {"pruned": str(trial.pruned).lower()})

    return tell


def _log_outcome(log: SearchLog, settings: Settings, found: Search) -> None:
    """Log what came of the search with its run."""
    panel = settings.panel_spec
    cutoffs = ", ".join(str(label_of(panel, cutoff)) for cutoff in found.cutoffs)
    chosen = {"candidate": found.candidate, "cutoffs": cutoffs, "seed": settings.seed}
    log.outcome(
        metrics=_figures(found),
        parameters={**found.best.parameters, **chosen},
        tags={"accepted": str(found.accepted).lower(), "decision_reason": found.sentence()},
        trials=found.table(),
        picture=search_picture(found),
    )


def _figures(found: Search) -> dict[str, float]:
    return {
        "wape_own": found.own.wape,
        "wape_best": found.best.wape,
        "gain": found.gain,
        "windows_won": float(found.windows_won),
        "trials": float(len(found.trials)),
    }


def _metadata(panel: PanelSpec, found: Search) -> dict[str, Any]:
    """What the asset shows."""
    return {
        **_figures(found),
        "candidate": found.candidate,
        "accepted": found.accepted,
        "decision": found.sentence(),
        "best_parameters": json.dumps(dict(found.best.parameters)),
        "own_parameters": json.dumps(dict(found.own.parameters)),
        "windows": ", ".join(str(label_of(panel, cutoff)) for cutoff in found.cutoffs),
        "until": str(label_of(panel, found.until)),
        "trials_table": common.preview(found.table()),
        "picture": common.picture(search_picture(found), "WAPE by trial"),
    }
