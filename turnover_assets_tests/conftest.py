"""Fixtures that several test modules share: a clean environment, connections, homes, the real data."""

import gc
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import hypothesis
import pytest
import sqlalchemy as sa
from alembic.config import Config
from alembic.script import ScriptDirectory
from dagster._core.storage.event_log.sqlite import sqlite_event_log
from dagster._core.storage.runs.sqlite import sqlite_run_storage
from dagster._core.storage.schedules.sqlite import sqlite_schedule_storage
from s3fs import S3FileSystem

from turnover_assets.core import training
from turnover_assets.settings import Settings
from turnover_assets.storage import object_store
from turnover_assets.storage.snapshots import current
from turnover_assets_tests import api_factories
from turnover_assets_tests.factories import (
    BASELINES_ONLY,
    Landed,
    copy_home,
    draw_nothing,
    land_retailer,
    made_once,
    memory_warehouse,
)
from turnover_assets_tests.servers import (
    KEYS,
    Bucket,
    PostgresServer,
    make_bucket,
    postgres_server,
    s3_server,
)

REAL_DATA = "TURNOVER_TEST_DATA"
LONGEST = "test_daemon.py"
# How long an example takes says something of the machine; benchmarks measure time.
hypothesis.settings.register_profile("turnover", deadline=None)
hypothesis.settings.load_profile("turnover")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest begins first, so that no process is left to itself at the end."""
    items.sort(key=lambda item: item.path.name != LONGEST)


def pytest_collection_finish() -> None:
    """What was imported stays, so that looking for garbage in it again and again is for nothing."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the developer's shell sets must not decide whether a test passes."""
    for name in list(os.environ):
        if name.startswith("TURNOVER_") and name != REAL_DATA:
            monkeypatch.delenv(name)


@pytest.fixture(scope="session", autouse=True)
def _sqlite_without_waiting() -> Iterator[None]:
    """Records of Dagster and MLflow that are written as in a home, but need not outlive a power cut.

    Both commit for each event and wait for the disk each time, and read the scripts of every migration there
    ever was for each database; and Dagster makes an engine, which compiles every statement anew, for each
    connection. Together that would be a third of a run.
    """

    def do_not_wait(connection: Any, _record: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous = OFF")

    engines: dict[str, sa.Engine] = {}
    make = sqlite_event_log.create_engine

    def engine_of(url: str, **options: Any) -> sa.Engine:
        if url not in engines:
            engines[url] = make(url, **options)  # of the pool that closes every connection after its use
        return engines[url]

    scripts: dict[str | None, ScriptDirectory] = {}
    read = ScriptDirectory.from_config

    def scripts_of(config: Config) -> ScriptDirectory:
        place = config.get_main_option("script_location")
        if place not in scripts:
            scripts[place] = read(config)
        return scripts[place]

    sa.event.listen(sa.Engine, "connect", do_not_wait)
    with pytest.MonkeyPatch.context() as patched:
        for module in (sqlite_event_log, sqlite_run_storage, sqlite_schedule_storage):
            patched.setattr(module, "create_engine", engine_of)
        patched.setattr(ScriptDirectory, "from_config", scripts_of)
        yield
    sa.event.remove(sa.Engine, "connect", do_not_wait)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real files, which cannot be part of the project."""
    root = Path(__file__).resolve().parents[1]
    folder = Path(os.environ.get(REAL_DATA, root.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder}; set {REAL_DATA} to its folder")
    return folder


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of this run of the tests see; see made_once."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    """An empty warehouse in memory."""
    with memory_warehouse() as connection:
        yield connection


@pytest.fixture(scope="session")
def shared_con() -> Iterator[duckdb.DuckDBPyConnection]:
    """A warehouse in memory for tests of many examples; each empties it first (factories.empty_raw)."""
    with memory_warehouse() as connection:
        yield connection


@pytest.fixture(scope="session")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where an object store listens."""
    with s3_server(tmp_path_factory.mktemp("s3") / "log") as endpoint:
        yield endpoint


@pytest.fixture
def bucket(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """An empty bucket, with credentials and endpoint where AWS's own tools look for them.

    Connections are reused within a test, which saves most of its time; see new_connections.
    """
    for name, value in {**KEYS, "AWS_ENDPOINT_URL_S3": s3_endpoint}.items():
        monkeypatch.setenv(name, value)
    S3FileSystem.clear_instance_cache()
    monkeypatch.setitem(object_store.OPENING, "skip_instance_cache", False)
    return make_bucket(s3_endpoint)


@pytest.fixture
def new_connections(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that change the credentials or the endpoint."""
    monkeypatch.setitem(object_store.OPENING, "skip_instance_cache", True)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A Postgres server."""
    with postgres_server() as server:
        yield server


@pytest.fixture(scope="session")
def landed(shared_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Landed:
    """A home with every candidate fitted, of which the blend is champion; tests read it only."""

    def make(folder: Path) -> Landed:
        with pytest.MonkeyPatch.context() as patched:  # whoever is best on so few rows
            patched.setattr(
                training, "challenger", lambda found, tuned: training.unfitted(found, "blend", tuned)
            )
            return land_retailer(folder, 0.06, backtest_windows=2)

    return copy_home(made_once(shared_folder / "full", make), tmp_path_factory.mktemp("full"))


@pytest.fixture(scope="session")
def plain(shared_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Landed:
    """A home with the baselines only; tests change copies of it."""
    made = made_once(shared_folder / "plain", lambda folder: land_retailer(folder, BASELINES_ONLY))
    return copy_home(made, tmp_path_factory.mktemp("plain"))


@pytest.fixture
def copied(plain: Landed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Landed:
    """The same, in a home and a folder of one's own, where runs leave their pictures empty.

    Drawing is a fifth of a run; the pictures of the homes above are drawn.
    """
    draw_nothing(monkeypatch)
    return copy_home(plain, tmp_path)


@pytest.fixture(scope="session")
def served_home(plain: Landed, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A home whose snapshot has forecasts of several cutoffs and roles; tests read it only."""
    folder = tmp_path_factory.mktemp("served")
    settings = plain.settings.model_copy(update={"home": folder, "snapshot_poll_seconds": 0.05})
    snapshot = current(plain.settings.published_path)
    settings.published_path.mkdir()
    tables = api_factories.with_past_cutoffs(snapshot)
    api_factories.publish(settings.published_path, snapshot, tables)
    return settings
