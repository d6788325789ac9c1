"""The checks of the gate: each compares a challenger's figure with the champion's and with a limit.

What belongs here: the limits, one function a check, and the sentence that tells what it found. What does not:
which checks make a decision (gate.py), and how figures are made (evidence.py, significance.py).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isfinite, nan

import pandas as pd

from turnover_assets.core.evidence import Pair, not_finite, segments, wape_of
from turnover_assets.core.significance import LossComparison

ROUNDING = 1e-9  # figures that differ by less are equal


@dataclass(frozen=True)
class Limits:
    """What a challenger must reach. All but `alpha` are shares, 0.01 for 1 %.

    Attributes:
        margin: WAPE must be lower than the champion's by at least this share of it.
        alpha: Level of the one-sided test that losses are lower. Where errors are strongly dependent within
            a window the test rejects about twice as often (significance.py), so 5 % stands for 8 to 13 %.
        max_bias: Absolute bias of the total, or no more than `bias_slack` above the champion's.
        bias_slack: See `max_bias`.
        coverage_80: How far the coverage of 80 % intervals may be from 0.80, or no further than the
            champion's.
        coverage_95: The same for 95 % intervals.
        worst_segment: No member of the reporting level may have a WAPE higher than the champion's by more
            than this share of it.
        segment_share: Members with a smaller share of the target's sum are not checked.
        live_margin: WAPE of live forecasts may be higher than the champion's by this share of it.
        max_wape: A first champion, which nothing is compared with, must be below.
    """

    margin: float = 0.01
    alpha: float = 0.05
    max_bias: float = 0.05
    bias_slack: float = 0.01
    coverage_80: float = 0.08
    coverage_95: float = 0.04
    worst_segment: float = 0.10
    segment_share: float = 0.01
    live_margin: float = 0.02
    max_wape: float = 1.0


@dataclass(frozen=True)
class Check:
    """One limit and what was found.

    Attributes:
        check: Its name.
        challenger: The challenger's figure; NaN where there is none.
        champion: The champion's; NaN where there is none.
        limit: What the challenger's figure (for bias and coverage: its distance from 0, from the nominal
            coverage) must not exceed; for `untouched_windows` what it must reach.
        passed: Whether it holds.
        finding: A sentence with these figures.
    """

    check: str
    challenger: float
    champion: float
    limit: float
    passed: bool
    finding: str


def absent() -> Check:
    """A champion that took no part in some window is not replaced by what it was not compared with."""
    text = (
        "The champion could not be compared: in one window at least there were too few rows to fit it as it "
        "would have been then. Fewer windows (TURNOVER_BACKTEST_WINDOWS), more cutoffs to learn from "
        "(TURNOVER_TRAINING_SHARE) or a longer history let it take part."
    )
    return Check("compared", nan, nan, nan, passed=False, finding=text)


def nothing_sold() -> Check:
    """Where nothing was sold, no model is better than another."""
    text = "No outcome other than 0 is known of the compared windows, so the models cannot be compared."
    return Check("outcomes", nan, nan, nan, passed=False, finding=text)


def finite(rows: pd.DataFrame) -> Check:
    """There are forecasts, and all of them are finite numbers."""
    wrong = not_finite(rows)
    text = f"All {len(rows):,} forecasts are finite numbers."
    if wrong:
        text = f"{wrong:,} of {len(rows):,} forecasts are not finite numbers; none may be."
    if rows.empty:
        text = "There is not a single forecast."
    return Check("finite", float(wrong), nan, 0.0, wrong == 0 and not rows.empty, text)


def sane(wape: float, limits: Limits) -> Check:
    """A first champion's WAPE is below what forecasting 0 throughout would reach."""
    text = f"WAPE is {percent(wape)}; a first champion needs less than {percent(limits.max_wape)}."
    return Check("max_wape", wape, nan, limits.max_wape, wape < limits.max_wape, text)


def no_worse(name: str, what: str, pair: Pair, share: float) -> Check:
    """WAPE at most the champion's plus a share of it, which is below 0 where it must be better."""
    mine, theirs = wape_of(pair.challenger), wape_of(pair.champion)
    limit = theirs * (1 + share)
    text = (
        f"{what} is {percent(mine)}, the champion's {percent(theirs)}; at most {percent(limit)} is allowed."
    )
    return Check(name, mine, theirs, limit, _within(mine, limit), text)


def significance(test: LossComparison, limits: Limits) -> Check:
    """Lower losses are more than chance; too few periods fail."""
    text = f"The Diebold-Mariano test has {test.periods} periods; it needs at least {test.needed}."
    if test.enough:
        text = (
            f"The Diebold-Mariano test gives p = {test.p_value:.3g} over {test.periods} periods; "
            f"at most {limits.alpha:g} is allowed."
        )
    return Check("significance", test.p_value, nan, limits.alpha, _within(test.p_value, limits.alpha), text)


def small_bias(figures: Mapping[str, float], limits: Limits) -> Check:
    """Bias within its limit, or hardly larger than the champion's."""
    mine, theirs = figures["challenger_bias"], figures["champion_bias"]
    limit = max(limits.max_bias, abs(theirs) + limits.bias_slack)
    text = (
        f"Bias is {100 * mine:+.2f} %, the champion's {100 * theirs:+.2f} %; "
        f"at most {percent(limit)} either way is allowed."
    )
    return Check("bias", mine, theirs, limit, _within(abs(mine), limit), text)


def coverages(figures: Mapping[str, float], limits: Limits) -> Iterator[Check]:
    """Coverage near its nominal value, or at least no further off than the champion's."""
    for level, tolerance in ((80, limits.coverage_80), (95, limits.coverage_95)):
        name, nominal = f"coverage_{level}", level / 100
        mine, theirs = figures[f"challenger_{name}"], figures[f"champion_{name}"]
        limit = max(tolerance, abs(theirs - nominal)) if isfinite(theirs) else tolerance
        text = f"There are no {level} % intervals to check; they must be calibrated."
        if isfinite(mine):
            text = (
                f"{level} % intervals hold {percent(mine)} of the actuals, the champion's {percent(theirs)}; "
                f"at most {100 * limit:.2f} points from {level} % are allowed."
            )
        yield Check(name, mine, theirs, limit, _within(abs(mine - nominal), limit), text)


def worst_segment(pair: Pair, level: str, limits: Limits) -> Check:
    """No large member of the level much worse than before."""
    found = segments(pair, level, limits.segment_share)
    if found.empty:
        text = f"No {level} has at least {percent(limits.segment_share)} of the total, so none was checked."
        return Check("worst_segment", nan, nan, nan, passed=True, finding=text)
    mine, theirs = float(found["challenger"].iloc[0]), float(found["champion"].iloc[0])
    limit = theirs * (1 + limits.worst_segment)
    text = (
        f"The {level} that fares worst is {found.index[0]}, with a WAPE of {percent(mine)}, the champion's "
        f"{percent(theirs)}; at most {percent(limit)} is allowed."
    )
    return Check("worst_segment", mine, theirs, limit, _within(mine, limit), text)


def untouched(pair: Pair, rows: pd.DataFrame) -> Iterator[Check]:
    """A window that neither model was tuned on, and no loss of accuracy there.

    Args:
        pair: All rows of both.
        rows: Those of the challenger that belong to untouched windows.
    """
    count, of_all = windows(rows), windows(pair.challenger)
    text = f"{count} of {of_all} windows were not used for tuning; at least 1 is needed."
    yield Check("untouched_windows", float(count), nan, 1.0, count >= 1, text)
    if 0 < count < of_all:
        yield no_worse("untouched_wape", "WAPE of windows not used for tuning", pair.where(rows), 0.0)


def windows(rows: pd.DataFrame) -> int:
    """Number of cutoffs with a known actual."""
    return int(rows.loc[rows["actual"].notna(), "cutoff"].nunique())


def percent(share: float) -> str:
    """A share as a text.

    Example:
        >>> percent(0.1234)
        '12.34 %'
    """
    return f"{100 * share:.2f} %" if isfinite(share) else "not known"


def _within(figure: float, limit: float) -> bool:
    """At most the limit; not so where either is not known."""
    return bool(figure <= limit + ROUNDING)
