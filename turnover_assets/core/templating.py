"""Templates of pages, and how values are shown in them.

What belongs here: finding a template, and the filters that all pages use. What does not: what a page says.
Whatever a template is given is escaped, except pictures made here.
"""

from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

import duckdb

if TYPE_CHECKING:
    from jinja2 import Environment, Template

MINUS = "\N{MINUS SIGN}"
NOT_KNOWN = "-"

Records = list[dict[str, Any]]


def template(name: str) -> "Template":
    """A template of templates/, by its name before `.html.jinja`."""
    return _environment().get_template(f"{name}.html.jinja")


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("turnover_assets.core"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=number, share=share, signed=signed)
    return environment


def records(con: duckdb.DuckDBPyConnection, sql: str, values: Any = ()) -> Records:
    """The rows of a query, each by the names of its columns; values that are not a number are None."""
    result = con.execute(sql, values if isinstance(values, dict) else list(values))
    names = [column[0] for column in result.description or []]
    return [
        {name: None if value != value else value for name, value in zip(names, row, strict=True)}
        for row in result.fetchall()
    ]


def number(value: Any) -> str:
    """A value of a table as people read it.

    Example:
        >>> number(1234567.891), number(0.12345), number(1200), number(None)
        ('1,234,568', '0.1235', '1,200', '-')
    """
    if value is None or value != value:
        return NOT_KNOWN
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%d %H:%M}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:,.4g}"


def share(value: float | None) -> str:
    """A share in per cent, with a digit after the point.

    Example:
        >>> share(0.2314), share(None)
        ('23.1 %', '-')
    """
    return NOT_KNOWN if value is None or value != value else f"{100 * value:,.1f} %".replace("-", MINUS)


def signed(value: float | None) -> str:
    """A difference in per cent, with its sign.

    Example:
        >>> signed(0.021), signed(-0.0001), signed(-0.5) == f"{MINUS}50.0 %"
        ('+2.1 %', '0.0 %', True)
    """
    if value is None or value != value:
        return NOT_KNOWN
    shown = f"{100 * abs(value):,.1f} %"
    return shown if shown.startswith("0.0 ") else f"{'+' if value > 0 else MINUS}{shown}"
