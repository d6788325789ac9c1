"""Windows: their rows against a slow computation, and which cutoffs are chosen, by brute force."""

from collections.abc import Iterator
from itertools import pairwise, product

import duckdb
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from turnover_assets.core.calendar import index_of
from turnover_assets.core.cutoffs import first_period, last_period
from turnover_assets.core.metrics import MINIMUM_SEASONAL_PAIRS
from turnover_assets.core.rows import RowLimits
from turnover_assets.core.windows import Window, make_windows, recent_cutoffs, with_evidence_before
from turnover_assets.errors import NothingToForecastError
from turnover_assets.panel import PanelSpec, default_panel
from turnover_assets_tests.backtest_factories import LIMITS, NOBODY, put_periods
from turnover_assets_tests.factories import (
    daily,
    daily_history,
    default_history,
    insert_frames,
    make_panel,
    memory_warehouse,
)

PANEL = default_panel()
FRAMES = default_history()
Values = dict[tuple[object, ...], dict[int, float]]
PERIODS = {week: index_of(PANEL, pd.Timestamp(week).date()) for week in FRAMES["turnover"]["week"].unique()}
LAST = max(PERIODS.values())
VALUES: Values = {
    key: dict(zip(rows["week"].map(PERIODS), rows["turnover"], strict=True))
    for key, rows in FRAMES["turnover"].groupby(["store", "department"])
}


@pytest.fixture(scope="module")
def weekly() -> Iterator[duckdb.DuckDBPyConnection]:
    """The default panel's history, cleaned."""
    with memory_warehouse() as con:
        insert_frames(con, PANEL, FRAMES)
        yield con


def window_at(
    con: duckdb.DuckDBPyConnection, cutoff: int, dense: int = 1, limits: RowLimits = LIMITS
) -> Window:
    return next(make_windows(con, PANEL, [cutoff], limits, NOBODY, dense))


def is_alive(values: dict[int, float], cutoff: int) -> bool:
    return any(cutoff - LIMITS.alive < t <= cutoff for t in values)


def keyed(window: Window, rows: pd.DataFrame) -> dict[tuple[object, ...], float]:
    """What was reported, by series, cutoff and horizon."""
    table = rows.merge(window.series[["series_id", *PANEL.keys]], on="series_id")
    keys = table[[*PANEL.keys, "cutoff", "horizon"]].itertuples(index=False, name=None)
    return dict(zip(keys, table["reported"], strict=True))


# Rows


@pytest.mark.parametrize("back", [8, 3, 0], ids=["a horizon back", "outcomes partly known", "newest"])
def test_the_series_alive_at_the_cutoffs_are_scored_against_what_was_reported(
    weekly: duckdb.DuckDBPyConnection, back: int
) -> None:
    dense = range(LAST - back, min(LAST - back + 4, LAST + 1))

    window = window_at(weekly, LAST - back, dense=4)

    expected = {
        (*key, cutoff, h): values.get(cutoff + h, np.nan)
        for key, values in VALUES.items()
        for cutoff, h in product(dense, range(1, PANEL.horizon + 1))
        if is_alive(values, cutoff)
    }
    found = keyed(window, window.scoring.identity)
    assert found.keys() == expected.keys()
    np.testing.assert_array_equal([found[key] for key in expected], list(expected.values()))
    order = window.scoring.identity[["series_id", "cutoff", "horizon"]]
    assert order.equals(order.sort_values(list(order)))


def test_training_rows_are_all_whose_outcome_was_known_at_the_cutoff(
    weekly: duckdb.DuckDBPyConnection,
) -> None:
    cutoff = LAST - 20

    window = window_at(weekly, cutoff, dense=PANEL.horizon)

    expected = {
        (*key, past, h): values[past + h]
        for key, values in VALUES.items()
        for past, h in product(range(min(values), cutoff), range(1, PANEL.horizon + 1))
        if past + h <= cutoff and past + h in values and is_alive(values, past)
    }
    assert keyed(window, window.training.identity) == pytest.approx(expected)


def test_the_bound_of_training_rows_holds(weekly: duckdb.DuckDBPyConnection) -> None:
    window = window_at(weekly, LAST - 8, limits=RowLimits(share=1.0, max_rows=1000, alive=4))

    assert 500 < len(window.training) <= 1000


def naive_mae(values: dict[int, float], cutoff: int) -> float:
    """Mean absolute error of the naive forecast up to a cutoff, a pair at a time."""
    for distance, least in ((52, MINIMUM_SEASONAL_PAIRS), (1, 1)):
        errors = [
            abs(y - values[t - distance]) for t, y in values.items() if t <= cutoff and t - distance in values
        ]
        if len(errors) >= least:
            return sum(errors) / len(errors)
    return float("nan")


def test_the_facts_of_a_series_are_those_of_the_cutoff(weekly: duckdb.DuckDBPyConnection) -> None:
    cutoff = LAST - 30

    facts = window_at(weekly, cutoff).series

    expected = [
        {"store": s, "department": d, "first_t": min(v), "naive_mae": naive_mae(v, cutoff)}
        for (s, d), v in VALUES.items()
        if min(v) <= cutoff
    ]
    columns = ["store", "department", "first_t", "naive_mae"]
    by_keys = facts.sort_values(["store", "department"], ignore_index=True)
    pd.testing.assert_frame_equal(by_keys[columns], pd.DataFrame(expected), check_dtype=False)
    assert set(facts) == {"series_id", *PANEL.keys, *PANEL.level_names, "first_t", "naive_mae", "naive_mse"}
    regions = FRAMES["stores"].set_index("store")["region"].astype(float)
    np.testing.assert_array_equal(facts["region"].astype(float), regions.loc[facts["store"]])


def test_a_series_that_appears_after_the_cutoff_changes_no_training_row(
    weekly: duckdb.DuckDBPyConnection,
) -> None:
    """Which rows are drawn depends on the numbers of series, so these must not move either."""
    few = RowLimits(share=0.1, max_rows=10_000, alive=4)
    cutoff = LAST - 20
    (before,) = make_windows(weekly, PANEL, [cutoff], few, NOBODY, dense=8)
    weekly.execute("BEGIN TRANSACTION")
    newcomer = "SELECT * REPLACE (0 AS department, turnover * 3 AS turnover) FROM cleaned.turnover"
    weekly.execute(f"INSERT INTO cleaned.turnover {newcomer} WHERE t > {cutoff} AND department = 73")

    (after,) = make_windows(weekly, PANEL, [cutoff], few, NOBODY, dense=8)
    weekly.execute("ROLLBACK")

    assert len(after.series) > len(before.series)
    columns = [name for name in before.training.identity.columns if name not in ("reported", "actual")]
    pd.testing.assert_frame_equal(before.training.identity[columns], after.training.identity[columns])
    np.testing.assert_array_equal(before.training.x, after.training.x)


def test_windows_come_in_the_order_asked_for_and_do_not_depend_on_each_other(
    weekly: duckdb.DuckDBPyConnection,
) -> None:
    few = RowLimits(share=0.1, max_rows=10_000, alive=4)

    after_another = list(make_windows(weekly, PANEL, [LAST - 8, LAST - 20], few, NOBODY))[1]
    alone = window_at(weekly, LAST - 20, limits=few)

    assert after_another.cutoff == alone.cutoff == LAST - 20
    np.testing.assert_array_equal(after_another.scoring.x, alone.scoring.x)
    np.testing.assert_array_equal(after_another.training.x, alone.training.x)


@pytest.mark.parametrize("later", [0, 5], ids=["own cutoff", "dense"])
def test_a_daily_window_knows_nothing_after_its_cutoffs(later: int) -> None:
    panel, frames = daily(), daily_history(periods=600)
    frames["takings"]["t"] = [
        index_of(panel, day.date()) for day in pd.to_datetime(frames["takings"]["day"], format="%d/%m/%Y")
    ]
    cutoff = int(frames["takings"]["t"].max()) - panel.horizon
    changed = frames["takings"].assign(
        amount=frames["takings"]["amount"].where(frames["takings"]["t"] <= cutoff + later, 1.0)
    )
    windows = []
    for table in (frames["takings"], changed):
        with memory_warehouse() as con:
            insert_frames(con, panel, {"takings": table})
            limits = RowLimits(share=0.05, max_rows=10_000, alive=7)
            windows.append(next(make_windows(con, panel, [cutoff], limits, NOBODY, later + 1)))
    was, now = windows

    known = ["series_id", "cutoff", "horizon", "t", "scale", "in_force"]
    assert set(was.scoring.identity["cutoff"]) == set(range(cutoff, cutoff + later + 1))
    pd.testing.assert_frame_equal(was.scoring.identity[known], now.scoring.identity[known])
    np.testing.assert_array_equal(was.scoring.x, now.scoring.x)
    np.testing.assert_array_equal(was.training.x, now.training.x)
    pd.testing.assert_frame_equal(was.training.identity, now.training.identity)
    assert set(now.scoring.identity.query("t > @cutoff + @later")["reported"].dropna()) == {1.0}


# The ends of history, and the choice of cutoffs

SMALL = {"week": make_panel(horizon=3), "day": make_panel(horizon=5, frequency={"every": "day"})}


@pytest.mark.parametrize(
    ("added", "ends"),
    [
        pytest.param([], (100, 159), id="as it is"),
        pytest.param([(1, -420)], (100, 159), id="a date ten years too early"),
        pytest.param([(1, 680)], (100, 159), id="one ten years too late"),
        pytest.param(
            [(shop, 99) for shop in range(6)], (99, 159), id="a period with a quarter of the series"
        ),
    ],
)
def test_a_lone_row_makes_history_no_longer(
    con: duckdb.DuckDBPyConnection, added: list[tuple[int, int]], ends: tuple[int, int]
) -> None:
    panel = SMALL["week"]
    reports = [(shop, t) for shop in range(24) for t in range(100, 160)]
    put_periods(con, panel, pd.DataFrame([*reports, *added], columns=["shop", "t"]))

    assert (first_period(con, panel), last_period(con, panel)) == ends
    assert recent_cutoffs(con, panel, windows=9, alive=4) == tuple(
        t for t in range(156 - 8 * 3, 157, 3) if t >= ends[0] + 52
    )


def test_the_first_period_is_found_before_a_cutoff(con: duckdb.DuckDBPyConnection) -> None:
    reports = [(shop, t) for shop in range(24) for t in range(100, 160)]
    put_periods(con, SMALL["week"], pd.DataFrame([(1, 98), *reports], columns=["shop", "t"]))

    assert first_period(con, SMALL["week"], until=99) == 98
    assert first_period(con, SMALL["week"], until=100) == 100  # and one of all series
    with pytest.raises(NothingToForecastError):
        first_period(con, SMALL["week"], until=50)


def newest_by_brute_force(reports: list[tuple[int, int]], panel: PanelSpec, last: int, alive: int) -> int:
    """The newest cutoff of the last year at which a series was alive that reported within the horizon."""
    newest = last - panel.horizon
    year = range(newest, newest - panel.frequency.season, -1)
    return next((cutoff for cutoff in year if can_be_scored(reports, panel, cutoff, alive)), -1)


def can_be_scored(reports: list[tuple[int, int]], panel: PanelSpec, cutoff: int, alive: int) -> bool:
    """Whether a series was alive at a cutoff that reported within the horizon."""
    before = {shop for shop, t in reports if cutoff - alive < t <= cutoff}
    after = {shop for shop, t in reports if cutoff < t <= cutoff + panel.horizon}
    return bool(before & after)


@st.composite
def gappy(draw: st.DrawFn) -> list[tuple[int, int]]:
    """Stretches of reports of a few shops, with anything from no gap to years between them."""
    reports: set[tuple[int, int]] = set()
    for shop in range(draw(st.integers(1, 3))):
        t = draw(st.integers(0, 20))
        for _ in range(draw(st.integers(1, 6))):
            length = draw(st.sampled_from([1, 1, 2, 3, 5, 60]))
            reports |= {(shop, t + k) for k in range(length)}
            t += length + draw(st.sampled_from([0, 1, 2, 3, 4, 5, 7, 8, 20, 60]))
    return sorted(reports)


@pytest.mark.parametrize("every", ["week", "day"])
@given(reports=gappy(), windows=st.integers(1, 5), alive=st.integers(1, 6))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_recent_cutoffs_are_those_of_brute_force(
    shared_con: duckdb.DuckDBPyConnection,
    every: str,
    reports: list[tuple[int, int]],
    windows: int,
    alive: int,
) -> None:
    panel = SMALL[every]
    put_periods(shared_con, panel, pd.DataFrame(reports, columns=["shop", "t"]))
    try:
        last = last_period(shared_con, panel)
    except NothingToForecastError:
        assume(False)
    newest = newest_by_brute_force(reports, panel, last, alive)
    if newest < 0:
        with pytest.raises(NothingToForecastError, match="models cannot be compared"):
            recent_cutoffs(shared_con, panel, windows, alive)
        return

    found = recent_cutoffs(shared_con, panel, windows, alive)

    earliest = first_period(shared_con, panel) + panel.frequency.season
    expected, before = [newest], newest - panel.horizon
    while len(expected) < windows and before >= earliest:
        if can_be_scored(reports, panel, before, alive):
            expected.insert(0, before)
            before -= panel.horizon
        else:
            before -= 1
    assert list(found) == expected


@pytest.mark.parametrize(
    ("periods", "expected"),
    [
        pytest.param(52 + 12, (54, 57, 60), id="a season and a few horizons"),
        pytest.param(52 + 10, (52, 55, 58), id="a season just before the first"),
        pytest.param(20, (16,), id="less than a season"),
        pytest.param(5, (1,), id="as short as can be"),
    ],
)
def test_windows_lie_a_horizon_apart_with_a_season_before_them(
    con: duckdb.DuckDBPyConnection, periods: int, expected: tuple[int, ...]
) -> None:
    put_periods(con, SMALL["week"], pd.DataFrame({"shop": 1, "t": range(periods)}))

    assert recent_cutoffs(con, SMALL["week"], windows=9, alive=4) == expected


def test_an_older_report_can_make_a_newer_cutoff(con: duckdb.DuckDBPyConnection) -> None:
    """Shop 1 reported last, but of shop 2 the outcome of cutoff 99 is known; period 103 is the newest."""
    reports = [(1, 97), (1, 98), (2, 96), (2, 102), (3, 103)]
    put_periods(con, SMALL["week"], pd.DataFrame(reports, columns=["shop", "t"]))

    assert recent_cutoffs(con, SMALL["week"], windows=1, alive=4) == (99,)


@given(
    reports=gappy(),
    asked=st.lists(st.integers(0, 110), min_size=1, max_size=5, unique=True),
    windows=st.integers(0, 5),
    alive=st.integers(1, 6),
)
@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_each_cutoff_asked_for_has_the_evidence_that_history_has_room_for(
    shared_con: duckdb.DuckDBPyConnection,
    reports: list[tuple[int, int]],
    asked: list[int],
    windows: int,
    alive: int,
) -> None:
    panel = SMALL["week"]
    put_periods(shared_con, panel, pd.DataFrame(reports, columns=["shop", "t"]))

    found = with_evidence_before(shared_con, panel, asked, windows, alive)

    earliest = first_period(shared_con, panel) + panel.frequency.season
    assert list(found) == sorted(set(found))
    assert set(asked) <= set(found)
    assert all(t >= earliest for t in set(found) - set(asked))
    assert all(can_be_scored(reports, panel, t, alive) for t in set(found) - set(asked))
    for cutoff in asked:
        known = [t for t in found if t + panel.horizon <= cutoff]
        left = range(earliest, min(known, default=cutoff) - panel.horizon + 1)
        no_room = not any(can_be_scored(reports, panel, t, alive) for t in left)
        assert len(known) >= windows or no_room


@pytest.mark.parametrize("ends", [12, 14, 20])
def test_a_stretch_without_reports_moves_windows_before_it(con: duckdb.DuckDBPyConnection, ends: int) -> None:
    """Eight weeks ahead, a lockdown of twelve: no window is left whose outcomes are all inside it."""
    panel, shut = make_panel(horizon=8), range(140 - ends - 12, 140 - ends)
    reports = [(shop, t) for shop in (1, 2) for t in range(140) if t not in shut]
    put_periods(con, panel, pd.DataFrame(reports, columns=["shop", "t"]))

    found = recent_cutoffs(con, panel, windows=5, alive=4)

    assert len(found) == 5
    assert all(can_be_scored(reports, panel, cutoff, 4) for cutoff in found)
    assert all(later - earlier >= 8 for earlier, later in pairwise(found))


@pytest.mark.parametrize(
    ("asked", "windows", "expected"),
    [
        pytest.param([100], 2, (94, 97, 100), id="one"),
        pytest.param([100], 0, (100,), id="no evidence wanted"),
        pytest.param([100, 97, 94], 2, (88, 91, 94, 97, 100), id="the asked ones serve each other"),
        pytest.param([100, 99], 1, (96, 99, 100), id="overlapping ones serve the next, not each other"),
        pytest.param([54], 3, (54,), id="no room"),
        pytest.param([56, 54], 2, (53, 54, 56), id="room for the later one only"),
    ],
)
def test_evidence_is_taken_from_what_is_there_before_more_is_added(
    con: duckdb.DuckDBPyConnection, asked: list[int], windows: int, expected: tuple[int, ...]
) -> None:
    put_periods(con, SMALL["week"], pd.DataFrame({"shop": 1, "t": range(110)}))

    assert with_evidence_before(con, SMALL["week"], asked, windows, alive=4) == expected
