"""Evidently's reports: bounded samples of numbers, files that load nothing, no word to anyone."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from turnover_assets.cli import app
from turnover_assets.core import report_samples
from turnover_assets.core.adjustments import ADJUSTMENTS
from turnover_assets.core.adjustments import COLUMNS as ADJUSTMENT_COLUMNS
from turnover_assets.core.features import features
from turnover_assets.core.monitoring.distances import distance
from turnover_assets.core.monitoring.drift import LEFT_OUT
from turnover_assets.core.report_samples import Samples, feature_samples, outcome_samples, target_samples
from turnover_assets.core.rows import RowLimits, fill_scoring
from turnover_assets.errors import TurnoverError
from turnover_assets.panel import default_panel
from turnover_assets.storage import evidently_reports as evidently
from turnover_assets_tests.factories import Landed, default_history, insert_frames
from turnover_assets_tests.html_pages import Page
from turnover_assets_tests.monitoring_factories import keep_published, newest

PANEL = default_panel()
NO_BACKTEST = "model.backtest"
with_evidently = pytest.mark.skipif(
    find_spec("evidently") is None, reason="Evidently is not installed; `make evidently` installs it"
)


@pytest.fixture
def history(con: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    insert_frames(con, PANEL, default_history())
    columns = ", ".join(f"{name} {kind}" for name, kind in ADJUSTMENT_COLUMNS.items())
    con.execute(f"CREATE TABLE {ADJUSTMENTS} ({columns})")
    fill_scoring(con, PANEL, RowLimits(0.1, 10_000, 4))
    return con


# What is compared --------------------------------------------------------------------------------


def test_features_are_compared_but_those_that_cannot_drift(history: duckdb.DuckDBPyConnection) -> None:
    found = feature_samples(history, PANEL)

    assert found.reference is not None
    assert list(found.current) == list(found.reference)
    may_drift = {feature.name for feature in features(PANEL) if feature.group not in LEFT_OUT}
    assert set(found.current) <= may_drift
    assert {"lag_0", "department_growth_4"} <= set(found.current)
    assert (found.current.dtypes == "float64").all()


def test_samples_are_bounded_and_always_the_same(
    history: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_published(history, PANEL, range(newest(history, PANEL) - 8, newest(history, PANEL)))
    monkeypatch.setattr(report_samples, "MOST_ROWS", 7)

    twice = [
        (
            feature_samples(history, PANEL),
            target_samples(history, PANEL),
            outcome_samples(history, PANEL, NO_BACKTEST, "blend"),
        )
        for _ in range(2)
    ]

    for one, same in zip(*twice, strict=True):
        assert one is not None
        assert same is not None
        assert len(one.current) == 7
        pd.testing.assert_frame_equal(one.current, same.current)


def test_the_target_is_compared_with_the_same_weeks_of_last_year(history: duckdb.DuckDBPyConnection) -> None:
    last = newest(history, PANEL)

    found = target_samples(history, PANEL)

    assert found.reference is not None
    for sample, until in ((found.current, last), (found.reference, last - 52)):
        reported = history.execute(
            "SELECT turnover FROM cleaned.turnover WHERE t BETWEEN ? AND ?", [until - 7, until]
        ).df()
        assert sorted(sample["target"]) == sorted(reported["turnover"])


def test_outcomes_are_compared_with_the_backtest(history: duckdb.DuckDBPyConnection) -> None:
    keep_published(history, PANEL, range(newest(history, PANEL) - 3, newest(history, PANEL)))
    history.execute("CREATE SCHEMA IF NOT EXISTS model")
    history.execute(
        f"CREATE TABLE {NO_BACKTEST} AS SELECT 2 AS store, 73 AS department, 1 AS cutoff, 1 AS horizon, "
        "5.0 AS actual, 6.0 AS forecast, 'blend' AS model, true AS is_compared"
    )

    found = outcome_samples(history, PANEL, NO_BACKTEST, "blend")

    assert found is not None
    assert found.reference is not None
    assert np.allclose(found.current["prediction"], 1.1 * found.current["target"])
    assert found.reference.to_dict("records") == [{"target": 5.0, "prediction": 6.0}]


def test_the_backtest_stands_alone_until_a_forecast_has_an_outcome(
    history: duckdb.DuckDBPyConnection,
) -> None:
    assert outcome_samples(history, PANEL, NO_BACKTEST, "blend") is None
    history.execute("CREATE SCHEMA IF NOT EXISTS model")
    history.execute(
        f"CREATE TABLE {NO_BACKTEST} AS SELECT 2 AS store, 73 AS department, 1 AS cutoff, 1 AS horizon, "
        "5.0 AS actual, 6.0 AS forecast, 'blend' AS model, true AS is_compared"
    )

    found = outcome_samples(history, PANEL, NO_BACKTEST, "blend")

    assert found is not None
    assert found.reference is None
    assert found.current.to_dict("records") == [{"target": 5.0, "prediction": 6.0}]


# Without Evidently -------------------------------------------------------------------------------


def test_without_evidently_the_command_says_what_installs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(evidently, "find_spec", lambda _: None)
    monkeypatch.setenv("TURNOVER_HOME", str(tmp_path / "var"))

    done = CliRunner().invoke(app, ["evidently"])

    assert done.exit_code == 1
    assert "make evidently" in done.stderr
    assert not (tmp_path / "var").exists()


def test_without_evidently_nothing_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidently, "find_spec", lambda _: None)

    with pytest.raises(TurnoverError, match="extra `evidently`"):
        evidently.evidently_reports({})


def test_nothing_imports_evidently_before_it_is_asked_for() -> None:
    modules = "turnover_assets.cli, turnover_assets.storage.evidently_reports"
    code = f"import sys, {modules}; print('evidently' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False"


def test_columns_of_few_values_are_not_taken_for_categories() -> None:
    reference = pd.DataFrame({"few": [0.5, 0.7] * 20, "many": np.arange(40.0)})

    assert evidently.drift_methods(reference) == {"few": "wasserstein", "many": "psi"}


# With Evidently ----------------------------------------------------------------------------------


def frames(rows: int = 400) -> dict[str, Samples]:
    rng = np.random.default_rng(5)
    values = pd.DataFrame(
        {"lag_0": rng.normal(size=rows), "department_growth_4": rng.choice([0.9, 1.1], rows)}
    )
    target = pd.DataFrame({"target": rng.gamma(2.0, 50.0, rows)})
    judged = target.assign(prediction=target["target"] * 1.1)
    return {
        evidently.DATA_DRIFT: Samples(values + 1.0, values, "features"),
        evidently.TARGET_DRIFT: Samples(target, target * 0.9, "target"),
        evidently.PERFORMANCE: Samples(judged, judged, "forecasts"),
    }


@pytest.fixture(scope="module")
def made() -> Mapping[str, str]:
    """The three reports, made where every connection is refused."""
    refused: list[Any] = []

    def refuse(_self: socket.socket, address: Any) -> None:
        refused.append(address)
        raise AssertionError(f"a connection to {address}")

    with pytest.MonkeyPatch.context() as patched:
        patched.delenv(evidently.DO_NOT_TRACK, raising=False)
        patched.setattr(socket.socket, "connect", refuse)
        patched.setattr(socket.socket, "connect_ex", refuse)
        patched.setattr(socket, "getaddrinfo", lambda *address, **_: refuse(None, address))  # type: ignore[arg-type]
        found = evidently.evidently_reports(frames())
        assert os.environ[evidently.DO_NOT_TRACK] == "1"
        from evidently.telemetry import event_logger

        assert not event_logger.is_enabled()
    assert refused == []
    return found


@with_evidently
@pytest.mark.evidently
@pytest.mark.slow
def test_three_files_are_made_without_a_connection(made: Mapping[str, str]) -> None:
    assert set(made) == set(evidently.NAMES)
    assert all("lag_0" in html for html in [made[evidently.DATA_DRIFT]])
    assert all(len(html.encode()) < 12_000_000 for html in made.values())


@with_evidently
@pytest.mark.evidently
@pytest.mark.slow
def test_a_browser_is_told_to_load_nothing(made: Mapping[str, str]) -> None:
    for html in made.values():
        policy = html[: html.index("<style")]
        assert "default-src 'none'" in policy
        assert policy.startswith("<!DOCTYPE html>")
        loaded = [found for found in Page(html[: html.index("<script")]).addresses if found]
        assert loaded == []


@with_evidently
@pytest.mark.evidently
@pytest.mark.slow
def test_our_psi_agrees_with_evidentlys_where_bins_are_the_same_in_kind() -> None:
    """Both are the same sum over bins, ours between deciles and Evidently's of even width (Sturges).

    For samples that differ by a shift they agree within a fifth, and on whether there is one; the Wasserstein
    distance has no bins and agrees to the digit.
    """
    from evidently.legacy.calculations.stattests import psi_stat_test, wasserstein_stat_test
    from evidently.legacy.core import ColumnType

    rng = np.random.default_rng(9)
    reference = rng.normal(size=20_000)
    for shift in (0.0, 0.2, 0.5, 1.0):
        current = rng.normal(loc=shift, size=20_000)
        ours = distance(current, reference, (len(current), len(reference)))
        sides = pd.Series(reference), pd.Series(current)
        psi = psi_stat_test(*sides, ColumnType.Numerical, threshold=0.25)
        moved = wasserstein_stat_test(*sides, ColumnType.Numerical, threshold=0.1)

        assert ours.psi == pytest.approx(psi.drift_score, rel=0.2, abs=0.01)
        assert ours.is_drifted == psi.drifted
        assert ours.wasserstein == pytest.approx(moved.drift_score, rel=1e-6)


@with_evidently
@pytest.mark.evidently
@pytest.mark.slow
def test_the_command_writes_the_files_of_the_newest_cutoff(
    copied: Landed, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in copied.settings.environment().items():
        monkeypatch.setenv(name, value)

    done = CliRunner().invoke(app, ["evidently"])

    assert done.exit_code == 0, done.stderr
    paths = [Path(line) for line in done.stdout.split()]
    assert {path.stem for path in paths} == set(evidently.NAMES)
    assert all(path.is_file() for path in paths)
    assert {path.parent.parent for path in paths} == {copied.settings.evidently_pages_path}
    data = re.search(r"var (\w+) = (\{.*\});\n", paths[0].read_text("utf-8"))
    assert data is not None
    assert json.loads(data.group(2))["widgets"]
