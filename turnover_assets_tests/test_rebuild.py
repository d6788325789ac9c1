"""Rebuilding: from kept files alone, to the same tables, in one step, or not at all with the reason."""

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import duckdb
import pytest
from typer.testing import CliRunner

from turnover_assets.cli import app
from turnover_assets.core import cleaning
from turnover_assets.errors import HomeError, TurnoverError, WarehouseBusyError
from turnover_assets.panel import PanelSpec, default_panel
from turnover_assets.runner import bring_up_to_date
from turnover_assets.storage import landing, landing_folder, manifest, rebuild, snapshots
from turnover_assets.storage.kept import KeptFiles, kept_files
from turnover_assets.storage.rebuild import Rebuilt
from turnover_assets.storage.warehouse import Warehouse
from turnover_assets_tests.factories import Landed, land_path, land_text, next_week, quiet

PANEL = default_panel()
HEADER = "day_id,but_num_business_unit,dpt_num_department,turnover\n"
SERIES = "SELECT store, department, week, turnover, turnover_adjusted, adjustment_id FROM cleaned.turnover"
clean = partial(cleaning.clean_all, panel=PANEL)


@dataclass(frozen=True)
class Home:
    """A home with a few files landed, cleaned and published."""

    folder: Path
    warehouse: Warehouse
    kept: KeptFiles
    published: Path

    def rebuild(self, **options: bool) -> Rebuilt:
        return rebuild.rebuild(self.warehouse, PANEL, self.published, clean, **options)

    def query(self, sql: str) -> list[tuple]:
        with self.warehouse.transaction() as con:
            return con.execute(sql).fetchall()

    def land(self, name: str, rows: str, panel: PanelSpec = PANEL) -> str:
        return land_text(self.folder, self.warehouse, panel, name, HEADER + rows).digest

    def clean_and_publish(self) -> None:
        with self.warehouse.transaction() as con:
            clean(con)
            queries = {"turnover": SERIES, "files": manifest.FILES_QUERY}
            snapshots.publish(con, self.published, queries, {"cutoff": "2017-06-10"})


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Files that contradict each other in an order that is not that of their names, and a refused one."""
    warehouse = Warehouse(tmp_path / "home" / "warehouse.duckdb", lock_timeout_seconds=5)
    made = Home(tmp_path / "files", warehouse, kept_files(tmp_path / "home"), tmp_path / "home" / "published")
    made.land("z.csv", "2017-06-03,1,88,1\n2017-06-03,2,88,2.5\n")
    land_text(made.folder, warehouse, PANEL, "odd.csv", "a,b\n1,2\n")
    made.land("a.csv", "2017-06-03,1,88,3\n2017-06-10,1,88,nothing\n2999-01-05,1,88,1\n")
    made.land("m.csv", "2017-06-03,1,88,2\n")
    made.clean_and_publish()
    return made


def everything(home: Home) -> dict[str, list[tuple]]:
    """Every row of raw and cleaned tables, in order."""
    with home.warehouse.transaction() as con:
        tables = con.execute(
            "SELECT table_schema || '.' || table_name FROM information_schema.tables "
            "WHERE table_schema IN ('raw', 'cleaned') ORDER BY 1"
        ).fetchall()
        # As text, since Python has no type of its own for all of them.
        rows = "SELECT CAST(t AS VARCHAR) FROM {} AS t ORDER BY ALL"
        return {t: con.execute(rows.format(t)).fetchall() for (t,) in tables}


def files_of(home: Home) -> set[str]:
    return {path.name for path in home.warehouse.path.parent.iterdir()}


def corrupt(path: Path) -> None:
    path.write_bytes(b"\0" * 4096 + path.read_bytes()[4096:])


def start_anew(path: Path) -> None:
    path.unlink()
    with Warehouse(path).transaction():
        pass


def test_a_rebuilt_warehouse_is_the_same_row_for_row_and_the_old_one_stays_beside_it(home: Home) -> None:
    before, inode = everything(home), home.warehouse.path.stat().st_ino

    done = home.rebuild()

    assert (done.files, done.differences, done.notes, done.in_place) == (3, (), (), True)
    assert done.compared_with == str(home.warehouse.path)
    assert everything(home) == before
    assert home.query("SELECT turnover FROM cleaned.turnover WHERE store = 1") == [(2.0,)]
    assert home.warehouse.path.stat().st_ino != inode
    assert done.set_aside is not None
    assert done.set_aside.stat().st_ino == inode
    assert not files_of(home) & {rebuild.REBUILDING, f"{rebuild.REBUILDING}.wal", "warehouse.duckdb.wal"}


def test_a_check_proves_it_and_replaces_nothing(home: Home) -> None:
    before, inode = files_of(home), home.warehouse.path.stat().st_ino

    done = home.rebuild(check=True)

    assert (done.differences, done.in_place, done.set_aside) == ((), False, None)
    assert (files_of(home), home.warehouse.path.stat().st_ino) == (before, inode)


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        pytest.param(lambda path: path.unlink(), "there is no .*warehouse.duckdb", id="deleted"),
        pytest.param(corrupt, "cannot be opened to compare with", id="corrupt"),
        pytest.param(start_anew, r"lacks files that have landed \(z.csv, a.csv, m.csv\)", id="made anew"),
    ],
)
def test_a_lost_warehouse_is_rebuilt_and_compared_with_what_is_published(
    home: Home, spoil: Callable[[Path], object], problem: str
) -> None:
    before = everything(home)
    spoil(home.warehouse.path)

    done = home.rebuild()

    (note,) = done.notes
    assert re.search(problem, note)
    assert done.compared_with == f"the published snapshot {snapshots.current(home.published).name}"
    assert (done.differences, done.in_place) == ((), True)
    assert everything(home) == before


def test_without_warehouse_and_snapshot_it_says_that_there_was_nothing_to_compare_with(home: Home) -> None:
    home.warehouse.path.unlink()
    shutil.rmtree(home.published)

    done = home.rebuild()

    assert (done.compared_with, done.in_place, len(done.notes)) == (None, True, 2)
    assert home.query("SELECT count(*) FROM cleaned.turnover") == [(2,)]


def test_a_snapshot_that_says_otherwise_is_told_and_the_kept_files_count(home: Home) -> None:
    home.warehouse.path.unlink()
    with duckdb.connect() as con:
        query = SERIES.replace(
            "cleaned.turnover",
            "(SELECT 1 AS store, 88 AS department, DATE '2017-06-03' AS week,"
            " 9.0 AS turnover, 2.0 AS turnover_adjusted, NULL AS adjustment_id)",
        )
        snapshots.publish(con, home.published, {"turnover": query}, {"cutoff": "2017-06-10"})

    done = home.rebuild()

    (difference,) = done.differences
    assert difference.startswith(
        "cleaned.turnover: 1 rows only in the new one, 0 only in the present one, 1 changed"
    )
    assert "store=1, department=88, week=2017-06-03" in difference
    assert done.in_place


@pytest.mark.parametrize(
    ("change", "told"),
    [
        pytest.param(
            "UPDATE raw.turnover SET turnover = '4' WHERE file_no = 1 AND line = 2",
            r"raw\.turnover: 1 rows only in the new one, 1 only in the present one.*line=2",
            id="a value",
        ),
        pytest.param(
            "DELETE FROM raw.turnover WHERE file_no = 4", r"raw\.turnover: 1 rows only in the new", id="a row"
        ),
        pytest.param(
            "INSERT INTO raw.turnover FROM raw.turnover WHERE file_no = 4",
            r"raw\.turnover: 0 rows only in the new one, 1 only in the present one",
            id="a row twice",
        ),
        pytest.param(
            "CREATE TABLE raw.more AS SELECT 1 AS x", r"raw\.more is only in the present", id="a table"
        ),
    ],
)
def test_a_warehouse_that_differs_is_not_replaced_and_the_difference_is_shown(
    home: Home, change: str, told: str
) -> None:
    home.query(change)
    before = everything(home)

    done = home.rebuild()

    assert not done.in_place
    assert re.search(told, "\n".join(done.differences))
    assert everything(home) == before


def test_a_warehouse_with_files_not_cleaned_yet_is_compared_as_cleaned_now(home: Home) -> None:
    home.land("new.csv", "2017-06-10,2,88,7\n")

    done = home.rebuild()

    (note,) = done.notes
    assert "was due to be cleaned again" in note
    assert (done.differences, done.in_place) == ((), True)
    assert home.query("SELECT count(*) FROM cleaned.turnover") == [(3,)]


def test_what_was_found_run_after_run_is_taken_over(home: Home) -> None:
    home.query(
        "CREATE TABLE reports.checks AS SELECT TIMESTAMPTZ '2026-01-01 00:00:00+00' AS at, 0.5 AS figure"
    )
    home.query("CREATE TABLE monitoring.measures AS SELECT 'wape' AS measure, 0.5 AS value")

    home.rebuild()

    assert home.query("SELECT figure FROM reports.checks") == [(0.5,)]
    assert home.query("SELECT value FROM monitoring.measures") == [(0.5,)]


def test_files_are_read_with_the_panel_they_landed_with(home: Home) -> None:
    data = PANEL.model_dump()
    data["series"]["target"]["column"] = "sales"
    renamed = PanelSpec.model_validate(data)
    content = HEADER.replace("turnover", "sales") + "2017-06-10,2,88,7\n"
    land_text(home.folder, home.warehouse, renamed, "renamed.csv", content)
    home.clean_and_publish()
    before = everything(home)
    home.warehouse.path.unlink()

    home.rebuild()

    assert everything(home) == before


def test_landing_goes_on_after_a_rebuild_as_if_nothing_had_been(home: Home) -> None:
    home.rebuild()
    known = home.land("again.csv", "2017-06-03,1,88,2\n")
    home.land("next.csv", "2017-06-10,1,88,5\n")

    assert home.rebuild(check=True).differences == ()
    rows = home.query("SELECT file_no, name FROM raw.files ORDER BY file_no")
    assert rows == [(1, "z.csv"), (2, "odd.csv"), (3, "a.csv"), (4, "m.csv"), (5, "next.csv")]
    assert home.query(f"SELECT name FROM raw.files WHERE digest = '{known}'") == [("m.csv",)]


def test_a_warehouse_older_than_the_journal_takes_no_file_before_it_is_rebuilt(home: Home) -> None:
    home.warehouse.path.unlink()

    with pytest.raises(HomeError, match=r"lacks files that have landed.*file 1 already.*`turnover rebuild`"):
        home.land("next.csv", "2017-06-10,1,88,5\n")

    assert home.rebuild().in_place
    home.land("next.csv", "2017-06-10,1,88,5\n")
    assert home.query("SELECT max(file_no) FROM raw.files") == [(5,)]


# --- files that are not kept


def test_files_that_are_not_kept_are_all_named_and_nothing_is_replaced(home: Home) -> None:
    one, two = (landing_folder.content_digest(home.folder / name) for name in ("z.csv", "m.csv"))
    home.kept.path(one).unlink()
    home.kept.path(two).chmod(0o600)
    home.kept.path(two).write_text("spoilt")
    before = everything(home)

    with pytest.raises(TurnoverError, match=r"(?s)z\.csv: .*not there.*m\.csv: .*damaged.*--allow-missing"):
        home.rebuild()

    assert everything(home) == before


def test_a_home_of_the_previous_release_names_its_files_and_keeps_them_when_they_come_again(
    home: Home,
) -> None:
    before = everything(home)
    shutil.rmtree(home.kept.folder)

    with pytest.raises(
        TurnoverError, match=r"(?s)z\.csv: it landed before files were kept.*m\.csv: .*a"
    ) as refused:
        home.rebuild()
    assert "odd.csv" not in str(refused.value)
    assert land_path(home.warehouse, PANEL, home.folder / "a.csv").status == "accepted"
    landing.mend_kept(home.warehouse, PANEL, landing_folder.scan(home.folder))

    assert home.rebuild().differences == ()
    assert {**everything(home), "raw.files": []} == {**before, "raw.files": []}


def test_a_lost_warehouse_with_files_that_are_not_kept_is_rebuilt_without_them_if_one_insists(
    home: Home,
) -> None:
    home.kept.path(landing_folder.content_digest(home.folder / "m.csv")).unlink()
    home.warehouse.path.unlink()

    with pytest.raises(TurnoverError, match=r"m\.csv"):
        home.rebuild()
    done = home.rebuild(allow_missing=True)

    assert (done.files, done.in_place) == (2, True)
    assert any(note.startswith("left out: m.csv") for note in done.notes)
    assert home.query("SELECT turnover FROM cleaned.turnover WHERE store = 1") == [(3.0,)]


# --- around commits that were cut off


def test_a_landing_killed_before_its_commit_is_forgotten_where_the_warehouse_can_tell(home: Home) -> None:
    (row,) = [r for r in home.kept.records() if r["name"] == "m.csv"]
    home.kept.record({**row, "file_no": 5, "digest": "f" * 64, "name": "uncommitted"})

    assert home.rebuild().differences == ()
    assert home.kept.pending() == []


def test_a_landing_killed_after_its_commit_counts_even_where_the_warehouse_is_lost(home: Home) -> None:
    before = everything(home)
    (home.kept.folder / "journal" / "00000004.json").rename(home.kept.folder / "pending" / "00000004.json")
    home.warehouse.path.unlink()

    assert home.rebuild().files == 3
    assert everything(home) == before


def test_a_rebuild_killed_in_the_middle_leaves_nothing_in_the_way_of_the_next(home: Home) -> None:
    (home.warehouse.path.parent / rebuild.REBUILDING).write_bytes(b"half a file")

    assert home.rebuild().in_place
    assert rebuild.REBUILDING not in files_of(home)


def test_a_warehouse_in_use_is_not_replaced(home: Home) -> None:
    impatient = Warehouse(home.warehouse.path, lock_timeout_seconds=0.1)

    with home.warehouse.lock(), pytest.raises(WarehouseBusyError, match="in use by another process"):
        rebuild.rebuild(impatient, PANEL, home.published, clean)


def test_a_full_disk_leaves_the_warehouse_as_it_was(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    before = everything(home)
    monkeypatch.setattr(os, "link", full)

    with pytest.raises(
        HomeError, match=r"cannot be made \(No space left on device\).*old one is still there"
    ):
        home.rebuild()

    assert everything(home) == before
    assert not [name for name in files_of(home) if "before" in name or "rebuilding" in name]


# --- the command


def test_the_command_rebuilds_a_damaged_home_and_the_next_run_finds_nothing_to_do(
    copied: Landed, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, before = copied.settings, snapshots.current(copied.settings.published_path)
    monkeypatch.setenv("TURNOVER_HOME", str(settings.home))
    corrupt(settings.warehouse_path)

    done = CliRunner().invoke(app, ["rebuild"])
    again = CliRunner().invoke(app, ["rebuild", "--check"])
    idle = bring_up_to_date(settings, copied.folder, quiet)

    assert (done.exit_code, again.exit_code) == (0, 0), done.stderr + again.stderr
    assert f"Equal to the published snapshot {before.name}, row for row." in done.stderr
    assert f"content version {before.facts['data_version']}" in done.stderr
    assert f"Equal to {settings.warehouse_path.absolute()}, row for row." in again.stderr
    assert not idle.changed


@pytest.mark.slow
def test_a_run_after_a_rebuild_publishes_the_next_week(
    copied: Landed, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, before = copied.settings, snapshots.current(copied.settings.published_path)
    monkeypatch.setenv("TURNOVER_HOME", str(settings.home))
    corrupt(settings.warehouse_path)
    assert CliRunner().invoke(app, ["rebuild"]).exit_code == 0
    (copied.folder / "new.csv").write_text(next_week(copied))

    refreshed = bring_up_to_date(settings, copied.folder, quiet)

    assert refreshed.refreshed
    assert [record.name for record in refreshed.accepted] == ["new.csv"]
    assert len(snapshots.current(settings.published_path).read("files")) == len(before.read("files")) + 1


def test_the_command_ends_with_an_error_where_something_differs(
    copied: Landed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TURNOVER_HOME", str(copied.settings.home))
    with Warehouse(copied.settings.warehouse_path).transaction() as con:
        con.execute("UPDATE raw.turnover SET turnover = '0.5' WHERE rowid = 0")

    done = CliRunner().invoke(app, ["rebuild"])

    assert done.exit_code == 1
    assert "raw.turnover: 1 rows only in the new one, 1 only in the present one" in done.stderr
    assert "Nothing was replaced." in done.stderr
