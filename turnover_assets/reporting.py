"""What `turnover run` shows: a line for each asset while it works, and a table of what changed.

What belongs here: rich output. What does not: deciding anything.
"""

import math
import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.markup import escape
from rich.status import Status

from turnover_assets.core.adjustments import STATUSES
from turnover_assets.runner import Outcome
from turnover_assets.settings import Settings

REASONS_SHOWN = 10


class LiveProgress:
    """One line for each asset once it is done, with its time, and a spinner on what is under way."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status: Status = console.status("looking for new files")
        self._began: dict[str, float] = {}

    def __enter__(self) -> Self:
        self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._status.stop()

    def __call__(self, news: str, text: str) -> None:
        """Take in news of a run; see embedded.Progress."""
        if news == "start":
            self._began[text] = time.perf_counter()
            self._status.update(text)
        elif news == "done":
            seconds = time.perf_counter() - self._began.pop(text, time.perf_counter())
            self._console.print(f"[green]✓[/] {escape(text):<44} {seconds:6.1f} s")
        elif news == "wait":
            self._console.print(f"[yellow]…[/] {escape(text)}")
        else:
            self._status.update(escape(text))


def print_outcome(console: Console, settings: Settings, outcome: Outcome) -> None:
    """The account of a run: what landed, what was published, and where it is."""
    if not outcome.changed:
        left = ", but for the files refused" if outcome.refused_before else ""
        console.print(f"Nothing new: everything is up to date{left}.")
    for record in outcome.refused:
        console.print(f"[red]refused[/] {escape(record.name)}: {escape(record.reason or '')}", soft_wrap=True)
    for record in outcome.refused_before:
        shown = f"{escape(record.name)}: {escape(record.reason or '')}"
        console.print(f"[yellow]refused earlier[/] {shown}", soft_wrap=True)
    if outcome.undelivered:
        console.print(f"[red]not delivered[/] {escape(outcome.undelivered)}", soft_wrap=True)
    for name, value in _lines(settings, outcome):
        console.print(f"{name:<11}{escape(value)}", soft_wrap=True)  # a folded path cannot be copied
    _print_rejected(console, outcome)


def outcome_facts(outcome: Outcome) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The same account for programs: level, message and facts of each line."""
    for record in (*outcome.refused, *outcome.refused_before):
        yield "WARNING", f"refused {record.name}: {record.reason}", {"file": record.name}
    if outcome.undelivered:
        yield "WARNING", f"not delivered: {outcome.undelivered}", {}
    facts: dict[str, Any] = {
        "files_landed": len(outcome.accepted),
        "files_refused": len(outcome.refused),
        "files_known": len(outcome.duplicates),
        "rows_landed": sum(record.rows for record in outcome.accepted),
        "published": outcome.refreshed,
        "training": outcome.training or None,
        "delivered": ", ".join(outcome.delivered) or None,
    }
    if outcome.snapshot is not None:
        told = outcome.snapshot.facts
        facts |= {name: told.get(name) for name in ("cutoff", "last_period", "series", "rejected_rows")}
        facts |= {"model_version": told["model"]["version"], "snapshot": outcome.snapshot.name}
    yield "INFO", "up to date" if outcome.changed else "nothing new, everything is up to date", facts


def _lines(settings: Settings, outcome: Outcome) -> list[tuple[str, str]]:
    """What the account says, each line with its name."""
    lines = [("Files", _files(outcome))]
    if outcome.unfed:
        lines.append(("Lacking", f"no file of {', '.join(outcome.unfed)} has landed: its columns are empty"))
    if outcome.snapshot is not None:
        lines += _facts(settings, outcome.snapshot.facts, outcome)
        if outcome.training:
            lines.append(("Training", outcome.training))
        lines += _repairs(outcome)
        lines.append(("Published", str(outcome.snapshot.folder)))
        lines += [("Delivered", place) for place in outcome.delivered]
        lines.append(("Read it", "turnover export forecasts --output forecasts.csv"))
    return lines


def _files(outcome: Outcome) -> str:
    rows = sum(record.rows for record in outcome.accepted)
    text = f"{len(outcome.accepted)} landed ({rows:,} rows), {len(outcome.refused)} refused"
    if outcome.duplicates:
        text += f", {len(outcome.duplicates)} with content that had landed before"
    return text


def _facts(settings: Settings, facts: Mapping[str, Any], outcome: Outcome) -> list[tuple[str, str]]:
    panel, model, tables = settings.panel_spec, facts["model"], facts["tables"]
    accepted = tables[panel.series.name]["rows"]
    beside = f" (seasonal naive {_share(model['wape_seasonal_naive'])})"
    new = "" if outcome.refreshed else " (unchanged)"
    return [
        ("Rows", f"{accepted:,} accepted, {facts['rejected_rows']:,} rejected"),
        ("Model", f"{model['candidate']} version {model['version']}{new}"),
        ("WAPE", f"{_share(model['wape'])} in its backtest{beside}"),
        (
            "Forecast",
            f"{facts['horizon']} {_periods(settings)} to {facts['last_period']} "
            f"for {facts['series']:,} series, as of {facts['cutoff']}{new}",
        ),
    ]


def _repairs(outcome: Outcome) -> list[tuple[str, str]]:
    """How many adjustments there are by status; none of a snapshot that an older release published."""
    if outcome.snapshot is None or "adjustments" not in outcome.snapshot.facts["tables"]:
        return []
    counts = outcome.snapshot.read("adjustments")["status"].value_counts()
    shown = ", ".join(f"{counts[status]} {status}" for status in STATUSES if status in counts.index)
    return [("Repairs", f"{shown or 'none'} (turnover adjustments list)")]


def _share(value: float | None) -> str:
    """A share in per cent; there is none where all that was reported is zero."""
    return "not known" if value is None or math.isnan(value) else f"{value:.1%}"


def _periods(settings: Settings) -> str:
    every = settings.panel_spec.frequency.every
    return every if settings.panel_spec.horizon == 1 else f"{every}s"


def _print_rejected(console: Console, outcome: Outcome) -> None:
    """The rejected rows of a fresh snapshot by rule, each with an example."""
    if outcome.snapshot is None or not outcome.refreshed:
        return
    rejected = outcome.snapshot.read("rejected")
    if rejected.empty:
        return
    console.print("Rejected rows (turnover export rejected lists them all):")
    for (rule, action), rows in list(rejected.groupby(["rule", "action"], sort=True))[:REASONS_SHOWN]:
        first = rows.iloc[0]
        example = f"{first['file']} line {first['line']}: {first['message']}"
        console.print(f"  {len(rows):>6,} {rule} ({action}), e.g. {escape(example)}", soft_wrap=True)
