"""The registry: versions, aliases, decisions and history in a real MLflow store."""

import dataclasses
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from mlflow import MlflowClient

from turnover_assets.core.features import feature_names
from turnover_assets.core.gate import Decision
from turnover_assets.core.models.naive import SeasonalNaive
from turnover_assets.errors import TurnoverError, UnknownNameError
from turnover_assets.storage import _mlflow
from turnover_assets.storage.registry import CHALLENGER, CHAMPION, GATE, ModelRegistry, TrainedModel
from turnover_assets_tests.factories import default_panel, make_panel
from turnover_assets_tests.model_factories import make_model, make_registry, make_training_record


def decided(*reasons: str, promoted: bool) -> Decision:
    """What a gate hands over."""
    checks = pd.DataFrame({"check": ["margin", "bias"], "passed": [True, promoted]})
    return Decision(
        promoted,
        reasons or ("It is better by 3 %.",),
        (),
        {"region=7": 0.1, "challenger_wape": 0.2, "challenger_coverage_95": 0.96},
        checks,
    )


@pytest.fixture
def empty(tmp_path: Path) -> ModelRegistry:
    """A registry without a version."""
    return make_registry(tmp_path / "mlflow")


@pytest.fixture
def registry(tmp_path: Path) -> ModelRegistry:
    """A registry with versions 1 to 4 and no champion."""
    return make_registry(tmp_path / "mlflow", versions=4)


def client_of(registry: ModelRegistry) -> MlflowClient:
    return _mlflow.connect(registry.folder, must_exist=True)


def aliases(registry: ModelRegistry) -> dict[str, int]:
    found = client_of(registry).get_registered_model(registry.name).aliases
    return {alias: int(version) for alias, version in found.items()}


# Registering


def test_a_version_is_registered_with_its_figures_parameters_tags_and_files(empty: ModelRegistry) -> None:
    model = make_model()

    version = empty.register(model, make_training_record())

    found = empty.details(version)
    assert found.metrics == {"wape": 0.15, "bias": -0.01, "coverage_80": 0.79}
    assert found.parameters == {"seed": "1", **model.versions}
    loaded = empty.load(version)
    assert (loaded.features, dict(loaded.versions)) == (model.features, dict(model.versions))
    kept = {path.name for path in empty.files(version).parent.iterdir()}
    assert kept == {"model", "features.txt", "scores.csv", "scores.png"}


def test_more_figures_than_one_call_takes_are_all_kept(empty: ModelRegistry) -> None:
    many = dataclasses.replace(
        make_training_record(),
        metrics={f"m{n}": float(n) for n in range(905)},
        parameters={f"p{n}": n for n in range(105)},
    )

    version = empty.register(make_model(), many)

    found = empty.details(version)
    assert found.metrics == many.metrics
    assert {name: found.parameters[name] for name in many.parameters} == {f"p{n}": str(n) for n in range(105)}


def test_a_version_that_cannot_be_written_leaves_a_failed_run_and_no_version(empty: ModelRegistry) -> None:
    broken = dataclasses.replace(make_training_record(), tables={"no/such/folder": pd.DataFrame()})

    with pytest.raises(OSError, match="no/such"):
        empty.register(make_model(), broken)

    client = client_of(empty)
    experiment = client.get_experiment_by_name(empty.name)
    assert experiment is not None
    assert [run.info.status for run in client.search_runs([experiment.experiment_id])] == ["FAILED"]
    assert empty.versions() == []


def test_what_a_killed_process_or_the_page_left_half_is_made_whole(empty: ModelRegistry) -> None:
    client = _mlflow.connect(empty.folder)
    client.create_registered_model(empty.name)  # killed before it made the experiment
    empty.register(make_model(), make_training_record())
    experiment = client.get_experiment_by_name(empty.name)
    assert experiment is not None
    client.delete_experiment(experiment.experiment_id)

    empty.register(make_model(), make_training_record())

    assert [facts.wape for facts in empty.versions()] == [0.15, 0.15]


def test_a_home_that_was_moved_goes_on_with_its_versions(registry: ModelRegistry, tmp_path: Path) -> None:
    moved = ModelRegistry(tmp_path / "elsewhere" / "mlflow", registry.name)
    shutil.copytree(registry.folder, moved.folder)
    shutil.rmtree(registry.folder)

    version = moved.register(make_model(), make_training_record())
    moved.record_decision(4, decided(promoted=True))

    assert [facts.wape for facts in moved.versions()] == [0.15] * version
    assert moved.details(4).checks is not None
    assert moved.load(moved.champion_version()).features == make_model().features
    assert not registry.folder.exists()


@pytest.mark.parametrize("name", ["it's größer", 'the "north"'], ids=["'", '"'])
def test_any_name_of_a_panel_will_do(empty: ModelRegistry, name: str) -> None:
    registry = dataclasses.replace(empty, name=name)

    version = registry.register(make_model(), make_training_record())

    assert [facts.version for facts in registry.versions()] == [version]


# The champion


def test_rollback_after_rollback_goes_further_back_until_there_is_none(registry: ModelRegistry) -> None:
    for version in (1, 2, 3):
        registry.promote(version)

    found = [registry.rollback(by="anna", reason="worse in shops") for _ in range(2)]

    assert found == [2, 1]
    assert registry.champion_version() == 1
    with pytest.raises(TurnoverError, match=r"no champion before version 1 .*turnover models promote"):
        registry.rollback(by="anna", reason="still worse")


def test_who_promoted_what_when_and_why_can_be_read_from_the_list(registry: ModelRegistry) -> None:
    registry.record_decision(1, decided(promoted=True))
    registry.promote(3, by="anna", reason="for the trial")
    registry.rollback(by="bert", reason="the trial is over")

    first, second, third, _ = registry.versions()

    assert (first.aliases, first.promoted_by, first.promotion_reason) == (
        (CHAMPION,),
        "bert",
        "the trial is over",
    )
    assert first.champion_until is None
    assert (second.aliases, second.champion_since, second.promoted_by) == ((), None, "")
    assert (third.promoted_by, third.champion_until) == ("anna", first.champion_since)
    assert [change.by for change in registry.details(1).changes] == [GATE, "bert"]


def test_promoting_the_champion_again_changes_nothing(registry: ModelRegistry) -> None:
    registry.promote(1)
    registry.promote(2)
    registry.promote(2)

    assert registry.rollback(by="anna", reason="") == 1


def test_an_unknown_version_is_refused_with_those_there_are(registry: ModelRegistry) -> None:
    for change in (registry.promote, registry.files, registry.details):
        with pytest.raises(UnknownNameError, match=r"no model version named '7'\. Available: 1, 2, 3, 4"):
            change(7)


def test_champions_of_a_release_without_a_log_can_be_gone_back_to(registry: ModelRegistry) -> None:
    client_of(registry).set_registered_model_alias(registry.name, CHAMPION, "3")

    assert [change.version for change in registry.details(2).changes] == [2]
    assert registry.rollback(by="anna", reason="") == 2
    assert registry.rollback(by="anna", reason="") == 1


@pytest.mark.parametrize(
    ("moved", "back"), [("3", 2), ("1", None)], ids=["to a new one", "to an earlier one"]
)
def test_an_alias_moved_in_the_page_is_taken_up(
    registry: ModelRegistry, moved: str, back: int | None
) -> None:
    registry.promote(1)
    registry.promote(2)
    client_of(registry).set_registered_model_alias(registry.name, CHAMPION, moved)

    if back:
        assert registry.rollback(by="anna", reason="") == back
    else:
        with pytest.raises(TurnoverError, match="no champion before version 1"):
            registry.rollback(by="anna", reason="")


def test_where_versions_were_deleted_the_newest_one_left_is_gone_back_to(registry: ModelRegistry) -> None:
    for version in (1, 2, 3, 4):
        registry.promote(version)
    for version in ("4", "2"):
        client_of(registry).delete_model_version(registry.name, version)

    assert registry.find_champion() is None
    assert registry.rollback(by="anna", reason="") == 3
    assert registry.rollback(by="anna", reason="") == 1


def test_without_models_or_champion_it_is_said_what_to_do(empty: ModelRegistry, tmp_path: Path) -> None:
    with pytest.raises(TurnoverError, match=r"no models in .*nowhere yet\. Run `turnover run`"):
        ModelRegistry(tmp_path / "nowhere", empty.name).versions()
    with pytest.raises(TurnoverError, match=r"no models of 'retail-case-study' yet\. Run `turnover run`"):
        empty.versions()
    empty.register(make_model(), make_training_record())
    with pytest.raises(TurnoverError, match=r"no champion among .*Run `turnover run`"):
        empty.champion_version()
    with pytest.raises(TurnoverError, match="no champion before now"):
        empty.rollback_target()


# Decisions


def test_a_refused_version_becomes_challenger_and_says_why(registry: ModelRegistry) -> None:
    registry.promote(1)
    refused = decided("Bias is 7 %, the limit 5 %.", "Too few windows.", promoted=False)

    registry.record_decision(2, refused)

    found = registry.details(2)
    assert aliases(registry) == {CHAMPION: 1, CHALLENGER: 2}
    assert registry.challenger_version() == 2
    assert (found.facts.decision, found.facts.reason) == (
        "refused",
        "Bias is 7 %, the limit 5 %. Too few windows.",
    )
    assert (found.facts.wape, found.facts.coverage_95) == (0.15, 0.96)  # the gate's where no other is logged
    assert found.metrics["gate_region_7"] == 0.1  # MLflow allows no = in a name
    assert found.checks is not None
    pd.testing.assert_frame_equal(found.checks, refused.checks)


def test_a_promoted_version_ends_the_case_of_an_older_challenger(registry: ModelRegistry) -> None:
    registry.promote(1)
    registry.record_decision(2, decided(promoted=False))

    registry.record_decision(3, decided(promoted=True))

    assert aliases(registry) == {CHAMPION: 3}
    assert registry.challenger_version() is None
    assert registry.versions()[2].promotion_reason == "It is better by 3 %."


def test_going_back_by_hand_leaves_a_newer_challenger_its_case(registry: ModelRegistry) -> None:
    registry.promote(2)
    registry.record_decision(3, decided(promoted=False))

    registry.promote(1, by="anna", reason="")

    assert aliases(registry) == {CHAMPION: 1, CHALLENGER: 3}


# Lists


class Counting:
    """A client that counts its calls."""

    def __init__(self, client: MlflowClient, calls: Counter[str]) -> None:
        self._client, self._calls = client, calls

    def __getattr__(self, name: str) -> Any:
        self._calls[name] += 1
        return getattr(self._client, name)


def test_listing_reads_no_file_and_takes_as_many_calls_for_four_versions_as_for_one(
    registry: ModelRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts, connect = [], _mlflow.connect
    for store in (registry, make_registry(tmp_path / "one", versions=1)):
        store.promote(1)
        shutil.rmtree(store.folder / "artifacts")
        calls: Counter[str] = Counter()
        monkeypatch.setattr(_mlflow, "connect", lambda *a, c=calls, **k: Counting(connect(*a, **k), c))
        assert {facts.wape for facts in store.versions()} == {0.15}
        counts.append(calls)
        monkeypatch.setattr(_mlflow, "connect", connect)

    assert counts[0] == counts[1]
    assert counts[0].total() <= 6


def test_every_page_of_versions_is_read(registry: ModelRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_mlflow, "PAGE", 3)

    found = registry.versions()

    assert [(facts.version, facts.wape, facts.cutoff) for facts in found] == [
        (version, 0.15, "2017-08-05") for version in (1, 2, 3, 4)
    ]


def test_a_version_whose_run_was_cleaned_up_is_listed_without_figures(registry: ModelRegistry) -> None:
    registry.promote(1)
    run_id = client_of(registry).get_model_version(registry.name, "1").run_id
    client_of(registry)._tracking_client.store._hard_delete_run(run_id)

    facts = registry.versions()[0]

    assert (facts.wape, facts.candidate, facts.aliases) == (None, "seasonal_naive", (CHAMPION,))
    assert registry.details(1).metrics == {}


# What can be used


def test_a_version_of_this_panel_and_release_can_be_used(registry: ModelRegistry) -> None:

    registry.check_usable(1, default_panel())  # raises nothing
    with pytest.raises(
        TurnoverError, match=r"version 1 cannot .* panel was another .*; and its features .*gone"
    ):
        registry.check_usable(1, make_panel())


def test_a_version_with_other_features_is_refused_with_their_names(registry: ModelRegistry) -> None:
    model = make_model()
    earlier: TrainedModel = dataclasses.replace(model, features=("lag_of_old", *model.features[1:]))
    version = registry.register(earlier, make_training_record())

    with pytest.raises(
        TurnoverError, match=rf"gone: \['lag_of_old'\], new: \['{feature_names(default_panel())[0]}'\]"
    ):
        registry.check_usable(version, default_panel())


def test_a_version_whose_files_were_changed_is_refused(registry: ModelRegistry) -> None:
    (registry.files(1) / "model.json").write_text("{}")

    with pytest.raises(TurnoverError, match="missing or were changed since they were registered"):
        registry.check_usable(1, default_panel())


def test_a_version_of_a_release_that_this_one_cannot_read_is_told(
    empty: ModelRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as another_release:
        another_release.setattr(SeasonalNaive, "name", "naive_of_tomorrow")
        known_there = empty.register(make_model(), make_training_record())
    with monkeypatch.context() as another_release:
        another_release.setattr(TrainedModel, "save", lambda _, folder: write_another_format(folder))
        written_there = empty.register(make_model(), make_training_record())

    with pytest.raises(UnknownNameError, match="no candidate model named 'naive_of_tomorrow'"):
        empty.check_usable(known_there, default_panel())
    with pytest.raises(TurnoverError, match=r"version 2 are of a release that this one cannot read"):
        empty.check_usable(written_there, default_panel())


def write_another_format(folder: Path) -> None:
    (folder / "model.json").write_text('{"format": 9}')
