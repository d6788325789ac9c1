"""What one retailer's data looks like: a PanelSpec, read from a TOML file.

What belongs here: names, columns, types, frequency, levels, covariates, calendar. What does not: rules that
join several fields (panel_rules.py), anything that reads data, and any retailer's own names (those stand in
panels/*.toml only).
"""

import tomllib
from collections.abc import Mapping
from functools import cached_property
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from turnover_assets.errors import PanelError
from turnover_assets.panel_hints import unknown_field
from turnover_assets.panel_rules import cross_checks

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
        problems = list(cross_checks(self.model_dump()))
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
            what = issue["msg"].removeprefix("Value error, ")
            if issue["type"] == "extra_forbidden":
                what = unknown_field(PanelSpec, issue["loc"])
            problems.append((where, what))
        problems.extend(cross_checks(data))
    raise PanelError(source, problems)
