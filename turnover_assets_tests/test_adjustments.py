"""Adjustments: who decides, and adjusted values against a plain re-computation, row by row."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date
from typing import Any

import duckdb
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from turnover_assets.core import adjustments as adjusting
from turnover_assets.core.adjustments import (
    COLUMNS,
    Adjustment,
    adjust,
    adjustments_table,
    decide,
    in_force,
    read_adjustments,
    write_adjustments,
)
from turnover_assets.core.anomalies import Finding
from turnover_assets.core.cleaning import content_version
from turnover_assets.core.ledger import Correction, Ledger, Veto
from turnover_assets.panel import PanelSpec
from turnover_assets_tests.factories import (
    daily,
    daily_history,
    default_history,
    default_panel,
    insert_frames,
    memory_warehouse,
    walmart_history,
    walmart_like,
)

DAY = date(2026, 11, 21)
STRENGTH = 5.0
Where = Mapping[str, Any]


def finding(**changes: Any) -> Finding:
    fields: dict[str, Any] = {
        "kind": "block",
        "where": {"department": 88},
        "since": 1310,
        "until": 1330,
        "ongoing": False,
        "factor": 2.0,
        "effect": math.log(2),
        "error": 0.05,
        "strength": 9.0,
        "remedy": "divide",
        "value": None,
        "rows": 40,
        "sentence": "Department 88 is reported at twice its level.",
    }
    return Finding(**fields | changes)


def veto(where: Where, since: int = 1300, until: int | None = 1400, when: date = DAY) -> Veto:
    return Veto(where, since, until, "no", "m.rossi", when)


def correction(
    where: Where,
    since: int = 1300,
    until: int | None = 1400,
    factor: float | None = 3.0,
    value: float | None = None,
    when: date = DAY,
) -> Correction:
    return Correction(where, since, until, "yes", "m.rossi", when, factor, value)


def statuses(found: Sequence[Finding], ledger: Ledger = Ledger()) -> dict[str, str]:  # noqa: B008
    return {str(a.finding_id): a.status for a in decide(found, ledger, STRENGTH) if a.origin == "detector"}


# Who decides -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("strength", "status"), [(5.0, "applied"), (4.99, "proposed")])
def test_a_finding_applies_by_itself_from_the_strength_set_on(strength: float, status: str) -> None:
    assert [*statuses([finding(strength=strength)]).values()] == [status]


def test_a_finding_without_a_remedy_gives_no_adjustment() -> None:
    assert decide([finding(remedy="none")], Ledger(), STRENGTH) == []


def test_an_adjustment_takes_only_what_its_remedy_needs() -> None:
    found = [
        finding(kind="block", ongoing=True),
        finding(kind="point", remedy="replace", value=7.0),
        finding(kind="zeros", remedy="empty", value=7.0),
    ]

    made = {a.kind: a for a in decide(found, Ledger(), STRENGTH)}

    assert (made["block"].remedy, made["block"].factor, made["block"].until) == ("divide", 2.0, None)
    assert (made["point"].remedy, made["point"].factor, made["point"].value) == ("replace", None, 7.0)
    assert (made["zeros"].remedy, made["zeros"].until) == ("empty", 1330)


SELECTORS = {
    "the same": ({"department": 88}, 1300, 1310, True),
    "a wider one": ({}, 1330, None, True),
    "a narrower one": ({"department": 88, "store": 2}, 1300, 1400, False),
    "another": ({"department": 73}, 1300, 1400, False),
    "before": ({"department": 88}, 1300, 1309, False),
    "after": ({"department": 88}, 1331, None, False),
}


@pytest.mark.parametrize(("where", "since", "until", "vetoed"), SELECTORS.values(), ids=SELECTORS.keys())
def test_a_veto_holds_where_it_covers_the_place_and_meets_the_period(
    where: Where, since: int, until: int | None, vetoed: bool
) -> None:
    (made,) = decide([finding()], Ledger(vetoes=(veto(where, since, until),)), STRENGTH)

    assert made.status == ("vetoed" if vetoed else "applied")
    assert (made.who, made.decided_on) == (("m.rossi", DAY) if vetoed else (None, None))


def test_a_stewards_entry_applies_and_overrules_what_it_covers_whole() -> None:
    weak, strong, longer = finding(strength=1.0), finding(since=1311), finding(since=1290, strength=1.0)
    entry = correction({"department": 88})

    made = decide([weak, strong, longer], Ledger(corrections=(entry,)), STRENGTH)

    assert statuses([weak, strong, longer], Ledger((entry,))) == {
        weak.finding_id: "overruled",
        strong.finding_id: "overruled",
        longer.finding_id: "proposed",
    }
    (own,) = [a for a in made if a.origin == "steward"]
    assert (own.status, own.factor, own.kind) == ("applied", 3.0, "divide")
    assert (own.finding_id, own.strength) == (strong.finding_id, strong.strength)


def test_a_backtest_knows_only_what_was_decided_by_its_cutoff() -> None:
    ledger = Ledger(
        (correction({"department": 88}, when=date(2020, 2, 1)),), (veto({}, when=date(2020, 1, 1)),)
    )

    early, between, late = (
        decide([finding()], ledger.known_by(date(2020, month, 1)), STRENGTH) for month in (1, 2, 3)
    )

    assert [a.status for a in early] == ["vetoed"]
    assert [a.status for a in decide([finding()], ledger.known_by(date(2019, 12, 31)), STRENGTH)] == [
        "applied"
    ]
    assert [(a.origin, a.status) for a in between] == [("steward", "applied"), ("detector", "vetoed")]
    assert between == late


@given(st.randoms(use_true_random=False))
def test_the_order_of_findings_and_entries_plays_no_part(random: Any) -> None:
    found = [finding(), finding(since=1311), finding(where={"store": 2}), finding(strength=9.5)]
    entries = [
        correction({"department": 88}),
        correction({}, when=date(2020, 1, 1)),
        correction({"store": 3}),
    ]
    vetoes = [veto({"store": 2}), veto({"store": 2}, when=date(2020, 1, 1))]
    expected = decide(found, Ledger(tuple(entries), tuple(vetoes)), STRENGTH)

    for items in (found, entries, vetoes):
        random.shuffle(items)

    assert decide(found, Ledger(tuple(entries), tuple(vetoes)), STRENGTH) == expected


# Adjusted values ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def panels() -> Iterator[dict[str, tuple[duckdb.DuckDBPyConnection, PanelSpec, pd.DataFrame]]]:
    """Three cleaned panels, and each one's rows with attributes as a frame, made once."""
    kinds: dict[str, tuple[Callable[[], PanelSpec], dict[str, pd.DataFrame]]] = {
        "default": (default_panel, default_history(periods=30)),
        "weeks labelled by their end": (walmart_like, walmart_history(periods=20)),
        "days": (daily, daily_history(periods=40)),
    }
    with memory_warehouse() as one, memory_warehouse() as two, memory_warehouse() as three:
        made = {}
        for (kind, (build, frames)), con in zip(kinds.items(), (one, two, three), strict=True):
            panel = build()
            insert_frames(con, panel, frames)
            joins = "".join(f" LEFT JOIN cleaned.{s.name} USING ({', '.join(s.keys)})" for s in panel.static)
            made[kind] = con, panel, con.execute(f"SELECT * FROM cleaned.{panel.series.name}{joins}").df()
        yield made


KINDS = ["default", "weeks labelled by their end", "days"]


@st.composite
def some_adjustments(draw: st.DrawFn, panel: PanelSpec, rows: pd.DataFrame) -> list[Adjustment]:
    """Adjustments on members that there are, some of them, of all kinds and statuses."""
    attributes = [column.name for table in panel.static for column in table.columns]
    first, last = int(rows["t"].min()), int(rows["t"].max())
    made = []
    selectors = [(), (panel.keys[-1],), panel.keys, *((name,) for name in attributes)]
    for number in range(draw(st.integers(0, 6))):
        names = draw(st.sampled_from(selectors))
        row = rows.iloc[draw(st.sampled_from([0, 0, len(rows) // 2, len(rows) - 1]))]
        where = {
            name: member.item() if hasattr(member := row[name], "item") else member
            for name in names
            if not pd.isna(row[name])
        }
        where = {n: int(m) if isinstance(m, float) and m.is_integer() else m for n, m in where.items()}
        since = draw(st.integers(first - 2, last + 1))
        factor, value = draw(
            st.sampled_from(
                [(2.0, None), (0.3, None), (-1.0, None), (None, 5.0), (None, 6.0), (None, 7.0), (None, None)]
            )
        )
        steward = draw(st.integers(0, 3)) == 0
        made.append(
            Adjustment(
                adjustment_id=f"{draw(st.integers(0, 99)):02}-{number}",
                status=draw(st.sampled_from([*["applied"] * 6, "proposed", "vetoed", "overruled"])),
                origin="steward" if steward else "detector",
                kind="block",
                where=where,
                since=since,
                until=draw(st.one_of(st.none(), st.integers(since, last + 2))),
                factor=factor,
                value=value,
                reason="",
                who=None,
                decided_on=None,
                effect=None,
                error=None,
                strength=float(draw(st.integers(1, 9))),
                rows=0,
                finding_id=None,
            )
        )
    return made


def those_that_hold(chosen: Sequence[Adjustment], row: Mapping[str, Any], t: int) -> list[Adjustment]:
    """The adjustments that apply to a series at a period, by looking at each; in order of their ids."""
    hits = [
        a
        for a in sorted(chosen, key=lambda a: a.adjustment_id)
        if a.status == "applied"
        and a.since <= t
        and (a.until is None or t <= a.until)
        and all(row[name] == member for name, member in a.where.items())
    ]
    stewards = [a for a in hits if a.origin == "steward"]
    return stewards or hits


def naive(chosen: Sequence[Adjustment], reported: float) -> float | None:
    if any(a.remedy == "empty" for a in chosen):
        return None
    if values := [a for a in chosen if a.remedy == "replace"]:
        return max(values, key=lambda a: (a.strength, [-ord(c) for c in a.adjustment_id])).value
    return reported / math.prod(a.factor for a in chosen if a.factor is not None)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, derandomize=True)
@given(data=st.data())
def test_adjusted_values_are_those_of_a_plain_recomputation(
    panels: Any, kind: str, data: st.DataObject
) -> None:
    con, panel, rows = panels[kind]
    chosen = data.draw(some_adjustments(panel, rows))
    last = data.draw(st.integers(int(rows["t"].min()), int(rows["t"].max())))

    adjust(con, panel, data.draw(st.permutations(chosen)), last)

    found = con.execute(f"SELECT * FROM adjusted ORDER BY {', '.join(panel.keys)}, t").df()
    expected = rows[rows["t"] <= last].sort_values([*panel.keys, "t"])
    assert found[panel.target].tolist() == expected[panel.target].tolist()
    for row, value, ids in zip(
        expected.to_dict("records"), found[f"{panel.target}_adjusted"], found["adjustment_id"], strict=True
    ):
        holding = those_that_hold(chosen, row, row["t"])
        wanted = naive(holding, row[panel.target])
        assert math.isnan(value) if wanted is None else value == pytest.approx(wanted, rel=1e-12, abs=0)
        assert (None if pd.isna(ids) else ids) == ("+".join(a.adjustment_id for a in holding) or None)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15, derandomize=True)
@given(data=st.data())
def test_the_scale_in_force_is_that_of_a_plain_recomputation(
    panels: Any, kind: str, data: st.DataObject
) -> None:
    con, panel, rows = panels[kind]
    chosen = data.draw(some_adjustments(panel, rows))
    ends = [a.until for a in chosen if a.until is not None]
    last = data.draw(st.sampled_from([int(rows["t"].max()), *ends]))

    found = in_force(con, panel, chosen, last)

    divided = [a for a in chosen if a.remedy == "divide" and a.until != last]  # what ends there is over
    series = rows.drop_duplicates(list(panel.keys)).sort_values(list(panel.keys)).to_dict("records")
    expected = [math.prod(a.factor or 1.0 for a in those_that_hold(divided, row, last)) for row in series]
    assert found[list(panel.keys)].to_dict("records") == [{k: row[k] for k in panel.keys} for row in series]
    assert found["factor_in_force"].tolist() == pytest.approx(expected, rel=1e-12)


def cleaned(con: duckdb.DuckDBPyConnection, panel: PanelSpec) -> pd.DataFrame:
    return con.execute(f"SELECT * FROM cleaned.{panel.series.name} ORDER BY {', '.join(panel.keys)}, t").df()


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=5, derandomize=True)
@given(data=st.data())
def test_reported_values_are_never_altered_and_everything_can_be_taken_back(
    panels: Any, kind: str, data: st.DataObject
) -> None:
    con, panel, rows = panels[kind]
    before, version = cleaned(con, panel), content_version(con, panel)
    chosen = data.draw(some_adjustments(panel, rows))

    adjusting.apply(con, panel, chosen)
    after, adjusted_version = cleaned(con, panel), content_version(con, panel)
    adjusting.apply(con, panel, data.draw(st.permutations(chosen)))
    again = content_version(con, panel)
    adjusting.apply(con, panel, [])

    others = [c for c in before.columns if c not in (f"{panel.target}_adjusted", "adjustment_id")]
    pd.testing.assert_frame_equal(after[others], before[others])
    assert again == adjusted_version
    assert (adjusted_version == version) == (after["adjustment_id"].isna().all())
    pd.testing.assert_frame_equal(cleaned(con, panel), before)
    assert content_version(con, panel) == version


def test_a_series_without_the_attribute_is_not_concerned(panels: Any) -> None:
    con, panel, _ = panels["default"]
    made = decide([], Ledger((correction({"region": 3}, 0, None),)), STRENGTH)

    adjust(con, panel, made)

    stores = con.execute(
        "SELECT DISTINCT store FROM adjusted WHERE adjustment_id IS NOT NULL ORDER BY 1"
    ).fetchall()
    assert stores == [(3,), (40,)]


# The table ---------------------------------------------------------------------------------------


def test_the_table_says_what_each_adjustment_did(panels: Any) -> None:
    con, panel, rows = panels["default"]
    first, last = int(rows["t"].min()), int(rows["t"].max())
    block = finding(since=first, until=last, ongoing=True, effect=float("nan"))
    weak = finding(
        where={"store": 2, "department": 73}, since=first, strength=1.0, remedy="replace", value=1.5
    )
    entry = correction({}, first, first + 1, factor=None)
    made = decide([block, weak], Ledger((entry,)), STRENGTH)

    adjusting.apply(con, panel, made)
    write_adjustments(con, panel, made)
    adjusting.apply(con, panel, [])

    table = con.execute("SELECT * FROM cleaned.adjustments").df()
    types = dict(
        con.execute("SELECT column_name, column_type FROM (DESCRIBE cleaned.adjustments)").fetchall()
    )
    assert types == COLUMNS
    shown = table.set_index("adjustment_id").to_dict("index")
    one, two, own = shown[block.finding_id], shown[weak.finding_id], shown[entry.correction_id]
    in_block, early = rows["department"] == 88, rows["t"] <= first + 1
    assert (one["rows"], two["rows"], own["rows"]) == ((in_block & ~early).sum(), weak.rows, early.sum())
    assert (one["status"], one["selector"], one["members"]) == (
        "applied",
        "department 88",
        '{"department": 88}',
    )
    assert pd.isna(one["until"])
    assert (two["status"], two["selector"], two["value"]) == ("proposed", "store 2, department 73", 1.5)
    assert (own["selector"], own["reason"], own["who"]) == ("all series", "yes", "m.rossi")
    assert con.execute("SELECT count(*) FROM cleaned.adjustments WHERE effect IS NULL").fetchall() == [(2,)]


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_written_is_read_again(panels: Any, kind: str) -> None:
    con, panel, rows = panels[kind]
    first, key = int(rows["t"].min()), panel.keys[0]
    member = rows[key].iloc[0]
    found = [finding(where={key: member}, since=first, until=first + 3), finding(where={}, ongoing=True)]
    made = decide(found, Ledger((correction({}, 9, None),), (veto({key: member}, first, None),)), STRENGTH)

    write_adjustments(con, panel, made)

    read = read_adjustments(panel, con.execute("SELECT * FROM cleaned.adjustments").df())
    assert read == [replace(a, rows=0) if a.status == "applied" else a for a in made]
    assert list(adjustments_table(panel, read).columns) == list(COLUMNS)


def test_without_adjustments_the_table_is_there_and_empty(panels: Any) -> None:
    con, panel, _ = panels["default"]

    write_adjustments(con, panel, [])

    assert read_adjustments(panel, con.execute("SELECT * FROM cleaned.adjustments").df()) == []
