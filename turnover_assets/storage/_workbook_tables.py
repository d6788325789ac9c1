"""The tables behind workbooks: those of a snapshot, by the member of one level, in DuckDB's memory.

What belongs here: the SQL. What does not: which member is asked for (workbook_source.py).

Schema `published` has the snapshot's tables as views, schema `book` a table for each frame of a workbook,
with the column `member`. Names in SQL come from the validated panel.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from turnover_assets.core.aggregates import TOTAL, member_names
from turnover_assets.core.conformal import BOUNDS
from turnover_assets.core.workbook.content import NAIVE
from turnover_assets.errors import NoSnapshotError
from turnover_assets.panel import PanelSpec
from turnover_assets.storage.snapshots import Snapshot

SEASONS = 2  # of history
CHAMPION = "champion"
FAILED_CHECKS = """
    SELECT asset, check_name, severity, figure, at_least, at_most FROM (
        FROM published.checks
        QUALIFY row_number() OVER (PARTITION BY asset, check_name ORDER BY evaluated_at DESC) = 1
    ) WHERE NOT passed ORDER BY severity, asset, check_name
"""
_ACCURACY = (
    "model",
    "basis",
    "scope",
    "member",
    "cutoff",
    "wape",
    "bias",
    "coverage_80",
    "coverage_95",
    "rows",
)
_LIVE = (
    *("cutoff", "horizon", "level", "member", "basis", "model_version", "periods", "wape", "wape_promised"),
    *("wape_seasonal_naive", "bias", "coverage_80"),
)
# Tables that a snapshot need not have, with the columns that are read of them beside keys and time.
OPTIONAL = {
    "backtest_accuracy": _ACCURACY,
    "backtest_aggregates": ("model", "level", "member", "cutoff", "horizon", "forecast", "actual"),
    "gate_checks": ("challenger", "passed"),
    "accuracy": ("model", "chosen"),
    "monitored_accuracy": _LIVE,
    "forecast_history": ("role", "cutoff", "horizon", "forecast"),
    "explanations": ("horizon", "sentence"),
    "missing_series": ("cutoff", "last_reported"),
    "restatements": ("old_value", "new_value", "new_file", "landed_at"),
    "checks": ("asset", "check_name", "severity", "figure", "at_least", "at_most", "passed", "evaluated_at"),
}


def arrange(con: duckdb.DuckDBPyConnection, snapshot: Snapshot, panel: PanelSpec, level: str) -> None:
    """Make the tables.

    Args:
        con: An empty database in memory.
        snapshot: The snapshot.
        panel: Its panel.
        level: A level of the panel, or `total`.

    Raises:
        NoSnapshotError: The snapshot has no attributes of the level.
    """
    con.execute("CREATE SCHEMA published")
    con.execute("CREATE SCHEMA book")
    _open(con, snapshot, panel)
    adjustments = con.execute("SELECT row_number() OVER () AS place, * FROM published.adjustments").df()
    series = _series(con, snapshot, panel, level)
    concerned = _concerned(series, adjustments)
    _keep(con, "series", series.assign(factor=_in_force(series, adjustments, concerned)))
    told = {(member, place) for position, place in concerned for member in [series["member"].iat[position]]}
    _keep(con, "told", pd.DataFrame(sorted(told), columns=["member", "place"]))
    values = {"level": level, "tested": _tested_model(con), "cutoff": snapshot.facts["cutoff"]}
    for name, query in _queries(panel, [name for name in _levels(panel) if name in series]).items():
        used = {key: value for key, value in values.items() if f"${key}" in query}
        con.execute(f"CREATE TABLE book.{name} AS {query}", used)


def members(con: duckdb.DuckDBPyConnection) -> list[str]:
    """The members that are forecast; whole numbers in order of size, before texts."""
    found = con.execute(
        "SELECT member FROM book.series WHERE is_forecast GROUP BY member "
        "ORDER BY TRY_CAST(member AS BIGINT) NULLS LAST, member"
    ).fetchall()
    return [member for (member,) in found]


def _open(con: duckdb.DuckDBPyConnection, snapshot: Snapshot, panel: PanelSpec) -> None:
    """Views of the published tables; those that there are not are empty."""
    for name in snapshot.facts["tables"]:
        path = str(snapshot.path(name)).replace("'", "''")
        con.execute(f"CREATE VIEW published.\"{name}\" AS SELECT * FROM read_parquet('{path}')")
    for name, columns in OPTIONAL.items():
        if name not in snapshot.facts["tables"]:
            typed = [f"CAST(NULL AS DATE) AS {panel.time}", *(f"NULL AS {column}" for column in columns)]
            keys = ", ".join(f"ANY_VALUE({key}) AS {key}" for key in panel.keys)
            con.execute(
                f"CREATE VIEW published.{name} AS SELECT {', '.join(typed)}, k.* "
                f"FROM (SELECT {keys} FROM published.forecasts) AS k LIMIT 0"
            )


def _series(con: duckdb.DuckDBPyConnection, snapshot: Snapshot, panel: PanelSpec, level: str) -> pd.DataFrame:
    """Every series with its keys, levels that are no keys, `member`, and `is_forecast`."""
    keys = ", ".join(panel.keys)
    wanted = {name for name in (*panel.level_names, level) if name not in (*panel.keys, TOTAL)}
    joins, columns = [], []
    for table in panel.static:
        own = [column.name for column in table.columns if column.name in wanted]
        if own and table.name in snapshot.facts["tables"]:
            joins.append(f'LEFT JOIN published."{table.name}" USING ({", ".join(table.keys)})')
            columns += own
    if level in wanted and level not in columns:
        raise NoSnapshotError(
            f"The published snapshot {snapshot.name!r} has no {level} of its series, since an earlier "
            "release published it. Run `turnover run --retrain` to publish a new one, or choose another "
            "level."
        )
    found: pd.DataFrame = con.execute(
        f"SELECT {', '.join([keys, *columns])}, is_forecast FROM ("
        f"SELECT {keys}, bool_or(is_forecast) AS is_forecast FROM ("
        f"SELECT DISTINCT {keys}, true AS is_forecast FROM published.forecasts UNION ALL "
        f'SELECT DISTINCT {keys}, false FROM published."{panel.series.name}") GROUP BY {keys}) '
        f"{' '.join(joins)} ORDER BY {keys}"
    ).df()
    member = pd.Series("", index=found.index) if level == TOTAL else member_names(found[level])
    return found.assign(member=member.astype(object))


def _concerned(series: pd.DataFrame, adjustments: pd.DataFrame) -> list[tuple[int, int]]:
    """Positions of series, and places of the adjustments that concern them."""
    texts = {name: member_names(series[name]).to_numpy() for name in series.columns}
    found = []
    for place, members_json in zip(adjustments["place"], adjustments["members"], strict=True):
        found += [(int(position), int(place)) for position in _matching(texts, json.loads(members_json))]
    return found


def _matching(
    texts: Mapping[str, np.ndarray[Any, Any]], where: Mapping[str, Any]
) -> Iterable[np.signedinteger[Any]]:
    """Positions of the series that a selector names; none where it names what is not published."""
    hits = np.ones(len(texts["member"]), dtype=np.bool_)
    for name, value in where.items():
        wanted = member_names(pd.Series([value])).iat[0]
        hits &= texts[name] == wanted if name in texts else False
    return np.flatnonzero(hits)


def _in_force(
    series: pd.DataFrame, adjustments: pd.DataFrame, concerned: Iterable[tuple[int, int]]
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The scale in which each series is reported now: the product of the factors that go on."""
    goes_on = adjustments[
        (adjustments["status"] == "applied") & adjustments["until"].isna() & adjustments["value"].isna()
    ]
    factors = goes_on.set_index("place")["factor"].dropna().to_dict()
    found = np.ones(len(series))
    for position, place in concerned:
        found[position] *= factors.get(place, 1.0)
    return found


def _tested_model(con: duckdb.DuckDBPyConnection) -> str:
    """The champion's name in the last backtest: that of the challenger, if it passed the gate then."""
    passed = con.execute("SELECT count(*) > 0 AND bool_and(passed) FROM published.gate_checks").fetchall()[0][
        0
    ]
    names = con.execute("SELECT DISTINCT model FROM published.backtest_accuracy").fetchall()
    challengers = [name for (name,) in names if name not in (CHAMPION, NAIVE)]
    if (passed or (CHAMPION,) not in names) and challengers:
        return str(challengers[0])
    return CHAMPION


def _keep(con: duckdb.DuckDBPyConnection, name: str, frame: pd.DataFrame) -> None:
    con.register("frame_to_keep", frame)
    con.execute(f"CREATE TABLE book.{name} AS SELECT * FROM frame_to_keep")
    con.unregister("frame_to_keep")


def _queries(panel: PanelSpec, levels: list[str]) -> dict[str, str]:
    """For each frame its SQL; a later one may use an earlier one. Bound: $level, $tested, $cutoff."""
    return {**_amounts(panel, levels), **_judged(panel), **_noted(panel)}


def _amounts(panel: PanelSpec, levels: list[str]) -> dict[str, str]:
    keys, time, target, season = _names(panel)
    columns = ", ".join(f"s.{name}" for name in (*panel.keys, *levels))
    end = f"CAST($cutoff AS DATE) - {season} + {panel.horizon * panel.frequency.days}"
    return {
        "reported": f"SELECT s.member, s.is_forecast, {columns}, t.{time}, t.{target} AS reported, "
        f"t.{target}_adjusted * s.factor AS comparable "
        f'FROM published."{panel.series.name}" AS t JOIN book.series AS s USING ({keys}) '
        f"WHERE t.{time} > CAST($cutoff AS DATE) - {SEASONS * season}",
        "forecasts": f"SELECT s.member, {columns}, f.{time}, f.horizon, f.forecast, "
        f"{', '.join(f'f.{bound}' for bound in BOUNDS)}, h.comparable AS last_year, "
        "h.reported AS reported_last_year, e.sentence "
        f"FROM published.forecasts AS f JOIN book.series AS s USING ({keys}) "
        f"LEFT JOIN book.reported AS h ON {_same('f', 'h', panel)} AND h.{time} = f.{time} - {season} "
        f"LEFT JOIN published.explanations AS e ON {_same('f', 'e', panel)} AND e.horizon = f.horizon",
        "sums": f"SELECT member, {time}, horizon, forecast, {', '.join(BOUNDS)} FROM published.aggregates "
        "WHERE level = $level",
        "history": f"SELECT member, {time}, fsum(reported) AS reported, fsum(comparable) AS comparable "
        f"FROM book.reported WHERE is_forecast AND {time} <= CAST($cutoff AS DATE) GROUP BY ALL",
        "stopped": f"SELECT member, {keys}, fsum(reported) AS reported_last_year FROM book.reported "
        f"WHERE NOT is_forecast AND {time} > CAST($cutoff AS DATE) - {season} AND {time} <= {end} "
        "GROUP BY ALL",
    }


def _judged(panel: PanelSpec) -> dict[str, str]:
    keys, time, target, _ = _names(panel)
    return {
        "promised": f"SELECT member, CASE WHEN model = $tested THEN '{CHAMPION}' ELSE model END AS model, "
        "basis, wape, bias, coverage_80, coverage_95, rows FROM published.backtest_accuracy "
        f"WHERE scope = $level AND cutoff IS NULL AND model IN ($tested, '{NAIVE}')",
        "tests": f"SELECT member, cutoff, {time}, horizon, forecast, actual "
        "FROM published.backtest_aggregates WHERE level = $level AND model = $tested",
        "live": "SELECT member, cutoff, model_version, periods, wape, wape_promised, wape_seasonal_naive, "
        "bias, coverage_80 FROM published.monitored_accuracy WHERE level = $level AND horizon IS NULL "
        "AND basis = 'series'",
        # A series that was forecast and did not report sold nothing, as in all other sums.
        "outcomes": f"FROM (SELECT s.member, h.{time}, h.cutoff, h.horizon, fsum(h.forecast) AS forecast, "
        f"fsum(coalesce(t.{target}, 0)) AS actual FROM published.forecast_history AS h "
        f"JOIN book.series AS s USING ({keys}) "
        f'LEFT JOIN published."{panel.series.name}" AS t USING ({keys}, {time}) '
        f"WHERE h.role = '{CHAMPION}' AND h.{time} <= CAST($cutoff AS DATE) GROUP BY ALL) "
        f"QUALIFY row_number() OVER (PARTITION BY member, {time} ORDER BY horizon) = 1",
    }


def _noted(panel: PanelSpec) -> dict[str, str]:
    keys, time, _, _ = _names(panel)
    return {
        "adjustments": "SELECT t.member, a.* FROM book.told AS t JOIN ("
        "SELECT row_number() OVER () AS place, * FROM published.adjustments) AS a USING (place)",
        "missing": f"SELECT s.member, {keys}, m.last_reported FROM published.missing_series AS m "
        f"JOIN book.series AS s USING ({keys}) WHERE m.cutoff = CAST($cutoff AS DATE)",
        "restatements": f"SELECT s.member, {keys}, r.{time}, r.old_value, r.new_value, r.new_file, "
        f"r.landed_at FROM published.restatements AS r JOIN book.series AS s USING ({keys})",
    }


def _names(panel: PanelSpec) -> tuple[str, str, str, int]:
    """The keys, the time, the target, and the days of a season."""
    return ", ".join(panel.keys), panel.time, panel.target, panel.frequency.season * panel.frequency.days


def _same(one: str, other: str, panel: PanelSpec) -> str:
    return " AND ".join(f"{one}.{key} = {other}.{key}" for key in panel.keys)


def _levels(panel: PanelSpec) -> list[str]:
    return [name for name in panel.level_names if name not in panel.keys]
