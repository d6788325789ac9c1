"""The history of forecasts: a cutoff is replaced whole, the oldest go, outcomes are joined as reported."""

from datetime import date

import duckdb
import pandas as pd
import pytest

from turnover_assets.core import forecast_history
from turnover_assets.core.calendar import index_of, label_of
from turnover_assets.core.forecast_history import HISTORY, ROLES, keep_forecasts, outcomes
from turnover_assets.core.intervals import BOUNDS
from turnover_assets.panel import PanelSpec
from turnover_assets_tests.factories import daily, make_panel

PANEL = make_panel(horizon=3)
START = index_of(PANEL, date(2030, 6, 3))


def forecasts(
    cutoff: int,
    amount: float = 100.0,
    version: int | None = 1,
    panel: PanelSpec = PANEL,
    shops: object = (1, 2),
) -> pd.DataFrame:
    """Forecasts as forecast_table makes them: two shops, three periods ahead."""
    key = panel.keys[0]
    table = pd.DataFrame(
        [
            {
                key: shop,
                "cutoff": label_of(panel, cutoff),
                panel.time: label_of(panel, cutoff + h),
                "horizon": h,
            }
            for shop in shops
            for h in (1, 2, 3)
        ]
    )
    table["forecast"] = amount + table["horizon"]
    for number, bound in enumerate(BOUNDS):
        table[bound] = table["forecast"] + number
    return table.assign(model_version=version)


def put_reported(con: duckdb.DuckDBPyConnection, panel: PanelSpec, rows: pd.DataFrame) -> None:
    """Make the cleaned series table of these rows: the key, `t` and the target."""
    labels = [label_of(panel, t) for t in rows["t"]]
    con.register("reported_frame", rows.assign(**{panel.time: labels}))
    con.execute(
        f"CREATE OR REPLACE TABLE cleaned.{panel.series.name} AS SELECT * REPLACE ("
        f"CAST({panel.time} AS DATE) AS {panel.time}) FROM reported_frame"
    )
    con.unregister("reported_frame")


def kept(con: duckdb.DuckDBPyConnection) -> list[tuple[date, str, int, float]]:
    return con.execute(
        f"SELECT DISTINCT CAST(cutoff AS DATE), role, model_version, min(forecast) FROM {HISTORY} "
        "GROUP BY ALL ORDER BY ALL"
    ).fetchall()


def test_forecasts_of_every_role_are_kept_as_they_are(con: duckdb.DuckDBPyConnection) -> None:
    tables = {role: forecasts(START, amount=10.0 * n) for n, role in enumerate(ROLES, start=1)}

    rows = keep_forecasts(con, PANEL, tables)

    found = con.execute(f"SELECT * FROM {HISTORY} ORDER BY role, shop, horizon").df()
    assert rows == len(found) == 3 * 2 * 3
    columns = ["shop", "cutoff", "week", "horizon", "forecast", *BOUNDS, "model_version"]
    assert list(found) == [*columns, "role", "made_at"]
    for role, table in tables.items():
        mine = found[found["role"] == role][columns].reset_index(drop=True)
        dates = {name: pd.to_datetime(table[name]) for name in ("cutoff", "week")}
        pd.testing.assert_frame_equal(mine, table.assign(**dates)[columns], check_dtype=False)


def test_a_cutoff_is_replaced_whole_and_the_others_stay(con: duckdb.DuckDBPyConnection) -> None:
    for cutoff in (START, START + 1):
        keep_forecasts(
            con, PANEL, {"champion": forecasts(cutoff), "challenger": forecasts(cutoff, version=2)}
        )

    again = keep_forecasts(con, PANEL, {"champion": forecasts(START + 1, amount=50.0, version=3)})

    assert again == 6
    assert kept(con) == [
        (label_of(PANEL, START), "challenger", 2, 101.0),
        (label_of(PANEL, START), "champion", 1, 101.0),
        (label_of(PANEL, START + 1), "champion", 3, 51.0),
    ]


def test_keeping_the_same_twice_changes_nothing(con: duckdb.DuckDBPyConnection) -> None:
    keep_forecasts(con, PANEL, {"champion": forecasts(START)})
    before = con.execute(f"SELECT * EXCLUDE made_at FROM {HISTORY} ORDER BY ALL").fetchall()

    keep_forecasts(con, PANEL, {"champion": forecasts(START)})

    assert con.execute(f"SELECT * EXCLUDE made_at FROM {HISTORY} ORDER BY ALL").fetchall() == before


def test_the_oldest_cutoffs_go(con: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast_history, "KEPT_CUTOFFS", 3)

    for cutoff in (START + 4, START, START + 1, START + 2, START + 3):
        keep_forecasts(con, PANEL, {"champion": forecasts(cutoff), "baseline": forecasts(cutoff)})

    assert {row[0] for row in kept(con)} == {label_of(PANEL, START + k) for k in (2, 3, 4)}


@pytest.mark.parametrize("last", [0, 1, 2, 4, 9])
def test_outcomes_are_the_forecasts_whose_periods_were_reported(
    con: duckdb.DuckDBPyConnection, last: int
) -> None:
    reported = {(1, 1): 90.0, (1, 2): 80.0, (2, 1): 70.0, (1, 4): 60.0, (2, 3): None}
    put_reported(
        con, PANEL, pd.DataFrame([{"shop": s, "t": START + k, "amount": y} for (s, k), y in reported.items()])
    )
    for cutoff in (START, START + 1):
        keep_forecasts(con, PANEL, {r: forecasts(cutoff, version=n) for n, r in enumerate(ROLES)})

    found = outcomes(con, PANEL, START + last)

    expected = [
        (shop, START + c, START + c + h, h, y, 100.0 + h, n, role)
        for shop in (1, 2)
        for c in (0, 1)
        for h in (1, 2, 3)
        for n, role in enumerate(ROLES)
        if (y := reported.get((shop, c + h))) is not None and c + h <= last
    ]
    assert list(found) == [
        *("shop", "cutoff", "t", "horizon", "actual", "forecast", *BOUNDS, "model_version", "role")
    ]
    told = found[["shop", "cutoff", "t", "horizon", "actual", "forecast", "model_version", "role"]]
    assert sorted(told.itertuples(index=False, name=None)) == sorted(expected)
    assert (found["upper_95"] == found["forecast"] + 3).all()


def test_outcomes_of_nothing_are_none_with_the_same_columns(con: duckdb.DuckDBPyConnection) -> None:
    put_reported(con, PANEL, pd.DataFrame([{"shop": 1, "t": START, "amount": 1.0}]))

    before = outcomes(con, PANEL, START)
    keep_forecasts(con, PANEL, {"champion": forecasts(START)})
    after = outcomes(con, PANEL, START)

    assert before.empty
    assert after.empty
    assert list(before) == list(after)


def test_a_restated_value_counts_as_it_is_reported_now(con: duckdb.DuckDBPyConnection) -> None:
    keep_forecasts(con, PANEL, {"champion": forecasts(START)})
    actuals = []
    for amount in (5.0, 6.0):
        put_reported(con, PANEL, pd.DataFrame([{"shop": 1, "t": START + 1, "amount": amount}]))
        actuals += outcomes(con, PANEL, START + 3)["actual"].tolist()

    assert actuals == [5.0, 6.0]


def test_a_daily_panel_with_texts_as_keys_works_the_same(con: duckdb.DuckDBPyConnection) -> None:
    panel = daily()
    start = index_of(panel, date(2030, 6, 5))
    put_reported(con, panel, pd.DataFrame([{"shop": "côte d'or", "t": start + 2, "amount": 9.0}]))

    keep_forecasts(con, panel, {"champion": forecasts(start, panel=panel, shops=("north", "côte d'or"))})

    found = outcomes(con, panel, start + 2)
    assert found[["shop", "cutoff", "t", "horizon", "actual"]].values.tolist() == [
        ["côte d'or", start, start + 2, 2, 9.0]
    ]
