"""The champion inside a snapshot: its files, their digests, golden rows, and what a server makes of them."""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import duckdb
import numpy as np
import pandas as pd
import pytest

from turnover_assets.core.features import LATER_FACTS, feature_names
from turnover_assets.core.golden import FIGURES, SERIES, TOLERANCE
from turnover_assets.defs import forecasts
from turnover_assets.errors import ModelRefusedError, TurnoverError
from turnover_assets.serving.champion import Champion, Champions
from turnover_assets.storage.published_model import GOLDEN, MODEL_FOLDER, PublishedModel
from turnover_assets.storage.registry import ModelRegistry
from turnover_assets.storage.snapshots import FACTS, Snapshot, current, read_snapshot
from turnover_assets_tests.api_factories import model_of, publish
from turnover_assets_tests.factories import Landed, default_history, default_panel
from turnover_assets_tests.what_if_factories import Published, publish_panel

PANEL = default_panel()
ROUNDING = 1e-3  # of a scale, far above what another processor adds


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Published:
    """A snapshot with a small model; tests change copies of it."""
    return publish_panel(tmp_path_factory.mktemp("made"), PANEL, default_history())


@pytest.fixture
def copied_snapshot(made: Published, tmp_path: Path) -> Snapshot:
    """The same in a folder of one's own."""
    shutil.copytree(made.snapshot.folder, tmp_path / made.snapshot.name)
    return read_snapshot(tmp_path, made.snapshot.name)


def golden_of(snapshot: Snapshot) -> pd.DataFrame:
    return pd.read_parquet(snapshot.folder / MODEL_FOLDER / GOLDEN)


# What is published -------------------------------------------------------------------------------


def test_the_pipeline_publishes_the_champions_files_with_their_digests(plain: Landed) -> None:
    snapshot = current(plain.settings.published_path)
    folder = snapshot.folder / MODEL_FOLDER

    noted = snapshot.facts["model"]["files"]

    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    assert set(noted) == set(found) >= {"model.json", GOLDEN}
    for name, path in found.items():
        content = path.read_bytes()
        assert noted[name] == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    registered = ModelRegistry(plain.settings.mlflow_path, PANEL.name).files(
        snapshot.facts["model"]["version"]
    )
    assert (registered / "origin").is_dir()
    assert not (folder / "origin").exists()
    assert (folder / "model.json").read_bytes() == (registered / "model.json").read_bytes()


def test_a_published_blend_is_loaded_and_forecasts_what_was_published(landed: Landed) -> None:
    snapshot = current(landed.settings.published_path)

    champion = Champion.load(snapshot, PANEL)

    assert champion.name == "blend"
    assert champion.version == snapshot.facts["model"]["version"]
    assert {"mean_4", "year_ago_same"} <= champion.used_features
    assert not list(snapshot.folder.rglob("*.pkl"))


def test_golden_rows_are_all_rows_of_series_of_every_size(plain: Landed) -> None:
    snapshot = current(plain.settings.published_path)

    golden = golden_of(snapshot)

    on = [*PANEL.keys, "horizon"]
    published = golden[on].merge(snapshot.read("forecasts"), on=on)
    np.testing.assert_array_equal(published[list(FIGURES)], golden[list(FIGURES)])
    assert golden.groupby(list(PANEL.keys)).size().tolist() == [PANEL.horizon] * SERIES
    scales = golden.groupby("series_id")["scale"].first()
    assert scales.max() > 2 * scales.min()
    assert set(feature_names(PANEL)) <= set(golden.columns)


def test_what_training_has_seen_is_published(plain: Landed) -> None:
    ranges = current(plain.settings.published_path).read("feature_ranges").set_index("feature")

    assert list(ranges.index) == feature_names(PANEL)
    assert (ranges["low"] <= ranges["high"]).sum() > len(ranges) / 2
    assert (ranges.loc["horizon_ahead", ["low", "high"]] == [1.0, float(PANEL.horizon)]).all()


def test_an_unchanged_file_takes_no_room_again(made: Published, copied_snapshot: Snapshot) -> None:
    (copied_snapshot.folder.parent / "CURRENT").write_text(f"{copied_snapshot.name}\n")
    before = {path: path.read_bytes() for path in copied_snapshot.folder.rglob("*") if path.is_file()}
    model = model_of(made.snapshot)
    assert model is not None
    other = PublishedModel(model.files, model.golden.assign(forecast=1.0))

    folder = copied_snapshot.folder.parent / "new"
    folder.mkdir()
    noted = other.write(folder, copied_snapshot.folder)

    same = [
        name
        for name in noted
        if (folder / MODEL_FOLDER / name).samefile(copied_snapshot.folder / MODEL_FOLDER / name)
    ]
    assert set(same) == set(noted) - {GOLDEN}
    assert {
        path: path.read_bytes() for path in before
    } == before  # what is written is never what is linked to


def test_a_registry_without_the_files_holds_up_nothing_but_questions(
    con: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(_registry: ModelRegistry, version: int) -> Path:
        raise TurnoverError(f"The files of model version {version} are missing.")

    monkeypatch.setattr(ModelRegistry, "files", lost)
    con.execute(f"CREATE TABLE {forecasts.MODEL} AS SELECT 3 AS version")
    context = dg.build_asset_context()

    found = forecasts.published_model(context, con, PANEL, ModelRegistry(Path("nowhere"), PANEL.name))

    assert found is None


# What a server makes of it -----------------------------------------------------------------------


def truncate(snapshot: Snapshot) -> None:
    path = snapshot.folder / MODEL_FOLDER / "model.ubj"
    path.write_bytes(path.read_bytes()[:-1])


def flip_a_bit(snapshot: Snapshot) -> None:
    path = snapshot.folder / MODEL_FOLDER / "model.ubj"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def remove(snapshot: Snapshot) -> None:
    (snapshot.folder / MODEL_FOLDER / "model.ubj").unlink()


def remove_all(snapshot: Snapshot) -> None:
    shutil.rmtree(snapshot.folder / MODEL_FOLDER)


def add(snapshot: Snapshot) -> None:
    (snapshot.folder / MODEL_FOLDER / "origin").mkdir()
    (snapshot.folder / MODEL_FOLDER / "origin" / "panel.json").write_text("{}")


DAMAGES: dict[str, tuple[Callable[[Snapshot], None], str]] = {
    "a truncated file": (truncate, "not those that were published: model.ubj"),
    "a flipped bit": (flip_a_bit, "not those that were published: model.ubj"),
    "a missing file": (remove, "not those that were published: model.ubj"),
    "a missing folder": (remove_all, "not those that were published: golden.parquet"),
    "a file that nobody published": (add, "not those that were published: origin/panel.json"),
}


@pytest.mark.parametrize(("damage", "told"), DAMAGES.values(), ids=DAMAGES.keys())
def test_a_model_that_is_not_as_it_was_published_is_refused(
    copied_snapshot: Snapshot, damage: Callable[[Snapshot], None], told: str
) -> None:
    damage(copied_snapshot)

    with pytest.raises(ModelRefusedError, match=told):
        Champion.load(copied_snapshot, PANEL)


def rewritten(snapshot: Snapshot, name: str, content: bytes) -> Snapshot:
    """The same snapshot with another file of its model, as if it had been published so."""
    (snapshot.folder / MODEL_FOLDER / name).write_bytes(content)
    facts = json.loads((snapshot.folder / FACTS).read_text("utf-8"))
    digest = hashlib.sha256(content).hexdigest()
    facts["model"]["files"][name] = {"bytes": len(content), "sha256": digest}
    (snapshot.folder / FACTS).write_text(json.dumps(facts))
    return read_snapshot(snapshot.folder.parent, snapshot.name)


def with_golden(snapshot: Snapshot, golden: pd.DataFrame) -> Snapshot:
    path = snapshot.folder / "other.parquet"
    golden.to_parquet(path)
    return rewritten(snapshot, GOLDEN, path.read_bytes())


@pytest.mark.parametrize("figure", FIGURES)
def test_a_model_that_forecasts_golden_rows_otherwise_is_refused(
    copied_snapshot: Snapshot, figure: str
) -> None:
    golden = golden_of(copied_snapshot)
    golden.loc[3, figure] += ROUNDING * golden.loc[3, "scale"]

    with pytest.raises(ModelRefusedError, match="golden rows are not those that were published"):
        Champion.load(with_golden(copied_snapshot, golden), PANEL)


def test_golden_rows_of_an_earlier_release_are_read(copied_snapshot: Snapshot) -> None:
    """It wrote no `season_error`, and its intervals did not depend on it."""
    golden = golden_of(copied_snapshot).drop(columns=list(LATER_FACTS))

    assert Champion.load(with_golden(copied_snapshot, golden), PANEL).version == 1


def test_rounding_does_not_refuse_a_model(copied_snapshot: Snapshot) -> None:
    golden = golden_of(copied_snapshot)
    golden["forecast"] += 0.5 * TOLERANCE * golden["scale"]

    assert Champion.load(with_golden(copied_snapshot, golden), PANEL).version == 1


@pytest.mark.parametrize("without", ["mean_4", "forecast", "every row"])
def test_golden_rows_that_say_nothing_refuse_a_model(copied_snapshot: Snapshot, without: str) -> None:
    golden = golden_of(copied_snapshot)
    golden = golden.iloc[:0] if without == "every row" else golden.drop(columns=without)

    with pytest.raises(ModelRefusedError, match="not rows of this model"):
        Champion.load(with_golden(copied_snapshot, golden), PANEL)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"candidate": "a newer one"}'])
def test_a_model_that_this_release_cannot_read_is_refused(copied_snapshot: Snapshot, content: bytes) -> None:
    with pytest.raises(ModelRefusedError, match="cannot be read by this release"):
        Champion.load(rewritten(copied_snapshot, "model.json", content), PANEL)


def test_a_model_of_other_features_is_refused(copied_snapshot: Snapshot) -> None:
    facts = json.loads((copied_snapshot.folder / MODEL_FOLDER / "model.json").read_text("utf-8"))
    facts["features"] = [name for name in facts["features"] if name != "mean_4"]

    with pytest.raises(ModelRefusedError, match="mean_4"):
        Champion.load(rewritten(copied_snapshot, "model.json", json.dumps(facts).encode()), PANEL)


def test_a_snapshot_of_an_earlier_release_has_no_model(copied_snapshot: Snapshot) -> None:
    facts = {**copied_snapshot.facts, "model": {"version": 1, "candidate": "xgboost"}}

    with pytest.raises(ModelRefusedError, match="without its model's files"):
        Champion.load(Snapshot(copied_snapshot.folder, facts), PANEL)


def test_the_last_good_champion_goes_on_until_there_is_another(
    made: Published, copied_snapshot: Snapshot
) -> None:
    champions = Champions(PANEL)
    flip_a_bit(copied_snapshot)

    none = champions.take(copied_snapshot)
    first = champions.take(made.snapshot)
    refused = champions.take(copied_snapshot)
    told = {metric.name: metric.samples[0].value for metric in champions.collect()}
    again = champions.take(made.snapshot)

    assert none.champion is None
    assert "no model answers" in none.problem
    assert first.champion is not None
    assert first.problem == again.problem == champions.problem == ""
    assert refused.champion is first.champion
    assert "version 1 answers instead: these of its files" in refused.problem
    assert told == {"turnover_api_model_problem": 1.0, "turnover_api_model_version": 1.0}


def test_nothing_of_mlflow_is_loaded_to_forecast(made: Published) -> None:
    code = (
        "import sys; from pathlib import Path; from turnover_assets.panel import default_panel; "
        "from turnover_assets.serving.champion import Champion; "
        "from turnover_assets.storage.snapshots import read_snapshot; "
        f"made = read_snapshot(Path({str(made.snapshot.folder.parent)!r}), {made.snapshot.name!r}); "
        "Champion.load(made, default_panel()); print(sorted({'mlflow', 'dagster'} & set(sys.modules)))"
    )

    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert found.stdout.strip() == "[]"


def test_a_snapshot_published_again_keeps_its_model(made: Published, tmp_path: Path) -> None:
    again = publish(tmp_path, made.snapshot)

    assert Champion.load(again, PANEL).version == 1
