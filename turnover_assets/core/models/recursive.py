"""Recursive boosting: one period ahead, again and again.

What belongs here: the candidates `recursive_boosting` and `seasonal_recursive_boosting`. What does not:
direct forecasts of every horizon (boosting.py).

They err otherwise than direct models do: they have learned how one period follows another, from rows of the
first horizon only, and carry a change of level on instead of drawing it back to last year's. Alone each is
the better one in some windows and the worse one in others; a blend is better for them.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from turnover_assets.core.models.base import Floats, Rows
from turnover_assets.core.models.boosting import XGBoost

# What is known of the target period beside the newest values, which the forecasts take the place of.
ABOUT_THE_TARGET = (
    "year_ago_minus",
    "year_ago_same",
    "year_ago_plus",
    "around_2_narrow",
    "season_",
    "month",
    "holidays",
    "days_to_",
    "known_",
    "log_scale",
    "age",
    "zero_share",
)


USUAL = "around_years"  # what stood around the target in earlier seasons, over the scale


def used_features(names: Sequence[str]) -> list[str]:
    """The features that both use, in their order: no forecasts made of the newest values."""
    return [
        name
        for name in names
        if name.startswith(("lag_", "mean_", *ABOUT_THE_TARGET))
        or name.endswith("_code")
        or ("growth_" in name and not name.endswith("grown"))
    ]


class RecursiveBoosting(XGBoost):
    """A model of the next period, which forecasts later ones from its own forecasts."""

    name = "recursive_boosting"
    ROUNDS = 100
    PARAMETERS: Mapping[str, str | int | float] = {
        **XGBoost.PARAMETERS,
        "learning_rate": 0.12,
        "max_depth": 8,
        "min_child_weight": 3.0,
        "subsample": 0.8,
        "colsample_bytree": 0.7,
        "memory": 0.0,
        "max_rows": 250_000,
    }

    def _used(self, names: Sequence[str]) -> list[str]:
        return used_features(names)

    def _usual(self, rows: Rows) -> Floats:
        """What the trees' forecasts start from, divided by the scale, shape (n,)."""
        return np.zeros(len(rows))

    def _learned_from(self, rows: Rows) -> Rows:
        """Rows of the first horizon, with the features that it uses."""
        first = rows.where((rows.identity["horizon"] == 1).to_numpy())
        return (first if len(first) else rows).with_features(self._used(rows.names))

    def _label(self, rows: Rows) -> Floats:
        return super()._label(rows) - self._logged(self._usual(rows))

    def predict(self, rows: Rows) -> Floats:
        """See Candidate; where a series lacks a horizon, or is closed, it goes on without that forecast."""
        names, usual = self._used(rows.names), self._logged(self._usual(rows))
        self._check(names)
        columns = [rows.names.index(name) for name in names]
        place = _places(rows)
        begin = place.argmax(axis=1, keepdims=True)  # any row of a cutoff knows the newest values
        recent = _Recent(names, rows.x[np.take_along_axis(place, begin, axis=1)[:, 0]][:, columns])
        predicted, closed = np.full(len(rows), np.nan), rows.closed
        for horizon in range(place.shape[1]):
            at = place[:, horizon]
            there = at >= 0
            x = rows.x[at[there]][:, columns]
            recent.put_into(x, there)
            found = self._unlogged(self._trees(x) + usual[at[there]])
            predicted[at[there]] = found
            recent.add(np.where(closed[at[there]], np.nan, found), there)  # as it will not be reported
        return predicted * rows.scale


class SeasonalRecursiveBoosting(RecursiveBoosting):
    """The same for how it compares with what was usual at that time of earlier seasons.

    Trees cannot forecast what they have never seen. With little more than a season behind them they have seen
    Christmas once, as an outcome that nothing before it told of; its ratio to the season before it is
    like that of any other week.
    """

    name = "seasonal_recursive_boosting"
    ROUNDS = 150
    PARAMETERS: Mapping[str, str | int | float] = {
        **RecursiveBoosting.PARAMETERS,
        "learning_rate": 0.1,
        "memory": 2.0,
    }

    def _used(self, names: Sequence[str]) -> list[str]:
        used = {USUAL, *used_features(names)}
        return [name for name in names if name in used]

    def _usual(self, rows: Rows) -> Floats:
        """What was usual; the mean of the longest stretch known where no earlier season is."""
        lengths = _numbered(rows.names, "mean_")
        longest = rows.column(f"mean_{max(lengths)}") if lengths else np.zeros(len(rows))
        usual = rows.column(USUAL) if USUAL in rows.names else longest
        return np.nan_to_num(np.where(np.isnan(usual), longest, usual))


class _Recent:
    """The newest values of each series and cutoff, known and then forecast, scaled."""

    def __init__(self, names: Sequence[str], x: Floats) -> None:
        """Args: names of the features; their values at each cutoff, shape (g, f)."""
        self._lags = _numbered(names, "lag_")
        self._means = _numbered(names, "mean_")
        self._known = {length: x[:, column].copy() for length, column in self._means.items()}
        newest_last = sorted(self._lags, reverse=True)
        self._values = x[:, [self._lags[k] for k in newest_last]].copy()
        self._ahead = 0

    def put_into(self, x: Floats, there: npt.NDArray[np.bool_]) -> None:
        """Replace lags and means by those that forecasts give; a long mean changes by the forecasts only."""
        for k, column in self._lags.items():
            x[:, column] = self._values[there, -1 - k]
        for length, column in self._means.items():
            x[:, column] = self._mean(length)[there]

    def _mean(self, length: int) -> Floats:
        if length <= len(self._lags):
            return _known_mean(self._values[:, -length:])
        if not self._ahead:
            return self._known[length]
        new = min(self._ahead, length)
        share = new / length
        return self._known[length] * (1 - share) + _known_mean(self._values[:, -new:]) * share

    def add(self, values: Floats, there: npt.NDArray[np.bool_]) -> None:
        """Add forecasts of the next period; NaN for those that have none."""
        column = np.full((len(there), 1), np.nan, dtype=self._values.dtype)
        column[there, 0] = values
        self._values = np.hstack([self._values, column])
        self._ahead += 1


def _known_mean(values: Floats) -> Floats:
    """Mean of each row's known values, NaN where none is."""
    known = ~np.isnan(values)
    count = known.sum(axis=1)
    total = np.where(known, values, 0.0).sum(axis=1)
    found: Floats = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return found


def _numbered(names: Sequence[str], prefix: str) -> dict[int, int]:
    """Columns of the features `<prefix><number>`, by number."""
    found = {name.removeprefix(prefix): i for i, name in enumerate(names) if name.startswith(prefix)}
    return {int(number): i for number, i in found.items() if number.isdigit()}


def _places(rows: Rows) -> npt.NDArray[np.intp]:
    """Position of each series and cutoff's row of each horizon, -1 where there is none; shape (g, H)."""
    identity = rows.identity
    group = identity.groupby(["series_id", "cutoff"], sort=False).ngroup().to_numpy()
    horizon = identity["horizon"].to_numpy(np.intp)
    found = np.full(
        (int(group.max()) + 1 if len(group) else 0, int(horizon.max(initial=0))), -1, dtype=np.intp
    )
    found[group, horizon - 1] = np.arange(len(rows))
    return found
