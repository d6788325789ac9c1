"""The candidate models: baselines against an oracle, determinism, storage without pickle, explanations."""

import json
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.linear_model import LinearRegression

from turnover_assets.core.models import BASELINE, CANDIDATES, Candidate, Rows, candidate_class
from turnover_assets.core.models.boosting import ResidualBoosting, XGBoost
from turnover_assets.core.models.histogram import BINS, SKOPS_TRUSTED, HistogramBoosting, binned
from turnover_assets.core.models.naive import SeasonalNaive, SeasonalNaiveGrowth
from turnover_assets.core.models.recursive import RecursiveBoosting, SeasonalRecursiveBoosting
from turnover_assets.errors import UnknownNameError

NAMES = (
    "year_ago_same",
    "around_1_narrow",
    "around_1_wide",
    "lag_0",
    "mean_4",
    "mean_8",
    "year_ago_grown",
    "growth_13",
    "store_code",
    "never_known",
)
GROUPS = {
    "year_ago_same": "season",
    "around_1_narrow": "season",
    "around_1_wide": "season",
    "lag_0": "recent level",
    "mean_4": "recent level",
    "mean_8": "recent level",
    "year_ago_grown": "season",
    "growth_13": "growth",
    "store_code": "store",
    "never_known": "calendar",
}
BOOSTERS = (HistogramBoosting, XGBoost, ResidualBoosting)
every_candidate = pytest.mark.parametrize("candidate", CANDIDATES, ids=lambda candidate: candidate.name)
every_booster = pytest.mark.parametrize("candidate", BOOSTERS, ids=lambda candidate: candidate.name)


def make_rows(count: int, seed: int, *, currency: float = 1.0) -> Rows:
    """Rows whose actual follows last year's value times growth, with gaps and noise."""
    dice = np.random.default_rng(seed)
    x = dice.lognormal(0.0, 0.4, (count, len(NAMES))).astype(np.float32)
    growth, year_ago = x[:, NAMES.index("growth_13")], x[:, 0]
    x[:, NAMES.index("year_ago_grown")] = year_ago * growth
    scale = dice.lognormal(5.0, 1.5, count) * currency
    actual = scale * year_ago * growth * dice.lognormal(0.0, 0.05, count)
    x[:, NAMES.index("store_code")] = dice.integers(1, 30, count)
    x[dice.random(x.shape) < 0.1] = np.nan
    x[:, NAMES.index("never_known")] = np.nan
    identity = pd.DataFrame(
        {
            "series_id": np.arange(count),
            "cutoff": 100,
            "horizon": dice.integers(1, 9, count),
            "t": 101,
            "scale": scale,
            "actual": actual,
            "reported": actual,
        }
    )
    return Rows(identity, x, NAMES)


@pytest.fixture(scope="module")
def training() -> Rows:
    return make_rows(2000, seed=1)


@pytest.fixture(scope="module")
def unseen() -> Rows:
    return make_rows(300, seed=2)


@pytest.fixture(scope="module")
def fitted(training: Rows) -> Mapping[str, Candidate]:
    return {candidate.name: candidate().fit(training, seed=5, threads=2) for candidate in CANDIDATES}


# --- the registry


def test_candidates_have_names_of_their_own_and_the_baseline_is_one_of_them() -> None:
    names = [candidate.name for candidate in CANDIDATES]

    assert sorted(set(names)) == sorted(names)
    assert candidate_class(BASELINE) is SeasonalNaive


def test_an_unknown_candidate_is_refused_with_those_there_are() -> None:
    with pytest.raises(UnknownNameError, match=r"no candidate model named 'oracle'. Available: .*xgboost"):
        candidate_class("oracle")


# --- logarithms


def test_values_below_zero_are_learned_from_as_zero(training: Rows, unseen: Rows) -> None:
    actual = np.where(np.arange(len(training)) % 3 == 0, -training.actual, training.actual)
    with_returns = Rows(training.identity.assign(actual=actual), training.x, NAMES)
    without = Rows(training.identity.assign(actual=np.maximum(actual, 0.0)), training.x, NAMES)

    found, expected = (
        XGBoost({"rounds": 20}).fit(rows, seed=5, threads=2).predict(unseen)
        for rows in (with_returns, without)
    )

    assert np.array_equal(found, expected)
    assert (found >= -0.3 * unseen.scale).all()


@pytest.mark.parametrize("kind", [XGBoost, RecursiveBoosting, SeasonalRecursiveBoosting])
def test_a_model_of_a_release_before_logarithms_forecasts_as_it_did(
    kind: type[XGBoost], training: Rows, unseen: Rows, tmp_path: Path
) -> None:
    plain = kind({"log_offset": 0.0, "rounds": 20}).fit(training, seed=5, threads=2)
    plain.save(tmp_path)
    said = {k: v for k, v in plain.parameters().items() if k != "log_offset"}
    (tmp_path / "parameters.json").write_text(json.dumps(said))

    found, anew = kind.load(tmp_path), kind({"rounds": 20}).fit(training, seed=5, threads=2)

    assert np.array_equal(found.predict(unseen), plain.predict(unseen))
    assert found.parameters()["log_offset"] == 0.0
    assert not np.allclose(anew.predict(unseen), plain.predict(unseen), rtol=0.001)


# --- baselines


def naive_oracle(features: Mapping[str, float], scale: float, *, grown: bool) -> float:
    """The rule in words: the value of last year, else the nearest thing known, else nothing."""
    order = ["year_ago_same", "around_1_narrow", "around_1_wide", "lag_0", "mean_4"]
    for name in ["year_ago_grown", *order] if grown else order:
        if features[name] == features[name]:  # not NaN
            return features[name] * scale
    return 0.0


@pytest.mark.parametrize(
    ("candidate", "grown"), [(SeasonalNaive, False), (SeasonalNaiveGrowth, True)], ids=["plain", "grown"]
)
@pytest.mark.parametrize("missing", [0.1, 0.7, 1.0], ids=["few gaps", "many gaps", "nothing known"])
def test_a_baseline_says_what_the_oracle_says(
    unseen: Rows, candidate: type[Candidate], grown: bool, missing: float
) -> None:
    x = unseen.x.copy()
    x[np.random.default_rng(3).random(x.shape) < missing] = np.nan
    rows = Rows(unseen.identity, x, NAMES)

    found = candidate().fit(rows, seed=0, threads=1).predict(rows)

    features = [dict(zip(NAMES, map(float, row), strict=True)) for row in x]
    expected = [naive_oracle(f, s, grown=grown) for f, s in zip(features, unseen.scale, strict=True)]
    assert found == pytest.approx(expected, rel=1e-12)


def test_a_baseline_has_nothing_to_learn_and_nothing_to_look_at() -> None:
    baseline = SeasonalNaiveGrowth()

    assert baseline.parameters() == {}
    assert baseline.importance(NAMES).empty


# --- what all candidates share


@every_candidate
def test_what_was_saved_predicts_the_same_when_loaded(
    fitted: Mapping[str, Candidate], unseen: Rows, tmp_path: Path, candidate: type[Candidate]
) -> None:
    fitted[candidate.name].save(tmp_path)

    loaded = candidate.load(tmp_path)

    assert np.array_equal(loaded.predict(unseen), fitted[candidate.name].predict(unseen))
    assert loaded.parameters() == loaded.unfitted().parameters() == fitted[candidate.name].parameters()


@every_candidate
def test_fitting_and_predicting_change_no_row(training: Rows, candidate: type[Candidate]) -> None:
    rows = training.where(np.arange(len(training)) < 400)
    identity, x = rows.identity.copy(deep=True), rows.x.copy()

    candidate().fit(rows, seed=1, threads=1).predict(rows)

    pd.testing.assert_frame_equal(rows.identity, identity)
    assert np.array_equal(rows.x, x, equal_nan=True)


# --- boosting


@every_booster
def test_one_thread_gives_the_model_that_two_give(
    fitted: Mapping[str, Candidate], training: Rows, unseen: Rows, candidate: type[Candidate]
) -> None:
    """So candidates can be fitted side by side, however many threads there are (decision 20)."""
    alone = candidate().fit(training, seed=5, threads=1)

    np.testing.assert_array_equal(alone.predict(unseen), fitted[candidate.name].predict(unseen))


@every_booster
def test_the_same_seed_and_threads_give_the_same_model_to_the_bit(
    fitted: Mapping[str, Candidate], training: Rows, unseen: Rows, candidate: type[Candidate]
) -> None:
    again = candidate().fit(training, seed=5, threads=2)

    assert again.predict(unseen).tobytes() == fitted[candidate.name].predict(unseen).tobytes()


def test_another_seed_gives_another_xgboost_model(
    fitted: Mapping[str, Candidate], training: Rows, unseen: Rows
) -> None:
    other = XGBoost().fit(training, seed=6, threads=2)

    assert not np.array_equal(other.predict(unseen), fitted["xgboost"].predict(unseen))


@every_booster
def test_boosting_learns_more_than_the_baseline_knows(
    fitted: Mapping[str, Candidate], unseen: Rows, candidate: type[Candidate]
) -> None:
    def error(name: str) -> float:
        return float(np.abs(fitted[name].predict(unseen) - unseen.actual).sum())

    assert error(candidate.name) < 0.7 * error(BASELINE)


@every_booster
def test_the_currency_does_not_matter(
    fitted: Mapping[str, Candidate], unseen: Rows, candidate: type[Candidate]
) -> None:
    # 1024 is a power of two, so that dividing by the scale gives the same bits.
    dear = make_rows(2000, seed=1, currency=1024.0)

    found = candidate().fit(dear, seed=5, threads=2).predict(unseen)

    assert found == pytest.approx(fitted[candidate.name].predict(unseen), rel=1e-6)


@every_booster
def test_importance_is_a_share_and_names_what_decides(
    fitted: Mapping[str, Candidate], candidate: type[Candidate]
) -> None:
    shares = fitted[candidate.name].importance(NAMES)

    assert shares.sum() == pytest.approx(1.0)
    assert set(shares.index) == set(NAMES)
    assert shares.index[0] == "year_ago_grown"
    assert shares["never_known"] == 0.0
    assert shares.is_monotonic_decreasing


@every_booster
def test_rows_with_other_features_are_refused_with_their_names(
    fitted: Mapping[str, Candidate], unseen: Rows, candidate: type[Candidate]
) -> None:
    other = Rows(unseen.identity, unseen.x, (*NAMES[:-1], "novel"))

    with pytest.raises(ValueError, match=r"missing: \['never_known'\], unexpected: \['novel'\]"):
        fitted[candidate.name].predict(other)


@every_booster
def test_a_model_that_was_not_fitted_says_so(
    unseen: Rows, tmp_path: Path, candidate: type[Candidate]
) -> None:
    with pytest.raises(ValueError, match=r"not been fitted; call fit or load first"):
        candidate().save(tmp_path)


# --- files


@every_candidate
def test_no_file_of_a_model_is_a_pickle(
    fitted: Mapping[str, Candidate], tmp_path: Path, candidate: type[Candidate]
) -> None:
    fitted[candidate.name].save(tmp_path)

    # UBJSON is an object whose first key has a 64-bit length; skops writes zip archives.
    beginnings = {".ubj": b"{L", ".skops": b"PK\x03\x04", ".json": b"{"}
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= set(beginnings)
    assert all(path.read_bytes().startswith(beginnings[path.suffix]) for path in files)


def test_the_trusted_types_are_exactly_those_that_a_model_needs(
    fitted: Mapping[str, Candidate], tmp_path: Path
) -> None:
    fitted["histogram_boosting"].save(tmp_path)

    needed = skops.io.get_untrusted_types(file=tmp_path / "model.skops")

    assert sorted(needed) == sorted(SKOPS_TRUSTED)


def test_a_stored_model_with_any_other_type_is_refused(
    fitted: Mapping[str, Candidate], tmp_path: Path
) -> None:
    fitted["histogram_boosting"].save(tmp_path)
    stranger = LinearRegression()
    stranger.smuggled = Fraction(1, 3)
    skops.io.dump(stranger, tmp_path / "model.skops")

    with pytest.raises(skops.io.exceptions.UntrustedTypesFoundException, match=r"fractions\.Fraction"):
        HistogramBoosting.load(tmp_path)


def test_trees_forecast_the_same_for_values_and_for_what_bins_make_of_them() -> None:
    rows = make_rows(3000, 5)
    x = np.nan_to_num(rows.x, nan=0.0)[:, :-1]
    x[::7, 0] = np.nan
    some = Rows(rows.identity, x, NAMES[:-1])
    coarse = Rows(rows.identity, binned(x), NAMES[:-1])

    model = HistogramBoosting().fit(some, seed=1, threads=1)

    assert np.isnan(coarse.x[:, 0]).tolist() == np.isnan(x[:, 0]).tolist()
    assert 200 < max(len(np.unique(column[~np.isnan(column)])) for column in coarse.x.T) <= BINS
    assert len(np.unique(x[:, 1])) > 2 * BINS
    np.testing.assert_array_equal(model.predict(some), model.predict(coarse))
