"""Landing: once per content, whole or not at all, with a reason, and without touching a user's files."""

import gzip
import os
import random
import shutil
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pytest

from turnover_assets.core import cleaning
from turnover_assets.defs import forecasts
from turnover_assets.defs.raw import land_partitions
from turnover_assets.errors import HomeError, TurnoverError, UnreadableFileError
from turnover_assets.panel import PanelSpec, default_panel
from turnover_assets.storage import kept as kept_module
from turnover_assets.storage import landing, landing_folder, manifest, reader
from turnover_assets.storage.kept import KeptFiles, kept_files
from turnover_assets.storage.landing_folder import LandedFile
from turnover_assets.storage.manifest import FileRecord
from turnover_assets.storage.warehouse import Warehouse
from turnover_assets_tests.factories import as_nobody

HEADER = "day_id,but_num_business_unit,dpt_num_department,turnover"
PANEL = default_panel()
OTHER_PANEL = PANEL.model_copy(update={"horizon": 5})


def turnover(rows: int = 3, first_store: int = 1) -> str:
    return HEADER + "".join(f"\n2017-06-10,{first_store + i},88,{i}.5" for i in range(rows)) + "\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "landing"
    path.mkdir()
    return path


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse(tmp_path / "home" / "warehouse.duckdb", lock_timeout_seconds=5)


def land_all(warehouse: Warehouse, folder: Path, panel: PanelSpec = PANEL) -> list[FileRecord]:
    """What a run does: land whatever is not on record yet."""
    with warehouse.transaction() as con:
        known = manifest.records(con, panel)
    new = landing.unseen(landing_folder.scan(folder), known)
    return [landing.land(warehouse, panel, file, "run") for file in new]


def on_record(warehouse: Warehouse, panel: PanelSpec = PANEL) -> list[FileRecord]:
    with warehouse.transaction() as con:
        return manifest.records(con, panel)


def query(warehouse: Warehouse, sql: str) -> list[tuple]:
    with warehouse.transaction() as con:
        return con.execute(sql).fetchall()


# --- listing


def test_a_folder_is_listed_with_its_subfolders_by_name_without_what_is_unfinished(folder: Path) -> None:
    wanted = ["b.csv", "a/c.csv.gz", "a/deep/d.parquet", "no_ending", "Z.CSV"]
    skipped = [
        ".hidden",
        ".git/objects.csv",
        "a/.tmp/x.csv",
        *(f"e.csv{end}" for end in landing_folder.UNFINISHED_SUFFIXES),
    ]
    for name in [*wanted, *skipped]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(turnover())

    found = landing_folder.list_folder(folder)

    assert [path.relative_to(folder).as_posix() for path in found] == sorted(wanted)


def test_a_landing_folder_inside_a_hidden_one_is_listed(tmp_path: Path) -> None:
    folder = tmp_path / ".cache" / "landing"
    folder.mkdir(parents=True)
    (folder / "a.csv").write_text(turnover())

    assert landing_folder.list_folder(folder) == [folder / "a.csv"]


def test_links_to_files_are_followed_and_loops_of_folders_are_not(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere.csv").write_text(turnover())
    (folder / "link.csv").symlink_to(tmp_path / "elsewhere.csv")
    (folder / "broken.csv").symlink_to(tmp_path / "nowhere.csv")
    (folder / "loop").symlink_to(folder)

    assert landing_folder.list_folder(folder) == [folder / "link.csv"]


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        pytest.param(lambda path: None, "No such file or directory", id="missing"),
        pytest.param(lambda path: path.write_text("x"), "Not a directory", id="a file"),
    ],
)
@pytest.mark.parametrize("call", [landing_folder.list_folder, landing_folder.scan], ids=["list", "scan"])
def test_a_folder_that_cannot_be_listed_raises_and_is_never_empty(
    tmp_path: Path, make: Callable[[Path], object], problem: str, call: Callable[[Path], object]
) -> None:
    make(tmp_path / "landing")

    with pytest.raises(TurnoverError, match=rf"landing cannot be listed \({problem}\).*Check the path"):
        call(tmp_path / "landing")


@pytest.fixture
def public_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder that other users can reach."""
    changed = []
    for parent in [tmp_path, *tmp_path.parents]:
        mode = parent.stat().st_mode
        if os.access(parent, os.W_OK) and parent.stat().st_uid == os.geteuid() and mode & 0o5 != 0o5:
            parent.chmod(mode | 0o55)
            changed.append((parent, mode))
    path = tmp_path / "public"
    path.mkdir()
    path.chmod(0o755)
    yield path
    for parent, mode in changed:
        parent.chmod(mode)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_subfolder_without_permission_raises_and_is_never_empty(public_folder: Path) -> None:
    (public_folder / "closed").mkdir(mode=0o700)
    (public_folder / "closed").chmod(0o000)
    told = as_nobody(lambda: landing_folder.list_folder(public_folder))

    (public_folder / "closed").chmod(0o700)
    assert f"{public_folder / 'closed'} cannot be listed (Permission denied)" in told


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_file_without_permission_is_refused_once_and_new_when_it_can_be_read(public_folder: Path) -> None:
    (public_folder / "landing").mkdir()
    (public_folder / "landing").chmod(0o755)
    (public_folder / "home").mkdir()
    (public_folder / "home").chmod(0o777)
    file = public_folder / "landing" / "a.csv"
    file.write_text(turnover())
    warehouse = Warehouse(public_folder / "home" / "w.duckdb", threads=1)

    def land() -> list[tuple[str, int, str | None]]:
        found = land_all(warehouse, public_folder / "landing")
        return [(record.status, record.rows, record.reason) for record in found]

    file.chmod(0o000)
    refused, again = as_nobody(land), as_nobody(land)
    file.chmod(0o644)
    accepted = as_nobody(land)

    assert refused == "[('refused', 0, 'cannot be read (Permission denied)')]"
    assert again == "[]"
    assert accepted == "[('accepted', 3, None)]"


def test_a_file_that_vanishes_between_listing_and_reading_is_left_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "a.csv").write_text(turnover())
    monkeypatch.setattr(landing_folder, "list_folder", lambda path: [path / "a.csv", path / "gone.csv"])

    assert [file.name for file in landing_folder.scan(folder)] == ["a.csv"]


# --- once per content


def test_the_same_content_under_two_names_lands_once(warehouse: Warehouse, folder: Path) -> None:
    (folder / "a.csv").write_text(turnover())
    (folder / "b.csv").write_text(turnover())

    first, second = land_all(warehouse, folder), land_all(warehouse, folder)

    assert [(record.name, record.status, record.rows) for record in first] == [("a.csv", "accepted", 3)]
    assert second == []
    assert query(warehouse, "SELECT count(*) FROM raw.turnover") == [(3,)]


def test_landing_a_known_content_again_gives_the_earlier_record(warehouse: Warehouse, folder: Path) -> None:
    (folder / "a.csv").write_text(turnover())
    (file,) = landing_folder.scan(folder)

    records = [landing.land(warehouse, PANEL, file, run) for run in ("one", "two")]

    assert records[0] == records[1]
    assert query(warehouse, "SELECT run_id FROM raw.files") == [("one",)]
    assert query(warehouse, "SELECT count(*) FROM raw.turnover") == [(3,)]


def test_raw_rows_carry_the_number_of_their_manifest_row(warehouse: Warehouse, folder: Path) -> None:
    (folder / "a.csv").write_text(turnover(rows=2))
    (folder / "b.csv").write_text("not a known file\n1\n")
    (folder / "c.csv").write_text(turnover(rows=5, first_store=100))

    land_all(warehouse, folder)

    joined = (
        "SELECT name, count(*) FROM raw.turnover JOIN raw.files USING (file_no) GROUP BY name ORDER BY name"
    )
    assert query(warehouse, joined) == [("a.csv", 2), ("c.csv", 5)]


def test_a_users_files_stay_as_they_are(warehouse: Warehouse, folder: Path) -> None:
    (folder / "good.csv").write_text(turnover())
    (folder / "bad.csv").write_text("x\n1\n")
    (folder / "half.csv.part").write_text("day")
    before = {p.name: (p.read_bytes(), p.stat().st_mtime_ns, p.stat().st_mode) for p in folder.iterdir()}

    land_all(warehouse, folder)

    after = {p.name: (p.read_bytes(), p.stat().st_mtime_ns, p.stat().st_mode) for p in folder.iterdir()}
    assert after == before


# --- refusals


def test_a_refused_file_is_recorded_with_its_reason_and_not_tried_again(
    warehouse: Warehouse, folder: Path
) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "odd.csv").write_text("a,b\n1,2\n")

    (refused,) = land_all(warehouse, folder)

    assert (refused.name, refused.status, refused.rows) == ("sub/odd.csv", "refused", 0)
    assert refused.reason.startswith("fits no known kind of file")
    assert on_record(warehouse) == [refused]
    assert land_all(warehouse, folder) == []


def test_a_gzip_truncated_after_many_rows_leaves_no_raw_row(
    warehouse: Warehouse, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "BATCH_ROWS", 1000)
    dice = random.Random(0)
    text = HEADER + "".join(f"\n2017-06-10,{i},1,{dice.random()}" for i in range(20_000))
    packed = gzip.compress(text.encode())
    (folder / "a.csv.gz").write_bytes(packed[: int(len(packed) * 0.8)])
    (folder / "b.csv").write_text(turnover())

    refused, accepted = land_all(warehouse, folder)

    assert (refused.status, refused.rows) == ("refused", 0)
    assert "the gzip file is truncated" in refused.reason
    assert accepted.status == "accepted"
    assert query(warehouse, "SELECT count(*), min(file_no) FROM raw.turnover") == [(3, 2)]


def test_a_refused_file_is_new_again_for_another_panel_and_an_accepted_one_is_not(
    warehouse: Warehouse, folder: Path
) -> None:
    (folder / "good.csv").write_text(turnover())
    (folder / "odd.csv").write_text("a,b\n1,2\n")
    land_all(warehouse, folder)

    again = land_all(warehouse, folder, OTHER_PANEL)

    assert [record.name for record in again] == ["odd.csv"]
    assert land_all(warehouse, folder, OTHER_PANEL) == []
    assert query(warehouse, "SELECT name, count(*) FROM raw.files GROUP BY name ORDER BY name") == [
        ("good.csv", 1),
        ("odd.csv", 1),
    ]


def test_a_refused_file_that_another_panel_can_read_is_accepted(warehouse: Warehouse, folder: Path) -> None:
    renamed = PANEL.model_dump()
    renamed["series"]["target"]["column"] = "sales"
    (folder / "a.csv").write_text(turnover().replace("turnover", "sales"))

    (refused,) = land_all(warehouse, folder)
    (accepted,) = land_all(warehouse, folder, PanelSpec.model_validate(renamed))

    assert (refused.status, accepted.status) == ("refused", "accepted")
    assert query(
        warehouse, "SELECT f.name, count(*) FROM raw.turnover JOIN raw.files f USING (file_no) GROUP BY 1"
    ) == [("a.csv", 3)]


@pytest.mark.parametrize(
    "meanwhile",
    [
        pytest.param(lambda path: path.write_text(turnover(rows=9)), id="replaced"),
        pytest.param(lambda path: path.write_text("x"), id="damaged"),
        pytest.param(lambda path: path.unlink(), id="removed"),
    ],
)
def test_a_file_that_changes_before_it_is_read_is_refused_for_now_only(
    warehouse: Warehouse, folder: Path, meanwhile: Callable[[Path], object]
) -> None:
    path = folder / "a.csv"
    path.write_text(turnover())
    (file,) = landing_folder.scan(folder)
    meanwhile(path)

    refused = landing.land(warehouse, PANEL, file, "run")

    assert (refused.status, refused.reason) == ("refused", landing.CHANGED)
    assert query(warehouse, "SELECT count(*) FROM raw.turnover") == [(0,)]
    path.write_text(turnover())  # the copy is finished, with the content it had when it was found
    assert [record.status for record in land_all(warehouse, folder)] == ["accepted"]


def test_a_file_that_changes_while_it_is_read_lands_as_it_was_copied_and_then_as_it_is(
    warehouse: Warehouse, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "a.csv"
    path.write_text(turnover())
    (file,) = landing_folder.scan(folder)
    original = landing.read_batches

    def slowly(*arguments: object) -> Iterator[pa.Table]:
        path.write_text(turnover(rows=4))
        yield from original(*arguments)

    monkeypatch.setattr(landing, "read_batches", slowly)

    landed = landing.land(warehouse, PANEL, file, "run")

    assert (landed.status, landed.rows) == ("accepted", 3)
    assert kept_files(warehouse.path.parent).path(file.digest).read_text() == turnover()
    assert [record.rows for record in land_all(warehouse, folder)] == [4]


def test_a_content_that_another_process_accepted_while_this_one_refused_it_stays_accepted(
    warehouse: Warehouse, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "a.csv").write_text(turnover())
    (file,) = landing_folder.scan(folder)

    def unreadable(*_: object) -> FileRecord:
        raise UnreadableFileError("could not be read just then")

    def overtaken(path: Path) -> str:
        monkeypatch.undo()
        return landing.land(warehouse, PANEL, file, "other").digest

    monkeypatch.setattr(landing, "_accept", unreadable)
    monkeypatch.setattr(landing, "content_digest", overtaken)

    record = landing.land(warehouse, PANEL, file, "run")

    assert record.status == "accepted"
    assert query(warehouse, "SELECT status, run_id FROM raw.files") == [("accepted", "other")]


# --- kept files


def test_what_is_accepted_is_kept_byte_for_byte_and_what_is_refused_is_not(
    warehouse: Warehouse, folder: Path
) -> None:
    good = gzip.compress(turnover().encode())
    (folder / "good.csv.gz").write_bytes(good)
    (folder / "odd.csv").write_text("a,b\n1,2\n")

    accepted, refused = land_all(warehouse, folder)

    kept = kept_files(warehouse.path.parent)
    assert kept.path(accepted.digest).read_bytes() == good
    assert not kept.has(refused.digest)
    assert [(row["file_no"], row["name"], row["status"]) for row in kept.records()] == [
        (1, "good.csv.gz", "accepted"),
        (2, "odd.csv", "refused"),
    ]


def test_the_journal_holds_every_column_of_the_manifest(warehouse: Warehouse, folder: Path) -> None:
    (folder / "a.csv").write_text(turnover().replace("turnover\n", "turnover,note\n"))
    land_all(warehouse, folder)

    (row,) = kept_files(warehouse.path.parent).records()

    with warehouse.transaction() as con:
        con.execute("CREATE TEMP TABLE journal AS FROM raw.files LIMIT 0")
        con.execute(
            f"INSERT INTO journal VALUES ({', '.join('?' * len(row))})",
            [row[column] for column in manifest.FILE_COLUMNS],
        )
        assert con.execute("FROM journal EXCEPT FROM raw.files").fetchall() == []
        assert con.execute("FROM raw.files EXCEPT FROM journal").fetchall() == []


def test_a_file_already_accepted_is_not_copied_again(
    warehouse: Warehouse, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "a.csv").write_text(turnover())
    (file,) = landing_folder.scan(folder)
    landing.land(warehouse, PANEL, file, "one")
    monkeypatch.setattr(KeptFiles, "copied", lambda *_: pytest.fail("copied"))

    assert landing.land(warehouse, PANEL, file, "two").status == "accepted"


def test_a_change_of_the_users_file_in_place_does_not_reach_what_is_kept(
    warehouse: Warehouse, folder: Path
) -> None:
    (folder / "a.csv").write_text(turnover())
    (record,) = land_all(warehouse, folder)
    with (folder / "a.csv").open("r+") as stream:
        stream.write("DAY")

    assert kept_files(warehouse.path.parent).is_whole(record.digest)


@pytest.mark.parametrize("again", ["land", "mend_kept"])
def test_a_file_that_an_earlier_release_accepted_without_keeping_it_is_kept_when_it_comes_again(
    warehouse: Warehouse, folder: Path, again: str
) -> None:
    (folder / "a.csv").write_text(turnover())
    (folder / "b.csv").write_text(turnover(first_store=50))
    one, two = landing_folder.scan(folder)
    for file in (one, two):
        landing.land(warehouse, PANEL, file, "run")
    kept = kept_files(warehouse.path.parent)
    before = kept.records()
    shutil.rmtree(kept.folder)

    if again == "land":
        landing.land(warehouse, PANEL, two, "later")
    else:
        unknown = LandedFile(one.path, "unknown", "0" * 64)
        assert landing.mend_kept(warehouse, PANEL, [two, unknown]) == ["b.csv"]

    (row,) = kept.records()
    landed_at = row.pop("landed_at"), before[1].pop("landed_at")
    assert row == before[1]
    assert len({datetime.fromisoformat(text) for text in landed_at}) == 1
    assert (kept.is_whole(two.digest), kept.has(one.digest)) == (True, False)
    assert query(warehouse, "SELECT count(*) FROM raw.turnover") == [(6,)]


def test_lost_bytes_are_kept_again_from_the_same_file_and_the_journal_stays(
    warehouse: Warehouse, folder: Path
) -> None:
    (folder / "a.csv").write_text(turnover())
    (file,) = landing_folder.scan(folder)
    landing.land(warehouse, PANEL, file, "run")
    kept = kept_files(warehouse.path.parent)
    before = kept.records()
    kept.path(file.digest).unlink()

    assert landing.mend_kept(warehouse, PANEL, [file]) == ["a.csv"]

    assert kept.is_whole(file.digest)
    assert kept.records() == before


def test_a_kept_folder_that_cannot_be_written_accepts_nothing_and_loses_nothing(
    warehouse: Warehouse, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "a.csv").write_text(turnover())
    (file,) = landing_folder.scan(folder)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    for step in ("_copy", "replace_file", "sync"):
        monkeypatch.setattr(kept_module, step, full)
        with pytest.raises(HomeError, match=r"raw cannot be written \(No space left on device\).*Make room"):
            landing.land(warehouse, PANEL, file, "run")
        monkeypatch.undo()
        assert on_record(warehouse) == []
        assert not list(warehouse.path.parent.glob("raw/.partial-*"))

    assert landing.land(warehouse, PANEL, file, "run").status == "accepted"
    assert query(warehouse, "SELECT count(*) FROM raw.turnover") == [(3,)]


def test_contents_that_do_not_contradict_each_other_give_the_same_tables_in_any_order(
    tmp_path: Path, folder: Path
) -> None:
    sources = (
        "but_num_business_unit,but_postcode,but_latitude,but_longitude,but_region_idr_region,zod_idr_zone_dgr"
    )
    (folder / "stores.csv").write_text(sources + "\n1,01000,46.2,5.2,7,4\n2,75011,48.8,2.3,3,10\n")
    for week in ("2017-05-27", "2017-06-03", "2017-06-10"):
        rows = "".join(f"\n{week},{store},88,{store}.1" for store in (1, 2, 3))
        (folder / f"{week}.csv").write_text(f"{HEADER}{rows}\n{week},x,88,1\n")
    found, dice, results = landing_folder.scan(folder), random.Random(1), set()

    for number in range(3):
        warehouse = Warehouse(tmp_path / str(number) / "warehouse.duckdb")
        for file in dice.sample(found, len(found)):
            landing.land(warehouse, PANEL, file, "run")
        with warehouse.transaction() as con:
            cleaning.clean_all(con, PANEL)
            exported = [
                con.execute(forecasts.queries(PANEL)[name]).fetchall() for name in ("turnover", "rejected")
            ]
            results.add((cleaning.content_version(con, PANEL), repr(exported)))

    assert len(results) == 1
    assert results.pop()[1].count("unknown_store") == 3


def test_of_contents_that_contradict_each_other_the_later_landed_counts(tmp_path: Path, folder: Path) -> None:
    for name, value in (("a", "1"), ("b", "2")):
        (folder / f"{name}.csv").write_text(f"{HEADER}\n2017-06-10,1,88,{value}\n")
    a, b = landing_folder.scan(folder)

    for order, expected in (((a, b), 2.0), ((b, a), 1.0)):
        warehouse = Warehouse(tmp_path / order[0].name / "warehouse.duckdb")
        for file in order:
            landing.land(warehouse, PANEL, file, "run")
        with warehouse.transaction() as con:
            cleaning.clean_all(con, PANEL)
            assert con.execute("SELECT turnover FROM cleaned.turnover").fetchall() == [(expected,)]


def test_a_raw_table_of_another_layout_is_refused_with_what_to_do(warehouse: Warehouse, folder: Path) -> None:
    (folder / "a.csv").write_text(turnover())
    land_all(warehouse, folder)
    other = PANEL.model_dump()
    other["series"]["target"]["name"] = "sales"

    with pytest.raises(
        TurnoverError, match=r"raw\.turnover with the columns .*turnover.* asks for .*sales.*Use the panel"
    ):
        land_all(warehouse, folder, PanelSpec.model_validate(other))


# --- versions and the published manifest


def record(digest: str, status: str = "accepted") -> FileRecord:
    return FileRecord(digest, f"{digest}.csv", status, "turnover", 1, None)


@pytest.mark.parametrize(
    ("records", "panel", "same"),
    [
        pytest.param([record("a"), record("x", "refused"), record("b")], PANEL, True, id="a refusal more"),
        pytest.param([record("a"), record("b"), record("c")], PANEL, False, id="a file more"),
        pytest.param([record("b"), record("a")], PANEL, False, id="another order"),
        pytest.param([record("a"), record("b")], OTHER_PANEL, False, id="another panel"),
    ],
)
def test_the_version_of_what_has_landed_depends_on_what_was_accepted(
    records: list[FileRecord], panel: PanelSpec, same: bool
) -> None:
    version = manifest.landed_version([record("a"), record("b")], PANEL)

    assert (manifest.landed_version(records, panel) == version) is same


def test_unseen_files_come_by_name_and_one_for_each_content() -> None:
    files = [
        LandedFile(Path(name), name, digest)
        for name, digest in [("c", "1"), ("b", "2"), ("a", "1"), ("d", "3")]
    ]

    found = landing.unseen(files, [record("3")])

    assert [file.name for file in found] == ["a", "b"]


def test_the_published_manifest_says_what_each_file_was(warehouse: Warehouse, folder: Path) -> None:
    (folder / "a.csv").write_text(turnover().replace(",", ";").replace("turnover\n", "turnover;note;by\n"))
    (folder / "b.csv").write_text("a,b\n1,2\n")
    land_all(warehouse, folder)

    with warehouse.transaction() as con:
        found = con.execute(manifest.FILES_QUERY).df()

    columns = ["file_no", "name", "status", "rows", "format", "delimiter", "extra_columns"]
    assert found.loc[0, columns].tolist() == [1, "a.csv", "accepted", 3, "csv", ";", "note, by"]
    assert found.loc[1, ["file_no", "name", "status", "rows"]].tolist() == [2, "b.csv", "refused", 0]
    assert found.loc[1, "reason"].startswith("fits no known kind")


def test_a_partition_key_tells_contents_apart_and_holds_nothing_odd() -> None:
    one, other = (LandedFile(Path("x"), "a...b\n.csv", digest * 32) for digest in ("a1", "b2"))

    assert one.partition_key == "a…b?.csv@a1a1a1a1a1a1"
    assert one.partition_key != other.partition_key


def test_a_correction_named_after_the_original_lands_after_it(folder: Path, warehouse: Warehouse) -> None:
    names = ["week (1).csv", "week-v2.csv", "week.csv", "week_restated.csv"]
    for store, name in enumerate(names, start=1):
        (folder / name).write_text(turnover(first_store=10 * store))

    landed = [record.name for record in land_all(warehouse, folder)]

    assert landed[0] == "week.csv"
    assert sorted(landed) == sorted(names)


def test_a_file_name_that_is_not_utf8_lands_under_a_readable_one(folder: Path, warehouse: Warehouse) -> None:
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.csv")).write_text(turnover())

    (record,) = land_all(warehouse, folder)

    assert (record.name, record.status, record.rows) == ("caf\ufffd.csv", "accepted", 3)
    assert on_record(warehouse) == [record]


def test_what_a_data_home_holds_does_not_land(folder: Path) -> None:
    (folder / "var" / "dagster").mkdir(parents=True)
    (folder / "var" / "dagster" / "dagster.yaml").touch()
    for name in ("a.csv", "var/run.lock", "var/published.parquet"):
        (folder / name).touch()

    assert landing_folder.list_folder(folder) == [folder / "a.csv"]


# --- the raw asset


def test_a_file_that_is_gone_is_named_after_all_others_have_landed(
    folder: Path, warehouse: Warehouse
) -> None:
    for name, first in (("a.csv", 1), ("b.csv", 10), ("c.csv", 20)):
        (folder / name).write_text(turnover(first_store=first))
    found = landing_folder.scan(folder)
    landing.land(warehouse, PANEL, found[2], "an earlier run")
    for name in ("b.csv", "c.csv"):
        (folder / name).unlink()
    keys = [file.partition_key for file in found]

    with pytest.raises(TurnoverError, match=r"no longer there, or have changed since: b\.csv\."):
        land_partitions(warehouse, PANEL, folder, keys, "run")

    assert [record.name for record in on_record(warehouse)] == ["c.csv", "a.csv"]
    assert land_partitions(warehouse, PANEL, folder, [keys[0], keys[2]], "next").keys() == {keys[0], keys[2]}
