"""The comparison of candidates: the leakage guard, the choice, small histories, clipping."""

from typing import ClassVar

import numpy as np
import pandas as pd
import pytest

from turnover_assets.core.holdout import MINIMUM_ROWS, compare
from turnover_assets.core.models import CANDIDATES, Rows, SeasonalNaive
from turnover_assets.core.models.naive import SeasonalNaiveGrowth

LAST = 100  # the holdout's cutoff
NAMES = ("year_ago_same", "around_1_narrow", "around_1_wide", "lag_0", "mean_4", "year_ago_grown")


class HalfTooLow(SeasonalNaive):
    """Forecasts half of last year's value."""

    name = "half_too_low"
    trained_on: ClassVar[list[int]] = []

    def fit(self, rows: Rows, *, seed: int, threads: int) -> "HalfTooLow":
        self.trained_on.append(len(rows))
        return self

    def predict(self, rows: Rows) -> np.ndarray:
        return 0.5 * super().predict(rows)


class BelowZero(SeasonalNaive):
    """Forecasts what no shop sells."""

    name = "below_zero"

    def predict(self, rows: Rows) -> np.ndarray:
        return -super().predict(rows)


class Hungry(SeasonalNaive):
    """Has something to learn, which takes rows."""

    name = "hungry"

    def parameters(self) -> dict[str, str | int | float]:
        return {"depth": 3}


def make_rows(cutoffs: list[int], count: int = 40, horizons: int = 8) -> Rows:
    """Series that repeat last year's value exactly; 10 percent growth is what year_ago_grown claims."""
    dice = np.random.default_rng(len(cutoffs))
    identity = pd.DataFrame(
        [
            (series, cutoff, horizon, cutoff + horizon)
            for series in range(count)
            for cutoff in cutoffs
            for horizon in range(1, horizons + 1)
        ],
        columns=["series_id", "cutoff", "horizon", "t"],
    )
    value = dice.lognormal(0.0, 0.3, len(identity))
    identity["scale"] = dice.lognormal(5.0, 1.0, len(identity))
    identity["in_force"] = 1.0
    identity["actual"] = identity["reported"] = value * identity["scale"]
    x = np.tile(value[:, None], (1, len(NAMES))).astype(np.float32)
    x[:, NAMES.index("year_ago_grown")] *= 1.1
    return Rows(identity, x, NAMES)


@pytest.fixture
def training() -> Rows:
    return make_rows([80, 88, 92])


@pytest.fixture
def held_out() -> Rows:
    return make_rows([LAST])


def run(training: Rows, held_out: Rows, *candidates: type, nonnegative: bool = True, **more: object):
    return compare(candidates, training, held_out, seed=1, threads=1, nonnegative=nonnegative, **more)


@pytest.mark.parametrize(
    "cutoffs",
    [
        pytest.param([93], id="last target is the first period of the holdout"),
        pytest.param([80, LAST], id="same cutoff"),
        pytest.param([LAST + 8], id="after the holdout"),
    ],
)
def test_training_rows_that_reach_into_the_holdout_are_refused(held_out: Rows, cutoffs: list[int]) -> None:
    with pytest.raises(ValueError, match=r"training rows reach into the holdout, which begins at period 101"):
        run(make_rows(cutoffs), held_out, SeasonalNaive)


def test_training_up_to_the_cutoff_of_the_holdout_is_allowed(held_out: Rows) -> None:
    HalfTooLow.trained_on.clear()

    run(make_rows([92]), held_out, HalfTooLow)  # its last target is period 100

    assert HalfTooLow.trained_on == [40 * 8]


def test_a_holdout_without_a_known_actual_is_refused(training: Rows, held_out: Rows) -> None:
    unknown = Rows(held_out.identity.assign(actual=np.nan), held_out.x, NAMES)

    with pytest.raises(ValueError, match=r"no row with a known actual"):
        run(training, unknown, SeasonalNaive)


@pytest.mark.parametrize("turn", [0, 1, 2])
def test_the_winner_is_the_candidate_with_the_lowest_wape_in_whatever_order(
    training: Rows, held_out: Rows, turn: int
) -> None:
    candidates = [HalfTooLow, SeasonalNaive, SeasonalNaiveGrowth]

    found = run(training, held_out, *candidates[turn:], *candidates[:turn])

    assert found.winner == "seasonal_naive"
    assert found.scores["model"].tolist() == ["seasonal_naive", "seasonal_naive_growth", "half_too_low"]
    assert found.scores["wape"].tolist() == pytest.approx([0.0, 0.1, 0.5], abs=1e-6)
    assert found.scores["bias"].tolist() == pytest.approx([0.0, 0.1, -0.5], abs=1e-6)
    assert found.scores["chosen"].tolist() == [True, False, False]
    assert found.wape_of("half_too_low") == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        pytest.param(0, ["seasonal_naive"], id="none"),
        pytest.param(MINIMUM_ROWS - 1, ["seasonal_naive"], id="too few"),
        pytest.param(MINIMUM_ROWS, ["seasonal_naive", "hungry"], id="enough"),
    ],
)
def test_only_baselines_compete_where_there_is_too_little_to_learn_from(
    training: Rows, held_out: Rows, rows: int, expected: list[str]
) -> None:
    few = training.where(np.arange(len(training)) < rows)

    found = run(few, held_out, SeasonalNaive, Hungry)

    assert list(found.forecasts) == expected


def test_too_few_rows_for_every_candidate_is_an_error(training: Rows, held_out: Rows) -> None:
    few = training.where(np.arange(len(training)) < 3)

    with pytest.raises(ValueError, match=r"no candidate can be fitted on 3 rows"):
        run(few, held_out, Hungry)


@pytest.mark.parametrize(("nonnegative", "wape"), [(True, 1.0), (False, 2.0)], ids=["clipped", "free"])
def test_forecasts_below_zero_are_clipped_where_the_target_cannot_be(
    training: Rows, held_out: Rows, nonnegative: bool, wape: float
) -> None:
    found = run(training, held_out, BelowZero, nonnegative=nonnegative)

    assert found.wape_of("below_zero") == pytest.approx(wape, rel=1e-6)
    assert (found.forecasts["below_zero"] >= 0).all() == nonnegative


def test_scores_are_against_what_was_reported_and_count_what_is_known(training: Rows, held_out: Rows) -> None:
    half_known = held_out.identity["reported"].where(held_out.identity.index % 2 == 0) * 2
    rows = Rows(held_out.identity.assign(reported=half_known), held_out.x, NAMES)

    found = run(training, rows, SeasonalNaive)

    assert found.wape_of("seasonal_naive") == pytest.approx(0.5, rel=1e-6)
    assert found.scores.loc[0, ["training_rows", "holdout_rows"]].tolist() == [len(training), len(rows) // 2]


def test_progress_names_each_candidate_before_it_is_fitted(training: Rows, held_out: Rows) -> None:
    told: list[str] = []

    run(training, held_out, SeasonalNaive, HalfTooLow, progress=told.append)

    assert told == ["seasonal_naive", "half_too_low"]


def test_intervals_are_those_of_the_winner(training: Rows, held_out: Rows) -> None:
    intervals = run(training, held_out, SeasonalNaive, HalfTooLow).intervals()

    assert intervals.quantiles.index.tolist() == list(range(1, 9))
    assert intervals.quantiles.to_numpy() == pytest.approx(0.0, abs=1e-6)  # last year's value is right


def test_every_candidate_of_the_registry_can_be_compared(training: Rows, held_out: Rows) -> None:
    found = run(training, held_out, *CANDIDATES)

    assert set(found.forecasts) == {candidate.name for candidate in CANDIDATES}
    assert all(len(forecast) == len(held_out) for forecast in found.forecasts.values())


def test_forecasts_are_scored_in_the_scale_that_is_reported_in(training: Rows, held_out: Rows) -> None:
    doubled = held_out.identity.assign(in_force=2.0, reported=2.0 * held_out.identity["reported"])

    found = run(training, Rows(doubled, held_out.x, NAMES), SeasonalNaive)

    assert found.wape_of("seasonal_naive") == pytest.approx(0.0, abs=1e-6)
    np.testing.assert_allclose(found.forecasts["seasonal_naive"], held_out.actual, rtol=1e-6)
