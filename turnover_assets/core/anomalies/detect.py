"""From the history up to a cutoff to findings: all detectors, in the order in which they need each other.

What belongs here: the order, and each finding's words and remedy. What does not: the detectors.

Only values up to the cutoff are read, so findings as of a past cutoff are what could be known then.
"""

from collections.abc import Iterable, Iterator

import duckdb
import numpy as np
from threadpoolctl import threadpool_limits

from turnover_assets.core.anomalies.blocks import Block, find_blocks
from turnover_assets.core.anomalies.cycles import by_cycle, to_the_period
from turnover_assets.core.anomalies.findings import Finding, Remedy, selector_text, unconfirmed
from turnover_assets.core.anomalies.gaps import Gap, find_gaps
from turnover_assets.core.anomalies.matrix import Grouping, History, Integers, groupings, read_history
from turnover_assets.core.anomalies.points import Point, find_points
from turnover_assets.core.calendar import label_of
from turnover_assets.panel import PanelSpec

WEAKEST_POINT = 2.5  # strength from which a single value is worth a line
MOST_ALONE = 50  # blocks of single series told
MOST_POINTS = 200  # told; the strongest
MOST_GAPS = 500  # told; those of most rows
SIGN = -1.0 / 3.0  # of the expected value; from it to its inverse a negative one has the wrong sign


def detect(
    con: duckdb.DuckDBPyConnection, panel: PanelSpec, last: int, alive: int, *, alone: bool = True
) -> list[Finding]:
    """Everything that is wrong with the cleaned series table up to period `last`.

    Args:
        con: Connection with the cleaned tables.
        panel: The panel.
        last: The cutoff (period index); later values are not looked at.
        alive: A series has stopped where it has no value in so many periods.
        alone: Whether to search single series for blocks, see findings_in.

    Returns:
        Findings, the strongest first.
    """
    return findings_in(panel, read_history(con, panel, last), alive, alone=alone)


def findings_in(panel: PanelSpec, history: History, alive: int, *, alone: bool = True) -> list[Finding]:
    """Everything that is wrong with a history.

    Args:
        panel: The panel.
        history: Reported values up to the cutoff.
        alive: A series has stopped where it has no value in so many periods.
        alone: Whether to search single series for blocks, which takes most of the time; their strength is
            below UNCONFIRMED, and all other findings are the same without.

    Returns:
        Findings, the strongest first.
    """
    if history.values.size == 0:
        return []
    # Matrices are so small that more threads only get into each other's way.
    with np.errstate(all="ignore"), threadpool_limits(1):
        found = list(_findings(panel, history, alive, alone))
    return sorted(found, key=lambda finding: (-finding.strength, finding.finding_id))


def _findings(panel: PanelSpec, history: History, alive: int, alone: bool) -> Iterator[Finding]:
    levels = groupings(panel, history)
    points = find_points(history, levels[-1], WEAKEST_POINT)
    gaps = find_gaps(history, levels, alive)
    values = history.values.copy()
    for point in points:
        values[point.series, point.period] = np.nan
    for gap in gaps:
        if gap.kind == "zeros":
            rows = gap.grouping.group == gap.group
            inside = values[rows, gap.start : gap.end]
            values[rows, gap.start : gap.end] = np.where(inside == 0, np.nan, inside)
    told = Teller(panel, history)
    clean = History(values, history.first, history.members)
    searched, cycle = levels if alone else levels[:-1], panel.frequency.cycle
    for block in _told(find_blocks(by_cycle(clean, cycle), searched, panel.frequency.season // cycle)):
        yield told.block(to_the_period(clean, block, cycle) if cycle > 1 else block)
    yield from (told.point(point, levels[-1]) for point in points[:MOST_POINTS])
    yield from (told.gap(gap) for gap in sorted(gaps, key=lambda g: (-g.rows, g.start, g.group))[:MOST_GAPS])


def _told(blocks: Iterable[Block]) -> list[Block]:
    """Blocks worth a line: those of groups, and the strongest of single series, which are only proposed."""
    ordered = sorted(blocks, key=lambda block: -block.strength)
    alone = [block for block in ordered if block.grouping.level == "series"]
    return [block for block in ordered if block.grouping.level != "series"] + alone[:MOST_ALONE]


class Teller:
    """Puts what detectors found into words and remedies.

    Args:
        panel: The panel.
        history: The history they looked at.
    """

    def __init__(self, panel: PanelSpec, history: History) -> None:
        self._panel, self._history = panel, history

    def block(self, block: Block) -> Finding:
        """A level shift."""
        since, until, ongoing = self._period(block.start, block.end)
        factor = float(np.exp(block.shift))
        strength = unconfirmed(block.strength) if block.grouping.level == "series" else block.strength
        where = block.grouping.names[block.group]
        length = self._length(block.end - block.start)
        low, high = np.exp(block.shift - 2 * block.error), np.exp(block.shift + 2 * block.error)
        sentence = (
            f"{_capital(selector_text(where))} is reported at {factor:.2f} times its level (between "
            f"{low:.2f} and {high:.2f}) {self._dates(since, until, ongoing)}: {length}, "
            "unlike its siblings and unlike other years."
        )
        return Finding(
            "block", where, since, until, ongoing, factor, block.shift, block.error, strength,
            "divide", None, self._rows(block.rows, block.start, block.end), sentence,
        )  # fmt: skip

    def point(self, point: Point, series: Grouping) -> Finding:
        """A single value."""
        since, until, _ = self._period(point.period, point.period + 1)
        where = series.names[series.group[point.series]]
        remedy, value, what = _mended(point)
        sentence = (
            f"{_capital(selector_text(where))} reported {_amount(point.reported)} "
            f"{self._dates(since, until, False)}, where {_amount(point.expected)} would be expected: {what}"
        )
        return Finding(
            "point", where, since, until, False, point.factor, point.effect, point.error, point.strength,
            remedy, value, 1, sentence,
        )  # fmt: skip

    def gap(self, gap: Gap) -> Finding:
        """Missing periods, stopped series, or zeros that stand for missing."""
        since, until, ongoing = self._period(gap.start, gap.end)
        where = gap.grouping.names[gap.group]
        name, when = _capital(selector_text(where)), self._dates(since, until, ongoing)
        rows = f"{gap.rows} row{'s' if gap.rows != 1 else ''}"
        sentence = {
            "missing": f"{name} has no value {when}, though it reports otherwise: {rows} missing.",
            "stopped": f"{name} has reported nothing {when}; it has stopped, or its feed has.",
            "zeros": f"{name} reports zero {when} but sells before and after: {rows}, probably missing.",
        }[gap.kind]
        strength = unconfirmed(float(np.sqrt(2.0 * gap.improbability))) if gap.kind == "zeros" else 0.0
        remedy: Remedy = "empty" if gap.kind == "zeros" else "none"
        nothing = float("nan")
        return Finding(
            gap.kind, where, since, until, ongoing, None, nothing, nothing, strength,
            remedy, None, gap.rows, sentence,
        )  # fmt: skip

    def _period(self, start: int, end: int) -> tuple[int, int, bool]:
        first = self._history.first
        return first + start, first + end - 1, end == self._history.periods

    def _dates(self, since: int, until: int, ongoing: bool) -> str:
        first, last = label_of(self._panel, since), label_of(self._panel, until)
        if ongoing:
            return f"since {first}, and still in {last}"
        return f"in {first}" if first == last else f"from {first} to {last}"

    def _length(self, periods: int) -> str:
        return f"{periods} {self._panel.frequency.every}{'s' if periods != 1 else ''}"

    def _rows(self, rows: Integers, start: int, end: int) -> int:
        return int(np.isfinite(self._history.values[rows, start:end]).sum())


def _mended(point: Point) -> tuple[Remedy, float | None, str]:
    """Remedy and value of a value out of proportion, and what it looks like."""
    if point.factor < 1.0 / SIGN:
        return "none", None, "far below zero; a large return, or a slip."
    if point.factor <= SIGN:
        return "replace", -point.reported, "the sign is turned."
    if point.factor < 1.0:
        return "none", None, "far too low; a closure, or a part of the value is missing."
    if places := point.decimal_places:
        shown = f"{places} place{'s' if places != 1 else ''}"
        return "replace", point.reported / 10.0**places, f"the decimal point is {shown} off."
    return "replace", point.expected, "a placeholder or a slip."


def _amount(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.2f}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
