"""How groups of series stood at each period: against their peers, and against their own past.

What belongs here: the log ratios that blocks are searched in, each with its noise. What does not: the noise
model (noise.py), shifts in a ratio (scan.py), what makes a shift a finding (blocks.py).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from turnover_assets.core.anomalies import noise
from turnover_assets.core.anomalies.matrix import (
    Floats,
    Grouping,
    Integers,
    add_up,
    compare_with_peers,
    log_ratio,
    row_medians,
)

FEW_GROUPS = 12  # groups so few that a block of one shows in all others
NEAR = float(np.log(1.5))  # of its later level, which an opening group has then reached
SETTLED = 8  # periods over which it stays there
MOVE = 4  # periods over which changes of siblings are compared
FEWEST_MOVES = 8
KEPT = 64  # matrices

View = Literal["peers", "own"]


@dataclass(frozen=True)
class Seen:
    """One view of all groups of a level: log ratios with their noise.

    Attributes:
        view: Which one.
        ratios: Logarithm of observed over expected, shape (groups, periods), NaN where not known.
        expected: Shape (series, periods).
        noises: Of each group, but for how strong it is there.
        scales: How strong, as a standard deviation, shape (groups,).
        kept: The last few covariances and what is made of them; many groups share one.
    """

    view: View
    ratios: Floats
    expected: Floats
    noises: Sequence[noise.Noise]
    scales: Floats
    kept: dict[object, Floats] = field(default_factory=dict, compare=False)

    def noisier(self, by: float) -> "Seen":
        """The same with noise so many times as strong."""
        return replace(self, scales=self.scales * by)

    def precision(self, group: int, known: Integers, *, free_season: bool) -> Floats:
        """Inverse covariance over known periods, but for the group's scale: many groups share one."""
        periods, own = self.ratios.shape[1], self.noises[group]

        def inverse() -> Floats:
            return np.asarray(np.linalg.inv(own.covariance(periods, free_season=free_season)), np.float64)

        return self.keep(
            (own, free_season, known.tobytes()),
            lambda: _of_some(self.keep((own, free_season), inverse), known),
        )

    def keep(self, key: object, make: Callable[[], Floats]) -> Floats:
        """What `make` gives, made once while it is among the last few used."""
        found = self.kept.pop(key) if key in self.kept else make()
        while len(self.kept) >= KEPT:
            self.kept.pop(next(iter(self.kept)))
        self.kept[key] = found
        return found


def _of_some(precision: Floats, known: Integers) -> Floats:
    """The inverse covariance of some periods from that of all, by an inverse for the missing ones only."""
    if len(known) == len(precision):
        return precision
    missing = np.delete(np.arange(len(precision)), known)
    of_known, of_missing = precision.take(known, axis=0), precision.take(missing, axis=0)
    across = of_known.take(missing, axis=1)
    through: Floats = across @ np.linalg.solve(of_missing.take(missing, axis=1), across.T)
    return of_known.take(known, axis=1) - through


def views_of(values: Floats, grouping: Grouping, season: int) -> list[Seen]:
    """Both views of all groups of a level.

    Args:
        values: Reported values, shape (series, periods), NaN where not known.
        grouping: The level.
        season: Periods of a year.
    """
    known = ~np.isnan(values)
    peers = compare_with_peers(values, grouping)
    trust = _trust(values, peers.expected, grouping.peers)[:, None]
    amounts = np.where(known, np.maximum(values, 0.0), 0.0) * trust
    shares = np.where(known, peers.share[:, None], np.nan) * trust
    against_past = _grown_up(_ratios(amounts, np.nan_to_num(shares), grouping), season)
    if grouping.count <= FEW_GROUPS:
        siblings = _siblings(against_past, season)
        against_peers, expected = against_past - siblings, shares * np.exp(siblings)[grouping.group]
    else:
        expected = np.where(known, peers.expected, np.nan) * trust
        compared = np.where(np.isnan(expected), 0.0, amounts)
        against_peers = _grown_up(_ratios(compared, np.nan_to_num(expected), grouping), season)
    return [
        Seen("peers", against_peers, expected / trust, *noise.estimate(against_peers, season)),
        Seen("own", against_past, shares / trust, *noise.estimate(against_past, season)),
    ]


def _trust(values: Floats, expected: Floats, peers: Integers) -> Floats:
    """Weight of each series by how steadily its class follows its peers: shape (series,), 1 the steadiest."""
    steps = np.diff(log_ratio(values, expected), axis=1)
    variances = np.array([noise.robust_variance(steps[peers == c].ravel()) for c in range(peers.max() + 1)])
    if not np.isfinite(variances).any() or np.nanmin(variances) <= 0:
        return np.ones(len(values))
    steadiest = np.nanmin(variances)
    trust: Floats = np.where(np.isfinite(variances), steadiest / variances, 1.0)[peers]
    return trust


def _siblings(ratios: Floats, season: int) -> Floats:
    """What the other groups say of each group's log ratio: shape as `ratios`.

    The weights are those with which the others' changes follow the group's best, none below zero (a
    synthetic control: Abadie, Diamond & Hainmueller 2010), learned from changes alone so that a shift weighs
    no more than any other change.
    """
    yearly = season if ratios.shape[1] > season + season // 2 else 0
    moves = ratios[:, yearly:] - ratios[:, : ratios.shape[1] - yearly] if yearly else ratios
    moves = moves[:, MOVE:] - moves[:, :-MOVE]
    from scipy.optimize import nnls

    moves = moves[:, np.isfinite(moves).all(axis=0)]
    found = np.zeros_like(ratios)
    if len(ratios) < 2 or moves.shape[1] < FEWEST_MOVES:  # nnls breaks where nobody is to be weighed
        return found
    limit = 3.0 * np.median(np.abs(moves), axis=1, keepdims=True)
    moves = np.clip(moves, -limit, limit)
    for i in range(len(ratios)):
        others = [j for j in range(len(ratios)) if j != i]
        weights, _ = nnls(moves[others].T, moves[i])
        found[i] = weights @ np.where(weights[:, None] > 0, ratios[others], 0.0)
    return found


def _ratios(observed: Floats, expected: Floats, grouping: Grouping) -> Floats:
    if grouping.level == "series":
        return log_ratio(observed, expected)
    count = grouping.count
    return log_ratio(add_up(observed, grouping.group, count), add_up(expected, grouping.group, count))


def _grown_up(ratios: Floats, season: int) -> Floats:
    """Without the time in which a group opens: until it stays near its later level, and half a year."""
    known, at = np.isfinite(ratios), np.arange(ratios.shape[1])
    first = known.argmax(axis=1)[:, None]
    later = row_medians(np.where((at >= first) & (at < first + 2 * season), ratios, np.nan))
    is_near = ratios > later[:, None] - NEAR
    sums = np.pad(np.cumsum(is_near, axis=1), ((0, 0), (1, 0)))
    ahead = np.minimum(at + SETTLED, len(at))
    stays = is_near & (sums[:, ahead] - sums[:, at] >= 0.75 * (ahead - at))
    begins = np.where(stays.any(axis=1), stays.argmax(axis=1), len(at))[:, None]
    return np.where((first > 0) & (at < begins + season // 2), np.nan, ratios)
