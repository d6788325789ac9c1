"""Who was champion when: the log of promotions and rollbacks, and what follows from it.

What belongs here: the log's entries, how they stand in the registered model's tags, and the line of
champions that they tell. What does not: moving an alias (champions.py) and deciding (core/gate.py).

The log is one tag for each change, named `champion.<when>`. It belongs to the registered model and not to a
version or a run, so it outlives both where old ones are deleted.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from turnover_assets.errors import TurnoverError

PREFIX = "champion."
WHEN = "%Y%m%dT%H%M%S.%f"  # sorts as text
LONGEST_REASON = 5000  # characters

Action = Literal["promoted", "rolled back", "found"]


@dataclass(frozen=True)
class Change:
    """One change of the champion.

    Attributes:
        action: `promoted`, `rolled back`, or `found` where the alias was moved by something else.
        version: The champion from then on.
        at: When, in UTC.
        by: `gate`, or the name of a person.
        reason: Why.
    """

    action: Action
    version: int
    at: datetime
    by: str
    reason: str

    def tag(self) -> tuple[str, str]:
        """Name and value of the tag that keeps it."""
        facts = {"action": self.action, "version": self.version, "by": self.by}
        return PREFIX + self.at.strftime(WHEN), json.dumps(facts | {"reason": self.reason[:LONGEST_REASON]})


@dataclass(frozen=True)
class Reign:
    """A stretch of time in which a version was champion.

    Attributes:
        change: How it became champion.
        until: When another one did; None where it still is.
    """

    change: Change
    until: datetime | None


def read_log(tags: Mapping[str, str]) -> list[Change]:
    """The log in a registered model's tags, oldest entry first; other tags are left alone.

    Raises:
        TurnoverError: An entry was changed so that it cannot be read.
    """
    return [_read(name, tags[name]) for name in sorted(tags) if name.startswith(PREFIX)]


def _read(name: str, value: str) -> Change:
    try:
        at = datetime.strptime(name.removeprefix(PREFIX), WHEN).replace(tzinfo=UTC)
        return Change(at=at, **json.loads(value))
    except (ValueError, TypeError):
        raise TurnoverError(
            f"The registered model's tag {name!r} ({value!r}) is no entry of the log of champions. Delete "
            "the tag in MLflow's page, or put back what stood in it."
        ) from None


def moment_after(log: Sequence[Change]) -> datetime:
    """Now, or just after the newest entry where the clock was set back."""
    now = datetime.now(UTC)
    return max(now, log[-1].at + timedelta(microseconds=1)) if log else now


def succession(log: Iterable[Change], present: Iterable[int] | None = None) -> list[int]:
    """The line of champions that a rollback goes back along; the last one is champion now.

    A promotion adds to the line, whatever stood in it before. A rollback takes the champion off it, and
    whatever lies between it and the one gone back to. So a rollback undoes the newest promotion that is not
    undone yet, and rollback after rollback goes further back.

    Args:
        log: The log, oldest entry first.
        present: Versions that still exist, where others are to be left out.

    Example:
        >>> at = datetime(2030, 1, 1, tzinfo=UTC)
        >>> steps = [("promoted", 1), ("promoted", 2), ("rolled back", 1), ("promoted", 3)]
        >>> succession([Change(action, version, at, "", "") for action, version in steps])
        [1, 3]
    """
    line: list[int] = []
    for change in log:
        if change.action == "rolled back" and line:
            line.pop()
        if change.action != "promoted" and change.version in line:
            while line[-1] != change.version:
                line.pop()
        elif line[-1:] != [change.version]:
            line.append(change.version)
    if present is None:
        return line
    there = set(present)
    kept = [version for version in line if version in there]
    return [
        version for position, version in enumerate(kept) if kept[position + 1 : position + 2] != [version]
    ]


def reigns(log: Sequence[Change]) -> list[Reign]:
    """Each stretch of time of each champion, oldest first."""
    ends = [*(change.at for change in log[1:]), None]
    return [Reign(change, until) for change, until in zip(log, ends, strict=False)]
