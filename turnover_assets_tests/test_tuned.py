"""Tuned parameters: the newest are read, as they were kept."""

import duckdb
import pytest

from turnover_assets.core.models import CANDIDATES, make_candidate
from turnover_assets.core.tuned import TUNED, Tuned, keep_tuned, read_tuned

FOUND = Tuned({"xgboost": {"rounds": 5, "learning_rate": 0.1, "objective": "reg:absoluteerror"}}, 120)


def test_nothing_is_tuned_where_nothing_was_kept(con: duckdb.DuckDBPyConnection) -> None:
    assert read_tuned(con) == Tuned({}, None)


@pytest.mark.parametrize(
    "last", [FOUND, Tuned(), Tuned({}, 130)], ids=["parameters", "nothing", "none better"]
)
def test_what_was_found_last_is_read_as_it_was_kept(con: duckdb.DuckDBPyConnection, last: Tuned) -> None:
    keep_tuned(con, Tuned({"xgboost": {"rounds": 9}}, 110))

    keep_tuned(con, last)

    assert read_tuned(con) == last
    assert con.execute(f"SELECT count(*) FROM {TUNED}").fetchall() == [(2,)]


def test_types_of_parameters_survive(con: duckdb.DuckDBPyConnection) -> None:
    keep_tuned(con, FOUND)

    found = read_tuned(con).parameters["xgboost"]

    assert {name: type(value) for name, value in found.items()} == {
        "rounds": int,
        "learning_rate": float,
        "objective": str,
    }
    xgboost = next(kind for kind in CANDIDATES if kind.name == "xgboost")
    assert make_candidate(xgboost, {"xgboost": found}).parameters()["rounds"] == 5
