"""Rules against what happened: runs that failed, files refused, checks failed, data and forecasts late.

What belongs here: judging the rules on events from plain facts. What does not: gathering the facts
(defs/alert_facts.py).

All facts are looked at anew each time, as far back as they are kept; so nothing is lost where nobody looked
for a while, and looking twice changes nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from turnover_assets.core.alerts.conditions import Condition, worst
from turnover_assets.core.alerts.rules import Rule

LONGEST_ERROR = 300  # characters


@dataclass(frozen=True)
class RunEnd:
    """How a run ended.

    Attributes:
        run_id: The run.
        job: Its job.
        cause: What it was made for; empty where that is not known.
        ended_at: When it ended.
        succeeded: Whether it did what it should.
        attempt: Which attempt for its cause it was; None where it was not asked for by a sensor.
        mended: Whether what it was made for has been done since, whatever the runs say.
    """

    run_id: str
    job: str
    cause: str
    ended_at: datetime
    succeeded: bool
    attempt: int | None = None
    mended: bool = False

    @property
    def member(self) -> str:
        """Job and cause, by which failures are folded."""
        return f"{self.job} for {self.cause}" if self.cause else self.job


@dataclass(frozen=True)
class FileFate:
    """What became of a landed file.

    Attributes:
        name: Its name.
        key: Name and content.
        refused: Why it was refused; empty where it was accepted.
        is_there: Whether a file of that name still lies in the landing folder.
    """

    name: str
    key: str
    refused: str
    is_there: bool


@dataclass(frozen=True)
class CheckState:
    """How a check last ended.

    Attributes:
        name: Asset and check.
        passed: Whether it holds.
        message: What was found.
        evidence: Names the evaluation.
    """

    name: str
    passed: bool
    message: str
    evidence: str


def one_line(text: str, longest: int = LONGEST_ERROR) -> str:
    """A text on one line, without signs that cannot be printed, cut where it is too long."""
    words = "".join(sign if sign.isprintable() else " " for sign in text).split()
    line = " ".join(words)
    return line if len(line) <= longest else f"{line[: longest - 1].rstrip()}…"


def late_conditions(
    rules: Sequence[Rule],
    subject: str,
    last: datetime | None,
    now: datetime,
    windows: tuple[timedelta, timedelta],
    *,
    excused: bool = False,
) -> list[Condition]:
    """Judge the rules on lateness.

    Args:
        rules: The rules on one of data_late and forecast_late.
        subject: What is late, as `Data last landed`.
        last: When it last came; None where it never did, which is not late.
        now: The time.
        windows: Age from which it is late, and how much older it is a period later.
        excused: Whether something else is the cause, so that nothing new is told.

    Returns:
        One condition; none without rules, or where nothing ever came.
    """
    if not rules or last is None:
        return []
    late, period = windows
    age = now - last
    limits = {rule: late + (rule.periods - 1) * period for rule in rules}
    firing = [rule for rule, limit in limits.items() if age > limit]
    rule = worst(firing or rules)
    days, limit = age / timedelta(days=1), limits[rule] / timedelta(days=1)
    return [
        Condition(
            ("unknown" if excused else "firing") if firing else "clear",
            rule,
            "",
            "",
            f"{subject} {_days(days)} ago, on {last:%Y-%m-%d at %H:%M} UTC (limit {_days(limit)}).",
            evidence=f"{int(days)} days after {last.isoformat()}",
            since=f"{last + late:%Y-%m-%d}" if firing else "",
            value=days,
            limit=limit,
        )
    ]


def _days(days: float) -> str:
    return f"{round(days, 1):g} day{'' if round(days, 1) == 1 else 's'}"


def run_conditions(
    rules: Sequence[Rule],
    ends: Sequence[RunEnd],
    known: Mapping[str, tuple[str, str]],
    error_of: Callable[[str], str],
    attempts: int,
    by_cause: str,
    includes: Mapping[str, str],
) -> list[Condition]:
    """Judge the rules on failed runs.

    Failures end with the next success of their job, or of their cause where the job is `by_cause`: that one
    file landed does not mend another.

    Args:
        rules: The rules on run_failed.
        ends: How the newest runs ended, newest first.
        known: Evidence and sentence of each member whose failure has been told.
        error_of: Gives the error of a run; asked for news only.
        attempts: How many attempts a sensor makes for one cause.
        by_cause: The job that lands files.
        includes: For a job that does all that another does, and more, that other: it ends both's failures.
    """
    if not rules:
        return []
    newest: dict[str, RunEnd] = {}
    failures: dict[str, list[RunEnd]] = {}
    done: set[str] = set()  # jobs, and members, that succeeded later than the runs yet to come
    for end in ends:
        if end.succeeded:
            done |= {end.member} if end.job == by_cause else {end.job, includes.get(end.job, end.job)}
        elif not end.mended and end.member not in done and end.job not in done:
            failures.setdefault(end.member, []).append(end)
        else:
            newest.setdefault(end.member, end)
    found = [
        _failed(rules, failed, known.get(member), error_of, attempts) for member, failed in failures.items()
    ]
    mended = {*newest} | {member for member in known if member.split(" ")[0] in done}
    return found + [
        Condition("clear", rules[0], "", member, _succeeded(member), evidence="success")
        for member in sorted(mended - {*failures})
    ]


def _failed(
    rules: Sequence[Rule],
    failed: Sequence[RunEnd],
    known: tuple[str, str] | None,
    error_of: Callable[[str], str],
    attempts: int,
) -> Condition:
    last, count = failed[0], len(failed)
    firing = [rule for rule in rules if count >= rule.periods]
    told = known[1] if known and known[0] == last.run_id else ""
    return Condition(
        "firing" if firing else "holding",
        worst(firing or rules),
        "",
        last.member,
        told or _failure_sentence(last, count, attempts, error_of(last.run_id)),
        evidence=last.run_id,
        since=f"{failed[-1].ended_at:%Y-%m-%d %H:%M} UTC",
        value=float(count),
        excess=float(count),
    )


def _failure_sentence(last: RunEnd, count: int, attempts: int, error: str) -> str:
    if last.attempt:
        which = f" (attempt {last.attempt} of {max(attempts, last.attempt)})"
    else:
        which = f" ({count} times in a row)" if count > 1 else ""
    return f"The run {last.run_id[:8]} of {last.job} failed{which}: {one_line(error)}"


def _succeeded(member: str) -> str:
    return f"The job {member.split(' ')[0]} succeeded since."


def file_conditions(rules: Sequence[Rule], fates: Sequence[FileFate]) -> list[Condition]:
    """Judge the rules on refused files.

    It is over once a file of the same name was accepted, or is no longer in the landing folder.

    Args:
        rules: The rules on file_refused.
        fates: What became of the newest files, newest first.
    """
    newest: dict[str, FileFate] = {}
    for fate in fates:
        newest.setdefault(fate.name, fate)
    return [
        Condition(
            "firing" if fate.refused and fate.is_there else "clear",
            worst(rules),
            "",
            one_line(fate.name),
            _file_sentence(fate),
            evidence=fate.key,
        )
        for fate in newest.values()
        if rules
    ]


def _file_sentence(fate: FileFate) -> str:
    name = one_line(fate.name)
    if not fate.refused:
        return f"A file {name} was accepted since."
    if not fate.is_there:
        return f"The file {name} is no longer in the landing folder."
    return f"The file {name} was refused: {one_line(fate.refused)}"


def check_conditions(rules: Sequence[Rule], states: Sequence[CheckState]) -> list[Condition]:
    """Judge the rules on failed checks; a failure is over once the check holds again."""
    return [
        Condition(
            "clear" if state.passed else "firing",
            worst(rules),
            "",
            state.name,
            _check_sentence(state),
            evidence=state.evidence,
        )
        for state in states
        if rules
    ]


def _check_sentence(state: CheckState) -> str:
    if state.passed:
        return f"The check {state.name} holds again."
    return f"The check {state.name} failed: {one_line(state.message)}"
