"""From landed files to published forecasts, through the same jobs that the UI shows."""

import gzip
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest

from turnover_assets.errors import NoSnapshotError, NothingToForecastError, TurnoverError
from turnover_assets.runner import Outcome, bring_up_to_date
from turnover_assets.settings import load_settings
from turnover_assets.storage.registry import ModelRegistry
from turnover_assets.storage.snapshots import Snapshot, current
from turnover_assets_tests.factories import (
    QUICK,
    TURNOVER_HEADER,
    Landed,
    copy_home,
    draw_nothing,
    next_week,
    quiet,
    settings_for,
)

PAGE = 4096  # bytes, of which a file in memory takes whole ones


def test_every_live_series_gets_every_horizon_inside_ordered_bounds(landed: Landed) -> None:
    forecasts = current(landed.settings.published_path).read("forecasts")
    turnover = landed.retailer.turnover
    alive = turnover[turnover["day_id"] == turnover["day_id"].max()]

    horizons = forecasts.groupby(["store", "department"])["horizon"].apply(sorted)

    assert set(horizons.index) == set(zip(alive.but_num_business_unit, alive.dpt_num_department, strict=True))
    assert all(found == list(range(1, 9)) for found in horizons)
    bounds = forecasts[["lower_95", "lower_80", "forecast", "upper_80", "upper_95"]].to_numpy()
    assert (bounds[:, 1:] >= bounds[:, :-1]).all()
    assert (bounds >= 0).all()
    assert (
        (pd.to_datetime(forecasts["week"]) - pd.to_datetime(forecasts["cutoff"]))
        .dt.days.eq(7 * forecasts["horizon"])
        .all()
    )


def test_exported_forecasts_have_the_columns_of_the_contract(landed: Landed) -> None:
    forecasts = current(landed.settings.published_path).read("forecasts")

    assert list(forecasts.columns) == (
        [
            "store",
            "department",
            "cutoff",
            "week",
            "horizon",
            "forecast",
            "lower_80",
            "upper_80",
            "lower_95",
            "upper_95",
            "model_version",
        ]
    )


def test_the_same_content_under_another_name_lands_once(landed: Landed) -> None:
    files = current(landed.settings.published_path).read("files")

    assert len(landed.outcome.duplicates) == 1
    assert files["digest"].is_unique
    assert (files["status"] == "accepted").all()


def test_defective_rows_are_kept_with_file_line_and_rule(landed: Landed) -> None:
    rejected = current(landed.settings.published_path).read("rejected")

    assert sorted(rejected["rule"]) == ["not_a_date", "unknown_store"]
    for row in rejected.itertuples():
        content = (landed.folder / row.file).read_text().splitlines()[row.line - 1].split(",")
        assert all(value in row.raw_values for value in content)


def test_a_restated_week_replaces_the_values_and_leaves_the_others(landed: Landed) -> None:
    restated_path = next(landed.folder.glob("*_restated.csv"))
    restated = pd.read_csv(restated_path)
    published = current(landed.settings.published_path).read("turnover")

    week = published[published["week"].astype(str) == restated["day_id"].iloc[0]]
    merged = week.merge(
        restated,
        left_on=["store", "department"],
        right_on=["but_num_business_unit", "dpt_num_department"],
        suffixes=("", "_restated"),
    )

    assert len(merged) == len(restated)
    assert merged["turnover"].tolist() == merged["turnover_restated"].tolist()


def test_the_champion_is_registered_with_its_origin_and_without_pickle(landed: Landed) -> None:
    registry = ModelRegistry(landed.settings.mlflow_path, landed.settings.panel_spec.name)
    facts = current(landed.settings.published_path).facts

    version = registry.champion_version()
    model = registry.load(version)

    assert version == facts["model"]["version"]
    assert model.versions["data_version"] == facts["data_version"]
    names = {path.name for path in landed.settings.mlflow_path.rglob("*") if path.is_file()}
    assert not [name for name in names if name.endswith((".pkl", ".pickle", ".joblib"))]
    assert {"model.json", "features.txt", "candidate_scores.csv"} <= names


def test_a_changed_model_file_is_not_loaded(copied: Landed) -> None:
    registry = ModelRegistry(copied.settings.mlflow_path, copied.settings.panel_spec.name)
    path = next(copied.settings.mlflow_path.rglob("model.json"))
    path.write_text(path.read_text().replace("features", "Features"))

    with pytest.raises(TurnoverError, match="missing or were changed"):
        registry.load(registry.champion_version())


def test_runs_show_in_the_dagster_instance_with_their_checks(landed: Landed) -> None:
    with dg.DagsterInstance.from_config(str(landed.settings.dagster_path)) as instance:
        runs = instance.get_runs()
        partitions = instance.get_materialized_partitions(dg.AssetKey(["raw", "landed_files"]))

    assert sorted(run.job_name for run in runs) == ["ingest", "retrain"]
    assert all(run.status == dg.DagsterRunStatus.SUCCESS for run in runs)
    assert len(partitions) == len(landed.outcome.landed)


def test_a_second_run_changes_nothing(landed: Landed) -> None:
    before = current(landed.settings.published_path).name

    outcome = bring_up_to_date(landed.settings, landed.folder, quiet)

    assert not outcome.changed
    assert current(landed.settings.published_path).name == before


@dataclass(frozen=True)
class Moved:
    """A home after a week in which a bad file came before a good one, whose first two rows are bad."""

    home: Landed
    old: Snapshot
    forecasts_before: bytes
    outcome: Outcome


@pytest.fixture(scope="module")
def moved(plain: Landed, tmp_path_factory: pytest.TempPathFactory) -> Moved:
    home = copy_home(plain, tmp_path_factory.mktemp("moved"))
    old = current(home.settings.published_path)
    before = old.path("forecasts").read_bytes()
    (home.folder / "a_bad.csv").write_bytes(b"")
    rows = next_week(home).splitlines()
    text_in_turnover = rows[1].rsplit(",", 1)[0] + ",a lot"
    bad_date = "2024-02-31" + rows[2][10:]
    good = [rows[0], text_in_turnover, bad_date, *rows[3:]]
    (home.folder / "b_good.csv").write_text("\n".join(good) + "\n")
    with pytest.MonkeyPatch.context() as patched:
        draw_nothing(patched)
        return Moved(home, old, before, bring_up_to_date(home.settings, home.folder, quiet))


def test_a_new_week_moves_the_cutoff_and_keeps_the_old_snapshot(moved: Moved) -> None:
    old, new = moved.old, current(moved.home.settings.published_path)

    assert moved.outcome.refreshed
    assert pd.Timestamp(new.facts["cutoff"]) - pd.Timestamp(old.facts["cutoff"]) == pd.Timedelta(days=7)
    assert old.path("forecasts").read_bytes() == moved.forecasts_before
    assert new.facts["model"]["version"] == old.facts["model"]["version"]


def test_a_bad_file_does_not_keep_the_good_ones_out(moved: Moved) -> None:
    rejected = current(moved.home.settings.published_path).read("rejected")

    fresh = rejected[rejected["file"] == "b_good.csv"]
    assert [record.name for record in moved.outcome.refused] == ["a_bad.csv"]
    assert [record.name for record in moved.outcome.accepted] == ["b_good.csv"]
    assert list(zip(fresh["line"], fresh["rule"], strict=True)) == [(2, "not_a_number"), (3, "not_a_date")]


BAD_FILES = {
    "truncated gzip": (
        "bad.csv.gz",
        gzip.compress((TURNOVER_HEADER + "2024-06-29,1,1,5\n" * 5000).encode())[:200],
        "truncated",
    ),
    "empty file": ("bad.csv", b"", "empty"),
    "missing column": (
        "bad.csv",
        b"day_id,but_num_business_unit,turnover\n2024-06-29,1,5\n",
        "dpt_num_department",
    ),
    "unknown kind": ("bad.csv", b"a,b\n1,2\n", "fits no known kind"),
}


@pytest.mark.parametrize(("name", "content", "reason"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_a_bad_file_is_refused_with_its_reason_and_nothing_else_changes(
    copied: Landed, name: str, content: bytes, reason: str
) -> None:
    before = current(copied.settings.published_path).name
    (copied.folder / name).write_bytes(content)

    outcome = bring_up_to_date(copied.settings, copied.folder, quiet)
    again = bring_up_to_date(copied.settings, copied.folder, quiet)

    assert [record.name for record in outcome.refused] == [name]
    assert reason in (outcome.refused[0].reason or "")
    assert not outcome.refreshed
    assert current(copied.settings.published_path).name == before
    assert not again.changed
    assert [record.name for record in again.refused_before] == [name]
    assert (copied.folder / name).read_bytes() == content


@pytest.mark.slow
def test_a_store_file_with_two_rows_for_one_store_counts_the_later_and_lists_the_earlier(
    copied: Landed,
) -> None:
    stores = (copied.folder / "stores.csv").read_text().splitlines()
    twice = stores[1].rsplit(",", 1)[0] + ",99"
    (copied.folder / "stores_2.csv").write_text("\n".join([stores[0], stores[1], twice]) + "\n")

    bring_up_to_date(copied.settings, copied.folder, quiet)

    rejected = current(copied.settings.published_path).read("rejected")
    found = rejected[rejected["file"] == "stores_2.csv"]
    assert found["rule"].tolist() == ["repeated_key"]
    assert found["line"].tolist() == [2]
    assert "line 3" in found["message"].iloc[0]


def test_a_panel_whose_column_no_file_has_names_the_column_and_the_files(tmp_path: Path) -> None:
    panel = tmp_path / "panel.toml"
    panel.write_text(
        'name = "other"\n[series]\nname = "sales"\nkeys = [{ name = "shop" }]\n'
        'time = { name = "week" }\ntarget = { name = "amount", column = "Umsatz" }\n'
    )
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "sales.csv").write_text("shop,week,amount\na,2024-01-01,1\n")

    with pytest.raises(NothingToForecastError, match=r"(?s)sales\.csv: .*Umsatz.*TURNOVER_PANEL"):
        bring_up_to_date(load_settings(home=tmp_path / "var", panel=panel), folder, quiet)


def test_a_history_shorter_than_the_horizon_says_how_much_is_needed(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "short.csv").write_text(TURNOVER_HEADER + "2024-06-22,1,1,5\n2024-06-29,1,1,5\n")

    with pytest.raises(TurnoverError, match="covers 2 periods, but 10 are needed"):
        bring_up_to_date(settings_for(tmp_path / "var"), folder, quiet)


def test_an_empty_landing_folder_says_where_was_looked_and_which_columns_are_expected(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()

    with pytest.raises(NothingToForecastError) as caught:
        bring_up_to_date(settings_for(tmp_path / "var"), folder, quiet)

    told = str(caught.value)
    assert f"no file in {folder} holds turnover. No file has landed: the folder is empty" in told
    assert "  - turnover: but_num_business_unit, dpt_num_department, day_id, turnover\n" in told
    assert "  - stores: but_num_business_unit, but_postcode, " in told
    assert "the default panel; TURNOVER_PANEL names another" in told


def test_a_folder_with_store_files_only_says_what_is_lacking(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    columns = settings_for(tmp_path / "var").panel_spec.tables["stores"].values()
    (folder / "stores.csv").write_text(f"{','.join(columns)}\n1,59000,50.6,3.0,1,1\n")

    with pytest.raises(NothingToForecastError, match=r"holds turnover\. The files in it are of other kinds"):
        bring_up_to_date(settings_for(tmp_path / "var"), folder, quiet)


def _run_in_process(home: Path, folder: Path, results: "multiprocessing.Queue[object]") -> None:
    try:
        outcome = bring_up_to_date(settings_for(home), folder, quiet)
        results.put((len(outcome.landed), outcome.refreshed))
    except Exception as error:  # noqa: BLE001  (the test looks at it)
        results.put(repr(error))


@pytest.mark.slow
def test_two_runs_at_once_share_the_work_without_an_error(copied: Landed) -> None:
    (copied.folder / "new.csv").write_text(next_week(copied))
    spawn = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue[object] = spawn.Queue()
    workers = [
        spawn.Process(target=_run_in_process, args=(copied.settings.home, copied.folder, results))
        for _ in range(2)
    ]

    for worker in workers:
        worker.start()
    reads = 0
    while any(worker.is_alive() for worker in workers):
        assert len(current(copied.settings.published_path).read("forecasts")) > 0  # an export meanwhile
        reads += 1
        time.sleep(0.05)

    assert sorted([results.get(), results.get()], key=str) == [(0, False), (1, True)]
    assert reads > 5
    files = current(copied.settings.published_path).read("files")
    assert (files["name"] == "new.csv").sum() == 1


@pytest.mark.slow
def test_a_killed_run_is_marked_failed_and_its_work_done_by_the_next(copied: Landed) -> None:
    (copied.folder / "new.csv").write_text(next_week(copied))
    before = current(copied.settings.published_path).name
    code = (
        "import os, signal; from pathlib import Path; from turnover_assets.runner import bring_up_to_date\n"
        "from turnover_assets.settings import load_settings\n"
        "def tell(news, text):\n"
        "    if (news, text) == ('start', 'forecast'): os.kill(os.getpid(), signal.SIGKILL)\n"
        f"settings = load_settings(home={str(copied.settings.home)!r}, **{QUICK})\n"
        f"bring_up_to_date(settings, Path({str(copied.folder)!r}), tell)"
    )

    killed = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    after_kill = current(copied.settings.published_path).name
    outcome = bring_up_to_date(copied.settings, copied.folder, quiet)

    assert killed.returncode == -signal.SIGKILL
    assert after_kill == before
    assert outcome.refreshed
    with dg.DagsterInstance.from_config(str(copied.settings.dagster_path)) as instance:
        statuses = [run.status for run in instance.get_runs()]
    assert statuses.count(dg.DagsterRunStatus.FAILURE) == 1
    assert dg.DagsterRunStatus.STARTED not in statuses


@pytest.fixture
def tiny_disk(copied: Landed) -> Iterator[Path]:
    """The published folder on a disk with room for the old snapshot and hardly more."""
    folder = copied.settings.published_path
    aside = folder.with_name("aside")
    folder.rename(aside)
    folder.mkdir()
    pages = sum(-(-path.stat().st_size // PAGE) for path in aside.rglob("*") if path.is_file())
    size = (2 * pages + 40) * PAGE  # another snapshot, too, once the filler is gone
    mounted = os.geteuid() == 0 and (
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)],
            check=False,
            capture_output=True,
        ).returncode
        == 0
    )
    if not mounted:
        pytest.skip("a small disk can be mounted by root only")
    shutil.copytree(aside, folder, dirs_exist_ok=True)
    (folder / "filler").write_bytes(b"\0" * (pages + 33) * PAGE)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
def test_a_full_disk_at_publishing_leaves_the_old_snapshot_current(copied: Landed, tiny_disk: Path) -> None:
    before = current(tiny_disk).name
    (copied.folder / "new.csv").write_text(next_week(copied))

    with pytest.raises(TurnoverError, match=r"No space left|stays current"):
        bring_up_to_date(copied.settings, copied.folder, quiet)

    assert current(tiny_disk).name == before
    assert len(current(tiny_disk).read("forecasts")) > 0
    assert not [path for path in tiny_disk.iterdir() if path.name.startswith(".partial")]
    (tiny_disk / "filler").unlink()
    assert bring_up_to_date(copied.settings, copied.folder, quiet).refreshed


# What is odd but happens


@pytest.mark.slow
def test_a_lone_row_ahead_of_all_others_does_not_move_the_cutoff(copied: Landed) -> None:
    before = current(copied.settings.published_path)
    last = pd.Timestamp(before.facts["cutoff"])
    row = next_week(copied).splitlines()[1]
    lone = str((last + pd.Timedelta(days=9 * 7)).date()) + row[10:]
    (copied.folder / "zz.csv").write_text(TURNOVER_HEADER + lone + "\n")

    outcome = bring_up_to_date(copied.settings, copied.folder, quiet)

    after = current(copied.settings.published_path)
    assert outcome.refreshed
    assert after.facts["cutoff"] == before.facts["cutoff"]
    assert after.facts["series"] == before.facts["series"]
    assert str(after.read("turnover")["week"].max()) == lone[:10]


@pytest.mark.slow
def test_after_a_closure_of_everything_models_are_compared_before_it(copied: Landed) -> None:
    home, folder = copied.folder.parent / "other", copied.folder.parent / "gap"
    folder.mkdir()
    history = copied.retailer.turnover
    weeks = sorted(history["day_id"].unique())
    history[~history["day_id"].isin(weeks[-14:-2])].to_csv(folder / "turnover.csv", index=False)

    outcome = bring_up_to_date(settings_for(home), folder, quiet)

    assert outcome.snapshot is not None
    assert outcome.snapshot.facts["cutoff"] == weeks[-1]
    assert outcome.snapshot.read("accuracy")["scored_rows"].min() > 0


@pytest.mark.slow
def test_a_retailer_that_sold_nothing_is_forecast_without_a_wape(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    weeks = pd.date_range("2022-01-01", periods=80, freq="7D").date
    (folder / "zeros.csv").write_text(TURNOVER_HEADER + "".join(f"{week},1,1,0\n" for week in weeks))

    outcome = bring_up_to_date(settings_for(tmp_path / "var"), folder, quiet)

    assert outcome.snapshot is not None
    assert outcome.snapshot.read("forecasts")["forecast"].eq(0).all()


@pytest.mark.slow
def test_what_the_platform_writes_does_not_land(copied: Landed) -> None:
    root = copied.folder.parent
    folder = root / "outer"
    folder.mkdir()
    shutil.move(str(copied.settings.home), folder / "var")
    (folder / "new.csv").write_text(next_week(copied))

    outcome = bring_up_to_date(settings_for(folder / "var"), folder, quiet)
    again = bring_up_to_date(settings_for(folder / "var"), folder, quiet)

    assert [record.name for record in outcome.landed] == ["new.csv"]
    assert not again.changed


def test_a_home_is_not_shared_by_two_panels(copied: Landed, tmp_path: Path) -> None:
    panel = tmp_path / "panel.toml"
    panel.write_text(
        'name = "other"\n[series]\nname = "sales"\nkeys = [{ name = "shop" }]\n'
        'time = { name = "week" }\ntarget = { name = "amount" }\n'
    )

    with pytest.raises(TurnoverError, match=r"(?s)'other' is not the one .*stores: the table is gone"):
        bring_up_to_date(load_settings(home=copied.settings.home, panel=panel), copied.folder, quiet)


@pytest.mark.slow
def test_a_snapshot_that_lost_a_file_is_published_again(copied: Landed) -> None:
    broken = current(copied.settings.published_path)
    broken.path("forecasts").unlink()

    with pytest.raises(NoSnapshotError, match=r"forecasts\.parquet"):
        current(copied.settings.published_path)
    outcome = bring_up_to_date(copied.settings, copied.folder, quiet)

    assert outcome.refreshed
    assert current(copied.settings.published_path).name != broken.name


def test_a_relative_landing_folder_is_the_same_folder(
    copied: Landed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(copied.folder.parent)
    (copied.folder / "bad.csv").symlink_to("/proc/self/mem")

    outcome = bring_up_to_date(copied.settings, Path(copied.folder.name), quiet)

    assert [record.name for record in outcome.refused] == ["bad.csv"]
