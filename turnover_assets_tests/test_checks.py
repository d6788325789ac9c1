"""Checks in Dagster: what a failed one holds up and says, what is put on record, and what counts as fresh."""

import asyncio
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.freshness_evaluator import TimeWindowFreshnessPolicyEvaluator
from dagster._core.loader import LoadingContext
from dagster._core.test_utils import freeze_time

from turnover_assets.core import table_rules
from turnover_assets.definitions import build_definitions
from turnover_assets.defs import checks, common, jobs
from turnover_assets.defs.resources import build_warehouse
from turnover_assets.errors import TurnoverError
from turnover_assets.runner import bring_up_to_date
from turnover_assets.settings import Settings, load_settings
from turnover_assets.storage.snapshots import current
from turnover_assets_tests.factories import Landed, daily, next_week, quiet, settings_for, walmart_like

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def evaluations(settings: Settings, name: str) -> list[dg.AssetCheckEvaluation]:
    """What a check gave in each run of a home, the newest first."""
    with dg.DagsterInstance.from_config(str(settings.dagster_path)) as instance:
        logs = [
            entry.dagster_event
            for run in instance.get_runs()
            for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
        ]
    found = [event.asset_check_evaluation_data for event in logs if event is not None]
    return [evaluation for evaluation in found if evaluation.check_name == name]


@pytest.mark.slow
def test_a_part_of_a_week_holds_up_publishing_until_the_rest_has_landed(copied: Landed) -> None:
    published, before = copied.settings.published_path, current(copied.settings.published_path).name
    header, *rows = next_week(copied).splitlines(keepends=True)
    (copied.folder / "zz_1.csv").write_text("".join([header, *rows[: len(rows) // 3]]))

    with pytest.raises(
        TurnoverError, match=r"(?s)was published before stays.*coverage.*Land the rest"
    ) as held:
        bring_up_to_date(copied.settings, copied.folder, quiet)
    after_part = current(published).name
    (copied.folder / "zz_2.csv").write_text("".join([header, *rows[len(rows) // 3 :]]))
    bring_up_to_date(copied.settings, copied.folder, quiet)

    assert "TURNOVER_MINIMUM_COVERAGE" in str(held.value)
    assert after_part == before
    record = current(published).read("checks")
    record = record[record["check_name"] == "coverage"]
    assert record["passed"].tolist() == [True, False, True]
    assert record["figure"].tolist() == [1.0, pytest.approx(1 / 3, abs=0.03), 1.0]
    assert record["landed_version"].nunique() == record["run_id"].nunique() == 3
    assert record["landed_version"].iloc[-1] == current(published).facts["landed_version"]
    _newest, failed, _first = evaluations(copied.settings, "coverage")
    assert (failed.passed, failed.blocking, failed.severity) == (False, True, dg.AssetCheckSeverity.ERROR)
    assert "Land the rest" in str(failed.description)
    assert {name: value.value for name, value in failed.metadata.items() if name in ("figure", "limit")} == {
        "figure": pytest.approx(1 / 3, abs=0.03),
        "limit": "at least 0.5",
    }
    assert str(failed.metadata["examples"].value).startswith("| store | department |")
    assert str(failed.metadata["past_figures"].value).count("\n") == 3  # a head, its rule, and two runs


def test_the_checks_of_a_run_open_the_warehouse_once_a_group(plain: Landed) -> None:
    with dg.DagsterInstance.from_config(str(plain.settings.dagster_path)) as instance:
        (run,) = instance.get_runs(dg.RunsFilter(job_name=jobs.RETRAIN))
        steps = {stats.step_key for stats in instance.get_run_step_stats(run.run_id)}

    assert {step for step in steps if step.startswith("check")} == {
        "check_cleaned",
        "check_findings",
        "check_forecasts",
    }


@pytest.mark.parametrize("panel", [walmart_like(), daily()], ids=lambda panel: panel.name)
def test_every_rule_of_a_panel_is_a_check_of_an_asset_there_is(tmp_path: Path, panel: Any) -> None:
    settings = settings_for(tmp_path)
    settings.__dict__["panel_spec"] = panel  # as the cached property would keep it

    graph = build_definitions(settings).resolve_asset_graph()

    rules = [*table_rules.cleaned_rules(panel, 0.5, 0.9), *table_rules.forecast_rules(panel)]
    found = {(key.asset_key.to_user_string(), key.name) for key in graph.asset_check_keys}
    assert found >= {(rule.asset, rule.name) for rule in rules}
    assert {key.asset_key for key in graph.asset_check_keys} <= set(graph.get_all_asset_keys())


def test_new_findings_are_named_once_in_a_warning(copied: Landed) -> None:
    @dg.asset(key=["cleaned", "findings"])
    def findings() -> None:
        """Made below."""

    settings = copied.settings
    with build_warehouse(settings).open().transaction() as con:
        con.execute(
            "CREATE OR REPLACE TABLE cleaned.findings AS SELECT 'abc' AS finding_id, 9.0 AS strength, "
            "'Department 7 is reported at twice its level.' AS sentence"
        )
    made = dg.Definitions(
        assets=[findings],
        asset_checks=[c for c in checks.build(settings) if c.node_def.name == "check_findings"],
        resources={"warehouse": build_warehouse(settings)},
    )
    job = made.resolve_implicit_global_asset_job_def()

    with dg.DagsterInstance.ephemeral() as instance:
        first, second = (job.execute_in_process(instance=instance, run_config=QUIET) for _ in range(2))

    warned, silent = (run.get_asset_check_evaluations()[0] for run in (first, second))
    assert (warned.passed, warned.severity, warned.blocking) == (False, dg.AssetCheckSeverity.WARN, False)
    assert "Department 7 is reported at twice its level." in str(warned.metadata["examples"].value)
    assert silent.passed
    assert "examples" not in silent.metadata


# Freshness ---------------------------------------------------------------------------------------

WINDOWS = {
    "a week": (None, None, 9, 16),
    "a day": (daily(), None, 3, 4),
    "as set": (None, 2.5, 2.5, 9.5),
}


@pytest.mark.parametrize(("panel", "late", "warn", "fail"), WINDOWS.values(), ids=list(WINDOWS))
def test_data_is_late_after_a_period_and_two_days_or_as_set(
    panel: Any, late: float | None, warn: float, fail: float
) -> None:
    settings = load_settings(late_after_days=late)
    if panel is not None:
        settings.__dict__["panel_spec"] = panel

    policy = common.freshness(settings)

    assert policy == dg.FreshnessPolicy.time_window(timedelta(days=fail), timedelta(days=warn))


class Loading(LoadingContext):
    """What the freshness daemon loads records with."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._instance, self._loaders = instance, {}

    @property
    def instance(self) -> dg.DagsterInstance:
        return self._instance

    @property
    def loaders(self) -> dict[type, Any]:
        return self._loaders


@pytest.mark.parametrize("key", [common.LANDED, common.PUBLISHED], ids=lambda key: key.to_user_string())
def test_an_asset_grows_stale_in_the_eyes_of_the_daemon(plain: Landed, key: dg.AssetKey) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        node = build_definitions(plain.settings).resolve_asset_graph().get(key)

    def state(days: float) -> str:
        with (
            freeze_time(datetime.now(UTC) + timedelta(days=days)),
            dg.DagsterInstance.from_config(str(plain.settings.dagster_path)) as instance,
        ):
            evaluator = TimeWindowFreshnessPolicyEvaluator()
            return asyncio.run(evaluator.evaluate_freshness(Loading(instance), node)).value

    assert [state(days) for days in (0, 8.5, 9.5, 15.5, 16.5)] == ["PASS", "PASS", "WARN", "WARN", "FAIL"]


def test_the_daemon_is_told_to_judge_freshness(plain: Landed) -> None:
    with dg.DagsterInstance.from_config(str(plain.settings.dagster_path)) as instance:
        assert instance.freshness_enabled
        assert "FRESHNESS_DAEMON" in instance.get_required_daemon_types()
