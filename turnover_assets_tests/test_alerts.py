"""Alerts, the pure part: which conditions hold, how they fold into incidents, and what the messages say."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnover_assets.core.alerts.channels import Severity
from turnover_assets.core.alerts.conditions import Condition, conditions
from turnover_assets.core.alerts.incidents import Change, Incident, Message, fold, messages
from turnover_assets.core.alerts.rules import AlertRules, Rule
from turnover_assets.panel import default_panel
from turnover_assets_tests.alert_factories import NEWEST, NOW, WEEK, measured, rules_of, weeks
from turnover_assets_tests.factories import daily

PANEL = default_panel()
COVERAGE = {"measure": "coverage_80", "below": 0.7, "periods": 3}
REMIND = timedelta(days=7)


def judge(rules: AlertRules, table: pd.DataFrame, cutoffs: Sequence[date] | None = None) -> list[Condition]:
    return conditions(rules.rules, table, weeks(10) if cutoffs is None else cutoffs, PANEL)


def one(rules: AlertRules, table: pd.DataFrame) -> Condition:
    (found,) = judge(rules, table)
    return found


# Conditions -----------------------------------------------------------------------------------------


def test_a_condition_is_a_sentence_that_a_manager_reads() -> None:
    found = one(rules_of(COVERAGE), measured({"": [0.612, 0.65, 0.69, 0.8]}))

    assert found.state == "firing"
    assert found.since == "2017-05-27"
    assert (found.value, found.limit) == (0.612, 0.7)
    assert found.sentence == (
        "Coverage of the 80 % interval is 61.2 % in total for 3 weeks in a row (limit 70 %)."
    )


@pytest.mark.parametrize(
    ("values", "state"),
    [
        pytest.param([0.6, 0.6, 0.6], "firing", id="as long as asked"),
        pytest.param([0.6, 0.6, 0.9], "holding", id="not so long yet"),
        pytest.param([0.6, 0.6, None, 0.6], "holding", id="a gap breaks the row"),
        pytest.param([0.9, 0.6, 0.6, 0.6], "clear", id="over"),
        pytest.param([0.7, 0.6, 0.6, 0.6], "clear", id="at the limit is within"),
        pytest.param([None, 0.6, 0.6, 0.6], "unknown", id="missing at the newest cutoff"),
        pytest.param([float("nan"), 0.6, 0.6, 0.6], "unknown", id="no number at the newest cutoff"),
    ],
)
def test_a_rule_fires_once_it_held_for_as_many_cutoffs_in_a_row(
    values: list[float | None], state: str
) -> None:
    assert one(rules_of(COVERAGE), measured({"": values})).state == state


@given(
    st.lists(st.sampled_from([0.5, 0.9, None]), min_size=1, max_size=8),
    st.integers(min_value=1, max_value=5),
)
def test_states_agree_with_looking_at_each_cutoff_by_hand(values: list[float | None], periods: int) -> None:
    found = judge(rules_of({**COVERAGE, "periods": periods}), measured({"": values, "x": [0.9]}))

    newest = [value is not None and value < 0.7 for value in values[:periods]]
    if not any(value is not None for value in values):
        return  # never measured: there is no condition
    expected = "firing" if len(newest) == periods and all(newest) else "holding" if newest[0] else "clear"
    if values[0] is None:
        expected = "unknown"
    assert next(one for one in found if one.member == "").state == expected


@pytest.mark.parametrize(
    ("rule", "value", "sentence"),
    [
        pytest.param(
            {"measure": "bias", "above": 0.1, "below": -0.1},
            -0.123,
            "Bias is -12.3 % in total (limits -10 % and 10 %).",
            id="two limits",
        ),
        pytest.param(
            {"measure": "wape_over_promised", "above": 1.25},
            1.5,
            "The error over the promised one, both against seasonal naive, is 1.5 in total (limit 1.25).",
            id="a ratio",
        ),
        pytest.param(
            {"measure": "refused_files", "above": 0},
            2.0,
            "The number of files refused is 2 in total (limit 0).",
            id="a count",
        ),
    ],
)
def test_values_read_as_what_they_are(rule: dict[str, Any], value: float, sentence: str) -> None:
    assert one(rules_of(rule), measured({"": [value]}, rule["measure"])).sentence == sentence


def test_a_level_means_each_of_its_members_and_a_member_only_itself() -> None:
    table = measured({"3": [0.5], "12": [0.6]}, level="department")
    rule = {"measure": "coverage_80", "below": 0.7}

    each = judge(rules_of({**rule, "scope": "department"}), table)
    only = judge(rules_of({**rule, "scope": {"department": 12}}), table)
    total = judge(rules_of(rule), table)

    assert {found.member for found in each} == {"3", "12"}
    assert [found.sentence for found in only] == [
        "Coverage of the 80 % interval is 60.0 % for department 12 (limit 70 %)."
    ]
    assert total == []


def test_cutoffs_that_were_not_published_are_not_called_periods() -> None:
    days = [NEWEST, NEWEST - 2 * WEEK, NEWEST - 3 * WEEK]
    table = measured({"": [0.5, None, 0.5, 0.5]})

    (found,) = judge(rules_of(COVERAGE), table, days)

    assert "at 3 cutoffs in a row, since 2017-05-20" in found.sentence


def test_days_are_called_days() -> None:
    days = [NEWEST - timedelta(days=n) for n in range(3)]
    table = pd.DataFrame(
        [("coverage_80", "total", "", day, 0.5) for day in days],
        columns=["measure", "level", "member", "cutoff", "value"],
    )

    (found,) = conditions(rules_of(COVERAGE).rules, table, days, daily())

    assert "for 3 days in a row" in found.sentence


def test_the_stricter_rule_speaks_where_both_fire() -> None:
    rules = rules_of(
        {"measure": "wape_over_promised", "above": 1.25, "periods": 2},
        {"measure": "wape_over_promised", "above": 2, "severity": "critical"},
    )

    mild = one(rules, measured({"": [1.5, 1.5]}, "wape_over_promised"))
    bad = one(rules, measured({"": [2.5, 1.5]}, "wape_over_promised"))

    assert (mild.rule.name, bad.rule.name) == ("rule 1", "rule 2")
    assert mild.rule.family == bad.rule.family


def test_nothing_measured_gives_no_conditions() -> None:
    assert judge(rules_of(COVERAGE), measured({}), []) == []


# Folding --------------------------------------------------------------------------------------------


def step(
    open_now: Sequence[Incident], rules: AlertRules, table: pd.DataFrame, now: datetime, newest: date
) -> tuple[list[Change], list[Incident]]:
    """One evaluation: the changes, and the incidents open afterwards."""
    found = conditions(rules.rules, table, weeks(10, newest), PANEL)
    changes = fold(open_now, found, rules.rules, now, REMIND)
    after = {incident.place: incident for incident in open_now}
    for number, change in enumerate(changes, 1):
        incident = replace(change.incident, incident_id=change.incident.incident_id or number)
        after[incident.place] = incident
    return changes, [incident for incident in after.values() if incident.resolved_at is None]


def run_through(values: Sequence[float | None], rules: AlertRules, days: float = 7.0) -> list[str]:
    """Kinds of change at each of some weekly evaluations, oldest value first; '' for none."""
    open_now: list[Incident] = []
    kinds = []
    for week in range(len(values)):
        newest = NEWEST + week * WEEK
        table = measured({"": [*reversed(values[: week + 1])]}, newest=newest)
        at = NOW + timedelta(days=days * week)
        changes, open_now = step(open_now, rules, table, at, newest)
        kinds.append(" ".join(change.kind for change in changes))
    return kinds


QUICK = rules_of({"measure": "coverage_80", "below": 0.7})


@pytest.mark.parametrize(
    ("values", "kinds"),
    [
        pytest.param([0.9, 0.6, 0.9], ["", "opened", "recovered"], id="opens and ends once"),
        pytest.param([0.6, None, 0.6], ["opened", "", "seen"], id="missing neither opens nor ends"),
        pytest.param([None, None, 0.9], ["", "", ""], id="missing opens nothing"),
        pytest.param([0.6, 0.9, 0.6], ["opened", "recovered", "opened"], id="again is another one"),
    ],
)
def test_an_incident_is_open_while_its_rule_holds(values: list[float | None], kinds: list[str]) -> None:
    assert run_through(values, QUICK, days=1) == kinds


def test_an_open_incident_is_recalled_once_a_reminder_is_due() -> None:
    assert run_through([0.6] * 4, QUICK, days=3) == ["opened", "seen", "seen", "reminded"]


def test_a_weekly_evaluation_recalls_each_week_though_it_comes_minutes_early() -> None:
    assert run_through([0.6] * 3, QUICK, days=6.99) == ["opened", "reminded", "reminded"]


def test_an_incident_that_opened_late_stays_open_until_it_is_over() -> None:
    rules = rules_of({**COVERAGE, "periods": 2})

    assert run_through([0.6, 0.6, None, 0.6, 0.8], rules, days=1) == ["", "opened", "", "seen", "recovered"]


ESCALATING = rules_of(
    {"measure": "coverage_80", "below": 0.7},
    {"measure": "coverage_80", "below": 0.5, "severity": "critical"},
)


def test_it_grows_worse_once_and_not_again_where_values_swing() -> None:
    values = [0.6, 0.4, 0.6, 0.4, 0.8]

    assert run_through(values, ESCALATING, days=1) == ["opened", "escalated", "seen", "seen", "recovered"]


def test_the_same_evidence_again_changes_nothing_and_does_not_count() -> None:
    table = measured({"": [0.6]})
    _, open_now = step([], QUICK, table, NOW, NEWEST)

    changes, after = step(open_now, QUICK, table, NOW + timedelta(hours=1), NEWEST)

    assert changes == []
    assert [incident.count for incident in after] == [1]


def test_seen_with_a_new_cutoff_it_counts() -> None:
    _, first = step([], QUICK, measured({"": [0.6]}), NOW, NEWEST)
    newer = measured({"": [0.5, 0.6]}, newest=NEWEST + WEEK)

    _, second = step(first, QUICK, newer, NOW + timedelta(days=1), NEWEST + WEEK)

    assert [(one.count, one.value, one.since) for one in second] == [(2, 0.5, "2017-06-10")]


def test_a_rule_that_was_taken_out_ends_its_incidents_without_a_word() -> None:
    table = measured({"3": [0.5], "12": [0.6]}, level="department")
    both = rules_of({"measure": "coverage_80", "below": 0.7, "scope": "department"})
    _, open_now = step([], both, table, NOW, NEWEST)
    narrower = rules_of({"measure": "coverage_80", "below": 0.7, "scope": {"department": 3}})

    changes, after = step(open_now, narrower, table, NOW, NEWEST)

    assert [(change.kind, change.incident.member) for change in changes] == [("dropped", "12")]
    assert [incident.member for incident in after] == ["3"]
    assert list(messages(changes, 10, NOW)) == []


@given(st.lists(st.sampled_from([0.4, 0.6, 0.9, None]), min_size=1, max_size=12))
def test_whatever_values_come_incidents_open_and_end_in_turn(values: list[float | None]) -> None:
    kinds = " ".join(run_through(values, ESCALATING, days=0.1)).split()

    told = [kind for kind in kinds if kind in ("opened", "recovered")]
    assert told == [("opened", "recovered")[n % 2] for n in range(len(told))]
    assert kinds.count("escalated") <= kinds.count("opened")


# Messages -------------------------------------------------------------------------------------------


def changes_of(kind: Any, members: dict[str, float], rule: Rule | None = None) -> list[Change]:
    rules = rules_of({"measure": "coverage_80", "below": 0.7, "scope": "department", "advice": "Look."})
    table = measured({member: [value] for member, value in members.items()}, level="department")
    opened = fold([], judge(rules, table), rules.rules, NOW, REMIND)
    return [
        Change(kind, replace(change.incident, incident_id=n, excess=change.incident.excess))
        for n, change in enumerate(opened, 1)
    ]


def test_a_message_says_what_is_wrong_and_what_to_do() -> None:
    (found,) = messages(changes_of("opened", {"12": 0.6}), 10, NOW)

    assert found.title == "Warning: rule 1 for department 12"
    assert found.text == "Coverage of the 80 % interval is 60.0 % for department 12 (limit 70 %).\nLook."
    assert (found.severity, found.incidents) == (Severity.WARNING, (1,))


@pytest.mark.parametrize(
    ("kind", "title", "line"),
    [
        ("escalated", "Warning, worse than before: rule 1 for department 12", "(limit 70 %)."),
        (
            "reminded",
            "Warning, still so: rule 1 for department 12",
            "Told first on 2026-11-23, seen 1 times.",
        ),
        ("recovered", "Recovered: rule 1 for department 12", "It was wrong since 2017-06-10."),
    ],
)
def test_each_kind_of_message_says_why_it_comes(kind: str, title: str, line: str) -> None:
    (found,) = messages(changes_of(kind, {"12": 0.6}), 10, NOW)

    assert found.title == title
    assert found.lines[0].endswith(line)


def test_many_at_once_are_one_message_with_the_worst_first() -> None:
    members = {str(n): 0.69 - n / 100 for n in range(14)}

    (found,) = messages(changes_of("opened", members), 10, NOW)

    assert found.title == "Warning: rule 1 (14 at once)"
    assert "for department 13 " in found.lines[0]
    assert len(found.lines) == 11
    assert found.lines[-1] == "… and 4 more; `turnover alerts list` shows all."
    assert sorted(found.incidents) == list(range(1, 15))


def test_as_many_as_may_be_are_told_each_by_itself() -> None:
    assert len(list(messages(changes_of("opened", {str(n): 0.6 for n in range(10)}), 10, NOW))) == 10


def test_what_is_only_seen_is_not_told() -> None:
    assert list(messages(changes_of("seen", {"1": 0.5}), 10, NOW)) == []


def test_a_message_survives_being_plain_data() -> None:
    (found,) = messages(changes_of("opened", {"ü <x>": 0.6}), 10, NOW)

    assert Message.from_dict(found.as_dict()) == found
