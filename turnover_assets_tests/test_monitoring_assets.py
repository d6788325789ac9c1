"""The monitoring step in a home: what it keeps and publishes each time, and what others do with it."""

from datetime import date

import duckdb
import numpy as np
import pandas as pd
import pytest

from turnover_assets.core.monitoring import inputs, tables
from turnover_assets.core.monitoring.measures import measure_at, run_measures
from turnover_assets.core.monitoring.promises import promise_of_figures
from turnover_assets.defs import monitoring
from turnover_assets.defs.forecasts import available_queries, given_queries, queries
from turnover_assets.defs.retraining import gather
from turnover_assets.panel_rules import TAKEN_TABLES
from turnover_assets.runner import bring_up_to_date
from turnover_assets.storage.registry import ModelRegistry
from turnover_assets.storage.snapshots import current
from turnover_assets.storage.warehouse import Warehouse
from turnover_assets_tests.factories import (
    Landed,
    RawFile,
    clean_all,
    insert_frames,
    insert_raw,
    make_panel,
    next_week,
    quiet,
    walmart_history,
    walmart_like,
)

PANEL = make_panel()
OF_THE_TOTAL = {"drifted_share", "largest_psi", "missing_share", "quarantine_rate", "refused_files"}
OF_ACCURACY = {"wape", "wape_seasonal_naive", "wape_promised", "wape_over_promised", "bias", "coverage_80"}


def measures_at(home: Landed, cutoff: str) -> pd.Series:
    table = current(home.settings.published_path).read("measures")
    mine = table[(table["level"] == "total") & (table["cutoff"].astype(str) == cutoff)]
    return mine.set_index("measure")["value"]


# In a home ---------------------------------------------------------------------------------------


def test_a_first_publishing_has_every_table(plain: Landed) -> None:
    snapshot = current(plain.settings.published_path)

    found = {name: snapshot.read(name) for name in tables.PUBLISHED}

    assert found["monitored_accuracy"].empty
    assert found["stability"].empty
    assert {"wape", "wape_promised", "updated_at"} <= {*found["monitored_accuracy"]}
    assert {*found["measures"]["measure"]} >= OF_THE_TOTAL
    assert not {*found["measures"]["measure"]} & OF_ACCURACY
    assert found["inputs"]["files_accepted"].tolist() == [len(plain.outcome.accepted)]
    assert (found["inputs"]["bytes"] > 0).all()


@pytest.mark.slow
def test_as_weeks_land_the_forecasts_of_earlier_cutoffs_are_judged(copied: Landed) -> None:
    first = str(current(copied.settings.published_path).facts["cutoff"])
    for ahead in (1, 2):
        (copied.folder / f"week {ahead}.csv").write_text(next_week(copied, ahead=ahead))
        (copied.folder / "broken.csv").write_text(f"what is this,{ahead}\n1,2\n")
        bring_up_to_date(copied.settings, copied.folder, quiet)
    snapshot = current(copied.settings.published_path)

    accuracy, moved = snapshot.read("monitored_accuracy"), snapshot.read("stability")
    mine = accuracy[(accuracy["cutoff"].astype(str) == first) & (accuracy["level"] == "total")]
    whole = mine[mine["horizon"].isna()].set_index("basis")
    assert mine["horizon"].max() == 2
    assert whole.loc["series", "periods"] == 2
    assert whole.loc["sums", "rows"] == 2
    figures = ["wape", "wape_seasonal_naive", "wape_promised"]
    assert np.isfinite(whole[figures].astype(float)).all().all()
    assert accuracy["cutoff"].nunique() == 2
    assert moved["cutoff"].nunique() == 2

    measured = measures_at(copied, str(snapshot.facts["cutoff"]))
    assert {*measured.index} >= OF_THE_TOTAL | OF_ACCURACY
    assert measured["refused_files"] == 1
    assert measures_at(copied, first)["drifted_share"] >= 0.0
    assert snapshot.read("inputs")["rows_landed"].tolist()[-1] == next_week(copied).count("\n") - 1


def test_the_policy_is_told_how_many_features_drifted(copied: Landed) -> None:
    settings = copied.settings
    cutoff = date.fromisoformat(str(current(settings.published_path).facts["cutoff"]))
    registry = ModelRegistry(settings.mlflow_path, settings.panel_spec.name)
    with Warehouse(settings.warehouse_path).transaction() as con:
        con.execute(f"UPDATE {tables.MEASURES} SET value = 0.77 WHERE measure = 'drifted_share'")
        last = monitoring.last_period(con, settings.panel_spec)

        told = gather(con, settings, registry, last).drifted_share

        assert told == measure_at(con, "drifted_share", cutoff) == 0.77
        con.execute(f"DROP TABLE {tables.MEASURES}")
        assert np.isnan(gather(con, settings, registry, last).drifted_share)


def test_of_a_model_whose_backtest_is_gone_the_registered_figures_are_the_promise(copied: Landed) -> None:
    settings = copied.settings
    registry = ModelRegistry(settings.mlflow_path, settings.panel_spec.name)
    with Warehouse(settings.warehouse_path).transaction() as con:
        con.execute(f"DELETE FROM {tables.PROMISES}; DROP TABLE reports.backtest")

        monitoring.keep_promises(con, settings.panel_spec, registry)

        kept = con.execute(f"SELECT level, member, horizon, wape FROM {tables.PROMISES}").fetchall()
    champion = registry.load(registry.champion_version())
    assert kept == [("total", "", None, champion.backtest["wape"])]


def test_a_warehouse_that_knows_no_monitoring_publishes_empty_tables(copied: Landed) -> None:
    panel = copied.settings.panel_spec
    with Warehouse(copied.settings.warehouse_path).transaction() as con:
        for table in ("measures", "accuracy", "stability", "drift", "inputs", "missing_series"):
            con.execute(f"DROP TABLE monitoring.{table}")

        tables.prepare(con, panel)
        tables.prepare(con, panel)

        for name in tables.PUBLISHED:
            assert con.execute(
                f"SELECT count(*) FROM ({available_queries(con, panel)[name]})"
            ).fetchall() == [(0,)]


def test_a_published_table_has_no_column_twice(con: duckdb.DuckDBPyConnection) -> None:
    panel = walmart_like()
    insert_frames(con, panel, walmart_history())

    (ahead,) = (table for table in panel.covariates)
    published = con.sql(given_queries(panel)[ahead.name]).columns

    wanted = [*ahead.keys, *(column.name for column in ahead.columns), panel.time]
    assert sorted(published) == sorted(wanted)


def test_no_table_of_a_panel_can_take_the_name_of_a_published_one() -> None:
    panel = walmart_like()
    own = {*panel.tables, f"{panel.report_level}_{panel.target}"}

    assert queries(panel).keys() - own <= TAKEN_TABLES


# What came in ------------------------------------------------------------------------------------


def week(label: str, *shops: int, amount: str = "1") -> list[dict[str, str | None]]:
    return [{"shop": str(shop), "week": label, "amount": amount} for shop in shops]


@pytest.fixture
def fed(con: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    """Three weekly files: shop 3 is missing in the last one, which has two bad rows."""
    files = [
        RawFile("sales", week("2030-05-06", 1, 2, 3, 4)),
        RawFile("sales", week("2030-05-13", 1, 2, 3)),
        RawFile("sales", [*week("2030-05-20", 1, 2), *week("2030-05-20", 5, 6, amount="many")]),
    ]
    insert_raw(con, PANEL, files)
    clean_all(con, PANEL)
    tables.prepare(con, PANEL)
    return con


def newest(con: duckdb.DuckDBPyConnection) -> int:
    return int(con.execute("SELECT max(t) FROM cleaned.sales").fetchall()[0][0])


@pytest.mark.parametrize(("alive", "missing"), [(1, [3]), (2, [3, 4])], ids=["alive 1", "alive 2"])
def test_a_series_that_is_alive_and_not_there_is_missing(
    fed: duckdb.DuckDBPyConnection, alive: int, missing: list[int]
) -> None:
    expected = inputs.missing_series(fed, PANEL, newest(fed), alive)

    inputs.keep_inputs(fed, PANEL, date(2030, 5, 20), expected, {"run_id": "run 1"})

    kept = fed.execute(f"SELECT shop, last_reported FROM {tables.MISSING_SERIES} ORDER BY shop").fetchall()
    labels = {3: date(2030, 5, 13), 4: date(2030, 5, 6)}
    assert kept == [(shop, labels[shop]) for shop in missing]
    share = fed.execute(f"SELECT series_missing, missing_share FROM {tables.INPUTS}").fetchall()
    assert share == [(len(missing), len(missing) / (2 + len(missing)))]


def test_what_landed_counts_since_the_cutoff_before_and_not_twice(fed: duckdb.DuckDBPyConnection) -> None:
    fed.execute("UPDATE raw.files SET status = 'refused', row_count = 0 WHERE file_no = 2")
    nothing = inputs.missing_series(fed, PANEL, newest(fed), 1)
    everything = inputs.landed_since(fed, date(2030, 5, 13))
    inputs.keep_inputs(fed, PANEL, date(2030, 5, 13), nothing, {**everything, "last_file_no": 1})

    for run in ("refresh", "retrain"):  # two publishings of one cutoff say the same
        found = inputs.landed_since(fed, date(2030, 5, 20))
        inputs.keep_inputs(fed, PANEL, date(2030, 5, 20), nothing, {**found, "run_id": run})

        assert found == {
            "rows_landed": 4,
            "rows_rejected": 2,
            "quarantine_rate": 0.5,
            "files_accepted": 1,
            "files_refused": 1,
            "last_file_no": 3,
        }
        assert inputs.landed_digests(fed, date(2030, 5, 20)) == ["digest 3"]
    later = inputs.landed_since(fed, date(2030, 5, 27))
    assert (later["rows_landed"], later["files_refused"], later["last_file_no"]) == (0, 0, 3)
    assert np.isnan(later["quarantine_rate"])


# Runs --------------------------------------------------------------------------------------------


def test_without_a_record_of_runs_nothing_is_said_of_them(con: duckdb.DuckDBPyConnection) -> None:
    assert run_measures(con, ("refresh",)) == {}

    con.execute(
        "CREATE TABLE monitoring.runs (run_id VARCHAR, job VARCHAR, ended_at TIMESTAMPTZ, seconds DOUBLE, "
        "warnings INTEGER)"
    )

    assert run_measures(con, ("refresh",)) == {}


def test_the_newest_run_that_ended_is_told(con: duckdb.DuckDBPyConnection) -> None:
    con.execute(
        "CREATE TABLE monitoring.runs AS SELECT * FROM (VALUES "
        "('refresh', TIMESTAMPTZ '2030-06-01 06:00:00+00', 20.0, 1), "
        "('retrain', TIMESTAMPTZ '2030-06-01 07:00:00+00', 200.0, 2), "
        "('ingest', TIMESTAMPTZ '2030-06-01 08:00:00+00', 2.0, 0), "
        "('refresh', NULL, NULL, NULL)) AS r(job, ended_at, seconds, warnings)"
    )

    assert run_measures(con, ("refresh", "retrain")) == {"run_seconds": 200.0, "run_warnings": 2}


def test_registered_figures_that_lack_one_leave_it_open() -> None:
    found = promise_of_figures({"wape": 0.2, "wape_naive": 0.3}, "wape_naive").iloc[0]

    assert (found["wape"], found["wape_seasonal_naive"]) == (0.2, 0.3)
    assert np.isnan(found["coverage_80"])
