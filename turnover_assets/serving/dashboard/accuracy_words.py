"""How good forecasts were, as figures that a manager understands.

What belongs here: which figures count, live ones before those of the backtest. What does not: how they are
computed (core/monitoring), and the pages.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from turnover_assets.core.aggregates import TOTAL
from turnover_assets.core.models import BASELINE as SEASONAL_NAIVE
from turnover_assets.serving.dashboard.shown import Shown

LIVE, BACKTEST, UNKNOWN = "live", "backtest", "unknown"
GOOD, LOOK, PLAIN = "good", "look", "plain"
WORSE_THAN_PROMISED = 1.25  # live over promised, both against last year
SMALL_BIAS = 0.03
COVERAGE_APART = 0.05
NOT_KNOWN = "not known yet"


@dataclass(frozen=True)
class Accuracy:
    """Accuracy of a member, or of all.

    Attributes:
        source: LIVE, BACKTEST, or UNKNOWN where there is none.
        wape: Error as a share of what was reported.
        naive: The same of repeating last year.
        promised: The same as the backtest promised; None for the backtest itself.
        bias: Mean error as a share; above 0 where forecasts were too high.
        coverage_80: Share of outcomes within the 80 % range.
        coverage_95: Share of outcomes within the 95 % range.
        over_promised: Live over promised, both against naive.
    """

    source: str = UNKNOWN
    wape: float | None = None
    naive: float | None = None
    promised: float | None = None
    bias: float | None = None
    coverage_80: float | None = None
    coverage_95: float | None = None
    over_promised: float | None = None

    @property
    def verdict(self) -> str:
        """GOOD, LOOK, or PLAIN where there is nothing to compare with."""
        if self.wape is None:
            return PLAIN
        if self.naive is not None and self.wape >= self.naive:
            return LOOK
        if self.over_promised is not None and self.over_promised > WORSE_THAN_PROMISED:
            return LOOK
        return GOOD if self.naive is not None and not self.is_harder else PLAIN

    @property
    def is_harder(self) -> bool:
        """Whether errors are larger than promised, and those of repeating last year are so, too."""
        if self.wape is None or self.promised is None:
            return False
        return self.wape > WORSE_THAN_PROMISED * self.promised

    @property
    def word(self) -> str:
        """The verdict in words."""
        if self.wape is None:
            return NOT_KNOWN
        if self.naive is not None and self.wape >= self.naive:
            return "no better than last year"
        if self.verdict == LOOK:
            return "worse than promised"
        if self.is_harder:
            return "harder than usual, for any method"
        if self.promised is not None:
            return "as promised"
        return "better than last year" if self.naive is not None else ""

    @property
    def gain(self) -> float | None:
        """How much smaller the error is than that of repeating last year."""
        if self.wape is None or not self.naive:
            return None
        return 1 - self.wape / self.naive

    @property
    def bias_word(self) -> str:
        """Which way forecasts went."""
        if self.bias is None:
            return NOT_KNOWN
        if abs(self.bias) <= SMALL_BIAS:
            return "balanced"
        return "too high" if self.bias > 0 else "too low"

    @property
    def bias_verdict(self) -> str:
        """What is to be thought of it."""
        return self._verdict_of(self.bias_word, "balanced")

    @property
    def coverage_word(self) -> str:
        """Whether the ranges hold what they say."""
        if self.coverage_80 is None:
            return NOT_KNOWN
        if self.coverage_80 < 0.8 - COVERAGE_APART:
            return "ranges too narrow"
        return "ranges too wide" if self.coverage_80 > 0.8 + 2 * COVERAGE_APART else "as meant"

    @property
    def coverage_verdict(self) -> str:
        """What is to be thought of that."""
        return self._verdict_of(self.coverage_word, "as meant")

    @staticmethod
    def _verdict_of(word: str, good: str) -> str:
        return PLAIN if word == NOT_KNOWN else GOOD if word == good else LOOK


def headline(shown: Shown) -> Accuracy:
    """Accuracy of all series together."""
    return level_accuracy(shown, TOTAL).get("", Accuracy())


def level_accuracy(shown: Shown, level: str) -> dict[str, Accuracy]:
    """Accuracy of each member of a level: of what was published lately, or else of the backtest."""
    return _live(shown, level) or backtest_accuracy(shown, level)


def _live(shown: Shown, level: str) -> dict[str, Accuracy]:
    if not shown.view.has("measures"):
        return {}
    rows = shown.view.records(
        "SELECT member, measure, value FROM measures WHERE level = $level "
        "AND cutoff = (SELECT max(cutoff) FROM measures WHERE cutoff <= $cutoff)",
        {"level": level, "cutoff": shown.cutoff},
    )
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        found.setdefault(row["member"] or "", {})[row["measure"]] = row["value"]
    return {member: _of_measures(measures) for member, measures in found.items() if "wape" in measures}


def _of_measures(measures: Mapping[str, float | None]) -> Accuracy:
    return Accuracy(
        LIVE,
        measures.get("wape"),
        measures.get("wape_seasonal_naive"),
        measures.get("wape_promised"),
        measures.get("bias"),
        measures.get("coverage_80"),
        measures.get("coverage_95"),
        measures.get("wape_over_promised"),
    )


def backtest_accuracy(shown: Shown, level: str) -> dict[str, Accuracy]:
    """Accuracy of each member of a level in the backtest of the newest training."""
    if not shown.view.has("backtest_accuracy"):
        return {}
    rows = shown.view.records(
        "SELECT b.member, b.wape, n.wape AS naive, b.bias, b.coverage_80, b.coverage_95 "
        "FROM backtest_accuracy AS b LEFT JOIN backtest_accuracy AS n ON n.model = $naive "
        "AND n.basis = b.basis AND n.scope = b.scope AND n.member IS NOT DISTINCT FROM b.member "
        "AND n.cutoff IS NULL WHERE b.model = $model AND b.basis = 'series' AND b.scope = $level "
        "AND b.cutoff IS NULL",
        {"naive": SEASONAL_NAIVE, "model": shown.judged_as, "level": level},
    )
    return {
        row["member"] or "": Accuracy(
            BACKTEST,
            row["wape"],
            row["naive"],
            None,
            row["bias"],
            row["coverage_80"],
            row["coverage_95"],
        )
        for row in rows
        if row["wape"] is not None
    }
