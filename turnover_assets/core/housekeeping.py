"""Housekeeping: what may be removed from a data home, and why the rest stays.

What belongs here: decisions on facts, and the account of what was removed. What does not: finding the facts
and removing anything (storage/housekeeping.py, storage/model_housekeeping.py, defs/run_housekeeping.py).

Invariant: whatever a decision does not name as kept is needed by nothing: no champion, no rollback, no
published snapshot, no sensor, no rebuild.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

ENDED = frozenset({"SUCCESS", "FAILURE", "CANCELED"})
SHOWN = 5  # names of removed things that an account shows


@dataclass(frozen=True)
class Policy:
    """How much is kept beyond what is needed.

    Attributes:
        run_days: Days for which a run's record and logs are kept, and those of a search for parameters.
        attempts: Newest runs of each job that are kept, since sensors count attempts on them.
        models: Newest model versions that are kept, and as many former champions to go back to.
        shadow_cutoffs: Newest cutoffs whose forecasts of challenger and baseline are kept.
        pages: Pages of monitoring that are kept.
        snapshots: Published snapshots that are kept.
    """

    run_days: int
    attempts: int
    models: int
    shadow_cutoffs: int
    pages: int
    snapshots: int


@dataclass(frozen=True)
class Sweep:
    """What housekeeping did to one kind of thing, or would do.

    Attributes:
        part: The kind of thing.
        removed: Names of what was removed.
        freed: Bytes that this freed.
        kept: How many were kept, by reason.
        note: What else a person should know.
    """

    part: str
    removed: tuple[str, ...] = ()
    freed: int = 0
    kept: Mapping[str, int] = field(default_factory=dict)
    note: str = ""

    def as_dict(self) -> dict[str, str | int]:
        """The account of it, for tables and programs."""
        return {
            "part": self.part,
            "removed": len(self.removed),
            "bytes": self.freed,
            "which": self.names(),
            "kept": self.reasons(),
            "note": self.note,
        }

    def names(self) -> str:
        """The first names of what was removed."""
        rest = len(self.removed) - SHOWN
        return ", ".join(self.removed[:SHOWN]) + (f" and {rest:,} more" if rest > 0 else "")

    def reasons(self) -> str:
        """What was kept and why."""
        return ", ".join(f"{count:,} {reason}" for reason, count in self.kept.items() if count)


@dataclass(frozen=True)
class RunFacts:
    """One run of a job.

    Attributes:
        run_id: Its id.
        job: Name of its job.
        status: Its status, such as `SUCCESS`; see ENDED.
        at: When it was last heard of, with a time zone.
    """

    run_id: str
    job: str
    status: str
    at: datetime


def runs_kept(
    runs: Sequence[RunFacts], needed: Mapping[str, str], policy: Policy, now: datetime
) -> dict[str, str]:
    """Why runs are kept, by id; those left out may be deleted.

    Args:
        runs: All runs.
        needed: Runs that something else names, and what that is.
        policy: How much to keep.
        now: The present moment.
    """
    since = now - timedelta(days=policy.run_days)
    newest_first = sorted(runs, key=lambda run: (run.at, run.run_id), reverse=True)
    found, seen = dict[str, str](), Counter[tuple[str, str]]()
    for run in newest_first:
        seen[run.job, ""] += 1
        seen[run.job, run.status] += 1
        if run.status not in ENDED:
            found[run.run_id] = "not ended"
        elif run.run_id in needed:
            found[run.run_id] = needed[run.run_id]
        elif seen[run.job, run.status] == 1 or seen[run.job, ""] <= policy.attempts:
            found[run.run_id] = "newest of their job"
        elif run.at >= since:
            found[run.run_id] = f"younger than {policy.run_days} days"
    return found


def versions_kept(
    versions: Sequence[int],
    aliases: Mapping[str, int],
    line: Sequence[int],
    published: Collection[int],
    newest: int,
) -> dict[int, str]:
    """Why model versions are kept, by number; those left out may be deleted.

    The newest one is always kept, since the number of a version must never be given twice.

    Args:
        versions: Numbers of all versions.
        aliases: What points to a version, by alias.
        line: The line of champions that a rollback goes back along; the last one is champion.
        published: Versions whose forecasts were published and are kept.
        newest: How many of the newest versions, and of the line, are kept.
    """
    reasons = [
        *((number, alias) for alias, number in aliases.items()),
        *((number, "to go back to") for number in line[-newest - 1 :]),
        *((number, "named by published forecasts") for number in published),
        *((number, "newest") for number in sorted(versions)[-max(1, newest) :]),
    ]
    found: dict[int, str] = {}
    for number, reason in reasons:
        if number in versions:
            found.setdefault(number, reason)
    return found


@dataclass(frozen=True)
class SearchFacts:
    """One search for parameters.

    Attributes:
        run_id: Id of its MLflow run.
        candidate: What it searched parameters of.
        accepted: Whether trainings were to use what it found.
        ended: Whether it has ended.
        at: When it began, with a time zone.
    """

    run_id: str
    candidate: str
    accepted: bool
    ended: bool
    at: datetime


def searches_kept(searches: Iterable[SearchFacts], policy: Policy, now: datetime) -> dict[str, str]:
    """Why searches are kept with their trials, by run id; those left out may be deleted."""
    since = now - timedelta(days=policy.run_days)
    found, in_use = dict[str, str](), set[str]()
    for search in sorted(searches, key=lambda search: search.at, reverse=True):
        if search.accepted and search.candidate not in in_use:
            in_use.add(search.candidate)
            found[search.run_id] = "in use"
        elif search.at >= since:
            found[search.run_id] = f"younger than {policy.run_days} days" if search.ended else "under way"
    return found


def by_reason(kept: Mapping[Any, str]) -> dict[str, int]:
    """How many things are kept for each reason."""
    return dict(sorted(Counter(kept.values()).items()))
