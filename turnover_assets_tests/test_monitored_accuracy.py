"""Accuracy of what was published: against slow recomputation, and judged again only where it must be."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date

import duckdb
import numpy as np
import pandas as pd
import pytest

from turnover_assets.core.calendar import index_of, label_of
from turnover_assets.core.forecast_history import keep_aggregates, keep_forecasts
from turnover_assets.core.intervals import BOUNDS
from turnover_assets.core.monitoring import accuracy, tables, update
from turnover_assets.core.monitoring.judging import tracking_signals
from turnover_assets.core.monitoring.measures import accuracy_measures
from turnover_assets.core.monitoring.outcomes import Outcomes
from turnover_assets.core.monitoring.promises import keep_promises, promises_of, read_promises
from turnover_assets.core.monitoring.tables import ACCURACY
from turnover_assets.panel import PanelSpec
from turnover_assets_tests.factories import daily, walmart_like

WEEKLY = walmart_like()
FIGURES = [
    *("rows", "periods", "wape", "bias", "coverage_80", "coverage_95", "wape_seasonal_naive"),
    *("wape_promised", "coverage_80_promised", "coverage_95_promised", "tracking_signal"),
]


@dataclass
class World:
    """A panel with a history of reported values, as cleaned tables, and forecasts made along the way."""

    con: duckdb.DuckDBPyConnection
    panel: PanelSpec
    start: int
    reported: dict[tuple[object, ...], float]  # by key and period

    def put_reported(self) -> None:
        rows = pd.DataFrame(
            [
                dict(zip(self.panel.keys, k[:-1], strict=True), t=k[-1], amount=v)
                for k, v in self.reported.items()
            ]
        )
        rows[self.panel.time] = [label_of(self.panel, t) for t in rows["t"]]
        self.con.register("reported_frame", rows)
        self.con.execute(
            f"CREATE OR REPLACE TABLE cleaned.{self.panel.series.name} AS SELECT * REPLACE "
            f"(CAST({self.panel.time} AS DATE) AS {self.panel.time}) FROM reported_frame"
        )
        self.con.unregister("reported_frame")

    def series(self) -> list[tuple[object, ...]]:
        return sorted({key[:-1] for key in self.reported})

    def publish(self, cutoff: int, version: int = 1, factor: float = 1.0) -> None:
        """Forecasts of every series and their sums, as the platform keeps them."""
        rng = np.random.default_rng(cutoff)
        rows = pd.DataFrame(
            [
                {**dict(zip(self.panel.keys, key, strict=True)), "horizon": h}
                for key in self.series()
                for h in range(1, self.panel.horizon + 1)
            ]
        )
        rows["cutoff"] = label_of(self.panel, cutoff)
        rows[self.panel.time] = [label_of(self.panel, cutoff + h) for h in rows["horizon"]]
        rows["forecast"] = factor * rng.gamma(4.0, 25.0, len(rows))
        for bound, share in zip(BOUNDS, (0.8, 1.2, 0.5, 1.5), strict=True):
            rows[bound] = rows["forecast"] * share
        naive = rows.assign(forecast=rng.gamma(4.0, 25.0, len(rows)), model_version=0)
        naive[list(BOUNDS)] = np.nan
        own = rows.assign(model_version=version)
        keep_forecasts(self.con, self.panel, {"champion": own, "baseline": naive, "challenger": naive})
        keep_aggregates(self.con, self.sums(own), version)

    def sums(self, rows: pd.DataFrame) -> pd.DataFrame:
        found = []
        for level, members in self.members(rows):
            by = [members.rename("member"), "cutoff", self.panel.time, "horizon"]
            part = rows.groupby(by)["forecast"].agg(forecast="sum", parts="size").reset_index()
            found.append(part.assign(level=level))
        table = pd.concat(found)
        for bound, share in zip(BOUNDS, (0.9, 1.1, 0.7, 1.3), strict=True):
            table[bound] = table["forecast"] * share
        return table

    def members(self, rows: pd.DataFrame) -> Iterator[tuple[str, pd.Series]]:
        yield "total", pd.Series("", index=rows.index)
        for level in self.panel.level_names:
            yield level, rows[level].astype(str)

    def promise(self, version: int = 1) -> None:
        """Promises of a model, another figure for every horizon and member."""
        levels = [("total", "")] + [
            (level, str(member))
            for i, level in enumerate(self.panel.level_names)
            for member in {dict(zip(self.panel.keys, k, strict=True))[level] for k in self.series()}
        ]
        rows = [
            {
                "basis": basis,
                "level": level,
                "member": member,
                "horizon": h,
                **{
                    name: 0.01 * (h or 0) + 0.1 * n + version + 0.001 * len(member)
                    for n, name in enumerate(("wape", "wape_seasonal_naive", "coverage_80", "coverage_95"))
                },
            }
            for basis in ("series", "sums")
            for level, member in levels
            for h in [None, *range(1, self.panel.horizon + 1)]
        ]
        keep_promises(self.con, version, pd.DataFrame(rows).astype({"horizon": "Int64"}))

    def kept(self, columns: str = "* EXCLUDE updated_at") -> pd.DataFrame:
        return self.con.execute(
            f"SELECT {columns} FROM {ACCURACY} ORDER BY cutoff, basis, level, member, horizon NULLS FIRST"
        ).df()


Make = Callable[[PanelSpec], World]


@pytest.fixture
def make(con: duckdb.DuckDBPyConnection) -> Make:
    def world(panel: PanelSpec) -> World:
        rng = np.random.default_rng(7)
        start = index_of(panel, date(2030, 6, 7))
        keys: list[tuple[object, ...]] = [("north",), ("côte d'or",)]
        if panel is WEEKLY:
            keys = [(store, dept) for store in (1, 2, 10) for dept in (1, 7)]
            con.execute(
                "CREATE TABLE cleaned.stores AS SELECT unnest([1, 2, 10]) AS store, 'A' AS kind, 1.0 AS size"
            )
        values = {
            (*key, start + k): round(float(rng.choice([0.0, *rng.gamma(4.0, 25.0, 6)])), 2)
            for key in keys
            for k in range(-20, 12)
            if rng.random() > 0.15
        }
        made = World(con, panel, start, values)
        made.put_reported()
        tables.prepare(con, panel)
        return made

    return world


# The table ---------------------------------------------------------------------------------------


def oracle(world: World, cutoffs: list[int], last: int) -> dict[tuple[object, ...], dict[str, float]]:
    """Every figure of the table, one group after the other, from the kept forecasts and reported values."""
    history = world.con.execute("FROM reports.forecast_history").df()
    bounds = world.con.execute("FROM reports.aggregate_history").df()
    promised = world.con.execute(f"FROM {tables.PROMISES}").df()
    found: dict[tuple[object, ...], dict[str, float]] = {}
    for cutoff in cutoffs:
        label = pd.Timestamp(label_of(world.panel, cutoff))
        own = history[(history["cutoff"] == label) & (history["role"] == "champion")].copy()
        naive = history[(history["cutoff"] == label) & (history["role"] == "baseline")]
        naive_of = {(*(r[k] for k in world.panel.keys), r.horizon): r.forecast for _, r in naive.iterrows()}
        own["naive"] = [naive_of[(*(r[k] for k in world.panel.keys), r.horizon)] for _, r in own.iterrows()]
        own["actual"] = [
            world.reported.get((*(r[k] for k in world.panel.keys), cutoff + r.horizon), np.nan)
            for _, r in own.iterrows()
        ]
        own = own[own["horizon"] <= last - cutoff]
        for level, member in world.members(own):
            for name in member.unique():
                part = own[member == name]
                sums = part.groupby("horizon").agg(
                    forecast=("forecast", "sum"), naive=("naive", "sum"), actual=("actual", "sum")
                )
                mine = bounds[
                    (bounds["cutoff"] == label) & (bounds["level"] == level) & (bounds["member"] == name)
                ].set_index("horizon")
                sums = sums.join(mine[list(BOUNDS)]).reset_index()
                for basis, rows in (("series", part[part["actual"].notna()]), ("sums", sums)):
                    want = promised[
                        (promised["basis"] == basis)
                        & (promised["level"] == level)
                        & (promised["member"] == name)
                        & (promised["model_version"] == own["model_version"].iloc[0])
                    ].set_index("horizon")
                    for horizon in [None, *rows["horizon"].unique()]:
                        cell = rows if horizon is None else rows[rows["horizon"] == horizon]
                        if len(cell):
                            key = (label, horizon, level, name, basis)
                            found[key] = figures(cell, want)
                            alone = basis == "series" or horizon is not None
                            if alone:
                                found[key]["tracking_signal"] = np.nan
    return found


def figures(cell: pd.DataFrame, want: pd.DataFrame) -> dict[str, float]:
    error, size = cell["forecast"] - cell["actual"], cell["actual"].abs()
    whole = size.sum() if size.sum() > 0 else np.nan

    def promise(name: str, weight: pd.Series) -> float:
        weights = weight.groupby(cell["horizon"]).sum()
        return sum(want[name].get(h, np.nan) * w for h, w in weights.items() if w > 0) / (
            weights.sum() or np.nan
        )

    ones = pd.Series(1.0, index=cell.index)
    return {
        "rows": len(cell),
        "periods": cell["horizon"].nunique(),
        "wape": error.abs().sum() / whole,
        "bias": error.sum() / whole,
        "coverage_80": ((cell["actual"] >= cell["lower_80"]) & (cell["actual"] <= cell["upper_80"])).mean(),
        "coverage_95": ((cell["actual"] >= cell["lower_95"]) & (cell["actual"] <= cell["upper_95"])).mean(),
        "wape_seasonal_naive": (cell["naive"] - cell["actual"]).abs().sum() / whole,
        "wape_promised": promise("wape", size),
        "coverage_80_promised": promise("coverage_80", ones),
        "coverage_95_promised": promise("coverage_95", ones),
        "tracking_signal": error.sum() / error.abs().mean(),
    }


@pytest.mark.parametrize("panel", [WEEKLY, daily()], ids=["weekly", "daily"])
def test_every_figure_is_what_slow_recomputation_gives(make: Make, panel: PanelSpec) -> None:
    world = make(panel)
    cutoffs = [world.start - 6, world.start - 5, world.start - 2, world.start]
    world.promise(1)
    world.promise(2)
    for cutoff in cutoffs:
        world.publish(cutoff, version=1 if cutoff < world.start - 2 else 2)

    judged = update.update_history(world.con, panel, world.start)

    expected = oracle(world, cutoffs, world.start)
    table = world.kept()
    keys = [
        (r.cutoff, None if pd.isna(r.horizon) else int(r.horizon), r.level, r.member, r.basis)
        for r in table.itertuples()
    ]
    assert judged == [label_of(panel, cutoff) for cutoff in cutoffs[:-1]]
    assert len(keys) == len(set(keys))
    assert set(keys) == set(expected)
    for key, (_, row) in zip(keys, table.iterrows(), strict=True):
        found = {name: float(row[name]) for name in FIGURES}
        assert found == pytest.approx({n: expected[key][n] for n in FIGURES}, nan_ok=True), key
    assert table["model_version"].tolist() == [
        1 if cutoff < pd.Timestamp(label_of(panel, world.start - 2)) else 2 for cutoff in table["cutoff"]
    ]


def test_a_sum_of_other_series_lends_its_bounds_to_no_outcome(make: Make) -> None:
    world = make(WEEKLY)
    world.publish(world.start - 1)
    world.con.execute("UPDATE reports.aggregate_history SET forecast = forecast * 2 WHERE level = 'store'")

    update.update_history(world.con, WEEKLY, world.start)

    table = world.kept()
    sums = table[table["basis"] == "sums"]
    assert sums[sums["level"] == "store"]["coverage_80"].isna().all()
    assert sums[sums["level"] != "store"]["coverage_80"].notna().all()
    assert sums[sums["level"] == "total"]["wape"].notna().all()


# What is judged again ----------------------------------------------------------------------------


def everything_anew(world: World, last: int) -> pd.DataFrame:
    world.con.execute(f"DELETE FROM {ACCURACY}; DELETE FROM {tables.JUDGED}; DELETE FROM {tables.STABILITY}")
    update.update_history(world.con, world.panel, last)
    return world.kept()


@pytest.mark.parametrize("panel", [WEEKLY, daily()], ids=["weekly", "daily"])
def test_what_is_brought_up_to_date_week_by_week_is_what_judging_everything_anew_gives(
    make: Make, panel: PanelSpec
) -> None:
    world = make(panel)
    world.promise()
    stability = f"FROM {tables.STABILITY} ORDER BY ALL"
    for k in (-6, -5, -3, 0, 1, 2, 4):
        world.publish(world.start + k)
        if k == 1:  # a later file restates an old value, and takes another one back
            some = sorted(key for key in world.reported if key[-1] in range(world.start - 5, world.start - 3))
            world.reported[some[0]] += 1000.0
            del world.reported[some[1]]
            world.put_reported()
        if k == 2:  # a cutoff is published again
            world.publish(world.start + k, factor=1.5)
        update.update_history(world.con, panel, world.start + k)
    table, steps = world.kept(), world.con.execute(stability).df()

    anew = everything_anew(world, world.start + 4)

    assert len(table) > 0
    pd.testing.assert_frame_equal(table, anew)
    pd.testing.assert_frame_equal(steps, world.con.execute(stability).df())


def test_only_cutoffs_that_something_changed_for_are_judged_again(make: Make) -> None:
    world = make(WEEKLY)
    world.promise()
    for k in range(-12, 0):
        world.publish(world.start + k)
    labels = {k: label_of(WEEKLY, world.start + k) for k in range(-12, 2)}

    first = update.update_history(world.con, WEEKLY, world.start - 1)
    again = update.update_history(world.con, WEEKLY, world.start - 1)
    next_period = update.update_history(world.con, WEEKLY, world.start)
    key = min(key for key in world.reported if key[-1] == world.start - 10)
    world.reported[key] += 5.0
    world.put_reported()
    restated = update.update_history(world.con, WEEKLY, world.start)
    world.reported[10, 99, world.start + 1] = 7.0  # a new series, in a period that does not count yet
    world.put_reported()
    joined = update.update_history(world.con, WEEKLY, world.start)
    world.con.execute("UPDATE cleaned.stores SET kind = 'B' WHERE store = 10")
    moved = update.update_history(world.con, WEEKLY, world.start)

    assert first == [labels[k] for k in range(-12, -1)]
    assert again == []
    assert next_period == [labels[k] for k in range(-8, 0)]
    assert restated == [labels[-12], labels[-11]]
    assert joined == []
    assert moved == [labels[k] for k in range(-12, 0)]


def test_a_cutoff_that_left_the_history_keeps_its_last_rows(make: Make) -> None:
    world = make(WEEKLY)
    world.publish(world.start - 3)
    update.update_history(world.con, WEEKLY, world.start - 1)
    before = world.kept()
    world.con.execute("DELETE FROM reports.forecast_history")
    world.publish(world.start - 1)

    update.update_history(world.con, WEEKLY, world.start)

    after = world.kept()
    left = after[after["cutoff"] == before["cutoff"].iloc[0]].reset_index(drop=True)
    pd.testing.assert_frame_equal(left, before)
    assert len(after) > len(before)


def test_the_oldest_cutoffs_go(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "KEPT_CUTOFFS", 3)
    monkeypatch.setattr(accuracy, "BATCH", 2)
    world = make(WEEKLY)
    for k in range(-6, 0):
        world.publish(world.start + k)

    update.update_history(world.con, WEEKLY, world.start)

    kept = world.con.execute(f"SELECT DISTINCT cutoff FROM {ACCURACY} ORDER BY 1").fetchall()
    assert [row[0] for row in kept] == [label_of(WEEKLY, world.start + k) for k in (-3, -2, -1)]


# Point in time -----------------------------------------------------------------------------------


def test_nothing_reported_after_the_last_period_counts(make: Make) -> None:
    world = make(WEEKLY)
    world.publish(world.start - 4)
    update.update_history(world.con, WEEKLY, world.start - 2)
    before = world.kept()
    world.reported = {k: v + (1e6 if k[-1] > world.start - 2 else 0.0) for k, v in world.reported.items()}
    world.put_reported()

    again = update.update_history(world.con, WEEKLY, world.start - 2)

    assert again == []
    pd.testing.assert_frame_equal(world.kept(), before)
    assert before["horizon"].max() == 2


def test_a_promise_stays_what_it_was_when_the_forecast_was_published(make: Make) -> None:
    world = make(WEEKLY)
    world.promise(1)
    before = read_promises(world.con)

    keep_promises(world.con, 1, before.drop(columns="model_version").assign(wape=9.9))
    world.promise(2)

    after = read_promises(world.con)
    pd.testing.assert_frame_equal(after[after["model_version"] == 1].reset_index(drop=True), before)


# Promises ----------------------------------------------------------------------------------------


def test_promises_are_the_backtests_own_figures_by_horizon_and_member() -> None:
    rng = np.random.default_rng(5)
    rows = pd.DataFrame(
        [
            {"store": store, "dept": dept, "cutoff": cutoff, "t": cutoff + h, "horizon": h, "scale": 1.0}
            for store in (1, 2)
            for dept in (1, 7)
            for cutoff in (10, 18)
            for h in (1, 2)
        ]
    )
    rows["actual"], rows["forecast"] = rng.gamma(4.0, 25.0, len(rows)), rng.gamma(4.0, 25.0, len(rows))
    for bound, share in zip(BOUNDS, (0.8, 1.2, 0.5, 1.5), strict=True):
        rows[bound] = rows["forecast"] * share
    naive = rows.assign(forecast=rng.gamma(4.0, 25.0, len(rows)))
    sums = rows.groupby(["cutoff", "t", "horizon"])[["forecast", "actual", *BOUNDS]].sum().reset_index()

    table = promises_of(rows, sums.assign(level="total", member=""), naive, WEEKLY)

    found = table[(table["level"] == "store") & (table["member"] == "2") & (table["horizon"] == 2)].iloc[0]
    own, other = (t[(t["store"] == 2) & (t["horizon"] == 2)] for t in (rows, naive))
    assert found["wape"] == pytest.approx((own.forecast - own.actual).abs().sum() / own.actual.sum())
    assert found["wape_seasonal_naive"] == pytest.approx(
        (other.forecast - own.actual).abs().sum() / own.actual.sum()
    )
    inside = own["actual"].between(own["lower_95"], own["upper_95"]).mean()
    assert found["coverage_95"] == pytest.approx(inside)
    of_sums = table[(table["basis"] == "sums") & table["horizon"].isna()].iloc[0]
    assert of_sums["wape"] == pytest.approx((sums.forecast - sums.actual).abs().sum() / sums.actual.sum())
    beside = naive.groupby(["cutoff", "horizon"])["forecast"].sum().to_numpy()
    assert of_sums["wape_seasonal_naive"] == pytest.approx(
        np.abs(beside - sums["actual"].to_numpy()).sum() / sums["actual"].sum()
    )


# The tracking signal -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("errors", "signal"),
    [
        ([2.0, 2.0, 2.0, 2.0], 4.0),
        ([-1.0, -5.0, -3.0], -3.0),
        ([3.0, -3.0, 3.0, -3.0], 0.0),
        ([4.0, -2.0], 2.0 / 3.0),
        ([0.0, 0.0], np.nan),
    ],
    ids=["too high", "too low", "in turn", "mixed", "no error"],
)
def test_the_tracking_signal_is_the_sum_of_errors_over_their_mean_size(
    errors: list[float], signal: float
) -> None:
    sums = pd.DataFrame({"t": range(len(errors)), "forecast": np.array(errors) + 10.0, "actual": 10.0})

    found = tracking_signals(sums.assign(group=0, level="total", member=""))

    assert found["tracking_signal"].tolist() == pytest.approx([signal], nan_ok=True)
    assert found["periods"].tolist() == [len(errors)]


# Measures ----------------------------------------------------------------------------------------


def measures_of(world: World, last: int) -> pd.DataFrame:
    cutoffs = [label_of(world.panel, last - k) for k in range(1, 2 * world.panel.horizon)]
    newest = Outcomes.read(world.con, world.panel, cutoffs, last).within(last - world.panel.horizon)
    return accuracy_measures(newest, read_promises(world.con), world.panel)


def test_measures_are_of_the_newest_periods_whatever_cutoff_they_were_forecast_at(make: Make) -> None:
    world = make(WEEKLY)
    world.promise()
    for k in range(-18, 1):
        world.publish(world.start + k)

    table = measures_of(world, world.start)

    history = world.con.execute("FROM reports.forecast_history WHERE role = 'champion'").df()
    newest = {pd.Timestamp(label_of(WEEKLY, world.start - k)): world.start - k for k in range(WEEKLY.horizon)}
    rows = history[history["week"].isin(newest)]
    actual = np.array(
        [world.reported.get((r.store, r.dept, newest[r.week]), np.nan) for r in rows.itertuples()]
    )
    expected = np.nansum(np.abs(rows["forecast"] - actual)) / np.nansum(np.abs(actual))
    total = table[table["level"] == "total"].set_index("measure")["value"]
    assert total["wape"] == pytest.approx(expected)
    assert total["wape_over_promised"] == pytest.approx(
        (total["wape"] / total["wape_seasonal_naive"]) / measured_promise(world, rows, actual)
    )
    assert set(table["level"]) == {"total", "dept", "store"}
    assert set(table[table["level"] == "store"]["member"]) == {"1", "2", "10"}


def measured_promise(world: World, rows: pd.DataFrame, actual: np.ndarray) -> float:
    """The promised ratio to seasonal naive, horizons weighed by what was reported."""
    promised = read_promises(world.con)
    mine = promised[(promised["level"] == "total") & (promised["basis"] == "series")].set_index("horizon")
    weight = pd.Series(np.nan_to_num(np.abs(actual)), index=rows["horizon"]).groupby(level=0).sum()
    ours, naive = (
        sum(float(mine[name][h]) * w for h, w in weight.items()) for name in ("wape", "wape_seasonal_naive")
    )
    return ours / naive


def test_lost_accuracy_is_seen(make: Make) -> None:
    world = make(WEEKLY)
    world.promise()
    for k in range(-18, 1):
        world.publish(world.start + k, factor=1.0 if k < -8 else 4.0)

    before, after = (
        measures_of(world, world.start + k).query("level == 'total'").set_index("measure")["value"]
        for k in (-9, 0)
    )

    assert after["wape_over_promised"] > 2 * before["wape_over_promised"]
    assert after["bias"] > 1.0
    assert after["tracking_signal"] == pytest.approx(WEEKLY.horizon)


def test_without_a_promise_the_rest_is_measured(make: Make) -> None:
    world = make(WEEKLY)
    world.publish(world.start - 1)

    table = measures_of(world, world.start)

    assert "wape" in set(table["measure"])
    assert not set(table["measure"]) & {"wape_promised", "wape_over_promised"}
    assert measures_of(world, world.start - 5).empty
