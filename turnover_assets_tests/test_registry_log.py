"""The log of champions: the line that rollbacks go back along, and how it is kept in tags."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnover_assets.errors import TurnoverError
from turnover_assets.storage.champion_log import (
    LONGEST_REASON,
    Action,
    Change,
    moment_after,
    read_log,
    reigns,
    succession,
)

BEGIN = datetime(2030, 1, 1, 12, 30, 5, 7, tzinfo=UTC)


def logged(*steps: tuple[Action, int]) -> list[Change]:
    """A log with a change an hour."""
    return [
        Change(action, version, BEGIN + timedelta(hours=hour), "anna", f"step {hour}")
        for hour, (action, version) in enumerate(steps)
    ]


# The line of champions


@given(st.lists(st.one_of(st.integers(1, 5), st.none())))
def test_the_line_is_what_undoing_one_promotion_after_the_other_leaves(steps: Sequence[int | None]) -> None:
    line: list[int] = []
    done: list[tuple[Action, int]] = []
    for step in steps:  # a number promotes that version, None rolls back
        if step is None and len(line) > 1:
            line.pop()
            done.append(("rolled back", line[-1]))
        elif step is not None and line[-1:] != [step]:
            line.append(step)
            done.append(("promoted", step))

    assert succession(logged(*done)) == line


def test_a_rollback_after_a_rollback_goes_further_back() -> None:
    twice = logged(*[("promoted", n) for n in (1, 2, 3)], ("rolled back", 2), ("rolled back", 1))

    assert succession(twice[:3]) == [1, 2, 3]
    assert succession(twice[:4]) == [1, 2]
    assert succession(twice) == [1]


def test_a_promotion_by_hand_of_an_earlier_champion_is_undone_by_one_rollback() -> None:
    log = logged(("promoted", 1), ("promoted", 2), ("promoted", 1))

    assert succession(log) == [1, 2, 1]
    assert succession([*log, *logged(("rolled back", 2))]) == [1, 2]


@pytest.mark.parametrize(
    ("found", "line"), [(1, [1]), (2, [1, 2]), (7, [1, 2, 3, 7])], ids=["first", "before", "another"]
)
def test_an_alias_found_elsewhere_counts_as_rollback_where_it_was_champion_before(
    found: int, line: list[int]
) -> None:
    log = logged(("promoted", 1), ("promoted", 2), ("promoted", 3), ("found", found))

    assert succession(log) == line


def test_deleted_versions_are_left_out_of_the_line() -> None:
    log = logged(*[("promoted", n) for n in (1, 2, 1, 3)])

    assert succession(log, {1, 3}) == [1, 3]
    assert succession(log, set()) == []


def test_each_reign_ends_when_the_next_begins() -> None:
    log = logged(("promoted", 1), ("promoted", 2), ("rolled back", 1))

    found = [(reign.change.version, reign.until) for reign in reigns(log)]

    assert found == [(1, log[1].at), (2, log[2].at), (1, None)]
    assert reigns([]) == []


# Tags


@given(st.integers(1), st.text(), st.text(), st.datetimes(datetime(1000, 1, 1), timezones=st.just(UTC)))
def test_an_entry_is_read_as_it_was_kept(version: int, by: str, reason: str, at: datetime) -> None:
    change = Change("promoted", version, at, by, reason)

    assert read_log(dict([change.tag(), ("owner", "not ours")])) == [change]


def test_entries_are_read_in_the_order_of_their_time_and_long_reasons_are_cut() -> None:
    log = logged(("promoted", 1), ("promoted", 2))
    long = Change("promoted", 3, BEGIN + timedelta(days=1), "gate", "x" * 2 * LONGEST_REASON)

    found = read_log(dict(change.tag() for change in (long, *reversed(log))))

    assert [change.version for change in found] == [1, 2, 3]
    assert found[2].reason == "x" * LONGEST_REASON


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("champion.20300101T000000.000000", "promoted"),
        ("champion.20300101T000000.000000", '{"version": 1}'),
        ("champion.yesterday", '{"action": "promoted", "version": 1, "by": "a", "reason": "b"}'),
    ],
    ids=["no JSON", "lacks fields", "no time"],
)
def test_an_entry_that_was_changed_is_named_with_what_to_do(name: str, value: str) -> None:
    with pytest.raises(TurnoverError, match=rf"'{name}'.*Delete the tag"):
        read_log({name: value})


def test_a_change_comes_after_the_newest_one_even_if_the_clock_was_set_back() -> None:
    future = datetime.now(UTC) + timedelta(days=1)

    assert moment_after([Change("promoted", 1, future, "", "")]) > future
    assert abs(moment_after([]) - datetime.now(UTC)) < timedelta(minutes=1)
