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
    - it is not there at the same periods of other years (else it is the season);
    - most of its periods differ from those of other years (else it is two holidays that moved).
The strongest is corrected first, in a copy, before the search goes on: a block echoes a year later, and in
its siblings.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from turnover_assets.core.anomalies.findings import unconfirmed
from turnover_assets.core.anomalies.matrix import Floats, Grouping, History, Integers, row_medians
from turnover_assets.core.anomalies.scan import BESIDE, FULL_LENGTH, SHORTEST, WEAKEST, Estimate, Scan
from turnover_assets.core.anomalies.views import FEW_GROUPS, Seen, views_of

SMALLEST = float(np.log(1.2))  # shift
SMALLEST_ALONE = float(np.log(3.0))  # of a single series, which real things happen to
FULL_SHIFT = float(np.log(1.5))  # from which the size of the shift no longer lowers the strength
AGREEMENT = 0.4  # of the shift, at least, in the other view and in another season model
UNIFORM = 0.7  # of the group's expected amount must have moved at least half as much
ABRUPTNESS = 4.0  # log-likelihood (doubled) by which a sudden change must beat a gradual one
RAMPS = (4, 8, 13)  # periods of gradual changes
TRICKLE = 0.1  # of the usual amount
ROUNDS = 12
DENSE = 0.7  # of its periods a group must have reported
FEWEST_PERIODS = 2 * FULL_LENGTH + SHORTEST  # known, for a block to be seen
SAMPLED = 100  # groups that tell how restless groups are
MOST_ALONE = 300  # single series looked at closely, those that moved farthest


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


def find_blocks(history: History, groupings: Sequence[Grouping], season: int) -> list[Block]:
    """All blocks, level by level, the largest groups first; the strongest first within a level.

    Single series come last and on their own: those of groups are the same whether they are searched or not.

    Args:
        history: Reported values; outliers made NaN beforehand.
        groupings: The levels to search.
        season: Periods of a year.
    """
    if history.periods < FEWEST_PERIODS:
        return []
    values: Floats = history.values.copy()
    groups = [grouping for grouping in groupings if grouping.level != "series"]
    alone = [grouping for grouping in groupings if grouping.level == "series"]
    return [*_found_together(values, groups, season), *_found_together(values, alone, season)]


def _found_together(values: Floats, groupings: Sequence[Grouping], season: int) -> list[Block]:
    """Blocks of some levels, estimated again with all of them corrected; `values` are corrected, too."""
    found: list[Block] = []
    for grouping in groupings:
        for block in _search(values, grouping, season):
            _correct(values, block)
            found.append(block)
    return [
        block
        for grouping in groupings
        for block in _estimated_again(values, [b for b in found if b.grouping is grouping], season)
    ]


def _correct(values: Floats, block: Block) -> None:
    values[block.rows, block.start : block.end] *= float(np.exp(-block.shift))


def _search(values: Floats, grouping: Grouping, season: int) -> Iterator[Block]:
    """Blocks of one level; the caller corrects each in `values` before it asks for the next."""
    todo: set[int] = set(range(grouping.count)) - grouping.named_elsewhere
    few, alone = grouping.count <= FEW_GROUPS, grouping.level == "series"
    views = views_of(values, grouping, season)
    if alone:
        todo &= _moved_far(views[0].ratios)
    restless = [1.0 if few else _restlessness(seen) for seen in views]
    for _ in range(ROUNDS):
        noisier = [seen.noisier(by) for seen, by in zip(views, restless, strict=True)]
        credible = [
            block for group in sorted(todo) if (block := _strongest(noisier, values, grouping, group))
        ]
        if not credible:
            return
        credible.sort(key=lambda block: (-block.strength, block.group))
        chosen = credible[:1] if few else credible
        todo = todo if few else {block.group for block in chosen}
        yield from chosen
        if alone and not few:  # one of many series hardly moves what is expected of the others
            views = [_corrected(seen, chosen) for seen in views]
        else:
            views = views_of(values, grouping, season)


def _corrected(seen: Seen, blocks: Iterable[Block]) -> Seen:
    """A view of single series, with blocks of some of them corrected in their own log ratios."""
    ratios = seen.ratios.copy()
    for block in blocks:
        ratios[block.group, block.start : block.end] -= block.shift
    return replace(seen, ratios=ratios)


def _restlessness(seen: Seen) -> float:
    """How far shifts of the usual group reach beyond those that the noise model makes, at least 1.

    Most groups have no defect, so where most of them shift far, the model does not know what groups go
    through (an empirical null: Efron 2004).
    """
    highest = []
    for group in range(0, len(seen.ratios), max(1, len(seen.ratios) // SAMPLED)):
        known = np.flatnonzero(np.isfinite(seen.ratios[group]))
        if _is_dense(known):
            highest.append(Scan(seen, group, known).highest())
    return max(1.0, float(np.median(highest)) / WEAKEST) if highest else 1.0


def _is_dense(known: Integers) -> bool:
    return len(known) >= FEWEST_PERIODS and len(known) >= DENSE * (known[-1] - known[0])


def _moved_far(ratios: Floats) -> set[int]:
    """Series whose log ratio was ever far from its usual value for some periods on end; the farthest."""
    if ratios.shape[1] < SHORTEST:
        return set()
    away = np.lib.stride_tricks.sliding_window_view(ratios - row_medians(ratios)[:, None], SHORTEST, axis=1)
    middle = np.abs(np.median(away, axis=2))
    farthest = np.where(np.isnan(middle), 0.0, middle).max(axis=1)
    order = np.argsort(-farthest, kind="stable")[:MOST_ALONE]
    return {int(i) for i in order if farthest[i] >= 0.8 * SMALLEST_ALONE}


def _strongest(views: Sequence[Seen], values: Floats, grouping: Grouping, group: int) -> Block | None:
    """The strongest credible block of a group."""
    known = np.flatnonzero(np.isfinite(views[0].ratios[group]) & np.isfinite(views[1].ratios[group]))
    if not _is_dense(known):
        return None
    scans = [Scan(seen, group, known) for seen in views]
    candidates = [
        (abs(z), scan, other, intervals)
        for scan, other in (scans, scans[::-1])
        for z, intervals in scan.peaks()
    ]
    explained: set[int] = set()  # jumps that belong to something stronger that is no block
    for _, scan, other, intervals in sorted(candidates, key=lambda c: (-c[0], c[3])):
        if explained & set(intervals[0]):
            continue
        for start, end in intervals:
            if block := _judged(scan, other, values, grouping, start, end):
                return block
        explained |= {edge + d for edge in intervals[0] for d in range(-BESIDE, BESIDE + 1)}
    return None


def _judged(
    scan: Scan, other: Scan, values: Floats, grouping: Grouping, start: int, end: int
) -> Block | None:
    """The block in an interval of known periods, where everything speaks for it."""
    inside = np.zeros(len(scan.known))
    inside[start:end] = 1.0
    main = scan.estimate(inside)
    least = SMALLEST_ALONE if grouping.level == "series" else SMALLEST
    if abs(main.shift) < least or not _views_agree(scan, other, grouping, inside, main):
        return None
    if not _is_sudden(scan, inside, main) or not scan.has_edges(start, end, main.shift):
        return None
    if not scan.outlasts_its_edges(start, end, main.shift):
        return None
    evidence = abs(main.z)
    if scan.noise.has_season:
        unlike_other_years = scan.in_any_season.estimate(inside)
        if not _agrees(main, unlike_other_years):
            return None
        evidence = min(evidence, abs(unlike_other_years.z))
    compared = 2.0 * np.log(grouping.count)  # the more groups, the higher the highest of them by chance
    strength = np.sqrt(max(evidence**2 - compared, 0.0)) * min(1.0, (end - start) / FULL_LENGTH)
    strength *= min(1.0, abs(main.shift) / FULL_SHIFT)
    if strength < WEAKEST or not scan.is_constant(inside, main.shift):
        return None
    if not _matters(values, grouping, scan, inside, main.shift):
        return None
    if scan.moved_alike(values, grouping, inside, main.shift) < UNIFORM:
        return None
    if not scan.knows_other_years(start, end):  # it may be the season, of which this is the first one seen
        strength = unconfirmed(strength)
    first, last = int(scan.known[start]), int(scan.known[end - 1])
    return Block(grouping, scan.group, first, last + 1, main.shift, main.error, float(strength))


def _views_agree(scan: Scan, other: Scan, grouping: Grouping, inside: Floats, main: Estimate) -> bool:
    """Whether the other view bears the shift out, and with few groups the mean of all others does too."""
    if not _agrees(main, other.estimate(inside)):
        return False
    if grouping.count > FEW_GROUPS:
        return True
    own = scan if scan.seen.view == "own" else other  # siblings that follow loosely hide a change of all
    return _agrees(main, own.unlike_all_others.estimate(inside))


def _is_sudden(scan: Scan, inside: Floats, main: Estimate) -> bool:
    """Whether a change from one period to the next explains more than any gradual one."""
    gradual = max(scan.estimate(_gradual(inside, periods)).z ** 2 for periods in RAMPS)
    return main.z**2 - gradual >= ABRUPTNESS


def _matters(values: Floats, grouping: Grouping, scan: Scan, inside: Floats, shift: float) -> bool:
    """Whether the group would have more than a trickle at that time: off season, ratios say nothing."""
    rows = values[grouping.group == scan.group][:, scan.known]
    amounts = np.nansum(np.maximum(rows, 0.0), axis=0) * np.exp(-shift * inside)
    return bool(amounts[inside > 0].mean() >= TRICKLE * amounts.mean())


def _agrees(main: Estimate, other: Estimate) -> bool:
    """Whether another estimate of a shift has its direction, and its size within reason."""
    least = AGREEMENT * abs(main.shift) - other.error
    return main.shift * other.shift > 0 and abs(other.shift) >= least


def _gradual(inside: Floats, periods: int) -> Floats:
    """The same interval, begun and ended over some periods."""
    padded = np.concatenate([np.repeat(inside[:1], periods), inside, np.repeat(inside[-1:], periods)])
    smooth: Floats = np.convolve(padded, np.ones(periods) / periods, "same")[periods:-periods]
    return smooth


def _estimated_again(corrected: Floats, found: Sequence[Block], season: int) -> list[Block]:
    """Blocks of one level with what is left of their shifts where all are corrected, by both views."""
    if not found:
        return []
    views = views_of(corrected, found[0].grouping, season)
    again = [_with_what_is_left(views, block) for block in found]
    # What little is left of a shift with all others corrected was their echo.
    return [new for new, old in zip(again, found, strict=True) if new.shift / old.shift >= 0.5]


def _with_what_is_left(views: Sequence[Seen], block: Block) -> Block:
    shifts, errors = [], []
    for seen in views:
        known = np.flatnonzero(np.isfinite(seen.ratios[block.group]))
        inside = ((known >= block.start) & (known < block.end)).astype(float)
        if 0 < inside.sum() < len(known):
            estimate = Scan(seen, block.group, known).estimate(inside)
            shifts.append(estimate.shift)
            errors.append(estimate.error)
    if not shifts:
        return block
    left = float(np.average(shifts, weights=np.array(errors) ** -2.0))
    # Both views share the group's own values, so two of them are hardly surer than the better one.
    return replace(block, shift=block.shift + left, error=min(errors))
