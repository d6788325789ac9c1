"""The answer to a what-if question: forecasts without and with the changes.

What belongs here: the order in which a question is worked out, and the figures. What does not: its parts
(overlay.py, newcomers.py, sums.py), and what is said beside the figures (remarks.py).

Invariants:
    - without a change the forecasts are those that were published;
    - a change that the model does not use is said to have no effect, rather than shown to have none;
    - what was published is never altered.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd

from turnover_assets.core.calendar import label_of
from turnover_assets.core.models import Rows
from turnover_assets.core.what_if.newcomers import Placed, peers_of, place, with_peers_bounds
from turnover_assets.core.what_if.overlay import Overlay
from turnover_assets.core.what_if.question import Question
from turnover_assets.core.what_if.remarks import (
    Ranges,
    Remark,
    about_newcomers,
    about_training,
    about_use,
    said,
)
from turnover_assets.core.what_if.settling import settle_in
from turnover_assets.core.what_if.sums import BASELINE, FIGURES, Members, compared_sums, reach_sums
from turnover_assets.core.what_if.unchanged import Forecast, Unchanged
from turnover_assets.errors import QuestionError
from turnover_assets.panel import PanelSpec

MOST_SERIES, MOST_NEW = 500, 100
SAME = 1e-6  # relative difference to what was published, within which it is that
Open = Callable[[], AbstractContextManager[Overlay]]


class Model(Protocol):
    """What a question needs of the model."""

    @property
    def title(self) -> str:
        """What it is called, as the beginning of a sentence."""

    @property
    def used_features(self) -> frozenset[str]:
        """Names of the features that its forecasts depend on."""

    def forecast(self, rows: Rows, series: pd.DataFrame) -> pd.DataFrame:
        """Forecasts with bounds; see forecasting.forecast_table."""

    def aggregate(self, table: pd.DataFrame, rows: Rows, series: pd.DataFrame) -> pd.DataFrame:
        """Sums of forecasts with bounds of their own; see forecasting.aggregate_table."""


@dataclass(frozen=True)
class Answer:
    """The answer.

    Attributes:
        table: A row for each series and period asked for: the series keys, the time column, `horizon`, the
            columns of BASELINE (NaN for a new series), `forecast`, bounds, `difference` (NaN for a new
            series), `is_new`; units of the target.
        sums: A row for each sum and period asked for: `level`, `member` (text, empty for the total), and the
            same columns from the time column on, with `parts` (number of series with the changes) in place
            of `is_new`; the baseline is NaN where there was no such member.
        changes: What was changed, in sentences.
        warnings: What a reader should know.
    """

    table: pd.DataFrame
    sums: pd.DataFrame
    changes: tuple[str, ...]
    warnings: tuple[Remark, ...]


def answer(
    opened: Open, panel: PanelSpec, model: Model, question: Question, ranges: Ranges, kept: Unchanged
) -> Answer:
    """Work a question out.

    Args:
        opened: Opens an overlay over the published tables.
        panel: The panel.
        model: The model to ask.
        question: The question.
        ranges: Least and largest value of each feature in training; empty where that is not known.
        kept: What this model forecasts of these tables without changes, as far as that was asked before.

    Raises:
        QuestionError: It asks for series that there are not, or for too many.
    """
    with opened() as overlay:
        published = overlay.con.execute("FROM published").df()
        _ask(overlay, question)
        placed = _place(overlay, question)
        wanted = reach_sums(overlay, question.levels, placed)
        series = overlay.forecast_series()
        before = kept.of(series, lambda: _forecast(model, overlay)) if len(series) else None
        _change(overlay, question, placed)
        after, asked = overlay.rows(), overlay.asked()
    unchanged = before[0] if before else published.iloc[:0]
    made = model.forecast(*after)
    base, recomputed = _baseline(panel, unchanged, published)
    found = _compared(panel, made.merge(asked, on=list(panel.keys)), unchanged, base, published, placed)
    sums = _summed(panel, model, wanted, (made, *after), before)
    has_effect = bool((found["difference"].fillna(0.0) != 0.0).any())
    remarks = [
        *([recomputed] if recomputed else []),
        *about_use(panel, model.title, model.used_features, question, has_effect=has_effect),
        *about_training(panel, model.used_features, before[1] if before else None, after[0], ranges),
        *about_newcomers(placed),
    ]
    return Answer(
        _at(question, panel, found),
        _at(question, panel, sums),
        tuple(said(panel, question, placed)),
        tuple(remarks),
    )


def _forecast(model: Model, overlay: Overlay) -> Forecast:
    rows, series = overlay.rows()
    return model.forecast(rows, series), rows, series


def _at(question: Question, panel: PanelSpec, table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the periods asked for."""
    times = {label_of(panel, t) for t in question.periods}
    return table[table[panel.time].isin(times)].reset_index(drop=True)


def _ask(overlay: Overlay, question: Question) -> None:
    for i, selector in enumerate(question.series):
        if not overlay.ask(selector):
            named = ", ".join(f"{name} {value}" for name, value in selector.items())
            raise QuestionError(
                f"series.{i}",
                f"No series with {named} is forecast.",
                "/v1/series lists those that are; describe one that there is not yet in `new`.",
            )
    if (count := len(overlay.asked())) > MOST_SERIES:
        detail = f"{count} series are asked for, more than {MOST_SERIES}."
        raise QuestionError("series", detail, "Ask in several questions.")


def _place(overlay: Overlay, question: Question) -> list[Placed]:
    """The newcomers among their peers."""
    if not question.newcomers:
        return []
    peers = peers_of(overlay)
    placed = [
        one for i, new in enumerate(question.newcomers) for one in place(overlay, new, peers, f"new.{i}")
    ]
    if len({tuple(one.keys.values()) for one in placed}) < len(placed):
        raise QuestionError("new", "A series is described more than once.", "Describe each once.")
    if len(placed) > MOST_NEW:
        detail = f"It makes {len(placed)} series, more than {MOST_NEW}."
        raise QuestionError("new", detail, "Name more of the keys, or ask in several questions.")
    return placed


def _change(overlay: Overlay, question: Question, placed: Sequence[Placed]) -> None:
    """Change the tables as the question says."""
    if placed:
        settle_in(overlay, placed)
    for change in question.known:
        overlay.change(change)
    if question.history:
        overlay.scale(question.history)


def _baseline(
    panel: PanelSpec, unchanged: pd.DataFrame, published: pd.DataFrame
) -> tuple[pd.DataFrame, Remark | None]:
    """What was published, where the model makes that without changes; else what it makes without them."""
    on = [*panel.keys, "horizon"]
    if _same(unchanged, unchanged[on].merge(published, on=on)):
        return published, None
    text = (
        "The model in use does not make what was published of these series, as another one made it; so "
        "the baseline is what it makes without changes."
    )
    return unchanged, Remark("baseline-recomputed", "", text)


def _compared(
    panel: PanelSpec,
    made: pd.DataFrame,
    unchanged: pd.DataFrame,
    base: pd.DataFrame,
    published: pd.DataFrame,
    placed: Sequence[Placed],
) -> pd.DataFrame:
    """Forecasts beside the baseline."""
    on = [*panel.keys, "horizon"]
    names = dict(zip(FIGURES, BASELINE, strict=True))
    own = unchanged[on].merge(base[[*on, *names]].rename(columns=names), on=on, validate="one_to_one")
    own = own.merge(unchanged[[*on, "forecast"]].rename(columns={"forecast": "without"}), on=on)
    own = made.merge(own, on=on, validate="one_to_one").assign(is_new=False)
    own["difference"] = own["forecast"] - own["without"]
    if placed:
        new = with_peers_bounds(panel, made, placed, published).assign(is_new=True)
        own = pd.concat([own, new], ignore_index=True) if len(own) else new
    columns = [*panel.keys, panel.time, "horizon", *BASELINE, *FIGURES, "difference", "is_new"]
    return own.reindex(columns=columns).sort_values(on, ignore_index=True)


def _summed(
    panel: PanelSpec, model: Model, wanted: Members, made: Forecast, unchanged: Forecast | None
) -> pd.DataFrame:
    """The sums that are wanted beside their baseline."""
    figures = [panel.time, "horizon", *BASELINE, *FIGURES, "difference"]
    columns = ["level", "member", *figures, "parts"]
    if not wanted:
        return pd.DataFrame(columns=columns)
    with_changes = model.aggregate(*made)
    without = model.aggregate(*unchanged) if unchanged else with_changes.iloc[:0]
    return compared_sums(wanted, with_changes, without)[columns]


def _same(made: pd.DataFrame, other: pd.DataFrame) -> bool:
    one, two = (table[list(FIGURES)].to_numpy(np.float64) for table in (made, other))
    return len(one) == len(two) and bool(np.allclose(one, two, rtol=SAME, atol=SAME, equal_nan=True))
