"""The search for hyper-parameters: proposing them, judging them on windows, giving up early.

What belongs here: the search. What does not: what is searched (search_spaces.py), the windows
(tuning_windows.py), what follows from the trials (trials.py), tracking (storage/search_log.py).

Invariants:
    - the first trial has the candidate's own parameters, so the best is never worse than these there;
    - with a bound on trials only, the same windows and seed give the same result.
"""

import importlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from turnover_assets.core.models import candidate_class, make_candidate
from turnover_assets.core.search_spaces import Range, search_space
from turnover_assets.core.trials import Parameters, Search, Trial
from turnover_assets.core.tuning_windows import window_wape
from turnover_assets.core.windows import Window
from turnover_assets.errors import TurnoverError
from turnover_assets.panel import PanelSpec

TRIALS_BEFORE_PRUNING = 5


def require_optuna() -> Any:
    """The module optuna, which is imported only here: forecasting does without.

    Raises:
        TurnoverError: It is not installed.
    """
    try:
        return importlib.import_module("optuna")
    except ImportError:
        raise TurnoverError(
            "The search for parameters needs optuna, which is not installed. Install it with "
            "`pip install 'turnover-assets[tuning]'`."
        ) from None


@dataclass(frozen=True)
class Budget:
    """Where a search ends.

    Attributes:
        trials: After so many trials, those of known parameters among them.
        seconds: No trial but the first begins after so many; None where only trials count.
    """

    trials: int
    seconds: float | None = None


def search(
    windows: Sequence[Window],
    panel: PanelSpec,
    name: str,
    budget: Budget,
    *,
    in_use: Parameters | None = None,
    seed: int,
    threads: int,
    told: Callable[[Trial], None] = lambda _: None,
) -> Search:
    """Search for the parameters of a candidate with the lowest mean WAPE over some windows.

    A tree-structured Parzen estimator (Bergstra et al., 2011) proposes parameters. A trial is given up where
    what it has reached, as a ratio to the own parameters' WAPE on the same windows, is worse than the median
    of the trials before.

    Args:
        windows: Windows to judge on, oldest first; see usable_windows.
        panel: The panel.
        name: The candidate.
        budget: Where to end.
        in_use: Parameters found by an earlier search, which are tried again.
        seed: Seed of the search and of what draws in a fit.
        threads: Threads for fitting.
        told: Told of each trial once it is done.

    Raises:
        UnknownNameError: There is nothing to search for this candidate.
        TurnoverError: optuna is not installed.
    """
    optuna = require_optuna()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    known = _known(name, in_use or {})
    objective = _Objective(windows, name, _space_with(name, known), panel.series.target.nonnegative)
    study = optuna.create_study(
        sampler=optuna.samplers.TPESampler(seed=seed),
        pruner=optuna.pruners.MedianPruner(TRIALS_BEFORE_PRUNING, n_warmup_steps=1),
    )
    for parameters in known:
        study.enqueue_trial(parameters)

    def judge(trial: Any) -> float:
        return objective.judge(trial, seed, threads, told)

    began = time.perf_counter()
    study.optimize(judge, n_trials=1)  # the own parameters are judged whatever the time
    left = None if budget.seconds is None else max(0.0, budget.seconds - (time.perf_counter() - began))
    study.optimize(judge, n_trials=budget.trials - 1, timeout=left)
    cutoffs = tuple(window.cutoff for window in windows)
    return Search(name, cutoffs, cutoffs[-1] + panel.horizon, tuple(objective.trials))


def _known(name: str, in_use: Parameters) -> list[dict[str, Any]]:
    """The parameters to begin with: the candidate's own, and those in use where they differ."""
    own: dict[str, Any] = dict(make_candidate(candidate_class(name)).parameters())
    found = [{key: values[key] for key in search_space(name)} for values in (own, {**own, **in_use})]
    return found[:1] if found[0] == found[1] else found


def _space_with(name: str, known: Sequence[Parameters]) -> dict[str, Range]:
    """The search space, widened where known parameters lie outside."""
    return {key: found.with_values([p[key] for p in known]) for key, found in search_space(name).items()}


class _Objective:
    """Judges one set of parameters after the other, and remembers them all."""

    def __init__(
        self, windows: Sequence[Window], name: str, space: Mapping[str, Range], nonnegative: bool
    ) -> None:
        self.trials: list[Trial] = []
        self._windows, self._name, self._space = windows, name, space
        self._nonnegative = nonnegative

    def judge(self, trial: Any, seed: int, threads: int, told: Callable[[Trial], None]) -> float:
        """Mean WAPE of the parameters that an optuna trial proposes.

        Raises:
            optuna.TrialPruned: It was given up.
        """
        began = time.perf_counter()
        parameters = {key: _suggested(trial, key, found) for key, found in self._space.items()}
        kind, wapes = candidate_class(self._name), list[float]()
        for window in self._windows:
            candidate = make_candidate(kind, {self._name: parameters})
            wapes.append(
                window_wape(candidate, window, nonnegative=self._nonnegative, seed=seed, threads=threads)
            )
            trial.report(self._relative(wapes), len(wapes) - 1)
            if trial.should_prune():
                break
        pruned = len(wapes) < len(self._windows)
        done = Trial(trial.number, parameters, tuple(wapes), pruned, time.perf_counter() - began)
        self.trials.append(done)
        told(done)
        if pruned:
            raise require_optuna().TrialPruned
        return done.wape

    def _relative(self, wapes: Sequence[float]) -> float:
        """Mean WAPE so far over that of the own parameters: windows differ in how hard they are."""
        own = self.trials[0].wapes if self.trials else wapes
        return sum(wapes) / max(sum(own[: len(wapes)]), 1e-12)


def _suggested(trial: Any, name: str, found: Range) -> int | float:
    """A value of a parameter that the sampler proposes."""
    if found.whole:
        return int(trial.suggest_int(name, int(found.low), int(found.high), log=found.log))
    return float(trial.suggest_float(name, found.low, found.high, log=found.log))
