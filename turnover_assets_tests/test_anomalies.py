"""Detectors: what was planted is found where it is, and nothing else is touched."""

import math
from collections.abc import Callable
from datetime import date
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest

from turnover_assets.core.anomalies import Finding
from turnover_assets.core.anomalies.cycles import by_cycle
from turnover_assets.core.anomalies.detect import detect, findings_in
from turnover_assets.core.anomalies.matrix import Floats, History, row_means, row_medians
from turnover_assets.core.anomalies.noise import Noise
from turnover_assets.core.anomalies.scan import Scan
from turnover_assets.core.anomalies.views import Seen
from turnover_assets.core.calendar import index_of
from turnover_assets.panel import PanelSpec, default_panel
from turnover_assets_tests.factories import daily, make_panel, memory_warehouse, walmart_like

STORES, DEPARTMENTS, PERIODS = 16, 3, 160
APPLIED = 4.0  # default of the setting adjustment_strength
ALIVE = 4
PANEL = default_panel()
STORE, DEPARTMENT = np.divmod(np.arange(STORES * DEPARTMENTS), DEPARTMENTS)


def history_of(values: Floats) -> History:
    """Series of stores (in regions of four) and departments."""
    members = pd.DataFrame({"store": STORE, "department": DEPARTMENT, "region": STORE // 4})
    return History(values, 0, members)


def steady_values(seed: int = 5) -> Floats:
    """Sizes, growth, a season of each department, and noise that lasts: shape (series, periods)."""
    rng = np.random.default_rng(seed)
    t = np.arange(PERIODS)
    noise = np.zeros((len(STORE), PERIODS))
    shocks = rng.normal(0.0, 0.05, noise.shape)
    for k in range(1, PERIODS):
        noise[:, k] = 0.7 * noise[:, k - 1] + shocks[:, k]
    season = 0.5 * np.sin(2.0 * np.pi * t / 52.0 + 2.0 * DEPARTMENT[:, None])
    level = rng.normal(7.0, 0.6, len(STORE))[:, None] + 0.001 * t
    values: Floats = np.exp(level + season + noise + rng.normal(0.0, 0.08, noise.shape))
    return values


def find(values: Floats) -> list[Finding]:
    return findings_in(PANEL, history_of(values), ALIVE)


def applied(findings: list[Finding]) -> list[Finding]:
    return [f for f in findings if f.strength >= APPLIED and f.remedy != "none"]


@pytest.mark.parametrize(
    ("where", "factor", "start", "end"),
    [
        ({"department": 1}, 2.0, 80, 110),
        ({"department": 2}, 0.5, 90, 102),
        ({"department": 0}, 100.0, 130, PERIODS),
        ({"store": 7}, 2.0, 100, 116),
        ({"store": 3}, 0.5, 140, PERIODS),
        ({"region": 2}, 10.0, 70, 130),
    ],
    ids=[
        "department doubled",
        "department halved",
        "department in cents",
        "store doubled",
        "store halved",
        "region",
    ],
)
def test_a_planted_block_is_found_with_its_place_period_and_factor(
    where: dict[str, int], factor: float, start: int, end: int
) -> None:
    values = steady_values()
    ((name, member),) = where.items()
    rows = history_of(values).members[name] == member
    values[rows, start:end] *= factor
    (block,) = applied(find(values))
    assert block.kind == "block"
    assert dict(block.where) == where
    assert (block.since, block.until, block.ongoing) == (start, end - 1, end == PERIODS)
    assert abs(block.effect - math.log(factor)) < min(3.0 * block.error, 0.2)
    assert block.factor == pytest.approx(math.exp(block.effect))
    assert (block.remedy, block.rows) == ("divide", rows.sum() * (end - start))
    assert block.sentence.startswith(f"{name.title()} {member} is reported at {block.factor:.2f} times")
    assert ("still" in block.sentence) == block.ongoing


def promotion_that_recurs(values: Floats) -> None:
    for year in range(3):
        values[DEPARTMENT == 1, 20 + 52 * year : 26 + 52 * year] *= 1.8


def wild_season(values: Floats) -> None:
    values[DEPARTMENT == 2] *= np.exp(2.0 * np.sin(2.0 * np.pi * np.arange(PERIODS) / 52.0))


def opening(values: Floats) -> None:
    values[STORE == 4, :70] = np.nan
    values[STORE == 4, 70:85] *= np.linspace(0.2, 1.0, 15)


def gradual_growth(values: Floats) -> None:
    values[STORE == 5] *= np.exp(np.linspace(0.0, 1.1, PERIODS))
    values[DEPARTMENT == 0] *= np.exp(np.linspace(0.0, 0.7, PERIODS))


def change_of_all(values: Floats) -> None:
    values[:, 100:] *= 2.0


def one_big_store(values: Floats) -> None:
    values[STORE == 6] *= 50.0


def promotion_of_one_series(values: Floats) -> None:
    values[10, 90:94] *= 2.5


@pytest.mark.parametrize(
    "change",
    [
        lambda values: None,
        promotion_that_recurs,
        wild_season,
        opening,
        gradual_growth,
        change_of_all,
        one_big_store,
        promotion_of_one_series,
    ],
    ids=lambda change: change.__name__,
)
def test_what_is_real_is_not_adjusted(change: Callable[[Floats], None]) -> None:
    values = steady_values()
    change(values)
    assert [f.sentence for f in applied(find(values))] == []


@pytest.mark.parametrize("known", [120, 128, PERIODS])
@pytest.mark.parametrize("later", [2, 3], ids=["two weeks later", "three weeks later"])
def test_a_holiday_that_moved_in_one_region_is_no_block_from_one_year_to_the_next(
    known: int, later: int
) -> None:
    values = steady_values()
    for begins in (20, 72 + later, 124):
        values[STORE // 4 == 2, begins : begins + 3] *= 2.0
    assert [f.sentence for f in applied(find(values[:, :known]))] == []


@pytest.mark.parametrize(
    ("reported", "remedy", "words"),
    [
        (lambda value: 1_000.0 * value, "replace", "decimal point is 3 places off"),
        (lambda value: 5e7 + 0.0 * value, "replace", ""),
        (lambda value: -value, "replace", "sign is turned"),
        (lambda value: 0.001 * value, "none", "far too low"),
    ],
    ids=["decimal point", "placeholder", "sign", "too low"],
)
def test_a_value_out_of_all_proportion_is_found(
    reported: Callable[[float], float], remedy: str, words: str
) -> None:
    values = steady_values()
    at = 60 + int(np.argmax(values[20, 60:150]))  # off season it would not matter
    true = values[20, at]
    values[20, at] = reported(true)
    (point,) = [f for f in find(values) if f.kind == "point"]
    assert dict(point.where) == {"store": 6, "department": 2}
    assert (point.since, point.until, point.ongoing, point.rows) == (at, at, False, 1)
    assert (point.remedy, words in point.sentence) == (remedy, True)
    if point.value is not None:
        assert point.value == pytest.approx(true, rel=0.35)


def test_a_strong_point_is_applied_and_is_no_block() -> None:
    values = steady_values()
    values[20, 100] = 1e8
    (found,) = applied(find(values))
    assert found.kind == "point"


def test_a_block_at_a_time_of_year_seen_only_once_is_only_proposed() -> None:
    """In the second year nobody knows whether the shift belongs to the season; a year later it is plain."""
    values = steady_values()
    values[DEPARTMENT == 1, 35:45] *= 4.0

    early = find(values[:, :78])
    late = find(values)

    def of_department(findings: list[Finding]) -> list[Finding]:
        return [f for f in findings if dict(f.where) == {"department": 1}]

    assert not [f for f in of_department(early) if f.strength >= APPLIED]
    assert [(f.since, f.until) for f in applied(of_department(late))] == [(35, 44)]


@pytest.mark.parametrize(("factor", "remedy"), [(-1.1, "replace"), (-12.0, "none")])
def test_only_a_value_of_about_its_size_has_its_sign_turned(factor: float, remedy: str) -> None:
    values = steady_values()
    values[9, 100] *= factor

    (point,) = [f for f in find(values) if f.kind == "point"]

    assert (dict(point.where), point.remedy) == ({"store": STORE[9], "department": DEPARTMENT[9]}, remedy)


def test_gaps_are_told_once_at_the_widest_level() -> None:
    values = steady_values()
    values[STORE == 2, 60:63] = np.nan
    values[3, 120:122] = np.nan
    values[STORE == 9, 150:] = np.nan
    values[STORE == 11, 90:94] = 0.0
    gaps = {
        (f.kind, *f.where.values()): (f.since, f.until, f.ongoing, f.rows, f.remedy)
        for f in find(values)
        if f.kind in ("missing", "stopped", "zeros")
    }
    assert gaps == {
        ("missing", 2): (60, 62, False, 9, "none"),
        ("missing", 1, 0): (120, 121, False, 2, "none"),
        ("stopped", 9): (150, 159, True, 30, "none"),
        ("zeros", 11): (90, 93, False, 12, "empty"),
    }


def test_openings_and_closures_are_no_false_zeros() -> None:
    values = steady_values()
    values[STORE == 3, :30] = 0.0
    values[STORE == 4, 120:] = 0.0
    assert [f for f in find(values) if f.kind == "zeros"] == []


def test_a_block_of_a_single_series_is_only_proposed() -> None:
    values = steady_values()
    values[30, 100:130] *= 10.0
    found = next(f for f in find(values) if f.kind == "block")
    assert dict(found.where) == {"store": 10, "department": 0}
    assert (found.since, found.until) == (100, 129)
    assert 0.0 < found.strength < 3.0
    assert applied(find(values)) == []


@pytest.mark.parametrize("series", [1, 2])
def test_a_panel_of_one_or_two_series_is_searched(series: int) -> None:
    values = steady_values()[:series]
    values[0, 100:130] *= 5.0
    members = pd.DataFrame({"store": STORE[:series], "department": DEPARTMENT[:series], "region": 0})

    found = findings_in(PANEL, History(values, 0, members), ALIVE)

    assert [(f.kind, f.since, f.until) for f in found] == [("block", 100, 129)]
    assert not applied(found)


def test_blocks_of_groups_are_the_same_whether_single_series_are_searched_or_not() -> None:
    values = steady_values()
    values[DEPARTMENT == 1, 80:110] *= 2.0
    values[30, 100:130] *= 10.0
    history = history_of(values)

    all_of_them, of_groups = (findings_in(PANEL, history, ALIVE, alone=alone) for alone in (True, False))

    assert len(all_of_them) > len(of_groups)
    of_series = {"store", "department"}
    assert repr([f for f in all_of_them if f.kind != "block" or set(f.where) != of_series]) == repr(of_groups)


def test_findings_do_not_depend_on_the_order_of_series() -> None:
    values = steady_values()
    values[DEPARTMENT == 1, 80:110] *= 2.0
    values[20, 40] *= 1000.0
    history = history_of(values)
    order = np.random.default_rng(0).permutation(len(values))
    shuffled = History(values[order], 0, history.members.iloc[order].reset_index(drop=True))
    one, other = (applied(findings_in(PANEL, h, ALIVE)) for h in (history, shuffled))
    assert [(f.finding_id, f.until) for f in one] == [(f.finding_id, f.until) for f in other]
    assert [f.effect for f in one] == pytest.approx([f.effect for f in other])


# From the cleaned tables -------------------------------------------------------------------------


def with_table(con: duckdb.DuckDBPyConnection, rows: pd.DataFrame) -> None:
    stores = pd.DataFrame({"store": range(STORES), "region": [s // 4 for s in range(STORES)]})
    con.register("rows_", rows)
    con.register("stores_", stores)
    con.execute("CREATE OR REPLACE TABLE cleaned.turnover AS SELECT * FROM rows_")
    con.execute("CREATE OR REPLACE TABLE cleaned.stores AS SELECT * FROM stores_")


def rows_of(values: Floats, first: int = 2000) -> pd.DataFrame:
    series, period = np.nonzero(~np.isnan(values))
    return pd.DataFrame(
        {
            "store": STORE[series],
            "department": DEPARTMENT[series],
            "t": first + period,
            "turnover": values[series, period],
        }
    )


@pytest.mark.parametrize("later", [0.0, -5.0, 1e9, math.nan], ids=["zero", "negative", "huge", "no rows"])
def test_later_values_change_no_finding_as_of_a_cutoff(con: duckdb.DuckDBPyConnection, later: float) -> None:
    values = steady_values()
    values[STORE == 7, 100:] *= 3.0
    values[20, 90] *= 1000.0
    changed = values.copy()
    changed[:, 130:] = later
    changed[::2, 140:] = 7.0
    with_table(con, rows_of(values))
    before = detect(con, PANEL, 2129, ALIVE)
    with_table(con, rows_of(changed).sample(frac=1.0, random_state=1))
    after = detect(con, PANEL, 2129, ALIVE)
    assert repr(after) == repr(before)  # repr: NaN equals NaN
    assert [(f.kind, f.since, f.until, f.ongoing) for f in applied(before)].count(
        ("block", 2100, 2129, True)
    ) == 1


def test_a_panel_of_other_names_and_weeks_labelled_by_their_end() -> None:
    panel = walmart_like()
    values = steady_values()
    values[STORE == 7, 100:120] *= 2.0
    values[DEPARTMENT == 1, 60:80] *= 0.5
    with memory_warehouse() as con:
        sales = rows_of(values).rename(columns={"department": "dept", "turnover": "amount"})
        con.register("sales_", sales)
        con.execute("CREATE TABLE cleaned.sales AS SELECT * FROM sales_")
        found = applied(detect(con, panel, int(sales["t"].max()), ALIVE))
    assert {(*f.where.items(), f.since, f.until) for f in found} == {
        (("store", 7), 2100, 2119),
        (("dept", 1), 2060, 2079),
    }
    assert "20 weeks" in found[0].sentence


def test_blocks_of_daily_panels_are_found_to_the_day() -> None:
    rng = np.random.default_rng(1)
    t = np.arange(800)
    week = np.array([1.0, 1.0, 1.0, 1.2, 1.5, 2.0, 0.3])[t % 7]
    values = rng.lognormal(5.0, 0.5, 20)[:, None] * week * rng.lognormal(0.0, 0.1, (20, 800))
    values[3, 490:580] *= 5.0
    values[8, 755:] *= 0.2
    history = History(values, 0, pd.DataFrame({"shop": [f"s{i:02d}" for i in range(20)]}))
    found = {f.where["shop"]: f for f in findings_in(daily(), history, 28) if f.kind == "block"}
    assert {shop: (f.since, f.until, f.ongoing) for shop, f in found.items()} == {
        "s03": (490, 579, False),
        "s08": (755, 799, True),
    }
    assert found["s03"].factor == pytest.approx(5.0, rel=0.35)
    assert found["s08"].factor == pytest.approx(0.2, rel=0.35)


def test_a_value_where_all_peers_report_nothing_has_nothing_to_be_compared_with() -> None:
    values = steady_values()
    same = np.flatnonzero(DEPARTMENT == 0)
    values[same[1:], 150] = 0.0
    assert [f for f in find(values) if f.kind == "point" and f.where["store"] == 0] == []


@pytest.mark.parametrize("panel", [make_panel(), daily()], ids=["weeks", "days"])
@pytest.mark.parametrize(
    "values",
    [
        np.zeros((0, 0)),
        np.full((1, 1), 3.0),
        np.full((1, 2), 3.0),
        np.full((3, 2), -1.0),
        np.zeros((4, 60)),
        np.full((4, 60), np.nan),
        np.full((4, 60), 5.0),
        -np.ones((4, 120)),
        np.where(np.arange(480).reshape(4, 120) % 3 == 0, np.nan, 1.0),
        np.random.default_rng(0).normal(0.0, 1.0, (3, 200)),
    ],
    ids=["none", "one", "two", "short", "zeros", "nothing", "constant", "negative", "sparse", "around zero"],
)
def test_small_and_odd_panels_give_no_error_and_no_block(panel: PanelSpec, values: Floats) -> None:
    history = History(values, 0, pd.DataFrame({panel.keys[0]: np.arange(len(values))}))
    assert [f for f in findings_in(panel, history, ALIVE) if f.kind == "block"] == []


# Arithmetic against numpy ------------------------------------------------------------------------


def test_shifts_are_those_of_generalised_least_squares_on_the_known_periods() -> None:
    """Inverses come from one of all periods, z values of all intervals from cumulative sums."""
    rng = np.random.default_rng(4)
    ratios = rng.normal(0.0, 0.1, (1, 120)).cumsum(axis=1)
    ratios[0, [0, 1, 30, 77, 78]] = np.nan
    known = np.flatnonzero(np.isfinite(ratios[0]))
    own, scale = Noise(0.01, 0.02, 0.001, 0.05, 52, has_season=True), 1.7
    scan = Scan(Seen("own", ratios, np.ones_like(ratios), [own], np.array([scale])), 0, known)

    values = ratios[0, known] - np.median(ratios[0, known])
    covariance = scale**2 * own.covariance(120)[np.ix_(known, known)]

    def z_value(start: int, end: int) -> float:
        inside = np.zeros(len(known))
        inside[start:end] = 1.0
        weights = np.linalg.solve(covariance, inside)
        return abs(weights @ values) / math.sqrt(weights @ inside)

    intervals = [(a, b) for a in range(26, len(known) - 3) for b in range(a + 4, len(known) + 1)]
    within = [(a, b) for a, b in intervals if b - a <= len(known) // 2]
    assert scan.highest() == pytest.approx(max(z_value(a, b) for a, b in within))
    inside = np.isin(np.arange(len(known)), range(40, 60)).astype(float)
    assert abs(scan.estimate(inside).z) == pytest.approx(z_value(40, 60))


def test_row_medians_and_means_are_those_of_numpy() -> None:
    rng = np.random.default_rng(2)
    values = np.where(rng.random((40, 7)) < 0.3, np.nan, rng.normal(size=(40, 7)))
    values[:, 0] = 1.0
    assert row_medians(values) == pytest.approx(np.nanmedian(values, axis=1))
    assert row_means(values) == pytest.approx(np.nanmean(values, axis=1))
    empty = np.full((1, 3), np.nan)
    assert np.isnan(row_medians(empty)).all()
    assert row_means(empty).tolist() == [0.0]


def test_weeks_of_days_end_at_the_cutoff_and_need_half_of_their_days() -> None:
    values = np.array([[9.0, *range(1, 8), 5.0, 5.0, 5.0, np.nan, np.nan, np.nan, np.nan]])
    weeks = by_cycle(History(values, 0, pd.DataFrame({"shop": ["a"]})), 7).values
    assert weeks[0, 0] == 4.0
    assert np.isnan(weeks[0, 1])


# Real data ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def case_study(real_data: Path) -> History:
    return real_history(
        pd.read_csv(real_data / "decathlon" / "history" / "train.csv.gz"),
        pd.read_csv(real_data / "decathlon" / "history" / "bu_feat.csv.gz").rename(
            columns={"but_num_business_unit": "store", "but_region_idr_region": "region"}
        )[["store", "region"]],
    )


def real_history(turnover: pd.DataFrame, stores: pd.DataFrame) -> History:
    turnover = turnover.set_axis(["week", "store", "department", "turnover"], axis=1)
    days = {day: index_of(PANEL, date.fromisoformat(day)) for day in turnover["week"].unique()}
    turnover["t"] = turnover["week"].map(days)
    values = turnover.pivot(index=["store", "department"], columns="t", values="turnover")
    members = values.index.to_frame(index=False).merge(stores, on="store", how="left")
    return History(values.to_numpy(dtype=float), int(values.columns.min()), members)


def week_of(day: str) -> int:
    return index_of(PANEL, date.fromisoformat(day))


def test_the_defects_of_the_case_study_are_found_without_being_told(case_study: History) -> None:
    found = applied(findings_in(PANEL, case_study, ALIVE, alone=False))
    blocks = {f.where.get("department"): f for f in found if list(f.where) == ["department"]}
    assert set(blocks) == {73, 127}
    for block in blocks.values():
        assert (block.since, block.until) == (week_of("2016-01-09"), week_of("2016-12-31"))
        assert block.factor == pytest.approx(2.0, abs=0.35)
    points = [f for f in found if f.kind == "point"]
    assert [dict(f.where) for f in points] == [{"store": 30, "department": 88}]
    assert len(found) <= 3 + 5


def test_the_blocks_of_the_case_study_are_found_while_they_go_on(case_study: History) -> None:
    last = week_of("2016-05-28") - case_study.first + 1
    history = History(case_study.values[:, :last], case_study.first, case_study.members)
    found = applied(findings_in(PANEL, history, ALIVE, alone=False))
    blocks = {f.where["department"]: (f.since, f.ongoing) for f in found if list(f.where) == ["department"]}
    assert blocks == dict.fromkeys((73, 127), (week_of("2016-01-09"), True))
    assert len(found) <= 3 + 5


def test_holidays_and_markdowns_of_walmart_are_not_adjusted(real_data: Path) -> None:
    """What is applied there is one value whose sign is turned, in a week that is neither."""
    sales = pd.read_csv(real_data / "walmart" / "train.csv.gz")
    holidays = set(sales.loc[sales["IsHoliday"], "Date"])
    ends = pd.to_datetime(sales["Date"]) + pd.Timedelta(days=1)
    sales = sales[["Date", "Store", "Dept", "Weekly_Sales"]].assign(Date=ends.dt.strftime("%Y-%m-%d"))
    stores = pd.DataFrame({"store": sales["Store"].unique(), "region": 1})
    history = real_history(sales, stores)

    # The season before Christmas was seen once, then twice; at 99 the second Christmas is only beginning.
    for known in (62, 70, 78, 99, 102, history.periods):
        then = History(history.values[:, :known], history.first, history.members)
        found = applied(findings_in(PANEL, then, ALIVE, alone=False))
        assert [(dict(f.where), f.since) for f in found] == [
            ({"store": 28, "department": 6}, week_of("2010-10-09"))
        ]
    assert "2010-10-08" not in holidays  # and markdowns began in November 2011
