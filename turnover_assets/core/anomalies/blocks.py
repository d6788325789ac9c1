"""Level shifts in blocks: whole groups reported at another level from one period to the next.

What belongs here: the search for blocks, and what tells them from growth, seasons and openings. What does
not: the noise model (noise.py), expected values (matrix.py), words and remedies (detect.py).

A block is an interval in which the logarithm of a group's values is shifted by a constant. Under the noise
model every interval has a best shift (generalised least squares), its standard error and its z value; all
intervals are compared at once through cumulative sums. Two views are searched: a group against its peers,
and against its own past and other years. What is found counts where
    - the other view agrees (else it is the peers that moved, or everybody);
    - most of the group's own series moved alike (else it is one of them);
    - it begins and ends from one period to the next (else it is growth or decline);
    - it is not there at the same periods of other years (else it is the season).
The strongest is corrected first, in a copy, before the search goes on: a block echoes a year later, and in
its siblings.
"""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from scipy.optimize import nnls

from turnover_assets.core.anomalies import noise
from turnover_assets.core.anomalies.matrix import (
    Floats,
    Grouping,
    History,
    Integers,
    add_up,
    compare_with_peers,
    log_ratio,
)

SHORTEST = 4  # periods; shorter ones are promotions and strikes, or single outliers
FULL_LENGTH = 8  # periods from which length alone no longer lowers the strength
WEAKEST = 3.5  # strength; below it, so many intervals being compared, noise alone makes some
SMALLEST = float(np.log(1.2))  # shift
SMALLEST_ALONE = float(np.log(3.0))  # of a single series, which real things happen to
FULL_SHIFT = float(np.log(1.5))  # from which the size of the shift no longer lowers the strength
AGREEMENT = 0.4  # of the shift, at least, in the other view and in another season model
UNIFORM = 0.7  # of the group's expected amount must have moved at least half as much
ABRUPTNESS = 4.0  # log-likelihood (doubled) by which a sudden change must beat a gradual one
CONSTANT = 0.5  # of the shift, at most, may it change from the beginning of a block to its end
JUMP = 0.5  # of the shift, at least, from a few periods before an edge to a few after it
JUMP_SPREADS = 1.5  # times what is usual at that time of other years
BESIDE = 3  # periods on either side of an edge
RAMPS = (4, 8, 13)  # periods of gradual changes
FEW_GROUPS = 12  # groups so few that a block of one shows in all others
TRICKLE = 0.1  # of the usual amount
NEARLY = 0.7  # of a z value below the highest, an interval is nearly as likely
LIKELY = 24  # such intervals looked at
ATTEMPTS = 3  # intervals looked at closely in one group and round
ROUNDS = 12
DENSE = 0.7  # of its periods a group must have reported
MOVE = 4  # periods over which changes of siblings are compared
KEPT = 64  # inverse covariances
LEARNING_YEARS = 0.5  # of a group's life pass before a block may begin

View = Literal["peers", "own"]


@dataclass(frozen=True)
class Block:
    """A block of one group.

    Attributes:
        grouping: The level.
        group: Number of the group in it.
        start: First column concerned.
        end: Column after the last one concerned.
        shift: Estimated shift of the logarithm.
        error: Its standard error.
        strength: Evidence: z value, lowered for short blocks.
    """

    grouping: Grouping
    group: int
    start: int
    end: int
    shift: float
    error: float
    strength: float

    @property
    def rows(self) -> Integers:
        """Positions of the series concerned."""
        return np.flatnonzero(self.grouping.group == self.group)


@dataclass(frozen=True)
class _Seen:
    """One view of all groups of a level: log ratios with their noise."""

    view: View
    ratios: Floats
    expected: Floats  # per series
    noises: Sequence[noise.Noise]
    kept: dict[object, Floats] = field(default_factory=dict, compare=False)

    def precision(self, group: int, known: Integers, *, free_season: bool) -> Floats:
        """Inverse covariance over known periods; the last few are kept, since many groups share one."""
        own = self.noises[group]
        key = (replace(own, scale=1.0), known.tobytes(), free_season)
        if key not in self.kept:
            if len(self.kept) >= KEPT:
                self.kept.pop(next(iter(self.kept)))
            covariance = own.covariance(self.ratios.shape[1], free_season=free_season)
            self.kept[key] = np.linalg.inv(covariance[np.ix_(known, known)])
        precision: Floats = self.kept[key] / own.scale**2
        return precision


@dataclass(frozen=True)
class _Estimate:
    shift: float
    error: float

    @property
    def z(self) -> float:
        return self.shift / self.error


def find_blocks(history: History, groupings: Sequence[Grouping], season: int) -> list[Block]:
    """All blocks, level by level, the largest groups first; the strongest first within a level.

    Args:
        history: Reported values; outliers made NaN beforehand.
        groupings: The levels to search.
        season: Periods of a year.
    """
    found: list[Block] = []
    values: Floats = history.values.copy()
    for grouping in groupings:
        for block in _search(values, grouping, season):
            values[block.rows, block.start : block.end] *= float(np.exp(-block.shift))
            found.append(block)
    return [_estimated_again(history, found, block, season) for block in found]


def _search(values: Floats, grouping: Grouping, season: int) -> Iterator[Block]:
    """Blocks of one level; the caller corrects each in `values` before it asks for the next."""
    todo: set[int] = set(range(grouping.count)) - grouping.named_elsewhere
    if grouping.level == "series":
        todo &= _moved_far(_views(values, grouping, season)[0].ratios)
    few = grouping.count <= FEW_GROUPS
    for _ in range(ROUNDS):
        views = _views(values, grouping, season)
        credible = [block for group in sorted(todo) if (block := _strongest(views, values, grouping, group))]
        if not credible:
            return
        credible.sort(key=lambda block: (-block.strength, block.group))
        chosen = credible[:1] if few else credible
        todo = todo if few else {block.group for block in chosen}
        yield from chosen


def _moved_far(ratios: Floats) -> set[int]:
    """Series whose log ratio was ever far enough from its usual value, for some periods on end."""
    smooth = np.lib.stride_tricks.sliding_window_view(ratios, SHORTEST, axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a series without any ratio is not far from it
        usual = np.nanmedian(ratios, axis=1, keepdims=True)
    far = np.abs(np.median(smooth, axis=2) - usual) >= 0.8 * SMALLEST_ALONE
    return set(np.flatnonzero(far.any(axis=1)).tolist())


def _views(values: Floats, grouping: Grouping, season: int) -> list[_Seen]:
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
        _Seen("peers", against_peers, expected / trust, noise.estimate(against_peers, season)),
        _Seen("own", against_past, shares / trust, noise.estimate(against_past, season)),
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
    moves = moves[:, np.isfinite(moves).all(axis=0)]
    found = np.zeros_like(ratios)
    if moves.shape[1] < FULL_LENGTH:
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
    ratios, near = ratios.copy(), np.log(1.5)
    for own in ratios:
        known = np.flatnonzero(np.isfinite(own))
        if len(known) == 0 or known[0] == 0:
            continue
        later = np.nanmedian(own[known[0] : known[0] + 2 * season])
        is_near = own > later - near
        stays = next((t for t in known[is_near[known]] if np.mean(is_near[t : t + 8]) >= 0.75), len(own))
        own[: stays + season // 2] = np.nan
    return ratios


def _strongest(views: Sequence[_Seen], values: Floats, grouping: Grouping, group: int) -> Block | None:
    """The strongest credible block of a group."""
    known = np.flatnonzero(np.isfinite(views[0].ratios[group]) & np.isfinite(views[1].ratios[group]))
    if len(known) < 2 * FULL_LENGTH + SHORTEST or len(known) < DENSE * (known[-1] - known[0]):
        return None
    candidates = []
    for seen in views:
        scan = _Scan.of(seen, group, known)
        candidates += [(abs(z), scan, intervals) for z, intervals in scan.peaks()]
    explained: set[int] = set()  # jumps that belong to something stronger that is no block
    for _, scan, intervals in sorted(candidates, key=lambda c: (-c[0], c[2])):
        if explained & set(intervals[0]):
            continue
        other = next(view for view in views if view is not scan.seen)
        for start, end in intervals:
            if block := _judged(scan, _Scan.of(other, group, known), values, grouping, start, end):
                return block
        explained |= {edge + d for edge in intervals[0] for d in range(-BESIDE, BESIDE + 1)}
    return None


def _judged(
    scan: "_Scan", other: "_Scan", values: Floats, grouping: Grouping, start: int, end: int
) -> Block | None:
    """The block in an interval of known periods, where everything speaks for it."""
    inside = np.zeros(len(scan.known))
    inside[start:end] = 1.0
    main = scan.estimate(inside)
    alone = grouping.level == "series"
    if abs(main.shift) < (SMALLEST_ALONE if alone else SMALLEST) or not _agrees(main, other.estimate(inside)):
        return None
    if main.z**2 - max(scan.estimate(_gradual(inside, n)).z ** 2 for n in RAMPS) < ABRUPTNESS:
        return None
    if not scan.has_edges(start, end, main.shift) or not _matters(values, grouping, scan, inside, main.shift):
        return None
    evidence = abs(main.z)
    if scan.noise.has_season:
        unlike_other_years = scan.in_any_season().estimate(inside)
        if not _agrees(main, unlike_other_years):
            return None
        evidence = min(evidence, abs(unlike_other_years.z))
    compared = 2.0 * np.log(grouping.count)  # the more groups, the higher the highest of them by chance
    strength = np.sqrt(max(evidence**2 - compared, 0.0)) * min(1.0, (end - start) / FULL_LENGTH)
    strength *= min(1.0, abs(main.shift) / FULL_SHIFT)
    if strength < WEAKEST or not scan.is_constant(inside, main.shift):
        return None
    if scan.moved_alike(values, grouping, inside, main.shift) < UNIFORM:
        return None
    first, last = int(scan.known[start]), int(scan.known[end - 1])
    return Block(grouping, scan.group, first, last + 1, main.shift, main.error, float(strength))


def _matters(values: Floats, grouping: Grouping, scan: "_Scan", inside: Floats, shift: float) -> bool:
    """Whether the group has more than a trickle at that time: off season, ratios say nothing."""
    rows = values[grouping.group == scan.group][:, scan.known]
    amounts = np.nansum(np.maximum(rows, 0.0), axis=0)
    return bool(amounts[inside > 0].mean() / np.exp(max(shift, 0.0)) >= TRICKLE * amounts.mean())


def _agrees(main: _Estimate, other: _Estimate) -> bool:
    """Whether another estimate of a shift has its direction, and its size within reason."""
    least = AGREEMENT * abs(main.shift) - other.error
    return main.shift * other.shift > 0 and abs(other.shift) >= least


def _gradual(inside: Floats, periods: int) -> Floats:
    """The same interval, begun and ended over some periods."""
    padded = np.pad(inside, periods, "edge")
    smooth: Floats = np.convolve(padded, np.ones(periods) / periods, "same")[periods:-periods]
    return smooth


def _jumps(ratio: Floats) -> Floats:
    """Difference of the means after and before each position; NaN at the ends."""
    sums = np.concatenate([[0.0], np.cumsum(ratio)])
    found = np.full(len(ratio), np.nan)
    at = np.arange(BESIDE, len(ratio) - 1)
    after = np.minimum(at + BESIDE, len(ratio))
    found[at] = (sums[after] - sums[at]) / (after - at) - (sums[at] - sums[at - BESIDE]) / BESIDE
    return found


@dataclass(frozen=True)
class _Scan:
    """One group in one view, ready for estimates of shifts over any of its known periods."""

    seen: _Seen
    group: int
    known: Integers
    precision: Floats

    @classmethod
    def of(cls, seen: _Seen, group: int, known: Integers, *, free_season: bool = False) -> "_Scan":
        return cls(seen, group, known, seen.precision(group, known, free_season=free_season))

    @property
    def noise(self) -> noise.Noise:
        return self.seen.noises[self.group]

    def in_any_season(self) -> "_Scan":
        return _Scan.of(self.seen, self.group, self.known, free_season=True)

    @property
    def ratio(self) -> Floats:
        own = self.seen.ratios[self.group, self.known]
        return np.asarray(own - np.median(own))

    def estimate(self, inside: Floats) -> _Estimate:
        """Generalised least squares of the shift along a course."""
        weights = self.precision @ inside
        information = float(inside @ weights)
        return _Estimate(float(weights @ self.ratio) / information, information**-0.5)

    def peaks(self) -> Iterator[tuple[float, list[tuple[int, int]]]]:
        """The highest z value of each stretch, and the intervals nearly as likely, the likeliest first."""
        size = len(self.known)
        along = np.concatenate([[0.0], np.cumsum(self.precision @ self.ratio)])
        area = np.zeros((size + 1, size + 1))
        area[1:, 1:] = self.precision.cumsum(axis=0).cumsum(axis=1)
        corner = np.diag(area)
        information = corner[None, :] - area - area.T + corner[:, None]
        start, end = np.ogrid[: size + 1, : size + 1]
        earliest = min(int(LEARNING_YEARS * self.noise.season), size // 4)
        allowed = (
            (end - start >= SHORTEST) & (end - start <= size // 2) & (start >= max(FULL_LENGTH, earliest))
        )
        z = np.zeros_like(area)
        np.divide(
            along[None, :] - along[:, None], np.sqrt(np.maximum(information, 1e-12)), out=z, where=allowed
        )
        for _ in range(ATTEMPTS):
            first, last = np.unravel_index(int(np.argmax(np.abs(z))), z.shape)
            if abs(z[first, last]) < WEAKEST:
                return
            highest = abs(float(z[first, last]))
            longer = np.maximum(np.maximum(end - start, last - first), 1)
            common = (np.minimum(end, last) - np.maximum(start, first)) / longer
            near = np.argwhere((np.abs(z) >= highest - NEARLY) & (common > 0.5))
            near = near[np.argsort(-np.abs(z[near[:, 0], near[:, 1]]), kind="stable")][:LIKELY]
            yield highest, [(int(a), int(b)) for a, b in near]
            z[common > 0.3] = 0.0

    def has_edges(self, start: int, end: int, shift: float) -> bool:
        """Whether the values jump where the block begins and ends, unlike at the same time of other years."""
        first, after = int(self.known[start]), int(self.known[end - 1]) + 1
        edges = {first: shift} if end == len(self.known) else {first: shift, after: -shift}
        jumps = _jumps(self.filled)
        return all(self._stands_out(jumps * np.sign(by), edge, abs(by), edges) for edge, by in edges.items())

    def _stands_out(self, jumps: Floats, edge: int, size: float, edges: Iterable[int]) -> bool:
        season = self.noise.season
        years = range(-(len(jumps) // season) - 1, len(jumps) // season + 2)
        same_time = {edge + k * season + d for k in years if k for d in (-1, 0, 1)}
        same_time -= {t + d for t in edges for d in range(-BESIDE, BESIDE + 1)}
        others = np.array(
            [jumps[t] for t in sorted(same_time) if 0 <= t < len(jumps) and np.isfinite(jumps[t])]
        )
        usual = float(np.median(others)) if len(others) else 0.0
        spread = float(np.sqrt(np.mean((others - usual) ** 2))) if len(others) else 0.0
        enough = max(JUMP * size - self.noise.of_jump(BESIDE), JUMP_SPREADS * spread)
        return bool(jumps[edge] - usual >= enough)

    @property
    def filled(self) -> Floats:
        """The log ratio at every period, gaps bridged."""
        return np.interp(np.arange(self.seen.ratios.shape[1]), self.known, self.ratio)

    def is_constant(self, inside: Floats, shift: float) -> bool:
        """Whether the shift is as large at the end of the block as at its beginning.

        A feed's factor stays what it is; what shops and customers do comes and goes.
        """
        at = np.flatnonzero(inside)
        slope = np.zeros(len(inside))
        slope[at] = np.linspace(-0.5, 0.5, len(at))
        both = np.stack([inside, slope], axis=1)
        information = both.T @ self.precision @ both
        _, change = np.linalg.solve(information, both.T @ self.precision @ self.ratio)
        error = np.sqrt(np.linalg.inv(information)[1, 1])
        return bool(abs(change) - 2.0 * error < CONSTANT * abs(shift))

    def moved_alike(self, values: Floats, grouping: Grouping, inside: Floats, shift: float) -> float:
        """Share of the group's expected amount whose series moved at least half as far, the same way."""
        rows = np.flatnonzero(grouping.group == self.group)
        if len(rows) == 1:
            return 1.0
        weights = self.precision @ inside
        weights = weights / (inside @ weights)
        expected = self.seen.expected[np.ix_(rows, self.known)]
        own = log_ratio(values[np.ix_(rows, self.known)], expected)
        own = own - np.nanmedian(own, axis=1, keepdims=True)
        shifts = np.where(np.isfinite(own), own, self.ratio[None, :]) @ weights
        amounts = np.where(np.isfinite(own), expected, 0.0)[:, inside > 0].sum(axis=1)
        alike = (shifts * shift > 0) & (np.abs(shifts) >= 0.5 * abs(shift))
        return float(amounts[alike].sum() / amounts.sum()) if amounts.sum() > 0 else 0.0


def _estimated_again(history: History, found: Sequence[Block], block: Block, season: int) -> Block:
    """The block's shift with all other blocks corrected, from both views."""
    values = history.values.copy()
    for other in found:
        if other is not block:
            values[other.rows, other.start : other.end] /= np.exp(other.shift)
    shifts, weights = [], []
    for seen in _views(values, block.grouping, season):
        known = np.flatnonzero(np.isfinite(seen.ratios[block.group]))
        inside = ((known >= block.start) & (known < block.end)).astype(float)
        if 0 < inside.sum() < len(known):
            estimate = _Scan.of(seen, block.group, known).estimate(inside)
            shifts.append(estimate.shift)
            weights.append(estimate.error**-2)
    if not shifts:
        return block
    shift = float(np.average(shifts, weights=weights))
    # Both views share the group's own values, so two of them are hardly surer than the better one.
    return replace(block, shift=shift, error=float(max(weights) ** -0.5))
