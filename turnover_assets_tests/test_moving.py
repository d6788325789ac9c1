"""Windows that move along the periods: against pandas, and at their edges."""

import numpy as np
import pandas as pd
import pytest

from turnover_assets.core.moving import Moving, lagged, ratio

LENGTHS = [1, 2, 3, 4, 5, 8, 13, 26, 52, 64, 91]


@pytest.fixture
def values() -> np.ndarray:
    """Histories of various length, with gaps, and one of which nothing is known."""
    rng = np.random.default_rng(7)
    found = rng.normal(1000.0, 300.0, (12, 80))
    found[rng.random(found.shape) < 0.2] = np.nan
    for i in range(6):
        found[i, : 10 * i] = np.nan
    found[7] = np.nan
    found[8] = 0.0
    return found


def rolling(values: np.ndarray, length: int, how: str) -> np.ndarray:
    windows = pd.DataFrame(values.T).rolling(length, min_periods=1)
    found = windows.std(ddof=0) if how == "deviation" else getattr(windows, how)()
    return found.to_numpy().T


@pytest.mark.parametrize("length", LENGTHS)
def test_windows_are_those_of_pandas(values: np.ndarray, length: int) -> None:
    moving = Moving(values)

    np.testing.assert_allclose(moving.total(length), rolling(values, length, "sum"), rtol=1e-12)
    np.testing.assert_allclose(moving.mean(length), rolling(values, length, "mean"), rtol=1e-12)
    np.testing.assert_array_equal(moving.amount(length), Moving(np.abs(values)).mean(length))
    np.testing.assert_allclose(
        moving.deviation(length), rolling(values, length, "deviation"), rtol=1e-6, atol=1e-4
    )


def test_windows_may_end_earlier(values: np.ndarray) -> None:
    found = Moving(values).mean(5, before=52)

    assert np.isnan(found[:, :52]).all()
    np.testing.assert_array_equal(found[:, 52:], Moving(values).mean(5)[:, :-52])


def test_a_window_depends_on_what_is_inside_only(values: np.ndarray) -> None:
    changed = values.copy()
    changed[:, :40] = 1e15
    changed[:, 60:] = np.nan

    for how in ("total", "mean", "deviation"):
        before, after = (getattr(Moving(given), how)(13)[:, 52:60] for given in (values, changed))
        np.testing.assert_array_equal(before, after)


def test_what_cancels_out_is_nothing() -> None:
    sold = np.array([[0.1, 0.2, -0.3, 1e9 / 3, -1e9 / 3, 5.1, 0.0, -5.1, 1e-9, 0.0]])
    moving = Moving(sold)

    assert sum(sold[0, :3].tolist()) != 0.0
    assert moving.mean(3)[0, 2] == 0.0
    assert moving.total(8)[0, 7] == 0.0
    assert moving.mean(2)[0, 9] == 5e-10  # little, but not what rounding leaves


def test_what_is_the_same_all_along_has_no_deviation() -> None:
    found = Moving(np.full((1, 60), 0.1)).deviation(13)

    assert found.max() < 1e-15


def test_the_last_known_value_is_found() -> None:
    found = Moving(np.array([[np.nan, 1.0, np.nan, 2.0, np.nan]])).last_known()

    np.testing.assert_array_equal(found, [[np.nan, 1.0, 1.0, 3.0, 3.0]])


def test_nothing_stands_before_the_first_period() -> None:
    values = np.array([[1.0, 2.0]])

    np.testing.assert_array_equal(lagged(values, 5), [[np.nan, np.nan]])
    np.testing.assert_array_equal(lagged(values, 1, 0.0), [[0.0, 1.0]])


def test_nothing_is_divided_by_zero() -> None:
    np.testing.assert_array_equal(
        ratio(np.array([1.0, 0.0, 4.0]), np.array([0.0, 0.0, 2.0])), [np.nan, np.nan, 2.0]
    )
