"""Run records: what Dagster knows of runs that have ended, and the log of decisions, as tables.

What belongs here: reading them from Dagster's instance, and the assets. What does not: the tables
(core/run_records.py), the log (storage/decision_log.py).

A run cannot record its own end; the next one does.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from logging import WARNING
from typing import Any

import dagster as dg

from turnover_assets.core import run_records
from turnover_assets.defs import common, jobs
from turnover_assets.defs.resources import WarehouseResource
from turnover_assets.settings import Settings
from turnover_assets.storage.decision_log import DecisionLog

CODE_VERSION = "1"
Rows = list[dict[str, Any]]
DECISIONS = "monitoring.decisions"
ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
READ_AT_MOST = 200  # runs at a time, since each one's log is read
STEP_ENDS = {
    dg.DagsterEventType.STEP_SUCCESS: "success",
    dg.DagsterEventType.STEP_FAILURE: "failure",
    dg.DagsterEventType.STEP_SKIPPED: "skipped",
}
ASSETS = {
    common.RUN_RECORDS: "Runs that have ended: job, cause, attempt, duration, warnings.",
    common.STEP_RECORDS: "Their steps: assets made, duration, rows, bytes.",
    common.DECISIONS: "What each sensor and schedule decided, and why.",
}


def build(settings: Settings) -> list[dg.AssetsDefinition]:
    """The assets of records."""

    @dg.multi_asset(
        name="records",
        specs=[
            dg.AssetSpec(
                key,
                group_name="monitoring",
                description=text,
                owners=[common.ENGINEERS],
                kinds={"duckdb"},
                code_version=CODE_VERSION,
            )
            for key, text in ASSETS.items()
        ],
        pool=common.POOL,
    )
    def records(
        context: dg.AssetExecutionContext, warehouse: WarehouseResource
    ) -> Iterator[dg.MaterializeResult[None]]:
        decisions = DecisionLog(settings.decisions_path).read()
        with warehouse.open().transaction() as con:
            run_records.prepare(con)
            run_records.keep_runs(con, *read_ended(context.instance, run_records.known_runs(con)))
            kept = common.keep_table(con, DECISIONS, decisions)
            shown = con.execute(f"SELECT * FROM {run_records.RUNS} ORDER BY ended_at DESC LIMIT 20").df()
            runs = common.table_metadata(con, run_records.RUNS)
            steps = common.table_metadata(con, run_records.STEPS)
        yield dg.MaterializeResult(
            asset_key=common.RUN_RECORDS, metadata={**runs, "newest": common.preview(shown)}
        )
        yield dg.MaterializeResult(asset_key=common.STEP_RECORDS, metadata=steps)
        yield dg.MaterializeResult(
            asset_key=common.DECISIONS, metadata={**kept, "newest": common.preview(decisions)}
        )

    return [records]


def read_ended(instance: dg.DagsterInstance, known: set[str]) -> tuple[Rows, Rows]:
    """The newest runs that have ended and are not on record yet, and their steps; see core.run_records."""
    newest = instance.get_run_records(dg.RunsFilter(statuses=ENDED), limit=READ_AT_MOST)
    runs: Rows = []
    steps: Rows = []
    for record in newest:
        if record.dagster_run.run_id not in known:
            logged = instance.all_logs(record.dagster_run.run_id)
            runs.append(_run(record, logged))
            steps += _steps(record.dagster_run.run_id, logged)
    return runs, steps


def _run(record: dg.RunRecord, logged: Sequence[dg.EventLogEntry]) -> dict[str, Any]:
    run = record.dagster_run
    start, end = record.start_time, record.end_time or record.update_timestamp.timestamp()
    tags = run.tags
    return {
        "run_id": run.run_id,
        "job": run.job_name,
        "status": run.status.value.lower(),
        "cause": tags.get(jobs.REASON_TAG) or tags.get(jobs.CAUSE_TAG),
        "attempt": int(tags.get(jobs.ATTEMPT_TAG, 1)),
        "started_at": None if start is None else datetime.fromtimestamp(start, UTC),
        "ended_at": datetime.fromtimestamp(end, UTC),
        "seconds": None if start is None else end - start,
        "warnings": sum(entry.level == WARNING for entry in logged),
    }


def _steps(run_id: str, logged: Sequence[dg.EventLogEntry]) -> Rows:
    """A row for each step that ended, and asset that it made."""
    made: dict[str, dict[str | None, dict[str, int]]] = defaultdict(dict)
    ended: dict[str, tuple[str, float | None]] = {}
    for entry in logged:
        event = entry.dagster_event
        if event is None or event.step_key is None:
            continue
        if event.event_type is dg.DagsterEventType.ASSET_MATERIALIZATION and event.asset_key:
            _add_sizes(made[event.step_key], event)
        elif event.event_type in STEP_ENDS:
            ended[event.step_key] = STEP_ENDS[event.event_type], _seconds(event)
    return [
        {"run_id": run_id, "step": step, "asset": asset, "status": status, "seconds": seconds, **sizes}
        for step, (status, seconds) in ended.items()
        for asset, sizes in (made[step] or {None: {}}).items()
    ]


def _add_sizes(assets: dict[str | None, dict[str, int]], event: dg.DagsterEvent) -> None:
    """Rows and bytes of what was made; those of partitions are added up."""
    metadata = event.step_materialization_data.materialization.metadata
    sizes = assets.setdefault("/".join(event.asset_key.path if event.asset_key else ()), {})
    for name, labels in (("rows", ("rows", "dagster/row_count")), ("bytes", ("bytes",))):
        value = next((metadata[label].value for label in labels if label in metadata), None)
        if isinstance(value, int | float):
            sizes[name] = sizes.get(name, 0) + int(value)


def _seconds(event: dg.DagsterEvent) -> float | None:
    if event.event_type is not dg.DagsterEventType.STEP_SUCCESS:
        return None
    return float(event.step_success_data.duration_ms) / 1000
