"""A finding: one thing that is wrong with the history, with the evidence for it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Literal

import duckdb
import pandas as pd

from turnover_assets.core.calendar import label_of
from turnover_assets.panel import PanelSpec

FINDINGS = "cleaned.findings"
UNCONFIRMED = 3.0  # strength that a finding stays below where no other series bears it out
FindingKind = Literal["point", "block", "zeros", "missing", "stopped"]
Remedy = Literal["divide", "replace", "empty", "none"]
Member = int | float | str | bool


@dataclass(frozen=True)
class Finding:
    """One defect of the history.

    Attributes:
        kind: `point` (single values out of all proportion), `block` (a whole group of series at another
            level from one period to the next), `zeros` (zeros that stand for missing values), `missing`
            (periods of a live series without a row), `stopped` (a series that no longer reports).
        where: What is concerned: one member of a level (`{"department": 127}`) or one series (all keys).
        since: First period concerned (index).
        until: Last period concerned, inclusive; where `ongoing`, the last period known.
        ongoing: Whether it goes on at the last period known.
        factor: Reported value over expected value; None where there is no such ratio.
        effect: Natural logarithm of |factor|, the effect size; NaN where there is none.
        error: Standard error of `effect`.
        strength: Evidence on one scale for all kinds: effect over its error, limited by what siblings and
            other years say; the higher, the surer.
        remedy: What mends it: `divide` by the factor, `replace` by `value`, `empty` (count as missing), or
            `none` (nothing to change; someone should look).
        value: The expected value that replaces the reported one, for `replace`.
        rows: Reported values concerned.
        sentence: The finding in words for a person.
    """

    kind: FindingKind
    where: Mapping[str, Member]
    since: int
    until: int
    ongoing: bool
    factor: float | None
    effect: float
    error: float
    strength: float
    remedy: Remedy
    value: float | None
    rows: int
    sentence: str

    @property
    def finding_id(self) -> str:
        """Twelve hexadecimal digits; the same kind, place and beginning always give the same ones."""
        place = ",".join(f"{name}={value}" for name, value in sorted(self.where.items()))
        return sha256(f"{self.kind}|{place}|{self.since}".encode()).hexdigest()[:12]


# The columns of cleaned.findings, with their types.
COLUMNS = {
    "finding_id": "VARCHAR",
    "kind": "VARCHAR",
    "selector": "VARCHAR",
    "members": "VARCHAR",
    "since": "DATE",
    "until": "DATE",
    "ongoing": "BOOLEAN",
    "factor": "DOUBLE",
    "effect": "DOUBLE",
    "error": "DOUBLE",
    "strength": "DOUBLE",
    "remedy": "VARCHAR",
    "value": "DOUBLE",
    "rows": "BIGINT",
    "sentence": "VARCHAR",
}


def unconfirmed(strength: float) -> float:
    """Strength of a finding that no other series bears out: in order, but always below UNCONFIRMED.

    What happens to one series alone may be real, however clear it is: works, a move, another assortment. So
    it is proposed and not applied by itself.
    """
    return UNCONFIRMED * strength / (UNCONFIRMED + strength)


def selector_text(where: Mapping[str, Member]) -> str:
    """A selector in words: `department 127` or `store 30, department 88`.

    Example:
        >>> selector_text({"store": 30, "department": 88})
        'store 30, department 88'
    """
    return ", ".join(f"{name} {value}" for name, value in where.items())


def findings_table(panel: PanelSpec, findings: Sequence[Finding]) -> pd.DataFrame:
    """Findings as a table, the strongest first: COLUMNS, `since` and `until` as dates, `members` as JSON."""
    ordered = sorted(findings, key=lambda finding: (-finding.strength, finding.finding_id))
    rows = [
        asdict(finding)
        | {
            "finding_id": finding.finding_id,
            "selector": selector_text(finding.where),
            "members": json.dumps(dict(finding.where)),
            "since": label_of(panel, finding.since),
            "until": label_of(panel, finding.until),
        }
        for finding in ordered
    ]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return table.astype({name: float for name, kind in COLUMNS.items() if kind == "DOUBLE"})


def write_findings(con: duckdb.DuckDBPyConnection, panel: PanelSpec, findings: Sequence[Finding]) -> None:
    """Write cleaned.findings anew, the strongest first."""
    con.register("found", findings_table(panel, findings))
    typed = ", ".join(
        f"CASE WHEN isnan({name}) THEN NULL ELSE {name} END AS {name}"
        if kind == "DOUBLE"
        else f"CAST({name} AS {kind}) AS {name}"
        for name, kind in COLUMNS.items()
    )
    con.execute(f"CREATE OR REPLACE TABLE {FINDINGS} AS SELECT {typed} FROM found")
    con.unregister("found")
