"""`turnover doctor`: is all well with the installation and the data home?

What belongs here: the command and how findings are shown. What does not: the checks (doctor).
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from turnover_assets.commands.console import err, plain_errors

if TYPE_CHECKING:
    from turnover_assets.doctor import Finding

COLOURS = {"ok": "green", "warning": "yellow", "problem": "bold red"}


class FindingsFormat(StrEnum):
    """How findings are given."""

    TABLE = "table"
    JSON = "json"


def doctor(
    deep: Annotated[
        bool, typer.Option("--deep", help="Also read every kept file, snapshot and model; takes longer.")
    ] = False,
    findings_format: Annotated[
        FindingsFormat, typer.Option("--format", help="Format.")
    ] = FindingsFormat.TABLE,
) -> None:
    """Check the installation and the data home; say what is wrong and what to do.

    Changes nothing, and may be used while runs are under way. Ends with 1 where there is a problem.
    """
    from turnover_assets.doctor import Patient, examine

    with plain_errors():
        found = list(examine(Patient.here(deep=deep)))
    if findings_format is FindingsFormat.JSON:
        typer.echo(json.dumps([asdict(finding) for finding in found], indent=2))
    else:
        Console(highlight=False).print(_table(found))
        err.print(_summary(found))
    if any(finding.level == "problem" for finding in found):
        raise typer.Exit(1)


def _table(found: "Sequence[Finding]") -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    for finding in found:
        remedy = f"\n→ {finding.remedy}" if finding.remedy else ""
        level = f"[{COLOURS[finding.level]}]{finding.level}[/]"
        table.add_row(level, finding.check, escape(finding.found + remedy))
    return table


def _summary(found: "Sequence[Finding]") -> str:
    counts = {level: sum(finding.level == level for finding in found) for level in ("problem", "warning")}
    told = [f"{count} {level}{'s' if count > 1 else ''}" for level, count in counts.items() if count]
    return f"{' and '.join(told)}." if told else "All is well."
