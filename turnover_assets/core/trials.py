"""Trials of a search for hyper-parameters, and whether what they found is used.

What belongs here: the figures of a search and the decision. What does not: making trials (tuning.py), keeping
what was found (tuned.py), judging a model (gate.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from turnover_assets.core.tuned import Tuned

MARGIN = 0.01  # relative improvement of the mean WAPE from which tuned parameters replace the own ones
Parameters = Mapping[str, Any]


@dataclass(frozen=True)
class Trial:
    """One set of parameters, judged.

    Attributes:
        number: 0 for the candidate's own parameters.
        parameters: Those that were searched.
        wapes: WAPE of each window, oldest first; fewer than there are windows where it was pruned.
        pruned: Whether it was given up before the last window.
        seconds: What it took.
    """

    number: int
    parameters: Parameters
    wapes: tuple[float, ...]
    pruned: bool
    seconds: float

    @property
    def wape(self) -> float:
        """Mean over its windows: each counts alike."""
        return float(np.mean(self.wapes))

    def sentence(self) -> str:
        """What became of it, in words."""
        given_up = f", given up after {len(self.wapes)} windows" if self.pruned else ""
        return f"trial {self.number}: WAPE {self.wape:.2%}{given_up} ({self.seconds:.0f} s)"


@dataclass(frozen=True)
class Search:
    """What came of a search.

    Attributes:
        candidate: Name of the candidate.
        cutoffs: Cutoffs of the windows, oldest first.
        until: Index of the last target period that the search has seen.
        trials: All trials in their order; the first has the candidate's own parameters.
    """

    candidate: str
    cutoffs: tuple[int, ...]
    until: int
    trials: tuple[Trial, ...]

    @property
    def own(self) -> Trial:
        """The trial of the candidate's own parameters."""
        return self.trials[0]

    @cached_property
    def best(self) -> Trial:
        """The trial with the lowest mean WAPE, the earliest of equal ones."""
        return min((trial for trial in self.trials if not trial.pruned), key=lambda trial: trial.wape)

    @property
    def gain(self) -> float:
        """Relative improvement of the best trial over the own parameters, not below 0."""
        return 1.0 - self.best.wape / self.own.wape if self.own.wape > 0 else 0.0

    @property
    def windows_won(self) -> int:
        """Windows on which the best trial is better than the own parameters."""
        return sum(best < own for best, own in zip(self.best.wapes, self.own.wapes, strict=True))

    @property
    def accepted(self) -> bool:
        """Whether the best trial is better by the margin, and on most windows."""
        return self.gain >= MARGIN and 2 * self.windows_won > len(self.cutoffs)

    def result(self, before: Tuned) -> Tuned:
        """What trainings use from now on; other candidates keep what they had.

        Args:
            before: What they used so far.
        """
        others = {name: of for name, of in before.parameters.items() if name != self.candidate}
        chosen = {self.candidate: dict(self.best.parameters)} if self.accepted else {}
        return Tuned({**others, **chosen}, max(self.until, before.until or self.until))

    def sentence(self) -> str:
        """What was decided and why."""
        found = (
            f"The best of {len(self.trials)} trials has WAPE {self.best.wape:.2%}, the own parameters of "
            f"{self.candidate} {self.own.wape:.2%}: {self.gain:.1%} less, on {self.windows_won} of "
            f"{len(self.cutoffs)} windows"
        )
        rule = f"at least {MARGIN:.0%} and most windows are needed"
        if self.accepted:
            return f"{found} ({rule}). The next training uses the tuned parameters."
        return f"{found}; {rule}. The own parameters stay."

    def table(self) -> pd.DataFrame:
        """A row for each trial, best first, those given up last.

        Returns:
            `trial`, `wape` (share), `pruned`, `windows`, `seconds`, and a column for each parameter.
        """
        rows = [
            {
                "trial": trial.number,
                "wape": trial.wape,
                "pruned": trial.pruned,
                "windows": len(trial.wapes),
                "seconds": trial.seconds,
                **trial.parameters,
            }
            for trial in self.trials
        ]
        return pd.DataFrame(rows).sort_values(["pruned", "wape"], kind="stable").reset_index(drop=True)
