"""What all asset modules share: owners, groups, pool, asset keys, and metadata for people.

What belongs here: constants and helpers that two or more asset modules use.
"""

import base64
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import duckdb
import pandas as pd
from dagster._core.definitions.freshness import TimeWindowFreshnessPolicy
from pandas.api.types import is_float_dtype

from turnover_assets.core.repairs import Repairs
from turnover_assets.core.rows import RowLimits
from turnover_assets.core.training import Plan, Tuned
from turnover_assets.settings import Settings
from turnover_assets.storage.ledger import read_ledger
from turnover_assets.storage.warehouse import row_count

POOL = "warehouse"  # one step at a time writes the warehouse
ENGINEERS = "team:data-engineering"
SCIENTISTS = "team:data-science"
PICTURE_BYTES = 50_000
PREVIEW_ROWS = 20

LANDED = dg.AssetKey(["raw", "landed_files"])
TRAINING = dg.AssetKey(["features", "training"])
SCORING = dg.AssetKey(["features", "scoring"])
BACKTEST = dg.AssetKey(["model", "backtest"])
CHALLENGER = dg.AssetKey(["model", "challenger"])
CHAMPION = dg.AssetKey(["model", "champion"])
RETRAINING = dg.AssetKey(["model", "retraining"])
TUNED = dg.AssetKey(["model", "tuned_parameters"])
FORECASTS = dg.AssetKey(["forecasts", "latest"])
AGGREGATES = dg.AssetKey(["forecasts", "aggregates"])
AS_OF = dg.AssetKey(["forecasts", "as_of"])
EXPLANATIONS = dg.AssetKey(["forecasts", "explanations"])
PUBLISHED = dg.AssetKey(["forecasts", "published"])
MONITORING = dg.AssetKey(["monitoring", "measures"])
ALERTS = dg.AssetKey(["monitoring", "alerts"])
RUN_RECORDS = dg.AssetKey(["monitoring", "runs"])
STEP_RECORDS = dg.AssetKey(["monitoring", "steps"])
DECISIONS = dg.AssetKey(["monitoring", "decisions"])
HOUSEKEEPING = dg.AssetKey(["monitoring", "housekeeping"])
PROFILE = dg.AssetKey(["reports", "profile"])
PROFILE_PAGE = dg.AssetKey(["reports", "profile_page"])
WORKBOOKS = dg.AssetKey(["reports", "workbooks"])
MONITORING_PAGE = dg.AssetKey(["reports", "monitoring_page"])
EVIDENTLY = dg.AssetKey(["reports", "evidently"])


def cleaned_key(table: str) -> dg.AssetKey:
    """Asset key of a cleaned table."""
    return dg.AssetKey(["cleaned", table])


def freshness(settings: Settings) -> dg.FreshnessPolicy:
    """When an asset that should change every period is late (a warning); a period later it has failed."""
    late, period = settings.late_after, timedelta(days=settings.panel_spec.frequency.days)
    return dg.FreshnessPolicy.time_window(warn_window=late, fail_window=late + period)


def freshness_windows(policy: dg.FreshnessPolicy) -> tuple[timedelta, timedelta]:
    """Age from which such a policy calls an asset late, and how much older it is when it has failed."""
    if not isinstance(policy, TimeWindowFreshnessPolicy) or policy.warn_window is None:
        raise TypeError(f"{policy} has no window of warning")
    late = policy.warn_window.to_timedelta()
    return late, policy.fail_window.to_timedelta() - late


COLUMN_DESCRIPTIONS = {
    "actual": "Adjusted value at the target period; empty where not known yet.",
    "adjustment_id": "The adjustment that applies; empty where there is none.",
    "bias": "Sum of (forecast - actual) over sum of |actual|; above 0 where too high.",
    "challenger": "The challenger's figure; empty where there is none.",
    "champion": "The champion's figure; empty where there is none.",
    "check": "Name of the check.",
    "cutoff": "Last period known.",
    "decided_on": "Day on which a steward decided.",
    "effect": "Natural logarithm of the factor.",
    "error": "Standard error of the effect.",
    "factor": "Reported over true value.",
    "file": "Landed file the row came in.",
    "file_no": "Number of the landed file, in the order of landing.",
    "finding": "What was found, in words.",
    "finding_id": "The finding, by kind, place and beginning.",
    "forecast": "Point forecast, units of the target.",
    "horizon": "Periods after the cutoff, 1 the first.",
    "in_force": "Reported over adjusted values at the newest period known; forecasts are multiplied by it.",
    "is_compared": "Whether models are compared on the window.",
    "is_new": "Whether the series is younger than a season at the cutoff.",
    "is_shown": "Whether the model is challenger, champion or baseline.",
    "kind": "What it is: block, point, zeros, missing or stopped; of a steward's entry the remedy.",
    "landed_at": "When the file landed.",
    "level": "A level of the panel, or total.",
    "limit": "What the challenger's figure must not exceed, or must reach.",
    "line": "Line in the file, the header being line 1.",
    "lower_80": "Lower bound of the 80 % interval.",
    "lower_95": "Lower bound of the 95 % interval.",
    "member": "Member of the level; empty for the total.",
    "members": "The selector as JSON.",
    "message": "What is wrong, in words.",
    "model": "The candidate, or champion.",
    "model_version": "Version in the model registry.",
    "naive_mae": "Mean absolute error of the seasonal naive forecast up to the cutoff, units of the target.",
    "naive_mse": "Its mean squared error, units of the target squared.",
    "new_file": "Landed file that changed the value.",
    "new_value": "Reported value after that, units of the target.",
    "old_file": "Landed file that had reported it before.",
    "old_value": "Reported value before that, units of the target.",
    "ongoing": "Whether it goes on at the cutoff.",
    "origin": "Who made it: detector or steward.",
    "parts": "Number of series.",
    "passed": "Whether the check holds.",
    "reason": "Why, in words.",
    "remedy": "What mends it: divide, replace, empty or none.",
    "reported": "Reported value at the target period, which forecasts are scored against.",
    "rows": "Rows concerned or changed.",
    "rule": "The rule that the row broke.",
    "scale": "Mean absolute value of the series over the last season, by which values are divided.",
    "season_error": "How far off last year's values usually are at that time of year, as a logarithm.",
    "selector": "What is concerned, in words.",
    "sentence": "The finding in words.",
    "series_id": "Number of the series (features.series).",
    "share": "Share of the year.",
    "since": "First period concerned.",
    "status": "applied, proposed, vetoed or overruled.",
    "strength": "Strength of the evidence; see the concepts.",
    "t": "Index of the period.",
    "until": "Last period concerned; empty where it goes on.",
    "upper_80": "Upper bound of the 80 % interval.",
    "upper_95": "Upper bound of the 95 % interval.",
    "value": "The value that replaces the reported one.",
    "wape": "Sum of |actual - forecast| over sum of |actual|.",
    "who": "The steward who decided.",
}


def table_metadata(
    con: duckdb.DuckDBPyConnection, table: str, described: Mapping[str, str] = COLUMN_DESCRIPTIONS
) -> dict[str, Any]:
    """Row count and column schema of a table, named as schema.table."""
    columns = [
        dg.TableColumn(name=row[0], type=str(row[1]).lower(), description=described.get(row[0]))
        for row in con.execute(f"DESCRIBE {table}").fetchall()
    ]
    return {
        "dagster/row_count": row_count(con, table),
        "dagster/column_schema": dg.TableSchema(columns=columns),
        "dagster/table_name": table,
    }


def keep_table(con: duckdb.DuckDBPyConnection, name: str, frame: pd.DataFrame) -> dict[str, Any]:
    """Write a frame as the table schema.table, in place of what was there; returns its metadata.

    What is NaN in the frame, for want of a figure, is NULL in the table.
    """
    con.register("frame_to_keep", frame)
    columns = ", ".join(
        f"CASE WHEN NOT isnan({quoted}) THEN {quoted} END AS {quoted}" if is_float_dtype(kind) else quoted
        for quoted, kind in ((_quoted(column), kind) for column, kind in frame.dtypes.items())
    )
    con.execute(f"CREATE OR REPLACE TABLE {name} AS SELECT {columns} FROM frame_to_keep")
    con.unregister("frame_to_keep")
    return table_metadata(con, name)


def _quoted(column: object) -> str:
    return '"' + str(column).replace('"', '""') + '"'


def picture(png: bytes, text: str) -> dg.MarkdownMetadataValue:
    """A small PNG as metadata; one that is too large for the event log is left to a note."""
    if len(png) > PICTURE_BYTES:
        return dg.MetadataValue.md(f"{text}: the picture has {len(png):,} bytes, too many to keep here.")
    return dg.MetadataValue.md(f"![{text}](data:image/png;base64,{base64.b64encode(png).decode()})")


def preview(table: pd.DataFrame) -> dg.MarkdownMetadataValue:
    """The first rows of a table, as Markdown."""
    head = table.head(PREVIEW_ROWS)
    lines = ["| " + " | ".join(map(str, head.columns)) + " |", "|" + " --- |" * len(head.columns)]
    lines += [
        "| " + " | ".join(_shown(value) for value in row) + " |" for row in head.itertuples(index=False)
    ]
    return dg.MetadataValue.md("\n".join(lines))


def _shown(value: object) -> str:
    text = f"{value:,.4g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|")


def latest_metadata(instance: dg.DagsterInstance, key: dg.AssetKey) -> Mapping[str, Any]:
    """Metadata values of an asset's newest materialisation; empty where there is none."""
    event = instance.get_latest_materialization_event(key)
    if event is None or event.asset_materialization is None:
        return {}
    return {name: value.value for name, value in event.asset_materialization.metadata.items()}


def latest_time(instance: dg.DagsterInstance, key: dg.AssetKey) -> datetime | None:
    """When an asset was last made; None where it never was."""
    event = instance.get_latest_materialization_event(key)
    return datetime.fromtimestamp(event.timestamp, UTC) if event else None


def latest_run(instance: dg.DagsterInstance, key: dg.AssetKey) -> str | None:
    """The run of an asset's newest materialisation; None where there is none."""
    event = instance.get_latest_materialization_event(key)
    return event.run_id if event else None


def row_limits(settings: Settings) -> RowLimits:
    """How many feature rows to make."""
    return RowLimits(settings.training_share, settings.max_training_rows, settings.alive_periods)


def training_plan(settings: Settings, tuned: Tuned) -> Plan:
    """How to train, with the ledger as it is now; see repairs."""
    return Plan(row_limits(settings), repairs(settings), settings.seed, settings.threads, tuned)


def repairs(settings: Settings) -> Repairs:
    """How the history is repaired, with the ledger as it is now.

    Raises:
        LedgerError: The ledger has errors; the message lists them all.
    """
    ledger = read_ledger(settings.ledger_path, settings.panel_spec)
    return Repairs(ledger, settings.adjustment_strength, settings.alive_periods)
