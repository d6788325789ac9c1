"""The catalogue of metrics, and how published facts become readings."""

import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from turnover_assets.core.operator_metrics import (
    MEASURES,
    METRICS,
    MOST_MEMBERS,
    Reading,
    measure_readings,
    midnight,
    snapshot_readings,
)
from turnover_assets.panel import default_panel
from turnover_assets_tests.factories import daily, walmart_like

REPOSITORY = Path(__file__).resolve().parent.parent
UNITS = ("seconds", "bytes", "ratio", "info", "total")
WITHOUT_UNIT = {  # counts, versions, and figures that have none
    "turnover_runs",
    "turnover_queued_runs",
    "turnover_running_runs",
    "turnover_failed_runs_since_success",
    "turnover_forecast_series",
    "turnover_model_version",
    "turnover_published_rows",
    "turnover_forecast_tracking_signal",
    "turnover_input_largest_psi",
    "turnover_target_psi",
    "turnover_target_wasserstein",
    "turnover_files_refused",
    "turnover_previous_run_warnings",
    "turnover_open_incidents",
}


def measures(*rows: tuple[str, str, str, str, float | None]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["measure", "level", "member", "cutoff", "value"])


# The catalogue -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(METRICS))
def test_names_and_labels_are_conventional(name: str) -> None:
    metric = METRICS[name]

    assert re.fullmatch(r"turnover(_[a-z]+)+", name)
    assert name.endswith(tuple(f"_{unit}" for unit in UNITS)) or name in WITHOUT_UNIT
    assert name.endswith("_total") == (metric.kind == "counter")
    assert all(re.fullmatch(r"[a-z]+", label) for label in metric.labels)
    assert metric.help.endswith(".")


def test_no_metric_has_a_label_for_series() -> None:
    labels = {label for metric in METRICS.values() for label in metric.labels}

    assert labels == {
        *("version", "panel", "part", "job", "status", "asset", "sensor", "schedule", "daemon"),
        *("table", "level", "member", "interval", "severity"),
    }


def test_the_documentation_has_every_metric_with_its_labels_and_meaning() -> None:
    page = (REPOSITORY / "docs" / "operations.md").read_text("utf-8")
    rows = re.findall(r"^\| `(turnover_\w+)` \|([^|]*)\|([^|]*)\|$", page, re.MULTILINE)

    described = {name: (tuple(re.findall(r"`(\w+)`", labels)), text.strip()) for name, labels, text in rows}

    assert described == {name: (metric.labels, metric.help) for name, metric in METRICS.items()}
    assert len(rows) == len(METRICS)


@pytest.mark.parametrize("measure", list(MEASURES))
def test_every_measure_becomes_a_metric_that_there_is(measure: str) -> None:
    name, further = MEASURES[measure]

    assert METRICS[name].labels in ((), ("level", "member", *(["interval"] if further else [])))


# Measures ----------------------------------------------------------------------------------------


def test_measures_are_those_of_the_newest_cutoff() -> None:
    table = measures(
        ("wape", "total", "", "2030-01-05", 0.5),
        ("wape", "total", "", "2030-01-12", 0.2),
        ("coverage_80", "total", "", "2030-01-12", 0.79),
        ("missing_share", "total", "", "2030-01-12", 0.01),
        ("missing_share", "total", "", "2030-01-05", 0.9),
    )

    assert list(measure_readings(table, default_panel())) == [
        Reading("turnover_forecast_wape_ratio", 0.2, ("total", "")),
        Reading("turnover_forecast_coverage_ratio", 0.79, ("total", "", "80")),
        Reading("turnover_series_missing_ratio", 0.01),
    ]


@pytest.mark.parametrize("panel", [default_panel(), walmart_like(), daily()], ids=lambda panel: panel.name)
def test_the_first_level_is_shown_and_no_other(panel: object) -> None:
    levels = panel.level_names  # type: ignore[attr-defined]
    rows = [("bias", level, "1", "2030-01-05", 0.1) for level in (*levels, "another")]

    found = list(measure_readings(measures(*rows), panel))  # type: ignore[arg-type]

    assert [reading.labels for reading in found] == [(levels[0], "1")]


@pytest.mark.parametrize(("members", "shown"), [(MOST_MEMBERS, MOST_MEMBERS), (MOST_MEMBERS + 1, 0)])
def test_a_level_with_many_members_is_left_out(members: int, shown: int) -> None:
    level = default_panel().level_names[0]
    rows = [("wape", level, str(n), "2030-01-05", 0.1) for n in range(members)]

    found = list(measure_readings(measures(*rows, ("wape", "total", "", "2030-01-05", 0.1)), default_panel()))

    assert len(found) == shown + 1


def test_values_that_are_not_known_and_measures_of_a_later_release_are_left_out() -> None:
    table = measures(
        ("wape", "total", "", "2030-01-05", None),
        ("invented", "total", "", "2030-01-05", 1.0),
        ("refused_files", "total", "", "2030-01-05", 2.0),
        ("refused_files", default_panel().level_names[0], "1", "2030-01-05", 1.0),
    )

    assert list(measure_readings(table, default_panel())) == [Reading("turnover_files_refused", 2.0)]


def test_no_measures_give_no_readings() -> None:
    assert list(measure_readings(measures(), default_panel())) == []


# Facts -------------------------------------------------------------------------------------------


def test_facts_of_a_snapshot_become_readings() -> None:
    facts = {
        "created_at": "1970-01-01T01:00:00+01:00",
        "cutoff": "1970-01-03",
        "series": 7,
        "model": {"version": 3},
        "tables": {"forecasts": {"rows": 56, "bytes": 1000}},
    }

    assert {(r.name, *r.labels): r.value for r in snapshot_readings(facts)} == {
        ("turnover_snapshot_timestamp_seconds",): 0.0,
        ("turnover_forecast_cutoff_timestamp_seconds",): 2 * 86_400.0,
        ("turnover_forecast_series",): 7.0,
        ("turnover_model_version",): 3.0,
        ("turnover_published_rows", "forecasts"): 56.0,
        ("turnover_published_bytes", "forecasts"): 1000.0,
    }


def test_midnight_is_that_of_utc() -> None:
    assert midnight("2030-06-01") == pd.Timestamp("2030-06-01", tz="UTC").timestamp()


@pytest.mark.prometheus
def test_promtool_finds_nothing_to_say_of_the_names() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian's package prometheus)")
    lines = []
    for name, metric in METRICS.items():
        labels = ",".join(f'{label}="x"' for label in metric.labels)
        lines += [f"# HELP {name} {metric.help}", f"# TYPE {name} {metric.kind}", f"{name}{{{labels}}} 1"]

    done = subprocess.run(
        [promtool, "check", "metrics"],
        input="\n".join(lines) + "\n",
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
