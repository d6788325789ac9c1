"""A steward's word on what detectors found: accepting it, or saying that they are mistaken.

What belongs here: what is published and how it will stand after the next run, and entering a decision into
the ledger. What does not: what follows from an entry (core/adjustments.py), and writing the file (ledger.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, Literal

from turnover_assets.core.adjustments import Adjustment, read_adjustments, settle
from turnover_assets.core.calendar import label_of
from turnover_assets.errors import LedgerMovedError, TurnoverError, UnknownNameError
from turnover_assets.settings import Settings
from turnover_assets.storage.ledger import add_entry, read_ledger
from turnover_assets.storage.snapshots import Snapshot

ATTEMPTS = 5  # to decide on a ledger that others change at the same time
TABLE = "adjustments"


class DecidedMeanwhileError(TurnoverError):
    """An adjustment that stands otherwise than whoever decides on it has seen.

    Args:
        now: How it stands.
    """

    def __init__(self, now: Adjustment) -> None:
        self.now = now
        by = f" by {now.who}" if now.who else ""
        super().__init__(
            f"This adjustment is {now.status} now{by}: it was decided on since you looked. Nothing was "
            "written; look at it again."
        )


@dataclass(frozen=True)
class Word:
    """A steward's decision.

    Attributes:
        verdict: `accept`, or `veto`.
        who: The steward.
        reason: Why.
        factor: Reported over true value, in place of the finding's; with `accept` only.
    """

    verdict: Literal["accept", "veto"]
    who: str
    reason: str
    factor: float | None = None


def published_adjustments(snapshot: Snapshot, settings: Settings) -> list[Adjustment]:
    """The adjustments of a snapshot; none where it is of a release that had none."""
    if TABLE not in snapshot.facts["tables"]:
        return []
    return read_adjustments(settings.panel_spec, snapshot.read(TABLE))


def coming_adjustments(settings: Settings, known: Sequence[Adjustment]) -> list[Adjustment]:
    """What the ledger as it is now makes of published adjustments: how they stand after the next run.

    Raises:
        LedgerError: The ledger is not valid.
    """
    return _coming(settings, known)[0]


def _coming(settings: Settings, known: Sequence[Adjustment]) -> tuple[list[Adjustment], str]:
    """The same, and the version of the ledger."""
    ledger = read_ledger(settings.ledger_path, settings.panel_spec)
    rows = {a.adjustment_id: a.rows for a in known}
    detected = [a for a in known if a.origin == "detector"]
    settled = settle(detected, ledger, settings.adjustment_strength)
    return [replace(a, rows=rows.get(a.adjustment_id, 0)) for a in settled], ledger.version


def find_detected(settings: Settings, known: Sequence[Adjustment], beginning: str) -> Adjustment:
    """The one detector's adjustment whose id begins so.

    Raises:
        TurnoverError: There is none, or there are several; or it is an entry of the ledger itself.
    """
    detected = {a.adjustment_id: a for a in known if a.origin == "detector"}
    if any(a.adjustment_id.startswith(beginning) for a in known if a.origin == "steward"):
        raise TurnoverError(
            f"{beginning!r} is an entry of the ledger itself. Change it there: {settings.ledger_path}"
        )
    chosen = [a for name, a in detected.items() if name.startswith(beginning)]
    if not chosen:
        raise UnknownNameError("detector's adjustment", beginning, list(detected) or ["none"])
    if len(chosen) > 1:
        names = ", ".join(sorted(a.adjustment_id for a in chosen))
        raise TurnoverError(f"{beginning!r} may be any of {names}. Give more of the id.")
    return chosen[0]


def enter(settings: Settings, found: Adjustment, word: Word, expected: str | None = None) -> str:
    """Write a decision on a detector's adjustment into the ledger; it applies from the next run on.

    Args:
        settings: The settings.
        found: The adjustment.
        word: The decision.
        expected: Version of the ledger that it was decided on; any where left out.

    Returns:
        The text that was added.

    Raises:
        TurnoverError: It could not be entered; nothing is written.
    """
    panel = settings.panel_spec
    fields = {
        **({"where": found.where} if found.where else {"all": True}),
        "since": label_of(panel, found.since),
        "until": None if found.until is None else label_of(panel, found.until),
        **(_remedy(found, word.factor) if word.verdict == "accept" else {}),
        "reason": word.reason,
        "who": word.who,
        "when": date.today(),
    }
    kind: Literal["adjustment", "veto"] = "adjustment" if word.verdict == "accept" else "veto"
    return add_entry(settings.ledger_path, panel, kind, fields, expected)


def enter_if_unchanged(
    settings: Settings, known: Sequence[Adjustment], found: Adjustment, seen: str, word: Word
) -> str:
    """The same, unless the adjustment stands otherwise by now than the steward has seen.

    Args:
        settings: The settings.
        known: The published adjustments.
        found: The one that is decided on.
        seen: The status that the steward has seen.
        word: The decision.

    Raises:
        DecidedMeanwhileError: It stands otherwise; nothing is written.
        TurnoverError: It could not be entered; nothing is written.
    """
    for attempt in range(ATTEMPTS):
        coming, version = _coming(settings, known)
        now = next(a for a in coming if a.adjustment_id == found.adjustment_id)
        if now.status != seen:
            raise DecidedMeanwhileError(now)
        try:
            return enter(settings, found, word, version)
        except LedgerMovedError:  # another entry, most likely on something else
            if attempt == ATTEMPTS - 1:
                raise
    raise AssertionError("the last attempt returns or raises")


def _remedy(found: Adjustment, factor: float | None) -> Mapping[str, Any]:
    if factor is not None:
        return {"factor": factor}
    if found.remedy == "empty":
        return {"missing": True}
    return {"factor": found.factor, "value": found.value}
