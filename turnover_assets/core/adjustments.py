"""Adjustments: what is done about findings and the steward's entries, and the adjusted values it gives.

What belongs here: deciding which adjustment applies, and the SQL that applies them beside the reported
values. What does not: finding defects (anomalies), reading the ledger (storage/ledger.py).

Invariants:
    - reported values are never altered, and no row is added or removed;
    - on a row that a steward's entry covers, no detector's adjustment applies;
    - the result does not depend on the order of findings or entries.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import date
from itertools import groupby
from operator import methodcaller
from typing import Any, Literal

import duckdb
import pandas as pd

from turnover_assets.core.anomalies.findings import Finding, Member, Remedy, selector_text
from turnover_assets.core.calendar import index_of, label_of
from turnover_assets.core.ledger import Correction, Entry, Ledger
from turnover_assets.panel import PanelSpec

ADJUSTMENTS = "cleaned.adjustments"
FACTOR_IN_FORCE = "factor_in_force"
Status = Literal["applied", "proposed", "vetoed", "overruled"]
STATUSES: tuple[Status, ...] = ("applied", "proposed", "vetoed", "overruled")
# The columns of cleaned.adjustments, with their types.
COLUMNS = {
    "adjustment_id": "VARCHAR",
    "status": "VARCHAR",
    "origin": "VARCHAR",
    "kind": "VARCHAR",
    "selector": "VARCHAR",
    "members": "VARCHAR",
    "since": "DATE",
    "until": "DATE",
    "factor": "DOUBLE",
    "value": "DOUBLE",
    "reason": "VARCHAR",
    "who": "VARCHAR",
    "decided_on": "DATE",
    "effect": "DOUBLE",
    "error": "DOUBLE",
    "strength": "DOUBLE",
    "rows": "BIGINT",
    "finding_id": "VARCHAR",
}


@dataclass(frozen=True)
class Adjustment:
    """One repair of the history, applied or not.

    Attributes:
        adjustment_id: The finding's id, or the digest of the steward's entry.
        status: `applied`; `proposed` (too weak to apply by itself); `vetoed` by the ledger; `overruled` (a
            steward's entry covers all of it).
        origin: `detector` or `steward`.
        kind: The finding's kind; of a steward's entry its remedy.
        where: The members concerned, all of which must hold; empty for all series.
        since: First period (index).
        until: Last period, inclusive; None where it goes on.
        factor: Reported over true value, to divide by; None where the remedy is another one.
        value: The value that replaces the reported one; where both are None the value counts as missing.
        reason: The finding's sentence, or the steward's reason.
        who: The steward who decided (also on a veto); None where nobody did.
        decided_on: When that was.
        effect: The finding's effect, see Finding.
        error: The standard error of it.
        strength: The finding's strength.
        rows: Rows that it changes; where it is not applied, rows that the finding concerns.
        finding_id: The finding, also of a steward's entry on just the same members.
    """

    adjustment_id: str
    status: Status
    origin: Literal["detector", "steward"]
    kind: str
    where: Mapping[str, Member]
    since: int
    until: int | None
    factor: float | None
    value: float | None
    reason: str
    who: str | None
    decided_on: date | None
    effect: float | None
    error: float | None
    strength: float | None
    rows: int
    finding_id: str | None

    @property
    def remedy(self) -> Remedy:
        """What it does to a value."""
        if self.factor is not None:
            return "divide"
        return "empty" if self.value is None else "replace"


def decide(findings: Iterable[Finding], ledger: Ledger, strength: float) -> list[Adjustment]:
    """What is to be done about the findings, given the ledger.

    Args:
        findings: What the detectors found; those without a remedy give no adjustment.
        ledger: The steward's entries, for a backtest those known by its cutoff (Ledger.known_by).
        strength: Strength of evidence from which a detector's adjustment applies by itself.

    Returns:
        All adjustments, in an order that does not depend on that of the findings and entries.
    """
    return settle((_detected(finding) for finding in findings if _has_remedy(finding)), ledger, strength)


def settle(detected: Iterable[Adjustment], ledger: Ledger, strength: float) -> list[Adjustment]:
    """Like decide, from adjustments of detectors, whatever was decided on them before."""
    strongest = {a.adjustment_id: a for a in sorted(detected, key=lambda a: (a.strength or 0.0, a.rows))}
    adjustments = [_ruled(adjustment, ledger, strength) for adjustment in strongest.values()]
    adjustments += [_decided(entry, list(strongest.values())) for entry in ledger.corrections]
    return sorted(adjustments, key=lambda a: (STATUSES.index(a.status), a.since, a.adjustment_id))


def _has_remedy(finding: Finding) -> bool:
    given = {"divide": bool(finding.factor), "replace": finding.value is not None, "empty": True}
    return given.get(finding.remedy, False)


def _detected(finding: Finding) -> Adjustment:
    divides, replaces = finding.remedy == "divide", finding.remedy == "replace"
    return Adjustment(
        adjustment_id=finding.finding_id,
        status="proposed",
        origin="detector",
        kind=finding.kind,
        where=finding.where,
        since=finding.since,
        until=None if finding.ongoing else finding.until,
        factor=finding.factor if divides else None,
        value=finding.value if replaces else None,
        reason=finding.sentence,
        who=None,
        decided_on=None,
        effect=finding.effect,
        error=finding.error,
        strength=finding.strength,
        rows=finding.rows,
        finding_id=finding.finding_id,
    )


def _ruled(adjustment: Adjustment, ledger: Ledger, strength: float) -> Adjustment:
    """A detector's adjustment with the status that the ledger and the evidence give it."""
    vetoes = [veto for veto in ledger.vetoes if veto.overlaps(adjustment.since, adjustment.until)]
    entries = [entry for entry in ledger.corrections if _spans(entry, adjustment)]
    rulings: tuple[tuple[Status, Sequence[Entry]], ...] = (("vetoed", vetoes), ("overruled", entries))
    for status, ruling in rulings:
        covering = [entry for entry in ruling if entry.covers(adjustment.where)]
        if covering:
            first = min(covering, key=lambda entry: (entry.when, entry.who))
            return replace(adjustment, status=status, who=first.who, decided_on=first.when)
    is_strong = adjustment.strength is not None and adjustment.strength >= strength
    return replace(adjustment, status="applied" if is_strong else "proposed", who=None, decided_on=None)


def _spans(entry: Correction, adjustment: Adjustment) -> bool:
    """Whether the entry's period holds all of the adjustment's."""
    ends_within = entry.until is None or (adjustment.until is not None and adjustment.until <= entry.until)
    return entry.since <= adjustment.since and ends_within


def _decided(entry: Correction, detected: Sequence[Adjustment]) -> Adjustment:
    """The adjustment of a steward's entry, with the evidence of the finding on the same members."""
    same = [a for a in detected if a.where == entry.where and entry.overlaps(a.since, a.until)]
    finding = max(same, key=lambda a: (a.strength or 0.0, a.adjustment_id), default=None)
    made = Adjustment(
        adjustment_id=entry.correction_id,
        status="applied",
        origin="steward",
        kind="",
        where=entry.where,
        since=entry.since,
        until=entry.until,
        factor=entry.factor,
        value=entry.value,
        reason=entry.reason,
        who=entry.who,
        decided_on=entry.when,
        effect=finding.effect if finding else None,
        error=finding.error if finding else None,
        strength=finding.strength if finding else None,
        rows=0,
        finding_id=finding.finding_id if finding else None,
    )
    return replace(made, kind=made.remedy)


def adjust(
    con: duckdb.DuckDBPyConnection,
    panel: PanelSpec,
    adjustments: Iterable[Adjustment],
    last: int | None = None,
) -> None:
    """Make the temporary table `adjusted` from the cleaned series table and the applied adjustments.

    Factors on one row multiply; then a value replaces, the strongest finding's where there are several; and
    whatever is to count as missing is NULL.

    Args:
        con: Connection to the warehouse.
        panel: The panel.
        adjustments: Those that are not applied are passed over.
        last: Last period to take; all where left out.

    The table has the series keys, `t`, `<target>` (reported), `<target>_adjusted` and `adjustment_id` (of all
    that apply to the row, in order, joined by `+`; NULL where none does), a row for each cleaned row.
    """
    _prepare(con, panel, [a for a in adjustments if a.status == "applied"])
    name, target, key = panel.series.name, panel.target, [*panel.keys, "t"]
    up_to = "" if last is None else f"WHERE r.t <= {int(last)}"
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE adjusted AS WITH hits AS ("
        f"SELECT {_of('r', key)}, list_sort(list(d.adjustment_id)) AS adjustment_id "
        "FROM adjustment_series AS s JOIN adjustment_terms AS d ON d.adjustment_id = s.adjustment_id "
        f"JOIN cleaned.{name} AS r ON {_equal('r', 's', panel.keys)} "
        f"AND r.t >= d.since AND (d.until IS NULL OR r.t <= d.until) {up_to} GROUP BY {_of('r', key)}), "
        f"terms AS ({_terms_sql('SELECT DISTINCT adjustment_id FROM hits')}) "
        f"SELECT {_of('r', key)}, r.{target}, CASE WHEN c.is_empty THEN NULL "
        f"ELSE coalesce(c.value, r.{target} / c.factor, r.{target}) END AS {target}_adjusted, "
        f"c.ids AS adjustment_id FROM cleaned.{name} AS r LEFT JOIN hits AS h ON {_equal('r', 'h', key)} "
        f"LEFT JOIN terms AS c ON c.together = h.adjustment_id {up_to}"
    )


def _terms_sql(lists: str) -> str:
    """SQL for what the adjustments of each list (of ids) do together, once for all rows that they meet on.

    A steward's entry puts detectors' adjustments out of force. Factors are multiplied in the order of the
    ids, so that the last bit of the product is always the same.
    """
    return (
        "SELECT u.together, bool_or(d.is_empty) AS is_empty, "
        "first(d.value ORDER BY d.strength DESC, d.adjustment_id) FILTER (d.value IS NOT NULL) AS value, "
        "list_product(list(d.factor ORDER BY d.adjustment_id) FILTER (d.factor IS NOT NULL)) AS factor, "
        "string_agg(d.adjustment_id, '+' ORDER BY d.adjustment_id) AS ids "
        "FROM (SELECT o.adjustment_id AS together, unnest(o.adjustment_id) AS id FROM "
        f"({lists}) AS o) AS u JOIN adjustment_terms AS d ON d.adjustment_id = u.id "
        "WHERE d.is_steward OR NOT list_has_any(u.together, "
        "(SELECT coalesce(list(adjustment_id), []) FROM adjustment_terms WHERE is_steward)) "
        "GROUP BY u.together"
    )


def apply(con: duckdb.DuckDBPyConnection, panel: PanelSpec, adjustments: Iterable[Adjustment]) -> None:
    """Write `<target>_adjusted` and `adjustment_id` of every row of the cleaned series table; see adjust."""
    adjust(con, panel, adjustments)
    name, value = panel.series.name, f"{panel.target}_adjusted"
    con.execute(
        f"UPDATE cleaned.{name} AS r SET {value} = a.{value}, adjustment_id = a.adjustment_id "
        f"FROM adjusted AS a WHERE {_equal('r', 'a', [*panel.keys, 't'])} AND "
        f"(r.{value} IS DISTINCT FROM a.{value} OR r.adjustment_id IS DISTINCT FROM a.adjustment_id)"
    )


def in_force(
    con: duckdb.DuckDBPyConnection, panel: PanelSpec, adjustments: Iterable[Adjustment], last: int
) -> pd.DataFrame:
    """The scale in which each series is reported at period `last`, and is expected to be after it.

    Values and what counts as missing have no scale, so they play no part.

    Returns:
        For each series its keys and `factor_in_force`: the product of the factors that hold at `last` and
        after it (1 where there is none), by which forecasts of adjusted values are multiplied.
    """
    _prepare(con, panel, [a for a in adjustments if a.status == "applied" and a.remedy == "divide"])
    return con.execute(
        f"WITH hits AS (SELECT {_of('s', panel.keys)}, list_sort(list(d.adjustment_id)) AS adjustment_id "
        "FROM adjustment_series AS s JOIN adjustment_terms AS d ON d.adjustment_id = s.adjustment_id "
        f"WHERE d.since <= $last AND (d.until IS NULL OR d.until > $last) GROUP BY {_of('s', panel.keys)}), "
        f"terms AS ({_terms_sql('SELECT DISTINCT adjustment_id FROM hits')}) "
        f"SELECT {_of('r', panel.keys)}, coalesce(c.factor, 1.0) AS {FACTOR_IN_FORCE} "
        f"FROM (SELECT DISTINCT {', '.join(panel.keys)} FROM cleaned.{panel.series.name}) AS r "
        f"LEFT JOIN hits AS h ON {_equal('r', 'h', panel.keys)} "
        f"LEFT JOIN terms AS c ON c.together = h.adjustment_id ORDER BY {_of('r', panel.keys)}",
        {"last": last},
    ).df()


def _of(alias: str, columns: Iterable[str]) -> str:
    return ", ".join(f"{alias}.{column}" for column in columns)


def _equal(one: str, other: str, columns: Iterable[str]) -> str:
    return " AND ".join(f"{one}.{column} = {other}.{column}" for column in columns)


def _prepare(con: duckdb.DuckDBPyConnection, panel: PanelSpec, applied: Sequence[Adjustment]) -> None:
    """Make the temporary tables adjustment_terms (one row each) and adjustment_series (those concerned)."""
    con.execute(
        "CREATE OR REPLACE TEMP TABLE adjustment_terms (adjustment_id VARCHAR, is_steward BOOLEAN, "
        "is_empty BOOLEAN, since INTEGER, until INTEGER, factor DOUBLE, value DOUBLE, strength DOUBLE)"
    )
    terms = [
        (
            a.adjustment_id,
            a.origin == "steward",
            a.remedy == "empty",
            a.since,
            a.until,
            a.factor,
            a.value,
            a.strength,
        )
        for a in applied
    ]
    if terms:
        con.executemany(f"INSERT INTO adjustment_terms VALUES ({', '.join('?' * 8)})", terms)
    keys = ", ".join(panel.keys)
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE adjustment_series AS SELECT {keys}, '' AS adjustment_id "
        f"FROM cleaned.{panel.series.name} WHERE false"
    )
    for names, chosen in groupby(sorted(applied, key=_names), key=_names):
        members = pd.DataFrame([{**a.where, "adjustment_id": a.adjustment_id} for a in chosen])
        con.register("adjustment_members", members)
        condition = _equal("s", "m", names) or "true"
        con.execute(
            f"INSERT INTO adjustment_series SELECT {_of('s', panel.keys)}, m.adjustment_id "
            f"FROM ({series_attributes_sql(panel)}) AS s JOIN adjustment_members AS m ON {condition}"
        )
        con.unregister("adjustment_members")


def _names(adjustment: Adjustment) -> tuple[str, ...]:
    return tuple(sorted(adjustment.where))


def series_attributes_sql(panel: PanelSpec) -> str:
    """SQL for every series: its keys and its attributes."""
    joins = " ".join(
        f"LEFT JOIN cleaned.{table.name} USING ({', '.join(table.keys)})" for table in panel.static
    )
    attributes = [column.name for table in panel.static for column in table.columns]
    keys = ", ".join(panel.keys)
    return (
        f"SELECT {', '.join([*panel.keys, *attributes])} FROM "
        f"(SELECT DISTINCT {keys} FROM cleaned.{panel.series.name}) {joins}"
    )


def adjustments_table(panel: PanelSpec, adjustments: Iterable[Adjustment]) -> pd.DataFrame:
    """Adjustments as a table with COLUMNS, periods as the dates that label them."""
    rows = [
        asdict(a)
        | {
            "selector": selector_text(a.where) or "all series",
            "members": json.dumps(dict(a.where), default=methodcaller("item"), ensure_ascii=False),
            "since": label_of(panel, a.since),
            "until": None if a.until is None else label_of(panel, a.until),
        }
        for a in adjustments
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS), dtype=object)


def write_adjustments(
    con: duckdb.DuckDBPyConnection, panel: PanelSpec, adjustments: Iterable[Adjustment]
) -> None:
    """Make the table cleaned.adjustments, with the rows that each changed; `apply` has run before."""
    changed = dict(
        con.execute(
            "SELECT u.id, count(*) FROM (SELECT unnest(string_split(adjustment_id, '+')) AS id "
            f"FROM cleaned.{panel.series.name} WHERE adjustment_id IS NOT NULL) AS u GROUP BY u.id"
        ).fetchall()
    )
    counted = [
        replace(a, rows=changed.get(a.adjustment_id, 0)) if a.status == "applied" else a for a in adjustments
    ]
    columns = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
    con.execute(f"CREATE OR REPLACE TABLE {ADJUSTMENTS} ({columns})")
    if counted:
        values = [
            [_plain(v) for v in row] for row in adjustments_table(panel, counted).itertuples(index=False)
        ]
        con.executemany(f"INSERT INTO {ADJUSTMENTS} VALUES ({', '.join('?' * len(COLUMNS))})", values)


def read_adjustments(panel: PanelSpec, table: pd.DataFrame) -> list[Adjustment]:
    """The adjustments in a table as write_adjustments made it, for example a published one."""
    adjustments = []
    for row in table.to_dict("records"):
        values: dict[str, Any] = {str(name): _plain(value) for name, value in row.items()}
        days = {name: _day(values[name]) for name in ("since", "until", "decided_on")}
        periods = {name: days[name] and index_of(panel, days[name]) for name in ("since", "until")}
        where = json.loads(values["members"])
        values |= {"where": where, "decided_on": days["decided_on"], **periods}
        adjustments.append(Adjustment(**{field.name: values[field.name] for field in fields(Adjustment)}))
    return adjustments


def _plain(value: Any) -> Any:
    """None for whatever stands for a missing value in a frame."""
    return None if pd.isna(value) else value


def _day(value: Any) -> Any:
    return None if value is None else pd.Timestamp(value).date()
