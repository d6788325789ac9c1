"""Training: from the cleaned tables to a challenger with its evidence, the same way wherever it is done.

What belongs here: who takes part in a backtest, and the plan of one. What does not: fitting and scoring
(backtest.py), and where results are kept.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np

from turnover_assets.core.backtest import Backtest, Entrant, learn, run_backtest
from turnover_assets.core.intervals import BOUNDS
from turnover_assets.core.metrics import coverage
from turnover_assets.core.models import BASELINE, CANDIDATES, Blend, Candidate, make_candidate
from turnover_assets.core.repairs import Repairs
from turnover_assets.core.rows import RowLimits
from turnover_assets.core.windows import Transaction, make_windows_apart, present_factors
from turnover_assets.panel import PanelSpec

CHAMPION = "champion"  # name of the champion among the entrants, where it is none of the candidates
Tuned = Mapping[str, Mapping[str, Any]]  # parameters by candidate, in place of the candidate's own


@dataclass(frozen=True)
class Plan:
    """How to train.

    Attributes:
        limits: How many rows to make.
        repairs: How the history is repaired.
        seed: Seed of what draws.
        threads: Threads for fitting.
        tuned: Parameters that a search has found.
    """

    limits: RowLimits
    repairs: Repairs
    seed: int
    threads: int
    tuned: Tuned


@dataclass(frozen=True)
class Fitted:
    """A model that was fitted before.

    Attributes:
        candidate: The model.
        features: Names of its features.
        until: Index of the last period that it has seen.
    """

    candidate: Candidate
    features: Sequence[str]
    until: int


def recipe(candidate: Candidate, features: Sequence[str]) -> str:
    """Fingerprint of what makes a model before any data does: candidate, parameters, features."""
    said = (candidate.name, sorted(candidate.parameters().items()), list(features))
    return sha256(repr(said).encode()).hexdigest()[:12]


def entrants(tuned: Tuned, features: Sequence[str], champion: Fitted | None = None) -> list[Entrant]:
    """The candidates, and the champion after them.

    Args:
        tuned: Parameters that a search has found.
        features: Names of the features as they are now.
        champion: The champion, where there is one that could forecast with these features.
    """
    found = [Entrant(kind.name, _maker(kind, tuned)) for kind in CANDIDATES]
    if champion is None:
        return found
    its_own = recipe(champion.candidate, champion.features)
    same = [e.name for e in found if recipe(e.make(), features) == its_own]
    like = same[0] if same else ""
    return [*found, Entrant(CHAMPION, champion.candidate.unfitted, like, champion.candidate, champion.until)]


def _maker(kind: type[Candidate], tuned: Tuned) -> Callable[[], Candidate]:
    return lambda: make_candidate(kind, tuned)


def backtest(
    transaction: Transaction,
    panel: PanelSpec,
    cutoffs: Sequence[int],
    who: Sequence[Entrant],
    plan: Plan,
    progress: Callable[[str], None] = lambda _: None,
) -> Backtest:
    """Hold a backtest on the windows of some cutoffs (period indices, oldest first).

    From each cutoff on, a horizon of cutoffs is forecast with the same fit, as a champion in use would: that
    gives intervals, above all those of sums, more to learn from. Each window is made in a transaction of its
    own.
    """
    with transaction() as con:
        factors = present_factors(con, panel)
    used_since = min((entrant.fitted_until for entrant in who if entrant.fitted is not None), default=None)
    windows = make_windows_apart(
        transaction, panel, cutoffs, plan.limits, plan.repairs, panel.horizon, used_since
    )
    return run_backtest(
        panel,
        windows,
        who,
        seed=plan.seed,
        threads=plan.threads,
        factors=factors,
        progress=progress,
    )


def challenger(found: Backtest, tuned: Tuned) -> Candidate:
    """The best candidate of a backtest, not fitted."""
    scores = found.scores()
    return unfitted(found, str(scores[scores["model"] != CHAMPION]["model"].iloc[0]), tuned)


def unfitted(found: Backtest, name: str, tuned: Tuned) -> Candidate:
    """A candidate as a backtest would have it fitted: a blend has the weights that all windows teach."""
    candidate = make_candidate(next(kind for kind in CANDIDATES if kind.name == name), tuned)
    if not isinstance(candidate, Blend):
        return candidate
    return learn(candidate, found.windows, found.hindsight(), found.seasons)


def promise(found: Backtest, name: str) -> dict[str, float]:
    """What a backtest says of an entrant, over the compared windows.

    Returns:
        `wape`, `bias`, `coverage_80`, `coverage_95` (NaN where no window lies before the compared ones), and
        `wape_seasonal_naive` where the baseline took part.
    """
    scores = found.scores().set_index("model")
    figures = {"wape": float(scores["wape"][name]), "bias": float(scores["bias"][name])}
    rows = found.rows(name, found.compared)
    actual, *bounds = (rows[column].to_numpy(np.float64) for column in ("actual", *BOUNDS))
    figures |= {"coverage_80": coverage(actual, *bounds[:2]), "coverage_95": coverage(actual, *bounds[2:])}
    if BASELINE in scores.index:
        figures[f"wape_{BASELINE}"] = float(scores["wape"][BASELINE])
    return figures
