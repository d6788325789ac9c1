"""The search for hyper-parameters: its windows, its trials, what is kept, and how it is logged."""

import dataclasses
import io
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from turnover_assets.cli import app
from turnover_assets.core import tuning
from turnover_assets.core.backtest import compared_cutoffs
from turnover_assets.core.calendar import label_of
from turnover_assets.core.features import feature_names
from turnover_assets.core.ledger import Ledger
from turnover_assets.core.models import candidate_class, make_candidate
from turnover_assets.core.repairs import Repairs
from turnover_assets.core.rows import RowLimits
from turnover_assets.core.search_spaces import SPACES, Range, search_space
from turnover_assets.core.training import entrants
from turnover_assets.core.trials import Search, Trial
from turnover_assets.core.tuned import Tuned, keep_tuned, read_tuned
from turnover_assets.core.tuning import Budget, search
from turnover_assets.core.tuning_pictures import search_picture
from turnover_assets.core.tuning_windows import tuning_cutoffs, usable_windows, window_wape
from turnover_assets.core.windows import Window, make_windows, recent_cutoffs
from turnover_assets.defs import common
from turnover_assets.defs.tuning import TuningConfig, windows_before_comparison
from turnover_assets.errors import TurnoverError, UnknownNameError
from turnover_assets.panel import PanelSpec
from turnover_assets.settings import load_settings
from turnover_assets.storage import _mlflow
from turnover_assets.storage.registry_peek import champion_of
from turnover_assets.storage.search_log import PARENT_TAG, experiment_name, search_log
from turnover_assets.storage.warehouse import Warehouse
from turnover_assets_tests.factories import (
    default_history,
    default_panel,
    insert_frames,
    make_panel,
    memory_warehouse,
)
from turnover_assets_tests.model_factories import make_registry

CHEAP = "seasonal_regression"  # a candidate that is fitted at once
LIMITS = RowLimits(0.3, 3000, 4)


# Windows -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bare() -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection for histories of which only the first period matters."""
    with memory_warehouse() as con:
        yield con


def begin(con: duckdb.DuckDBPyConnection, first: int) -> None:
    con.execute(f"CREATE OR REPLACE TABLE cleaned.sales AS SELECT {first} AS t")


@given(
    first=st.integers(0, 500),
    before=st.integers(50, 400),
    windows=st.integers(2, 12),
    horizon=st.integers(1, 20),
)
def test_windows_end_before_the_compared_ones_and_never_overlap(
    bare: duckdb.DuckDBPyConnection, first: int, before: int, windows: int, horizon: int
) -> None:
    panel, oldest = make_panel(horizon=horizon), first + before
    begin(bare, first)
    if before < 52 + 2 * horizon:
        with pytest.raises(TurnoverError, match=f"{52 + 2 * horizon} periods are needed before"):
            tuning_cutoffs(bare, panel, (oldest, oldest + horizon), windows)
        return

    found = tuning_cutoffs(bare, panel, (oldest, oldest + horizon), windows)

    targets = [{*range(cutoff + 1, cutoff + horizon + 1)} for cutoff in found]
    assert max(targets[-1]) == oldest  # the compared windows' first target is the period after it
    assert sum(map(len, targets)) == len(set().union(*targets))
    assert list(found) == sorted(found)
    assert found[0] >= first + 52
    assert 2 <= len(found) <= windows
    assert len(found) == windows or before - 52 < (len(found) + 1) * horizon


@pytest.mark.parametrize(
    ("compared", "expected"), [(200, (153, 166, 179, 192)), (85, (53, 61, 69, 77))], ids=["long", "short"]
)
def test_windows_spread_over_a_season_where_history_has_room(
    bare: duckdb.DuckDBPyConnection, compared: int, expected: tuple[int, ...]
) -> None:
    begin(bare, 0)

    assert tuning_cutoffs(bare, make_panel(horizon=8), (compared, compared + 8), 4) == expected


@pytest.fixture(scope="module")
def made() -> tuple[PanelSpec, tuple[Window, ...]]:
    """Two windows of a small panel."""
    panel = default_panel()
    with memory_warehouse() as con:
        insert_frames(con, panel, default_history())
        (compared, *_) = recent_cutoffs(con, panel, 1, 4)
        cutoffs = tuning_cutoffs(con, panel, (compared,), 2)
        windows = usable_windows(make_windows(con, panel, cutoffs, LIMITS, Repairs(Ledger(), 4.0, 4)))
    return panel, windows


def test_windows_that_cannot_tell_parameters_apart_are_left_out(
    made: tuple[PanelSpec, tuple[Window, ...]],
) -> None:
    _, windows = made
    nothing_sold = windows[0].scoring.identity.assign(reported=0.0)
    silent = dataclasses.replace(
        windows[0], scoring=dataclasses.replace(windows[0].scoring, identity=nothing_sold)
    )
    few = dataclasses.replace(
        windows[0], training=windows[0].training.where(np.arange(len(windows[0].training)) < 199)
    )

    assert [w.cutoff for w in usable_windows([silent, few, *windows])] == [w.cutoff for w in windows]
    with pytest.raises(TurnoverError, match=r"Only 1 of the windows .* have 200 training rows"):
        usable_windows([silent, few, windows[0]])


def test_the_wape_of_a_window_is_that_of_what_was_reported(
    made: tuple[PanelSpec, tuple[Window, ...]],
) -> None:
    window = made[1][0]
    twice = window.scoring.identity.assign(in_force=2.0)
    window = dataclasses.replace(window, scoring=dataclasses.replace(window.scoring, identity=twice))
    candidate = make_candidate(candidate_class(CHEAP))

    found = window_wape(candidate, window, nonnegative=True, seed=1, threads=1)

    forecasts = candidate.predict(window.scoring)
    wrong = total = 0.0
    for forecast, reported in zip(forecasts, window.scoring.identity["reported"], strict=True):
        if not np.isnan(reported):
            wrong += abs(max(float(forecast), 0.0) * 2.0 - reported)
            total += abs(reported)
    assert found == pytest.approx(wrong / total)


# Search spaces -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(SPACES))
def test_a_space_names_parameters_that_the_candidate_has_and_holds_its_own_values(name: str) -> None:
    own: Mapping[str, Any] = make_candidate(candidate_class(name)).parameters()

    for parameter, found in search_space(name).items():
        assert found.low < found.high, parameter
        assert found.low <= own[parameter] <= found.high, parameter
        assert isinstance(own[parameter], int) == found.whole, parameter


def test_a_candidate_without_a_space_is_refused_with_those_that_have_one() -> None:
    with pytest.raises(UnknownNameError, match=r"seasonal_naive.*xgboost"):
        search_space("seasonal_naive")


def test_a_range_is_widened_to_hold_known_values() -> None:
    narrow = Range(1.0, 3.0, log=True, whole=True)

    assert narrow.with_values([2, 7]) == Range(1.0, 7, log=True, whole=True)
    assert narrow.with_values([0.5]) == Range(0.5, 3.0, log=True, whole=True)


# Search ------------------------------------------------------------------------------------------


def run(made: tuple[PanelSpec, tuple[Window, ...]], budget: Budget, **options: Any) -> Search:
    panel, windows = made
    return search(windows, panel, CHEAP, budget, **{"seed": 5, "threads": 1, **options})


def judged(found: Search) -> list[Trial]:
    return [dataclasses.replace(trial, seconds=0.0) for trial in found.trials]


def test_the_own_parameters_come_first_and_the_best_is_never_worse(
    made: tuple[PanelSpec, tuple[Window, ...]],
) -> None:
    panel, windows = made
    own = make_candidate(candidate_class(CHEAP))
    told: list[Trial] = []

    found = run(made, Budget(4), told=told.append)

    nonnegative = panel.series.target.nonnegative
    wapes = [window_wape(own.unfitted(), w, nonnegative=nonnegative, seed=5, threads=1) for w in windows]
    assert found.own.parameters == {key: own.parameters()[key] for key in SPACES[CHEAP]}
    assert found.own.wapes == tuple(wapes)
    assert found.own.wape == pytest.approx(sum(wapes) / 2)
    assert found.best.wape <= found.own.wape
    assert tuple(told) == found.trials
    assert (found.cutoffs, found.until) == (
        tuple(w.cutoff for w in windows),
        windows[-1].cutoff + panel.horizon,
    )


def test_the_same_seed_gives_the_same_search_and_another_seed_another(
    made: tuple[PanelSpec, tuple[Window, ...]],
) -> None:
    first = run(made, Budget(5))

    assert judged(run(made, Budget(5, seconds=600))) == judged(first)
    assert judged(run(made, Budget(5), seed=6))[0] == judged(first)[0]
    assert run(made, Budget(5), seed=6).trials[1].parameters != first.trials[1].parameters


def test_parameters_in_use_are_tried_again_even_outside_the_space(
    made: tuple[PanelSpec, tuple[Window, ...]],
) -> None:
    own = make_candidate(candidate_class(CHEAP)).parameters()

    found = run(made, Budget(3), in_use={"ridge": 25.0, "of_an_older_release": 1})

    assert [trial.parameters for trial in found.trials[:2]] == [
        {"ridge": own["ridge"], "memory": own["memory"]},
        {"ridge": 25.0, "memory": own["memory"]},
    ]


def test_no_time_is_time_for_the_own_parameters(made: tuple[PanelSpec, tuple[Window, ...]]) -> None:
    found = run(made, Budget(50, seconds=0.0))

    assert [trial.number for trial in found.trials] == [0]
    assert (found.gain, found.accepted) == (0.0, False)


def test_a_trial_that_does_worse_than_the_median_is_given_up_however_hard_the_windows_are(
    made: tuple[PanelSpec, tuple[Window, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    hard = {200 + i: 0.1 * 2**i for i in range(4)}  # the first window is the easiest, for every trial
    windows = [dataclasses.replace(made[1][0], cutoff=cutoff) for cutoff in hard]

    def invented(candidate: Any, window: Window, **_: Any) -> float:
        return hard[window.cutoff] * (1 + abs(np.log(candidate.parameters()["ridge"] / 0.3)))

    monkeypatch.setattr(tuning, "window_wape", invented)

    found = run((made[0], tuple(windows)), Budget(25))

    whole = [trial for trial in found.trials if not trial.pruned]
    assert len(found.trials) == 25
    assert all(len(trial.wapes) == 4 for trial in whole)
    given_up = [trial for trial in found.trials if trial.pruned]
    assert 5 <= len(given_up) <= 19
    assert all(2 <= len(trial.wapes) < 4 and trial.number >= 5 for trial in given_up)
    worst_kept = max(trial.wape for trial in whole if trial.number >= 15)
    assert worst_kept < found.own.wape
    assert found.best.wape == min(trial.wape for trial in whole)
    assert found.best.parameters["ridge"] == pytest.approx(0.3, rel=0.5)


def test_without_optuna_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)

    with pytest.raises(TurnoverError, match=r"pip install 'turnover-assets\[tuning\]'"):
        tuning.require_optuna()


# What is kept ------------------------------------------------------------------------------------


def searched(own: Sequence[float], best: Sequence[float]) -> Search:
    pruned = Trial(2, {"ridge": 9.0}, (0.01,), True, 1.0)
    trials = (
        Trial(0, {"ridge": 1.0}, tuple(own), False, 1.0),
        Trial(1, {"ridge": 2.0}, tuple(best), False, 1.0),
        pruned,
    )
    return Search("xgboost", tuple(range(100, 100 + len(own))), 110, trials)


@pytest.mark.parametrize(
    ("own", "best", "accepted"),
    [
        ((0.2, 0.2, 0.2), (0.19, 0.19, 0.19), True),
        ((0.2, 0.2, 0.2), (0.1981, 0.1981, 0.1981), False),
        ((0.2, 0.2, 0.2), (0.1979, 0.1979, 0.1979), True),
        ((0.2, 0.2, 0.2), (0.1, 0.2, 0.2), False),
        ((0.2, 0.2, 0.2, 0.2), (0.1, 0.1, 0.2, 0.2), False),
        ((0.2, 0.2, 0.2), (0.1, 0.19, 0.21), True),
        ((0.2, 0.2), (0.3, 0.3), False),
    ],
    ids=["better", "hardly", "just enough", "one window", "half of them", "two of three", "worse"],
)
def test_tuned_parameters_are_kept_if_better_by_a_margin_on_most_windows(
    own: Sequence[float], best: Sequence[float], accepted: bool
) -> None:
    found = searched(own, best)

    assert found.accepted is accepted
    assert found.result(Tuned()) == Tuned({"xgboost": {"ridge": 2.0}} if accepted else {}, 110)
    assert ("The next training uses the tuned" in found.sentence()) is accepted
    assert ("The own parameters stay." in found.sentence()) is not accepted


def test_the_sentence_names_the_figures() -> None:
    said = searched((0.2, 0.2, 0.2), (0.1, 0.1, 0.3)).sentence()

    assert said.startswith(
        "The best of 3 trials has WAPE 16.67%, the own parameters of xgboost 20.00%: 16.7% less, on 2 of 3 "
        "windows (at least 1% and most windows are needed)."
    )


def test_other_candidates_keep_what_they_had_and_the_last_period_seen_only_grows() -> None:
    before = Tuned({"blend": {"a": 1}, "xgboost": {"ridge": 7.0}}, 130)

    better = searched((0.2, 0.2, 0.2), (0.1, 0.1, 0.1)).result(before)
    worse = searched((0.2, 0.2, 0.2), (0.3, 0.3, 0.3)).result(dataclasses.replace(before, until=90))

    assert better == Tuned({"blend": {"a": 1}, "xgboost": {"ridge": 2.0}}, 130)
    assert worse == Tuned({"blend": {"a": 1}}, 110)


def test_the_next_training_makes_candidates_and_parts_of_a_blend_with_what_was_kept(
    con: duckdb.DuckDBPyConnection,
) -> None:
    con.execute("CREATE SCHEMA IF NOT EXISTS reports")
    keep_tuned(con, Tuned({CHEAP: {"ridge": 0.125}}, 90))
    keep_tuned(con, Tuned({CHEAP: {"ridge": 0.25}}, 110))

    tuned = read_tuned(con)
    made = {e.name: e.make().parameters() for e in entrants(tuned.parameters, feature_names(default_panel()))}

    assert tuned.until == 110
    assert made[CHEAP]["ridge"] == 0.25
    assert made["blend"][f"{CHEAP}.ridge"] == 0.25
    assert made["xgboost"] == make_candidate(candidate_class("xgboost")).parameters()


def test_the_table_has_the_best_first_and_those_given_up_last() -> None:
    table = searched((0.2, 0.2), (0.1, 0.1)).table()

    assert table["trial"].tolist() == [1, 0, 2]
    assert table["windows"].tolist() == [2, 2, 1]
    assert table["ridge"].tolist() == [2.0, 1.0, 9.0]


def test_the_picture_is_a_small_png_that_shows_more_where_there_was_more() -> None:
    found = searched((0.2, 0.2), (0.1, 0.1))
    alone = dataclasses.replace(found, trials=found.trials[:1])

    pictures = [search_picture(found), search_picture(alone)]

    assert [Image.open(io.BytesIO(png)).format for png in pictures] == ["PNG", "PNG"]
    assert max(map(len, pictures)) < common.PICTURE_BYTES
    assert pictures[0] != pictures[1]


# MLflow ------------------------------------------------------------------------------------------


def test_a_search_is_a_run_with_a_run_for_each_trial_and_no_model(tmp_path: Path) -> None:
    folder = make_registry(tmp_path / "mlflow").folder

    with search_log(folder, "small", "xgboost", {"dagster_run_id": "7"}) as log:
        log.trial("trial 0", {"rounds": 50}, {"wape": 0.2, "wape_2017-01-07": 0.3}, {"pruned": "false"})
        table = searched((0.2, 0.2), (0.1, 0.1)).table()
        log.outcome({"wape_best": 0.1}, {"rounds": 60}, {"accepted": "true"}, table, b"picture")

    client = _mlflow.connect(folder)
    experiment = client.get_experiment_by_name(experiment_name("small"))
    assert experiment is not None
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert {name: run.info.status for name, run in runs.items()} == dict.fromkeys(
        ["xgboost", "trial 0"], "FINISHED"
    )
    trial, parent = runs["trial 0"], runs["xgboost"]
    assert trial.data.tags[PARENT_TAG] == parent.info.run_id == log.run_id
    assert trial.data.metrics == {"wape": 0.2, "wape_2017-01-07": 0.3}
    assert (trial.data.params, trial.data.tags["pruned"]) == ({"rounds": "50"}, "false")
    assert (parent.data.metrics, parent.data.params) == ({"wape_best": 0.1}, {"rounds": "60"})
    assert (parent.data.tags["dagster_run_id"], parent.data.tags["accepted"]) == ("7", "true")
    assert {file.path for file in client.list_artifacts(log.run_id)} == {"trials.csv", "search.png"}
    assert [model.name for model in client.search_registered_models()] == []


def test_a_search_that_fails_leaves_a_failed_run(tmp_path: Path) -> None:
    folder = make_registry(tmp_path / "mlflow").folder

    with pytest.raises(ZeroDivisionError, match="by zero"), search_log(folder, "small", "xgboost", {}) as log:
        _ = 1 / 0

    assert _mlflow.connect(folder).get_run(log.run_id).info.status == "FAILED"


# The command -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with cleaned tables and nothing else."""
    folder = tmp_path_factory.mktemp("home")
    with warehouse_of(folder).transaction() as con:
        insert_frames(con, default_panel(), default_history())
    make_registry(folder / "mlflow")
    return folder


def warehouse_of(home: Path) -> Warehouse:
    return Warehouse(load_settings(home=home).warehouse_path, 2, "1GB", 60)


@pytest.fixture
def tune(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Call `turnover tune` in a home."""

    def call(home: Path, *arguments: str, **settings: str) -> Result:
        for name, value in {"home": str(home), **settings}.items():
            monkeypatch.setenv(f"TURNOVER_{name.upper()}", value)
        return CliRunner().invoke(app, ["tune", *arguments], catch_exceptions=False)

    return call


def test_what_is_found_is_kept_for_the_next_training_which_decides_on_other_windows(
    home: Path, tune: Callable[..., Result]
) -> None:
    panel = default_panel()

    arguments = ("--trials", "2", "--windows", "2", "--candidate", CHEAP)
    result = tune(home, *arguments, training_share="0.5", backtest_windows="3")

    assert result.exit_code == 0, result.output
    with warehouse_of(home).transaction() as con:
        kept = read_tuned(con)
        compared = compared_cutoffs(recent_cutoffs(con, panel, 3, 4))
    assert kept.until == min(compared)
    assert (CHEAP in kept.parameters) is ("The next training uses the tuned parameters." in result.stdout)
    assert f"they end with {label_of(panel, min(compared))}" in result.stdout
    assert "trial 1: WAPE" in result.stderr
    assert champion_of(home / "mlflow", panel.name) is None


@pytest.mark.parametrize(
    ("frames", "problem"),
    [({}, "Run `turnover run` first"), (default_history(), "TURNOVER_TRAINING_SHARE")],
    ids=["nothing cleaned", "too few rows"],
)
def test_what_cannot_be_searched_on_is_refused_with_what_to_do(
    con: duckdb.DuckDBPyConnection, tmp_path: Path, frames: dict[str, pd.DataFrame], problem: str
) -> None:
    settings = load_settings(home=tmp_path, training_share=0.01, backtest_windows=3)
    if frames:
        insert_frames(con, settings.panel_spec, frames)

    with pytest.raises(TurnoverError, match=problem):
        windows_before_comparison(con, settings, TuningConfig(windows=2))


def test_the_rows_of_a_window_are_bounded(con: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path, training_share=0.5, backtest_windows=3)
    insert_frames(con, settings.panel_spec, default_history())

    found = windows_before_comparison(con, settings, TuningConfig(windows=2, max_rows=1000))

    assert [200 < len(window.training) <= 1000 for window in found] == [True, True]
