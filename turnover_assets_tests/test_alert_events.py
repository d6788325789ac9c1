"""Rules on events, the pure part: failed runs, refused files, failed checks, lateness."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest

from turnover_assets.core.alerts.conditions import Condition
from turnover_assets.core.alerts.events import (
    CheckState,
    FileFate,
    RunEnd,
    check_conditions,
    file_conditions,
    late_conditions,
    one_line,
    run_conditions,
)
from turnover_assets_tests.alert_factories import NOW, rules_of

WINDOWS = (timedelta(days=9), timedelta(days=7))
LATE = rules_of(
    {"event": "data_late"}, {"event": "data_late", "periods": 2, "severity": "critical"}
).on_event("data_late")
FAILED = rules_of({"event": "run_failed", "severity": "critical"}).on_event("run_failed")


# Lateness -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("days", "state", "rule"),
    [
        pytest.param(8.9, "clear", None, id="in time"),
        pytest.param(9.1, "firing", "rule 1", id="late"),
        pytest.param(16.1, "firing", "rule 2", id="a period later"),
    ],
)
def test_lateness_grows_worse_a_period_later(days: float, state: str, rule: str | None) -> None:
    (found,) = late_conditions(LATE, "Data last landed", NOW - timedelta(days=days), NOW, WINDOWS)

    assert found.state == state
    assert rule in (None, found.rule.name)


def test_lateness_says_since_when_and_what_the_limit_is() -> None:
    (found,) = late_conditions(LATE, "Data last landed", NOW - timedelta(days=10), NOW, WINDOWS)

    assert found.sentence == "Data last landed 10 days ago, on 2026-11-13 at 06:05 UTC (limit 9 days)."
    assert found.since == "2026-11-22"


def test_what_never_came_is_not_late() -> None:
    assert late_conditions(LATE, "Data last landed", None, NOW, WINDOWS) == []


def test_what_has_another_cause_opens_nothing_but_still_ends() -> None:
    late, fresh = (
        late_conditions(LATE, "x", NOW - timedelta(days=days), NOW, WINDOWS, excused=True) for days in (20, 1)
    )

    assert [late[0].state, fresh[0].state] == ["unknown", "clear"]


# Runs -----------------------------------------------------------------------------------------------


def end(job: str, cause: str, ok: bool, minutes: float, **others: Any) -> RunEnd:
    return RunEnd(f"{job}-{cause}-{minutes}", job, cause, NOW - timedelta(minutes=minutes), ok, **others)


def judge(
    ends: Sequence[RunEnd], known: Mapping[str, tuple[str, str]] | None = None, rules: Any = FAILED
) -> dict[str, Condition]:
    ordered = sorted(ends, key=lambda one: one.ended_at, reverse=True)
    found = run_conditions(
        rules, ordered, known or {}, lambda run: f"error of {run}", 3, "ingest", {"retrain": "refresh"}
    )
    assert len({one.member for one in found}) == len(found)
    return {one.member: one for one in found}


def test_failures_of_one_cause_are_one_condition_that_names_the_attempt_and_the_error() -> None:
    ends = [end("refresh", "v1", False, minutes, attempt=attempt) for attempt, minutes in [(1, 9), (2, 5)]]

    found = judge(ends)

    assert list(found) == ["refresh for v1"]
    condition = found["refresh for v1"]
    assert condition.state == "firing"
    assert condition.evidence == "refresh-v1-5"
    assert condition.sentence == (
        "The run refresh- of refresh failed (attempt 2 of 3): error of refresh-v1-5"
    )


def test_a_run_started_by_hand_counts_how_often_it_failed() -> None:
    found = judge([end("refresh", "v1", False, 9), end("refresh", "v1", False, 5)])

    assert "failed (2 times in a row): " in found["refresh for v1"].sentence


def test_the_next_success_of_the_job_ends_it_whatever_its_cause() -> None:
    known = {"refresh for old": ("gone from the records", "It failed.")}

    found = judge([end("refresh", "v1", False, 9), end("refresh", "v2", True, 5)], known)

    assert {member: one.state for member, one in found.items()} == {
        "refresh for v1": "clear",
        "refresh for old": "clear",
    }


def test_a_job_that_does_all_that_another_does_ends_its_failures() -> None:
    found = judge([end("refresh", "v1", False, 9), end("retrain", "v1", True, 5)])

    assert found["refresh for v1"].state == "clear"


def test_another_job_ends_nothing() -> None:
    found = judge([end("retrain", "v1", False, 9), end("refresh", "v1", True, 5)])

    assert found["retrain for v1"].state == "firing"


def test_a_failure_after_a_success_is_a_failure() -> None:
    found = judge([end("refresh", "v1", True, 9), end("refresh", "v2", False, 5)])

    assert found["refresh for v2"].state == "firing"


def test_that_one_file_landed_does_not_mend_another() -> None:
    failed = end("ingest", "bad.csv@1", False, 9)

    assert judge([failed, end("ingest", "good.csv@2", True, 5)])["ingest for bad.csv@1"].state == "firing"
    assert judge([failed, end("ingest", "bad.csv@1", True, 5)])["ingest for bad.csv@1"].state == "clear"


def test_a_file_that_landed_otherwise_since_is_mended() -> None:
    found = judge([end("ingest", "bad.csv@1", False, 9, mended=True)])

    assert found["ingest for bad.csv@1"].state == "clear"


def test_the_error_of_a_failure_that_was_told_is_not_asked_for_again() -> None:
    failed = end("refresh", "v1", False, 5)

    found = judge([failed], {"refresh for v1": (failed.run_id, "As told.")})

    assert found["refresh for v1"].sentence == "As told."


def test_a_rule_may_wait_for_more_failures_in_a_row() -> None:
    patient = rules_of({"event": "run_failed", "periods": 2}).on_event("run_failed")

    once = judge([end("refresh", "v1", False, 5)], rules=patient)
    twice = judge([end("refresh", "v1", False, 9), end("refresh", "v1", False, 5)], rules=patient)

    assert (once["refresh for v1"].state, twice["refresh for v1"].state) == ("holding", "firing")


def test_without_a_rule_nothing_is_asked() -> None:
    assert judge([end("refresh", "v1", False, 5)], rules=()) == {}


# Files and checks -----------------------------------------------------------------------------------

REFUSED = rules_of({"event": "file_refused"}).on_event("file_refused")


@pytest.mark.parametrize(
    ("fates", "state", "sentence"),
    [
        pytest.param(
            [("no columns", True)], "firing", "The file a.csv was refused: no columns", id="refused"
        ),
        pytest.param(
            [("", True), ("no columns", True)], "clear", "A file a.csv was accepted since.", id="corrected"
        ),
        pytest.param(
            [("no columns", False)],
            "clear",
            "The file a.csv is no longer in the landing folder.",
            id="taken out",
        ),
        pytest.param(
            [("still none", True), ("", True)], "firing", "The file a.csv was refused: still none", id="again"
        ),
    ],
)
def test_a_refused_file_is_over_once_it_is_corrected_or_taken_out(
    fates: list[tuple[str, bool]], state: str, sentence: str
) -> None:
    newest_first = [
        FileFate("a.csv", f"a.csv@{n}", refused, there) for n, (refused, there) in enumerate(fates)
    ]

    (found,) = file_conditions(REFUSED, newest_first)

    assert (found.state, found.sentence, found.evidence) == (state, sentence, "a.csv@0")


def test_names_of_files_cannot_break_a_line() -> None:
    (found,) = file_conditions(REFUSED, [FileFate("a\nb\x1b[31m.csv", "k", "x\r\ny", True)])

    assert found.sentence == "The file a b [31m.csv was refused: x y"


def test_a_check_is_over_once_it_holds_again() -> None:
    rules = rules_of({"event": "check_failed"}).on_event("check_failed")

    bad, good = (
        check_conditions(rules, [CheckState("cleaned/x few_rejected", passed, "Found 9.", "run")])[0]
        for passed in (False, True)
    )

    assert (bad.state, bad.sentence) == ("firing", "The check cleaned/x few_rejected failed: Found 9.")
    assert (good.state, good.sentence) == ("clear", "The check cleaned/x few_rejected holds again.")


def test_a_long_error_is_cut() -> None:
    assert one_line("x" * 500).endswith("x…")
    assert len(one_line("x" * 500)) == 300
    assert one_line("as it is") == "as it is"


def test_times_are_of_the_moment_given() -> None:
    (found,) = late_conditions(LATE, "x", datetime(2026, 11, 1, tzinfo=NOW.tzinfo), NOW, WINDOWS)

    assert found.value == pytest.approx(22.25, abs=0.01)
