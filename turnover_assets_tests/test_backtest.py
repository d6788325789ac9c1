"""The backtest: same rows for all, evidence from before only, leakage, scores, sums, columns."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import duckdb
import numpy as np
import pandas as pd
import pytest

from turnover_assets.core.aggregates import aggregate
from turnover_assets.core.backtest import (
    MINIMUM_ROWS,
    Backtest,
    Entrant,
    Hindsight,
    compared_cutoffs,
    learn,
)
from turnover_assets.core.calendar import label_of
from turnover_assets.core.intervals import BOUNDS, Intervals
from turnover_assets.core.models import Blend, Rows, SeasonalNaive
from turnover_assets.core.models.blend import PRIOR, SHORT_PRIOR, prior_of
from turnover_assets.core.rows import RowLimits
from turnover_assets.core.windows import Window, make_windows
from turnover_assets_tests.backtest_factories import (
    NOBODY,
    SERIES,
    blended,
    entrant,
    hold,
    make_window,
    noisy,
    off,
    quick_entrants,
    region_panel,
)
from turnover_assets_tests.factories import default_history, default_panel, insert_frames, memory_warehouse

RIGHT, LOW, HIGH = off("right", 1.0), off("low", 0.8), off("high", 1.3)
ALL = [entrant(kind) for kind in (LOW, RIGHT, HIGH)]
CUTOFFS = (100, 104, 108, 112)
COMPONENTS = Blend().components


class Hungry(SeasonalNaive):
    """Has something to learn, which takes rows."""

    name = "hungry"

    def parameters(self) -> dict[str, str | int | float]:
        return {"depth": 3}


class BelowZero(SeasonalNaive):
    """Forecasts what no shop sells."""

    name = "below_zero"

    def predict(self, rows: Rows) -> np.ndarray:
        return -super().predict(rows)


@pytest.fixture(scope="module")
def found() -> Backtest:
    """Four windows with a horizon of cutoffs each; three take part, off by known factors."""
    return hold([make_window(cutoff, dense=4) for cutoff in CUTOFFS], ALL)


# The guard


@pytest.mark.parametrize(
    "past",
    [
        pytest.param([97], id="last outcome is a period after the cutoff"),
        pytest.param([80, 100], id="same cutoff"),
        pytest.param([110], id="after the cutoff"),
    ],
)
def test_training_rows_that_reach_beyond_the_cutoff_are_refused(past: list[int]) -> None:
    with pytest.raises(ValueError, match="training rows reach beyond the cutoff 100"):
        hold([make_window(100, training=past)], ALL)


def test_training_rows_up_to_the_cutoff_are_allowed() -> None:
    assert hold([make_window(100, training=[96])], ALL).windows[0].training_rows == 6 * 4


def test_a_window_without_a_known_outcome_is_refused() -> None:
    with pytest.raises(ValueError, match="the window of cutoff 104 has no row with a known outcome"):
        hold([make_window(100), make_window(104, known=104)], ALL)


def shortened(window: Window, rows: int) -> Window:
    few = window.training.where(np.arange(len(window.training)) < rows)
    return replace(window, training=few)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        pytest.param(0, ["seasonal_naive"], id="none"),
        pytest.param(MINIMUM_ROWS - 1, ["seasonal_naive"], id="too few"),
        pytest.param(MINIMUM_ROWS, ["seasonal_naive", "hungry"], id="enough"),
    ],
)
def test_only_baselines_compete_where_there_is_too_little_to_learn_from(
    rows: int, expected: list[str]
) -> None:
    windows = [shortened(make_window(100), rows), make_window(104)]

    backtest = hold(windows, [entrant(SeasonalNaive), entrant(Hungry)])

    assert list(backtest.windows[0].forecasts) == backtest.entrants == expected
    assert list(backtest.windows[1].forecasts) == ["seasonal_naive", "hungry"]
    assert backtest.scores()["model"].tolist() == expected


def test_a_blend_takes_part_only_where_all_its_components_do() -> None:
    window = shortened(make_window(100), 10)

    assert hold([window], quick_entrants()).entrants == ["seasonal_naive"]


def test_nobody_who_can_be_fitted_is_an_error() -> None:
    with pytest.raises(ValueError, match="nobody can be fitted on 10 rows; let a baseline take part"):
        hold([shortened(make_window(100), 10)], [entrant(Hungry)])


def test_progress_names_each_entrant_before_it_is_fitted() -> None:
    told: list[str] = []

    hold([make_window(100), make_window(104)], ALL[:2], progress=told.append)

    first, second = "as of 1991-12-02", "as of 1991-12-30"
    assert sorted(told[:2]) == [f"low {first}", f"right {first}"]
    assert sorted(told[2:]) == [f"low {second}", f"right {second}"]


# Rows and scores


@pytest.mark.parametrize("name", ["low", "right", "high"])
def test_all_entrants_are_judged_on_the_same_rows(found: Backtest, name: str) -> None:
    rows = found.rows(name, CUTOFFS)

    assert rows["model"].unique().tolist() == [name]
    identity = ["shop", "region", "cutoff", "t", "horizon", "scale", "actual", "is_new", "naive_mae"]
    pd.testing.assert_frame_equal(rows[identity], found.rows("right", CUTOFFS)[identity])
    expected = [noisy(s, t) for s, t in zip(rows["shop"], rows["t"], strict=True)]
    np.testing.assert_allclose(rows["actual"], expected)
    factor = {"low": 0.8, "right": 1.0, "high": 1.3}[name]
    np.testing.assert_allclose(rows["forecast"], factor * rows["actual"], rtol=1e-6)


def test_rows_have_the_documented_columns_for_each_series_and_horizon_of_each_window(found: Backtest) -> None:
    rows = found.rows("low", CUTOFFS[1:3])

    assert list(rows) == [
        *("shop", "region", "naive_mae", "naive_mse", "series_id", "cutoff", "t", "horizon", "scale"),
        *("actual", "forecast", *BOUNDS, "is_new", "model"),
    ]
    assert rows["cutoff"].unique().tolist() == [104, 108]  # not the cutoffs after them
    assert (rows["t"] == rows["cutoff"] + rows["horizon"]).all()
    assert len(rows) == len(rows.drop_duplicates(["shop", "cutoff", "horizon"])) == 2 * 6 * 4
    assert rows.loc[rows["is_new"], "shop"].unique().tolist() == [6]


def test_a_series_is_new_until_it_has_a_season_of_history() -> None:
    window = make_window(100)
    ages = window.series.assign(first_t=[0, 47, 48, 49, 50, 100])

    rows = hold([replace(window, series=ages)], ALL).rows("low", [100])

    assert sorted(rows.loc[rows["is_new"], "shop"].unique()) == [4, 5, 6]  # 49 on: 52 periods or fewer ago


def scaled(window: Window, factor: float) -> Window:
    """The same, where the first shop is reported in another unit from the cutoff on."""
    rows = window.scoring
    ratio = np.where(rows.identity["series_id"] == 1, factor, 1.0)
    reported = rows.identity["reported"] * ratio
    identity = rows.identity.assign(in_force=ratio, reported=reported)
    return replace(window, scoring=replace(rows, identity=identity))


def test_rows_are_in_the_scale_in_which_a_series_is_reported() -> None:
    plain = [make_window(cutoff) for cutoff in CUTOFFS[:3]]
    before = hold(plain, ALL).rows("low", [108])

    after = hold([scaled(window, 10.0) for window in plain], ALL).rows("low", [108])

    columns = ["scale", "actual", "forecast", *BOUNDS]
    first = before["shop"] == 1
    pd.testing.assert_frame_equal(after.loc[first, columns[:3]], 10.0 * before.loc[first, columns[:3]])
    pd.testing.assert_frame_equal(after.loc[~first, columns[:3]], before.loc[~first, columns[:3]])
    assert (after[list(BOUNDS)].notna()).all(axis=None)
    relative = after["forecast"] / after["actual"]
    np.testing.assert_allclose(relative, 0.8, rtol=1e-6)
    naive = before[["naive_mae", "naive_mse"]].mul([10.0, 100.0], axis=1)
    pd.testing.assert_frame_equal(after.loc[first, naive.columns], naive[first])
    pd.testing.assert_frame_equal(after.loc[~first, naive.columns], before.loc[~first, naive.columns])


@pytest.mark.parametrize(
    ("cutoffs", "expected"),
    [
        pytest.param((1,), (1,), id="one has to do"),
        pytest.param((1, 2), (2,), id="of two the last"),
        pytest.param((1, 2, 3), (2, 3), id="of three two"),
        pytest.param((1, 2, 3, 4), (3, 4), id="of four two"),
        pytest.param((1, 2, 3, 4, 5, 6), (3, 4, 5, 6), id="never more than two are evidence only"),
    ],
)
def test_models_are_compared_where_there_is_evidence_before(
    cutoffs: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    assert compared_cutoffs(cutoffs) == expected


def test_where_nobody_beats_forecasting_nothing_the_best_is_off_the_least_in_total() -> None:
    class Restless(RIGHT):  # type: ignore[misc, valid-type]
        """Twice as much in one row and nothing in the next."""

        name = "restless"

        def predict(self, rows: Rows) -> np.ndarray:
            return super().predict(rows) * np.where(np.arange(len(rows)) % 2, 2.1, 0.0)

    windows = [make_window(cutoff) for cutoff in CUTOFFS]

    scores = hold(
        windows, [entrant(off("nothing", 0.0)), entrant(off("much", 2.5)), entrant(Restless)]
    ).scores()

    assert scores["model"].tolist() == ["restless", "nothing", "much"]
    assert scores["wape"].tolist() == pytest.approx([1.05, 1.0, 1.5], abs=0.04)
    assert scores["chosen"].tolist() == [True, False, False]


@pytest.mark.parametrize("turn", [0, 1, 2])
def test_the_best_comes_first_in_whatever_order_they_take_part(turn: int) -> None:
    windows = [make_window(cutoff) for cutoff in CUTOFFS]

    scores = hold(windows, [*ALL[turn:], *ALL[:turn]]).scores()

    assert scores["model"].tolist() == ["right", "low", "high"]
    assert scores["wape"].tolist() == pytest.approx([0.0, 0.2, 0.3], abs=1e-6)
    assert scores["bias"].tolist() == pytest.approx([0.0, -0.2, 0.3], abs=1e-6)
    assert scores["chosen"].tolist() == [True, False, False]
    assert (scores["windows"] == 2).all()
    assert (scores["scored_rows"] == 2 * 6 * 4).all()
    assert (scores["training_rows"] == len(windows[-1].training)).all()


def test_scores_are_of_the_compared_windows_own_cutoffs_and_of_what_is_known() -> None:
    """Off by half in the windows before, right in those compared; half of the last one is not known yet."""
    windows = [make_window(cutoff, dense=4, known=114) for cutoff in CUTOFFS]
    windows[0] = replace(windows[0], scoring=replace(windows[0].scoring, x=0.5 * windows[0].scoring.x))

    scores = hold(windows, ALL).scores().set_index("model")

    assert scores.loc["right", "wape"] == pytest.approx(0.0, abs=1e-6)
    assert scores.loc["right", "scored_rows"] == 6 * (4 + 2)


@pytest.mark.parametrize(("nonnegative", "wape"), [(True, 1.0), (False, 2.0)], ids=["clipped", "free"])
def test_forecasts_below_zero_are_clipped_where_the_target_cannot_be(nonnegative: bool, wape: float) -> None:
    panel = region_panel(nonnegative)
    windows = [make_window(cutoff) for cutoff in CUTOFFS[:2]]

    backtest = hold(windows, [entrant(BelowZero)], panel)

    assert backtest.scores()["wape"].tolist() == pytest.approx([wape], rel=1e-6)
    rows = backtest.rows("below_zero", [104])
    assert (rows[["forecast", *BOUNDS]] >= 0).all(axis=None) == nonnegative


# Sums


def test_sums_are_those_of_their_parts(found: Backtest) -> None:
    rows, sums = found.rows("low", CUTOFFS), found.aggregates("low", CUTOFFS)

    by = ["cutoff", "horizon"]
    for level, member, parts in (
        ("region", "n", rows[rows["region"] == "n"]),
        ("region", "s", rows[rows["region"] == "s"]),
        ("total", "", rows),
    ):
        expected = parts.groupby(by)[["scale", "forecast", "actual"]].sum()
        told = sums[(sums["level"] == level) & (sums["member"] == member)].set_index(by)
        pd.testing.assert_frame_equal(told[list(expected)], expected)
    assert len(sums) == 3 * len(CUTOFFS) * 4
    assert (sums["model"] == "low").all()


def test_sums_have_bounds_of_their_own_where_a_window_lies_before(found: Backtest) -> None:
    sums = found.aggregates("low", CUTOFFS)

    first = sums["cutoff"] == CUTOFFS[0]
    assert sums.loc[first, list(BOUNDS)].isna().all(axis=None)
    for cutoff in CUTOFFS[1:]:
        table = aggregate(found.rows("low", [cutoff]), ["region"])
        by_hand = found.intervals("low", cutoff).aggregate_bounds(table, nonnegative=True)
        np.testing.assert_allclose(sums.loc[sums["cutoff"] == cutoff, list(BOUNDS)], by_hand[list(BOUNDS)])
        assert by_hand[list(BOUNDS)].notna().all(axis=None)
    added = found.rows("low", CUTOFFS[1:]).groupby(["cutoff", "horizon"])["upper_95"].sum()
    total = sums[~first & (sums["level"] == "total")].set_index(["cutoff", "horizon"])["upper_95"]
    assert (total - added).abs().min() > 1.0


# Evidence from before only


def test_the_first_window_has_no_bounds_and_each_later_one_those_of_the_windows_before(
    found: Backtest,
) -> None:
    assert found.rows("low", CUTOFFS[:1])[list(BOUNDS)].isna().all(axis=None)
    assert found.intervals("low", CUTOFFS[0]) is None
    for cutoff in CUTOFFS[1:]:
        rows = found.rows("low", [cutoff])
        errors = [w.errors("low") for w in found.windows if w.cutoff < cutoff]
        known = pd.concat(errors, ignore_index=True).query("t <= @cutoff").assign(comparable=True)
        window = next(w for w in found.windows if w.cutoff == cutoff)
        by_hand = Intervals.calibrate(known, ["region"]).bounds(
            window.rows.where(window.own), window.forecasts["low"][window.own], nonnegative=True
        )
        np.testing.assert_allclose(rows[list(BOUNDS)], by_hand)


def surprised(window: Window, after: int) -> Window:
    """The same window, whose outcomes after a period are nothing like what could be expected."""
    identity = window.scoring.identity
    factor = np.where(identity["t"] > after, 5.0 * (1 + identity["series_id"] % 2), 1.0)
    changed = identity.assign(reported=factor * identity["reported"], actual=factor * identity["actual"])
    return replace(window, scoring=replace(window.scoring, identity=changed))


def off_by_much() -> list[Entrant]:
    return blended(dict(zip(COMPONENTS, (0.7, 0.9, 1.2, 1.5), strict=False)))


@pytest.mark.parametrize("step", [4, 3, 1], ids=["a horizon apart", "overlapping", "a period apart"])
def test_what_is_not_known_at_a_cutoff_changes_neither_weights_nor_bounds(step: int) -> None:
    """Outcomes after the newest window's cutoff are replaced: they may teach nobody anything."""
    cutoffs = [100, 100 + step, 100 + 2 * step]
    tables = []
    for after in (10_000, cutoffs[-1]):
        windows = [surprised(make_window(cutoff, dense=4), after) for cutoff in cutoffs]
        backtest = hold(windows, off_by_much())
        tables.append([backtest.rows(name, cutoffs) for name in ("blend", COMPONENTS[0])])

    for was, changed in zip(*tables, strict=True):
        pd.testing.assert_frame_equal(was.drop(columns="actual"), changed.drop(columns="actual"))
        later = was["t"] > cutoffs[-1]
        assert (was.loc[later, "actual"] != changed.loc[later, "actual"]).all()
        assert (was.loc[~later, "actual"] == changed.loc[~later, "actual"]).all()


def test_the_weights_of_a_window_are_learned_on_the_windows_before() -> None:
    factors = dict(zip(COMPONENTS, (1.0, 1.4, 1.4, 1.4, 1.4), strict=True))
    backtest = hold([make_window(cutoff) for cutoff in CUTOFFS], blended(factors))

    for number, window in enumerate(backtest.windows):
        learned = learn(Blend(), backtest.windows[:number], backtest.hindsight(window.cutoff), window.seasons)
        np.testing.assert_allclose(window.forecasts["blend"], learned.combine(window.forecasts))
    first = backtest.windows[0]
    prior = sum(weight * first.forecasts[name] for name, weight in prior_of(first.seasons).items())
    np.testing.assert_allclose(first.forecasts["blend"], prior)
    assert learned.weights != pytest.approx(prior_of(window.seasons), abs=0.01)


@pytest.mark.parametrize(
    ("first_t", "expected"),
    [
        (100 - 104 + 1, SHORT_PRIOR),
        (100 - 30, SHORT_PRIOR),
        (100 - 156 + 1, PRIOR),
        (100 - 130 + 1, {name: (PRIOR[name] + SHORT_PRIOR[name]) / 2 for name in PRIOR}),
    ],
    ids=["two seasons", "less than one", "three seasons", "two and a half"],
)
def test_without_evidence_the_weights_depend_on_the_length_of_the_history(
    first_t: int, expected: dict[str, float]
) -> None:
    window = make_window(100)
    window = replace(window, series=window.series.assign(first_t=[first_t, *[99] * 5]))

    found = hold([window], off_by_much()).windows[0]

    combined = sum(weight * found.forecasts[name] for name, weight in expected.items())
    np.testing.assert_allclose(found.forecasts["blend"], combined)
    assert sum(expected.values()) == pytest.approx(1.0)


def seen(until: int | None = None, doubled: Iterable[int] = ()) -> Hindsight:
    """What is known at a period, where the shops named are known to have been reported doubled."""
    shops = [(shop, t) for shop in doubled for t in range(90, 120)]
    factors = pd.DataFrame(shops, columns=["shop", "t"], dtype=int).assign(factor=2.0)
    return Hindsight(("shop",), factors, until)


def test_outcomes_in_another_scale_teach_no_weights() -> None:
    window = hold([make_window(100)], off_by_much()).windows[0]
    doubled = (SERIES[0], SERIES[3])
    right = (~window.members["shop"].isin(doubled)).to_numpy()
    evidence = ({name: window.forecasts[name][right] for name in COMPONENTS}, window.rows.where(right))

    learned = learn(Blend(), [window], seen(doubled=doubled), 3.0)

    assert learned.weights == Blend().learned([evidence], 3.0).weights
    assert learn(Blend(), [window], seen(doubled=SERIES), 3.0).weights == pytest.approx(dict(PRIOR))


def test_an_overlapping_window_teaches_by_its_known_outcomes_only() -> None:
    first = hold([surprised(make_window(100), after=102)], off_by_much()).windows[0]
    early = (first.rows.identity["t"] <= 102).to_numpy()
    evidence = ({name: first.forecasts[name][early] for name in COMPONENTS}, first.rows.where(early))

    assert learn(Blend(), [first], seen(102), 3.0).weights == Blend().learned([evidence], 3.0).weights
    assert learn(Blend(), [first], seen(100), 3.0).weights == pytest.approx(dict(PRIOR))
    assert learn(Blend(), [first], seen(), 3.0).weights != learn(Blend(), [first], seen(102), 3.0).weights


def test_weights_learn_from_the_windows_own_cutoffs_only() -> None:
    own, dense = (hold([make_window(100, dense=n)], off_by_much()).windows for n in (1, 4))

    assert learn(Blend(), own, seen(), 3.0).weights == learn(Blend(), dense, seen(), 3.0).weights


def test_intervals_learn_from_the_cutoffs_after_the_windows_own_as_well(found: Backtest) -> None:
    assert set(found.windows[0].errors("low")["cutoff"]) == {100, 101, 102, 103}
    assert found.windows[0].errors("low", until=101)["t"].unique().tolist() == [101]
    assert found.windows[0].errors("low", until=100).empty


# A champion


@pytest.mark.parametrize(
    ("until", "frozen_from"),
    [(99, 100), (100, 100), (101, 104), (112, 112), (113, 999)],
    ids=["older than all", "at the first", "just after", "at the newest", "newer than all"],
)
def test_a_champion_is_used_as_it_is_from_its_cutoff_on_and_its_recipe_before(
    until: int, frozen_from: int
) -> None:
    fitted = off("fitted", 0.5)()
    champion = Entrant("champion", off("recipe", 2.0), "", fitted, until)

    backtest = hold([make_window(cutoff) for cutoff in CUTOFFS], [*ALL, champion])

    for window in backtest.windows:
        expected = 0.5 if window.cutoff >= frozen_from else 2.0
        np.testing.assert_allclose(window.forecasts["champion"], expected * window.forecasts["right"])


def test_a_champion_of_a_candidates_recipe_shares_its_forecasts_before_its_cutoff() -> None:
    champion = Entrant("champion", off("never", 9.0), "low", off("fitted", 0.5)(), 105)

    backtest = hold([make_window(cutoff) for cutoff in CUTOFFS], [*ALL, champion])

    for window in backtest.windows:
        if window.cutoff < 105:
            np.testing.assert_array_equal(window.forecasts["champion"], window.forecasts["low"])
        else:
            np.testing.assert_allclose(window.forecasts["champion"], 0.5 * window.forecasts["right"])


def test_a_blend_as_champion_with_other_parameters_is_not_forecast_by_todays_components() -> None:
    """Its own components forecast windows before its cutoff, with weights from the windows before these."""
    parts = [off(name, 2.0)() for name in COMPONENTS]
    champion = Entrant("champion", lambda: Blend(None, None, parts), "", Blend(None, None, parts), 999)

    backtest = hold([make_window(cutoff) for cutoff in CUTOFFS], [*off_by_much(), champion])

    for window in backtest.windows:
        truth = window.forecasts["seasonal_naive"]
        np.testing.assert_allclose(window.forecasts["champion"], 2.0 * truth, rtol=1e-6)
        assert not np.allclose(window.forecasts["blend"], 2.0 * truth)


# Leakage, from files to bounds

PANEL = default_panel()
FEW = RowLimits(share=0.3, max_rows=1500, alive=4)
LAST_WEEKS = sorted(default_history(periods=100)["turnover"]["week"].unique())
EDGE = 8  # periods before the newest one


@pytest.fixture(scope="module")
def replaced() -> tuple[Backtest, Backtest]:
    """Two windows that overlap, as they are and with all values after the newest cutoff replaced."""
    found = []
    for is_changed in (False, True):
        frames = default_history(periods=100)
        if is_changed:
            later = frames["turnover"]["week"] > LAST_WEEKS[-1 - EDGE]
            frames["turnover"].loc[later, "turnover"] = 123_456.0
        with memory_warehouse() as con:
            insert_frames(con, PANEL, frames)
            found.append(hold(list(windows_of(con)), quick_entrants(), PANEL))
    return found[0], found[1]


def windows_of(con: duckdb.DuckDBPyConnection) -> Iterator[Window]:
    last = con.execute("SELECT max(t) FROM cleaned.turnover").fetchall()[0][0]
    cutoffs = [last - EDGE - 5, last - EDGE]
    assert label_of(PANEL, cutoffs[-1]).isoformat() == LAST_WEEKS[-1 - EDGE]
    return make_windows(con, PANEL, cutoffs, FEW, NOBODY, PANEL.horizon)


@pytest.mark.parametrize("name", [*COMPONENTS, "blend"])
def test_no_forecast_and_no_bound_knows_a_value_after_its_cutoff(
    replaced: tuple[Backtest, Backtest], name: str
) -> None:
    was, changed = (backtest.rows(name, backtest.cutoffs) for backtest in replaced)

    pd.testing.assert_frame_equal(was.drop(columns="actual"), changed.drop(columns="actual"))
    later = was["t"] > was["cutoff"].max()
    pd.testing.assert_series_equal(was.loc[~later, "actual"], changed.loc[~later, "actual"])
    assert (changed.loc[later, "actual"].dropna() == 123_456.0).all()
    assert was.loc[was["cutoff"] > was["cutoff"].min(), list(BOUNDS)].notna().all(axis=None)


@pytest.mark.parametrize("name", ["blend", COMPONENTS[0]])
def test_no_bound_of_a_sum_knows_a_value_after_its_cutoff(
    replaced: tuple[Backtest, Backtest], name: str
) -> None:
    was, changed = (backtest.aggregates(name, backtest.cutoffs) for backtest in replaced)

    pd.testing.assert_frame_equal(was.drop(columns="actual"), changed.drop(columns="actual"))
