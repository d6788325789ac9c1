"""The windows of a search for hyper-parameters, and what a candidate loses on one.

What belongs here: which windows a search may look at. What does not: making windows (windows.py), proposing
parameters (tuning.py).

Invariant: no window of a search has a target period in common with one on which models are compared.
"""

from collections.abc import Iterable, Sequence

import duckdb
import numpy as np

from turnover_assets.core.backtest import MINIMUM_ROWS, check_separation
from turnover_assets.core.calendar import label_of
from turnover_assets.core.cutoffs import first_period
from turnover_assets.core.metrics import wape
from turnover_assets.core.models import Candidate
from turnover_assets.core.windows import Window
from turnover_assets.errors import TurnoverError
from turnover_assets.panel import PanelSpec

FEWEST_WINDOWS = 2  # on a single one, chance would choose


def tuning_cutoffs(
    con: duckdb.DuckDBPyConnection, panel: PanelSpec, compared: Sequence[int], windows: int
) -> tuple[int, ...]:
    """Cutoffs of a search, oldest first.

    The last target period of the newest one lies just before the first one of the compared windows. The
    others spread over the season before, so that no part of it decides alone, but never overlap; a season of
    history lies before each.

    Args:
        con: Connection with the cleaned tables.
        panel: The panel.
        compared: Cutoffs of the windows on which the next training compares models (period indices).
        windows: How many are wanted; where history has room for fewer, there are fewer.

    Raises:
        TurnoverError: There is no room for FEWEST_WINDOWS.
    """
    season, horizon = panel.frequency.season, panel.horizon
    first = first_period(con, panel)
    newest = min(compared) - horizon
    room = newest - (first + season)
    count = min(windows, room // horizon + 1)
    if count < FEWEST_WINDOWS:
        raise TurnoverError(
            f"The history is too short to search for parameters: it begins {label_of(panel, first)}, and "
            f"what is tuned on must end before {label_of(panel, min(compared) + 1)}, where the windows begin "
            f"that models are compared on. {season + FEWEST_WINDOWS * horizon} periods are needed before "
            "that. Land older files, or compare on fewer windows (TURNOVER_BACKTEST_WINDOWS)."
        )
    apart = min(room // (count - 1), max(horizon, season // count))
    return tuple(newest - number * apart for number in reversed(range(count)))


def usable_windows(windows: Iterable[Window]) -> tuple[Window, ...]:
    """The windows that can tell parameters apart: with enough to learn from, and something to score.

    Raises:
        TurnoverError: Fewer than FEWEST_WINDOWS are.
    """
    found = [window for window in windows if len(window.training) >= MINIMUM_ROWS and _sold(window)]
    for window in found:
        check_separation(window)
    if len(found) < FEWEST_WINDOWS:
        raise TurnoverError(
            f"Only {len(found)} of the windows to search on have {MINIMUM_ROWS} training rows and values "
            f"other than 0 to score; {FEWEST_WINDOWS} are needed. Land older files, or raise "
            "TURNOVER_TRAINING_SHARE."
        )
    return tuple(found)


def _sold(window: Window) -> bool:
    return bool(window.scoring.identity["reported"].abs().sum() > 0)


def window_wape(candidate: Candidate, window: Window, *, nonnegative: bool, seed: int, threads: int) -> float:
    """WAPE of a candidate that is fitted on a window's training rows, against what was reported."""
    forecast = candidate.fit(window.training, seed=seed, threads=threads).predict(window.scoring)
    if nonnegative:
        forecast = np.maximum(forecast, 0.0)
    reported = window.scoring.identity["reported"].to_numpy(np.float64)
    return wape(reported, forecast * window.scoring.in_force)
