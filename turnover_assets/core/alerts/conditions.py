"""Rules against measures: which conditions hold, since when, and the sentence a manager reads.

What belongs here: what a condition is, and judging the rules on measures. What does not: rules on events
(events.py), and what follows from a condition (incidents.py).
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal

import pandas as pd

from turnover_assets.core.alerts.measures import MEASURES, TOTAL, Measure
from turnover_assets.core.alerts.rules import Rule
from turnover_assets.panel import PanelSpec

State = Literal["firing", "holding", "clear", "unknown"]


@dataclass(frozen=True)
class Condition:
    """What the rules of a family say of one member.

    Attributes:
        state: `firing` where a rule holds for as long as it asks; `holding` where one does, but not for that
            long yet: it opens no incident and ends none; `clear` where none does; `unknown` where it cannot
            be told, which changes nothing.
        rule: The worst of the rules that fire; else one of those that were asked.
        level: Level of the member; empty for an event.
        member: The member; empty for the total.
        sentence: How it is, for people.
        evidence: What it was seen by, such as the cutoff; the same evidence again is nothing new.
        since: The first cutoff of those in a row, or when it began; empty where nothing is wrong.
        value: The value seen, if any.
        limit: The limit that it was set against, if any.
        excess: By which part of the limit it is out of bounds; orders members from the worst.
    """

    state: State
    rule: Rule
    level: str
    member: str
    sentence: str
    evidence: str
    since: str = ""
    value: float | None = None
    limit: float | None = None
    excess: float = 0.0


def worst(rules: Iterable[Rule]) -> Rule:
    """The rule of the highest severity, the first of those."""
    return max(rules, key=lambda rule: rule.severity.rank)


def conditions(
    rules: Sequence[Rule], measures: pd.DataFrame, cutoffs: Sequence[date], panel: PanelSpec
) -> list[Condition]:
    """Judge all rules on measures as of the newest cutoff.

    Args:
        rules: The rules; those on events are left out.
        measures: Columns `measure`, `level`, `member`, `cutoff` and `value`, one row for each.
        cutoffs: All published cutoffs, newest first. A measure that is missing at the first one is unknown.
        panel: The panel.

    Returns:
        A condition for each family of rules and member that was ever measured.
    """
    histories = _histories(measures)
    families: dict[str, list[Rule]] = defaultdict(list)
    for rule in rules:
        if rule.measure:
            families[rule.family].append(rule)
    return [
        _condition(covering, level, member, [values.get(day, math.nan) for day in cutoffs], cutoffs, panel)
        for family in families.values()
        for (measure, level, member), values in histories.items()
        if measure == family[0].measure
        and (covering := [rule for rule in family if rule.covers(level, member)])
    ]


def _histories(measures: pd.DataFrame) -> Mapping[tuple[str, str, str], dict[date, float]]:
    """Values by cutoff of each measure, level and member."""
    found: dict[tuple[str, str, str], dict[date, float]] = defaultdict(dict)
    columns = ["measure", "level", "member", "cutoff", "value"]
    for measure, level, member, cutoff, value in measures[columns].itertuples(index=False):
        day = cutoff.date() if isinstance(cutoff, pd.Timestamp) else cutoff
        found[measure, level, member][day] = math.nan if pd.isna(value) else float(value)
    return found


def _condition(
    rules: Sequence[Rule],
    level: str,
    member: str,
    values: Sequence[float],
    cutoffs: Sequence[date],
    panel: PanelSpec,
) -> Condition:
    lengths = {rule: _in_a_row(rule, values) for rule in rules}
    firing = [rule for rule, length in lengths.items() if length >= rule.periods]
    begun = [rule for rule, length in lengths.items() if length]
    if not values or math.isnan(values[0]):
        state: State = "unknown"
    else:
        state = "firing" if firing else "holding" if begun else "clear"
    rule = worst(firing or begun or rules)
    length = lengths[rule]
    value = values[0] if values else math.nan
    limit = _limit_of(rule, value)
    return Condition(
        state,
        rule,
        level,
        member,
        _sentence(rule, level, member, value, cutoffs[:length], panel),
        evidence=str(cutoffs[0]) if cutoffs else "",
        since=str(cutoffs[length - 1]) if length else "",
        value=None if math.isnan(value) else value,
        limit=limit,
        excess=abs(value - limit) / (abs(limit) or 1.0) if length else 0.0,
    )


def _in_a_row(rule: Rule, values: Iterable[float]) -> int:
    """How many of the newest values are out of bounds without a gap; a missing value is one."""
    length = 0
    for value in values:
        if math.isnan(value) or not rule.breached(value):
            break
        length += 1
    return length


def _limit_of(rule: Rule, value: float) -> float:
    """The limit that a value is, or comes closest to being, out of."""
    limits = [limit for limit in (rule.above, rule.below) if limit is not None]
    return min(limits, key=lambda limit: abs(limit - value)) if len(limits) > 1 else limits[0]


def _sentence(
    rule: Rule, level: str, member: str, value: float, days: Sequence[date], panel: PanelSpec
) -> str:
    measure = MEASURES[rule.measure]
    row = _row_words(days, panel) if len(days) > 1 else ""
    where = f"{where_words(level, member)}{row}"
    return f"{measure.words} is {measure.shown(value)} {where} ({_limits(rule, measure)})."


def where_words(level: str, member: str) -> str:
    """A member as words.

    Example:
        >>> where_words("total", ""), where_words("region", "3")
        ('in total', 'for region 3')
    """
    return "in total" if level == TOTAL else f"for {level} {member}"


def _row_words(days: Sequence[date], panel: PanelSpec) -> str:
    """For how long, newest first: as periods where none was left out, else as published cutoffs."""
    unbroken = (days[0] - days[-1]).days == (len(days) - 1) * panel.frequency.days
    if unbroken:
        return f" for {len(days)} {panel.frequency.every}s in a row"
    return f" at {len(days)} cutoffs in a row, since {days[-1]}"


def _limits(rule: Rule, measure: Measure) -> str:
    shown = [measure.bound(limit) for limit in (rule.below, rule.above) if limit is not None]
    return f"limits {shown[0]} and {shown[1]}" if len(shown) > 1 else f"limit {shown[0]}"
