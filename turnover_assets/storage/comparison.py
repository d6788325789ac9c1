"""Published snapshots side by side: which tables differ, and what that means for people.

What belongs here: finding the snapshots to compare, the keys of published tables, the questions people
ask of the two. What does not: comparing two tables (core/comparison.py), printing.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb

from turnover_assets.core.comparison import TableDifference, compare_tables, prepare_cells
from turnover_assets.core.monitoring.tables import PUBLISHED as MONITORED
from turnover_assets.core.published_keys import given_keys
from turnover_assets.errors import NoSnapshotError, UnknownNameError
from turnover_assets.panel import PanelSpec
from turnover_assets.settings import Settings
from turnover_assets.storage.snapshots import FACTS, Snapshot, current, read_snapshot

# They keep the past of every run, or say when something was made: no differences of values.
HISTORIES = frozenset(MONITORED) | {
    *("checks", "decisions", "forecast_history", "profile", "retraining", "runs", "steps"),
}
RUN_COLUMNS = frozenset({"created_at", "fit_seconds", "landed_at", "model_version", "run_id"})
FORECASTS = frozenset({"aggregates", "explanations", "forecasts"})
FORECAST_PLACE = frozenset({"cutoff", "horizon"})  # two forecasts of one period are compared whatever theirs
CHANGES_SHOWN = 20
SERIES_SHOWN = 10


@dataclass(frozen=True)
class Change:
    """Something that two snapshots say differently.

    Attributes:
        what: What it is, for example `store 3, department 88, week 2017-06-10`.
        a: Its value in A.
        b: Its value in B.
    """

    what: str
    a: Any
    b: Any


@dataclass(frozen=True)
class SnapshotDifference:
    """In what two snapshots differ.

    Attributes:
        a: One snapshot.
        b: The other.
        facts: The facts that differ. They count as no difference of values.
        tables: For each table that both have, and that is no history of runs, in what it differs.
        only_a: Tables that B does not have.
        only_b: Tables that A does not have.
        totals: The sum of the target in A and B, and in the rows whose key both have.
        restated: The reported values that differ most, by amount.
        gone: Series in A only.
        new: Series in B only.
        forecasts: The series whose forecasts for the same periods differ most, as sums over those periods.
    """

    a: Snapshot
    b: Snapshot
    facts: tuple[Change, ...]
    tables: Mapping[str, TableDifference]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    totals: tuple[Change, ...] = ()
    restated: tuple[Change, ...] = ()
    gone: tuple[str, ...] = ()
    new: tuple[str, ...] = ()
    forecasts: tuple[Change, ...] = ()

    @property
    def equal(self) -> bool:
        """Whether all tables hold the same values."""
        return not (self.only_a or self.only_b) and all(table.equal for table in self.tables.values())


def find_snapshot(published: Path, name: str) -> Snapshot:
    """A snapshot by `current`, `previous`, its id, or the beginning of its id.

    Raises:
        NoSnapshotError: There is none, or it cannot be read.
        UnknownNameError: No id, or more than one, begins so; the message lists those there are.
    """
    now = current(published)
    if name == "current":
        return now
    names = snapshot_names(published)
    if name == "previous":
        earlier = names[: names.index(now.name)] if now.name in names else names
        if not earlier:
            raise NoSnapshotError(
                f"{now.name} is the first snapshot in {published}, so there is none before it. Compare again "
                "after another run has published."
            )
        return read_snapshot(published, earlier[-1])
    found = [known for known in names if known == name] or [
        known for known in names if known.startswith(name)
    ]
    if len(found) != 1 or not name:
        raise UnknownNameError(
            "snapshot (or more than one)", name, ["current", "previous", *(found or names)]
        )
    return read_snapshot(published, found[0])


def snapshot_names(published: Path) -> list[str]:
    """Ids of the snapshots that are whole, in the order in which they were published."""
    made = []
    for path in published.glob(f"[!.]*/{FACTS}"):
        try:
            snapshot = read_snapshot(published, path.parent.name)
        except NoSnapshotError:
            continue
        made.append((str(snapshot.facts.get("created_at", "")), snapshot.name))
    return [name for _, name in sorted(made)]


def table_keys(panel: PanelSpec) -> dict[str, tuple[str, ...]]:
    """The columns by which rows of published tables belong together; a table not named is a bag of rows."""
    series = (*panel.keys, panel.time)
    return {
        **given_keys(panel),
        "forecasts": series,
        "aggregates": ("level", "member", panel.time),
        "explanations": series,
        "level_changes": ("level", "member"),
        "backtest": ("model", *panel.keys, "cutoff", "horizon"),
        "backtest_aggregates": ("model", "level", "member", "cutoff", "horizon"),
        "backtest_accuracy": ("model", "basis", "scope", "member", "cutoff"),
        "gate_checks": ("check",),
        "feature_ranges": ("feature",),
        panel.series.name: series,
        "rejected": ("table_name", "file", "line", "rule"),
        "restatements": (*series, "new_file_no"),
        "findings": ("finding_id",),
        "adjustments": ("adjustment_id",),
        "files": ("digest",),
        "accuracy": ("model",),
        "seasonal_profile": (panel.report_level, "week_of_year"),
        f"{panel.report_level}_{panel.target}": ("year", panel.report_level, "month"),
    }


@contextmanager
def comparing(settings: Settings) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection in memory that compares tables larger than it, with a table of differing cells."""
    with TemporaryDirectory(prefix="turnover-compare-") as overflow:
        con = duckdb.connect(
            config={
                "threads": settings.threads,
                "memory_limit": settings.memory_limit,
                "temp_directory": overflow,
            }
        )
        try:
            prepare_cells(con)
            yield con
        finally:
            con.close()


def compare_snapshots(
    con: duckdb.DuckDBPyConnection, panel: PanelSpec, a: Snapshot, b: Snapshot
) -> SnapshotDifference:
    """Set two snapshots side by side, by SQL over their files.

    Args:
        con: A connection of `comparing`; its table of differing cells is filled.
        panel: The panel of both.
        a: One snapshot.
        b: The other.

    Raises:
        NoSnapshotError: A file of one of them went away or cannot be read.
    """
    tables_a, tables_b = a.facts["tables"], b.facts["tables"]
    shared = [table for table in tables_a if table in tables_b and table not in HISTORIES]
    try:
        return SnapshotDifference(
            a,
            b,
            facts=_facts(a, b),
            tables={table: _compare_table(con, panel, table, a, b) for table in shared},
            only_a=tuple(sorted(tables_a.keys() - tables_b.keys() - HISTORIES)),
            only_b=tuple(sorted(tables_b.keys() - tables_a.keys() - HISTORIES)),
            **_of_the_series(con, panel, a, b),
        )
    except (duckdb.IOException, duckdb.BinderException) as error:
        raise NoSnapshotError(
            f"{a.name} and {b.name} cannot be compared ({error}). One of them was removed meanwhile, or was "
            "published with another panel; `turnover compare` without names takes the two newest."
        ) from error


def _relation(snapshot: Snapshot, table: str) -> str:
    return "SELECT * FROM read_parquet('" + str(snapshot.path(table)).replace("'", "''") + "')"


def _compare_table(
    con: duckdb.DuckDBPyConnection, panel: PanelSpec, table: str, a: Snapshot, b: Snapshot
) -> TableDifference:
    ignored = RUN_COLUMNS | FORECAST_PLACE if table in FORECASTS else RUN_COLUMNS
    keys = table_keys(panel).get(table, ())
    return compare_tables(con, _relation(a, table), _relation(b, table), keys, ignored=ignored, keep_as=table)


def _flat(facts: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in facts.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _facts(a: Snapshot, b: Snapshot) -> tuple[Change, ...]:
    flat_a, flat_b = (_flat(_said(snapshot.facts)) for snapshot in (a, b))
    names = dict.fromkeys([*flat_a, *flat_b])
    return tuple(
        Change(name, flat_a.get(name), flat_b.get(name))
        for name in names
        if flat_a.get(name) != flat_b.get(name)
    )


def _said(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts but those on files, which differ with every publishing and say nothing to people."""
    said = {name: value for name, value in facts.items() if name not in ("tables", "model")}
    model = {name: value for name, value in facts.get("model", {}).items() if name != "files"}
    return said | {"model": model}


def _of_the_series(
    con: duckdb.DuckDBPyConnection, panel: PanelSpec, a: Snapshot, b: Snapshot
) -> dict[str, Any]:
    """What changed in the reported values and in the forecasts, in the terms of people."""
    keys, series, target = panel.keys, [*panel.keys, panel.time], panel.target
    for view, table in (("series", panel.series.name), ("forecasts", "forecasts")):
        for side, snapshot in (("a", a), ("b", b)):
            con.execute(f"CREATE OR REPLACE TEMP VIEW {view}_{side} AS {_relation(snapshot, table)}")
    joined = f"series_a AS a JOIN series_b AS b USING ({', '.join(series)})"
    whole = con.execute(
        f"SELECT (SELECT sum({target}) FROM series_a), (SELECT sum({target}) FROM series_b), "
        f"sum(a.{target}), sum(b.{target}) FROM {joined}"
    ).fetchall()[0]
    restated = con.execute(
        f"SELECT {', '.join(series)}, a.{target}, b.{target} FROM {joined} "
        f"WHERE a.{target} IS DISTINCT FROM b.{target} "
        f"ORDER BY abs(b.{target} - a.{target}) DESC, {', '.join(series)} LIMIT {CHANGES_SHOWN}"
    ).fetchall()
    forecasts = con.execute(
        f"SELECT {', '.join(keys)}, sum(a.forecast), sum(b.forecast) "
        f"FROM forecasts_a AS a JOIN forecasts_b AS b USING ({', '.join(series)}) GROUP BY {', '.join(keys)} "
        "HAVING sum(abs(b.forecast - a.forecast)) > 0 "
        f"ORDER BY sum(abs(b.forecast - a.forecast)) DESC, {', '.join(keys)} LIMIT {SERIES_SHOWN}"
    ).fetchall()
    sides = {
        side: [_named(keys, row) for row in con.execute(_missing_series_sql(panel, *order)).fetchall()]
        for side, order in (("gone", ("series_a", "series_b")), ("new", ("series_b", "series_a")))
    }
    return {
        "totals": (Change("all", whole[0], whole[1]), Change("in both", whole[2], whole[3])),
        "restated": tuple(Change(_named(series, row), row[-2], row[-1]) for row in restated),
        "forecasts": tuple(Change(_named(keys, row), row[-2], row[-1]) for row in forecasts),
        **{side: tuple(found) for side, found in sides.items()},
    }


def _missing_series_sql(panel: PanelSpec, here: str, there: str) -> str:
    keys = ", ".join(panel.keys)
    return f"SELECT DISTINCT {keys} FROM {here} ANTI JOIN {there} USING ({keys}) ORDER BY {keys}"


def _named(names: tuple[str, ...] | list[str], row: tuple[Any, ...]) -> str:
    return ", ".join(f"{name} {value}" for name, value in zip(names, row, strict=False))
