"""Housekeeping of runs where its records are in Postgres, as the container stack has them.

A real server runs on loopback; where Postgres is not installed, its tests are skipped.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import dagster as dg
import pytest
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager

from turnover_assets.core.housekeeping import Policy, Sweep
from turnover_assets.defs import run_housekeeping
from turnover_assets.settings import with_driver
from turnover_assets_tests.servers import PostgresServer, connected

pytestmark = [pytest.mark.slow, pytest.mark.postgres]
POLICY = Policy(run_days=90, attempts=1, models=1, shadow_cutoffs=1, pages=1, snapshots=1)
TABLES = ("runs", "run_tags", "event_logs", "asset_check_executions")  # what Dagster keeps of a run
LETTERS = dg.StaticPartitionsDefinition(["a", "b"])


@dg.asset(partitions_def=LETTERS)
def landed() -> None:
    """One content a partition, as files land."""


@dg.asset
def table(context: dg.AssetExecutionContext) -> None:
    """Made anew by each run."""
    print("made")  # noqa: T201 - for the log of the step
    context.log.info("made")


@dg.asset_check(asset=table)
def nice() -> dg.AssetCheckResult:
    """Evaluated by each run, too."""
    return dg.AssetCheckResult(passed=True)


@dg.job
def hung() -> None:
    """Begins and never ends."""


@dataclass(frozen=True)
class Used:
    """An instance with runs, by what is special about each."""

    instance: dg.DagsterInstance
    runs: dict[str, str]

    def sweep(self, *, remove: bool = True) -> dict[str, Sweep]:
        """Housekeeping a year from now."""
        at = datetime.now(UTC) + timedelta(days=365)
        published = [self.runs["named by a snapshot"]]
        found = run_housekeeping.sweep_runs(self.instance, published, POLICY, at, remove=remove)
        return {one.part: one for one in found}

    def called(self, run_ids: tuple[str, ...]) -> list[str]:
        """What is special about runs."""
        return sorted(name for name, run_id in self.runs.items() if run_id in run_ids)


def make_runs(instance: dg.DagsterInstance) -> dict[str, str]:
    """Runs of which two are needed by nothing, and of one only the record."""

    def made(partition: str | None = None) -> str:
        assets = [landed] if partition else [table, nice]
        tags = {"turnover/cause": "test"}
        return dg.materialize(assets, instance=instance, partition_key=partition, tags=tags).run_id

    return {
        "newest of partition a": made("a"),
        "superseded": made(),
        "named by a snapshot": made(),
        "superseded too": made(),
        "newest of landed": made("b"),
        "newest of table": made(),
        "hung": instance.create_run_for_job(hung, status=dg.DagsterRunStatus.STARTED).run_id,
    }


@contextmanager
def used(folder: Path, address: str, runs: dict[str, str] | None = None) -> Iterator[Used]:
    """An instance with runs, which are made unless they are there; in SQLite where no address is told."""
    storage = f"storage: {{postgres: {{postgres_url: '{with_driver(address)}'}}}}\n" if address else ""
    folder.mkdir(exist_ok=True)
    (folder / "dagster.yaml").write_text(f"{storage}telemetry: {{enabled: false}}\n")
    with dg.DagsterInstance.from_config(str(folder)) as instance:
        yield Used(instance, runs or make_runs(instance))


def new_database(server: PostgresServer, like: str = "template0") -> str:
    """A database like another, which nobody uses meanwhile; gives its name."""
    name = f"test_{uuid4().hex[:12]}"
    with connected(server.url("postgres")) as cursor:
        cursor.execute(f"CREATE DATABASE {name} TEMPLATE {like}")
    return name


@pytest.fixture(scope="module")
def made(
    postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str, dict[str, str]]:
    """Runs on record as the stack keeps them, to be copied: a folder, a database's name, and the runs."""
    folder, name = tmp_path_factory.mktemp("made") / "dagster", new_database(postgres)
    with used(folder, postgres.url(name)) as found:
        runs = found.runs
    return folder, name, runs


@pytest.fixture
def database(postgres: PostgresServer, made: tuple[Path, str, dict[str, str]]) -> str:
    """The address of a copy of the database."""
    return postgres.url(new_database(postgres, made[1]))


@pytest.fixture
def in_postgres(made: tuple[Path, str, dict[str, str]], database: str, tmp_path: Path) -> Iterator[Used]:
    """A copy of it all."""
    folder, _, runs = made
    shutil.copytree(folder, tmp_path / "dagster")
    with used(tmp_path / "dagster", database, runs) as found:
        yield found


def rows(address: str, run_id: str) -> dict[str, int]:
    """How many rows Postgres has of a run, by table."""
    found = {}
    with connected(address) as cursor:
        for name in TABLES:
            cursor.execute(f"SELECT count(*) FROM {name} WHERE run_id = %s", [run_id])
            found[name] = cursor.fetchone()[0]
    return found


def printed(one: Used, name: str) -> bool:
    """Whether what the steps of a run printed is there."""
    logs = one.instance.compute_log_manager
    assert isinstance(logs, LocalComputeLogManager)
    return Path(logs.get_captured_local_path([one.runs[name], "x"], "x")).parent.is_dir()


def test_runs_in_postgres_go_with_all_that_belongs_to_them_and_needed_ones_stay(
    in_postgres: Used, database: str
) -> None:
    before = {name: rows(database, run_id) for name, run_id in in_postgres.runs.items()}
    newest = in_postgres.instance.get_latest_materialization_event(table.key)

    planned = in_postgres.sweep(remove=False)
    untouched = {name: rows(database, run_id) for name, run_id in in_postgres.runs.items()}
    done = in_postgres.sweep()

    after = {name: rows(database, run_id) for name, run_id in in_postgres.runs.items()}
    assert untouched == before
    assert {part: one.removed for part, one in planned.items()} == {
        part: one.removed for part, one in done.items()
    }
    assert all(before["superseded"].values())
    for name in ("superseded", "superseded too"):
        assert set(after.pop(name).values()) == {0}, name
    assert after == {name: before[name] for name in after}
    assert in_postgres.called(done["runs"].removed) == ["superseded", "superseded too"]
    assert in_postgres.called(done["logs of runs whose record is needed"].removed) == [
        "newest of partition a"
    ]
    with_logs = {name for name in in_postgres.runs if printed(in_postgres, name)}
    assert with_logs == {"named by a snapshot", "newest of landed", "newest of table"}
    assert in_postgres.instance.get_latest_materialization_event(table.key) == newest
    assert in_postgres.instance.get_materialized_partitions(landed.key) == {"a", "b"}
    with connected(database) as cursor:
        cursor.execute(
            "SELECT count(*) FROM asset_event_tags WHERE event_id NOT IN (SELECT id FROM event_logs)"
        )
        assert cursor.fetchone() == (0,)


def test_postgres_and_sqlite_tell_the_same_and_a_second_look_finds_nothing(
    in_postgres: Used, tmp_path: Path
) -> None:
    with used(tmp_path / "sqlite", "") as in_sqlite:
        told = [
            {part: (one.called(found.removed), found.kept) for part, found in one.sweep().items()}
            for one in (in_postgres, in_sqlite)
        ]
        again = [found.removed for one in (in_postgres, in_sqlite) for found in one.sweep().values()]

    assert told[0] == told[1]
    assert told[0]["runs"][1] == {
        "named by kept snapshots": 1,
        "newest of an asset or check": 2,
        "not ended": 1,
    }
    assert set(again) == {()}


@pytest.mark.parametrize("step", ["_empty", "RunTagsTable"], ids=["after the events", "before the record"])
def test_a_deletion_in_postgres_that_a_kill_cut_short_is_finished(
    in_postgres: Used, database: str, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    class Killing:
        def __call__(self, *_: object) -> None:
            raise Killed

        def delete(self) -> None:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(run_housekeeping, step, Killing())
        with pytest.raises(Killed):
            in_postgres.sweep()
    half = [rows(database, in_postgres.runs[name]) for name in ("superseded", "superseded too")]
    in_postgres.sweep()

    assert sorted((one["runs"], one["event_logs"] > 0) for one in half) == [(1, False), (1, True)]
    for name in ("superseded", "superseded too"):
        assert set(rows(database, in_postgres.runs[name]).values()) == {0}
