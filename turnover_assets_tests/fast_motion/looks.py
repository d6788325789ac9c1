"""What a platform made of each planted event, read from its own records.

Each look gives by what the event was noticed and what was done, or nothing where it is not on record yet.
"""

import json
from collections.abc import Mapping
from datetime import datetime

import dagster as dg
import pandas as pd

from turnover_assets.defs import common
from turnover_assets.defs.partitions import name_of
from turnover_assets.defs.sensors import LANDING_SENSOR
from turnover_assets.storage.kept import kept_files
from turnover_assets.storage.snapshots import Snapshot
from turnover_assets_tests.fast_motion.account import cause_of, runs_by_cause, versions
from turnover_assets_tests.fast_motion.year import (
    BAD,
    CORRECTED,
    LATE,
    Look,
    Seen,
    Year,
    doubled_department,
    week_file,
)

Found = tuple[str, str] | None


def _bad_file(year: Year, seen: Seen, snapshot: Snapshot) -> Found:
    told = year.platform.incident("file_refused", seen.at, BAD)
    if not told:
        return None
    times = sum(row["name"] == BAD for row in kept_files(year.platform.settings.home).records())
    return f"alert: {told}", f"refused, {times} time(s) on record; {_published(snapshot, seen.at)}"


def _late_file(year: Year, seen: Seen, snapshot: Snapshot) -> Found:
    runs = _landings(year, LATE)
    if not runs:
        return None
    week = pd.Timestamp(year.weeks[seen.week - 1])
    there = int((pd.to_datetime(snapshot.read("turnover")["week"]) == week).sum())
    return (
        f"landing_sensor: {len(runs)} run(s)",
        f"{there} rows of that week; {_published(snapshot, seen.at)}",
    )


def _restatement(_: Year, seen: Seen, snapshot: Snapshot) -> Found:
    rows = snapshot.read("restatements")
    rows = rows[rows["new_file"] == CORRECTED]
    if rows.empty:
        return None
    return f"table restatements: {len(rows)} values, the old ones beside them", _published(snapshot, seen.at)


def _drift(year: Year, seen: Seen, snapshot: Snapshot) -> Found:
    verdicts = snapshot.read("retraining")
    due = verdicts[
        verdicts["cause"].isin(["accuracy", "bias", "drift"]) & (verdicts["decided_at"] >= seen.at)
    ]
    trained = [facts for facts in versions(year) if facts.created >= seen.at]
    if due.empty or not trained:
        return None
    models = ", ".join(f"{facts.version} ({facts.candidate}, {facts.decision})" for facts in trained)
    return f"policy: {due['sentence'].iloc[0]}", f"trained {models}"


def _doubled(year: Year, _: Seen, snapshot: Snapshot) -> Found:
    table = snapshot.read("adjustments")
    member = {"department": doubled_department(year.reported)}
    mine = table[
        (table["status"] == "applied") & table["members"].map(lambda text: json.loads(text) == member)
    ]
    if mine.empty:
        return None
    row = mine.iloc[0]
    return f"finding: {row['selector']} since {row['since']}", f"divided by {row['factor']:.2f}, on record"


def _killed_run(year: Year, seen: Seen, snapshot: Snapshot) -> Found:
    (killed,) = year.killed[seen.event]
    told = year.platform.incident("run_failed", seen.at)
    ends = _ends(year, killed)
    if not told or ends[-1] != "SUCCESS":
        return None
    return f"alert: {told}", f"{', then '.join(ends)}; {_published(snapshot, seen.at)}"


def _killed_daemon(year: Year, seen: Seen, snapshot: Snapshot) -> Found:
    ends = [_ends(year, run) for run in year.killed[seen.event]]
    if not ends or not _landings(year, week_file(seen.week)):
        return None
    told = "; ".join(", then ".join(each) for each in ends)
    return f"{len(ends)} run(s) left behind: {told}", _landed_once(year, seen, snapshot)


def _killed_in_a_look(year: Year, seen: Seen, snapshot: Snapshot) -> Found:
    tick = year.platform.tick(LANDING_SENSOR, year.ticks[seen.event])
    if tick is None or not _landings(year, week_file(seen.week)):
        return None
    asked = len(list(tick.reserved_run_ids_with_requests))
    return f"the look ended as {tick.status.value}, {asked} run(s) asked for", _landed_once(
        year, seen, snapshot
    )


def _landed_once(year: Year, seen: Seen, snapshot: Snapshot) -> str:
    name = week_file(seen.week)
    times, runs = (snapshot.read("files")["name"] == name).sum(), len(_landings(year, name))
    return f"landed {times} time(s) by {runs} run(s); {_published(snapshot, seen.at)}"


def _landings(year: Year, name: str) -> list[str]:
    """The runs that landed a file."""
    with year.platform.instance() as instance:
        keys = [key for key in instance.get_materialized_partitions(common.LANDED) if name_of(key) == name]
        records = dg.AssetRecordsFilter(asset_key=common.LANDED, asset_partitions=keys)
        return [made.run_id for made in instance.fetch_materializations(records, 10).records] if keys else []


def _ends(year: Year, run_id: str) -> list[str]:
    """How the runs for the cause of one run ended, the oldest first."""
    with year.platform.instance() as instance:
        run = instance.get_run_by_id(run_id)
    return runs_by_cause(year)[run.job_name, cause_of(run.tags)] if run else []


def _published(snapshot: Snapshot, since: datetime) -> str:
    made = datetime.fromisoformat(str(snapshot.facts["created_at"]))
    when = f"{(made - since).total_seconds():.0f} s later" if made > since else "not since"
    return f"published {when}, as of {snapshot.facts['cutoff']}"


LOOKS: Mapping[str, Look] = {
    "bad file": _bad_file,
    "late file": _late_file,
    "restatement": _restatement,
    "killed run": _killed_run,
    "killed daemon": _killed_daemon,
    "killed look": _killed_in_a_look,
    "killed request": _killed_in_a_look,
    "drift": _drift,
    "doubled department": _doubled,
}
