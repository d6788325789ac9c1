"""The rules of a panel file that join several of its fields.

What belongs here: names that are free, references that lead somewhere, files that can be told apart,
calendars that exist. What does not: the fields and their types (panel.py). All rules work on plain data
that may itself be incomplete, so that everything wrong with a file can be listed at once.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

import holidays as holiday_calendars

from turnover_assets.panel_hints import meant

NAME = re.compile(r"^[a-z][a-z0-9_]{0,47}$")
# Columns that the platform itself puts beside a panel's own.
_RESERVED = """
actual adjustment_id broken broken_message cutoff factor_in_force file file_no first_t forecast horizon
landed_at last_line line lower_80 lower_95 malformed message model model_version new_file new_file_no
new_line new_value old_file old_file_no old_line old_value place raw_values rule scale season_error series_id
t target upper_80 upper_95 y
"""
# Names stand in SQL as they are, so the words that DuckDB keeps for itself cannot be names.
_SQL_WORDS = """
all analyse analyze and anti any array as asc asof asymmetric at authorization binary both by case
cast check collate collation column columns concurrently constraint create cross default deferrable
desc describe distinct do else end except false fetch for foreign freeze from full generated glob
group having ilike in initially inner intersect into is isnull join lambda lateral leading left like
limit map natural not notnull null offset on only or order outer overlaps pivot pivot_longer
pivot_wider placing positional primary qualify references returning right row select semi show
similar some struct summarize symmetric table tablesample then to trailing true try_cast union
unique unpack unpivot using values variadic verbose when where window with
"""
RESERVED = frozenset(_RESERVED.split())
SQL_WORDS = frozenset(_SQL_WORDS.split())
# What the platform's own SQL calls its tables, what it publishes, and tables of its own.
_TAKEN_TABLES = """
accuracy adjustments aggregates backtest backtest_accuracy backtest_aggregates calendar checks decisions drift
explanations feature_ranges files findings forecast_history forecasts forecasts_as_of g gate_checks inputs k l
level_changes m measures missing_series monitored_accuracy p profile r rejected restatements retraining runs s
seasonal_profile stability steps w
"""
TAKEN_TABLES = frozenset(_TAKEN_TABLES.split())


def cross_checks(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Everything that is wrong, as pairs of (place in the file, what is wrong there).

    Args:
        data: A panel as it came from its file, before or after validation.
    """
    series = data.get("series")
    series = series if isinstance(series, Mapping) else {}
    keys = _named(series.get("keys"))
    yield from _check_names(data, series, keys)
    yield from _check_tables(data, series)
    yield from _check_references(data, keys)
    yield from _check_files(data, series)
    yield from _check_calendar(data)


def _items(value: Any) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Number and content of each table of an array of tables; what is not one is left to pydantic."""
    if isinstance(value, list | tuple):
        yield from ((i, item) for i, item in enumerate(value) if isinstance(item, Mapping))


def _named(value: Any) -> list[str]:
    return [item["name"] for _, item in _items(value) if isinstance(item.get("name"), str)]


def _owned_names(
    data: Mapping[str, Any], series: Mapping[str, Any], keys: list[str]
) -> list[tuple[str, str]]:
    """Place and name of every column that the panel defines."""
    owned = [("series.keys", name) for name in keys]
    parts = {part: series[part] for part in ("time", "target") if isinstance(series.get(part), Mapping)}
    owned += [(f"series.{part}.name", name) for part, item in parts.items() for name in _named([item])]
    for kind in ("static", "covariates"):
        for i, table in _items(data.get(kind)):
            owned += [(f"{kind}.{i}.columns", name) for name in _named(table.get("columns"))]
    return owned


def _check_names(
    data: Mapping[str, Any], series: Mapping[str, Any], keys: list[str]
) -> Iterator[tuple[str, str]]:
    owned = _owned_names(data, series, keys)
    taken = RESERVED | _derived_names(data, [name for _, name in owned], series)
    for where, name in owned:
        if not NAME.match(name):
            yield where, f"{name!r} is not a name (lower case letters, digits and _, a letter first)"
        elif name in taken:
            yield where, f"the name {name!r} is taken by the platform; choose another"
        elif name in SQL_WORDS:
            yield where, f"the name {name!r} is a word of SQL; choose another"
    for name, count in Counter(name for _, name in owned).items():
        if count > 1:
            yield "", f"the column name {name!r} is given {count} times; each needs its own"


def _derived_names(data: Mapping[str, Any], names: list[str], series: Mapping[str, Any]) -> set[str]:
    """Columns that the platform makes from a panel's own names, and puts beside them."""
    target = _mapped(series.get("target")).get("name")
    levels = _listed(data.get("levels"))
    made = {f"{name}_text" for name in names} | {f"{target}_adjusted", f"{target}_year"}
    return made | {f"{level}_id" for level in levels or _named(series.get("keys"))}


def _check_tables(data: Mapping[str, Any], series: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    tables = [str(series["name"])] if isinstance(series.get("name"), str) else []
    tables += _named(data.get("static")) + _named(data.get("covariates"))
    for name, count in Counter(tables).items():
        if not NAME.match(name):
            yield "", f"the table name {name!r} is not a name (lower case letters, digits and _)"
        elif name in SQL_WORDS:
            yield "", f"the table name {name!r} is a word of SQL; choose another"
        if count > 1 or name in TAKEN_TABLES:
            yield "", f"the table name {name!r} is taken; each table needs its own"


def _check_references(data: Mapping[str, Any], keys: list[str]) -> Iterator[tuple[str, str]]:
    known = list(keys)
    for kind in ("static", "covariates"):
        for i, table in _items(data.get(kind)):
            own = _listed(table.get("keys"))
            for key in own:
                if key not in keys:
                    listed = f"({', '.join(keys) or 'none'}){meant(str(key), keys)}"
                    yield f"{kind}.{i}.keys", f"{key!r} is not a series key {listed}"
            for key in _mapped(table.get("key_columns")):
                if key not in own:
                    yield f"{kind}.{i}.key_columns", f"{key!r} is not among this table's keys"
            known += _named(table.get("columns")) if kind == "static" else []
    levels = _listed(data.get("levels"))
    for i, level in enumerate(levels):
        if level not in known:
            listed = f"({', '.join(known)}){meant(str(level), known)}"
            yield "levels", f"{level!r} is neither a series key nor an attribute {listed}"
        if level in levels[:i]:
            yield "levels", f"{level!r} is given more than once"


def _listed(value: Any) -> list[Any]:
    """An array; what is not one is left to pydantic."""
    return list(value) if isinstance(value, list | tuple) else []


def _mapped(value: Any) -> Mapping[str, Any]:
    """A table; what is not one is left to pydantic."""
    return value if isinstance(value, Mapping) else {}


def _source(item: Any) -> str | None:
    """What a column is called in the files; None where that cannot be told."""
    found = _mapped(item).get("column") or _mapped(item).get("name")
    return found if isinstance(found, str) else None


def _check_files(data: Mapping[str, Any], series: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """A file's kind is told by its columns, so each kind of file needs other columns."""
    keys = {str(item.get("name")): _source(item) for _, item in _items(series.get("keys"))}
    columns = [*keys.values(), _source(series.get("time")), _source(series.get("target"))]
    for source, count in Counter(columns).items():
        if count > 1 and source is not None:
            yield "series", f"the column {source!r} of the files is used {count} times; each needs its own"
    kinds = [(str(series.get("name")), set(columns))]
    static = [table for _, table in _items(data.get("static"))]
    dated = [table for _, table in _items(data.get("covariates"))]
    for table in static + dated:
        renamed = _mapped(table.get("key_columns"))
        needed = {renamed.get(str(key), keys.get(str(key))) for key in _listed(table.get("keys"))}
        needed |= {_source(item) for _, item in _items(table.get("columns"))}
        if table in dated:
            needed.add(table.get("time_column") or _source(series.get("time")))
        kinds.append((str(table.get("name")), needed))
    for (name, needed), (other, theirs) in combinations(kinds, 2):
        if needed == theirs and None not in needed:
            shown = ", ".join(sorted(map(str, needed)))
            yield (
                "",
                f"files of {name!r} and {other!r} have the same columns ({shown}): no telling them apart",
            )


def _check_calendar(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    calendar = data.get("holidays")
    if not isinstance(calendar, Mapping) or not isinstance(calendar.get("country"), str):
        return
    supported = holiday_calendars.list_supported_countries(include_aliases=True)
    country, part = calendar["country"], calendar.get("subdivision")
    if country not in supported:
        yield "holidays.country", f"{country!r} is not known to the holidays package (use an ISO code, as FR)"
    elif part is not None and part not in supported[country]:
        known = ", ".join(supported[country]) or "none"
        yield "holidays.subdivision", f"{part!r} is not a part of {country} (known: {known})"
