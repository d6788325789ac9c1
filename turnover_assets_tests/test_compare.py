"""`turnover compare`: published snapshots side by side, and the account of what differs."""

from collections.abc import Callable
from pathlib import Path

import duckdb
import pandas as pd
import pytest
from click.testing import Result
from typer.testing import CliRunner

from turnover_assets.cli import app
from turnover_assets.core.comparison import CELLS
from turnover_assets.core.restatements import RESTATEMENTS
from turnover_assets.errors import NoSnapshotError, UnknownNameError
from turnover_assets.runner import bring_up_to_date
from turnover_assets.settings import load_settings
from turnover_assets.storage.comparison import (
    HISTORIES,
    SnapshotDifference,
    compare_snapshots,
    comparing,
    find_snapshot,
    table_keys,
)
from turnover_assets.storage.snapshots import FACTS, Snapshot, current, publish
from turnover_assets.storage.warehouse import Warehouse
from turnover_assets_tests.factories import TURNOVER_HEADER, Landed, quiet

SALES = [(1, 73, "2017-06-03", 10.0), (1, 73, "2017-06-10", 11.0), (2, 73, "2017-06-10", 20.0)]
FORECASTS = [(1, 73, "2017-06-17", 10.0), (2, 73, "2017-06-17", 20.0)]
Sales = list[tuple[int, int, str, float]]


@pytest.fixture
def publish_(con: duckdb.DuckDBPyConnection, tmp_path: Path) -> Callable[..., Snapshot]:
    """Publish a small snapshot in the data home tmp_path."""

    def call(sales: Sales = SALES, forecasts: Sales = FORECASTS, version: int = 1, **extra: str) -> Snapshot:
        sold, told = (", ".join(map(repr, rows)) for rows in (sales, forecasts))
        queries = {
            "turnover": "SELECT store, department, CAST(week AS DATE) AS week, turnover "
            f"FROM (VALUES {sold}) AS t(store, department, week, turnover)",
            "forecasts": "SELECT store, department, CAST(week AS DATE) AS week, forecast, 1 AS horizon, "
            f"{version} AS model_version, DATE '2017-06-10' AS cutoff "
            f"FROM (VALUES {told}) AS t(store, department, week, forecast)",
            **extra,
        }
        facts = {"cutoff": "2017-06-10", "model": {"version": version, "candidate": "mean"}}
        return publish(con, tmp_path / "published", queries, facts)

    return call


def compared(home: Path, a: Snapshot, b: Snapshot) -> SnapshotDifference:
    settings = load_settings(home=home)
    with comparing(settings) as con:
        return compare_snapshots(con, settings.panel_spec, a, b)


def turnover(home: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Result:
    monkeypatch.setenv("TURNOVER_HOME", str(home))
    return CliRunner().invoke(app, ["compare", *arguments], catch_exceptions=False)


# Comparing ---------------------------------------------------------------------------------------


def test_snapshots_of_the_same_values_are_equal_whichever_run_made_them(
    publish_: Callable[..., Snapshot], tmp_path: Path
) -> None:
    a = publish_(version=1, files="SELECT 'x' AS digest, now() AS landed_at", checks="SELECT 1 AS run")
    b = publish_(
        sales=SALES[::-1],
        version=2,
        files="SELECT 'x' AS digest, now() - INTERVAL 1 HOUR AS landed_at",
        checks="SELECT 2 AS run",
    )

    found = compared(tmp_path, a, b)

    assert found.equal
    assert {change.what: (change.a, change.b) for change in found.facts}["model.version"] == (1, 2)
    assert "checks" not in found.tables
    assert found.restated == found.new == found.gone == found.forecasts == ()


def test_the_files_of_a_model_are_no_difference_of_their_own(
    publish_: Callable[..., Snapshot], tmp_path: Path
) -> None:
    a, b = (
        Snapshot(
            made.folder, made.facts | {"model": {"version": 1, "files": {"model.json": {"sha256": digest}}}}
        )
        for made, digest in ((publish_(), "a"), (publish_(), "b"))
    )

    found = compared(tmp_path, a, b)

    assert not [change.what for change in found.facts if change.what.startswith("model")]


def test_restatements_series_totals_and_forecasts_are_told_apart(
    publish_: Callable[..., Snapshot], tmp_path: Path
) -> None:
    a = publish_()
    b = publish_(
        sales=[SALES[0], (1, 73, "2017-06-10", 14.0), (3, 88, "2017-06-10", 5.0)],
        forecasts=[(1, 73, "2017-06-17", 13.0), (3, 88, "2017-06-17", 5.0)],
    )

    found = compared(tmp_path, a, b)

    assert [(c.what, c.a, c.b) for c in found.restated] == [
        ("store 1, department 73, week 2017-06-10", 11.0, 14.0)
    ]
    assert (found.new, found.gone) == (("store 3, department 88",), ("store 2, department 73",))
    assert [(c.a, c.b) for c in found.totals] == [(41.0, 29.0), (21.0, 24.0)]
    assert [(c.what, c.a, c.b) for c in found.forecasts] == [("store 1, department 73", 10.0, 13.0)]
    table = found.tables["turnover"]
    assert (table.only_a, table.only_b, table.changed, found.equal) == (1, 1, 1, False)


def test_a_table_that_one_of_them_lacks_is_a_difference(
    publish_: Callable[..., Snapshot], tmp_path: Path
) -> None:
    new = {"findings": "SELECT 1 AS finding_id", "profile": "SELECT 1 AS rows"}

    found = compared(tmp_path, publish_(), publish_(**new))

    assert (found.only_a, found.only_b, found.equal) == ((), ("findings",), False)


def test_a_snapshot_that_went_away_is_named(publish_: Callable[..., Snapshot], tmp_path: Path) -> None:
    a, b = publish_(), publish_()
    a.path("turnover").unlink()

    with pytest.raises(NoSnapshotError, match=f"{a.name} and {b.name} cannot be compared"):
        compared(tmp_path, a, b)


# Naming ------------------------------------------------------------------------------------------


def test_snapshots_go_by_id_beginning_and_age(publish_: Callable[..., Snapshot], tmp_path: Path) -> None:
    first, second, third = publish_(), publish_(), publish_()
    folder = tmp_path / "published"

    assert find_snapshot(folder, "current").name == third.name
    assert find_snapshot(folder, "previous").name == second.name
    assert find_snapshot(folder, first.name).name == first.name
    assert find_snapshot(folder, first.name[:-1]).name == first.name


@pytest.mark.parametrize("name", ["2017-06-10", "2016", "", "../published"])
def test_a_name_that_fits_none_or_several_is_answered_with_those_there_are(
    publish_: Callable[..., Snapshot], tmp_path: Path, name: str
) -> None:
    first, second = publish_(), publish_()

    with pytest.raises(UnknownNameError, match="more than one") as raised:
        find_snapshot(tmp_path / "published", name)

    assert {"current", "previous", first.name, second.name} == set(raised.value.available)


def test_the_first_snapshot_has_none_before_it(publish_: Callable[..., Snapshot], tmp_path: Path) -> None:
    first = publish_()

    with pytest.raises(NoSnapshotError, match=f"{first.name} is the first"):
        find_snapshot(tmp_path / "published", "previous")


# The command -------------------------------------------------------------------------------------


def test_the_account_is_data_and_the_exit_code_is_asked_for(
    publish_: Callable[..., Snapshot], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_()
    publish_(sales=[*SALES[:2], (2, 73, "2017-06-10", 30.0)])

    plain, asked = (
        turnover(tmp_path, monkeypatch),
        turnover(tmp_path, monkeypatch, "previous", "current", "--exit-code"),
    )
    same = turnover(tmp_path, monkeypatch, "current", "current", "--exit-code")

    assert (plain.exit_code, asked.exit_code, same.exit_code) == (0, 1, 0)
    assert "store 2, department 73, week 2017-06-10: 20.00 -> 30.00 (+50.00%)" in plain.stdout
    assert "The values differ." in plain.stdout
    assert "The values are the same." in same.stdout
    assert plain.stderr == ""


@pytest.mark.parametrize("file_format", ["csv", "parquet"])
def test_every_differing_cell_can_be_had_as_a_file(
    publish_: Callable[..., Snapshot], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file_format: str
) -> None:
    publish_()
    publish_(sales=[*SALES[:2], (2, 73, "2017-06-10", 30.0)])
    output = tmp_path / "cells"

    result = turnover(tmp_path, monkeypatch, "--output", str(output), "--format", file_format)

    assert result.exit_code == 0
    table = pd.read_csv(output, dtype=str) if file_format == "csv" else pd.read_parquet(output)
    assert table.values.tolist() == [
        ["turnover", "changed", "store=2, department=73, week=2017-06-10", "turnover", "20.0", "30.0"]
    ]


def test_an_unknown_snapshot_is_one_line(
    publish_: Callable[..., Snapshot], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_()

    result = turnover(tmp_path, monkeypatch, "nobody", "current")

    assert (result.exit_code, result.stdout) == (1, "")
    assert "There is no snapshot (or more than one) named 'nobody'" in result.stderr


# Late data, through the pipeline -----------------------------------------------------------------


@pytest.mark.slow
def test_late_data_flows_through_and_what_was_published_stays(copied: Landed) -> None:
    settings, keys = copied.settings, ["store", "department", "week"]
    old = current(settings.published_path)
    before = {name: (old.folder / name).read_bytes() for name in (*old.files, FACTS)}
    row = old.read("turnover").sort_values(keys).iloc[-3]
    late = f"{row.week:%Y-%m-%d},{row.store},{row.department},{row.turnover + 5000:.2f}\n"
    (copied.folder / "zz_late.csv").write_text(TURNOVER_HEADER + late)

    bring_up_to_date(settings, copied.folder, quiet)

    new = current(settings.published_path)
    with comparing(settings) as con:
        found = compare_snapshots(con, settings.panel_spec, old, new)
        tables = {name for (name,) in con.execute(f"SELECT DISTINCT table_name FROM {CELLS}").fetchall()}
    with Warehouse(settings.warehouse_path).transaction() as con:
        restated = con.execute(f"SELECT * FROM {RESTATEMENTS} WHERE new_file = 'zz_late.csv'").df()
    assert {name: (old.folder / name).read_bytes() for name in (*old.files, FACTS)} == before
    assert [(c.b - c.a) for c in found.restated] == pytest.approx([5000.0], abs=0.01)
    assert restated[["store", "department", "old_value"]].values.tolist() == [
        [row.store, row.department, row.turnover]
    ]
    assert found.tables["turnover"].changed_by_column["turnover"] == found.tables["restatements"].only_b == 1
    assert f"store {row.store}, department {row.department}" in {change.what for change in found.forecasts}
    assert tables >= {"turnover", "forecasts", "department_turnover", "files"}
    assert set(new.facts["tables"]) - set(table_keys(settings.panel_spec)) == HISTORIES
    assert new.facts["model"]["version"] == old.facts["model"]["version"]
