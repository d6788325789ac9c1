"""What one retailer's data looks like: a PanelSpec, read from a TOML file.

What belongs here: names, columns, types, frequency, levels, covariates, calendar, and every check
of a panel file. What does not: anything that reads data, and any retailer's own names (those stand
in panels/*.toml only).
"""

import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cached_property
from hashlib import sha256
from importlib.resources import files
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, Self

import holidays as holiday_calendars
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from turnover_assets.errors import PanelError

Weekday = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
WEEKDAYS: tuple[Weekday, ...] = (
    "monday",
    "tuesday",
    "wednesday",
    "thursday",
    "friday",
    "saturday",
    "sunday",
)
NAME = re.compile(r"^[a-z][a-z0-9_]{0,47}$")
# Columns that the platform itself puts beside a panel's own.
_RESERVED = """
actual adjustment_id broken broken_message cutoff file file_no first_t forecast horizon last_line
line lower_80 lower_95 malformed message model model_version place raw_values rule scale series_id t
target upper_80 upper_95 y
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
# What the platform's own SQL calls its tables, and tables of its own.
TAKEN_TABLES = frozenset(
    {"calendar", "files", "forecasts", "g", "k", "l", "m", "p", "r", "rejected", "s", "w"}
)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Column(_Strict):
    """One column: its canonical name inside the platform, and what it is called in the files.

    Attributes:
        name: Canonical name (lower case, letters, digits, underscores).
        column: Name in the files; the canonical name where left out.
        type: `integer`, `number`, `text` or `flag` (true/false, 1/0).
    """

    name: str
    column: str = ""
    type: Literal["integer", "number", "text", "flag"] = "text"

    @property
    def source(self) -> str:
        """The column's name in the files."""
        return self.column or self.name


class TimeColumn(_Strict):
    """The period of a row.

    Attributes:
        name: Canonical name, for example `week`.
        column: Name in the files.
        label: Whether the date is the first (`start`) or the last (`end`) day of its period.
        format: A strptime format; ISO dates where left out.
    """

    name: str
    column: str = ""
    label: Literal["start", "end"] = "start"
    format: str | None = None

    @property
    def source(self) -> str:
        """The column's name in the files."""
        return self.column or self.name


class Target(_Strict):
    """The measure to forecast.

    Attributes:
        name: Canonical name, for example `turnover`.
        column: Name in the files.
        nonnegative: Forecasts and their bounds are never below zero (reported values may be).
        unit: What one unit is, for axes and documents, for example `EUR`.
    """

    name: str
    column: str = ""
    nonnegative: bool = True
    unit: str = ""

    @property
    def source(self) -> str:
        """The column's name in the files."""
        return self.column or self.name


class SeriesTable(_Strict):
    """The files that hold the target: one row for each series and period."""

    name: str
    keys: tuple[Column, ...] = Field(min_length=1)
    time: TimeColumn
    target: Target


class StaticTable(_Strict):
    """Attributes that do not change over time, such as a store's region.

    Attributes:
        name: Canonical name of the table.
        keys: The series keys that identify a row.
        key_columns: Names of those keys in these files, where they differ from the series table's.
        columns: The attributes.
        required: Rows of the series table whose key is not listed here are rejected.
    """

    name: str
    keys: tuple[str, ...] = Field(min_length=1)
    key_columns: Mapping[str, str] = Field(default_factory=dict)
    columns: tuple[Column, ...] = Field(min_length=1)
    required: bool = True


class CovariateTable(_Strict):
    """Values per period that are known for the periods to forecast, such as planned promotions."""

    name: str
    keys: tuple[str, ...] = ()
    key_columns: Mapping[str, str] = Field(default_factory=dict)
    time_column: str = ""
    columns: tuple[Column, ...] = Field(min_length=1)


class Frequency(_Strict):
    """How long a period is.

    Attributes:
        every: `week` or `day`.
        starts_on: First day of the week (weekly panels only).
    """

    every: Literal["week", "day"] = "week"
    starts_on: Weekday = "monday"

    @property
    def days(self) -> int:
        """Length of a period in days."""
        return 7 if self.every == "week" else 1

    @property
    def season(self) -> int:
        """Periods in a year, in whole weeks: 52 weeks, or 364 days so that weekdays agree."""
        return 52 if self.every == "week" else 364

    @property
    def cycle(self) -> int:
        """Periods in the short cycle: 7 days of a week; 1 where a period is a week."""
        return 1 if self.every == "week" else 7


class HolidayCalendar(_Strict):
    """A calendar of the `holidays` package.

    Attributes:
        country: ISO code, for example `FR`.
        subdivision: A part of the country with holidays of its own.
    """

    country: str
    subdivision: str | None = None


class PanelSpec(_Strict):
    """One retailer's data: what its files hold and what is to be forecast.

    Attributes:
        name: Name of the panel.
        horizon: Periods to forecast.
        missing: Texts that stand for a missing value, beside the empty one.
        levels: Keys or attributes by which series are added up, the reporting level first.
        frequency: Length and anchor of a period.
        series: The files that hold the target.
        static: Tables of attributes.
        covariates: Tables of values known ahead.
        holidays: The calendar, if any.
    """

    name: str
    horizon: int = Field(8, ge=1, le=50)
    missing: tuple[str, ...] = ("", "NA", "NaN", "null")
    levels: tuple[str, ...] = ()
    frequency: Frequency = Frequency()
    series: SeriesTable
    static: tuple[StaticTable, ...] = ()
    covariates: tuple[CovariateTable, ...] = ()
    holidays: HolidayCalendar | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = list(_cross_checks(self.model_dump()))
        if problems:
            raise PanelError(self.name, problems)
        return self

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """Canonical names of the series keys."""
        return tuple(key.name for key in self.series.keys)

    @property
    def time(self) -> str:
        """Canonical name of the time column."""
        return self.series.time.name

    @property
    def target(self) -> str:
        """Canonical name of the target."""
        return self.series.target.name

    @cached_property
    def level_names(self) -> tuple[str, ...]:
        """The levels, reporting level first; the keys from last to first where none is named."""
        return self.levels or tuple(reversed(self.keys))

    @property
    def report_level(self) -> str:
        """The level by which reports are grouped."""
        return self.level_names[0]

    @cached_property
    def tables(self) -> dict[str, dict[str, str]]:
        """For each table its columns, canonical name to name in the files."""
        keys = {key.name: key.source for key in self.series.keys}
        series = {
            **keys,
            self.time: self.series.time.source,
            self.target: self.series.target.source,
        }
        tables = {self.series.name: series}
        for static in self.static:
            own = {key: static.key_columns.get(key, keys[key]) for key in static.keys}
            tables[static.name] = own | {c.name: c.source for c in static.columns}
        for table in self.covariates:
            own = {key: table.key_columns.get(key, keys[key]) for key in table.keys}
            own[self.time] = table.time_column or self.series.time.source
            tables[table.name] = own | {c.name: c.source for c in table.columns}
        return tables

    @cached_property
    def digest(self) -> str:
        """A short fingerprint of everything in the panel; part of every data version."""
        return sha256(self.model_dump_json().encode()).hexdigest()[:12]


def default_panel() -> PanelSpec:
    """The panel of the public retail case study.

    Example:
        >>> default_panel().keys
        ('store', 'department')
    """
    return load_panel(None)


def load_panel(path: Path | None) -> PanelSpec:
    """Read a panel file.

    Args:
        path: A TOML file, or None for the default panel.

    Raises:
        PanelError: With everything that is wrong in the file.
    """
    source = str(path) if path else "panels/default.toml"
    try:
        text = (path or files("turnover_assets") / "panels" / "default.toml").read_text("utf-8")
        data = tomllib.loads(text)
    except OSError as error:
        raise PanelError(source, [("", f"cannot be read ({error.strerror})")]) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PanelError(source, [("", f"is not TOML: {error}")]) from None
    return parse_panel(data, source)


def parse_panel(data: dict[str, Any], source: str) -> PanelSpec:
    """Validate a panel given as plain data; see load_panel."""
    problems: list[tuple[str, str]] = []
    try:
        return PanelSpec.model_validate(data)
    except PanelError as error:
        problems.extend(error.problems)
    except ValidationError as error:
        for issue in error.errors():
            where = ".".join(str(part) for part in issue["loc"])
            problems.append((where, issue["msg"].removeprefix("Value error, ")))
        problems.extend(_cross_checks(data))
    raise PanelError(source, problems)


def _items(value: Any) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Number and content of each table of an array of tables; what is not one is left to pydantic."""
    if isinstance(value, list | tuple):
        yield from ((i, item) for i, item in enumerate(value) if isinstance(item, Mapping))


def _named(value: Any) -> list[str]:
    return [item["name"] for _, item in _items(value) if isinstance(item.get("name"), str)]


def _cross_checks(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Every rule that joins several fields, on plain data that may itself be incomplete."""
    series = data.get("series")
    series = series if isinstance(series, Mapping) else {}
    keys = _named(series.get("keys"))
    yield from _check_names(data, series, keys)
    yield from _check_tables(data, series)
    yield from _check_references(data, keys)
    yield from _check_files(data, series)
    yield from _check_calendar(data)


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
                    yield f"{kind}.{i}.keys", f"{key!r} is not a series key ({', '.join(keys) or 'none'})"
            for key in _mapped(table.get("key_columns")):
                if key not in own:
                    yield f"{kind}.{i}.key_columns", f"{key!r} is not among this table's keys"
            known += _named(table.get("columns")) if kind == "static" else []
    levels = _listed(data.get("levels"))
    for i, level in enumerate(levels):
        if level not in known:
            yield "levels", f"{level!r} is neither a series key nor an attribute ({', '.join(known)})"
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
