"""How far apart two samples of one quantity are: PSI and the Wasserstein distance.

What belongs here: the two distances, and what chance alone makes of the first. What does not: which samples
are compared (drift.py).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
BINS = 10  # quantile bins of the reference
DRIFTED = 0.25  # Siddiqi (2006), Credit Risk Scorecards: beyond it a population has shifted
HALF = 0.5  # of an observation, added to every bin, so that an empty one is not infinitely far
CHANCE = 0.99  # quantile of what chance alone gives, that a drift must exceed as well


@dataclass(frozen=True)
class Distance:
    """How far a sample is from a reference.

    Attributes:
        psi: Population stability index; NaN where one side has no value at all.
        wasserstein: Wasserstein-1 distance in standard deviations of the reference; NaN where that has none.
        limit: The PSI from which the sample counts as drifted; NaN where there is none.
    """

    psi: float
    wasserstein: float
    limit: float

    @property
    def is_drifted(self) -> bool:
        """Whether the PSI is beyond the limit; a distance that cannot be told is not."""
        return bool(self.psi > self.limit)


def distance(current: Floats, reference: Floats, units: tuple[float, float]) -> Distance:
    """Compare a sample with a reference.

    PSI is the sum over bins of (p - q) ln(p / q), with p and q the shares of the sample and of the reference.
    The bins are those between the deciles of the reference, where a value that fills a decile or more of
    itself (such as 0) has a bin of its own, as missing values have. Half an observation is added to each bin.

    Effect size decides: `limit` is DRIFTED, and beside it the PSI that two samples of the same distribution
    exceed in one case of a hundred, which for few units is large. Under no drift PSI is about
    (1/n + 1/m) times chi-squared with one degree of freedom less than bins. Source: Yurdakul and Naranjo
    (2020), Statistical properties of the population stability index, Journal of Risk Model Validation.

    Args:
        current: The sample, NaN where missing.
        reference: The reference, NaN where missing.
        units: How many independent values each of the two has, which may be fewer than rows: a growth of a
            department that a thousand rows share is one value.
    """
    from scipy.stats import chi2

    known, known_before = (values[~np.isnan(values)] for values in (current, reference))
    if not len(known) or not len(known_before):
        return Distance(float("nan"), float("nan"), float("nan"))
    edges, is_mass = _edges(known_before)
    size = 2 * len(edges) + 2
    counts = [np.bincount(_bins(v, edges, is_mass), minlength=size) for v in (current, reference)]
    used = counts[0] + counts[1] > 0
    p, q = (_shares(c[used], n) for c, n in zip(counts, units, strict=True))
    psi = float(((p - q) * np.log(p / q)).sum())
    by_chance = sum(1 / n for n in units) * float(chi2.ppf(CHANCE, max(1, used.sum() - 1)))
    return Distance(psi, _wasserstein(known, known_before), DRIFTED + by_chance)


def _edges(reference: Floats) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """The inner deciles of known values without repetition, and which of them fill a decile of themselves."""
    deciles = np.quantile(reference, np.arange(1, BINS) / BINS, method="inverted_cdf")
    edges = np.unique(deciles)
    share = np.array([(reference == edge).mean() for edge in edges])
    return edges, share >= 1 / BINS


def _bins(values: Floats, edges: Floats, is_mass: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Bin of each value: even up to the next edge, odd on a heavy edge, the last one where missing."""
    place = np.searchsorted(edges, values, side="left")
    inside = np.minimum(place, len(edges) - 1)
    on_mass = (place < len(edges)) & (values == edges[inside]) & is_mass[inside]
    found = np.where(on_mass, 2 * place + 1, 2 * place)
    return np.where(np.isnan(values), 2 * len(edges) + 1, found).astype(np.int64)


def _shares(counts: npt.NDArray[np.int64], units: float) -> Floats:
    raw = counts / counts.sum()
    found: Floats = (raw * units + HALF) / (units + HALF * len(counts))
    return found


def _wasserstein(current: Floats, reference: Floats) -> float:
    from scipy.stats import wasserstein_distance

    spread = float(reference.std())
    return float(wasserstein_distance(current, reference)) / spread if spread > 0 else float("nan")
