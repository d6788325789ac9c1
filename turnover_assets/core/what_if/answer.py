"""The answer to a what-if question: forecasts without and with the changes, what was changed, and warnings.

What belongs here: the order in which a question is worked out, and what is said of it. What does not: its parts
(overlay.py, newcomers.py).

Invariants:
    - without a change the forecasts are those that were published;
    - a change that the model does not use is said to have no effect, rather than shown to have none;
    - what was published is never altered.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd

from turnover_assets.core.calendar import label_of
from turnover_assets.core.feature_words import feature_words
from turnover_assets.core.intervals import BOUNDS
from turnover_assets.core.models import Rows
from turnover_assets.core.seen import Outside, outside
from turnover_assets.core.what_if.newcomers import Placed, peers_of, place, settle_in, with_peers_bounds
from turnover_assets.core.what_if.overlay import Overlay
from turnover_assets.core.what_if.question import Known, Question, covariate_columns
from turnover_assets.errors import QuestionError
from turnover_assets.panel import PanelSpec

MOST_SERIES = 500
MOST_FEATURES_SAID = 8
SAME = 1e-6  # relative difference to what was published, within which it is that
BASELINE = ("baseline", *(f"baseline_{bound}" for bound in BOUNDS))
Ranges = Mapping[str, tuple[float, float]]
Open = Callable[[], AbstractContextManager[Overlay]]


class Model(Protocol):
    """What a question needs of the model."""

    @property
    def title(self) -> str:
        """What it is called in sentences."""

    @property
    def used_features(self) -> frozenset[str]:
        """Names of the features that its forecasts depend on."""

    def forecast(self, rows: Rows, series: pd.DataFrame) -> pd.DataFrame:
        """Forecasts with bounds; see forecasting.forecast_table."""


@dataclass(frozen=True)
class Remark:
    """Something that a reader of the answer should know.

    Attributes:
        kind: `not-used`, `no-effect`, `outside-training`, `unknown-training`, `new-series`, `level-guessed`,
            `attribute-unknown` or `baseline-recomputed`.
        about: What it is about, as the question names it.
        text: In a sentence.
    """

    kind: str
    about: str
    text: str


@dataclass(frozen=True)
class Answer:
    """The answer.

    Attributes:
        table: A row for each series and period asked for: the series keys, the time column, `horizon`, the
            columns of BASELINE (NaN for a new series), `forecast`, bounds, `difference` (NaN for a new series),
            `is_new`; units of the target.
        changes: What was changed, in sentences.
        warnings: What a reader should know.
    """

    table: pd.DataFrame
    changes: tuple[str, ...]
    warnings: tuple[Remark, ...]


def answer(opened: Open, panel: PanelSpec, model: Model, question: Question, ranges: Ranges) -> Answer:
    """Work a question out.

    Args:
        opened: Opens an overlay over the published tables.
        panel: The panel.
        model: The model to ask.
        question: The question.
        ranges: Least and largest value of each feature in training; empty where that is not known.

    Raises:
        QuestionError: It asks for series that there are not, or for too many.
    """
    with opened() as overlay:
        published = overlay.con.execute("FROM published").df()
        _ask(overlay, question)
        before = overlay.rows() if len(overlay.asked()) else None
        placed = _place(overlay, question)
        for change in question.known:
            overlay.change(change)
        if question.history:
            overlay.scale(question.history)
        after, series = overlay.rows()
    table = model.forecast(after, series)
    computed = model.forecast(*before) if before else None
    table, remarks = _compared(panel, table, computed, published, placed)
    remarks = [*remarks, *_remarks(panel, model, question, (before[0] if before else None, after), table, ranges)]
    times = {label_of(panel, t) for t in question.periods}
    kept = table[table[panel.time].isin(times)].reset_index(drop=True)
    return Answer(kept, tuple(_said(panel, question, placed)), (*remarks, *_about_newcomers(placed)))


def _ask(overlay: Overlay, question: Question) -> None:
    for i, selector in enumerate(question.series):
        if not overlay.ask(selector):
            named = ", ".join(f"{name} {value}" for name, value in selector.items())
            raise QuestionError(
                f"series.{i}",
                f"No series with {named} is forecast.",
                "GET /v1/series lists those that are; describe one that there is not yet in `new`.",
            )
    if (count := len(overlay.asked())) > MOST_SERIES:
        raise QuestionError(
            "series", f"{count} series are asked for, more than {MOST_SERIES}.", "Ask in several questions."
        )


def _place(overlay: Overlay, question: Question) -> list[Placed]:
    if not question.newcomers:
        return []
    peers = peers_of(overlay)
    placed = [
        one for i, new in enumerate(question.newcomers) for one in place(overlay, new, peers, f"new.{i}")
    ]
    if len({tuple(one.keys.values()) for one in placed}) < len(placed):
        raise QuestionError("new", "A series is described more than once.", "Describe each once.")
    if len(placed) > MOST_SERIES:
        raise QuestionError("new", f"That makes {len(placed)} series, more than {MOST_SERIES}.", "Name more keys.")
    settle_in(overlay, placed)
    return placed


def _compared(
    panel: PanelSpec,
    table: pd.DataFrame,
    computed: pd.DataFrame | None,
    published: pd.DataFrame,
    placed: Sequence[Placed],
) -> tuple[pd.DataFrame, list[Remark]]:
    """Forecasts beside the baseline, which is what was published where the model makes that without changes."""
    on = [*panel.keys, "horizon"]
    names = dict(zip(("forecast", *BOUNDS), BASELINE, strict=True))
    newcomers = pd.DataFrame([dict(one.keys) for one in placed], columns=list(panel.keys))
    new = table.merge(newcomers.drop_duplicates(), how="left", on=list(panel.keys), indicator=True)["_merge"] == "both"
    own = table[~new.to_numpy()].reset_index(drop=True)
    remarks = []
    base = published
    if computed is not None and not _same(own[on].merge(computed, on=on), own[on].merge(published, on=on)):
        base = computed
        text = (
            "The published forecasts are not what this model makes of the published tables, so the baseline "
            "was made by it as well."
        )
        remarks.append(Remark("baseline-recomputed", "baseline", text))
    own = own.merge(base[[*on, *names]].rename(columns=names), on=on, how="left", validate="one_to_one")
    if computed is not None:
        unchanged = own[on].merge(computed[[*on, "forecast"]], on=on, how="left")["forecast"]
        own["difference"] = own["forecast"] - unchanged
    own["is_new"] = False
    if placed:
        added = with_peers_bounds(panel, table[new.to_numpy()], placed, published).assign(is_new=True)
        own = pd.concat([own, added], ignore_index=True) if len(own) else added
    columns = [*on[:-1], panel.time, "horizon", *BASELINE, "forecast", *BOUNDS, "difference", "is_new"]
    return own.reindex(columns=columns).sort_values(on, ignore_index=True), remarks


def _same(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    figures = ["forecast", *BOUNDS]
    return len(one) == len(other) and bool(
        np.allclose(one[figures], other[figures], rtol=SAME, atol=SAME, equal_nan=True)
    )


def _remarks(
    panel: PanelSpec,
    model: Model,
    question: Question,
    rows: tuple[Rows | None, Rows],
    table: pd.DataFrame,
    ranges: Ranges,
) -> Iterator[Remark]:
    """What to know of the changes: what has no effect, and what training has not seen."""
    before, after = rows
    for name in dict.fromkeys(change.column for change in question.known):
        _, column = covariate_columns(panel)[name]
        if column.type == "text":
            yield Remark("not-used", name, f"{name!r} is a text, which no model uses; forecasts do not change with it.")
        elif f"known_{name}" not in model.used_features:
            yield Remark("not-used", name, f"{model.title} does not use {name!r} at all; forecasts do not change with it.")
    changed = bool(question.known or question.history) and before is not None
    if changed and (table["difference"].fillna(0.0) == 0.0).all():
        yield Remark("no-effect", "", "No forecast changed.")
    if not ranges:
        yield Remark("unknown-training", "", "The snapshot does not tell what training has seen.")
    comparable = before if before is not None and len(before) == len(after) else None
    used = {name: seen for name, seen in ranges.items() if name in model.used_features and _is_measure(name)}
    yield from _unseen(panel, list(outside(comparable, after, used)))


def _is_measure(feature: str) -> bool:
    """Whether larger and smaller mean something; codes of members do not have a range."""
    return not feature.endswith("_code")


def _unseen(panel: PanelSpec, found: Sequence[Outside]) -> Iterator[Remark]:
    words = feature_words(panel)
    own = [one for one in found if one.feature.startswith("known_")]
    others = [one for one in found if not one.feature.startswith("known_")]
    for one in [*own, *others[:MOST_FEATURES_SAID]]:
        name = one.feature.removeprefix("known_")
        seen = f"training has seen {one.low:g} to {one.high:g}" if one.low == one.low else "training has never seen one"
        yield Remark(
            "outside-training", name, f"{words[one.feature]} would be {one.value:g}; {seen}. Beyond it a model guesses."
        )
    if left := len(others[MOST_FEATURES_SAID:]):
        yield Remark("outside-training", "", f"So would be {left} more of what the model goes by.")


def _about_newcomers(placed: Sequence[Placed]) -> Iterator[Remark]:
    for one in placed:
        named = ", ".join(f"{key} {value}" for key, value in one.keys.items())
        yield Remark(
            "new-series",
            named,
            f"Forecast as if it had traded like its {len(one.peers)} peers (in common: {one.shares}) all along; what an "
            "opening does to sales is not in it.",
        )
        if one.spread:
            text = f"No level was given, so it is the middle of its peers', which lie from {min(one.spread):.2g} to {max(one.spread):.2g} times it."
            yield Remark("level-guessed", named, text)
        unknown = [name for name, value in one.attributes.items() if value is None]
        if unknown:
            yield Remark("attribute-unknown", named, f"Not given, so not known to the model: {', '.join(unknown)}.")


def _said(panel: PanelSpec, question: Question, placed: Sequence[Placed]) -> Iterator[str]:
    """What was changed."""
    every = panel.frequency.every
    for change in question.known:
        yield f"{change.column} is {_shown(change)} for {_span(panel, change.periods)}."
    if question.history:
        count, factor = question.history.periods, question.history.factor
        yield f"The newest {count} {every}s of history are {factor:g} times what was reported."
    for one in placed:
        named = ", ".join(f"{key} {value}" for key, value in one.keys.items())
        yield f"{named} is new, with a mean of {one.level * one.in_force:.6g} {panel.series.target.unit or 'units'} a {every} over a year."


def _shown(change: Known) -> str:
    return "not known" if change.value is None else str(change.value)


def _span(panel: PanelSpec, periods: Sequence[int]) -> str:
    first, last = label_of(panel, periods[0]), label_of(panel, periods[-1])
    return str(first) if first == last else f"{len(periods)} {panel.frequency.every}s from {first} to {last}"
