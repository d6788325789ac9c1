"""The gate: whether a challenger replaces the champion, on which evidence, or for which reasons not.

What belongs here: which checks make the decision. What does not: the limits and checks (gate_checks.py),
where rows come from and lining them up (evidence.py), and moving the champion's alias.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import isfinite

import pandas as pd

from turnover_assets.core import gate_checks as checks
from turnover_assets.core.evidence import Evidence, Pair, figures_of, not_finite, wape_of
from turnover_assets.core.gate_checks import Check, Limits, percent
from turnover_assets.core.significance import LossComparison, diebold_mariano, period_losses


@dataclass(frozen=True, eq=False)
class Decision:
    """Whether the challenger becomes champion, and why.

    Attributes:
        promoted: Whether it does.
        reasons: Sentences: for a refusal what each broken limit found, for a promotion the evidence.
        warnings: Sentences about what does not stop a promotion.
        figures: Everything measured, finite numbers by name; see `decide`.
        checks: A row a check: `check`, `challenger`, `champion`, `limit`, `passed`, `finding`.
    """

    promoted: bool
    reasons: tuple[str, ...]
    warnings: tuple[str, ...]
    figures: dict[str, float]
    checks: pd.DataFrame


def decide(evidence: Evidence, limits: Limits | None = None) -> Decision:
    """Decide whether a challenger becomes champion.

    It does where every check holds: all forecasts are finite; over all windows WAPE is lower by the margin,
    the Diebold-Mariano test supports that, and bias, coverage and the worst segment stay within their limits;
    at least one window is untouched by tuning, and there WAPE is no higher; live forecasts, where there are
    any, are not worse by more than their margin. Too few periods for the test are a refusal: a champion is
    replaced on evidence only.

    Without a champion (or where its forecasts are not finite) a challenger with finite forecasts and a WAPE
    below `max_wape` is promoted, because somebody must forecast; where it is worse than the seasonal naive
    forecast, or could not be judged, that is a warning. A champion that can forecast and was not compared is
    not replaced.

    Args:
        evidence: Rows of both models.
        limits: The limits; the defaults where left out.

    Returns:
        The decision; its figures are `challenger_*` and `champion_*` (`wape`, `bias`, `pinball`,
        `coverage_80`, `coverage_95`, `width_80`, `width_95`), `wape_improvement` (a share of the champion's),
        `dm_statistic`, `dm_p_value`, `dm_periods`, `rows`, `windows`, `untouched_windows`, `naive_wape`
        (first champions), `live_challenger_wape`, `live_champion_wape`, `passed_*` by check, `promoted` (0 or
        1).

    Raises:
        ValueError: The rows of the two cannot be compared; see evidence.side_by_side.
    """
    limits = limits or Limits()
    known = evidence.challenger["actual"].dropna()
    if evidence.champion is not None and len(known) and not known.any():
        return _decision([checks.finite(evidence.challenger), checks.nothing_sold()], {}, [])
    pair = evidence.backtest()
    if pair is None and evidence.is_absent:
        return _decision([checks.finite(evidence.challenger), checks.absent()], {}, [])
    if pair is None:
        return _first(evidence, limits, [])
    if broken := not_finite(pair.champion):
        text = f"{broken:,} of the champion's forecasts are not finite numbers, so it was not compared."
        return _first(evidence, limits, [text])
    finite = checks.finite(pair.challenger)
    return _compare(pair, evidence, limits, finite) if finite.passed else _decision([finite], {}, [])


def _compare(pair: Pair, evidence: Evidence, limits: Limits, finite: Check) -> Decision:
    """The decision between two models with finite forecasts."""
    live, fresh = evidence.live(), evidence.untouched(pair.challenger)
    horizon = int(pair.challenger["horizon"].max())
    test = diebold_mariano(period_losses(pair.champion), period_losses(pair.challenger), horizon)
    figures = _figures(pair, test) | {"untouched_windows": float(checks.windows(fresh))}
    found = [
        finite,
        checks.no_worse("margin", "WAPE", pair, -limits.margin),
        checks.significance(test, limits),
        *checks.untouched(pair, fresh),
        checks.small_bias(figures, limits),
        *checks.coverages(figures, limits),
        checks.worst_segment(pair, evidence.panel.report_level, limits),
    ]
    if live is not None:
        found.append(checks.no_worse("live_wape", "WAPE of live forecasts", live, limits.live_margin))
        figures |= {"live_challenger_wape": found[-1].challenger, "live_champion_wape": found[-1].champion}
    return _decision(found, figures, [])


def _first(evidence: Evidence, limits: Limits, warnings: Sequence[str]) -> Decision:
    """The decision where there is no champion to compare with."""
    rows, warnings = evidence.challenger, list(warnings)
    figures = figures_of(rows)
    found, wape = [checks.finite(rows)], figures["wape"]
    if isfinite(wape):
        found.append(checks.sane(wape, limits))
    elif found[0].passed:
        warnings.append("No past period could be forecast and compared yet, so its accuracy is not known.")
    measured = {f"challenger_{name}": value for name, value in figures.items()}
    if evidence.naive is not None:
        measured["naive_wape"] = naive = wape_of(evidence.naive)
        if wape > naive * (1 + limits.margin):
            text = f"WAPE is {percent(wape)}, higher than the seasonal naive forecast's {percent(naive)}."
            warnings.append(text)
    return _decision(found, measured, warnings)


def _decision(found: Sequence[Check], figures: dict[str, float], warnings: Sequence[str]) -> Decision:
    """Put a decision together: promoted where every check passed."""
    promoted = all(check.passed for check in found)
    reasons = tuple(check.finding for check in found if promoted or not check.passed)
    measured = figures | {f"passed_{check.check}": float(check.passed) for check in found}
    measured["promoted"] = float(promoted)
    finite = {name: value for name, value in measured.items() if isfinite(value)}
    return Decision(promoted, reasons, tuple(warnings), finite, pd.DataFrame([asdict(c) for c in found]))


def _figures(pair: Pair, test: LossComparison) -> dict[str, float]:
    """Everything measured on the backtest of both."""
    found = {f"challenger_{name}": value for name, value in figures_of(pair.challenger).items()}
    found |= {f"champion_{name}": value for name, value in figures_of(pair.champion).items()}
    if found["champion_wape"] > 0:
        found["wape_improvement"] = 1 - found["challenger_wape"] / found["champion_wape"]
    found |= {"dm_statistic": test.statistic, "dm_p_value": test.p_value, "dm_periods": float(test.periods)}
    known = float(pair.challenger["actual"].notna().sum())
    return found | {"rows": known, "windows": float(checks.windows(pair.challenger))}
