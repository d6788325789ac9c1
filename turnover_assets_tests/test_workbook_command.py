"""`turnover workbook`, the asset of each publishing, and what is kept of its files."""

from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest
from click.testing import Result
from typer.testing import CliRunner

from turnover_assets.cli import app
from turnover_assets.core.workbook.recipients import parse_recipients
from turnover_assets.defs import common, workbooks
from turnover_assets.embedded import open_instance
from turnover_assets.errors import RecipientsError, UnknownNameError
from turnover_assets.maintenance import keep_house
from turnover_assets.panel import default_panel
from turnover_assets.storage.snapshots import current, prune
from turnover_assets.storage.workbook_files import outlived, read_recipients
from turnover_assets_tests.api_factories import publish
from turnover_assets_tests.factories import Landed, quiet
from turnover_assets_tests.workbook_files import read

Turnover = Callable[..., Result]


@pytest.fixture
def turnover(plain: Landed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Turnover:
    """Call the command on a published home, in a folder of its own."""
    monkeypatch.setenv("TURNOVER_HOME", str(plain.settings.home))
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["workbook", *arguments], catch_exceptions=False)

    return call


@pytest.fixture
def region(plain: Landed) -> str:
    stores = current(plain.settings.published_path).read("stores")
    return str(stores["region"].iloc[0])


# The command ----------------------------------------------------------------------------------------


def test_a_region_is_written_into_the_file_named(turnover: Turnover, region: str, tmp_path: Path) -> None:
    done = turnover("--region", region, "--output", "deep/book.xlsx")

    assert done.exit_code == 1  # the folder of a file is not made
    assert "cannot be written" in done.stderr
    done = turnover("--region", region, "--output", "book.xlsx")
    assert done.exit_code == 0, done.stderr
    assert "book.xlsx" in done.stderr
    assert read((tmp_path / "book.xlsx").read_bytes())["Summary"]["A1"].value.startswith(f"Region {region}: ")


def test_every_way_to_name_a_member_gives_the_same_file(
    turnover: Turnover, region: str, tmp_path: Path
) -> None:
    ways = [("--region", region), (f"--region={region}",), ("--level", "region", "--member", region)]
    ways.append(("--member", region))  # the last level of the panel

    for number, words in enumerate(ways):
        assert turnover(*words, "--output", f"{number}.xlsx").exit_code == 0

    assert len({(tmp_path / f"{number}.xlsx").read_bytes() for number in range(len(ways))}) == 1


def test_all_members_go_into_a_folder(turnover: Turnover, plain: Landed, tmp_path: Path) -> None:
    done = turnover("--level", "store", "--all", "--output", "books")

    snapshot = current(plain.settings.published_path)
    stores = sorted(snapshot.read("forecasts")["store"].unique())
    cutoff = snapshot.facts["cutoff"]
    assert sorted(path.name for path in (tmp_path / "books").iterdir()) == sorted(
        f"store-{store}_{cutoff}.xlsx" for store in stores
    )
    assert f"({len(stores)} workbooks)" in done.stderr


def test_the_total_needs_no_member_and_goes_here(turnover: Turnover, plain: Landed, tmp_path: Path) -> None:
    assert turnover("--level", "total").exit_code == 0

    cutoff = current(plain.settings.published_path).facts["cutoff"]
    assert [path.name for path in tmp_path.glob("*.xlsx")] == [f"total_{cutoff}.xlsx"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "Name the region whose forecasts you want, or --all."),
        (["--region"], "--region needs a value."),
        (["--zone", "3"], "There is no option --zone. Levels are --department, --store, --region"),
        (["7"], "There is no option 7."),
        (["--region", "1", "--store", "2"], "Name one level with one member."),
        (["--level", "store", "--region", "1"], "Name one level with one member."),
        (["--region", "1", "--all"], "Either one member or --all."),
        (["--level", "planet", "--all"], "There is no level named 'planet'"),
        (["--region", "none"], "There is no region named 'none'. Available: "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_asked_is_told_with_what_can(turnover: Turnover, words: list[str], told: str) -> None:
    done = turnover(*words)

    assert done.exit_code == 1
    assert told in " ".join(done.stderr.split())


def test_a_home_without_forecasts_says_so(
    turnover: Turnover, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TURNOVER_HOME", str(tmp_path / "new"))

    done = turnover("--all", "--output", "books")

    assert done.exit_code == 1
    assert "Nothing has been published" in done.stderr


# The asset ------------------------------------------------------------------------------------------


def test_each_publishing_makes_the_workbooks_of_the_last_level(plain: Landed, turnover: Turnover) -> None:
    snapshot = current(plain.settings.published_path)
    folder = plain.settings.workbooks_path / snapshot.name
    made = {path.name: path.read_bytes() for path in folder.iterdir()}
    turnover("--all", "--output", "books")

    assert made == {path.name: path.read_bytes() for path in Path("books").iterdir()}
    with open_instance(plain.settings) as instance:
        event = instance.get_latest_materialization_event(common.WORKBOOKS)
    assert event is not None
    assert event.asset_materialization is not None
    metadata = event.asset_materialization.metadata
    assert metadata["workbooks"].value == len(made)
    assert metadata["bytes"].value == sum(map(len, made.values()))


def test_workbooks_go_with_their_snapshots(copied: Landed) -> None:
    settings = copied.settings
    first = current(settings.published_path)
    fresh = publish(settings.published_path, first)
    (asset,) = workbooks.build(settings)
    dg.materialize([asset], selection=[common.WORKBOOKS], instance=dg.DagsterInstance.ephemeral())
    assert {path.name for path in settings.workbooks_path.iterdir()} == {first.name, fresh.name}

    prune(settings.published_path, 1)
    dg.materialize([asset], selection=[common.WORKBOOKS], instance=dg.DagsterInstance.ephemeral())

    published = {fresh.name}
    assert {path.name for path in settings.workbooks_path.iterdir()} == published
    (settings.workbooks_path / "gone_20000101T000000_abcdef").mkdir()
    parts = {part["part"]: part for part in keep_house(settings, quiet, dry=False)}
    assert parts["workbooks"]["which"] == "gone_20000101T000000_abcdef"
    assert {path.name for path in settings.workbooks_path.iterdir()} == published


def test_what_has_outlived_its_snapshot_is_found(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "note.txt").write_text("no folder")

    assert outlived(tmp_path, ["b"]) == [tmp_path / "a"]
    assert outlived(tmp_path / "nowhere", []) == []


def test_no_workbooks_are_made_where_none_are_wanted(plain: Landed, tmp_path: Path) -> None:
    settings = plain.settings.model_copy(update={"workbook_level": "none"})
    (asset,) = workbooks.build(settings)

    result = dg.materialize([asset], selection=[common.WORKBOOKS], instance=dg.DagsterInstance.ephemeral())

    (event,) = result.asset_materializations_for_node("reports__workbooks")
    assert event.metadata["workbooks"].value == 0


def test_a_level_that_there_is_not_is_told_before_anything_is_made(plain: Landed) -> None:
    with pytest.raises(UnknownNameError, match=r"level of TURNOVER_WORKBOOK_LEVEL named 'planet'.*none"):
        workbooks.build(plain.settings.model_copy(update={"workbook_level": "planet"}))


# The file of recipients -----------------------------------------------------------------------------


def test_recipients_get_their_workbooks_in_the_order_of_the_file() -> None:
    data = {
        "region": {"65": ["b@example.com", "a@example.com", "b@example.com"], "7": ["a@example.com"]},
        "total": {"all": ["a@example.com"]},
    }

    assert parse_recipients(data, default_panel(), "file") == {
        "a@example.com": [("region", "65"), ("region", "7"), ("total", "")],
        "b@example.com": [("region", "65")],
    }


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (
            {"planet": {"1": ["a@example.com"]}},
            "planet: is no level; there are department, store, region, total",
        ),
        ({"region": ["a@example.com"]}, "region: is no table"),
        ({"region": {"65": "a@example.com"}}, r"region.65: is no list of addresses"),
        ({"region": {"65": []}}, r"region.65: is no list of addresses"),
        ({"region": {"65": ["A <a@example.com>"]}}, "'A <a@example.com>' is no plain address"),
        ({"region": {"65": ["a@example.com\r\nBcc: b@example.com"]}}, "is no plain address"),
        ({"total": {"1": ["a@example.com"]}}, r"is no member of the total; write all = "),
    ],
)
def test_mistakes_in_the_file_of_recipients_are_listed(data: dict[str, object], problem: str) -> None:
    with pytest.raises(RecipientsError, match=problem):
        parse_recipients(data, default_panel(), "file")


def test_the_file_of_recipients_need_not_be_there_and_must_be_toml(tmp_path: Path) -> None:
    path = tmp_path / "workbook_recipients.toml"
    assert read_recipients(path, default_panel()) == {}
    path.write_text("[region\n")
    with pytest.raises(RecipientsError, match="is not TOML"):
        read_recipients(path, default_panel())
    path.write_bytes(b"\xff")
    with pytest.raises(RecipientsError, match="is no UTF-8 text"):
        read_recipients(path, default_panel())
    path.unlink()
    path.mkdir()
    with pytest.raises(RecipientsError, match="cannot be read"):
        read_recipients(path, default_panel())
