"""Retraining: whether a model should be trained now, and why or why not.

What belongs here: the asset that gathers the facts and keeps the verdict. What does not: the policy
(core/retraining.py), and starting the training (runner.py, sensors.py).
"""

from collections.abc import Mapping
from datetime import date
from math import nan

import dagster as dg
import duckdb
import pandas as pd

from turnover_assets import __version__
from turnover_assets.core import retraining
from turnover_assets.core.aggregates import TOTAL
from turnover_assets.core.calendar import index_of, label_of
from turnover_assets.core.cutoffs import last_period
from turnover_assets.core.forecast_history import BASELINE, CHAMPION, outcomes
from turnover_assets.core.metrics import bias, wape
from turnover_assets.core.models import BASELINE as BASELINE_CANDIDATE
from turnover_assets.core.monitoring.judging import tracking_signals
from turnover_assets.core.monitoring.measures import measure_at
from turnover_assets.core.retraining import Facts, Policy
from turnover_assets.core.trained_history import changed_since_training
from turnover_assets.defs import common
from turnover_assets.defs.resources import RegistryResource, WarehouseResource
from turnover_assets.settings import Settings
from turnover_assets.storage.registry import ModelRegistry

CODE_VERSION = "2"
BASELINE_WAPE = f"wape_{BASELINE_CANDIDATE}"


def policy(settings: Settings) -> Policy:
    """The policy that the settings name; periods are those of the panel."""
    horizon = settings.panel_spec.horizon
    return Policy(
        every=settings.retrain_every or horizon,
        changed_share=settings.retrain_changed_share,
        accuracy_ratio=settings.retrain_accuracy_ratio,
        drifted_share=settings.retrain_drifted_share,
        bias=settings.retrain_bias,
        cooldown=max(1, horizon // 2),
        evidence=max(1, horizon // 2),
    )


def build(settings: Settings) -> list[dg.AssetsDefinition]:
    """The asset of the verdict."""
    panel = settings.panel_spec

    @dg.asset(
        key=common.RETRAINING,
        deps=[
            common.FORECASTS,
            common.MONITORING,
            common.cleaned_key(panel.series.name),
            common.cleaned_key("adjustments"),
        ],
        group_name="model",
        description="Whether to train now: by age, changed history, lost accuracy, bias or drift.",
        owners=[common.SCIENTISTS],
        kinds={"duckdb"},
        code_version=CODE_VERSION,
        pool=common.POOL,
    )
    def verdict(
        context: dg.AssetExecutionContext, warehouse: WarehouseResource, registry: RegistryResource
    ) -> dg.MaterializeResult[None]:
        with warehouse.open().transaction() as con:
            last = last_period(con, panel)
            facts = gather(con, settings, registry.open(), last)
            found = retraining.decide(facts, policy(settings))
            retraining.keep_verdict(con, found, facts, label_of(panel, last), context.run.run_id)
        context.log.info(found.sentence)
        return dg.MaterializeResult(metadata={**found.as_dict(), "cutoff": str(label_of(panel, last))})

    return [verdict]


def gather(con: duckdb.DuckDBPyConnection, settings: Settings, registry: ModelRegistry, last: int) -> Facts:
    """The facts that the policy looks at, as of the newest cutoff."""
    panel = settings.panel_spec
    if unusable := registry.why_unusable(panel):
        return Facts(unusable=unusable)
    version = registry.champion_version()
    newest, champion = registry.newest_tags(), registry.load(version)
    published = outcomes(con, panel, last)
    live, periods = live_ratio(published, version)
    off, signal = live_bias(published, version, last - panel.horizon)
    return Facts(
        outdated=_outdated(settings, registry, newest),
        periods_since_training=last - index_of(panel, date.fromisoformat(newest["cutoff"])),
        changed_share=changed_since_training(con, panel),
        live_ratio=live,
        promised_ratio=champion.backtest.get("wape", nan) / (champion.backtest.get(BASELINE_WAPE) or nan),
        live_periods=periods,
        drifted_share=measure_at(con, "drifted_share", label_of(panel, last)),
        live_bias=off,
        tracking_signal=signal,
    )


def _outdated(settings: Settings, registry: ModelRegistry, newest: Mapping[str, str]) -> str:
    """In what the newest model was made otherwise than one would be now."""
    if newest.get("settings_version") != settings.result_version:
        origin = registry.load(int(newest["version"])).origin
        before = origin.settings if origin else {}
        changed = [
            f"TURNOVER_{name.upper()} is {value}, was {before[name]}"
            for name, value in settings.result_settings.items()
            if name in before and before[name] != value
        ]
        which = f": {'; '.join(changed)}." if changed else "."
        return f"Settings that change numbers are not those that the newest model was trained with{which}"
    if newest.get("code_version") != __version__:
        return f"The newest model was trained by release {newest.get('code_version')}; this is {__version__}."
    return ""


def live_ratio(table: pd.DataFrame, version: int) -> tuple[float, int]:
    """WAPE of a version's published forecasts over that of the baseline for the same rows.

    Args:
        table: As forecast_history.outcomes gives it.
        version: The model version.

    Returns:
        The ratio, NaN where it is not known, and the number of target periods behind it.
    """
    keys = [n for n in table.columns if n not in ("forecast", "role", "model_version")]
    keys = [n for n in keys if not n.startswith(("lower_", "upper_"))]
    mine = _of_champion(table, version)
    both = mine.merge(table[table["role"] == BASELINE], on=keys, suffixes=("", "_baseline"))
    actual = both["actual"].to_numpy(float)
    naive = wape(actual, both["forecast_baseline"].to_numpy(float)) if len(both) else 0.0
    if not naive > 0:
        return float("nan"), 0
    return wape(actual, both["forecast"].to_numpy(float)) / naive, int(both["t"].nunique())


def live_bias(table: pd.DataFrame, version: int, after: int) -> tuple[float, float]:
    """Whether a version's published forecasts were off to one side.

    Args:
        table: As forecast_history.outcomes gives it.
        version: The model version; what others forecast before it is not held against it.
        after: Only periods after this one (index).

    Returns:
        Bias and tracking signal of the total, see metrics.bias and judging.tracking_signals; NaN where they
        are not known.
    """
    mine = _of_champion(table, version)
    sums = mine[mine["t"] > after].groupby(["cutoff", "t"])[["forecast", "actual"]].sum().reset_index()
    if sums.empty:
        return nan, nan
    signals = tracking_signals(sums.assign(group="", level=TOTAL, member=""))["tracking_signal"]
    return bias(sums["actual"].to_numpy(float), sums["forecast"].to_numpy(float)), float(signals.iloc[0])


def _of_champion(table: pd.DataFrame, version: int) -> pd.DataFrame:
    return table[(table["role"] == CHAMPION) & (table["model_version"] == version)]
