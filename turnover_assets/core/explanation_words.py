"""Explanations in words: one explained forecast as a sentence or two for someone who runs a business.

What belongs here: wording and rounding. What does not: the amounts (explanations.py).

All amounts of a sentence are rounded to one unit, and what is not told stands as "the rest", so that a reader
who adds them up arrives at the forecast. Reasons are what moves the model's forecast, not proven causes.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Self

from turnover_assets.core.calendar import holidays_between, label_of, label_offset
from turnover_assets.panel import PanelSpec

DIGITS = 3  # of the largest amount of a sentence
MOST_REASONS = 4
LEAST_REASON = 0.02  # of the larger of forecast and reference
MINUS = "\N{MINUS SIGN}"
SAME = 0.01  # a smaller difference is none to speak of
TWICE = 2.0  # from here on a ratio says more than a percentage
ADJUSTED = 0.02  # reported and adjusted values that differ by less are taken for the same

YEAR_AGO, AVERAGE = "year ago", "average"  # what a forecast is compared with
# Groups beside those of features.
LEVEL, SEASON, MISSED, OTHER, BOUNDS = "level", "season", "missed", "other", "bounds"

_PLURAL = {"recent level": "recent {every}s", "known ahead": "the values planned ahead"}
_SINGULAR = {"growth": "recent growth", "calendar": "the calendar", SEASON: "the season"}


@dataclass(frozen=True)
class Wording:
    """How a panel's forecasts are put into words.

    Attributes:
        every: What a period is called.
        unit: Unit of the target, empty where it has none.
        time: Name of the time column.
        effects: Groups and the columns of their effects.
        levels: Groups that are levels of the panel.
        occasions: For periods whose holidays differ from those a year earlier, how.
    """

    every: str
    unit: str
    time: str
    effects: Mapping[str, str]
    levels: tuple[str, ...]
    occasions: Mapping[date, str]

    @classmethod
    def of(cls, panel: PanelSpec, effects: Mapping[str, str], periods: Iterable[int]) -> Self:
        """The wording for forecasts of the given target periods (indices)."""
        occasions = {label_of(panel, int(t)): occasion(panel, int(t)) for t in periods}
        return cls(
            panel.frequency.every,
            panel.series.target.unit,
            panel.time,
            effects,
            panel.level_names,
            {label: text for label, text in occasions.items() if text},
        )

    def sentence(self, row: Mapping[str, Any]) -> str:
        """A row of explanations.explain_forecasts in words."""
        effects = (row[column] for column in self.effects.values())
        scale = _Rounding.of(row["forecast"], row["reference"], *effects)
        unit = f" {self.unit}" if self.unit else ""
        reasons = self._reasons(row, scale)
        listed = f": {'; '.join(reasons)}" if reasons else ""
        text = f"{scale.text(row['forecast'])}{unit} expected, {self._compared(row, scale)}{listed}."
        return text + self._adjusted(row, scale)

    def _compared(self, row: Mapping[str, Any], scale: "_Rounding") -> str:
        """The forecast beside its reference: `8 % above the same week last year (11,400)`.

        Of amounts one of which is not above 0 no ratio makes sense: `9.1 above …` tells their difference.
        """
        of_year = f"the same {self.every} last year"
        what = of_year if _with_year(row) else f"its average {self.every} of the last 12 months"
        forecast, reference = scale.units(row["forecast"]), scale.units(row["reference"])
        if forecast == reference:
            relation = _relation(forecast, reference)
        elif min(forecast, reference) <= 0:
            relation = f"{scale.size(forecast - reference)} {_relation(forecast, reference)}"
        else:  # of the amounts before they are rounded, so that it is the percentage told elsewhere
            relation = _relation(row["forecast"], row["reference"])
        return f"{relation} {what} ({scale.text(row['reference'])})"

    def _reasons(self, row: Mapping[str, Any], scale: "_Rounding") -> list[str]:
        """What is told of the difference, largest first; nothing where there is none."""
        difference = scale.units(row["forecast"]) - scale.units(row["reference"])
        if not difference:
            return []
        least = LEAST_REASON * max(abs(row["forecast"]), abs(row["reference"]))
        effects = [(row[column], group) for group, column in self.effects.items() if group != OTHER]
        large = [pair for pair in effects if abs(pair[0]) >= least and scale.units(pair[0])]
        told = sorted(large, key=lambda pair: -abs(pair[0]))[:MOST_REASONS]
        rest = difference - sum(scale.units(effect) for effect, _ in told)
        reasons = [f"{self._reason(group, row)} ({scale.signed(effect)})" for effect, group in told]
        return [*reasons, f"the rest ({scale.signed_units(rest)})"] if rest else reasons

    def _reason(self, group: str, row: Mapping[str, Any]) -> str:
        effect = row[self.effects[group]]
        if group == BOUNDS:
            if effect < 0:  # stopping at 0 only raises
                return "nothing is reported on this day of the week"
            return "it cannot fall below 0"
        if group == MISSED:
            return f"forecasts of recent {self.every}s were too {'low' if effect > 0 else 'high'}"
        if group == LEVEL:
            return _of_level(effect, row["reference"])
        if group == SEASON and _with_year(row):
            return f"last year's {self.every} was {'low' if effect > 0 else 'high'} for the season"
        if group == "calendar" and _with_year(row) and row[self.time] in self.occasions:
            return self.occasions[row[self.time]]
        return self._moves(group, up=effect > 0, with_year=_with_year(row))

    def _moves(self, group: str, *, up: bool, with_year: bool) -> str:
        """A group and its direction: `recent weeks raise it`."""
        if group in _PLURAL:
            return f"{_PLURAL[group].format(every=self.every)} {'raise' if up else 'lower'} it"
        what = _SINGULAR.get(group, group)
        if group in self.levels:  # against a year ago, only what changes of a level has an effect
            what = f"the trend of its {group}" if with_year else f"its {group}"
        return f"{what.replace('_', ' ')} {'raises' if up else 'lowers'} it"

    def _adjusted(self, row: Mapping[str, Any], scale: "_Rounding") -> str:
        """A second sentence where the reference is not what a reader finds in the reports."""
        reported, reference = row["reported_year_ago"], row["reference"]
        if not _with_year(row) or not abs(reported - reference) > ADJUSTED * abs(reference):
            return ""
        told = f"was reported as {scale.text(reported)}; it is compared after adjustment."
        return f" Last year's {self.every} {told}"


def _with_year(row: Mapping[str, Any]) -> bool:
    return bool(row["compared_with"] == YEAR_AGO)


@dataclass(frozen=True)
class _Rounding:
    """Amounts in whole multiples of a power of ten."""

    exponent: int

    @classmethod
    def of(cls, *amounts: float) -> Self:
        """DIGITS digits of the largest amount."""
        size = max(abs(amount) for amount in amounts)
        return cls(math.floor(math.log10(size)) - DIGITS + 1 if size > 0 else 0)

    def units(self, amount: float) -> int:
        return round(amount / 10.0**self.exponent)

    def text(self, amount: float) -> str:
        units = self.units(amount)
        return f"{MINUS if units < 0 else ''}{self.size(units)}"

    def signed(self, amount: float) -> str:
        return self.signed_units(self.units(amount))

    def signed_units(self, units: int) -> str:
        return f"{'+' if units > 0 else MINUS}{self.size(units)}"

    def size(self, units: int) -> str:
        """An amount without its sign."""
        return self._text(abs(units))

    def _text(self, units: int) -> str:
        return f"{units * 10.0**self.exponent:,.{max(0, -self.exponent) if units else 0}f}"


def _of_level(effect: float, reference: float) -> str:
    """How amounts have changed, whatever their sign; the effect is that share of the reference.

    Where the reference is below 0, larger amounts lower the forecast, so that the sentence speaks of sizes.
    """
    relation = _relation(1 + effect / reference, 1.0)
    if reference > 0:
        return f"the last 12 months were {relation} the 12 before"
    for side, size in (("above", "larger than"), ("below", "smaller than"), ("times", "times as large as")):
        relation = relation.replace(side, size)
    return f"amounts of the last 12 months were {relation} in the 12 before"


def _relation(value: float, reference: float) -> str:
    """How a value stands to a reference: `8 % above`, `2.4 times`, `about as much as`."""
    if reference <= 0 or value <= 0:
        return "above" if value > reference else "below" if value < reference else "as much as"
    ratio = value / reference
    if ratio >= TWICE:
        return f"{ratio:.1f} times"
    if abs(ratio - 1) < SAME:
        return "about as much as"
    return f"{100 * abs(ratio - 1):.0f} % {'above' if ratio > 1 else 'below'}"


def occasion(panel: PanelSpec, t: int) -> str:
    """Which holidays fall into a period, or one beside it, and did not a year ago, or the other way round.

    Empty where the holidays are those of a year ago. The period itself goes before its neighbours.

    Example:
        >>> from turnover_assets.core.calendar import index_of
        >>> from turnover_assets.panel import default_panel
        >>> occasion(default_panel(), index_of(default_panel(), date(2017, 4, 15)))
        'Easter Monday falls in this week, unlike last year'
    """
    every, on = panel.frequency.every, "on" if panel.frequency.every == "day" else "in"
    places = {0: f"{on} this {every}", -1: f"{on} the {every} before", 1: f"{on} the {every} after"}
    for away, place in places.items():
        now, then = _holidays(panel, t + away), _holidays(panel, t + away - panel.frequency.season)
        new, gone = [name for name in now if name not in then], [name for name in then if name not in now]
        if new:
            return f"{' and '.join(new)} {'falls' if len(new) == 1 else 'fall'} {place}, unlike last year"
        if gone:
            return f"last year {' and '.join(gone)} fell {place}"
    return ""


def _holidays(panel: PanelSpec, t: int) -> list[str]:
    """Names of the holidays in a period; an observed one has the name of the day it stands for."""
    first = label_of(panel, t) - timedelta(days=label_offset(panel))
    found = holidays_between(panel, first, first + timedelta(days=panel.frequency.days - 1)).values()
    return list(dict.fromkeys(name.removesuffix(" (observed)") for name in found))
