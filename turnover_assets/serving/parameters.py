"""Query parameters of requests for rows, made from the panel: keys, attributes, periods, format and page.

What belongs here: the parameters, their types and bounds, and the SQL conditions they stand for. What does
not: which of them a route has (routes/).

Invariants:
    - a parameter has the name that the panel gives its column; one that the API itself uses gets an
      underscore at its end;
    - names in SQL come from the panel, values are bound.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model

from turnover_assets.panel import Column, PanelSpec, StaticTable
from turnover_assets.serving.formats import FORMAT_NAMES
from turnover_assets.serving.problems import Problem
from turnover_assets.serving.view import View

MOST_VALUES = 100  # of one parameter that may be repeated
LONGEST_TEXT = 200
LONGEST_PAGE = 2000
SOME_PAGE = "WyIyMDI0LTA2LTI5XzIwMjQwNzAxVDA2MDAwMF8xZDU1MTciLCI0MjgyOGY0OCIsWzMsM11d"  # as `next` has them
ROWS_OF_JSON = 1000  # where no limit is given; other formats are for programs, which get the greatest page
# What the API itself calls its parameters; those of a panel that are called so get an underscore.
OWN = frozenset(
    [
        "format",
        "limit",
        "page",
        "from",
        "to",
        "cutoff",
        "horizon",
        "level",
        "member",
        "basis",
        "source",
        "role",
        "snapshot",
    ]
)
_WHOLE = Annotated[int, Field(ge=-(2**63), lt=2**63)]
_TEXT = Annotated[str, Field(max_length=LONGEST_TEXT)]
_LISTS: Mapping[str, Any] = {
    "integer": list[_WHOLE],
    "number": list[float],
    "text": list[_TEXT],
    "flag": list[bool],
}
EXAMPLES: Mapping[str, Any] = {"integer": 3, "number": 3.5, "text": "A", "flag": True}
Definition = tuple[Any, Any]


def _iso(value: object) -> object:
    """Only dates as they are written here; pydantic alone also takes numbers of seconds."""
    if isinstance(value, str) and not re.fullmatch(r"\d{4}-\d{2}-\d{2}", value):
        raise ValueError("it should be a valid date, written like 2017-06-10")
    return value


Day = Annotated[date, BeforeValidator(_iso)]


class Given(BaseModel):
    """What a request says; unknown parameters are refused."""

    model_config = ConfigDict(extra="forbid", populate_by_name=False)

    def value(self, name: str) -> Any:
        """The value of one of the API's own parameters; None where the route has no such."""
        return getattr(self, f"own_{name}", None)


@dataclass(frozen=True)
class Selector:
    """A parameter that selects series.

    Attributes:
        name: Its name in the query.
        column: The column.
        table: The table of attributes that has the column; None for a series key.
    """

    name: str
    column: Column
    table: StaticTable | None = None

    @property
    def field(self) -> str:
        """Name of the field of the model."""
        return f"of_{self.column.name}"


def selectors(panel: PanelSpec) -> list[Selector]:
    """The parameters that select series: the keys, then every attribute that values can be named of.

    Example:
        >>> from turnover_assets.panel import default_panel
        >>> [each.name for each in selectors(default_panel())]
        ['store', 'department', 'postcode', 'region', 'zone']
    """
    keys = [Selector(_own_name(key.name), key) for key in panel.series.keys]
    attributes = [
        Selector(_own_name(column.name), column, table)
        for table in panel.static
        for column in table.columns
        if column.type != "number"
    ]
    return [*keys, *attributes]


def _own_name(name: str) -> str:
    return f"{name}_" if name in OWN else name


def series_fields(panel: PanelSpec) -> dict[str, Definition]:
    """Fields of a model for the selectors; each may be repeated."""
    return {each.field: _repeated(each) for each in selectors(panel)}


def _repeated(selector: Selector) -> Definition:
    of = f"attribute of {selector.table.name}" if selector.table else "series key"
    text = f"Only series with this {selector.column.name} ({of}); repeat it for several."
    described: Any = Field(
        default_factory=list,
        alias=selector.name,
        max_length=MOST_VALUES,
        description=text,
        examples=[[EXAMPLES[selector.column.type]]],
    )
    return _LISTS[selector.column.type], described


def own(name: str, type_: Any, description: str, **bounds: Any) -> dict[str, Definition]:
    """A field of a model for a parameter of the API itself, which may be left out."""
    return {f"own_{name}": (type_ | None, Field(None, alias=name, description=description, **bounds))}


def period_fields(what: str) -> dict[str, Definition]:
    """Fields for the first and last period."""
    first = own("from", Day, f"Only {what} from this date on.", examples=["2017-06-17"])
    last = f"Only {what} up to this date, itself included."
    return first | own("to", Day, last, examples=["2017-08-05"])


def horizon_field(panel: PanelSpec) -> dict[str, Definition]:
    """A field for how many periods ahead forecasts are."""
    return own("horizon", int, "Only forecasts so many periods ahead.", ge=1, le=panel.horizon, examples=[1])


def page_fields(most_rows: int) -> dict[str, Definition]:
    """Fields for format, limit and page."""
    limit = (
        f"Rows of a page; without it {min(ROWS_OF_JSON, most_rows)} in JSON, and {most_rows} in the other "
        "formats."
    )
    page = "Token of the page, from the link to it; it stays within its snapshot."
    return {
        "own_format": (
            Literal[FORMAT_NAMES] | None,
            Field(
                None,
                alias="format",
                description="Format of the answer; goes before the header Accept.",
                examples=["csv"],
            ),
        ),
        **own("limit", int, limit, ge=1, le=most_rows, examples=[100]),
        **own("page", str, page, min_length=1, max_length=LONGEST_PAGE, examples=[SOME_PAGE]),
    }


def parameters(name: str, *fields: Mapping[str, Definition]) -> type[Given]:
    """The model of a route's parameters."""
    together: dict[str, Any] = {key: value for part in fields for key, value in part.items()}
    model: type[Given] = create_model(name, __base__=Given, **together)
    return model


@dataclass
class Conditions:
    """Conditions in SQL, all of which must hold, and the values bound to them."""

    clauses: list[str] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)

    def add(self, clause: str, **values: Any) -> None:
        """One more."""
        self.clauses.append(clause)
        self.values.update(values)

    def bind(self, name: str, value: Any) -> str:
        """Bind a value; returns the parameter that stands for it."""
        self.values[name] = value
        return f"${name}"

    def among(self, column: str, values: list[Any], name: str) -> str:
        """A clause: the column has one of the values."""
        bound = [self.bind(f"{name}_{i}", value) for i, value in enumerate(values)]
        return f"{column} = {bound[0]}" if len(bound) == 1 else f"{column} IN ({', '.join(bound)})"

    @property
    def sql(self) -> str:
        """All of them as one."""
        return " AND ".join(self.clauses) or "true"


def chosen(panel: PanelSpec, given: Given) -> Iterator[tuple[Selector, list[Any]]]:
    """The selectors that a request uses, with their values."""
    for selector in selectors(panel):
        if values := list(getattr(given, selector.field, ())):
            yield selector, values


def series_conditions(panel: PanelSpec, view: View, given: Given) -> Conditions:
    """Conditions for the series that a request selects, on a table that has the series keys.

    Raises:
        Problem: The snapshot lacks a table of attributes: an earlier release published it.
    """
    found = Conditions()
    for selector, values in chosen(panel, given):
        clause = found.among(selector.column.name, values, selector.field)
        if selector.table is None:
            found.add(clause)
            continue
        if not view.has(selector.table.name):
            raise _without_attributes(selector)
        keys = ", ".join(selector.table.keys)
        found.add(f"({keys}) IN (SELECT ({keys}) FROM {selector.table.name} WHERE {clause})")
    return found


def _without_attributes(selector: Selector) -> Problem:
    assert selector.table is not None
    return Problem(
        503,
        f"The snapshot that is served has no table {selector.table.name}, since an earlier release published "
        f"it, so that series cannot be selected by {selector.name}.",
        "Select by the series keys, or ask whoever runs the service to run `turnover run` once.",
        field=selector.name,
        headers={"Retry-After": "3600"},
    )


def period_conditions(found: Conditions, given: Given, column: str) -> None:
    """Add the conditions for the periods that a request asks for."""
    if (first := given.value("from")) is not None:
        found.add(f"{column} >= $first_period", first_period=first)
    if (last := given.value("to")) is not None:
        found.add(f"{column} <= $last_period", last_period=last)


def horizon_condition(found: Conditions, given: Given) -> None:
    """Add the condition for how many periods ahead forecasts are."""
    if (horizon := given.value("horizon")) is not None:
        found.add("horizon = $horizon", horizon=horizon)


def one_series(panel: PanelSpec, given: Given) -> dict[str, Any] | None:
    """The keys of the only series that a request names; None where it names several, none, or attributes."""
    named = {each.column.name: values for each, values in chosen(panel, given)}
    if set(named) != set(panel.keys) or any(len(values) > 1 for values in named.values()):
        return None
    return {key: named[key][0] for key in panel.keys}
