"""A what-if question: what is asked for, and what is to be otherwise; read from plain data and checked.

What belongs here: the parts of a question and their rules. What does not: doing what it says (overlay.py).
Everything is judged by the panel, so that a question names series, values and periods as the panel does.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from turnover_assets.core.aggregates import TOTAL
from turnover_assets.core.calendar import index_of, label_of
from turnover_assets.errors import QuestionError
from turnover_assets.panel import Column, CovariateTable, PanelSpec

Selector = Mapping[str, Any]
LARGEST_WHOLE = 2**63 - 1


@dataclass(frozen=True)
class Known:
    """Another value of something known ahead.

    Attributes:
        column: Its name.
        value: The value; None where it is not known.
        periods: Indices of the periods to forecast that it holds for.
    """

    column: str
    value: bool | int | float | str | None
    periods: tuple[int, ...]


@dataclass(frozen=True)
class Scaled:
    """Another level of the newest history: values times a factor.

    Attributes:
        factor: Above 0.
        periods: How many of the newest periods.
    """

    factor: float
    periods: int


@dataclass(frozen=True)
class Newcomer:
    """A series, or several, that there are not yet.

    Attributes:
        keys: Its series keys; one that is left out stands for every member that its peers have.
        attributes: What is known of it, by name.
        level: Expected mean of a period over a season, of all its series together, as reported; None where
            its peers' is to be taken.
        per: A numeric attribute that the peers' level is taken in proportion to; empty for none.
        like: What its peers have in common, as keys and attributes; empty where they are to be found.
    """

    keys: Selector
    attributes: Selector
    level: float | None
    per: str
    like: Selector


@dataclass(frozen=True)
class Question:
    """What is asked.

    Attributes:
        series: Which series are asked for; each selector by keys and attributes, all of which must hold.
        known: Values known ahead that are to be others, the later of two on one value counts.
        history: Another level of the newest history; None where it stays.
        newcomers: Series to be added.
        levels: Levels of the sums that are wanted too; `total` for the sum of all series.
        periods: Indices of the periods to answer for.
    """

    series: tuple[Selector, ...]
    known: tuple[Known, ...]
    history: Scaled | None
    newcomers: tuple[Newcomer, ...]
    levels: tuple[str, ...]
    periods: tuple[int, ...]


def read_question(panel: PanelSpec, last: int, asked: Mapping[str, Any]) -> Question:
    """A question from plain data.

    Args:
        panel: The panel.
        last: Index of the newest period known.
        asked: `series`, `covariates`, `history`, `new`, `levels`, `periods`, as docs/what-if.md describes
            them; each may be missing or None.

    Raises:
        QuestionError: It names something that there is not, or asks for nothing.
    """
    ahead = tuple(range(last + 1, last + 1 + panel.horizon))
    columns = _selectable(panel)
    series = tuple(
        _selector(columns, item, f"series.{i}") for i, item in enumerate(asked.get("series") or ())
    )
    newcomers = tuple(_newcomer(panel, item, f"new.{i}") for i, item in enumerate(asked.get("new") or ()))
    if not series and not newcomers:
        raise QuestionError(
            "series", "No series is asked for.", "Name at least one in `series`, or describe one in `new`."
        )
    known = [
        change
        for i, item in enumerate(asked.get("covariates") or ())
        for change in _known(panel, ahead, item, f"covariates.{i}")
    ]
    history = asked.get("history")
    return Question(
        series,
        tuple(known),
        Scaled(float(history["factor"]), int(history["periods"])) if history else None,
        newcomers,
        _levels(panel, asked.get("levels") or ()),
        _periods(panel, ahead, asked.get("periods"), "periods"),
    )


def covariate_columns(panel: PanelSpec) -> dict[str, tuple[CovariateTable, Column]]:
    """Table and column of everything that is known ahead, by name."""
    return {column.name: (table, column) for table in panel.covariates for column in table.columns}


def attribute_columns(panel: PanelSpec) -> dict[str, Column]:
    """Every attribute, by name."""
    return {column.name: column for table in panel.static for column in table.columns}


def _selectable(panel: PanelSpec) -> dict[str, Column]:
    return {key.name: key for key in panel.series.keys} | attribute_columns(panel)


def _selector(columns: Mapping[str, Column], item: Selector, field: str) -> dict[str, Any]:
    if not item:
        raise QuestionError(field, "It is empty.", f"Name some of: {', '.join(columns)}.")
    return {
        name: typed(_named(columns, name, field), value, f"{field}.{name}") for name, value in item.items()
    }


def _named(columns: Mapping[str, Column], name: str, field: str) -> Column:
    if name not in columns:
        listed = ", ".join(columns) or "none in this panel"
        raise QuestionError(f"{field}.{name}", f"There is no {name!r}.", f"Use one of these: {listed}.")
    return columns[name]


def _known(panel: PanelSpec, ahead: Sequence[int], item: Mapping[str, Any], field: str) -> list[Known]:
    columns = {name: column for name, (_, column) in covariate_columns(panel).items()}
    periods = _periods(panel, ahead, item.get("periods"), f"{field}.periods")
    found = []
    for name, value in item["values"].items():
        column = _named(columns, name, f"{field}.values")
        checked = None if value is None else typed(column, value, f"{field}.values.{name}")
        found.append(Known(name, checked, periods))
    return found


def _newcomer(panel: PanelSpec, item: Mapping[str, Any], field: str) -> Newcomer:
    keys = {key.name: key for key in panel.series.keys}
    attributes = attribute_columns(panel)
    per, level = item.get("per") or "", item.get("level")
    if per and (per not in attributes or attributes[per].type not in ("number", "integer")):
        numeric = [name for name, column in attributes.items() if column.type in ("number", "integer")]
        raise QuestionError(
            f"{field}.per",
            f"{per!r} is no numeric attribute.",
            f"Use one of these: {', '.join(numeric) or 'none in this panel'}.",
        )
    given = item.get("attributes") or {}
    if per and given.get(per) is None and level is None:
        raise QuestionError(
            f"{field}.attributes.{per}", "It is not given, but the level depends on it.", "Give its value."
        )
    if per and given.get(per) is not None and not float(typed(attributes[per], given[per], field)) > 0:
        raise QuestionError(
            f"{field}.attributes.{per}", "The level cannot be in proportion to it.", "Give a number above 0."
        )
    if level is not None and not float(level) > 0:
        raise QuestionError(f"{field}.level", f"A level of {level:g} is none.", "Give a number above 0.")
    like = item.get("like") or {}
    return Newcomer(
        _selector(keys, item["keys"], f"{field}.keys"),
        _selector(attributes, given, f"{field}.attributes") if given else {},
        None if level is None else float(level),
        per,
        _selector(_selectable(panel), like, f"{field}.like") if like else {},
    )


def _levels(panel: PanelSpec, names: Sequence[str]) -> tuple[str, ...]:
    known = (*panel.level_names, TOTAL)
    for i, name in enumerate(names):
        if name not in known:
            raise QuestionError(
                f"levels.{i}", f"There is no level {name!r}.", f"Use some of these: {', '.join(known)}."
            )
    return tuple(dict.fromkeys(names))


def _periods(
    panel: PanelSpec, ahead: Sequence[int], labels: Sequence[date] | None, field: str
) -> tuple[int, ...]:
    """Indices of labelled periods, each of which must be one that is forecast; all of those by default."""
    if not labels:
        return tuple(ahead)
    by_label = {label_of(panel, t): t for t in ahead}
    for i, label in enumerate(labels):
        if label not in by_label:
            why = "" if _is_label(panel, label) else " and no day that labels a period"
            raise QuestionError(
                f"{field}.{i}",
                f"{label} is not among the periods that are forecast{why}.",
                f"Use some of these: {', '.join(map(str, by_label))}.",
            )
    return tuple(sorted({by_label[label] for label in labels}))


def _is_label(panel: PanelSpec, label: date) -> bool:
    try:
        index_of(panel, label)
    except ValueError:
        return False
    return True


def typed(column: Column, value: Any, field: str) -> bool | int | float | str:
    """A value of a column's type.

    Raises:
        QuestionError: It is of another type.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    fits = {
        "integer": is_number and value == int(value) and abs(value) <= LARGEST_WHOLE,
        "number": is_number,
        "text": isinstance(value, str) and value != "",
        "flag": isinstance(value, bool),
    }
    if not fits[column.type]:
        wanted = {
            "integer": "a whole number",
            "number": "a number",
            "text": "a text",
            "flag": "true or false",
        }
        raise QuestionError(field, f"{value!r} is not {wanted[column.type]}.", f"Give {wanted[column.type]}.")
    return int(value) if column.type == "integer" else value
