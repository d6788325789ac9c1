"""Models of rows in JSON, made from the panel: they say in the OpenAPI what an answer has.

What belongs here: columns and what they mean. What does not: the rows.
"""

from collections.abc import Mapping
from datetime import date
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, create_model

from turnover_assets.core.intervals import BOUNDS
from turnover_assets.panel import Column, PanelSpec
from turnover_assets.serving.parameters import EXAMPLES, Definition

_TYPES: Mapping[str, Any] = {"integer": int, "number": float, "text": str, "flag": bool}
EXAMPLE_DAY = date(2017, 6, 17)


class Row(BaseModel):
    """A row of an answer."""

    model_config = ConfigDict(protected_namespaces=(), extra="forbid")


def column(type_: Any, description: str, example: Any = None) -> Definition:
    """A column that every row has a value in."""
    return type_, Field(description=description, examples=None if example is None else [example])


def optional(type_: Any, description: str, example: Any = None) -> Definition:
    """A column that may be null."""
    return column(type_ | None, description, example)


def row(name: str, columns: Mapping[str, Definition]) -> type[BaseModel]:
    """The model of a row."""
    named = enumerate(columns.items())
    fields: dict[str, Any] = {f"column_{i}": _aliased(each, label) for i, (label, each) in named}
    model: type[BaseModel] = create_model(name, __base__=Row, **fields)
    return model


def _aliased(definition: Definition, label: str) -> Definition:
    """The same under a name that need not be one of Python's."""
    type_, info = definition
    return type_, Field(alias=label, title=label, description=info.description, examples=info.examples)


def of_panel(each: Column, description: str) -> Definition:
    """A column of the panel."""
    return column(_TYPES[each.type], description, EXAMPLES[each.type])


def attribute(each: Column, description: str) -> Definition:
    """An attribute, which a series may lack."""
    return optional(_TYPES[each.type], description, EXAMPLES[each.type])


def key_columns(panel: PanelSpec) -> dict[str, Definition]:
    """The series keys."""
    return {key.name: of_panel(key, f"Series key {key.name}.") for key in panel.series.keys}


def amount(panel: PanelSpec) -> str:
    """What amounts are amounts of."""
    unit = f", in {panel.series.target.unit}" if panel.series.target.unit else ""
    return f"{panel.target}{unit}"


def time_column(panel: PanelSpec, what: str) -> dict[str, Definition]:
    """The period of a row."""
    side = "first" if panel.series.time.label == "start" else "last"
    return {panel.time: column(date, f"{what}, by the date of its {side} day.", EXAMPLE_DAY)}


def forecast_columns(panel: PanelSpec) -> dict[str, Definition]:
    """Forecast and bounds."""
    bounds = {
        name: optional(float, f"{_side(name)} bound that {name[-2:]} % of outcomes keep to.", 1500.0)
        for name in BOUNDS
    }
    return {"forecast": column(float, f"Expected {amount(panel)}.", 1840.0), **bounds}


def _side(bound: str) -> str:
    return "Lower" if bound.startswith("lower") else "Upper"


def dated(what: str = "Last period known when the forecast was made.") -> dict[str, Definition]:
    """The cutoff of a row."""
    return {"cutoff": column(date, what, date(2017, 6, 10))}
