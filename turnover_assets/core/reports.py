"""Reports over cleaned tables: turnover by calendar month, and the season of each member of a level.

What belongs here: tables that people read, as SQL over cleaned data. What does not: pictures of them.
Published amounts are added up in a fixed order, so that the same data give the same ones to the last bit.
"""

import duckdb
import pandas as pd

from turnover_assets.core.calendar import epoch
from turnover_assets.panel import PanelSpec

PEAKS = 3


def _level_source(panel: PanelSpec) -> str:
    """SQL for the name of the reporting level, with what must be joined to have it."""
    level = panel.report_level
    joined = f"cleaned.{panel.series.name} AS p"
    if level in panel.keys:
        return joined
    table = next(table for table in panel.static if level in {c.name for c in table.columns})
    return f"{joined} LEFT JOIN cleaned.{table.name} USING ({', '.join(table.keys)})"


def _in_order(panel: PanelSpec) -> str:
    return "ORDER BY " + ", ".join(f"p.{key}" for key in (*panel.keys, "t"))


def _starts(panel: PanelSpec) -> str:
    return f"(DATE '{epoch(panel)}' + t * {panel.frequency.days})"


def monthly_turnover(con: duckdb.DuckDBPyConnection, panel: PanelSpec) -> pd.DataFrame:
    """Reported amounts per member of the reporting level, calendar month and year.

    Each period's amount is spread evenly over its days, so a week that spans two months counts in both.

    Returns:
        A row for each year, member and month: `year`, the level, `month` (1..12), the target (units of
        the target), `<target>_year` (the member's year) and `rank_in_year` (1 for the largest); ordered by
        year, rank, month.
    """
    level, target, days = panel.report_level, panel.target, panel.frequency.days
    return con.execute(f"""
        WITH periods AS (
          SELECT {level}, {_starts(panel)} AS first_day, sum({target} {_in_order(panel)}) AS amount
          FROM {_level_source(panel)} GROUP BY ALL),
        split AS (
          SELECT {level}, first_day, amount,
            least({days}, date_diff('day', first_day, CAST(last_day(first_day) AS DATE)) + 1) AS in_first
          FROM periods),
        parts AS (
          SELECT {level}, first_day AS day, amount * in_first / {days} AS part FROM split
          UNION ALL
          SELECT {level}, first_day + {days - 1}, amount * ({days} - in_first) / {days}
          FROM split WHERE in_first < {days}),
        months AS (
          SELECT CAST(year(day) AS INTEGER) AS year, {level}, CAST(month(day) AS INTEGER) AS month,
            sum(part ORDER BY day) AS {target}
          FROM parts GROUP BY ALL),
        years AS (
          SELECT year, {level}, sum({target} ORDER BY month) AS {target}_year FROM months GROUP BY ALL)
        SELECT *, CAST(dense_rank() OVER (PARTITION BY year ORDER BY {target}_year DESC) AS INTEGER)
          AS rank_in_year
        FROM (SELECT m.*, y.{target}_year FROM months AS m JOIN years AS y
          ON m.year = y.year AND m.{level} IS NOT DISTINCT FROM y.{level})
        ORDER BY year, rank_in_year, {level}, month""").df()


def seasonal_profile(con: duckdb.DuckDBPyConnection, panel: PanelSpec) -> pd.DataFrame:
    """Share of the year that falls in each of its 52 weeks, per member of the reporting level.

    Taken from adjusted values, as the mean over the calendar years that are fully reported (each of the
    52 weeks has a value), or over all there is where none is. The last week takes in the days after the
    364th. A member whose years all add up to nothing, or less, has no profile.

    Returns:
        A row for each member and week: the level, `week_of_year` (1..52), `share` (adds up to 1 per member),
        `index` (1 for an average week), `peak` (among the three highest) and `years` that were used.
    """
    level, days = panel.report_level, panel.frequency.days
    middle = f"({_starts(panel)} + {(days - 1) // 2})"
    return con.execute(
        f"""
        WITH weeks AS (
          SELECT {level}, year({middle}) AS y, least(52, (dayofyear({middle}) - 1) // 7 + 1) AS week_of_year,
            sum({panel.target}_adjusted {_in_order(panel)}) AS amount
          FROM {_level_source(panel)} GROUP BY ALL),
        complete AS (
          SELECT {level}, y, count(*) = 52 AS whole, sum(amount ORDER BY week_of_year) AS total
          FROM weeks GROUP BY ALL HAVING total > 0),
        used AS (
          SELECT * FROM complete
          QUALIFY whole OR NOT bool_or(whole) OVER (PARTITION BY {level})),
        shares AS (
          SELECT w.{level}, w.week_of_year, avg(w.amount / u.total ORDER BY w.y) AS raw_share
          FROM weeks AS w JOIN used AS u ON w.y = u.y AND w.{level} IS NOT DISTINCT FROM u.{level}
          GROUP BY ALL)
        SELECT {level}, CAST(week_of_year AS INTEGER) AS week_of_year,
          raw_share / sum(raw_share) OVER m AS share,
          raw_share / avg(raw_share) OVER m AS index,
          rank() OVER (PARTITION BY {level} ORDER BY raw_share DESC) <= $peaks AS peak,
          CAST((SELECT count(*) FROM used AS u WHERE u.{level} IS NOT DISTINCT FROM shares.{level})
            AS INTEGER) AS years
        FROM shares WINDOW m AS (PARTITION BY {level} ORDER BY week_of_year
          ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) ORDER BY {level}, week_of_year""",
        {"peaks": PEAKS},
    ).df()


def level_history(con: duckdb.DuckDBPyConnection, panel: PanelSpec) -> pd.DataFrame:
    """Reported amounts per period and member of the reporting level: time, the level, the target."""
    return con.execute(
        f"SELECT {panel.time}, {panel.report_level}, sum({panel.target}) AS {panel.target} "
        f"FROM {_level_source(panel)} GROUP BY ALL ORDER BY ALL"
    ).df()


def adjusted_history(con: duckdb.DuckDBPyConnection, panel: PanelSpec, count: int) -> pd.DataFrame:
    """What the widest applied adjustments do, for the `count` with the most rows.

    Returns:
        `selector`, time, and the totals `reported` and `adjusted` of the series that each concerns.
    """
    keys, name, target = ", ".join(panel.keys), panel.series.name, panel.target
    return con.execute(
        f"""
        WITH widest AS (
          SELECT adjustment_id, selector, rows FROM cleaned.adjustments WHERE status = 'applied' AND rows > 0
          ORDER BY rows DESC, adjustment_id LIMIT $count),
        concerned AS (
          SELECT DISTINCT {keys}, unnest(string_split(adjustment_id, '+')) AS adjustment_id
          FROM cleaned.{name} WHERE adjustment_id IS NOT NULL)
        SELECT w.selector, CAST(p.{panel.time} AS TIMESTAMP) AS {panel.time}, sum(p.{target}) AS reported,
          sum(p.{target}_adjusted) AS adjusted
        FROM widest AS w JOIN concerned USING (adjustment_id) JOIN cleaned.{name} AS p USING ({keys})
        GROUP BY w.selector, w.rows, p.{panel.time} ORDER BY w.rows DESC, w.selector, p.{panel.time}""",
        {"count": count},
    ).df()
