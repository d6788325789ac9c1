"""What `turnover backtest` does: hold a backtest on the cleaned tables of a home, and change nothing.

What belongs here: which cutoffs and candidates are meant, and the tables that people get. What does not: the
backtest itself (core/backtest.py) and printing (commands/backtest.py).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date

import duckdb
import numpy as np
import pandas as pd

from turnover_assets.core import training
from turnover_assets.core.aggregates import TOTAL
from turnover_assets.core.as_of import forecast_as_of, labelled
from turnover_assets.core.backtest import Backtest
from turnover_assets.core.calendar import index_of, label_of
from turnover_assets.core.cleaning import content_version
from turnover_assets.core.cutoffs import first_period, last_period
from turnover_assets.core.intervals import BOUNDS
from turnover_assets.core.metrics import bias, coverage, wape
from turnover_assets.core.models import Blend, candidate_class
from turnover_assets.core.repairs import Repairs
from turnover_assets.core.rows import RowLimits
from turnover_assets.core.tables import has_table
from turnover_assets.core.tuned import read_tuned
from turnover_assets.core.windows import recent_cutoffs, scorable_cutoffs
from turnover_assets.errors import TurnoverError, UnknownNameError
from turnover_assets.panel import PanelSpec
from turnover_assets.settings import Settings
from turnover_assets.storage.home import prepare_home, run_lock
from turnover_assets.storage.home_panel import check_panel
from turnover_assets.storage.ledger import read_ledger
from turnover_assets.storage.registry import ModelRegistry
from turnover_assets.storage.registry_peek import champion_of
from turnover_assets.storage.warehouse import Warehouse

Progress = Callable[[str], None]


@dataclass(frozen=True)
class BacktestOrder:
    """What is to be judged.

    Attributes:
        windows: So many of the newest windows, where no cutoff is named.
        cutoffs: Cutoffs by the date that labels their period.
        models: Candidates; where none is named, the champion's, or a blend where there is no champion.
        level: Sums by this level of the panel or `total`, in place of series; None for series.
    """

    windows: int = 3
    cutoffs: tuple[date, ...] = ()
    models: tuple[str, ...] = ()
    level: str | None = None


@dataclass(frozen=True)
class BacktestTables:
    """What came of it.

    Attributes:
        rows: A row for each series (or member of the level), cutoff and horizon of each model: keys (or
            `level`, `member`), `cutoff`, the time column, `horizon`, `actual` (reported), `forecast`, the
            bounds, `model`; units of the target.
        scores: By model and cutoff, and over all: WAPE, bias, coverage of both intervals (shares).
    """

    rows: pd.DataFrame
    scores: pd.DataFrame


def hold_backtest(
    settings: Settings, order: BacktestOrder, progress: Progress = lambda _: None
) -> BacktestTables:
    """Hold a backtest.

    Args:
        settings: The home and how to train.
        order: What is to be judged.
        progress: Told what is under way.

    Raises:
        UnknownNameError: There is no such candidate or level; the message lists those there are.
        TurnoverError: Nothing was cleaned yet, or a cutoff cannot be judged.
    """
    prepare_home(settings)
    check_panel(settings)
    panel = settings.panel_spec
    if order.level is not None and order.level not in (TOTAL, *panel.level_names):
        raise UnknownNameError("level", order.level, [TOTAL, *panel.level_names])
    chosen = order.models or (_champions_candidate(settings),)
    for name in chosen:
        candidate_class(name)
    repairs = Repairs(
        read_ledger(settings.ledger_path, panel), settings.adjustment_strength, settings.alive_periods
    )
    warehouse = Warehouse.of(settings)
    with run_lock(settings, lambda: progress("a run is under way; waiting for it to end")):
        with warehouse.transaction() as con:
            if not has_table(con, f"cleaned.{panel.series.name}"):
                raise TurnoverError("Nothing was cleaned in this home yet. Run `turnover run` first.")
            judged = _cutoffs(con, panel, settings, order)
            tuned = read_tuned(con).parameters
            version = content_version(con, panel)
        limits = RowLimits(settings.training_share, settings.max_training_rows, settings.alive_periods)
        plan = training.Plan(limits, repairs, settings.seed, settings.threads, tuned)
        windows = settings.backtest_windows
        found = forecast_as_of(warehouse.transaction, panel, judged, chosen, plan, windows, progress)
        with warehouse.transaction() as con:  # runs of the daemon may write between windows
            if content_version(con, panel) != version:
                raise TurnoverError("A run has changed the data during the backtest. Hold it again.")
    return _tables(found, chosen, judged, order.level)


def _champions_candidate(settings: Settings) -> str:
    """Name of the champion's candidate; a blend where there is no champion."""
    name = settings.panel_spec.name
    version = champion_of(settings.mlflow_path, name, settings.mlflow_database)
    return ModelRegistry.of(settings).candidate_of(version) if version else Blend.name


def _cutoffs(
    con: duckdb.DuckDBPyConnection, panel: PanelSpec, settings: Settings, order: BacktestOrder
) -> tuple[int, ...]:
    """Period indices of the cutoffs to judge.

    Raises:
        TurnoverError: With everything that is wrong with the dates.
    """
    if not order.cutoffs:
        return recent_cutoffs(con, panel, order.windows, settings.alive_periods)
    last = last_period(con, panel)
    first, scorable = first_period(con, panel), set(scorable_cutoffs(con, panel, settings.alive_periods))
    found, problems = [], []
    for day in order.cutoffs:
        try:
            t = index_of(panel, day)
        except ValueError as error:
            problems.append(str(error))
            continue
        if not first < t < last:
            earliest, latest = label_of(panel, first + 1), label_of(panel, last - 1)
            problems.append(f"{day} has no history before it or no outcome after it ({earliest} to {latest})")
        elif t not in scorable:
            problems.append(
                f"{day} has no outcome: no series reported both before it and in the horizon after"
            )
        found.append(t)
    if problems:
        listed = "\n".join(f"  - {problem}" for problem in problems)
        raise TurnoverError(
            f"Some cutoffs cannot be judged:\n{listed}\nName the date of a period in the history."
        )
    return tuple(sorted(set(found)))


def _tables(
    found: Backtest, models: Sequence[str], judged: Sequence[int], level: str | None
) -> BacktestTables:
    panel = found.panel
    parts = [
        found.rows(name, judged) if level is None else _of_level(found.aggregates(name, judged), level)
        for name in models
    ]
    names = [*panel.keys] if level is None else ["level", "member"]
    rows = labelled(pd.concat(parts, ignore_index=True), panel, names)
    return BacktestTables(rows, _scores(rows))


def _of_level(sums: pd.DataFrame, level: str) -> pd.DataFrame:
    return sums[sums["level"] == level]


def _scores(rows: pd.DataFrame) -> pd.DataFrame:
    scores = [
        {"model": model, "cutoff": str(cutoff), **_figures(group)}
        for (model, cutoff), group in rows.groupby(["model", "cutoff"], sort=False)
    ]
    if rows["cutoff"].nunique() > 1:
        whole = rows.groupby("model", sort=False)
        scores += [{"model": model, "cutoff": "all", **_figures(group)} for model, group in whole]
    return pd.DataFrame(scores)


def _figures(rows: pd.DataFrame) -> dict[str, float]:
    actual, forecast, *bounds = (rows[name].to_numpy(np.float64) for name in ("actual", "forecast", *BOUNDS))
    return {
        "wape": wape(actual, forecast),
        "bias": bias(actual, forecast),
        "coverage_80": coverage(actual, bounds[0], bounds[1]),
        "coverage_95": coverage(actual, bounds[2], bounds[3]),
    }
