"""Shifts in one group's log ratio: their size, their evidence, and how they begin, last and end.

What belongs here: one group in one view under its noise model. What does not: views of all groups
(views.py), and what has to come together to make a shift a finding (blocks.py).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np

from turnover_assets.core.anomalies import noise
from turnover_assets.core.anomalies.matrix import (
    Floats,
    Grouping,
    Integers,
    log_ratio,
    row_means,
    row_medians,
)
from turnover_assets.core.anomalies.views import Seen

SHORTEST = 4  # periods; shorter ones are promotions and strikes, or single outliers
FULL_LENGTH = 8  # periods from which length alone no longer lowers the strength
WEAKEST = 3.5  # z value; below it, so many intervals being compared, noise alone makes some
CONSTANT = 0.5  # of the shift, at most, may it change from the beginning of a block to its end
JUMP = 0.5  # of the shift, at least, from a few periods before an edge to a few after it
JUMP_SPREADS = 1.5  # times what is usual at that time of other years
MOST_SERIES = 0.5  # of a group that reports must have moved alike
LASTING = 0.5  # of the shift, at least, from other years to the usual period of a block
BESIDE = 3  # periods on either side of an edge
NEARLY = 0.7  # of a z value below the highest, an interval is nearly as likely
LIKELY = 24  # such intervals looked at
ATTEMPTS = 3  # intervals looked at closely in one group and round
LEARNING_YEARS = 0.5  # of a group's life pass before a block may begin


@dataclass(frozen=True)
class Estimate:
    """A shift of the logarithm and its standard error."""

    shift: float
    error: float

    @property
    def z(self) -> float:
        """Shift over its error."""
        return self.shift / self.error


def _jumps(ratio: Floats) -> Floats:
    """Difference of the means after and before each position; NaN at the ends."""
    sums = np.concatenate([[0.0], np.cumsum(ratio)])
    found = np.full(len(ratio), np.nan)
    at = np.arange(BESIDE, len(ratio))
    after = np.minimum(at + BESIDE, len(ratio))
    found[at] = (sums[after] - sums[at]) / (after - at) - (sums[at] - sums[at - BESIDE]) / BESIDE
    return found


@lru_cache(maxsize=8)
def _intervals(size: int, season: int) -> tuple[Integers, Integers]:
    """Where blocks can start and end among so many known periods, the first starts first."""
    start, end = np.ogrid[: size + 1, : size + 1]
    earliest = max(FULL_LENGTH, min(int(LEARNING_YEARS * season), size // 4))
    allowed = (end - start >= SHORTEST) & (end - start <= size // 2) & (start >= earliest)
    starts, ends = np.nonzero(allowed)
    for places in (starts, ends):
        places.setflags(write=False)  # whoever asks next has the same
    return starts, ends


def _inverse_errors(precision: Floats, start: Integers, end: Integers) -> Floats:
    """One over the standard error of a shift in each of the intervals."""
    size = len(precision)
    area = np.zeros((size + 1, size + 1))
    precision.cumsum(axis=0).cumsum(axis=1, out=area[1:, 1:])
    whole = np.diag(area)
    information = (whole[end] - area[start, end]) + (whole[start] - area[end, start])
    return np.asarray(1.0 / np.sqrt(np.maximum(information, 1e-12)))


@dataclass(frozen=True)
class Scan:
    """One group in one view, ready for estimates of shifts over any of its known periods."""

    seen: Seen
    group: int
    known: Integers
    free_season: bool = False

    @cached_property
    def precision(self) -> Floats:
        """Inverse covariance over known periods."""
        shared = self.seen.precision(self.group, self.known, free_season=self.free_season)
        return np.asarray(shared / self.scale**2)

    @property
    def noise(self) -> noise.Noise:
        """The group's noise, but for its scale."""
        return self.seen.noises[self.group]

    @property
    def scale(self) -> float:
        """How strong the noise is, as a standard deviation."""
        return float(self.seen.scales[self.group])

    @cached_property
    def in_any_season(self) -> "Scan":
        """The same where any season of the group's own is likely."""
        return replace(self, free_season=True)

    @cached_property
    def unlike_all_others(self) -> "Scan":
        """The same less the mean of all other groups: what happened to everybody is not there."""
        ratios = self.seen.ratios.copy()
        ratios[self.group] -= row_means(np.delete(ratios, self.group, axis=0).T)
        return replace(self, seen=replace(self.seen, ratios=ratios))

    @cached_property
    def ratio(self) -> Floats:
        """The log ratio over known periods, less its median."""
        own = self.seen.ratios[self.group, self.known]
        return np.asarray(own - np.median(own))

    def estimate(self, inside: Floats) -> Estimate:
        """Generalised least squares of the shift along a course."""
        weights = self.precision @ inside
        information = float(inside @ weights)
        return Estimate(float(weights @ self.ratio) / information, information**-0.5)

    def _z_values(self) -> tuple[Integers, Integers, Floats]:
        """Starts and ends of all intervals that can be a block, and the z value of a shift in each."""
        start, end = _intervals(len(self.known), self.noise.season)
        shared = self.seen.precision(self.group, self.known, free_season=self.free_season)
        key = ("surer", self.noise, self.free_season, self.known.tobytes())
        surer = self.seen.keep(key, lambda: _inverse_errors(shared, start, end))
        along = np.concatenate([[0.0], np.cumsum(shared @ self.ratio)])
        return start, end, (along[end] - along[start]) * (surer / self.scale)

    def highest(self) -> float:
        """The highest z value of any interval."""
        _, _, z = self._z_values()
        return float(np.abs(z).max(initial=0.0))

    def peaks(self) -> Iterator[tuple[float, list[tuple[int, int]]]]:
        """The highest z value of each stretch, and the intervals nearly as likely, the likeliest first."""
        start, end, z = self._z_values()
        matter = np.flatnonzero(np.abs(z) >= WEAKEST - NEARLY)
        start, end, size = start[matter], end[matter], np.abs(z[matter])
        for _ in range(ATTEMPTS):
            highest = float(size.max(initial=0.0))
            if highest < WEAKEST:
                return
            first, last = start[size.argmax()], end[size.argmax()]
            longer = np.maximum(end - start, last - first)
            common = (np.minimum(end, last) - np.maximum(start, first)) / longer
            near = np.flatnonzero((size >= highest - NEARLY) & (common > 0.5))
            near = near[np.argsort(-size[near], kind="stable")][:LIKELY]
            yield highest, [(int(start[i]), int(end[i])) for i in near]
            size[common > 0.3] = 0.0

    def has_edges(self, start: int, end: int, shift: float) -> bool:
        """Whether the values jump where the block begins and ends, unlike at the same time of other years."""
        edges = self._edges(start, end)
        return all(
            self._stands_out(self._jumps * np.sign(sign * shift), edge, abs(shift), edges)
            for edge, sign in edges.items()
        )

    def knows_other_years(self, start: int, end: int) -> bool:
        """Whether the time at which the block begins, and ends, is known of another year, some periods on."""
        edges = self._edges(start, end)
        first, last = int(self.known[0]) + BESIDE, self.seen.ratios.shape[1] - BESIDE
        return all(any(first <= t <= last for t in self._same_time(edge, edges, (1,))) for edge in edges)

    def outlasts_its_edges(self, start: int, end: int, shift: float) -> bool:
        """Whether most of its periods lie apart from the same ones of other years, and not only its edges.

        Where the level wanders, all the evidence for a block is in its two jumps, and two that a holiday
        makes that moved from one year to the next look like a block of a year.
        """
        season, periods = self.noise.season, self.seen.ratios.shape[1]
        own = np.full(-(-periods // season) * season, np.nan)
        own[self.known] = self.ratio
        inside = np.zeros(len(own), dtype=bool)
        inside[self.known[start] : self.known[end - 1] + 1] = True
        others = np.where(inside, np.nan, own).reshape(-1, season)
        count = np.sum(~np.isnan(others), axis=0) - ~np.isnan(others)
        others = (np.nansum(others, axis=0) - np.nan_to_num(others)) / np.where(count > 0, count, np.nan)
        apart = own - others.ravel()
        within, usual = row_medians(apart[None, inside])[0], row_medians(apart[None, ~inside])[0]
        away = (within - np.nan_to_num(usual)) * np.sign(shift)
        return bool(np.isnan(away) or away >= LASTING * abs(shift))

    def _edges(self, start: int, end: int) -> dict[int, int]:
        """Columns where the values jump, with 1 where the block begins and -1 where it has ended."""
        first, after = int(self.known[start]), int(self.known[end - 1]) + 1
        return {first: 1} if end == len(self.known) else {first: 1, after: -1}

    def _in_other_years(self, jumps: Floats, edge: int, edges: Iterable[int]) -> Floats:
        """The jumps at the same time of other years, those of the block itself left out."""
        times = self._same_time(edge, edges, (-1, 0, 1))
        return jumps[[t for t in times if self.known[0] <= t < len(jumps) and np.isfinite(jumps[t])]]

    def _same_time(self, edge: int, edges: Iterable[int], beside: Iterable[int]) -> list[int]:
        """Columns so far beside the same time of other years, where none of the block's own jumps is."""
        season, periods = self.noise.season, self.seen.ratios.shape[1]
        years = range(-(periods // season) - 1, periods // season + 2)
        found = {edge + k * season + d for k in years if k for d in beside}
        return sorted(found - {t + d for t in edges for d in range(-BESIDE, BESIDE + 1)})

    def _stands_out(self, jumps: Floats, edge: int, size: float, edges: Iterable[int]) -> bool:
        others = self._in_other_years(jumps, edge, edges)
        usual = float(np.median(others)) if len(others) else 0.0
        spread = float(np.sqrt(np.mean((others - usual) ** 2))) if len(others) else 0.0
        enough = max(JUMP * size - self.scale * self.noise.of_jump(BESIDE), JUMP_SPREADS * spread)
        return bool(jumps[edge] - usual >= enough)

    @cached_property
    def _jumps(self) -> Floats:
        """Of the log ratio, gaps bridged, from a few periods before each period to a few after it."""
        return _jumps(np.interp(np.arange(self.seen.ratios.shape[1]), self.known, self.ratio))

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
        """Share of the group's amount (shifts taken out) whose series moved at least half as far, too."""
        rows = np.flatnonzero(grouping.group == self.group)
        if len(rows) == 1:
            return 1.0
        weights = self.precision @ inside
        weights = weights / (inside @ weights)
        reported = values[np.ix_(rows, self.known)]
        own = log_ratio(reported, self.seen.expected[np.ix_(rows, self.known)])
        own = own - row_medians(own)[:, None]
        shifts = np.where(np.isfinite(own), own, self.ratio[None, :]) @ weights
        amounts = np.nansum(np.maximum(reported, 0.0) * np.exp(-np.outer(shifts, inside)), axis=1)
        reports = np.isfinite(own[:, inside > 0]).any(axis=1)
        alike = reports & (shifts * shift > 0) & (np.abs(shifts) >= 0.5 * abs(shift))
        if not amounts[reports].sum() > 0 or alike.sum() < MOST_SERIES * reports.sum():
            return 0.0  # one large series is not its group
        return float(amounts[alike].sum() / amounts[reports].sum())
