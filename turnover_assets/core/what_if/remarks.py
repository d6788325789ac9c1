"""What a reader of an answer should know: what has no effect, what training has not seen, what was assumed.

What belongs here: the sentences, and when they are said. What does not: the figures (answer.py).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import exp
from typing import Literal

from turnover_assets.core.calendar import label_of
from turnover_assets.core.feature_words import feature_words
from turnover_assets.core.features import feature_groups
from turnover_assets.core.models import Rows
from turnover_assets.core.seen import Outside, outside
from turnover_assets.core.what_if.newcomers import FEWEST_PEERS, Placed
from turnover_assets.core.what_if.question import Known, Question, covariate_columns
from turnover_assets.panel import PanelSpec

Kind = Literal[
    "not-used",
    "no-effect",
    "outside-training",
    "unknown-training",
    "new-series",
    "level-guessed",
    "attribute-unknown",
    "baseline-recomputed",
]
Ranges = Mapping[str, tuple[float, float]]
LOG_SCALE = "log_scale"  # the size of a series, as a logarithm
MOST_FEATURES = 8  # that are said to lie outside, beside what is known ahead
AS_TIME_GOES = ("age", "horizon", "calendar")  # groups of features that no question changes


@dataclass(frozen=True)
class Remark:
    """Something that a reader of an answer should know.

    Attributes:
        kind: What kind of thing it is.
        about: What it is about: a column, a feature, a series; empty where it is about all.
        text: In sentences.
    """

    kind: Kind
    about: str
    text: str


def about_use(
    panel: PanelSpec, title: str, used: frozenset[str], question: Question, *, has_effect: bool
) -> Iterator[Remark]:
    """What of the changes has no effect, and why.

    Args:
        panel: The panel.
        title: The model, as the beginning of a sentence.
        used: Features that its forecasts depend on.
        question: The question.
        has_effect: Whether any forecast changed.
    """
    for name in dict.fromkeys(change.column for change in question.known):
        _, column = covariate_columns(panel)[name]
        if column.type == "text":
            text = f"{name} is a text, which no model uses; forecasts do not change with it."
            yield Remark("not-used", name, text)
        elif f"known_{name}" not in used:
            text = f"{title} does not use {name} at all; forecasts do not change with it."
            yield Remark("not-used", name, text)
    if (question.known or question.history) and question.series and not has_effect:
        yield Remark("no-effect", "", "With these changes no forecast of these series is another.")


def about_training(
    panel: PanelSpec, used: frozenset[str], before: Rows | None, after: Rows, ranges: Ranges
) -> Iterator[Remark]:
    """What the changes moved out of what training has seen."""
    if not ranges:
        text = "The snapshot does not tell what training has seen, so values beyond it are not marked."
        yield Remark("unknown-training", "", text)
        return
    texts = {
        f"attribute_{column.name}"
        for table in panel.static
        for column in table.columns
        if column.type == "text"
    }
    groups = feature_groups(panel)
    measured = {
        name: seen
        for name, seen in ranges.items()
        if name in used
        and groups.get(name) not in AS_TIME_GOES
        and name not in texts
        # Codes of members have no order that a value could lie beyond.
        and not name.endswith("_code")
    }
    comparable = before if before is not None and len(before) == len(after) else None
    yield from _unseen(panel, list(outside(comparable, after, measured)))


def _unseen(panel: PanelSpec, found: Sequence[Outside]) -> Iterator[Remark]:
    words = feature_words(panel)
    own = [one for one in found if one.feature.startswith("known_")]
    others = [one for one in found if not one.feature.startswith("known_")]
    for one in [*own, *others[:MOST_FEATURES]]:
        shown = exp if one.feature == LOG_SCALE else float
        seen = "training has seen none"
        if one.low == one.low:
            seen = f"training has seen {shown(one.low):g} to {shown(one.high):g}"
        as_is = one.feature == LOG_SCALE or one.feature.startswith(("known_", "attribute_"))
        unit = "" if as_is else " (over the series' own scale)"
        text = (
            f"{words[one.feature]} would be {shown(one.value):g}; {seen}{unit}. Beyond that a model guesses."
        )
        yield Remark("outside-training", one.feature.removeprefix("known_"), text)
    if (left := len(others) - MOST_FEATURES) > 0:
        yield Remark("outside-training", "", f"So would be {left} more of what the model goes by.")


def about_newcomers(placed: Sequence[Placed]) -> Iterator[Remark]:
    """What newcomers were taken to be."""
    for one in placed:
        count = f"its {len(one.peers)} peers" if len(one.peers) > 1 else "its only peer"
        text = (
            f"Forecast as if it had traded like {count} (in common: {one.shares}) all along; what an opening "
            "does to sales is not in it."
        )
        if len(one.peers) < FEWEST_PEERS:
            text += " So few do not tell how far a series strays from its peers: the bounds are too narrow."
        yield Remark("new-series", one.named, text)
        if one.spread:
            low, high = min(one.spread), max(one.spread)
            text = f"No level was given, so the middle one of its peers' was taken; theirs are {low:.2g} to "
            yield Remark("level-guessed", one.named, f"{text}{high:.2g} times it.")
        if unknown := [name for name, value in one.attributes.items() if value is None]:
            text = f"Not given, so not known to the model: {', '.join(unknown)}."
            yield Remark("attribute-unknown", one.named, text)


def said(panel: PanelSpec, question: Question, placed: Sequence[Placed]) -> Iterator[str]:
    """What was changed, in sentences."""
    every, unit = panel.frequency.every, panel.series.target.unit
    for change in question.known:
        yield f"{change.column} is {_shown(change)} for {_span(panel, change.periods)}."
    if question.history:
        count, factor = question.history.periods, question.history.factor
        yield f"The newest {count} {every}s of history are {factor:g} times what they were."
    for one in placed:
        amount = f"{one.level * one.in_force:.6g}{f' {unit}' if unit else ''}"
        yield f"{one.named} is new, with a mean of {amount} a {every} over a year."


def _shown(change: Known) -> str:
    if change.value is None:
        return "not known"
    return str(change.value).lower() if isinstance(change.value, bool) else str(change.value)


def _span(panel: PanelSpec, periods: Sequence[int]) -> str:
    first, last = label_of(panel, periods[0]), label_of(panel, periods[-1])
    return str(first) if first == last else f"{len(periods)} {panel.frequency.every}s, {first} to {last}"
