"""Fixtures that several test modules share: a clean environment, connections, homes, the real data."""

import os
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from turnover_assets.core import training
from turnover_assets_tests.factories import BASELINES_ONLY, Landed, copy_home, land_retailer, memory_warehouse

REAL_DATA = "TURNOVER_TEST_DATA"


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the developer's shell sets must not decide whether a test passes."""
    for name in list(os.environ):
        if name.startswith("TURNOVER_") and name != REAL_DATA:
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real files, which cannot be part of the project."""
    root = Path(__file__).resolve().parents[1]
    folder = Path(os.environ.get(REAL_DATA, root.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder}; set {REAL_DATA} to its folder")
    return folder


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
def landed(tmp_path_factory: pytest.TempPathFactory) -> Landed:
    """A home with every candidate fitted, of which the blend is champion; tests read it only."""
    with pytest.MonkeyPatch.context() as patched:  # whoever is best on so few rows
        patched.setattr(training, "challenger", lambda found, tuned: training.unfitted(found, "blend", tuned))
        return land_retailer(tmp_path_factory.mktemp("full"), 0.06, backtest_windows=2)


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Landed:
    """A home with the baselines only; tests change copies of it."""
    return land_retailer(tmp_path_factory.mktemp("plain"), BASELINES_ONLY)


@pytest.fixture
def copied(plain: Landed, tmp_path: Path) -> Landed:
    """The same, in a home and a folder of one's own."""
    return copy_home(plain, tmp_path)
