"""The measures that an alert rule may name, and how their values read.

What belongs here: names of monitoring.measures with their words. What does not: computing them (monitoring).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Form = Literal["share", "signed share", "number", "count", "seconds"]
TOTAL = "total"


@dataclass(frozen=True)
class Measure:
    """How a measure reads.

    Attributes:
        words: What it is, as the subject of a sentence.
        form: How its values are written.
        only_total: Whether it is measured for the total only.
    """

    words: str
    form: Form
    only_total: bool = False

    def shown(self, value: float) -> str:
        """A value as people read it.

        Example:
            >>> MEASURES["coverage_80"].shown(0.612), MEASURES["bias"].shown(0.1)
            ('61.2 %', '+10.0 %')
        """
        if not math.isfinite(value):
            return "not known"
        if self.form == "share":
            return f"{value:.1%}".replace("%", " %")
        if self.form == "signed share":
            return f"{value:+.1%}".replace("%", " %")
        if self.form == "count":
            return f"{value:,.0f}"
        return f"{value:,.0f} s" if self.form == "seconds" else f"{value:.3g}"

    def bound(self, limit: float) -> str:
        """A limit as people read it.

        Example:
            >>> MEASURES["coverage_80"].bound(0.7), MEASURES["bias"].bound(-0.1)
            ('70 %', '-10 %')
        """
        if self.form in ("share", "signed share"):
            return f"{round(limit * 100, 6):g} %"
        return f"{limit:g} s" if self.form == "seconds" else f"{limit:g}"


MEASURES: Mapping[str, Measure] = {
    "wape": Measure("The error (WAPE)", "share"),
    "wape_seasonal_naive": Measure("The error of seasonal naive (WAPE)", "share"),
    "wape_promised": Measure("The error that the backtest promised (WAPE)", "share"),
    "wape_over_promised": Measure("The error over the promised one, both against seasonal naive,", "number"),
    "bias": Measure("Bias", "signed share"),
    "tracking_signal": Measure("The tracking signal", "number"),
    "coverage_80": Measure("Coverage of the 80 % interval", "share"),
    "coverage_95": Measure("Coverage of the 95 % interval", "share"),
    "stability": Measure("The change of forecasts against the cutoff before", "share"),
    "drifted_share": Measure("The share of features that drifted", "share", only_total=True),
    "largest_psi": Measure("The largest drift of a feature (PSI)", "number", only_total=True),
    "target_psi": Measure("The drift of the target (PSI)", "number"),
    "target_wasserstein": Measure("The drift of the target (Wasserstein)", "number"),
    "target_drifted": Measure("The verdict on drift of the target (1 is drifted)", "number"),
    "missing_share": Measure("The share of expected series that did not report", "share", only_total=True),
    "quarantine_rate": Measure("The share of landed rows that were rejected", "share", only_total=True),
    "refused_files": Measure("The number of files refused", "count", only_total=True),
    "run_seconds": Measure("The time of the run before", "seconds", only_total=True),
    "run_warnings": Measure("The number of warnings of the run before", "count", only_total=True),
}
