"""The file of alert rules: what is worth a message, how bad it is, and where messages go.

What belongs here: the file's fields, validated as a whole. What does not: reading it
(storage/alert_rules.py), and whether a rule holds (conditions.py, events.py).
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from turnover_assets.core.alerts.channels import CHANNELS, Channel, LogChannel, Severity, channel_slips
from turnover_assets.core.alerts.measures import MEASURES, TOTAL
from turnover_assets.errors import AlertRulesError
from turnover_assets.panel import PanelSpec

Event = Literal["run_failed", "data_late", "forecast_late", "file_refused", "check_failed"]
EVENTS: tuple[str, ...] = get_args(Event)
COUNTED_EVENTS = ("run_failed", "data_late", "forecast_late")  # for which `periods` means something
TOP_FIELDS = ("default_rules", "remind_after_days", "fold_above", "rule", "channels")


@dataclass(frozen=True)
class Rule:
    """One rule.

    Attributes:
        name: Its name, unique in the file.
        severity: How bad it is where it holds.
        measure: The measure that it looks at; empty for a rule on an event.
        event: The event that it looks at; empty for a rule on a measure.
        level: `total` or a level of the panel; empty for an event.
        member: The member of the level as text; None for every member.
        above: It holds where the value is larger than this, if any.
        below: It holds where the value is smaller than this, if any.
        periods: For how many published cutoffs in a row it must hold; for events see EVENTS' description.
        advice: What to do, for the end of the message.
    """

    name: str
    severity: Severity
    measure: str = ""
    event: str = ""
    level: str = ""
    member: str | None = None
    above: float | None = None
    below: float | None = None
    periods: int = 1
    advice: str = ""

    @property
    def family(self) -> str:
        """What the rule is about; rules of one family share their incidents, the worst of them speaks."""
        if self.event:
            return self.event
        sides = [side for side in ("above", "below") if getattr(self, side) is not None]
        return f"{self.measure} {'/'.join(sides)}"

    def breached(self, value: float) -> bool:
        """Whether a value is out of bounds."""
        return (self.above is not None and value > self.above) or (
            self.below is not None and value < self.below
        )

    def covers(self, level: str, member: str) -> bool:
        """Whether the rule looks at a member of a level."""
        return self.level == level and self.member in (None, member)


@dataclass(frozen=True)
class AlertRules:
    """A whole file.

    Attributes:
        rules: The rules, in the order of the file.
        channels: The channels by kind.
        remind_after_days: Days after which an open incident is recalled.
        fold_above: More messages of one rule than this at once are told as one.
        stand_in: Whether these only stand in for a file that cannot be used now. Then nothing is ended:
            neither incidents, nor messages for other channels.
    """

    rules: tuple[Rule, ...]
    channels: Mapping[str, Channel]
    remind_after_days: float = 7.0
    fold_above: int = 10
    stand_in: bool = False

    def on_event(self, event: str) -> tuple[Rule, ...]:
        """The rules on an event."""
        return tuple(rule for rule in self.rules if rule.event == event)


class _RuleFields(BaseModel):
    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)
    name: str = Field(min_length=1, max_length=80)
    measure: str | None = None
    event: str | None = None
    scope: str | dict[str, Any] = TOTAL
    above: float | None = Field(None, allow_inf_nan=False)
    below: float | None = Field(None, allow_inf_nan=False)
    periods: int = Field(1, ge=1, le=52, strict=True)
    severity: Severity = Severity.WARNING
    advice: str = Field("", max_length=500)
    enabled: bool = Field(True, strict=True)


class _TopFields(BaseModel):
    model_config = ConfigDict(extra="ignore")
    default_rules: bool = Field(True, strict=True)
    remind_after_days: float = Field(7.0, gt=0, allow_inf_nan=False)
    fold_above: int = Field(10, ge=1, strict=True)


_MESSAGES = {  # in place of pydantic's, by the type of its error
    "extra_forbidden": "is no field here",
    "missing": "is left out",
    "string_too_short": "is empty",
}


def parse_rules(
    data: Mapping[str, Any], panel: PanelSpec, source: str, defaults: Sequence[Rule] = ()
) -> AlertRules:
    """Validate a file of alert rules.

    Args:
        data: The file's content.
        panel: The panel, whose levels the rules name.
        source: The file, for the message.
        defaults: The shipped rules; one of the same name takes the place of a shipped one.

    Raises:
        AlertRulesError: With everything that is wrong, each with its place.
    """
    problems = [
        (name, f"is not known; there are {', '.join(TOP_FIELDS)}") for name in data if name not in TOP_FIELDS
    ]
    problems += _misfits(_TopFields, data)
    listed, not_listed = _listed(data)
    problems += not_listed
    for number, raw in enumerate(listed, start=1):
        found = [*_misfits(_RuleFields, raw), *_rule_slips(raw, panel)]
        problems += [
            (f"{_place(number, raw)}, {field}" if field else _place(number, raw), what)
            for field, what in found
        ]
    names = Counter(str(raw.get("name", "")).strip() for raw in listed)
    problems += [
        ("rule", f"{name!r} is the name of {n} rules") for name, n in names.items() if name and n > 1
    ]
    problems += _channel_problems(data.get("channels", {}))
    if problems:
        raise AlertRulesError(source, problems)
    top = _TopFields.model_validate(data)
    own = [_RuleFields.model_validate(raw) for raw in listed]
    kept = [rule for rule in defaults if rule.name not in {fields.name for fields in own}]
    rules = [*(kept if top.default_rules else []), *(_rule(fields) for fields in own if fields.enabled)]
    return AlertRules(tuple(rules), _channels(data), top.remind_after_days, top.fold_above)


def _listed(data: Mapping[str, Any]) -> tuple[list[Mapping[str, Any]], list[tuple[str, str]]]:
    listed = data.get("rule", [])
    if isinstance(listed, list) and all(isinstance(raw, Mapping) for raw in listed):
        return listed, []
    return [], [("rule", "is not written as [[rule]], one such block for each rule")]


def _place(number: int, raw: Mapping[str, Any]) -> str:
    name = raw.get("name")
    return f"rule {number} ({name})" if isinstance(name, str) and name else f"rule {number}"


def _rule(fields: _RuleFields) -> Rule:
    scope = fields.scope
    level, member = (scope, None) if isinstance(scope, str) else next((k, str(v)) for k, v in scope.items())
    return Rule(
        fields.name,
        fields.severity,
        measure=fields.measure or "",
        event=fields.event or "",
        level="" if fields.event else level,
        member="" if level == TOTAL and not fields.event else member,
        above=fields.above,
        below=fields.below,
        periods=fields.periods,
        advice=fields.advice,
    )


def _channels(data: Mapping[str, Any]) -> dict[str, Channel]:
    named = data.get("channels", {})
    return {"log": LogChannel()} | {kind: CHANNELS[kind].model_validate(raw) for kind, raw in named.items()}


def _channel_problems(named: Any) -> Iterator[tuple[str, str]]:
    if not isinstance(named, Mapping):
        yield "channels", "is not written as [channels.log], [channels.webhook] or [channels.email]"
        return
    for kind, raw in named.items():
        if kind not in CHANNELS:
            yield f"channels.{kind}", f"is not known; there are {', '.join(CHANNELS)}"
        elif not isinstance(raw, Mapping):
            yield f"channels.{kind}", f"is not written as [channels.{kind}]"
        else:
            found = [*_misfits(CHANNELS[kind], raw), *channel_slips(kind, raw)]
            yield from ((f"channels.{kind}, {field}", what) for field, what in found)


def _misfits(fields: type[BaseModel], raw: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Fields that are unknown, left out or of another type; what was given may be secret, so not shown."""
    try:
        fields.model_validate(raw)
    except ValidationError as error:
        for issue in error.errors(include_input=False):
            message = _MESSAGES.get(issue["type"], issue["msg"])
            yield ".".join(str(part) for part in issue["loc"]), message


def _rule_slips(raw: Mapping[str, Any], panel: PanelSpec) -> Iterator[tuple[str, str]]:
    """What is wrong with a rule's fields that are of the right type, each by itself and together."""
    if isinstance(name := raw.get("name"), str) and not name.isprintable():
        yield "name", "holds line breaks or other signs that cannot be printed"
    if ("measure" in raw) == ("event" in raw):
        yield (
            "",
            "names both a measure and an event; keep one"
            if "event" in raw
            else "names no measure and no event",
        )
    elif "event" in raw:
        yield from _event_slips(raw)
    else:
        yield from _measure_slips(raw)
        yield from _scope_slips(raw, panel)


def _event_slips(raw: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if isinstance(event := raw["event"], str) and event not in EVENTS:
        yield "event", f"{event!r} is not known; there are {', '.join(EVENTS)}"
    for field in ("scope", "above", "below"):
        if field in raw:
            yield field, "has no meaning for an event"
    if "periods" in raw and event not in COUNTED_EVENTS:
        yield "periods", f"has a meaning only for a measure, {', '.join(COUNTED_EVENTS)}"


def _measure_slips(raw: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if isinstance(measure := raw["measure"], str) and measure not in MEASURES:
        yield "measure", f"{measure!r} is not known; there are {', '.join(MEASURES)}"
    if "above" not in raw and "below" not in raw:
        yield "", "has no limit; give above, below or both"
    limits = [raw.get("above"), raw.get("below")]
    numbers = [limit for limit in limits if isinstance(limit, int | float)]
    if len(numbers) == 2 and numbers[0] < numbers[1]:
        yield "above", f"{numbers[0]} lies under below, {numbers[1]}: every value would be out of bounds"


def _scope_slips(raw: Mapping[str, Any], panel: PanelSpec) -> Iterator[tuple[str, str]]:
    scope = raw.get("scope", TOTAL)
    levels = (TOTAL, *panel.level_names)
    if isinstance(scope, Mapping):
        if len(scope) != 1:
            yield "scope", "names not just one level; write it as { level = member }"
            return
        (level, member), levels = next(iter(scope.items())), panel.level_names
        if isinstance(member, Mapping | list):
            yield "scope", "names more than one member; write one rule for each"
    elif isinstance(scope, str):
        level = scope
    else:
        return  # of another type, as told already
    if level not in levels:
        yield "scope", f"{level!r} is no level here; there are {', '.join(levels)}"
    measure = MEASURES.get(str(raw["measure"]))
    if measure and measure.only_total and scope != TOTAL:
        yield "scope", f"{raw['measure']} is measured for the total only"
