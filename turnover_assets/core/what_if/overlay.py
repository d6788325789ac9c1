"""An overlay: the tables of a snapshot as one question wants them, while others go on with what is published.

What belongs here: changing tables inside a catalog of the question's own, and making feature rows from them.
What does not: what to change (question.py, newcomers.py).

The SQL of relations names `cleaned.<table>` and its relations without a catalog. In an overlay
these names lead to views of the published tables, until a change puts a table in place of one. So the
features of a question are made by the code that makes all others, and a change of history also reaches the
sums of the levels that it belongs to.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import duckdb
import pandas as pd

from turnover_assets.core import relations
from turnover_assets.core.adjustments import series_attributes_sql
from turnover_assets.core.closures import with_closures
from turnover_assets.core.models import Rows
from turnover_assets.core.row_arrays import select_rows
from turnover_assets.core.what_if.question import Known, Scaled, Selector, covariate_columns
from turnover_assets.panel import PanelSpec

ASKED = "asked"
WIDER = "wider"


class Overlay:
    """The tables that one question sees.

    Args:
        con: A connection of the question's own, whose temporary tables nobody else sees.
        panel: The panel.
        base: Catalog of the published tables: schema cleaned, the relations of shared_relations, and
            `published`, the forecasts.
        own: Name of an empty catalog that the question's tables are made in.
        last: Index of the newest period known.
        in_force: Scale of each series; see relations.prepare.
    """

    def __init__(
        self,
        con: duckdb.DuckDBPyConnection,
        panel: PanelSpec,
        base: str,
        own: str,
        last: int,
        in_force: pd.DataFrame,
    ) -> None:
        self.con, self.panel, self.last, self.in_force = con, panel, last, in_force
        self._base, self._changed, self._other_history = base, set[str](), False
        self._rows_of = ASKED
        con.execute(f"USE {own}; CREATE SCHEMA cleaned")
        for table in panel.tables:
            con.execute(f"CREATE VIEW cleaned.{table} AS FROM {base}.cleaned.{table}")
        for relation in (*relations.shared_relations(panel), "published"):
            con.execute(f"CREATE VIEW {relation} AS FROM {base}.main.{relation}")
        keys = ", ".join(panel.keys)
        con.execute(f"CREATE TABLE {ASKED} AS SELECT {keys} FROM published LIMIT 0")

    def ask(self, selector: Selector) -> int:
        """Ask for the published series that a selector holds for; returns how many there are of them."""
        names, keys = list(selector), ", ".join(self.panel.keys)
        where = " AND ".join(f"{name} = ?" for name in names)
        chosen = f"SELECT {keys} FROM ({self.members_sql()}) WHERE {where}"
        found = self._fetch(f"SELECT count(*) FROM ({chosen})", [selector[name] for name in names])
        self.con.execute(f"INSERT INTO {ASKED} {chosen} EXCEPT FROM {ASKED}", [*selector.values()])
        return int(found[0][0])

    def also(self, series: pd.DataFrame) -> None:
        """Forecast these series too, without asking for them; changes stay with those asked for."""
        self.con.register("others", series)
        keys = ", ".join(self.panel.keys)
        self.con.execute(
            f"CREATE TABLE {WIDER} AS FROM {ASKED}; "
            f"INSERT INTO {WIDER} SELECT {keys} FROM others EXCEPT FROM {ASKED}"
        )
        self.con.unregister("others")
        self._rows_of = WIDER

    def ask_new(self, newcomers: str) -> None:
        """Ask for series that a relation names, which there are by now."""
        for relation in dict.fromkeys((ASKED, self._rows_of)):
            self.con.execute(f"INSERT INTO {relation} SELECT {', '.join(self.panel.keys)} FROM {newcomers}")

    def members_sql(self) -> str:
        """SQL for the published series: keys and attributes."""
        keys = ", ".join(self.panel.keys)
        attributes = "".join(f", {column.name}" for table in self.panel.static for column in table.columns)
        joins = " ".join(
            f"LEFT JOIN cleaned.{table.name} USING ({', '.join(table.keys)})" for table in self.panel.static
        )
        return f"SELECT {keys}{attributes} FROM (SELECT DISTINCT {keys} FROM published) {joins}"

    def forecast_series(self) -> pd.DataFrame:
        """The series that are to be forecast by now: their keys, in order."""
        return self.con.execute(f"SELECT * FROM {self._rows_of} ORDER BY ALL").df()

    def asked(self) -> pd.DataFrame:
        """The series asked for: their keys, in order."""
        return self.con.execute(f"SELECT * FROM {ASKED} ORDER BY ALL").df()

    def scale(self, change: Scaled) -> None:
        """Multiply the newest history of the series asked for."""
        panel = self.panel
        since, values = self.last - change.periods, {"f": change.factor}
        hit = f"r.t > {since} AND r.t <= {self.last} AND o.{panel.keys[0]} IS NOT NULL"
        scaled = ", ".join(
            f"CASE WHEN {hit} THEN r.{name} * $f ELSE r.{name} END AS {name}"
            for name in (panel.target, f"{panel.target}_adjusted")
        )
        on = " AND ".join(f"o.{key} = r.{key}" for key in panel.keys)
        name = panel.series.name
        source = f"cleaned.{name} AS r LEFT JOIN {ASKED} AS o ON {on}"
        self.put(name, f"SELECT r.* REPLACE ({scaled}) FROM {source}", values)

    def change(self, change: Known) -> None:
        """Give something known ahead another value, for the series asked for."""
        table, _ = covariate_columns(self.panel)[change.column]
        keys = [*table.keys, "t"]
        members = f"SELECT DISTINCT {', '.join(table.keys)} FROM {ASKED}" if table.keys else "SELECT 1 AS one"
        periods = f"SELECT unnest({list(change.periods)}) AS t"
        listed = ", ".join([*(f"m.{key}" for key in table.keys), "CAST(p.t AS INTEGER) AS t"])
        hit = f"SELECT {listed} FROM ({members}) AS m, ({periods}) AS p"
        on = " AND ".join(f"h.{key} = v.{key}" for key in keys)
        others = "".join(f", v.{column.name}" for column in table.columns if column.name != change.column)
        order = [*table.keys, "t", *(column.name for column in table.columns)]
        self.put(
            table.name,
            f"SELECT {', '.join(order)} FROM cleaned.{table.name} AS v "
            f"WHERE NOT EXISTS (FROM ({hit}) AS h WHERE {on}) UNION ALL BY NAME "
            f"SELECT h.*, $value AS {change.column}{others} FROM ({hit}) AS h "
            f"LEFT JOIN cleaned.{table.name} AS v ON {on}",
            {"value": change.value},
        )

    def put(self, table: str, sql: str, values: Mapping[str, Any] | None = None) -> None:
        """Put the result of a query in place of a cleaned table, with its columns as they were."""
        self.con.execute(f"CREATE TABLE fresh AS {sql}", dict(values or {}))
        self.con.execute(f"DROP {'TABLE' if table in self._changed else 'VIEW'} cleaned.{table}")
        self.con.execute(f"CREATE TABLE cleaned.{table} AS FROM {self._base}.cleaned.{table} LIMIT 0")
        self.con.execute(f"INSERT INTO cleaned.{table} BY NAME FROM fresh")
        self.con.execute("DROP TABLE fresh")
        self._changed.add(table)
        self._other_history |= table not in {covariates.name for covariates in self.panel.covariates}

    def rows(self) -> tuple[Rows, pd.DataFrame]:
        """Feature rows of the series asked for, at the newest cutoff, and what the series are.

        Returns:
            The rows; and `series_id`, the series keys and the members of each level. Both with those of also.
        """
        con, panel = self.con, self.panel
        if self._other_history:
            relations.prepare_shared(con, panel, self.last, in_force=self.in_force)
        relations.prepare_own(con, panel, self._rows_of)
        relations.choose_scoring_pairs(con, panel, self.last, relations.NO_END)
        keys = ", ".join(panel.keys)
        columns = ", ".join(f"a.{name}" for name in dict.fromkeys([*panel.keys, *panel.level_names]))
        series = con.execute(
            f"SELECT s.series_id, {columns} FROM series AS s JOIN {self._rows_of} USING ({keys}) "
            f"JOIN ({series_attributes_sql(panel)}) AS a USING ({keys}) ORDER BY series_id"
        ).df()
        return with_closures(panel, select_rows(con, panel)), series

    def _fetch(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        return self.con.execute(sql, list(values)).fetchall()
