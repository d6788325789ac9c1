"""What operators are told in numbers: the catalogue of metrics, and how facts become readings of them.

What belongs here: each metric's name, help and labels, and pure conversions into readings. What does not:
where readings come from (observability/), and Prometheus's text.

Names follow Prometheus's conventions: base units, the unit in the name. No metric has a label for a series,
since every combination of labels is a time series that Prometheus keeps: members are those of the total and
of the panel's first level, and of that only where there are few.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Any, Literal

import pandas as pd

from turnover_assets.panel import PanelSpec

MOST_MEMBERS = 50
TOTAL = "total"


@dataclass(frozen=True)
class Metric:
    """One metric: its help text, the names of its labels, and whether it only ever grows.

    Attributes:
        help: What it is, as a sentence; the documentation says the same.
        labels: Names of its labels.
        kind: `counter` where it grows from the start of the process that serves it, else `gauge`.
    """

    help: str
    labels: tuple[str, ...] = ()
    kind: Literal["gauge", "counter"] = "gauge"


@dataclass(frozen=True)
class Reading:
    """One value of a metric.

    Attributes:
        name: The metric.
        value: Its value in base units.
        labels: Values of its labels, in their order.
    """

    name: str
    value: float
    labels: tuple[str, ...] = ()


MEMBER = ("level", "member")
METRICS = {
    "turnover_build_info": Metric("Release and panel; always 1.", ("version", "panel")),
    "turnover_scrape_errors_total": Metric(
        "Readings that failed since the start of the endpoint, by part.", ("part",), "counter"
    ),
    "turnover_scrape_duration_seconds": Metric("How long the newest reading of a part took.", ("part",)),
    # Runs
    "turnover_runs": Metric("Runs on record; pruned ones are no longer counted.", ("job", "status")),
    "turnover_queued_runs": Metric("Runs that wait for their turn."),
    "turnover_running_runs": Metric("Runs that are starting, at work or being cancelled."),
    "turnover_oldest_queued_run_timestamp_seconds": Metric(
        "When the run that has waited longest was made; absent where none waits."
    ),
    "turnover_oldest_running_run_timestamp_seconds": Metric(
        "When the run that has worked longest began; absent where none does."
    ),
    "turnover_last_success_timestamp_seconds": Metric("When a run last succeeded.", ("job",)),
    "turnover_last_failure_timestamp_seconds": Metric("When a run last failed.", ("job",)),
    "turnover_failed_runs_since_success": Metric("Failed runs made after the last successful one.", ("job",)),
    "turnover_run_duration_seconds": Metric("Duration of the newest run that has ended.", ("job",)),
    "turnover_asset_duration_seconds": Metric(
        "Duration of the step that last made the asset; one step may make several.", ("asset",)
    ),
    "turnover_asset_timestamp_seconds": Metric("When the asset was last made.", ("asset",)),
    "turnover_data_landed_timestamp_seconds": Metric("When files last landed, refused ones among them."),
    "turnover_data_late_after_seconds": Metric("Age of landed data from which it is late, as set."),
    # Automation
    "turnover_sensor_last_tick_timestamp_seconds": Metric("When the sensor last looked.", ("sensor",)),
    "turnover_schedule_last_tick_timestamp_seconds": Metric(
        "When the schedule was last due and seen to.", ("schedule",)
    ),
    "turnover_daemon_heartbeat_timestamp_seconds": Metric(
        "Last heartbeat of a part of the daemon.", ("daemon",)
    ),
    # What is published
    "turnover_snapshot_timestamp_seconds": Metric("When the current snapshot was published."),
    "turnover_forecast_cutoff_timestamp_seconds": Metric(
        "The last period known to the published forecasts: its label, at midnight UTC."
    ),
    "turnover_forecast_series": Metric("Series that are forecast."),
    "turnover_model_version": Metric("Version of the model that made the published forecasts."),
    "turnover_published_rows": Metric("Rows of a published table.", ("table",)),
    "turnover_published_bytes": Metric("Size of a published table.", ("table",)),
    # Accuracy and inputs, at the newest published cutoff
    "turnover_forecast_wape_ratio": Metric("WAPE of forecasts whose outcome is known.", MEMBER),
    "turnover_forecast_wape_seasonal_naive_ratio": Metric("The same of the seasonal naive forecast.", MEMBER),
    "turnover_forecast_wape_promised_ratio": Metric("The WAPE that the backtest promised.", MEMBER),
    "turnover_forecast_wape_over_promised_ratio": Metric(
        "WAPE over that of seasonal naive, over the same as promised; above 1 is worse than that.",
        MEMBER,
    ),
    "turnover_forecast_bias_ratio": Metric("Bias over turnover; above 0 where too high.", MEMBER),
    "turnover_forecast_tracking_signal": Metric(
        "Sum of errors over their mean absolute size; far from 0 where errors keep one sign.", MEMBER
    ),
    "turnover_forecast_coverage_ratio": Metric(
        "Share of outcomes inside the interval of so many per cent.", (*MEMBER, "interval")
    ),
    "turnover_forecast_stability_ratio": Metric(
        "How much forecasts moved since the cutoff before, as a share of their sum.", MEMBER
    ),
    "turnover_input_drifted_features_ratio": Metric("Share of the input features that drifted."),
    "turnover_input_largest_psi": Metric("Largest population stability index of a feature."),
    "turnover_target_psi": Metric("Population stability index of the target.", MEMBER),
    "turnover_target_wasserstein": Metric(
        "Wasserstein distance of the target, in standard deviations.", MEMBER
    ),
    "turnover_series_missing_ratio": Metric("Share of expected series that lack in the newest period."),
    "turnover_rows_quarantined_ratio": Metric(
        "Share of rows rejected among those landed since the cutoff before."
    ),
    "turnover_files_refused": Metric("Files refused since the publishing before."),
    "turnover_previous_run_duration_seconds": Metric("Duration of the run before the current publishing."),
    "turnover_previous_run_warnings": Metric("Warnings of that run."),
    # Alerts and disk
    "turnover_open_incidents": Metric("Alert incidents that are open.", ("severity",)),
    "turnover_home_bytes": Metric("Size of a part of the data home; looked up every few minutes.", ("part",)),
    "turnover_home_free_bytes": Metric("Free space where the data home is."),
    "turnover_home_capacity_bytes": Metric("Size of the file system where the data home is."),
}
# Measures of the table `measures`: the metric that each becomes, and further label values.
MEASURES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "wape": ("turnover_forecast_wape_ratio", ()),
    "wape_seasonal_naive": ("turnover_forecast_wape_seasonal_naive_ratio", ()),
    "wape_promised": ("turnover_forecast_wape_promised_ratio", ()),
    "wape_over_promised": ("turnover_forecast_wape_over_promised_ratio", ()),
    "bias": ("turnover_forecast_bias_ratio", ()),
    "tracking_signal": ("turnover_forecast_tracking_signal", ()),
    "coverage_80": ("turnover_forecast_coverage_ratio", ("80",)),
    "coverage_95": ("turnover_forecast_coverage_ratio", ("95",)),
    "stability": ("turnover_forecast_stability_ratio", ()),
    "drifted_share": ("turnover_input_drifted_features_ratio", ()),
    "largest_psi": ("turnover_input_largest_psi", ()),
    "target_psi": ("turnover_target_psi", ()),
    "target_wasserstein": ("turnover_target_wasserstein", ()),
    "missing_share": ("turnover_series_missing_ratio", ()),
    "quarantine_rate": ("turnover_rows_quarantined_ratio", ()),
    "refused_files": ("turnover_files_refused", ()),
    "run_seconds": ("turnover_previous_run_duration_seconds", ()),
    "run_warnings": ("turnover_previous_run_warnings", ()),
}


def measure_readings(measures: pd.DataFrame, panel: PanelSpec) -> Iterator[Reading]:
    """The measures at the newest cutoff, as readings.

    Args:
        measures: Rows of `measure`, `level`, `member`, `cutoff`, `value`, of any number of cutoffs.
        panel: The panel, whose first level is shown beside the total where it has few members.

    Measures without a metric (of a later release) are left out, and so are values that are not known.
    """
    newest = measures[measures["cutoff"] == measures["cutoff"].max()]
    shown = newest["level"].isin(_shown_levels(newest, panel)) & newest["value"].notna()
    for row in newest[shown].itertuples(index=False):
        name, further = MEASURES.get(str(row.measure), ("", ()))
        if not name:
            continue
        if METRICS[name].labels:
            yield Reading(name, float(row.value), (str(row.level), str(row.member), *further))
        elif row.level == TOTAL:
            yield Reading(name, float(row.value))


def _shown_levels(newest: pd.DataFrame, panel: PanelSpec) -> set[str]:
    """The total, and the panel's first level where it has few members."""
    first = panel.level_names[0]
    members = newest.loc[newest["level"] == first, "member"].nunique()
    return {TOTAL, first} if members <= MOST_MEMBERS else {TOTAL}


def snapshot_readings(facts: Mapping[str, Any]) -> Iterator[Reading]:
    """What a snapshot's facts say.

    Raises:
        LookupError: A fact lacks that every release wrote.
        ValueError: A fact is not what it should be.
    """
    published = datetime.fromisoformat(facts["created_at"])
    yield Reading("turnover_snapshot_timestamp_seconds", published.timestamp())
    yield Reading("turnover_forecast_cutoff_timestamp_seconds", midnight(facts["cutoff"]))
    yield Reading("turnover_forecast_series", float(facts["series"]))
    yield Reading("turnover_model_version", float(facts["model"]["version"]))
    for table, noted in sorted(facts["tables"].items()):
        yield Reading("turnover_published_rows", float(noted["rows"]), (table,))
        yield Reading("turnover_published_bytes", float(noted["bytes"]), (table,))


def midnight(day: str) -> float:
    """A day's first moment in UTC, as seconds since 1970.

    Example:
        >>> midnight("1970-01-02")
        86400.0
    """
    return datetime.combine(date.fromisoformat(day), time(), UTC).timestamp()


def by_metric(readings: Iterable[Reading]) -> dict[str, list[Reading]]:
    """Readings that are numbers, by metric and in the order of the catalogue."""
    found: dict[str, list[Reading]] = {name: [] for name in METRICS}
    for reading in readings:
        if not math.isnan(reading.value):
            found[reading.name].append(reading)
    return {name: values for name, values in found.items() if values}
