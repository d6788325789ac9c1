"""Small windows and candidates for tests of the backtest, without a warehouse.

What belongs here: windows as windows.py would make them, of any values, and candidates whose forecasts are
known in advance. What does not: panels and histories (factories.py).
"""

from collections.abc import Callable, Mapping, Sequence

import duckdb
import numpy as np
import pandas as pd

from turnover_assets.core.backtest import Backtest, Entrant, run_backtest
from turnover_assets.core.ledger import Ledger
from turnover_assets.core.models import BASELINE, Blend, Candidate, Rows, candidate_class, make_candidate
from turnover_assets.core.models.naive import SeasonalNaive
from turnover_assets.core.repairs import Repairs
from turnover_assets.core.rows import RowLimits
from turnover_assets.core.windows import Window
from turnover_assets.panel import PanelSpec
from turnover_assets_tests.factories import make_panel

NOBODY = Repairs(Ledger((), ()), strength=1e9, alive=4)  # repairs nothing
LIMITS = RowLimits(share=1.0, max_rows=100_000, alive=4)
QUICK_TREES = {
    "xgboost": {"rounds": 3, "max_depth": 2},
    "residual_boosting": {"rounds": 3, "max_depth": 2},
    "recursive_boosting": {"rounds": 3, "max_depth": 2},
    "seasonal_recursive_boosting": {"rounds": 3, "max_depth": 2},
    "histogram_boosting": {"max_iter": 3, "max_depth": 2},
}


def region_panel(nonnegative: bool = True) -> PanelSpec:
    """Shops in regions, four weeks ahead."""
    return make_panel(
        horizon=4,
        levels=["region"],
        series={
            "name": "sales",
            "keys": [{"name": "shop", "type": "integer"}],
            "time": {"name": "week"},
            "target": {"name": "amount", "nonnegative": nonnegative},
        },
        static=[
            {"name": "shops", "keys": ["shop"], "columns": [{"name": "region", "type": "text"}]},
        ],
    )


# Windows -----------------------------------------------------------------------------------------

Value = Callable[[int, int], float]  # what a series (by number) sold in a period
SERIES = (1, 2, 3, 4, 5, 6)


def noisy(series: int, t: int) -> float:
    """Values that repeat exactly, whoever asks, and differ from series to series and period to period."""
    return float(np.random.default_rng([series, t]).uniform(50.0, 150.0) * series)


def make_rows(pairs: Sequence[tuple[int, int]], horizon: int, value: Value, known: int) -> Rows:
    """Rows for pairs of series and cutoff; the only features are the true values, known or not."""
    identity = pd.DataFrame(
        [(s, c, h, c + h) for s, c in sorted(pairs) for h in range(1, horizon + 1)],
        columns=["series_id", "cutoff", "horizon", "t"],
    )
    truth = np.array([value(s, t) for s, t in zip(identity["series_id"], identity["t"], strict=True)])
    identity["scale"], identity["in_force"] = 100.0 * identity["series_id"], 1.0
    reported = np.where(identity["t"] <= known, truth, np.nan)
    identity["actual"] = identity["reported"] = reported
    x = (truth / identity["scale"].to_numpy()).astype(np.float32)[:, None]
    names = ("year_ago_same", "around_1_narrow", "around_1_wide", "lag_0", "mean_4")
    return Rows(identity, np.repeat(x, len(names), axis=1), names)


def make_window(
    cutoff: int,
    *,
    value: Value = noisy,
    known: int = 10_000,
    dense: int = 1,
    horizon: int = 4,
    training: Sequence[int] | None = None,
) -> Window:
    """A window of six shops in two regions, whose last shop is younger than a season.

    Args:
        cutoff: The cutoff.
        value: What was sold.
        known: Last period reported.
        dense: Cutoffs to score from this one on.
        horizon: Periods ahead.
        training: Cutoffs of the training rows; ten whose outcomes were just known where left out.
    """
    past = range(cutoff - horizon - 9, cutoff - horizon + 1) if training is None else training
    newer = range(cutoff, cutoff + dense)
    series = pd.DataFrame({"series_id": SERIES, "shop": SERIES, "region": list("nnnsss")})
    series["first_t"] = [0] * 5 + [cutoff - 51]
    series["naive_mae"], series["naive_mse"] = 10.0, 200.0
    return Window(
        cutoff,
        make_rows([(s, c) for s in SERIES for c in past], horizon, value, known),
        make_rows([(s, c) for s in SERIES for c in newer], horizon, value, known),
        pd.DataFrame({"shop": pd.Series(dtype=int), "t": pd.Series(dtype=int), "factor": []}),
        series,
    )


# Candidates --------------------------------------------------------------------------------------


class Off(SeasonalNaive):
    """Forecasts the truth times a factor: how wrong it is, is known in advance."""

    factor = 1.0

    def predict(self, rows: Rows) -> np.ndarray:
        return self.factor * super().predict(rows)


def off(name: str, factor: float) -> type[Candidate]:
    """A candidate whose forecasts are off by a factor."""
    return type(name, (Off,), {"name": name, "factor": factor})


def entrant(kind: type[Candidate]) -> Entrant:
    """A candidate that takes part."""
    return Entrant(kind.name, kind)


def blended(factors: Mapping[str, float]) -> list[Entrant]:
    """A blend of the named components' places, each of them off by a factor, and the baseline."""
    parts = [off(name, factors.get(name, 1.0)) for name in Blend().components]
    made = [entrant(part) for part in parts]
    return [entrant(candidate_class(BASELINE)), *made, Entrant(Blend.name, Blend)]


def quick_entrants() -> list[Entrant]:
    """Every component of the blend with few trees, the blend, and the baseline."""
    kinds = [candidate_class(name) for name in (BASELINE, *Blend().components, Blend.name)]
    return [Entrant(kind.name, lambda kind=kind: make_candidate(kind, QUICK_TREES)) for kind in kinds]


def hold(
    windows: Sequence[Window], entrants: Sequence[Entrant], panel: PanelSpec | None = None, **others: object
) -> Backtest:
    """A backtest in one thread."""
    return run_backtest(panel or region_panel(), windows, entrants, seed=1, threads=1, **others)


# Tables ------------------------------------------------------------------------------------------


def put_periods(con: duckdb.DuckDBPyConnection, panel: PanelSpec, reports: pd.DataFrame) -> None:
    """Make a cleaned series table of the series keys and `t` alone, which is all that cutoffs depend on."""
    con.register("reports_frame", reports[[*panel.keys, "t"]])
    con.execute(f"CREATE OR REPLACE TABLE cleaned.{panel.series.name} AS SELECT * FROM reports_frame")
    con.unregister("reports_frame")
