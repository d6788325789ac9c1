"""The headline: how things are, a sentence for each, with a verdict where one is due.

What belongs here: wording that a manager understands, and from when on something is worth a look. What does
not: rules of alerts, which an operator sets.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from turnover_assets.core.monitoring.distances import DRIFTED
from turnover_assets.core.templating import number, share, signed
from turnover_assets.panel import PanelSpec

GOOD, LOOK, UNKNOWN, PLAIN = "good", "look", "unknown", "plain"
BALANCED, BIASED = 0.03, 0.1  # bias up to which forecasts are balanced, and from which on to look
ONE_WAY = 4.0  # tracking signal beyond which errors go one way for longer than chance lets them
COVERAGE_APART = 0.05  # from what is meant
MANY = 0.25  # of the features
MISSING = 0.05  # share of the series expected
PSI_IN_WORDS = (
    "PSI compares two distributions bin by bin: 0 means alike, below 0.1 there is no shift to speak of, "
    f"beyond {DRIFTED} there is a large one. What chance alone does to few rows is added to that limit."
)


@dataclass(frozen=True)
class Fact:
    """One fact of the headline.

    Attributes:
        name: What it is about.
        value: The figure, as it is shown.
        verdict: GOOD, LOOK, UNKNOWN, or PLAIN where it is for information only.
        word: The verdict in a word or two.
        sentence: What it means.
        section: Where the page says more: the identifier of a section.
    """

    name: str
    value: str
    verdict: str
    word: str
    sentence: str
    section: str


Measures = Mapping[str, float | None]


def headline(
    panel: PanelSpec,
    measures: Measures,
    newest: Mapping[str, Any] | None,
    features: Mapping[str, Any],
    target: Mapping[str, Any] | None,
    alerts: Sequence[Mapping[str, Any]] | None,
    accuracy_ratio: float,
) -> list[Fact]:
    """The facts, in the order of the page.

    Args:
        panel: The panel.
        measures: The measures of the total as of the cutoff, by name.
        newest: The newest row of monitoring.inputs; None where there is none.
        features: `rows` and `drifted` of the drift of features.
        target: The drift of the target in total; None where it was not measured.
        alerts: The open alerts; None where they are not known.
        accuracy_ratio: Published over promised accuracy, both against naive, from which on to look.
    """
    facts = [
        _accuracy(panel, measures, accuracy_ratio),
        _bias(measures),
        _coverage(measures),
        _stability(panel, measures),
        _drift(panel, features, target),
        _missing(panel, newest),
    ]
    return [*facts, *_alerts(alerts)]


def _accuracy(panel: PanelSpec, m: Measures, ratio_to_look: float) -> Fact:
    own, naive, promised, ratio = (
        m.get(name) for name in ("wape", "wape_seasonal_naive", "wape_promised", "wape_over_promised")
    )
    every, name = panel.frequency.every, "Error (WAPE)"
    if own is None:
        told = f"No {every} that was forecast has been reported yet, so there is nothing to judge."
        return Fact(name, "-", UNKNOWN, "not known yet", told, "performance")
    since = f"reported since, over the last {_every(panel)} at most"
    parts = [f"Published forecasts were off by {share(own)} of the {panel.target} {since}"]
    if naive is not None:
        parts.append(f"last year's {every}s taken as forecasts would have been off by {share(naive)}")
    if promised is not None:
        parts.append(f"the backtest had promised {share(promised)}")
    verdict, word = GOOD, "as promised"
    if naive is not None and own >= naive:
        verdict, word = LOOK, "no better than last year"
    elif ratio is not None and ratio > ratio_to_look:
        verdict, word = LOOK, "worse than promised"
    elif promised is None or ratio is None:
        verdict, word = (GOOD, "better than last year") if naive is not None else (PLAIN, "")
    return Fact(name, share(own), verdict, word, f"{'; '.join(parts)}.", "performance")


def _every(panel: PanelSpec) -> str:
    every = panel.frequency.every
    return every if panel.horizon == 1 else f"{panel.horizon} {every}s"


def _bias(m: Measures) -> Fact:
    bias, signal = m.get("bias"), m.get("tracking_signal")
    if bias is None:
        return Fact("Bias", "-", UNKNOWN, "not known yet", "Nothing to judge yet.", "performance")
    way = "too high" if bias > 0 else "too low"
    told = f"All in all forecasts were {share(abs(bias))} {way}."
    verdict, word = (GOOD, "balanced") if abs(bias) <= BALANCED else (PLAIN, way)
    if signal is not None and abs(signal) > ONE_WAY:
        verdict, word = LOOK, way
        told += f" Errors keep going that way (tracking signal {number(signal)})."
    elif abs(bias) > BIASED:
        verdict = LOOK
    return Fact("Bias", signed(bias), verdict, word, told, "performance")


def _coverage(m: Measures) -> Fact:
    inner, outer = m.get("coverage_80"), m.get("coverage_95")
    if inner is None or outer is None:
        return Fact(
            "Within the bounds", "-", UNKNOWN, "not known yet", "Nothing to judge yet.", "performance"
        )
    told = f"{share(inner)} of outcomes fell within the 80 % bounds, {share(outer)} within the 95 % bounds."
    verdict, word = GOOD, "as meant"
    if inner < 0.8 - COVERAGE_APART or outer < 0.95 - COVERAGE_APART:
        verdict, word = LOOK, "bounds too narrow"
    elif inner > 0.8 + 2 * COVERAGE_APART:
        verdict, word = LOOK, "bounds too wide"
    return Fact("Within 80 % bounds", share(inner), verdict, word, told, "performance")


def _stability(panel: PanelSpec, m: Measures) -> Fact:
    moved = m.get("stability")
    every = panel.frequency.every
    if moved is None:
        told = f"There is no earlier forecast of the same {every}s to compare with."
        return Fact("Moved", "-", UNKNOWN, "not known yet", told, "stability")
    told = f"Forecasts of the same {every}s moved by {share(moved)} since the cutoff before."
    return Fact("Moved", share(moved), PLAIN, "", told, "stability")


def _drift(panel: PanelSpec, features: Mapping[str, Any], target: Mapping[str, Any] | None) -> Fact:
    count, drifted, shifted = len(features["rows"]), features["drifted"], False
    if not count:
        told = "There is no year before to compare with."
        return Fact("Drift", "-", UNKNOWN, "not known yet", told, "data-drift")
    against = f"the same {panel.frequency.every}s of last year"
    told = f"{drifted} of {count} features look different from {against}"
    if target is not None and target["psi"] is not None:
        shifted = bool(target["is_drifted"])
        moved = "shifted strongly" if shifted else "did not shift much"
        told += f"; {panel.target} itself {moved} (PSI {target['psi']:.2f})"
    look = shifted or drifted >= MANY * count
    word = "drifted" if look else "some drift" if drifted else "no drift"
    return Fact(
        "Features drifted", f"{drifted} of {count}", LOOK if look else GOOD, word, f"{told}.", "data-drift"
    )


def _missing(panel: PanelSpec, newest: Mapping[str, Any] | None) -> Fact:
    if newest is None or newest["series_expected"] is None:
        return Fact("Missing series", "-", UNKNOWN, "not known yet", "Nothing was counted yet.", "quality")
    missing, expected = newest["series_missing"], newest["series_expected"]
    every, counted = panel.frequency.every, f"{number(missing)} of {number(expected)}"
    told = f"{counted} series that were expected in the newest {every} are missing."
    look = bool(expected) and missing > MISSING * expected
    word = "many missing" if look else "some missing" if missing else "complete"
    return Fact("Missing series", number(missing), LOOK if look else GOOD, word, told, "quality")


def _alerts(alerts: Sequence[Mapping[str, Any]] | None) -> list[Fact]:
    if alerts is None:
        return []
    told = "No alert is open." if not alerts else "What is wrong, and since when, stands below."
    verdict = LOOK if alerts else GOOD
    return [Fact("Open alerts", str(len(alerts)), verdict, "open" if alerts else "none", told, "alerts")]
