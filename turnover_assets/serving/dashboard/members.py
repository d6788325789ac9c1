"""Members of levels and single series: what they are called, and where their pages are.

What belongs here: names and addresses, and reading them back. What does not: figures.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from turnover_assets.core.aggregates import MISSING, TOTAL
from turnover_assets.panel import Column, PanelSpec, StaticTable
from turnover_assets.serving.problems import Problem

LONGEST = 200
# What the pages call their own parameters; keys of a panel that are called so get an underscore.
OWN = frozenset({"lang", "q", "page", "sort", "name", "csrf"})
LEVEL, MEMBER, ALL_SERIES, SERIES = "/level", "/member", "/all", "/series"
TRUE, FALSE = "true", "false"


def spaced(name: str) -> str:
    """A name of the panel in words."""
    return name.replace("_", " ")


def title(name: str) -> str:
    """The same at the beginning of a line.

    Example:
        >>> title("weekly_sales")
        'Weekly sales'
    """
    words = spaced(name)
    return words[:1].upper() + words[1:]


def member_title(level: str, name: str) -> str:
    """What a member is called.

    Example:
        >>> member_title("store", "3"), member_title("city", "Bonn"), member_title("total", "")
        ('Store 3', 'Bonn', 'Total')
    """
    if level == TOTAL:
        return "Total"
    if name == MISSING:
        return f"Without {spaced(level)}"
    return name if any(letter.isalpha() for letter in name) else f"{title(level)} {name}"


def parameter(key: str) -> str:
    """The parameter that names a key in an address."""
    return f"{key}_" if key in OWN else key


def level_address(level: str) -> str:
    """Where the members of a level are listed."""
    return f"{LEVEL}?{urlencode({'name': level})}"


def member_address(level: str, name: str) -> str:
    """The page of a member; the beginning for the total."""
    return "/" if level == TOTAL else f"{MEMBER}?{urlencode({'level': level, 'name': name})}"


def series_query(panel: PanelSpec, row: Mapping[str, Any]) -> str:
    """The part of an address that names a series."""
    return urlencode({parameter(key): _written(row[key]) for key in panel.keys})


def series_address(panel: PanelSpec, row: Mapping[str, Any]) -> str:
    """The page of a series."""
    return f"{SERIES}?{series_query(panel, row)}"


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return TRUE if value else FALSE
    return str(value)


def series_title(panel: PanelSpec, row: Mapping[str, Any]) -> str:
    """What a series is called.

    Example:
        >>> from turnover_assets.panel import default_panel
        >>> series_title(default_panel(), {"store": 3, "department": 73})
        'Store 3, department 73'
    """
    parts = [member_title(key, _written(row[key])) for key in panel.keys]
    lowered = [
        part[:1].lower() + part[1:] if part.startswith(title(key)) else part
        for key, part in zip(panel.keys[1:], parts[1:], strict=True)
    ]
    return ", ".join([parts[0], *lowered])


def keys_of(panel: PanelSpec, given: Mapping[str, str]) -> dict[str, Any]:
    """The series that an address names.

    Raises:
        Problem: It names none.
    """
    found = dict[str, Any]()
    for key in panel.series.keys:
        text = given.get(parameter(key.name), "")
        try:
            found[key.name] = _read(key, text)
        except ValueError:
            raise no_such(f"There is no series with the {spaced(key.name)} {text[:LONGEST]!r}.") from None
    return found


def _read(key: Column, text: str) -> Any:
    if not text or len(text) > LONGEST:
        raise ValueError(text)
    if key.type == "integer":
        value = int(text)
        if not -(2**63) <= value < 2**63:
            raise ValueError(text)
        return value
    if key.type == "number":
        return float(text)
    if key.type == "flag":
        return {TRUE: True, FALSE: False}[text] if text in (TRUE, FALSE) else _refuse(text)
    return text


def _refuse(text: str) -> Any:
    raise ValueError(text)


def no_such(detail: str) -> Problem:
    """The answer to an address that names nothing."""
    return Problem(404, detail, "Search for it, or choose from the lists of the overview.")


def name_sql(column: str, kind: str) -> str:
    """SQL for the name of a member, as core.aggregates.member_names writes it."""
    text = f"CAST({column} AS VARCHAR)"
    if kind == "number":
        whole = f"CAST(CAST({column} AS HUGEINT) AS VARCHAR)"
        text = f"CASE WHEN {column} = trunc({column}) AND abs({column}) < 1e18 THEN {whole} ELSE {text} END"
    if kind == "flag":
        text = f"CASE WHEN {column} THEN 'True' ELSE 'False' END"
        text = f"CASE WHEN {column} IS NULL THEN NULL ELSE {text} END"
    return f"coalesce({text}, '{MISSING}')"


def column_types(panel: PanelSpec) -> dict[str, str]:
    """Type of each key and attribute."""
    attributes = (column for table in panel.static for column in table.columns)
    return {column.name: column.type for column in (*panel.series.keys, *attributes)}


def place_table(panel: PanelSpec) -> StaticTable | None:
    """The table that says where the members of a level are; None where there is none."""
    for table in panel.static:
        names = {column.name for column in table.columns if column.type == "number"}
        if {"latitude", "longitude"} <= names and len(table.keys) == 1 and table.keys[0] in panel.level_names:
            return table
    return None
