"""The product's own forecasts of past cutoffs, by its own backtest, for benchmarks against peers.

What belongs here: holding the backtest, reading one that was exported, and what training and forecasting
cost. What does not: the peers (peers.py), scores (accuracy.py, walmart.py).
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd

from turnover_assets.core.backtest import Entrant, run_backtest
from turnover_assets.core.calendar import index_of, label_of
from turnover_assets.core.ledger import Ledger
from turnover_assets.core.models import CANDIDATES, Blend, make_candidate
from turnover_assets.core.repairs import Repairs
from turnover_assets.core.rows import RowLimits
from turnover_assets.core.training import Plan, backtest
from turnover_assets.core.windows import Transaction, make_windows, with_evidence_before
from turnover_assets.panel import PanelSpec
from turnover_assets.settings import Settings


@dataclass(frozen=True)
class Ours:
    """The product's forecasts.

    Attributes:
        rows: Series keys, `label` (date of the cutoff as text), `horizon`, `forecast` (scale of reported
            values) and, where there are any, bounds.
        aggregates: `level`, `member`, `label`, `actual` and bounds of sums; empty where they are not known.
    """

    rows: pd.DataFrame
    aggregates: pd.DataFrame


def plan_of(settings: Settings) -> Plan:
    """The product's own plan; no steward has decided on anything, and no parameters were searched for."""
    limits = RowLimits(settings.training_share, settings.max_training_rows, settings.alive_periods)
    repairs = Repairs(Ledger(), settings.adjustment_strength, settings.alive_periods)
    return Plan(limits, repairs, settings.seed, settings.threads, tuned={})


def entrants_for(model: str) -> list[Entrant]:
    """The model, and what it is blended of before it."""
    kind = next(candidate for candidate in CANDIDATES if candidate.name == model)
    made = make_candidate(kind)
    wanted = {model, *(made.components if isinstance(made, Blend) else ())}
    return [Entrant(kind.name, partial(make_candidate, kind)) for kind in CANDIDATES if kind.name in wanted]


def hold_backtest(
    transaction: Transaction,
    panel: PanelSpec,
    settings: Settings,
    labels: Sequence[str],
    model: str,
    evidence: int,
) -> Ours:
    """Forecasts of a model at some cutoffs; `evidence` windows before each teach blend and intervals."""
    cutoffs = [index_of(panel, pd.Timestamp(label).date()) for label in labels]
    with transaction() as con:
        all_cutoffs = with_evidence_before(con, panel, cutoffs, evidence, settings.alive_periods)
    found = backtest(
        transaction,
        panel,
        all_cutoffs,
        entrants_for(model),
        plan_of(settings),
        lambda said: print(said, flush=True),
    )
    rows, sums = found.rows(model, cutoffs), found.aggregates(model, cutoffs)
    return Ours(
        *(t.assign(label=t["cutoff"].map(lambda c: label_of(panel, c).isoformat())) for t in (rows, sums))
    )


def read_exported(path: Path) -> Ours:
    """A backtest as `turnover backtest --output` writes it; it has no sums."""
    rows = pd.read_parquet(path)
    rows["label"] = pd.to_datetime(rows["cutoff"]).dt.strftime("%Y-%m-%d")
    if rows["model"].nunique() > 1:
        raise ValueError(f"{path} holds several models ({sorted(rows['model'].unique())}); keep one")
    return Ours(rows, pd.DataFrame())


def cost(
    con: duckdb.DuckDBPyConnection, panel: PanelSpec, settings: Settings, label: str, model: str
) -> tuple[float, float]:
    """Seconds of features, and of fitting and forecasting, at one cutoff.

    Deciding on adjustments is left out: peers are given the adjusted history too.
    """
    plan, cutoff = plan_of(settings), index_of(panel, pd.Timestamp(label).date())
    began = time.perf_counter()
    plan.repairs.as_of(con, panel, cutoff)
    decided = time.perf_counter()
    window = next(make_windows(con, panel, [cutoff], plan.limits, plan.repairs))
    made = time.perf_counter()
    run_backtest(panel, [window], entrants_for(model), seed=plan.seed, threads=plan.threads)
    fitted = time.perf_counter()
    return max(0.0, (made - decided) - (decided - began)), fitted - made


def add_ours(outcomes: pd.DataFrame, keys: Sequence[str], label: str, ours: Ours) -> pd.DataFrame:
    """The outcomes of one window with the product's forecasts in column `ours`, and its bounds.

    Raises:
        ValueError: The product did not forecast all of them, or takes something else for what was reported.
    """
    rows = ours.rows[ours.rows["label"] == label].rename(
        columns={"forecast": "ours", "actual": "ours_actual"}
    )
    bounds = [name for name in rows.columns if name.startswith(("lower_", "upper_"))]
    chosen = rows[[*keys, "horizon", "ours", "ours_actual", *bounds]]
    joined = outcomes.merge(chosen, on=[*keys, "horizon"], how="left", validate="one_to_one")
    if joined["ours"].isna().any():
        raise ValueError(
            f"{label}: ours lacks {int(joined['ours'].isna().sum())} of {len(joined)} rows to score"
        )
    if not np.allclose(joined["actual"], joined["ours_actual"], equal_nan=True):
        raise ValueError(f"{label}: ours was scored against other values than were reported")
    return joined.drop(columns="ours_actual")
