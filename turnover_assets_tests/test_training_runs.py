"""When a run trains and when it only forecasts, and what a refused challenger and changes by hand lead to."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import numpy as np
import pandas as pd
import pytest

from turnover_assets.defs import common, jobs
from turnover_assets.runner import Outcome, bring_up_to_date
from turnover_assets.storage.registry import ModelRegistry, TrainingRecord
from turnover_assets.storage.snapshots import current
from turnover_assets_tests.factories import TURNOVER_HEADER, Landed, next_week, quiet, settings_for

KEYS = ["store", "department"]


def registry_of(home: Landed) -> ModelRegistry:
    return ModelRegistry(home.settings.mlflow_path, home.settings.panel_spec.name)


def run(home: Landed, **settings: Any) -> Outcome:
    """Bring a home up to date with some settings changed."""
    return bring_up_to_date(settings_for(home.settings.home, **settings), home.folder, quiet)


def jobs_of(home: Landed) -> list[str]:
    """The jobs that ran in a home, oldest first."""
    with dg.DagsterInstance.from_config(str(home.settings.dagster_path)) as instance:
        return [str(run.job_name) for run in reversed(instance.get_runs())]


def newest_run_tags(home: Landed) -> Mapping[str, str]:
    with dg.DagsterInstance.from_config(str(home.settings.dagster_path)) as instance:
        (newest,) = instance.get_runs(limit=1)
    return newest.tags


def published(home: Landed, table: str) -> pd.DataFrame:
    return current(home.settings.published_path).read(table)


def versions(home: Landed) -> list[int]:
    return [found.version for found in registry_of(home).versions()]


def land(home: Landed, name: str, content: str) -> None:
    (home.folder / name).write_text(content)


def restate(home: Landed, factor: float) -> None:
    """Land another value for one series in the middle of its history."""
    sold = published(home, "turnover").sort_values(["week", *KEYS])
    row = sold.iloc[len(sold) // 2]
    week, value = f"{row.week:%Y-%m-%d}", row.turnover * factor + 1
    land(home, "restated.csv", f"{TURNOVER_HEADER}{week},{row.store},{row.department},{value:.2f}\n")


# Not due -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_new_week_is_forecast_with_the_champion_alone(copied: Landed) -> None:
    before = current(copied.settings.published_path)
    with dg.DagsterInstance.from_config(str(copied.settings.dagster_path)) as instance:
        trained = [instance.get_latest_materialization_event(key) for key in jobs.TRAINING_ONLY]
    land(copied, "new.csv", next_week(copied))

    outcome = run(copied)

    after = current(copied.settings.published_path)
    assert jobs_of(copied) == [jobs.INGEST, jobs.RETRAIN, jobs.INGEST, jobs.REFRESH]
    assert versions(copied) == [1]
    assert after.facts["cutoff"] > before.facts["cutoff"]
    assert set(after.read("forecasts")["model_version"]) == {1}
    pd.testing.assert_frame_equal(after.read("backtest"), before.read("backtest"))
    with dg.DagsterInstance.from_config(str(copied.settings.dagster_path)) as instance:
        assert trained == [instance.get_latest_materialization_event(key) for key in jobs.TRAINING_ONLY]
        verdict = common.latest_metadata(instance, common.RETRAINING)
    assert (verdict["due"], verdict["sentence"]) == (False, outcome.training)
    assert outcome.training.startswith("Not due: the newest model is 1 of 8 periods old; ")
    history = after.read("forecast_history")
    assert history["cutoff"].astype(str).unique().tolist() == [before.facts["cutoff"], after.facts["cutoff"]]
    assert set(history["role"]) == {"champion", "baseline"}


# Due ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_refused_challenger_forecasts_beside_the_champion_and_is_judged_by_that_later(
    copied: Landed,
) -> None:
    """Trained twice, at both times a copy of the champion comes of it, which is no better."""
    land(copied, "week_1.csv", next_week(copied))
    first = run(copied, retrain_every=1)
    once = current(copied.settings.published_path)
    land(copied, "week_2.csv", next_week(copied, ahead=2))

    second = run(copied, retrain_every=1)

    told = "Done: The newest model was trained 1 periods ago (limit 1)."
    assert (first.training, second.training) == (told, told)
    assert jobs_of(copied)[2:] == [jobs.INGEST, jobs.REFRESH, jobs.RETRAIN] * 2
    assert newest_run_tags(copied)[jobs.TRAINING_TAG] == "age"
    registry = registry_of(copied)
    assert versions(copied) == [1, 2, 3]
    assert (registry.champion_version(), registry.challenger_version()) == (1, 3)
    history = published(copied, "forecast_history")
    roles = history[history["cutoff"].astype(str) == once.facts["cutoff"]].groupby("role")["model_version"]
    assert roles.unique().map(list).to_dict() == {"baseline": [0], "challenger": [2], "champion": [1]}
    assert "live_wape" not in once.read("gate_checks")["check"].tolist()
    checks = published(copied, "gate_checks").set_index("check")
    assert checks.loc["live_wape", "challenger"] == pytest.approx(live_wape(copied, "challenger"))
    assert checks.loc["live_wape", "champion"] == pytest.approx(live_wape(copied, "champion"))
    assert set(published(copied, "forecasts")["model_version"]) == {1}
    assert published(copied, "retraining")["due"].tolist() == [False, True, False, True, False]


def live_wape(home: Landed, role: str) -> float:
    """WAPE of what a role forecast for the newest week when it was one week ahead."""
    history, sold = published(home, "forecast_history"), published(home, "turnover")
    rows = history[(history["role"] == role) & (history["horizon"] == 1)]
    rows = rows[rows["week"] == history["cutoff"].max()].merge(sold, on=[*KEYS, "week"])
    return float((rows["forecast"] - rows["turnover"]).abs().sum() / rows["turnover"].abs().sum())


@pytest.mark.slow
def test_history_that_changed_by_more_than_the_limit_is_learned_again(copied: Landed) -> None:
    restate(copied, 1.5)

    outcome = run(copied, retrain_changed_share=1e-6)
    again = run(copied, retrain_changed_share=1e-6)

    assert outcome.training.startswith("Done: 0.")
    assert "of the history that the newest model was trained on has changed since" in outcome.training
    assert newest_run_tags(copied)[jobs.TRAINING_TAG] == "history"
    assert versions(copied) == [1, 2]
    assert not again.changed
    assert "0.0% of its history changed" in again.training


@pytest.mark.slow
def test_settings_that_change_numbers_ask_for_a_training_once(copied: Landed) -> None:
    outcome = run(copied, seed=7)
    again = run(copied, seed=7)

    assert jobs_of(copied)[-2:] == [jobs.REFRESH, jobs.RETRAIN]
    assert newest_run_tags(copied)[jobs.TRAINING_TAG] == "settings"
    assert outcome.training.startswith("Done: Settings that change numbers are not those")
    assert "trained with: TURNOVER_SEED is 7, was 20260101." in outcome.training
    assert versions(copied) == [1, 2]
    assert not again.changed


@pytest.mark.slow
def test_where_the_champion_cannot_be_used_another_one_is_trained_before_anything_is_forecast(
    copied: Landed,
) -> None:
    next(copied.settings.mlflow_path.rglob("model.json")).write_text("{}")
    land(copied, "new.csv", next_week(copied))

    outcome = run(copied)

    assert jobs_of(copied)[2:] == [jobs.INGEST, jobs.RETRAIN]
    assert outcome.training.startswith("Done: The files of model version 1 in ")
    assert registry_of(copied).champion_version() == 2
    assert set(published(copied, "forecasts")["model_version"]) == {2}


@pytest.mark.slow
def test_a_training_that_was_asked_for_is_made_whatever_the_policy_says(copied: Landed) -> None:
    outcome = bring_up_to_date(copied.settings, copied.folder, quiet, retrain=True)

    assert jobs_of(copied)[2:] == [jobs.RETRAIN]
    assert outcome.training == "Done: It was asked for."
    assert versions(copied) == [1, 2]


# By hand -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_promotion_and_rollback_by_hand_are_published_by_the_next_run(copied: Landed) -> None:
    registry, nothing = registry_of(copied), TrainingRecord({}, {}, {}, {}, {})
    version = registry.register(registry.load(1), nothing)
    found = []

    for change in (
        lambda: registry.promote(version, by="anna", reason="to try"),
        lambda: registry.rollback(by="anna", reason="tried"),
    ):
        change()
        outcome = run(copied)
        found.append((outcome.refreshed, current(copied.settings.published_path).facts["model"]["version"]))

    assert found == [(True, 2), (True, 1)]
    assert jobs_of(copied)[2:] == [jobs.REFRESH, jobs.REFRESH]
    assert versions(copied) == [1, 2]
    assert not run(copied).changed


# What is published -------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["total", "department", "store", "region"])
def test_sums_are_the_sums_of_their_parts(landed: Landed, level: str) -> None:
    snapshot = current(landed.settings.published_path)
    sums, parts = snapshot.read("aggregates"), snapshot.read("forecasts")
    stores = landed.retailer.stores.rename(columns={"but_num_business_unit": "store"})
    parts = parts.merge(stores.rename(columns={"but_region_idr_region": "region"}), on="store")
    by = ["week", "horizon"] if level == "total" else [level, "week", "horizon"]

    sums = sums[sums["level"] == level]
    expected = parts.groupby(by)["forecast"].agg(["sum", "size"]).reset_index()

    found = sums.assign(member=sums["member"].astype(str)).sort_values(["member", "horizon"])
    member = expected[level].astype(str) if level != "total" else ""
    expected = expected.assign(member=member).sort_values(["member", "horizon"])
    assert found["member"].tolist() == expected["member"].tolist()
    assert found["week"].tolist() == expected["week"].tolist()
    assert found["forecast"].to_numpy() == pytest.approx(expected["sum"].to_numpy())
    assert found["parts"].tolist() == expected["size"].tolist()


def test_bounds_of_sums_are_in_order_and_not_those_of_their_parts_added_up(landed: Landed) -> None:
    snapshot = current(landed.settings.published_path)
    sums, parts = snapshot.read("aggregates"), snapshot.read("forecasts")

    bounds = sums[["lower_95", "lower_80", "forecast", "upper_80", "upper_95"]].to_numpy()

    assert (bounds[:, 1:] >= bounds[:, :-1]).all()
    total = sums[sums["level"] == "total"]
    added = parts.groupby("horizon")[["lower_80", "upper_80"]].sum()
    widths = [(table["upper_80"] - table["lower_80"]).to_numpy() for table in (total, added)]
    assert (np.abs(widths[0] / widths[1] - 1) > 0.01).all()


def test_the_published_backtest_has_the_columns_of_the_command_and_of_whom_it_judges(landed: Landed) -> None:
    snapshot = current(landed.settings.published_path)

    rows = snapshot.read("backtest")

    bounds = ["lower_80", "upper_80", "lower_95", "upper_95"]
    assert list(rows.columns) == [
        *KEYS,
        "cutoff",
        "week",
        "horizon",
        "actual",
        "forecast",
        *bounds,
        "model",
    ]
    assert set(rows["model"]) == {"blend", "seasonal_naive"}
    assert not rows.duplicated([*KEYS, "cutoff", "horizon", "model"]).any()
    assert rows["forecast"].notna().all()
    assert (rows[bounds].notna().all(axis=1) == (rows["model"] == "blend")).all()
    blend = rows[(rows["model"] == "blend") & rows["actual"].notna()]
    wape = (blend["forecast"] - blend["actual"]).abs().sum() / blend["actual"].abs().sum()
    assert snapshot.facts["model"]["wape"] == pytest.approx(wape)
    accuracy = snapshot.read("backtest_accuracy")
    total = accuracy[
        (accuracy["scope"] == "total")
        & (accuracy["basis"] == "series")
        & (accuracy["model"] == "blend")
        & accuracy["cutoff"].isna()
    ]
    assert total["wape"].tolist() == pytest.approx([wape])
    sums = snapshot.read("backtest_aggregates")
    assert set(accuracy["cutoff"].dropna()) == set(rows["cutoff"]) <= set(sums["cutoff"])
    assert set(rows["week"]) <= set(sums["week"])


DOCUMENTED = Path(__file__).resolve().parent.parent / "docs" / "concepts.md"
COLUMNS = {
    "aggregates": "level member cutoff week horizon forecast lower_80 upper_80 lower_95 upper_95 parts",
    "accuracy": "model wape bias windows training_rows scored_rows fit_seconds chosen",
    "gate_checks": "check challenger champion limit passed finding",
    "retraining": "decided_at cutoff run_id due cause sentence periods_since_training changed_share "
    "live_ratio promised_ratio live_periods drifted_share live_bias tracking_signal",
    "forecast_history": "store department cutoff week horizon forecast lower_80 upper_80 lower_95 upper_95 "
    "model_version role made_at",
}


@pytest.mark.parametrize("name", list(COLUMNS))
def test_tables_have_the_columns_that_are_documented(landed: Landed, name: str) -> None:
    assert list(published(landed, name).columns) == COLUMNS[name].split()


def floats_without_a_figure(path: Path) -> dict[str, tuple[int, int]]:
    """How many values of each column of floats are NaN, and how many NULL."""
    with duckdb.connect() as con:
        described = con.execute(f"DESCRIBE FROM read_parquet('{path}')").fetchall()
        names = [row[0] for row in described if row[1] in ("DOUBLE", "FLOAT")]
        if not names:
            return {}
        counts = ", ".join(f'count_if(isnan("{name}")), count_if("{name}" IS NULL)' for name in names)
        found = con.execute(f"SELECT {counts} FROM read_parquet('{path}')").fetchall()[0]
    return {name: (found[2 * i], found[2 * i + 1]) for i, name in enumerate(names)}


def test_a_figure_that_does_not_exist_is_null_in_every_published_table(landed: Landed) -> None:
    snapshot = current(landed.settings.published_path)

    found = {name: floats_without_a_figure(snapshot.path(name)) for name in snapshot.facts["tables"]}

    nans = [f"{name}.{column}" for name, table in found.items() for column, (nan, _) in table.items() if nan]
    assert nans == []
    assert found["gate_checks"]["champion"][1] > 0


def test_every_published_table_is_documented(landed: Landed) -> None:
    _, _, section = DOCUMENTED.read_text("utf-8").partition("\n## Published tables\n")
    rows = [line for line in section.splitlines() if line.startswith("| `")]

    asked_for = {"forecasts_as_of"}
    published_here = set(current(landed.settings.published_path).facts["tables"])
    assert {row.split("`")[1] for row in rows} == published_here | asked_for
