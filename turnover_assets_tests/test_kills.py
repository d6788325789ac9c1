"""Killed at any step, nothing is lost, doubled or torn, and the next run heals."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from turnover_assets.storage import snapshots
from turnover_assets.storage.kept import kept_files
from turnover_assets.storage.warehouse import Warehouse
from turnover_assets_tests import kills
from turnover_assets_tests.kills import Bench, Figures


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench.made(tmp_path_factory.mktemp("kills"))


@pytest.mark.parametrize("step", kills.STEPS)
def test_a_kill_at_any_step_harms_nothing(bench: Bench, tmp_path: Path, step: str) -> None:
    figures = Figures()

    kills.play(bench, tmp_path / "round", figures, random.Random(step), step)

    assert figures.kills == 1
    assert (figures.harm, figures.told) == (0, [])


def test_kills_at_random_moments_harm_nothing(bench: Bench, tmp_path: Path) -> None:
    figures, dice = Figures(), random.Random(5)

    while figures.kills < 2:
        kills.play(bench, tmp_path / "round", figures, dice, None)

    assert (figures.harm, figures.told) == (0, [])


# --- the questions themselves


def lose_kept_bytes(home: Path) -> None:
    (row,) = kept_files(home).records()
    kept_files(home).path(row["digest"]).unlink()


def lose_a_record(home: Path) -> None:
    shutil.rmtree(home / "raw" / "journal")


def change(home: Path, sql: str) -> None:
    with Warehouse(home / "warehouse.duckdb").transaction() as con:
        con.execute(sql)


def tear(home: Path) -> None:
    path = snapshots.current(home / "published").path("turnover")
    path.write_bytes(path.read_bytes()[:-1] + b"?")


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        pytest.param(lambda home: None, (0, 0, 0), id="nothing"),
        pytest.param(lose_kept_bytes, (1, 0, 0), id="bytes lost"),
        pytest.param(lose_a_record, (1, 0, 0), id="record lost"),
        pytest.param(
            lambda home: change(home, "DELETE FROM raw.stores WHERE line = 2"), (1, 0, 0), id="row lost"
        ),
        pytest.param(lambda home: change(home, "DELETE FROM raw.files"), (1, 40, 0), id="file lost"),
        pytest.param(
            lambda home: change(home, "INSERT INTO raw.stores FROM raw.stores LIMIT 1"),
            (0, 1, 0),
            id="row twice",
        ),
        pytest.param(tear, (0, 0, 1), id="torn"),
    ],
)
def test_what_is_lost_doubled_or_torn_is_found(
    bench: Bench, tmp_path: Path, spoil: Callable[[Path], None], found: tuple[int, int, int]
) -> None:
    shutil.copytree(bench.home, tmp_path / "home")
    (row,) = kept_files(bench.home).records()
    spoil(tmp_path / "home")
    figures = Figures()

    kills.look(tmp_path / "home", [row["digest"]], figures, "here")

    assert (figures.lost, figures.doubled, figures.torn) == found
