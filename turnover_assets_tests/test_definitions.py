"""The composition root: what Dagster loads, and what a failed check holds up."""

import os
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from turnover_assets.definitions import build_definitions
from turnover_assets.defs import common, jobs
from turnover_assets.defs.partitions import CUTOFFS, LANDED_FILES
from turnover_assets.settings import load_settings
from turnover_assets.storage.home import shipped_file
from turnover_assets.storage.snapshots import current
from turnover_assets.storage.warehouse import Warehouse
from turnover_assets_tests.factories import Landed

CLEANED = common.cleaned_key("turnover")
GROUPS = {"raw", "cleaned", "features", "model", "forecasts", "monitoring", "reports"}
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
Metadata = Mapping[str, dg.MetadataValue]
PICTURE = re.compile(r"data:image/png;base64,([A-Za-z0-9+/=]+)")


@pytest.fixture(scope="module")
def definitions() -> dg.Definitions:
    return build_definitions(load_settings())


@pytest.fixture(scope="module")
def graph(definitions: dg.Definitions) -> Any:
    return definitions.resolve_asset_graph()


@pytest.fixture(scope="module")
def logged(landed: Landed) -> Mapping[dg.AssetKey, Metadata]:
    """Metadata of the newest materialisation of every asset in a home with all candidates."""
    with dg.DagsterInstance.from_config(str(landed.settings.dagster_path)) as instance:
        events = {key: instance.get_latest_materialization_event(key) for key in instance.all_asset_keys()}
    return {
        key: event.asset_materialization.metadata
        for key, event in events.items()
        if event is not None and event.asset_materialization is not None
    }


# Loading -----------------------------------------------------------------------------------------


def test_the_code_location_loads_without_deprecation_warnings(tmp_path: Path) -> None:
    workspace = shipped_file("workspace.yaml")
    environment = {"TURNOVER_HOME": str(tmp_path / "var"), "DAGSTER_HOME": str(tmp_path)}

    done = subprocess.run(
        [sys.executable, "-m", "dagster", "definitions", "validate", "--workspace", str(workspace)],
        env={**os.environ, **environment, "PYTHONWARNINGS": "always"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "turnover_assets" in done.stderr + done.stdout
    assert [line for line in done.stderr.splitlines() if "Deprecat" in line or "Superseded" in line] == []
    assert not (tmp_path / "var").exists()


def test_building_definitions_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")

        build_definitions(load_settings()).resolve_asset_graph()


def test_parts_can_be_replaced_by_keyword(tmp_path: Path) -> None:
    elsewhere = build_definitions(load_settings(home=tmp_path)).resources

    found = build_definitions(load_settings(), warehouse=elsewhere["warehouse"]).resources

    assert found["warehouse"] is elsewhere["warehouse"]
    assert found["registry"] is not elsewhere["registry"]


def test_the_instance_file_has_one_slot_a_pool_and_sends_nothing_home(tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_bytes(shipped_file("dagster.yaml").read_bytes())

    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        pools = instance.get_concurrency_config().pool_config
        assert (pools.default_pool_limit, pools.pool_granularity.value) == (1, "op")
        assert instance.telemetry_enabled is False
        assert instance.run_monitoring_enabled
        assert instance.get_concurrency_config().run_queue_config.max_concurrent_runs == 2


def test_the_workspace_file_names_the_code_location() -> None:
    (entry,) = yaml.safe_load(shipped_file("workspace.yaml").read_text())["load_from"]

    assert entry == {
        "python_module": {
            "module_name": "turnover_assets.definitions",
            "location_name": "turnover_assets",
        }
    }


# Assets, checks, jobs, sensors -------------------------------------------------------------------


def test_every_asset_says_what_it_is_whose_it_is_and_waits_for_the_warehouse(graph: Any) -> None:
    nodes = [graph.get(key) for key in graph.get_all_asset_keys()]

    assert {node.group_name for node in nodes} == GROUPS
    without_pool = {node.key for node in nodes if node.pools != {common.POOL}}
    # A search may take hours, in which forecasts must go on; housekeeping waits for runs, which need it;
    # alerts and workbooks read what is published; Evidently is slow, and reads the warehouse in between.
    reading = {common.ALERTS, common.WORKBOOKS}
    assert without_pool == {common.TUNED, common.HOUSEKEEPING, common.EVIDENTLY, *reading}
    for facet in ("owners", "kinds", "description", "code_version"):
        assert [node.key for node in nodes if not getattr(node, facet)] == [], facet
    assert [node.key for node in nodes if node.key.path[0] != node.group_name] == []


def test_landed_files_and_past_cutoffs_are_the_only_partitions(graph: Any) -> None:
    partitioned = {
        key: graph.get(key).partitions_def
        for key in graph.get_all_asset_keys()
        if graph.get(key).is_partitioned
    }

    assert partitioned == {common.LANDED: LANDED_FILES, common.AS_OF: CUTOFFS}


BLOCKING = {
    "cleaned/turnover": {
        "schema",
        "has_rows",
        "unique_keys",
        "complete_rows",
        "coverage",
        "usual_rows",
        "kept_rows",
    },
    "forecasts/latest": {"every_live_series", "ordered_bounds"},
}


@pytest.mark.parametrize(("asset", "names"), BLOCKING.items(), ids=BLOCKING.keys())
def test_blocking_checks_stand_before_what_is_published(graph: Any, asset: str, names: set[str]) -> None:
    checks = [graph.get(key) for key in graph.asset_check_keys]
    found = {c.key.name for c in checks if c.key.asset_key.to_user_string() == asset and c.blocking}

    assert found == names


def test_every_check_says_what_it_checks(graph: Any) -> None:
    assert [key for key in graph.asset_check_keys if not graph.get(key).description] == []


def test_forecasting_is_all_of_training_but_the_training_itself(
    definitions: dg.Definitions, graph: Any
) -> None:
    ingest, refresh, retrain = (
        set(definitions.resolve_job_def(name).asset_layer.executable_asset_keys)
        for name in (jobs.INGEST, jobs.REFRESH, jobs.RETRAIN)
    )

    assert ingest == {common.LANDED}
    assert not ingest & retrain
    assert retrain - refresh == set(jobs.TRAINING_ONLY)
    assert refresh < retrain
    assert common.PUBLISHED in refresh


def test_every_asset_is_in_a_job(definitions: dg.Definitions, graph: Any) -> None:
    made = [definitions.resolve_job_def(job.name) for job in definitions.jobs or []]

    assert {key for job in made for key in job.asset_layer.executable_asset_keys} == set(
        graph.get_all_asset_keys()
    )


def test_all_sensors_run_from_the_start(definitions: dg.Definitions) -> None:
    statuses = {sensor.name: sensor.default_status for sensor in definitions.sensors or []}

    names = ["landing_sensor", "refresh_sensor", "retrain_sensor", "failed_runs_sensor", "alerts_sensor"]
    assert statuses == dict.fromkeys(names, dg.DefaultSensorStatus.RUNNING)


# Blocking ----------------------------------------------------------------------------------------


CORRUPTIONS = {
    "a repeated key": ("unique_keys", "INSERT INTO cleaned.turnover SELECT * FROM cleaned.turnover LIMIT 1"),
    "an empty value": (
        "complete_rows",
        "UPDATE cleaned.turnover SET turnover = NULL WHERE rowid = (SELECT max(rowid) FROM cleaned.turnover)",
    ),
    "no rows": ("has_rows", "DELETE FROM cleaned.turnover"),
    "a missing column": ("schema", "ALTER TABLE cleaned.turnover DROP COLUMN adjustment_id"),
}


@pytest.mark.parametrize(("check", "corruption"), CORRUPTIONS.values(), ids=CORRUPTIONS.keys())
def test_nothing_below_a_failed_blocking_check_runs(copied: Landed, check: str, corruption: str) -> None:
    with Warehouse(copied.settings.warehouse_path).transaction() as con:
        con.execute(corruption)
    before = current(copied.settings.published_path).name

    result = run_below_cleaned(copied, check)

    failed = [
        e.asset_check_evaluation_data
        for e in result.all_events
        if e.event_type_value == "ASSET_CHECK_EVALUATION"
    ]
    assert [(found.check_name, found.passed) for found in failed] == [(check, False)]
    assert not result.success
    assert list(result.get_asset_materialization_events()) == []
    assert current(copied.settings.published_path).name == before


@pytest.mark.slow
def test_what_stands_below_a_passed_check_is_published(copied: Landed) -> None:
    before = current(copied.settings.published_path).name

    result = run_below_cleaned(copied, "unique_keys")

    assert result.success
    assert current(copied.settings.published_path).name != before


def run_below_cleaned(home: Landed, check: str) -> dg.ExecuteInProcessResult:
    """Run what depends on the cleaned series table, with one check of it, but not the table itself."""
    made = build_definitions(home.settings)
    below = dg.AssetSelection.assets(CLEANED).downstream(include_self=False)
    below -= dg.AssetSelection.assets(common.TUNED, common.AS_OF)  # which need more history, and partitions
    below -= dg.AssetSelection.assets(common.TUNED, common.EVIDENTLY)  # more history, or an extra, is needed
    checked = dg.AssetSelection.checks(dg.AssetCheckKey(CLEANED, check))
    job = dg.define_asset_job("below_cleaned", selection=below | checked)
    whole = dg.Definitions(
        assets=made.assets, asset_checks=made.asset_checks, jobs=[job], resources=made.resources
    )
    with dg.DagsterInstance.from_config(str(home.settings.dagster_path)) as instance:
        return whole.resolve_job_def("below_cleaned").execute_in_process(
            instance=instance,
            raise_on_error=False,
            run_config=QUIET,
        )


# What is logged ----------------------------------------------------------------------------------


def pictures(metadata: Metadata) -> Iterator[str]:
    for value in metadata.values():
        if isinstance(value, dg.MarkdownMetadataValue):
            yield from PICTURE.findall(value.value)


def test_pictures_in_the_event_log_are_small(
    logged: Mapping[dg.AssetKey, Metadata],
) -> None:
    sizes = {key: [len(found) for found in pictures(metadata)] for key, metadata in logged.items()}

    assert {key.to_user_string() for key, found in sizes.items() if found} >= {
        "cleaned/turnover",
        "forecasts/latest",
        "model/backtest",
        "model/challenger",
        "reports/department_turnover",
        "reports/seasonal_profile",
    }
    assert max(size for found in sizes.values() for size in found) < 50_000


def test_every_table_logs_its_rows_and_columns(graph: Any, logged: Mapping[dg.AssetKey, Metadata]) -> None:
    pages = {common.PROFILE_PAGE, common.MONITORING_PAGE, common.WORKBOOKS}
    no_tables = {common.CHALLENGER, common.RETRAINING, common.PUBLISHED, common.ALERTS, *pages}

    for key in set(logged) & set(graph.get_all_asset_keys()) - no_tables:
        rows, schema = logged[key]["dagster/row_count"].value, logged[key]["dagster/column_schema"].value
        assert isinstance(rows, int), key
        assert isinstance(schema, dg.TableSchema), key
        assert schema.columns, key
    assert logged[CLEANED]["dagster/row_count"].value > 0
    assert set(logged) >= {common.BACKTEST, common.CHAMPION, common.FORECASTS, common.AGGREGATES}


@pytest.mark.parametrize("key", [common.BACKTEST, common.CHAMPION, common.FORECASTS, common.AGGREGATES])
def test_columns_of_what_models_make_are_described(
    logged: Mapping[dg.AssetKey, Metadata], key: dg.AssetKey
) -> None:
    panel = load_settings().panel_spec
    spoken_for = {*panel.keys, *panel.level_names, panel.time}  # the panel file says what these are

    columns = logged[key]["dagster/column_schema"].value.columns  # type: ignore[union-attr]

    assert [c.name for c in columns if not c.description and c.name not in spoken_for] == []


def test_no_single_value_in_the_event_log_is_large(
    logged: Mapping[dg.AssetKey, Metadata],
) -> None:
    sizes = {
        (key, name): len(str(value.value)) for key, facts in logged.items() for name, value in facts.items()
    }

    assert max(sizes.values()) < 70_000  # 50 kB as base64
