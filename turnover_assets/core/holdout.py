"""The holdout: candidates compared on the last periods, none of which they were trained on.

What belongs here: fitting candidates on what was known before the holdout, scoring them on it, and
choosing one. What does not: reading rows, and the evidence-based replacement of a champion.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from turnover_assets.core.intervals import Intervals
from turnover_assets.core.metrics import bias, wape
from turnover_assets.core.models import Candidate, Rows
from turnover_assets.core.models.base import Floats

MINIMUM_ROWS = 200  # below that, trees have nothing to learn from and only the baselines compete


@dataclass(frozen=True)
class Holdout:
    """What the comparison found.

    Attributes:
        scores: A row a candidate, best first: `model`, `wape`, `bias` (shares), `training_rows`,
            `holdout_rows`, `fit_seconds`, `chosen`.
        forecasts: Forecasts on the holdout rows by candidate name, in the scale of adjusted values, units of
            the target, shape (n,) each.
        rows: The n holdout rows.
    """

    scores: pd.DataFrame
    forecasts: dict[str, Floats]
    rows: Rows

    @property
    def winner(self) -> str:
        """Name of the candidate with the lowest WAPE."""
        return str(self.scores["model"].iloc[0])

    def wape_of(self, name: str) -> float:
        """WAPE of a candidate."""
        return float(self.scores.set_index("model")["wape"].loc[name])

    def intervals(self) -> Intervals:
        """Intervals of the winner, calibrated on its holdout residuals."""
        return Intervals.calibrate(self.rows, self.forecasts[self.winner])


def compare(
    candidates: Sequence[type[Candidate]],
    training: Rows,
    holdout: Rows,
    *,
    seed: int,
    threads: int,
    nonnegative: bool,
    progress: Callable[[str], None] = lambda _: None,
) -> Holdout:
    """Fit every candidate on the training rows and score it on the holdout rows.

    Args:
        candidates: Classes to try.
        training: Rows whose target period lies before every period of the holdout.
        holdout: Rows of one cutoff; scored against what was reported.
        seed: Seed of what draws.
        threads: Threads for fitting.
        nonnegative: Forecasts are clipped at zero before they are scored.
        progress: Called with the name of each candidate before it is fitted.

    Raises:
        ValueError: A training row's target period lies in or after the holdout, or there is nothing to
            score, or too little to fit any of the candidates.
    """
    _check_separation(training, holdout)
    reported = holdout.identity["reported"].to_numpy(np.float64)
    scores, forecasts = [], {}
    for candidate in candidates:
        if len(training) < MINIMUM_ROWS and candidate().parameters():
            continue
        progress(candidate.name)
        began = time.perf_counter()
        predicted = candidate().fit(training, seed=seed, threads=threads).predict(holdout)
        seconds = time.perf_counter() - began
        forecasts[candidate.name] = np.maximum(predicted, 0.0) if nonnegative else predicted
        as_reported = forecasts[candidate.name] * holdout.in_force
        scores.append(
            {
                "model": candidate.name,
                "wape": wape(reported, as_reported),
                "bias": bias(reported, as_reported),
                "training_rows": len(training),
                "holdout_rows": int((~np.isnan(reported)).sum()),
                "fit_seconds": seconds,
            }
        )
    if not scores:
        raise ValueError(f"no candidate can be fitted on {len(training)} rows; name a baseline among them")
    table = pd.DataFrame(scores).sort_values("wape", kind="stable").reset_index(drop=True)
    table["chosen"] = table.index == 0
    return Holdout(table, forecasts, holdout)


def _check_separation(training: Rows, holdout: Rows) -> None:
    """The leakage guard of the comparison."""
    if np.isnan(holdout.actual).all():
        raise ValueError("the holdout has no row with a known actual")
    first = int(holdout.identity["cutoff"].min()) + 1
    if len(training) and int(training.identity["t"].max()) >= first:
        raise ValueError(f"training rows reach into the holdout, which begins at period {first}")
