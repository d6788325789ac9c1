"""Accuracy metrics against the same definitions in plain Python."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnover_assets.core.metrics import bias, coverage, wape

amounts = st.floats(-1e6, 1e6).map(lambda value: round(value, 2))
pairs = st.lists(st.tuples(st.one_of(amounts, st.just(math.nan)), amounts), max_size=40)


def wape_oracle(rows: list[tuple[float, float]]) -> float:
    known = [(a, f) for a, f in rows if not math.isnan(a)]
    total = math.fsum(abs(a) for a, _ in known)
    return math.fsum(abs(a - f) for a, f in known) / total if total > 0 else math.nan


def bias_oracle(rows: list[tuple[float, float]]) -> float:
    known = [(a, f) for a, f in rows if not math.isnan(a)]
    total = math.fsum(abs(a) for a, _ in known)
    return math.fsum(f - a for a, f in known) / total if total > 0 else math.nan


def columns(rows: list[tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([a for a, _ in rows], dtype=float), np.array([f for _, f in rows], dtype=float)


@given(pairs)
def test_wape_is_what_its_definition_says(rows: list[tuple[float, float]]) -> None:
    assert wape(*columns(rows)) == pytest.approx(wape_oracle(rows), rel=1e-9, nan_ok=True)


@given(pairs)
def test_bias_is_what_its_definition_says(rows: list[tuple[float, float]]) -> None:
    expected = bias_oracle(rows)

    assert bias(*columns(rows)) == pytest.approx(expected, rel=1e-6, abs=1e-9, nan_ok=True)


@given(pairs, st.randoms())
def test_the_order_of_rows_does_not_matter(rows: list[tuple[float, float]], dice: object) -> None:
    shuffled = rows.copy()
    dice.shuffle(shuffled)

    assert wape(*columns(shuffled)) == pytest.approx(wape(*columns(rows)), rel=1e-9, nan_ok=True)


@given(pairs, st.sampled_from([0.25, 2.0, 1024.0]))
def test_the_currency_does_not_matter(rows: list[tuple[float, float]], rate: float) -> None:
    exchanged = [(a * rate, f * rate) for a, f in rows]

    assert wape(*columns(exchanged)) == pytest.approx(wape(*columns(rows)), rel=1e-9, nan_ok=True)
    assert bias(*columns(exchanged)) == pytest.approx(bias(*columns(rows)), rel=1e-6, abs=1e-9, nan_ok=True)


@given(pairs, amounts)
def test_a_row_without_an_actual_changes_nothing(rows: list[tuple[float, float]], value: float) -> None:
    more = [*rows, (math.nan, value)]

    assert wape(*columns(more)) == pytest.approx(wape(*columns(rows)), rel=1e-12, nan_ok=True)


@pytest.mark.parametrize("metric", [wape, bias], ids=["wape", "bias"])
@pytest.mark.parametrize("actual", [[], [math.nan], [0.0, 0.0]], ids=["no rows", "unknown", "all zero"])
def test_a_share_of_nothing_is_not_a_number(metric: object, actual: list[float]) -> None:
    assert math.isnan(metric(np.array(actual), np.ones(len(actual))))


def test_a_missing_forecast_of_a_known_actual_is_not_hidden() -> None:
    assert math.isnan(wape(np.array([1.0, 2.0]), np.array([1.0, math.nan])))


@pytest.mark.parametrize(
    ("actual", "lower", "upper", "expected"),
    [
        pytest.param([1.0, 2.0, 3.0, 9.0], [0.0] * 4, [5.0] * 4, 0.75, id="three of four inside"),
        pytest.param([1.0, 2.0], [1.0, 0.0], [4.0, 2.0], 1.0, id="bounds are inside"),
        pytest.param([math.nan, 2.0], [0.0, 3.0], [4.0, 4.0], 0.0, id="unknown does not count"),
        pytest.param([math.nan], [0.0], [1.0], math.nan, id="nothing known"),
    ],
)
def test_coverage_counts_known_actuals_within_their_bounds(
    actual: list[float], lower: list[float], upper: list[float], expected: float
) -> None:
    found = coverage(np.array(actual), np.array(lower), np.array(upper))

    assert found == pytest.approx(expected, nan_ok=True)
