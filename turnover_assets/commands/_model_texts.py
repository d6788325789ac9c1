"""How registered versions read: as tables and texts for people, as csv and JSON for programs.

What belongs here: facts turned into text. What does not: gathering them (storage/model_versions.py), and
arguments and output (models.py).
"""

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from turnover_assets.commands.console import PIPED_WIDTH
from turnover_assets.storage.model_versions import ModelVersionDetails, ModelVersionFacts


def as_table(versions: list[ModelVersionFacts]) -> str:
    """Versions for people, newest first."""
    names = ("version", "", "candidate", "trained to", "registered", "WAPE", "bias", "in 80 %", "in 95 %")
    shown = Table(box=None, pad_edge=False)
    for name in names:
        shown.add_column(name, no_wrap=True, justify="right" if name in names[5:] else "left")
    shown.add_column("decision", overflow="fold")
    for facts in reversed(versions):
        shown.add_row(
            str(facts.version),
            ", ".join(facts.aliases),
            escape(facts.candidate),
            facts.cutoff,
            f"{facts.created:%Y-%m-%d}",
            *_figures(facts),
            escape("\n".join(_told(facts))),
        )
    return _rendered(shown)


def _figures(facts: ModelVersionFacts) -> Iterator[str]:
    """WAPE, bias and coverages; empty where they were not measured."""
    yield "" if facts.wape is None else f"{facts.wape:.2%}"
    yield "" if facts.bias is None else f"{facts.bias:+.2%}"
    for coverage in (facts.coverage_80, facts.coverage_95):
        yield "" if coverage is None else f"{coverage:.1%}"


def _told(facts: ModelVersionFacts) -> Iterator[str]:
    """What was decided on a version, by the gate and by hand."""
    if facts.decision:
        yield f"{facts.decision}: {facts.reason}".removesuffix(": ")
    if facts.champion_since and (facts.promoted_by != "gate" or not facts.decision):
        until = f" until {facts.champion_until:%Y-%m-%d}" if facts.champion_until else ""
        since = f"champion since {facts.champion_since:%Y-%m-%d}{until} by {facts.promoted_by}"
        yield f"{since}: {facts.promotion_reason}".removesuffix(": ")


def _rendered(table: Table) -> str:
    text = io.StringIO()
    terminal = Console()
    width = terminal.width if terminal.is_terminal else PIPED_WIDTH
    Console(file=text, width=width, highlight=False).print(table)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n"


def as_csv(versions: list[ModelVersionFacts]) -> str:
    """Versions as csv, oldest first."""
    text = io.StringIO()
    names = [field.name for field in fields(ModelVersionFacts)]
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    for facts in versions:
        writer.writerow(_plain(facts) | {"aliases": " ".join(facts.aliases)})
    return text.getvalue()


def as_json(versions: list[ModelVersionFacts]) -> str:
    """Versions as JSON, oldest first."""
    return json.dumps([_plain(facts) for facts in versions], indent=2) + "\n"


def _plain(facts: Any) -> dict[str, Any]:
    """A dataclass as JSON and csv hold it."""
    return {name: _value(value) for name, value in asdict(facts).items()}


def _value(value: Any) -> Any:
    """Times as text; what is no number as nothing, since JSON has no word for it."""
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    return None if isinstance(value, float) and not math.isfinite(value) else value


def details_as_text(found: ModelVersionDetails) -> str:
    """A version for people."""
    return "\n".join(_details(found)) + "\n"


def _details(found: ModelVersionDetails) -> Iterator[str]:
    facts = found.facts
    yield f"Model version {facts.version}{' (' + ', '.join(facts.aliases) + ')' if facts.aliases else ''}"
    told = {
        "candidate": facts.candidate,
        "trained to": facts.cutoff,
        "registered": f"{facts.created:%Y-%m-%d %H:%M} UTC",
        "recipe": facts.recipe,
        "decision": f"{facts.decision}: {facts.reason}" if facts.decision else "",
    }
    yield from _lines(told)
    for change in found.changes:
        became = f"{change.at:%Y-%m-%d %H:%M} UTC: {change.action} by {change.by}"
        yield f"  {became}: {change.reason}".removesuffix(": ")
    yield from ("", "Figures", *_lines({name: f"{value:.6g}" for name, value in found.metrics.items()}))
    if found.checks is not None:
        yield from ("", "Checks of the gate")
        yield from (f"  {line}" for line in found.checks.to_string(index=False).splitlines())
    yield from ("", "Parameters", *_lines(found.parameters))


def _lines(facts: Mapping[str, str]) -> Iterator[str]:
    told = {name: text for name, text in sorted(facts.items()) if text}
    width = max(map(len, told), default=0)
    yield from (f"  {name:<{width}}  {text}" for name, text in told.items())


def details_as_json(found: ModelVersionDetails) -> str:
    """A version for programs."""
    checks = None if found.checks is None else json.loads(found.checks.to_json(orient="records"))
    facts = {
        **_plain(found.facts),
        "metrics": {name: _value(value) for name, value in found.metrics.items()},
        "parameters": found.parameters,
        "checks": checks,
        "changes": [_plain(change) for change in found.changes],
    }
    return json.dumps(facts, indent=2) + "\n"
