"""The question that the what-if form asks: its fields, read by the panel's types and as their reader writes.

What belongs here: reading the form. What does not: whether the question makes sense
(core/what_if/question.py), and the page (pages/what_if.py).
"""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from babel import Locale
from babel.numbers import NumberFormatError, parse_decimal

from turnover_assets.panel import Column, PanelSpec
from turnover_assets.serving.dashboard.members import spaced
from turnover_assets.serving.problems import Problem

LEVELS = (10, 500)  # per cent of the newest history that may be asked for
LONGEST = 200
PLACE = ("latitude", "longitude")


def asked(panel: PanelSpec, given: Mapping[str, str], locale: Locale) -> dict[str, Any]:
    """The question that a form asks, with numbers as its reader writes them.

    Raises:
        Problem: A field cannot be read.
    """
    keys = _values(given, "key_", panel.series.keys, locale)
    if not keys:
        raise Problem(422, "No series is named.", "Fill in at least one of its keys.")
    found: dict[str, Any] = {}
    if given.get("what") == "new":
        new: dict[str, Any] = {"keys": keys}
        if described := _values(given, "of_", attributes(panel), locale):
            new["attributes"] = described
        if like := _values(given, "like_", panel.series.keys, locale):
            new["like"] = like
        if per := given.get("per"):
            new["per"] = per[:LONGEST]
        if mean := given.get("mean"):
            new["level"] = _number(mean, "the usual amount", locale)
        found["new"] = [new]
    else:
        found["series"] = [keys]
        found |= _history(panel, given, locale)
        if len(keys) == 1 and keys.keys() <= {*panel.level_names}:
            found["levels"] = list(keys)  # the sum of its series, which has ranges of its own
    if planned := _values(given, "ahead_", ahead(panel), locale):
        when = given.get("when")
        found["covariates"] = [{"values": planned, **({"periods": [_day(when)]} if when else {})}]
    return found


def _history(panel: PanelSpec, given: Mapping[str, str], locale: Locale) -> dict[str, Any]:
    level = _number(given.get("level") or "100", "the level", locale)
    if not LEVELS[0] <= level <= LEVELS[1]:
        raise Problem(422, f"The level is between {LEVELS[0]} and {LEVELS[1]} %.", "Correct it.", "level")
    return {} if level == 100 else {"history": {"factor": level / 100, "periods": panel.horizon}}


def attributes(panel: PanelSpec) -> list[Column]:
    """What describes a series beside its keys."""
    return [column for table in panel.static for column in table.columns]


def measures(panel: PanelSpec) -> list[Column]:
    """Numbers among its attributes that say neither which nor where, so that amounts may follow them."""
    names = {*panel.level_names, *PLACE}
    return [
        column
        for column in attributes(panel)
        if column.type in ("integer", "number") and column.name not in names
    ]


def ahead(panel: PanelSpec) -> list[Column]:
    """What is known ahead, and can be asked to be otherwise."""
    return [column for table in panel.covariates for column in table.columns]


def _values(
    given: Mapping[str, str], prefix: str, columns: Sequence[Column], locale: Locale
) -> dict[str, Any]:
    return {
        column.name: _value(column, given[f"{prefix}{column.name}"], locale)
        for column in columns
        if given.get(f"{prefix}{column.name}")
    }


def _value(column: Column, text: str, locale: Locale) -> Any:
    if column.type in ("integer", "number"):
        value = _number(text, spaced(column.name), locale)
        return int(value) if column.type == "integer" and value == int(value) else value
    return text.lower() == "true" if column.type == "flag" else text[:LONGEST]


def _number(text: str, what: str, locale: Locale) -> float:
    """A number as people type it.

    What is well-formed in the reader's locale counts as that, so that 1.500 is a thousand and a half where
    points are between thousands; any other number may have a point or a comma before its decimals.
    """
    written = text[:LONGEST].replace(" ", "").replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    try:
        value = float(parse_decimal(written, locale, strict=True))
    except NumberFormatError:
        try:
            value = float(written.replace(",", "."))
        except ValueError:
            value = float("nan")
    if not abs(value) < float("inf"):
        raise Problem(422, f"{text[:50]!r} is no number.", f"Correct {what}.")
    return value


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise Problem(422, f"{text[:50]!r} is no date.", "Choose one from the list.") from None
