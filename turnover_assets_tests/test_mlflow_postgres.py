"""MLflow's records in Postgres in place of SQLite: the same registry, backups of both, and plain words.

A real server runs on loopback; where Postgres is not installed, its tests are skipped.
"""

import os
import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import dagster as dg
import psycopg2
import pytest
from dagster._daemon.types import DaemonHeartbeat
from typer.testing import CliRunner

from turnover_assets.cli import app
from turnover_assets.core.housekeeping import Policy
from turnover_assets.definitions import build_definitions
from turnover_assets.defs.housekeeping import policy
from turnover_assets.errors import TurnoverError
from turnover_assets.maintenance import back_up, keep_house, restore
from turnover_assets.runner import bring_up_to_date
from turnover_assets.settings import Settings, load_settings, with_driver
from turnover_assets.storage import _mlflow
from turnover_assets.storage.model_copy import records_to_database
from turnover_assets.storage.model_housekeeping import ModelStore, sweep_models
from turnover_assets.storage.models_database import ask
from turnover_assets.storage.registry import ModelRegistry
from turnover_assets.storage.registry_peek import champion_of
from turnover_assets.storage.search_log import search_log
from turnover_assets_tests.factories import Landed, next_week, quiet, settings_for
from turnover_assets_tests.model_factories import make_model, make_registry, make_training_record
from turnover_assets_tests.servers import PostgresServer, connected, postgres_programs
from turnover_assets_tests.test_doctor import look

pytestmark = pytest.mark.postgres
PACKAGE = Path(__file__).resolve().parent.parent / "turnover_assets"
SCRIPT = PACKAGE.parent / "deploy" / "postgres" / "databases.sh"
CLOSED = "postgresql://models:a-secret@127.0.0.1:1/mlflow"
YEARS_LATER = datetime(2099, 1, 1, tzinfo=UTC)


def new_database(server: PostgresServer, like: str = "template0") -> str:
    """Make a database, empty or like another, whose connections are ended, and give its name."""
    name = f"test_{uuid4().hex[:12]}"
    with connected(server.url("postgres")) as cursor:
        cursor.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [like])
        cursor.execute(f"CREATE DATABASE {name} TEMPLATE {like}")
    return name


@pytest.fixture(scope="module")
def with_tables(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database in which MLflow has made its tables, to be copied: that takes it seconds."""
    name = new_database(postgres)
    folder = make_registry(tmp_path_factory.mktemp("tables") / "mlflow").folder
    records_to_database(folder, load_settings(mlflow_uri=postgres.url(name)).mlflow_database)
    return name


@pytest.fixture
def address(postgres: PostgresServer, with_tables: str) -> str:
    """Address of a database of the test's own with MLflow's empty tables."""
    return postgres.url(new_database(postgres, like=with_tables))


@pytest.fixture
def registry(address: str, tmp_path: Path) -> ModelRegistry:
    """A registry in it, with no version yet."""
    settings = load_settings(home=tmp_path / "var", mlflow_uri=address)
    return ModelRegistry.of(settings)


# The registry --------------------------------------------------------------------------------------


def test_models_are_registered_promoted_and_rolled_back_as_in_sqlite(
    registry: ModelRegistry, tmp_path: Path
) -> None:
    embedded = make_registry(tmp_path / "embedded")

    def story(of: ModelRegistry) -> list[object]:
        told: list[object] = [champion_of(of.folder, of.name, of.database)]
        told += [of.register(make_model(), make_training_record()) for _ in range(3)]
        for version in (1, 2, 3):
            of.promote(version, reason="test")
        told += [of.rollback(by="test", reason="test"), of.find_champion()]
        told += [champion_of(of.folder, of.name, of.database), champion_of(of.folder, "another", of.database)]
        told += [(v.version, v.aliases, v.decision, v.wape) for v in of.versions()]
        return [*told, of.load(2).features, of.candidate_of(1), of.newest_tags()["version"]]

    found = story(registry)

    assert found == story(embedded)
    assert not (registry.folder / "mlflow.db").exists()


def test_housekeeping_removes_versions_and_searches_from_the_database(registry: ModelRegistry) -> None:
    for _ in range(4):
        registry.register(make_model(), make_training_record())
    registry.promote(1)
    with search_log(registry.folder, registry.name, "xgboost", {}, database=registry.database) as log:
        log.trial("one", {}, {"wape": 1.0}, {})
    store = ModelStore(registry.folder, registry.name, registry.database)
    limits = Policy(**{**policy(load_settings()).__dict__, "models": 1})

    swept = {one.part: one for one in sweep_models(store, [2], limits, YEARS_LATER, remove=True)}

    assert swept["model versions"].removed == ("3",)  # 1 is champion, 2 published, 4 the newest
    assert [found.version for found in registry.versions()] == [1, 2, 4]
    assert len(swept["searches for parameters"].removed) == 1
    assert len(list((registry.folder / "artifacts").iterdir())) == 3


def test_a_database_without_tables_has_no_models_and_gets_them_at_first_use(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    empty = ModelRegistry.of(load_settings(home=tmp_path, mlflow_uri=postgres.url(new_database(postgres))))

    assert champion_of(empty.folder, empty.name, empty.database) is None
    with pytest.raises(TurnoverError, match="There is no champion among the models of"):
        empty.champion_version()


# A home --------------------------------------------------------------------------------------------


@pytest.fixture
def moved(plain: Landed, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A home whose backup was restored where a database is named; its environment is that of its runs."""
    archive = back_up(plain.settings, tmp_path / "embedded.tar.gz", quiet).path
    settings = settings_for(tmp_path / "moved", mlflow_uri=address)
    restore(settings, archive, quiet)
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    return settings


@pytest.mark.slow
def test_a_restored_home_has_its_models_in_the_database_and_goes_on(
    moved: Settings, plain: Landed, tmp_path: Path
) -> None:
    before = ModelRegistry.of(plain.settings).versions()

    assert ModelRegistry.of(moved).versions() == before
    assert ModelRegistry.of(moved).why_unusable(moved.panel_spec) == ""
    assert not (moved.mlflow_path / "mlflow.db").exists()
    shutil.copytree(plain.folder, tmp_path / "files")
    assert not bring_up_to_date(moved, tmp_path / "files", quiet).changed
    (tmp_path / "files" / "next.csv").write_text(next_week(plain))
    outcome = bring_up_to_date(moved, tmp_path / "files", quiet)
    assert outcome.snapshot is not None
    assert outcome.snapshot.facts["model"]["version"] == before[-1].version
    assert {row["part"] for row in keep_house(moved, quiet)} >= {"model versions", "runs without a model"}
    assert not (moved.mlflow_path / "mlflow.db").exists()


def test_a_backup_holds_the_database_s_records_and_restores_where_there_is_none(
    moved: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ModelRegistry.of(moved).register(make_model(), make_training_record())
    (moved.mlflow_path / "mlflow.db").write_bytes(b"left from before")
    archive = back_up(moved, tmp_path / "database.tar.zst", quiet).path
    monkeypatch.delenv("TURNOVER_MLFLOW_URI")
    embedded = moved.model_copy(update={"home": tmp_path / "embedded", "mlflow_uri": None})

    done = restore(embedded, archive, quiet)

    assert ModelRegistry.of(embedded).versions() == ModelRegistry.of(moved).versions()
    assert len(ModelRegistry.of(embedded).versions()) == 2
    assert ModelRegistry.of(embedded).files(2).is_relative_to(embedded.home)
    places = {e.artifact_location for e in _mlflow.experiments(_mlflow.connect(embedded.mlflow_path))}
    assert (embedded.mlflow_path / "artifacts").as_uri() in places
    assert done.files > 0


@pytest.mark.slow
def test_what_stands_in_the_database_is_replaced_by_what_is_restored(moved: Settings, tmp_path: Path) -> None:
    archive = back_up(moved, tmp_path / "b.tar.gz", quiet).path
    ModelRegistry.of(moved).register(make_model(), make_training_record())

    restore(moved, archive, quiet, replace=True)

    assert [found.version for found in ModelRegistry.of(moved).versions()] == [1]
    assert ModelRegistry.of(moved).register(make_model(), make_training_record()) == 2


def test_nothing_is_restored_while_the_database_does_not_answer(plain: Landed, tmp_path: Path) -> None:
    archive = back_up(plain.settings, tmp_path / "b.tar.gz", quiet).path

    with pytest.raises(TurnoverError, match="MLflow's database cannot be used"):
        restore(load_settings(home=tmp_path / "new", mlflow_uri=CLOSED), archive, quiet)

    assert not (tmp_path / "new").exists()


# Plain words ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ask",
    [
        lambda of: champion_of(of.folder, of.name, of.database),
        lambda of: of.versions(),
        lambda of: of.register(make_model(), make_training_record()),
    ],
    ids=["peek", "look", "register"],
)
def test_a_database_that_does_not_answer_is_no_home_without_models(ask, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    registry = ModelRegistry.of(load_settings(home=tmp_path, mlflow_uri=CLOSED))

    with pytest.raises(
        TurnoverError, match=r"database cannot be used .*refused.* TURNOVER_MLFLOW_URI"
    ) as told:
        ask(registry)

    assert "a-secret" not in str(told.value)
    assert "a-secret" not in repr(registry)


@pytest.mark.parametrize(
    "given", ["mysql://u:a-secret@h/d", "sqlite:////tmp/a-secret.db", "a-secret", "postgresql://"]
)
def test_another_address_is_refused_without_being_shown(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TURNOVER_MLFLOW_URI", given)

    with pytest.raises(TurnoverError, match=r"TURNOVER_MLFLOW_URI: .*such as postgresql://user") as told:
        load_settings()

    assert "a-secret" not in str(told.value)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg2"])
def test_an_address_is_told_to_sqlalchemy_with_the_driver_that_is_installed(scheme: str) -> None:
    settings = load_settings(mlflow_uri=f"{scheme}://u:p@h:5/d")

    assert settings.mlflow_database == "postgresql+psycopg2://u:p@h:5/d"
    assert "u:p" not in repr(settings)


def test_dagster_is_told_the_variable_and_not_the_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TURNOVER_MLFLOW_URI", CLOSED)
    repository = build_definitions(load_settings(home=tmp_path)).get_repository_def()

    config = repository.get_top_level_resources()["registry"].config_schema.default_value

    assert config["database"] == {"env": "TURNOVER_MLFLOW_URI"}
    assert "a-secret" not in str(config)


def test_every_registry_of_the_package_is_that_of_the_settings() -> None:
    """One that is made of the folder alone would look into a file that nothing writes to."""
    made = {
        path.relative_to(PACKAGE).as_posix(): re.findall(r"ModelRegistry\(([^)]*)\)", path.read_text("utf-8"))
        for path in PACKAGE.rglob("*.py")
    }

    assert {name: found for name, found in made.items() if found} == {
        "defs/resources.py": [
            "Path(self.folder",
        ]
    }


def test_the_stack_s_script_makes_a_user_with_one_database_and_gives_it_a_new_password(
    postgres: PostgresServer,
) -> None:
    with connected(postgres.url("postgres")) as cursor:
        cursor.execute("CREATE DATABASE dagster")
    variables = {"PGHOST": "127.0.0.1", "PGPORT": str(postgres.port), "PGDATABASE": "dagster"}
    variables |= {"PGUSER": "admin", "PGPASSWORD": postgres.password}
    variables["PATH"] = f"{postgres_programs()}{os.pathsep}{os.environ['PATH']}"

    def may_connect(password: str, database: str) -> bool:
        try:
            with connected(postgres.url(database, "mlflow", password)):
                return True
        except psycopg2.OperationalError:
            return False

    told = []
    for password in ("first", "first", "se'cond"):
        subprocess.run(["sh", SCRIPT], env={**variables, "MLFLOW_POSTGRES_PASSWORD": password}, check=True)
        told.append([may_connect(password, name) for name in ("mlflow", "dagster", "postgres")])

    assert told == [[True, False, False]] * 3
    assert not may_connect("first", "mlflow")


# The doctor ----------------------------------------------------------------------------------------


def test_the_doctor_looks_at_the_database(moved: Settings, tmp_path: Path) -> None:
    (records,), (models,) = look(moved, "model records"), look(moved, "models")

    assert (records.level, models.level) == ("ok", "ok")
    assert re.fullmatch(r"in Postgres \d+\.\d+.*", records.found)
    assert "version 1 is champion" in models.found
    (moved.mlflow_path / "mlflow.db").touch()
    warned = look(moved, "model records")[1]
    assert (warned.level, "nothing looks at it" in warned.found) == ("warning", True)
    closed = moved.model_copy(update={"mlflow_uri": load_settings(mlflow_uri=CLOSED).mlflow_uri})
    (problem,) = look(closed, "model records")
    assert (problem.level, "cannot be used" in problem.found) == ("problem", True)
    assert look(closed, "models") == []
    assert look(moved.model_copy(update={"mlflow_uri": None}), "model records") == []


def test_the_doctor_reads_dagster_s_records_where_they_are_in_postgres(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    settings = settings_for(tmp_path / "var")
    settings.dagster_path.mkdir(parents=True)
    address = with_driver(postgres.url(new_database(postgres)))
    (settings.dagster_path / "dagster.yaml").write_text(
        f"storage: {{postgres: {{postgres_url: '{address}'}}}}\ntelemetry: {{enabled: false}}\n"
    )

    @dg.job
    def refresh() -> None:
        """Nothing but a job of that name."""

    with dg.DagsterInstance.from_config(str(settings.dagster_path)) as instance:
        before = {check: look(settings, check) for check in ("daemon", "sensors and schedules", "runs")}
        instance.add_daemon_heartbeat(DaemonHeartbeat(datetime.now(UTC).timestamp(), "SENSOR", None, None))
        failed = instance.create_run_for_job(refresh, status=dg.DagsterRunStatus.FAILURE)
        hung = instance.create_run_for_job(refresh, status=dg.DagsterRunStatus.STARTED)
        lost = instance.create_run_for_job(
            refresh, status=dg.DagsterRunStatus.STARTED, tags={"turnover/process": f"{_host()}:999999999"}
        )
        last = instance.create_run_for_job(refresh, status=dg.DagsterRunStatus.FAILURE)

    assert before["daemon"][0].found == "the daemon has never run in this home"
    assert before["runs"][0].level == before["sensors and schedules"][0].level == "ok"
    assert look(settings, "daemon")[0].found == "the daemon is alive"
    later = [found.found for found in look(settings, "runs", now=datetime(2099, 1, 1, tzinfo=UTC))]
    assert [last.run_id[:8] in later[0], lost.run_id[:8] in later[1], hung.run_id[:8] in later[2]] == [
        True
    ] * 3
    assert failed.run_id[:8] not in " ".join(later)


def _host() -> str:
    import socket

    return socket.gethostname()


def test_the_command_that_lists_models_asks_the_database(moved: Settings) -> None:
    shown = CliRunner().invoke(app, ["models", "list"])

    assert shown.exit_code == 0
    assert "champion" in shown.output


@pytest.mark.parametrize("password", ["p%zzsecret", "p%20secret", "se/cret", "secret?x"])
def test_no_password_is_told_whatever_is_wrong_with_it(password: str) -> None:
    with pytest.raises(TurnoverError) as told:
        ask(f"postgresql+psycopg2://ann:{password}@127.0.0.1:1/models", "SELECT 1")

    assert "TURNOVER_MLFLOW_URI" in str(told.value)
    assert [part for part in re.split("[%/?]", password) if len(part) > 2 and part in str(told.value)] == []
