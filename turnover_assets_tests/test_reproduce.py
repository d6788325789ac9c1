"""Reproducing: from the kept files to the same model and forecasts, or told in what they differ."""

import json
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from turnover_assets.cli import app
from turnover_assets.core.intervals import Intervals
from turnover_assets.core.models import CANDIDATES, Blend, Rows
from turnover_assets.core.models.histogram import HistogramBoosting
from turnover_assets.core.samples import sample_files
from turnover_assets.core.synthetic import Retailer, make_retailer
from turnover_assets.errors import TurnoverError, UnknownNameError
from turnover_assets.runner import bring_up_to_date
from turnover_assets.storage.comparison import compare_snapshots, comparing
from turnover_assets.storage.kept import kept_files
from turnover_assets.storage.registry import ModelRegistry, TrainedModel, TrainingRecord
from turnover_assets.storage.reproduce import Comparison, Reproduction, compare_files, reproduce
from turnover_assets.storage.snapshots import FACTS, Snapshot, current
from turnover_assets_tests.factories import Landed, next_week, quiet, settings_for

NOTHING_LOGGED = TrainingRecord({}, {}, {}, {}, {})


def registry_of(home: Landed) -> ModelRegistry:
    return ModelRegistry(home.settings.mlflow_path, home.settings.panel_spec.name)


def reproduced(home: Landed, version: int = 1) -> Reproduction:
    return reproduce(registry_of(home), version, home.settings)


def register(home: Landed, change: Callable[[TrainedModel], TrainedModel]) -> int:
    """The champion once more, with something changed; gives its version."""
    registry = registry_of(home)
    return registry.register(change(registry.load(registry.champion_version())), NOTHING_LOGGED)


def differing(done: Reproduction) -> list[str]:
    return [found.what for found in done.comparisons if not found.same]


def everything_in(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def a_kept_file(home: Landed) -> Path:
    kept = kept_files(home.settings.home)
    return kept.path(kept.records()[-1]["digest"])


# What is the same


@pytest.mark.slow
def test_a_blend_that_is_champion_is_made_again_bit_for_bit_with_the_settings_of_its_training(
    landed: Landed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TURNOVER_HOME", str(landed.settings.home))
    monkeypatch.setenv("TURNOVER_THREADS", str(landed.settings.threads))
    blend = registry_of(landed).load(1).candidate
    assert isinstance(blend, Blend)
    before = everything_in(landed.settings.home)

    result = CliRunner().invoke(app, ["reproduce"])

    assert result.exit_code == 0, result.output
    title, *lines, last = result.stdout.splitlines()
    assert title == "Model version 1, made again from the kept files:"
    assert [line.split(":")[0].split(" of ")[0] for line in lines] == [
        "  same     landed files",
        "  same     cleaned data",
        "  same     scores",
        "  same     model",
        "  same     forecasts",
    ]
    assert f"{len(CANDIDATES)} candidates" in lines[2]
    folder = registry_of(landed).files(1)
    of_components = [path for name in blend.components for path in (folder / name).rglob("*")]
    assert len(of_components) >= 2
    assert all(path.relative_to(folder).as_posix() in lines[3] for path in of_components)
    assert last == "Everything is the same."
    assert everything_in(landed.settings.home) == before


@pytest.mark.slow
def test_an_older_version_is_made_again_without_the_warehouse_after_more_has_landed(copied: Landed) -> None:
    told = []

    def change_the_ledger_late(news: str, text: str) -> None:
        told.append(text)
        if (news, text) == ("start", "model / challenger"):
            copied.settings.ledger_path.write_text("# looked at\n")

    (copied.folder / "next.csv").write_text(next_week(copied))
    bring_up_to_date(copied.settings, copied.folder, change_the_ledger_late, retrain=True)
    copied.settings.warehouse_path.unlink()

    done = reproduced(copied, 1)

    assert (differing(done), done.surroundings) == ([], ())
    assert done.comparisons[-1].what.startswith("forecasts of ")
    newest = current(copied.settings.published_path).name
    assert done.notes == (f"snapshot {newest} was forecast with it from other data, so it is not compared",)
    # Of the newer one it is known that it was made with a ledger that is no longer there.
    assert any(text.startswith("The ledger was changed while this run was under way") for text in told)
    with pytest.raises(
        TurnoverError, match=r"not recorded what model version 2 was made from.*`turnover run`"
    ):
        reproduced(copied, 2)


@pytest.mark.slow
def test_two_homes_whose_files_landed_in_another_order_forecast_the_same(tmp_path: Path) -> None:
    retailer = make_retailer(stores=6, departments=2, weeks=125, seed=5)

    one, two = (
        published(tmp_path / order, retailer, order == "backward") for order in ("forward", "backward")
    )

    settings = settings_for(tmp_path / "forward" / "var")
    with comparing(settings) as con:
        found = compare_snapshots(con, settings.panel_spec, one, two)
    assert [name for name, table in found.tables.items() if not table.equal] == ["files"]
    assert found.tables["files"].changed_by_column.keys() >= {"file_no", "name"}
    assert set(one.read("accuracy")["model"]) == {candidate.name for candidate in CANDIDATES}
    assert one.path("forecasts").read_bytes() == two.path("forecasts").read_bytes()


def published(root: Path, retailer: Retailer, backward: bool) -> Snapshot:
    """Land a retailer's files, in the order of their names or the other way round, and publish."""
    files = sample_files(retailer, recent_weeks=3, defects=False, seed=5).files
    folder = root / "files"
    folder.mkdir(parents=True)
    for number, file in enumerate(reversed(files) if backward else files):
        (folder / f"{number}_{file.name}").write_bytes(file.content)
    bring_up_to_date(settings_for(root / "var", 0.3), folder, quiet)
    return current(root / "var" / "published")


# What differs


def test_whatever_is_not_as_recorded_is_told(copied: Landed) -> None:
    def changed(model: TrainedModel) -> TrainedModel:
        assert model.origin is not None
        return replace(
            model,
            versions={**model.versions, "data_version": "0123456789abcdef"},
            origin=replace(model.origin, scores={"seasonal_naive": 0.5, "seasonal_naive_growth": 0.25}),
            intervals=Intervals(model.intervals.quantiles * 1.000001),
        )

    done = reproduced(copied, register(copied, changed))

    assert differing(done) == ["cleaned data", "scores", "model"]
    landed, data, scores, model = done.comparisons
    assert landed.same
    assert "recorded 0123456789abcdef, now " in data.figures
    assert "WAPE of seasonal_naive recorded 0.5, now 0." in scores.figures
    assert model.figures == "model.json: another content"
    where = copied.settings.published_path
    assert done.notes == (
        f"no snapshot in {where} is of this version and data, so forecasts are not compared",
    )


def test_a_single_published_value_that_differs_is_told(copied: Landed) -> None:
    snapshot = current(copied.settings.published_path)
    path, facts = snapshot.path("forecasts"), snapshot.folder / FACTS
    table = pd.read_parquet(path)
    table.loc[3, "upper_80"] = np.nextafter(table.loc[3, "upper_80"], np.inf)
    table.to_parquet(path)
    told = json.loads(facts.read_text())
    told["tables"]["forecasts"]["bytes"] = path.stat().st_size
    facts.write_text(json.dumps(told))

    done = reproduced(copied)

    assert differing(done) == [f"forecasts of {snapshot.name}"]
    assert "1 changed (upper_80 in 1)" in done.comparisons[-1].figures


def test_a_snapshot_that_the_model_made_from_other_data_is_not_compared(copied: Landed) -> None:
    snapshot = current(copied.settings.published_path)
    told = json.loads((snapshot.folder / FACTS).read_text())
    (snapshot.folder / FACTS).write_text(json.dumps(told | {"data_version": "another"}))

    done = reproduced(copied)

    assert (differing(done), len(done.comparisons)) == ([], 4)
    assert done.notes[0].startswith(f"snapshot {snapshot.name} was forecast with it from other data")


def test_what_else_has_changed_since_the_training_is_the_likely_reason(
    copied: Landed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changed(model: TrainedModel) -> TrainedModel:
        assert model.origin is not None
        libraries = {**model.origin.libraries, "xgboost": "0.90"}
        versions = {**model.versions, "code_version": "0.0.1", "landed_version": "of old"}
        return replace(model, versions=versions, origin=replace(model.origin, libraries=libraries))

    version = register(copied, changed)
    monkeypatch.setenv("TURNOVER_HOME", str(copied.settings.home))
    monkeypatch.setenv("TURNOVER_THREADS", "3")

    result = CliRunner().invoke(app, ["reproduce", str(version)])

    assert result.exit_code == 1
    assert "  differs  landed files: 7 files, recorded of old, now " in result.stdout
    assert "Note: trained by release 0.0.1; this is " in result.stdout
    assert "Note: trained with xgboost 0.90; here is " in result.stdout
    assert "Note: trained, and made again, with threads = 1; the setting is now 3" in result.stdout
    assert "Not everything is the same; the likely reason is: trained by release 0.0.1" in result.stdout


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[str, int], Path]:
    """Fit histogram boosting on what a seed draws and save it; gives the folder."""

    def save(name: str, seed: int) -> Path:
        rng = np.random.default_rng(seed)
        identity = pd.DataFrame(
            {"scale": np.ones(400), "cutoff": 0, "horizon": 1, "actual": rng.normal(size=400)}
        )
        rows = Rows(identity, rng.normal(size=(400, 2)).astype(np.float32), ("one", "two"))
        quantiles = pd.DataFrame({"lower_80": [0.0]}, index=pd.Index([1], name="horizon"))
        (tmp_path / name).mkdir()
        fitted = HistogramBoosting().fit(rows, seed=1, threads=1)
        TrainedModel(fitted, Intervals(quantiles), rows.names, {}).save(tmp_path / name)
        return tmp_path / name

    return save


def test_a_file_that_holds_the_time_of_writing_is_compared_by_its_values(
    saved: Callable[[str, int], Path],
) -> None:
    one, same, other = saved("one", 1), saved("same", 1), saved("other", 2)
    assert (one / "model.skops").read_bytes() != (same / "model.skops").read_bytes()

    assert compare_files(one, same) == Comparison(
        "model",
        same=True,
        figures="features.json, model.json, parameters.json: byte for byte; "
        "model.skops: value for value (it holds the time)",
    )
    assert compare_files(one, other) == Comparison("model", False, "model.skops: another content")


# What cannot be made again


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        pytest.param(lambda path: path.write_bytes(path.read_bytes() + b"\n"), "damaged", id="changed"),
        pytest.param(lambda path: path.unlink(), "not there", id="missing"),
    ],
)
def test_kept_files_that_are_not_as_they_were_are_named(
    copied: Landed, spoil: Callable[[Path], object], problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = a_kept_file(copied)
    path.chmod(0o644)
    spoil(path)
    monkeypatch.setenv("TURNOVER_HOME", str(copied.settings.home))

    result = CliRunner().invoke(app, ["reproduce", "1"])

    assert result.exit_code == 1
    name = kept_files(copied.settings.home).records()[-1]["name"]
    assert f"  - {name}: {path} is {problem}\n" in result.stderr


def test_files_that_the_journal_lacks_are_all_named(copied: Landed) -> None:
    for record in sorted((copied.settings.home / "raw" / "journal").iterdir())[:2]:
        record.unlink()

    with pytest.raises(
        TurnoverError, match=r"(?s)- file 1, .*does not have it\n.*- file 2, .*does not have it"
    ):
        reproduced(copied)


def test_an_unknown_version_is_refused_with_those_there_are(copied: Landed) -> None:
    with pytest.raises(UnknownNameError, match=r"no model version named '7'\. Available: 1"):
        reproduced(copied, 7)


def test_a_home_without_models_is_refused_and_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TURNOVER_HOME", str(tmp_path / "var"))

    result = CliRunner().invoke(app, ["reproduce"])

    assert result.exit_code == 1
    assert "There are no models in " in result.stderr
    assert not (tmp_path / "var").exists()
