"""Models' files in an object store: trained, loaded with their digest checked, judged, promoted, removed."""

import dataclasses
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest

from turnover_assets.core.gate import Decision
from turnover_assets.core.housekeeping import Policy
from turnover_assets.errors import ObjectStoreError, TurnoverError
from turnover_assets.maintenance import back_up, restore
from turnover_assets.runner import bring_up_to_date
from turnover_assets.storage import _mlflow
from turnover_assets.storage.model_housekeeping import ModelStore, sweep_models
from turnover_assets.storage.object_store import ObjectStore
from turnover_assets.storage.registry import ModelRegistry
from turnover_assets.storage.search_log import search_log
from turnover_assets.storage.snapshots import current
from turnover_assets_tests.factories import Landed, next_week, quiet
from turnover_assets_tests.model_factories import make_model, make_registry, make_training_record
from turnover_assets_tests.servers import Bucket

CHECKS = pd.DataFrame({"check": ["margin"], "passed": [True]})


@pytest.fixture
def registry(bucket: Bucket, tmp_path: Path) -> ModelRegistry:
    """A registry whose new models are kept in the bucket, with version 1 from before that, in the home."""
    local = make_registry(tmp_path / "mlflow")
    local.register(make_model(), make_training_record())
    return dataclasses.replace(local, artifacts_url=f"{bucket.url}/models")


def register(registry: ModelRegistry, count: int = 1) -> int:
    """Register models; the number of the last."""
    return [registry.register(make_model(), make_training_record()) for _ in range(count)][-1]


def promoted(*, yes: bool = True) -> Decision:
    return Decision(yes, ("It is better by 3 %.",), (), {"challenger_wape": 0.2}, CHECKS)


def test_a_version_is_kept_in_the_store_and_loaded_from_it(registry: ModelRegistry, bucket: Bucket) -> None:
    version = register(registry)

    run_id = _mlflow.model_version(_mlflow.connect(registry.folder), registry.name, version).run_id
    names = {key.removeprefix(f"models/{run_id}/artifacts/") for key in bucket.state()}
    assert {"features.txt", "scores.csv", "scores.png", "model/model.json"} <= names
    assert not (registry.folder / "artifacts" / str(run_id)).exists()
    assert registry.load(version).features == make_model().features


def test_versions_from_before_stay_where_they_are(registry: ModelRegistry) -> None:
    register(registry)

    assert registry.files(1).is_relative_to(registry.folder / "artifacts")
    assert [facts.wape for facts in registry.versions()] == [0.15, 0.15]
    home_again = dataclasses.replace(registry, artifacts_url=None)
    third = register(home_again)
    assert home_again.files(third).is_relative_to(registry.folder / "artifacts")
    assert home_again.load(2).features == make_model().features


def test_files_are_fetched_once(registry: ModelRegistry, bucket: Bucket) -> None:
    version = register(registry)
    first = registry.files(version)
    for key in bucket.state():
        bucket.delete(key)

    assert registry.files(version) == first


def test_a_fetched_copy_that_was_changed_is_fetched_again(registry: ModelRegistry) -> None:
    version = register(registry)
    copy = registry.files(version) / "model.json"
    before = copy.read_text()
    copy.write_text("{}")

    assert (registry.files(version) / "model.json").read_text() == before


@pytest.mark.parametrize("change", ["changed", "added", "removed"])
def test_files_that_were_changed_in_the_store_are_refused(
    registry: ModelRegistry, bucket: Bucket, change: str
) -> None:
    version = register(registry)
    (key,) = [key for key in bucket.state() if key.endswith("model/model.json")]
    if change == "removed":
        bucket.delete(key)
    else:
        bucket.put(key + (".pickle" if change == "added" else ""), "{}")

    with pytest.raises(TurnoverError, match=r"version 2 in s3://.*/artifacts are missing or were changed"):
        registry.load(version)

    assert list((registry.folder / "fetched").rglob("model*")) == []


def test_the_gate_judges_and_promotes(registry: ModelRegistry, bucket: Bucket) -> None:
    version = register(registry)

    registry.record_decision(version, promoted(yes=False))
    before = registry.details(version).checks
    registry.record_decision(version, promoted())

    assert before is not None
    found = registry.details(version)
    assert found.checks is not None
    assert found.checks.to_dict("records") == CHECKS.to_dict("records")
    assert registry.champion_version() == version
    assert [key for key in bucket.state() if key.endswith("artifacts/gate_checks.csv")]


@pytest.mark.slow
@pytest.mark.usefixtures("new_connections")
def test_a_store_that_is_away_fails_the_training_and_leaves_no_version(
    registry: ModelRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = register(registry)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")

    with pytest.raises(ObjectStoreError, match="cannot be written: Could not connect"):
        register(registry)
    with pytest.raises(ObjectStoreError, match="cannot be listed: Could not connect"):
        registry.load(version)

    assert len(registry.versions()) == version


def test_a_search_is_kept_in_the_store(registry: ModelRegistry, bucket: Bucket) -> None:
    with search_log(registry.folder, registry.name, "xgboost", {}, registry.artifacts_url) as log:
        log.outcome({"wape": 0.1}, {"eta": 0.2}, {}, pd.DataFrame({"trial": [1]}), b"png")

    names = {key.rpartition("/")[2] for key in bucket.state() if log.run_id in key}
    assert names == {"trials.csv", "search.png"}


def test_a_model_that_another_process_fetched_meanwhile_stays_where_it_loads_from(
    registry: ModelRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = register(registry)
    fetch = ObjectStore.fetch
    loading: list[int] = []

    def slow(store: ObjectStore, key: str, target: Path) -> object:
        found = fetch(store, key, target)
        if not loading:
            loading.append(0)
            loading[0] = registry.files(version).stat().st_ino  # the other process, all at once
        return found

    monkeypatch.setattr(ObjectStore, "fetch", slow)

    assert registry.files(version).stat().st_ino == loading[0]
    assert [path.name for path in registry.files(version).parent.glob(".partial-*")] == []


def test_housekeeping_removes_files_in_the_store_and_what_was_fetched_of_them(
    registry: ModelRegistry, bucket: Bucket
) -> None:
    last = register(registry, 4)
    registry.promote(last)
    for version in range(1, last + 1):
        registry.files(version)
    bucket.put("models/0123456789abcdef0123456789abcdef/artifacts/x", "of another home")
    policy = Policy(run_days=90, attempts=9, models=1, shadow_cutoffs=9, pages=9, snapshots=9)
    now = datetime.now(UTC)

    planned, done = (
        sweep_models(ModelStore(registry.folder, registry.name), [], policy, now, remove=remove)[0]
        for remove in (False, True)
    )

    assert planned.freed == done.freed > 0
    assert [facts.version for facts in registry.versions()] == [last]
    assert len({key.split("/")[1] for key in bucket.state()}) == 2  # the champion's, and the other home's
    assert len(list((registry.folder / "fetched").iterdir())) == 1
    assert registry.load(last).features == make_model().features


@pytest.mark.slow
def test_a_home_trains_publishes_and_survives_a_backup_with_its_models_in_a_bucket(
    copied: Landed, bucket: Bucket, tmp_path: Path
) -> None:
    settings = copied.settings.model_copy(update={"artifacts_url": f"{bucket.url}/models"})
    (copied.folder / "next.csv").write_text(next_week(copied))

    bring_up_to_date(settings, copied.folder, quiet, retrain=True)
    newest = ModelRegistry(settings.mlflow_path, settings.panel_spec.name).versions()[-1].version
    back_up(settings, tmp_path / "home.tar.zst", quiet)
    elsewhere = settings.model_copy(update={"home": tmp_path / "restored"})
    restore(elsewhere, tmp_path / "home.tar.zst", quiet)
    shutil.rmtree(elsewhere.mlflow_path / "fetched", ignore_errors=True)

    registry = ModelRegistry(elsewhere.mlflow_path, settings.panel_spec.name)
    assert [key for key in bucket.state("models/") if key.endswith("model/model.json")]
    assert registry.why_unfit(newest, settings.panel_spec) == ""
    assert current(elsewhere.published_path).name == current(settings.published_path).name
