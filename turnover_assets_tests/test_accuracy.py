"""The accuracy table against the metrics' own functions, group by group."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from turnover_assets.core.accuracy import COLUMNS, accuracy_table
from turnover_assets.core.group_metrics import METRICS
from turnover_assets.core.metrics import (
    QUANTILES,
    bias,
    coverage,
    mase,
    pinball,
    rmsse,
    wape,
    width,
)
from turnover_assets_tests.factories import daily, walmart_like

HORIZON = 3


def backtest_rows(seed: int = 3) -> pd.DataFrame:
    """Two models, four series, three cutoffs; some actuals, bounds and scales are missing."""
    dice = np.random.default_rng(seed)
    names = ["model", "store", "dept", "cutoff", "horizon"]
    grid = pd.MultiIndex.from_product(
        [["naive", "trees"], [1, 2], [10, 2], [100, 103, 106], range(1, HORIZON + 1)], names=names
    )
    rows = grid.to_frame(index=False).sample(frac=1, random_state=seed).reset_index(drop=True)
    n = len(rows)
    rows["t"] = rows["cutoff"] + rows["horizon"]
    rows["actual"] = np.where(dice.random(n) < 0.2, np.nan, dice.normal(50, 30, n))
    rows["forecast"] = dice.normal(50, 30, n)
    spread = dice.uniform(1, 60, n)
    for name, factor in {"lower_95": -2.0, "lower_80": -1.0, "upper_80": 1.0, "upper_95": 2.0}.items():
        bound = rows["forecast"] + factor * spread
        rows[name] = bound.where(rows["cutoff"] > 100)
    on_bound = rows.index[(rows["cutoff"] > 100) & rows["actual"].notna()][::5]
    rows.loc[on_bound, "actual"] = rows.loc[on_bound, "upper_80"]
    origin = rows["store"] * 1000 + rows["dept"] * 7 + rows["cutoff"]
    rows["naive_mae"] = np.where((rows["store"] == 2) & (rows["dept"] == 2), np.nan, 5.0 + origin % 13)
    rows["naive_mse"] = rows["naive_mae"] ** 2 * 1.5
    rows["is_new"] = (rows["store"] == 2) & (rows["cutoff"] == 100)
    return rows


def metrics_oracle(rows: pd.DataFrame, keys: list[str]) -> dict[str, float]:
    """Every metric of the rows of one group, by its own function."""
    value = {name: rows[name].to_numpy(dtype=float) for name in rows if rows[name].dtype.kind == "f"}
    actual, forecast = value["actual"], value["forecast"]
    series = rows.groupby([*keys, "cutoff"]).ngroup().to_numpy()
    found = {
        "rows": float(np.sum(~np.isnan(actual))),
        "bounded_rows": float(np.sum(~np.isnan(actual + value["upper_95"]))),
        "wape": wape(actual, forecast),
        "bias": bias(actual, forecast),
        "mase": mase(actual, forecast, value["naive_mae"], series),
        "rmsse": rmsse(actual, forecast, value["naive_mse"], series),
        "pinball": float(np.mean([pinball(actual, value[b], q) for b, q in QUANTILES.items()])),
    }
    for level in (80, 95):
        bounds = (value[f"lower_{level}"], value[f"upper_{level}"])
        found |= {f"coverage_{level}": coverage(actual, *bounds), f"width_{level}": width(actual, *bounds)}
    return found


SCOPES: dict[str, Callable[[pd.DataFrame], pd.Series]] = {
    "total": lambda rows: pd.Series("", index=rows.index),
    "horizon": lambda rows: rows["horizon"],
    "age": lambda rows: rows["is_new"].map({True: "new", False: "established"}),
    "store": lambda rows: rows["store"],
    "dept": lambda rows: rows["dept"],
}


@pytest.mark.parametrize("scope", SCOPES)
def test_every_group_has_the_metrics_of_its_rows(scope: str) -> None:
    rows = backtest_rows()
    members = SCOPES[scope](rows).astype(str)
    expected = {}
    for (model, member), group in rows.groupby(["model", members]):
        expected[model, member, None] = metrics_oracle(group, ["store", "dept"])
        for cutoff, window in group.groupby("cutoff"):
            expected[model, member, cutoff] = metrics_oracle(window, ["store", "dept"])

    table = accuracy_table(rows, walmart_like())

    found = table[table["scope"] == scope]
    keys = [(r.model, r.member, None if pd.isna(r.cutoff) else int(r.cutoff)) for r in found.itertuples()]
    assert sorted(map(str, keys)) == sorted(map(str, expected))
    for key, (_, row) in zip(keys, found.iterrows(), strict=True):
        assert {n: float(row[n]) for n in expected[key]} == pytest.approx(expected[key], nan_ok=True)


def test_the_scopes_are_the_total_horizons_age_and_every_level() -> None:
    table = accuracy_table(backtest_rows(), walmart_like())

    assert list(table["scope"].unique()) == ["total", "horizon", "age", "dept", "store"]
    assert list(table.columns) == list(COLUMNS)
    assert set(table["basis"]) == {"series"}


def test_sums_are_judged_as_they_are_given() -> None:
    rows = backtest_rows().drop(columns=["naive_mae", "naive_mse"])
    of_one = rows[(rows["store"] == 1) & (rows["dept"] == 10)]
    sums = of_one.drop(columns=["store", "dept"]).assign(level="total", member="")
    own = metrics_oracle(
        of_one[of_one["model"] == "trees"].assign(naive_mae=np.nan, naive_mse=np.nan), ["store"]
    )

    table = accuracy_table(rows, walmart_like(), sums)

    of_sums = table[(table["basis"] == "sums") & table["cutoff"].isna() & (table["model"] == "trees")]
    assert list(of_sums["scope"]) == ["total"]
    assert of_sums.iloc[0][list(own)].astype(float).to_dict() == pytest.approx(own, nan_ok=True)


def test_members_without_a_name_are_kept_and_numbers_stay_whole() -> None:
    rows = backtest_rows().assign(dept=lambda table: table["dept"].where(table["dept"] != 10))

    table = accuracy_table(rows, walmart_like())

    assert set(table.loc[table["scope"] == "dept", "member"]) == {"2", "(none)"}


def test_a_missing_forecast_shows_in_every_group_it_belongs_to_and_in_no_other() -> None:
    rows = backtest_rows()
    hit = rows.index[rows["actual"].notna() & (rows["model"] == "trees") & (rows["store"] == 1)][0]
    rows.loc[hit, "forecast"] = np.nan

    table = accuracy_table(rows, walmart_like())

    whole = table[table["cutoff"].isna()].set_index(["model", "scope", "member"])
    for metric in ("wape", "bias", "mase", "rmsse"):
        assert np.isnan(whole.loc[("trees", "store", "1"), metric])
        assert not np.isnan(whole.loc[("trees", "store", "2"), metric])
        assert not np.isnan(whole.loc[("naive", "total", ""), metric])


def test_the_order_and_labels_of_rows_do_not_matter() -> None:
    rows = backtest_rows()

    shuffled = accuracy_table(rows.sample(frac=1, random_state=1), walmart_like())

    pd.testing.assert_frame_equal(shuffled, accuracy_table(rows, walmart_like()))


def test_a_panel_of_one_key_and_of_days_works_alike() -> None:
    rows = backtest_rows().assign(
        shop=lambda table: table["store"].astype(str) + "-" + table["dept"].astype(str)
    )

    table = accuracy_table(rows.drop(columns=["store", "dept"]), daily())

    assert list(table["scope"].unique()) == ["total", "horizon", "age", "shop"]
    total = table[(table["scope"] == "total") & table["cutoff"].isna()].set_index("model")
    expected = metrics_oracle(rows[rows["model"] == "naive"], ["shop"])
    assert total.loc["naive", list(METRICS)].astype(float).to_dict() == pytest.approx(
        {name: expected[name] for name in METRICS}
    )


def test_rows_are_not_changed() -> None:
    rows = backtest_rows()
    before = rows.copy()

    accuracy_table(rows, walmart_like())

    pd.testing.assert_frame_equal(rows, before)
