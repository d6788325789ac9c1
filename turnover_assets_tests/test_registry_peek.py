"""The registry without MLflow: the same answers as its client gives; no champion where it cannot be read."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from turnover_assets.errors import UnknownNameError
from turnover_assets.storage import _mlflow
from turnover_assets.storage.registry import CHAMPION, ModelRegistry
from turnover_assets.storage.registry_peek import RegistryPeek, champion_of
from turnover_assets_tests.model_factories import make_registry


@pytest.fixture
def registry(tmp_path: Path) -> ModelRegistry:
    """A registry with versions 1 to 4 and no champion."""
    return make_registry(tmp_path / "mlflow", versions=4)


def by_client(registry: ModelRegistry) -> int | None:
    """The champion as MLflow's own client tells it."""
    client: MlflowClient = _mlflow.connect(registry.folder, must_exist=True)
    found = client.get_registered_model(registry.name).aliases.get(CHAMPION)
    return None if found is None else int(found)


def test_the_answer_is_the_clients_after_promotions_and_rollbacks(registry: ModelRegistry) -> None:
    answers = [(champion_of(registry.folder, registry.name), by_client(registry))]
    for step in (1, 3, 2, None, None):
        if step is None:
            registry.rollback(by="anna", reason="it was better before")
        else:
            registry.promote(step, by="anna", reason="it is better")
        answers.append((champion_of(registry.folder, registry.name), by_client(registry)))

    assert answers == [(None, None), (1, 1), (3, 3), (2, 2), (3, 3), (1, 1)]


def test_versions_are_those_of_the_client(registry: ModelRegistry) -> None:
    client: MlflowClient = _mlflow.connect(registry.folder, must_exist=True)
    client.set_model_version_tag(registry.name, "2", "note", "it's 100 % fine")
    peek = RegistryPeek(registry.folder, registry.name)

    for number in (1, 2, 3, 4):
        found, expected = peek.version(number), client.get_model_version(registry.name, str(number))
        assert found is not None
        assert (found.number, found.run_id, found.tags) == (number, expected.run_id, expected.tags)
    assert peek.newest() == peek.version(4)
    assert peek.version(5) is None


def test_a_deleted_version_is_not_there(registry: ModelRegistry) -> None:
    client: MlflowClient = _mlflow.connect(registry.folder, must_exist=True)
    client.set_registered_model_alias(registry.name, "challenger", "4")
    client.delete_model_version(registry.name, "4")
    peek = RegistryPeek(registry.folder, registry.name)

    newest = peek.newest()

    assert newest is not None
    assert (newest.number, peek.version(4), peek.aliased("challenger")) == (3, None, None)
    assert registry.newest_tags()["version"] == "3"
    with pytest.raises(UnknownNameError, match="4"):
        registry.load(4)


def test_a_model_is_loaded_without_mlflow(registry: ModelRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.promote(2, by="anna", reason="it is better")
    monkeypatch.setattr(_mlflow, "connect", lambda *_, **__: pytest.fail("MLflow is asked"))

    assert registry.load(registry.champion_version()).features
    assert (registry.challenger_version(), registry.newest_tags()["version"]) == (None, "4")


def test_a_registry_that_is_kept_from_us_is_not_taken_for_an_empty_one(registry: ModelRegistry) -> None:
    (registry.folder / "mlflow.db").write_bytes(b"no database at all" * 100)

    for question in (registry.find_champion, registry.challenger_version, registry.newest_tags):
        with pytest.raises(sqlite3.DatabaseError, match=r"mlflow\.db: file is not a database"):
            question()


def test_loading_a_model_does_not_import_mlflow(registry: ModelRegistry) -> None:
    registry.promote(2, by="anna", reason="it is better")
    program = (
        "import sys; from pathlib import Path; from turnover_assets.storage.registry import ModelRegistry; "
        "registry = ModelRegistry(Path(sys.argv[1]), sys.argv[2]); "
        "registry.load(registry.champion_version()); print('mlflow' in sys.modules)"
    )
    command = [sys.executable, "-c", program, str(registry.folder), registry.name]

    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "False\n"


def test_another_models_champion_is_not_ours(registry: ModelRegistry) -> None:
    registry.promote(2, by="anna", reason="it is better")

    assert champion_of(registry.folder, "another") is None
    assert RegistryPeek(registry.folder, "another").newest() is None


def test_the_challenger_is_no_champion(registry: ModelRegistry) -> None:
    _mlflow.connect(registry.folder, must_exist=True).set_registered_model_alias(
        registry.name, "challenger", "4"
    )

    assert champion_of(registry.folder, registry.name) is None


@pytest.mark.parametrize("content", [None, b"", b"no database at all" * 100], ids=["none", "empty", "other"])
def test_a_store_that_cannot_be_read_has_no_champion_and_is_left_as_it_is(
    tmp_path: Path, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / "mlflow.db").write_bytes(content)

    assert champion_of(tmp_path, "small") is None
    if content:
        with pytest.raises(sqlite3.DatabaseError, match="not a database"):
            RegistryPeek(tmp_path, "small").newest()
    else:
        assert RegistryPeek(tmp_path, "small").newest() is None

    found = [path.read_bytes() for path in tmp_path.iterdir()]
    assert found == ([] if content is None else [content])


def test_a_path_with_signs_that_mean_something_in_addresses_can_be_read(tmp_path: Path) -> None:
    folder = tmp_path / "50 % ? #"
    folder.mkdir()
    with sqlite3.connect(folder / "mlflow.db") as con:
        con.execute("CREATE TABLE registered_model_aliases (name, alias, version)")
        con.execute("INSERT INTO registered_model_aliases VALUES ('small', 'champion', 7)")
    con.close()

    assert champion_of(folder, "small") == 7
