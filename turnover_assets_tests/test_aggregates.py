"""Sums over series: coherent with their parts, against a loop, and what a missing report means."""

import math
from collections import defaultdict

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from turnover_assets.core.aggregates import MISSING, TOTAL, aggregate

amounts = st.integers(-1000, 1000).map(float)
series_rows = st.lists(
    st.tuples(
        st.integers(1, 3), st.sampled_from(["a", "b", None]), st.integers(10, 12), st.integers(1, 2),
        amounts, st.one_of(amounts, st.just(math.nan)),
    ),
    min_size=1,
    max_size=30,
)  # fmt: skip


def make_table(rows: list[tuple[int, str | None, int, int, float, float]]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["shop", "kind", "cutoff", "horizon", "forecast", "actual"])
    table["kind"] = table["kind"].astype(object)
    return table.assign(t=table["cutoff"] + table["horizon"], scale=2.0)


def sums_oracle(table: pd.DataFrame) -> dict[tuple[object, ...], list[float]]:
    """Forecast, actual and number of parts by level, member, cutoff and horizon, in a loop."""
    rows = list(table.itertuples())
    reported = {row.t for row in rows if not math.isnan(row.actual)}
    sums: dict[tuple[object, ...], list[float]] = defaultdict(lambda: [0.0, 0.0, 0])
    for row in rows:
        members = {
            "shop": str(row.shop),
            "kind": row.kind if isinstance(row.kind, str) else MISSING,
            TOTAL: "",
        }
        sold = 0.0 if math.isnan(row.actual) else row.actual
        for level, member in members.items():
            found = sums[level, member, row.cutoff, row.horizon]
            found[0] += row.forecast
            found[1] = found[1] + sold if row.t in reported else math.nan
            found[2] += 1
    return dict(sums)


@settings(max_examples=30)
@given(series_rows)
def test_sums_are_what_a_loop_adds_up(rows: list[tuple[int, str | None, int, int, float, float]]) -> None:
    table = make_table(rows)

    found = aggregate(table, ["shop", "kind"])

    keys = zip(found["level"], found["member"], found["cutoff"], found["horizon"], strict=True)
    values = found[["forecast", "actual", "parts"]].to_numpy(np.float64)
    expected = sums_oracle(table)
    keyed = dict(zip(keys, values.tolist(), strict=True))
    assert keyed.keys() == expected.keys()
    for key, value in expected.items():
        assert keyed[key] == pytest.approx(value, nan_ok=True)


@settings(max_examples=30)
@given(series_rows)
def test_every_level_adds_up_to_the_total(
    rows: list[tuple[int, str | None, int, int, float, float]],
) -> None:
    found = aggregate(make_table(rows), ["shop", "kind"])

    by_level = found.groupby(["level", "cutoff", "horizon"])[["forecast", "scale", "parts"]].sum()

    for level in ("shop", "kind"):
        pd.testing.assert_frame_equal(by_level.loc[level], by_level.loc[TOTAL])


def test_a_series_that_did_not_report_sold_nothing_where_others_reported() -> None:
    table = make_table([(1, "a", 10, 1, 5.0, 7.0), (2, "b", 10, 1, 5.0, math.nan)])

    found = aggregate(table, ["kind"]).set_index(["level", "member"])

    assert found["actual"].to_dict() == {("kind", "a"): 7.0, ("kind", "b"): 0.0, (TOTAL, ""): 7.0}


def test_a_period_that_nobody_has_reported_is_not_known() -> None:
    table = make_table([(1, "a", 10, 1, 5.0, 7.0), (1, "a", 10, 2, 5.0, math.nan)])

    found = aggregate(table, []).set_index("horizon")

    assert found["actual"].notna().to_dict() == {1: True, 2: False}


def test_members_are_text_also_where_a_missing_one_made_numbers_fractions() -> None:
    table = make_table([(1, "a", 10, 1, 5.0, 7.0)] * 3).assign(region=[4.0, math.nan, 12.0])

    found = aggregate(table, ["region"])

    assert set(found.loc[found["level"] == "region", "member"]) == {"4", "12", MISSING}


def test_a_sum_is_comparable_where_nearly_all_of_its_scale_is() -> None:
    rows = [(1, "a", 10, 1, 5.0, 7.0), (2, "b", 10, 1, 5.0, 7.0), (3, "b", 10, 1, 5.0, 7.0)]
    table = make_table(rows).assign(scale=[99.0, 1.0, 0.01], comparable=[True, False, True])

    found = aggregate(table, ["kind"]).set_index(["level", "member"])

    assert found["comparable"].to_dict() == {("kind", "a"): True, ("kind", "b"): False, (TOTAL, ""): True}
    assert "comparable" not in aggregate(table.drop(columns="comparable"), ["kind"])


def test_the_usual_error_of_a_period_is_that_of_its_sums() -> None:
    table = make_table([(1, "a", 10, 1, 5.0, 7.0), (2, "b", 10, 1, 5.0, 7.0), (1, "a", 10, 2, 5.0, 7.0)])

    found = aggregate(table.assign(season_error=[0.1, 0.1, 0.3]), ["kind"])

    assert found.groupby("horizon")["season_error"].unique().map(list).to_dict() == {1: [0.1], 2: [0.3]}
    assert "season_error" not in aggregate(table, ["kind"])


def test_rows_given_are_not_changed() -> None:
    table = make_table([(1, "a", 10, 1, 5.0, math.nan)])
    before = table.copy()

    aggregate(table, ["kind"])

    pd.testing.assert_frame_equal(table, before)
