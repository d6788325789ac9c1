"""The steward's ledger: what people say is wrong with the history, and where detectors are mistaken.

What belongs here: the entries of a ledger, validated against the panel. What does not: reading and editing
the file (storage/ledger.py), and what follows from the entries (adjustments.py).
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import date, timedelta
from hashlib import sha256
from itertools import combinations
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from turnover_assets.core.anomalies.findings import Member
from turnover_assets.core.calendar import index_of, label_of
from turnover_assets.core.cleaning import LARGEST, SHOWN_TYPES, YEARS
from turnover_assets.errors import LedgerError
from turnover_assets.panel import PanelSpec

FACTORS = (1e-9, 1e9)  # sizes of a factor; beyond them it is a slip
LARGEST_INTEGER = 10**18 - 1  # of a key or attribute, as in files
_EXACT: dict[str, tuple[type, ...]] = {
    "integer": (int,),
    "number": (int, float),
    "text": (str,),
    "flag": (bool,),
}
_REMEDIES = ("factor", "value", "missing")


@dataclass(frozen=True)
class Entry:
    """One entry.

    Attributes:
        where: The members concerned, by series key or attribute; all must hold. Empty for all series.
        since: First period concerned (index).
        until: Last period concerned, inclusive; None where it goes on.
        reason: Why, for people.
        who: Who decided it.
        when: The day on which it was decided.
    """

    where: Mapping[str, Member]
    since: int
    until: int | None
    reason: str
    who: str
    when: date

    def covers(self, where: Mapping[str, Member]) -> bool:
        """Whether everything that another selector names lies within this one, by the words alone.

        An entry for store 12 covers store 12, department 3; one for region 3 does not cover store 12, since
        a selector does not say where stores are.
        """
        return self.where.items() <= where.items()

    def overlaps(self, since: int, until: int | None) -> bool:
        """Whether the entry has a period in common with those from `since` to `until`."""
        return (until is None or self.since <= until) and (self.until is None or since <= self.until)


@dataclass(frozen=True)
class Correction(Entry):
    """A steward's adjustment: `factor` (reported = factor x true), `value`, or neither: count as missing."""

    factor: float | None
    value: float | None

    @property
    def correction_id(self) -> str:
        """Twelve hexadecimal digits; the same content always gives the same ones."""
        content = json.dumps(asdict(self), sort_keys=True, default=str)
        return sha256(content.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Veto(Entry):
    """The detectors are mistaken here."""


@dataclass(frozen=True)
class Ledger:
    """All entries of a ledger, and the fingerprint of the file they came from."""

    corrections: tuple[Correction, ...] = ()
    vetoes: tuple[Veto, ...] = ()
    version: str = ""

    def known_by(self, day: date) -> "Ledger":
        """The ledger as it stood at the end of a day: only what had been decided by then."""
        return replace(
            self,
            corrections=tuple(entry for entry in self.corrections if entry.when <= day),
            vetoes=tuple(entry for entry in self.vetoes if entry.when <= day),
        )


class _Fields(BaseModel):
    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)
    where: dict[str, Any] = Field(default_factory=dict)
    everything: bool = Field(False, alias="all", strict=True)
    since: date = Field(strict=True)
    until: date | None = Field(None, strict=True)
    reason: str = Field(min_length=1)
    who: str = Field(min_length=1)
    when: date = Field(strict=True)


class _CorrectionFields(_Fields):
    factor: float | None = Field(None, strict=True)
    value: float | None = Field(None, strict=True, allow_inf_nan=False, ge=-LARGEST, le=LARGEST)
    missing: bool = Field(False, strict=True)


_KINDS: dict[str, type[_Fields]] = {"adjustment": _CorrectionFields, "veto": _Fields}
_MESSAGES = {  # in place of pydantic's, by the type of its error
    "date_type": "is not a date (write it without quotes, as 2016-01-09)",
    "extra_forbidden": "is no field of such an entry",
    "missing": "is left out",
    "string_too_short": "is empty",
}


def parse_ledger(data: Mapping[str, Any], panel: PanelSpec, source: str, today: date) -> Ledger:
    """Validate a ledger.

    Args:
        data: The ledger as it came from its file.
        panel: The panel, whose keys, attributes and periods the entries name.
        source: The file, for the message.
        today: No entry may have been decided after it; a day is allowed for time zones.

    Raises:
        LedgerError: With everything that is wrong, each with the number of its entry and the field.
    """
    unknown = "is not known; a ledger has [[adjustment]] and [[veto]]"
    problems = [(name, unknown) for name in sorted(data.keys() - _KINDS)]
    entries: dict[str, Correction | Veto] = {}
    for kind, fields in _KINDS.items():
        listed = data.get(kind, [])
        if not isinstance(listed, list) or not all(isinstance(item, Mapping) for item in listed):
            problems.append((kind, f"is not written as [[{kind}]], one such block for each entry"))
            continue
        for number, raw in enumerate(listed, start=1):
            place = f"{kind} {number}"
            found = [*_misfits(fields, raw), *_slips(kind, raw, panel, today)]
            problems += [(f"{place}, {field}" if field else place, what) for field, what in found]
            if not found:
                entries[place] = _entry(fields.model_validate(raw), panel)
    corrections = {place: entry for place, entry in entries.items() if isinstance(entry, Correction)}
    problems += _contradictions(corrections)
    if problems:
        raise LedgerError(source, problems)
    vetoes = tuple(entry for entry in entries.values() if isinstance(entry, Veto))
    return Ledger(tuple(corrections.values()), vetoes)


def selectable(panel: PanelSpec) -> dict[str, str]:
    """Type of each name that a selector may use: the series keys, then the attributes."""
    attributes = (column for table in panel.static for column in table.columns)
    return {column.name: column.type for column in (*panel.series.keys, *attributes)}


def _entry(fields: _Fields, panel: PanelSpec) -> Correction | Veto:
    types = selectable(panel)
    where = {
        name: float(fields.where[name]) if types[name] == "number" else fields.where[name]
        for name in types
        if name in fields.where
    }
    until = None if fields.until is None else index_of(panel, fields.until)
    common = (where, index_of(panel, fields.since), until, fields.reason, fields.who, fields.when)
    if isinstance(fields, _CorrectionFields):
        return Correction(*common, fields.factor, fields.value)
    return Veto(*common)


def _misfits(fields: type[_Fields], raw: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Fields that are unknown, left out or of another type."""
    try:
        fields.model_validate(raw)
    except ValidationError as error:
        for issue in error.errors():
            message = _MESSAGES.get(issue["type"], issue["msg"])
            yield ".".join(str(part) for part in issue["loc"]), message


def _slips(kind: str, raw: Mapping[str, Any], panel: PanelSpec, today: date) -> Iterator[tuple[str, str]]:
    """What is wrong with fields that are of the right type, each by itself and together."""
    yield from _where_slips(raw, panel)
    yield from _period_slips(raw, panel)
    if type(raw.get("when")) is date and raw["when"] > today + timedelta(days=1):
        yield "when", f"{raw['when']} lies in the future"
    if kind == "adjustment":
        yield from _remedy_slips(raw, panel)


def _where_slips(raw: Mapping[str, Any], panel: PanelSpec) -> Iterator[tuple[str, str]]:
    where, types = raw.get("where", {}), selectable(panel)
    if not isinstance(where, Mapping):
        return
    if not where and raw.get("all") is not True:
        yield "where", "names nothing; name what is concerned, or write all = true for all series"
    if where and raw.get("all") is True:
        yield "all", "stands beside a where; keep one of the two"
    for name, member in where.items():
        if name not in types:
            yield "where", f"{name!r} is neither a series key nor an attribute ({', '.join(types)})"
        elif type(member) not in _EXACT[types[name]]:
            yield "where", f"{name} is {SHOWN_TYPES[types[name]]} in this panel, not {member!r}"
        elif type(member) is int and abs(member) > LARGEST_INTEGER:
            yield "where", f"{name} has more than 18 digits"


def _period_slips(raw: Mapping[str, Any], panel: PanelSpec) -> Iterator[tuple[str, str]]:
    days = {name: raw[name] for name in ("since", "until") if type(raw.get(name)) is date}
    for name, day in days.items():
        if not YEARS[0] <= day.year <= YEARS[1]:
            yield name, f"{day} is not between {YEARS[0]} and {YEARS[1]}"
        elif nearest := _nearest_labels(panel, day):
            yield name, f"{day} is no {panel.time}; the nearest are {nearest[0]} and {nearest[1]}"
    if len(days) == 2 and days["until"] < days["since"]:
        yield "until", f"{days['until']} lies before since, {days['since']}"


def _nearest_labels(panel: PanelSpec, day: date) -> tuple[date, date] | None:
    """The labels before and after a day; None where it is one itself."""
    try:
        index_of(panel, day)
    except ValueError:
        length = panel.frequency.days
        offset = (day - label_of(panel, 0)).days % length
        return day - timedelta(days=offset), day + timedelta(days=length - offset)
    return None


def _remedy_slips(raw: Mapping[str, Any], panel: PanelSpec) -> Iterator[tuple[str, str]]:
    given = [name for name in _REMEDIES if raw.get(name, False) is not False]
    if len(given) != 1:
        what = f"gives {' and '.join(given)}" if given else "gives no remedy"
        yield "", f"{what}; give one of factor, value and missing = true"
    factor = raw.get("factor")
    if isinstance(factor, int | float) and not FACTORS[0] <= abs(factor) <= FACTORS[1]:
        yield "factor", f"{factor} is out of range (a size between {FACTORS[0]:g} and {FACTORS[1]:g})"
    if "value" in raw and not {*panel.keys} <= {*_mapping(raw.get("where"))}:
        yield "value", f"is for one series; name all of {', '.join(panel.keys)} in where, or give a factor"
    if "value" in raw and "until" not in raw:
        yield "value", "needs an until: no value holds for ever"


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _contradictions(corrections: Mapping[str, Correction]) -> Iterator[tuple[str, str]]:
    """Two entries that say, each in its own way, what the same reported values should be."""
    for (place, one), (other, two) in combinations(corrections.items(), 2):
        if one.where == two.where and one.overlaps(two.since, two.until):
            yield other, f"concerns the same as {place} in some periods; keep one, or part the periods"
