"""A finding: one thing that is wrong with the history, with the evidence for it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Literal

import pandas as pd

from turnover_assets.core.calendar import label_of
from turnover_assets.panel import PanelSpec

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


FINDING_COLUMNS = (
    "finding_id kind selector since until ongoing factor effect error strength remedy value rows sentence"
).split()


def selector_text(where: Mapping[str, Member]) -> str:
    """A selector in words: `department 127` or `store 30, department 88`.

    Example:
        >>> selector_text({"store": 30, "department": 88})
        'store 30, department 88'
    """
    return ", ".join(f"{name} {value}" for name, value in where.items())


def findings_table(panel: PanelSpec, findings: Sequence[Finding]) -> pd.DataFrame:
    """Findings as a table, the strongest first: FINDING_COLUMNS, `since` and `until` as dates."""
    rows = []
    for finding in sorted(findings, key=lambda f: (-f.strength, f.finding_id)):
        rows.append(
            asdict(finding)
            | {
                "finding_id": finding.finding_id,
                "selector": selector_text(finding.where),
                "since": label_of(panel, finding.since),
                "until": label_of(panel, finding.until),
            }
        )
    table = pd.DataFrame(rows, columns=FINDING_COLUMNS)
    kinds = {"factor": float, "effect": float, "error": float, "strength": float, "value": float}
    return table.astype(kinds | {"rows": int, "ongoing": bool})
