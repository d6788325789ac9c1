"""Training: who takes part, recipes, the challenger and its promise; a backtest from the cleaned tables."""

from contextlib import nullcontext

import numpy as np
import pandas as pd
import pytest

from turnover_assets.core.backtest import Backtest, Entrant, learn
from turnover_assets.core.calendar import index_of
from turnover_assets.core.features import feature_names
from turnover_assets.core.intervals import BOUNDS
from turnover_assets.core.models import (
    BASELINE,
    CANDIDATES,
    Blend,
    Candidate,
    candidate_class,
    make_candidate,
)
from turnover_assets.core.rows import RowLimits
from turnover_assets.core.training import (
    CHAMPION,
    Fitted,
    Plan,
    backtest,
    challenger,
    entrants,
    promise,
    recipe,
    unfitted,
)
from turnover_assets.panel import default_panel
from turnover_assets_tests.backtest_factories import (
    NOBODY,
    QUICK_TREES,
    blended,
    entrant,
    hold,
    make_window,
    off,
)
from turnover_assets_tests.factories import default_history, insert_frames, memory_warehouse

PANEL = default_panel()
FEATURES = tuple(feature_names(PANEL))
NAMES = [kind.name for kind in CANDIDATES]
COMPONENTS = Blend().components
XGBOOST = candidate_class("xgboost")


def made(name: str, **parameters: object) -> Candidate:
    return make_candidate(candidate_class(name), {"xgboost": parameters} if parameters else None)


# Recipes


def test_a_recipe_differs_by_candidate_parameter_and_feature() -> None:
    recipes = [
        *(recipe(make_candidate(kind), FEATURES) for kind in CANDIDATES),
        recipe(made("xgboost", rounds=5), FEATURES),
        recipe(made("xgboost", rounds=6), FEATURES),
        recipe(made("xgboost", max_depth=5), FEATURES),
        recipe(made("blend", rounds=5), FEATURES),
        recipe(made("xgboost"), FEATURES[:-1]),
        recipe(made("xgboost"), [*FEATURES, "another"]),
        recipe(made("xgboost"), FEATURES[::-1]),
    ]

    assert len(set(recipes)) == len(recipes)
    assert all(len(text) == 12 for text in recipes)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_the_same_for_the_same(name: str) -> None:
    one = make_candidate(candidate_class(name), QUICK_TREES)

    assert recipe(one, FEATURES) == recipe(one.unfitted(), list(FEATURES))


def test_the_order_of_parameters_makes_no_other_recipe() -> None:
    one, other = made("xgboost", rounds=5, eta=0.1), made("xgboost", eta=0.1, rounds=5)

    assert recipe(one, FEATURES) == recipe(other, FEATURES)


def test_a_blends_recipe_does_not_depend_on_what_windows_have_taught_it() -> None:
    other = make_candidate(Blend, None, dict.fromkeys(COMPONENTS, 1 / len(COMPONENTS)))

    assert recipe(other, FEATURES) == recipe(make_candidate(Blend), FEATURES)


# Entrants


def test_every_candidate_takes_part_with_tuned_parameters_and_blends_after_their_components() -> None:
    found = entrants(QUICK_TREES, FEATURES)

    assert [e.name for e in found] == NAMES
    assert {e.name: e.make().parameters() for e in found} == {
        name: make_candidate(candidate_class(name), QUICK_TREES).parameters() for name in NAMES
    }
    assert all(NAMES.index(name) < NAMES.index("blend") for name in COMPONENTS)


@pytest.mark.parametrize(
    ("candidate", "features", "like"),
    [
        pytest.param(made("xgboost"), FEATURES, "xgboost", id="same recipe"),
        pytest.param(made("blend"), FEATURES, "blend", id="same blend"),
        pytest.param(made("xgboost", rounds=5), FEATURES, "", id="other parameters"),
        pytest.param(made("blend", rounds=5), FEATURES, "", id="blend of other parameters"),
        pytest.param(made("xgboost"), FEATURES[:-1], "", id="other features"),
    ],
)
def test_the_champion_takes_part_last_and_shares_forecasts_of_its_own_recipe_only(
    candidate: Candidate, features: tuple[str, ...], like: str
) -> None:
    *others, champion = entrants({}, FEATURES, Fitted(candidate, features, 120))

    assert [e.name for e in others] == NAMES
    assert (champion.name, champion.like, champion.fitted_until) == (CHAMPION, like, 120)
    assert champion.fitted is candidate
    fresh = champion.make()
    assert fresh is not candidate
    assert recipe(fresh, features) == recipe(candidate, features)


# The challenger


def judged(*extra: Entrant) -> Backtest:
    """A backtest whose best candidate is the first component of the blend, if the champion is left out."""
    who = blended({**dict.fromkeys(COMPONENTS, 1.4), COMPONENTS[0]: 1.01})
    naive = entrant(off(BASELINE, 1.2))
    windows = [make_window(cutoff) for cutoff in (100, 104, 108, 112)]
    return hold(windows, [naive, *who[1:], *extra])


def test_the_challenger_is_the_best_candidate_not_fitted_and_never_the_champion() -> None:
    found = judged(Entrant(CHAMPION, off("fit", 1.0), "", off("fit", 1.0)(), 50))

    chosen = challenger(found, QUICK_TREES)

    assert found.scores()["model"].tolist()[:2] == [CHAMPION, COMPONENTS[0]]
    assert chosen.name == COMPONENTS[0]
    expected = make_candidate(candidate_class(COMPONENTS[0]), QUICK_TREES)
    assert chosen.parameters() == expected.parameters()


def test_a_blend_that_is_to_be_fitted_has_the_weights_that_all_windows_teach() -> None:
    factors = dict(zip(COMPONENTS, (0.7, 0.9, 1.4, 1.1, 1.4), strict=True))
    found = hold([make_window(cutoff) for cutoff in (100, 104, 108)], blended(factors))

    chosen = unfitted(found, "blend", QUICK_TREES)

    assert isinstance(chosen, Blend)
    seasons = found.seasons
    assert chosen.weights == learn(Blend(), found.windows, found.hindsight(), seasons).weights
    assert chosen.weights != learn(Blend(), found.windows[:-1], found.hindsight(), seasons).weights
    assert chosen.parameters() == make_candidate(Blend, QUICK_TREES).parameters()


def test_a_blend_is_fitted_with_the_prior_of_all_the_history_there_is() -> None:
    found = hold([make_window(cutoff) for cutoff in (100, 104, 108)], blended(dict.fromkeys(COMPONENTS, 1.0)))

    newest = found.windows[-1]
    assert np.isfinite(newest.reported).all()  # to the end of the horizon of its last cutoff
    ahead = int(newest.rows.identity["t"].max()) - 108
    assert ahead > 0
    assert found.seasons == pytest.approx(newest.seasons + ahead / found.panel.frequency.season)


@pytest.mark.parametrize("name", [COMPONENTS[0], BASELINE])
def test_a_promise_is_that_of_the_compared_windows(name: str) -> None:
    found = judged()

    told = promise(found, name)

    rows = found.rows(name, found.compared)
    error = rows["forecast"] - rows["actual"]
    assert told["wape"] == pytest.approx(error.abs().sum() / rows["actual"].abs().sum())
    assert told["bias"] == pytest.approx(error.sum() / rows["actual"].abs().sum())
    inside = rows["actual"].between(rows["lower_80"], rows["upper_80"])
    assert told["coverage_80"] == pytest.approx(inside.mean())
    assert told[f"wape_{BASELINE}"] == pytest.approx(0.2, abs=1e-6)


def test_nothing_is_promised_of_a_baseline_that_did_not_take_part() -> None:
    found = hold([make_window(100), make_window(104)], [entrant(off("other", 0.9))])

    assert set(promise(found, "other")) == {"wape", "bias", "coverage_80", "coverage_95"}


# From the cleaned tables


def test_a_backtest_from_the_cleaned_tables_forecasts_a_horizon_of_cutoffs_with_everybody() -> None:
    frames = default_history(periods=100)
    last = index_of(PANEL, pd.Timestamp(frames["turnover"]["week"].max()).date())
    cutoffs = (last - 2 * PANEL.horizon, last - PANEL.horizon)
    plan = Plan(RowLimits(share=0.2, max_rows=1500, alive=4), NOBODY, seed=1, threads=1, tuned=QUICK_TREES)
    told: list[str] = []
    with memory_warehouse() as con:
        insert_frames(con, PANEL, frames)
        who = entrants(QUICK_TREES, FEATURES)
        found = backtest(lambda: nullcontext(con), PANEL, cutoffs, who, plan, told.append)

    assert found.cutoffs == cutoffs
    assert set(found.entrants) == set(NAMES)
    assert len(told) == 2 * len(NAMES)
    for window in found.windows:
        dense = set(range(window.cutoff, window.cutoff + PANEL.horizon))
        assert set(window.rows.identity["cutoff"]) == dense
    rows = pd.concat([found.rows(name, cutoffs[1:]) for name in found.entrants])
    assert rows.groupby(["store", "department", "horizon"])["actual"].nunique(dropna=False).eq(1).all()
    assert rows[["forecast", *BOUNDS]].notna().all(axis=None)
    assert np.isfinite(found.scores()["wape"]).all()
