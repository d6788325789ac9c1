"""What what-if questions and their answers look like in JSON, made from the panel.

What belongs here: fields, types and bounds. What does not: answering (what_if.py).
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from turnover_assets.core.aggregates import TOTAL
from turnover_assets.core.intervals import BOUNDS
from turnover_assets.core.what_if.question import attribute_columns, covariate_columns
from turnover_assets.core.what_if.remarks import Kind
from turnover_assets.core.what_if.sums import BASELINE
from turnover_assets.panel import Column, PanelSpec
from turnover_assets.serving.origin import OriginDocument
from turnover_assets.serving.parameters import EXAMPLES, LONGEST_TEXT, Day, Definition
from turnover_assets.serving.routes.aggregates import level_columns
from turnover_assets.serving.rows import amount, column, key_columns, optional, row, time_column

MOST_PARTS = 100  # of a question, of each kind
LARGEST_FACTOR = 100.0
LARGEST_LEVEL = 1e15
MOST_PERIODS = 10_000  # more than any history has
LEVELS = f"Sums to give too, with bounds: the members of these levels that are reached, or `{TOTAL}` for all."
NUMERIC = ("number", "integer")
_TYPES: Mapping[str, Any] = {
    "integer": Annotated[int, Field(ge=-(2**63), lt=2**63)],
    "number": Annotated[float, Field(allow_inf_nan=False)],
    "text": Annotated[str, Field(min_length=1, max_length=LONGEST_TEXT)],
    "flag": bool,
}
Fields = dict[str, Any]


class Part(BaseModel):
    """A part of a question; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), populate_by_name=False)


class History(Part):
    """Another level of the newest history, of the series asked for."""

    factor: float = Field(
        gt=0, le=LARGEST_FACTOR, description="What values are multiplied by.", examples=[1.2]
    )
    periods: int = Field(ge=1, le=MOST_PERIODS, description="How many of the newest periods.", examples=[4])


class ModelDocument(BaseModel):
    """The model that answered."""

    version: int = Field(description="Its version in the registry.", examples=[4])
    candidate: str = Field(description="Name of the candidate.", examples=["blend"])
    role: Literal["champion"] = "champion"
    problem: str | None = Field(description="Why it is not the one that made the published forecasts, if so.")


class Remarked(BaseModel):
    """Something that a reader of the answer should know."""

    model_config = ConfigDict(title="Warning")

    kind: Kind
    about: str = Field(description="Column, feature or series that it is about; empty for all.")
    text: str = Field(description="In sentences.")


def question_model(panel: PanelSpec) -> type[BaseModel]:
    """The model of a question."""
    keys = {key.name: key for key in panel.series.keys}
    selector = _some_of("SeriesSelector", {**keys, **attribute_columns(panel)}, "All of these must hold.")
    known = {name: each for name, (_, each) in covariate_columns(panel).items()}
    values = _some_of("KnownValues", known, "Values by column; null for not known.", nullable=True)
    change: Fields = {"values": (values, ...), "periods": _periods("For these periods; else for all.")}
    text = "Other values of what is known ahead, for the series asked for."
    fields: Fields = {
        "series": _list(selector, "The series: by keys and attributes; each entry may mean several."),
        "covariates": _list(_part("Known", text, change), "Other values of what is known ahead."),
        "history": (History | None, Field(None, description="Another level of the newest history.")),
        "new": _list(_newcomer_model(panel, keys, selector), "Series that there are not yet."),
        "levels": _levels(panel),
        "periods": _periods("Answer for these periods; else for all."),
    }
    return _part("Question", "What is asked, and what is to be otherwise.", fields)


def _newcomer_model(
    panel: PanelSpec, keys: Mapping[str, Column], selector: type[BaseModel]
) -> type[BaseModel]:
    attributes = attribute_columns(panel)
    own = _some_of("NewKeys", keys, "Its keys; one that is left out means every member that peers have.")
    described = _some_of("NewAttributes", attributes, "Its attributes, as far as they are known.")
    numeric = [name for name, each in attributes.items() if each.type in NUMERIC]
    level = "Expected mean of a period over a year, of all its series together, as reported; else as peers'."
    per = "A numeric attribute that the peers' level is taken in proportion to, such as a size."
    fields: Fields = {
        "keys": (own, ...),
        "attributes": (described | None, None),
        "level": (float | None, Field(None, gt=0, le=LARGEST_LEVEL, description=level)),
        "per": (Literal[(*numeric, None)], Field(None, description=per)),
        "like": (selector | None, Field(None, description="What its peers are; else they are found.")),
    }
    return _part("Newcomer", "A series, or several, that there are not yet.", fields)


def answer_model(panel: PanelSpec) -> type[BaseModel]:
    """The model of an answer."""
    sums = {
        **time_column(panel, "Period that is forecast"),
        "horizon": column(int, "How many periods after the cutoff it is.", 1),
        "baseline": optional(float, "Sum of the baselines; null where all series are new.", 1840.0),
        "forecast": column(float, "Sum of the forecasts.", 2010.0),
        "difference": optional(float, "Sum of the differences; null where all series are new.", 170.0),
    }
    rows, totals = row("WhatIfRow", _columns(panel)), row("WhatIfSum", sums)
    added = row("WhatIfAggregate", _sum_columns(panel))
    fields: Fields = {
        "served": (OriginDocument, Field(description="Where the answer comes from.")),
        "model": (ModelDocument, Field(description="The model that answered.")),
        "changes": (list[str], Field(description="What was changed, in sentences.")),
        "warnings": (list[Remarked], Field(description="What a reader should know.")),
        "data": (list[rows], Field(description="The rows.")),  # type: ignore[valid-type]
        "totals": (list[totals], Field(description="Sums of the rows by period.")),  # type: ignore[valid-type]
        "aggregates": (list[added], Field(description="The sums of `levels`.")),  # type: ignore[valid-type]
    }
    model: type[BaseModel] = create_model("WhatIf", **fields)
    return model


def _columns(panel: PanelSpec) -> dict[str, Definition]:
    return {
        **key_columns(panel),
        **_figures(panel, "a new series"),
        "is_new": column(bool, "Whether there is no such series yet."),
    }


def _sum_columns(panel: PanelSpec) -> dict[str, Definition]:
    return {
        **level_columns(),
        **_figures(panel, "a new member"),
        "parts": column(int, "Number of series in the sum, new ones included.", 312),
    }


def _figures(panel: PanelSpec, new: str) -> dict[str, Definition]:
    without = {name: optional(float, f"Without the changes: {name}.", 1500.0) for name in BASELINE}
    return {
        **time_column(panel, "Period that is forecast"),
        "horizon": column(int, "How many periods after the cutoff it is.", 1),
        **without,
        "forecast": column(float, f"Expected {amount(panel)}, with the changes.", 2010.0),
        **{name: optional(float, f"With the changes: {name}.", 1700.0) for name in BOUNDS},
        "difference": optional(float, f"What the changes add; null for {new}.", 170.0),
    }


def example_of(panel: PanelSpec) -> dict[str, Any]:
    """A question about a series whose newest history were higher."""
    keys = {key.name: EXAMPLES[key.type] for key in panel.series.keys}
    return {"series": [keys], "history": {"factor": 1.2, "periods": 4}}


def _levels(panel: PanelSpec) -> Definition:
    level = Literal[(*panel.level_names, TOTAL)]  # type: ignore[valid-type]
    return list[level] | None, Field(None, max_length=MOST_PARTS, description=LEVELS)


def _part(name: str, text: str, fields: Fields) -> type[BaseModel]:
    model: type[BaseModel] = create_model(name, __base__=Part, __doc__=text, **fields)
    return model


def _list(part: type[BaseModel], description: str) -> Definition:
    several = list[part]  # type: ignore[valid-type]
    return several | None, Field(None, max_length=MOST_PARTS, description=description)


def _periods(description: str) -> Definition:
    return list[Day] | None, Field(None, max_length=MOST_PARTS, description=description)


def _some_of(
    name: str, columns: Mapping[str, Column], text: str, *, nullable: bool = False
) -> type[BaseModel]:
    """A model of some of the columns, each of which may be left out."""
    fields: Fields = {}
    for i, (label, each) in enumerate(columns.items()):
        type_ = _TYPES[each.type]
        described = Field(None, alias=label, title=label, examples=[EXAMPLES[each.type]])
        fields[f"column_{i}"] = (type_ | None if nullable else type_, described)
    return _part(name, text, fields)
