"""Partial dependence against its definition, and the pictures of what a model does on the whole."""

import io
from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from turnover_assets.core.explanation_pictures import importance_picture, partial_plots
from turnover_assets.core.models import Rows
from turnover_assets.core.models.base import Floats
from turnover_assets.core.models.boosting import XGBoost
from turnover_assets.core.models.naive import SeasonalNaive
from turnover_assets.core.partial_dependence import MOST_ROWS, most_important, partial_dependence

NAMES = ("slope", "curve", "never_known", "few_values")
MOST_BYTES = 50_000


class Formula(SeasonalNaive):
    """Twice the slope, plus the square of the curve, in shares of the scale."""

    def __init__(self) -> None:
        self.largest = 0

    def predict(self, rows: Rows) -> Floats:
        self.largest = max(self.largest, len(rows))
        x = np.nan_to_num(rows.x.astype(np.float64))
        found: Floats = (2 * x[:, 0] + x[:, 1] ** 2) * rows.scale
        return found


def make_rows(count: int, seed: int = 1) -> Rows:
    dice = np.random.default_rng(seed)
    x = dice.normal(1.0, 1.0, (count, len(NAMES))).astype(np.float32)
    x[dice.random(x.shape) < 0.2] = np.nan
    x[:, 2] = np.nan
    x[:, 3] = dice.integers(0, 3, count)
    scale = dice.lognormal(3.0, 1.0, count)
    actual = scale * np.nan_to_num(x[:, 0])
    return Rows(pd.DataFrame({"cutoff": 100, "horizon": 1, "scale": scale, "actual": actual}), x, NAMES)


def test_partial_dependence_is_the_mean_forecast_with_one_feature_set_in_every_row() -> None:
    rows, model = make_rows(300), Formula()

    found = partial_dependence(model, rows, ["curve", "slope"], points=5)

    assert list(found.columns) == ["feature", "value", "forecast", "known"]
    assert found["feature"].tolist() == ["curve"] * 5 + ["slope"] * 5
    for told in found.itertuples():
        total = 0.0
        for x, scale in zip(rows.x, rows.scale, strict=True):
            values = dict(zip(NAMES, np.nan_to_num(x.astype(float)), strict=True)) | {
                told.feature: told.value
            }
            total += (2 * values["slope"] + values["curve"] ** 2) * scale
        assert told.forecast == pytest.approx(total / sum(rows.scale))


def test_the_values_are_known_ones_from_low_to_high() -> None:
    rows = make_rows(500)

    found = partial_dependence(Formula(), rows, ["slope", "few_values"])

    slope, few = (found[found["feature"] == name]["value"] for name in ("slope", "few_values"))
    assert slope.is_monotonic_increasing
    assert set(slope) <= set(rows.column("slope"))
    assert len(slope) == 12
    assert few.tolist() == [0.0, 1.0, 2.0]
    known = found.groupby("feature")["known"].first()
    assert known.to_dict() == pytest.approx(
        {"slope": np.mean(~np.isnan(rows.column("slope"))), "few_values": 1.0}
    )


def test_a_feature_that_no_row_knows_has_no_values() -> None:
    found = partial_dependence(Formula(), make_rows(50), ["never_known"])

    assert found.empty
    assert list(found.columns) == ["feature", "value", "forecast", "known"]


def test_no_feature_gives_an_empty_table_of_the_same_columns() -> None:
    assert list(partial_dependence(Formula(), make_rows(5), []).columns) == [
        "feature",
        "value",
        "forecast",
        "known",
    ]


@pytest.mark.parametrize("count", [1, 100, 7 * MOST_ROWS + 3], ids=["one", "few", "many"])
def test_at_most_so_many_rows_are_looked_at(count: int) -> None:
    model = Formula()

    found = partial_dependence(model, make_rows(count), ["few_values"])

    assert len(found) >= 1
    assert model.largest == min(count, MOST_ROWS)


def test_the_most_important_features_come_first_and_useless_ones_not_at_all() -> None:
    rows = make_rows(2000)
    model = XGBoost().fit(rows, seed=1, threads=2)

    found = most_important(model, NAMES, count=3)

    assert found[0] == "slope"
    assert "never_known" not in found
    assert most_important(model, NAMES, count=1) == ["slope"]


def test_a_candidate_that_ranks_nothing_has_no_most_important_features() -> None:
    assert most_important(SeasonalNaive(), NAMES) == []


# --- pictures


def dependence(features: int, shift: float = 0.0) -> pd.DataFrame:
    values = np.linspace(0.0, 3.0, 12)
    parts = [
        pd.DataFrame(
            {
                "feature": f"recent_department_shape_{i}",
                "value": values,
                "forecast": np.sin(values + i) - shift,
            }
        )
        for i in range(features)
    ]
    return pd.concat(parts, ignore_index=True).assign(known=1.0)


def shares(count: int) -> pd.Series:
    values = np.linspace(2.0, 1.0, count)
    return pd.Series(values / values.sum(), [f"a_group_of_features_{i}" for i in range(count)], dtype=float)


NONE = pd.Series(dtype=float)
WORDS = {
    **{
        f"recent_department_shape_{i}": f"newest {i + 1} weeks times last year's season, department"
        for i in range(6)
    },
    **{f"a_group_of_features_{i}": f"1 week before the same week {i + 2} years ago" for i in range(60)},
}
PICTURES: Mapping[str, bytes] = {
    "one plot": partial_plots(dependence(1), WORDS),
    "six plots": partial_plots(dependence(6), WORDS),
    "negative": partial_plots(dependence(4, shift=5.0), WORDS),
    "importance": importance_picture(shares(9), shares(60), WORDS),
    "groups only": importance_picture(shares(9), NONE, WORDS),
    "features only": importance_picture(NONE, shares(2), WORDS),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_a_small_png_that_is_not_empty(name: str) -> None:
    image = Image.open(io.BytesIO(PICTURES[name]))

    assert image.format == "PNG"
    assert len(PICTURES[name]) < MOST_BYTES
    assert image.width >= 600
    blue = np.abs(np.asarray(image.convert("RGB"), dtype=int) - [0x00, 0x72, 0xB2]).max(axis=2) < 20
    assert blue.sum() > 100


def test_pictures_of_nothing_say_so() -> None:
    nothing = partial_dependence(Formula(), make_rows(5), [])

    for content in (importance_picture(NONE, NONE, WORDS), partial_plots(nothing, WORDS)):
        pixels = np.asarray(Image.open(io.BytesIO(content)).convert("L"))
        assert 0 < (pixels < 128).mean() < 0.05


def test_features_are_shown_in_their_words() -> None:
    assert partial_plots(dependence(2), {}) != partial_plots(dependence(2), WORDS)
    assert importance_picture(NONE, shares(9), {}) != importance_picture(NONE, shares(9), WORDS)


def test_the_same_figures_give_the_same_bytes() -> None:
    assert partial_plots(dependence(6), WORDS) == PICTURES["six plots"]
    assert importance_picture(shares(9), shares(60), WORDS) == PICTURES["importance"]
