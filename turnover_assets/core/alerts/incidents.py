"""Incidents: what opens, stays open, grows worse, is recalled, and ends; and the messages on it.

What belongs here: folding conditions into incidents, and wording the messages. What does not: keeping
incidents (storage/alert_store.py), and how a channel shows a message (storage/alert_channels.py).

Invariants:
    - for each family of rules and member at most one incident is open;
    - a condition that is seen again with the same evidence changes nothing;
    - an incident grows worse at most twice, and never milder, so that values at a limit make no noise;
    - what is unknown neither opens nor ends anything.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from turnover_assets.core.alerts.channels import Severity
from turnover_assets.core.alerts.conditions import Condition, where_words
from turnover_assets.core.alerts.rules import Rule

Kind = Literal["opened", "escalated", "reminded", "recovered", "test", "workbook"]
CALM = timedelta(hours=6)  # a weekly publishing is never just seven days after the one before
WORST_SHOWN = 10
TOLD: tuple[Kind, ...] = ("opened", "escalated", "reminded", "recovered")
ENDED = ("recovered", "dropped")


@dataclass(frozen=True)
class Incident:
    """Something that is wrong with one member, from the first message to the last.

    Attributes:
        incident_id: Its number; 0 before it is kept.
        family: What its rules are about.
        level: Level of the member; empty for an event.
        member: The member; empty for the total.
        rule: Name of the worst rule so far.
        severity: The worst so far.
        sentence: How it is, or was when it ended.
        advice: What to do.
        evidence: What it was last seen by.
        since: The first cutoff concerned, or when it began.
        value: The value last seen, if any.
        limit: The limit that it was set against, if any.
        excess: By which part of the limit it is out of bounds.
        count: How often it was seen with new evidence.
        opened_at: When it was opened.
        seen_at: When it was last seen with new evidence.
        told_at: When a message on it was last made.
        resolved_at: When it ended; None while it is open.
    """

    incident_id: int
    family: str
    level: str
    member: str
    rule: str
    severity: Severity
    sentence: str
    advice: str
    evidence: str
    since: str
    value: float | None
    limit: float | None
    excess: float
    count: int
    opened_at: datetime
    seen_at: datetime
    told_at: datetime
    resolved_at: datetime | None = None

    @property
    def place(self) -> tuple[str, str, str]:
        """What tells open incidents apart."""
        return self.family, self.level, self.member

    @property
    def subject(self) -> str:
        """The member in words; empty where there is none."""
        return where_words(self.level, self.member) if self.level else self.member


@dataclass(frozen=True)
class Change:
    """What becomes of an incident: one of TOLD, or `seen` and `dropped`, which are not told."""

    kind: Literal["opened", "escalated", "reminded", "recovered", "seen", "dropped"]
    incident: Incident


@dataclass(frozen=True)
class Message:
    """A message on one or more incidents, for any channel.

    Attributes:
        kind: Why it is sent.
        severity: How bad what it is about is, or was.
        title: A line.
        lines: The sentences, the worst first.
        advice: What to do; may be empty.
        at: When it was made.
        incidents: Numbers of the incidents.
        recipient: The address that it is for; empty where the channel says who gets it.
        attachments: Files that go with it, as paths within the home.
    """

    kind: Kind
    severity: Severity
    title: str
    lines: tuple[str, ...]
    advice: str
    at: datetime
    incidents: tuple[int, ...] = ()
    recipient: str = ""
    attachments: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The message as plain data, for JSON."""
        lists = {name: list(getattr(self, name)) for name in ("lines", "incidents", "attachments")}
        return {**vars(self), "severity": self.severity.value, "at": self.at.isoformat(), **lists}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Message":
        """The message from plain data."""
        return cls(
            data["kind"],
            Severity(data["severity"]),
            data["title"],
            tuple(data["lines"]),
            data["advice"],
            datetime.fromisoformat(data["at"]),
            tuple(data["incidents"]),
            data.get("recipient", ""),  # messages of earlier releases have none
            tuple(data.get("attachments", ())),
        )

    @property
    def text(self) -> str:
        """The message without its title, a line each."""
        return "\n".join([*self.lines, *([self.advice] if self.advice else [])])


def fold(
    incidents: Sequence[Incident],
    conditions: Sequence[Condition],
    rules: Sequence[Rule],
    now: datetime,
    remind_after: timedelta,
    *,
    stand_in: bool = False,
) -> list[Change]:
    """What conditions change about the open incidents.

    Args:
        incidents: The open ones.
        conditions: What was seen; members that are not among them stay as they are.
        rules: The rules in force; what none of them looks at any more is dropped without a message.
        now: The time.
        remind_after: How long after the last message an incident is recalled.
        stand_in: Whether the rules only stand in for others, which may look at what these do not, or have
            narrower limits; then nothing is ended.
    """
    found = {incident.place: incident for incident in incidents}
    changes = [
        Change("dropped", replace(incident, resolved_at=now))
        for incident in incidents
        if not _is_ruled(incident, rules)
    ]
    for condition in conditions:
        known = found.get((condition.rule.family, condition.level, condition.member))
        if known is None and condition.state == "firing":
            changes.append(Change("opened", _opened(condition, now)))
        elif known is not None and (change := _next(known, condition, now, remind_after)):
            changes.append(change)
    return [change for change in changes if not (stand_in and change.kind in ENDED)]


def _is_ruled(incident: Incident, rules: Sequence[Rule]) -> bool:
    return any(
        rule.family == incident.family and (rule.event or rule.covers(incident.level, incident.member))
        for rule in rules
    )


def _opened(condition: Condition, now: datetime) -> Incident:
    return Incident(
        0,
        condition.rule.family,
        condition.level,
        condition.member,
        condition.rule.name,
        condition.rule.severity,
        condition.sentence,
        condition.rule.advice,
        condition.evidence,
        condition.since,
        condition.value,
        condition.limit,
        condition.excess,
        count=1,
        opened_at=now,
        seen_at=now,
        told_at=now,
    )


def _next(known: Incident, condition: Condition, now: datetime, remind_after: timedelta) -> Change | None:
    """What a condition makes of an open incident; None where that is nothing."""
    if condition.state == "unknown":
        return None
    if condition.state == "clear":
        ended = replace(
            known, sentence=condition.sentence, value=condition.value, resolved_at=now, told_at=now
        )
        return Change("recovered", ended)
    seen = _seen(known, condition, now)
    if condition.state == "firing" and condition.rule.severity.rank > known.severity.rank:
        rule = condition.rule
        worse = replace(seen, rule=rule.name, severity=rule.severity, advice=rule.advice, told_at=now)
        return Change("escalated", worse)
    if now - known.told_at >= remind_after - min(CALM, remind_after / 2):
        return Change("reminded", replace(seen, told_at=now))
    return Change("seen", seen) if seen != known else None


def _seen(known: Incident, condition: Condition, now: datetime) -> Incident:
    if condition.evidence == known.evidence and condition.sentence == known.sentence:
        return known
    return replace(
        known,
        sentence=condition.sentence,
        since=condition.since or known.since,
        value=condition.value,
        limit=condition.limit,
        excess=condition.excess,
        evidence=condition.evidence,
        count=known.count + (condition.evidence != known.evidence),
        seen_at=now,
    )


def messages(changes: Sequence[Change], fold_above: int, now: datetime) -> Iterator[Message]:
    """The messages on changes; more than `fold_above` of one kind and rule are told as one.

    Args:
        changes: The changes, their incidents numbered.
        fold_above: Messages of one kind and rule at most.
        now: The time.
    """
    for kind in TOLD:
        of_kind = [change.incident for change in changes if change.kind == kind]
        for rule in dict.fromkeys(incident.rule for incident in of_kind):
            alike = [incident for incident in of_kind if incident.rule == rule]
            if len(alike) > fold_above:
                yield _together(kind, alike, now)
            else:
                yield from (_alone(kind, incident, now) for incident in alike)


def _alone(kind: Kind, incident: Incident, now: datetime) -> Message:
    subject = (
        f" {incident.subject}" if incident.level else f": {incident.subject}" if incident.subject else ""
    )
    return Message(
        kind,
        incident.severity,
        f"{_heading(kind, incident.severity)}: {incident.rule}{subject}",
        (_line(kind, incident),),
        "" if kind == "recovered" else incident.advice,
        now,
        (incident.incident_id,),
    )


def _together(kind: Kind, alike: Sequence[Incident], now: datetime) -> Message:
    ordered = sorted(alike, key=lambda incident: -incident.excess)
    severity = max((incident.severity for incident in alike), key=lambda one: one.rank)
    more = len(alike) - WORST_SHOWN
    rest = [f"… and {more:,} more; `turnover alerts list` shows all."] if more > 0 else []
    return Message(
        kind,
        severity,
        f"{_heading(kind, severity)}: {alike[0].rule} ({len(alike):,} at once)",
        (*(_line(kind, incident) for incident in ordered[:WORST_SHOWN]), *rest),
        "" if kind == "recovered" else alike[0].advice,
        now,
        tuple(incident.incident_id for incident in ordered),
    )


def _heading(kind: Kind, severity: Severity) -> str:
    name = severity.value.capitalize()
    return {
        "opened": name,
        "escalated": f"{name}, worse than before",
        "reminded": f"{name}, still so",
        "recovered": "Recovered",
        "test": "Test",
        "workbook": "Workbook",
    }[kind]


def _line(kind: Kind, incident: Incident) -> str:
    if kind == "recovered":
        since = f" It was wrong since {incident.since}." if incident.since else ""
        return f"{incident.sentence}{since}"
    if kind == "reminded":
        return (
            f"{incident.sentence} Told first on {incident.opened_at:%Y-%m-%d}, seen {incident.count:,} times."
        )
    return incident.sentence
