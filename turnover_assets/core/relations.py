"""Relations: the temporary tables and views from which feature rows are put together, as of a cutoff.

What belongs here: series, the grid of their periods, the aggregates of every level and how those of cutoff
and target compare, and the choice of cutoffs. What does not: the windows over periods (histories.py), and the
features (features.py), which are expressions over these relations.

The leakage guard. A row for cutoff c and target period T = c + h is put together from two relations:
`as_of`, whose windows end at row c, and `around`, whose windows are aligned to row T but end at least
`season - 2 * cycle - horizon` periods before it, hence never after c (the panel keeps the horizon that
short). Peaks around the target (see _peaks_sql) are held against weeks up to just as far after them, and
what the calendar says of earlier seasons (see histories.season_errors) ends there, too. Changing any value
after c changes no feature of c; test_features.py does just that.
"""

import math

import duckdb
import pandas as pd

from turnover_assets.core.anomalies.matrix import MAD_TO_DEVIATION
from turnover_assets.core.calendar import calendar_table
from turnover_assets.core.histories import (
    GROWTH_LIMITS,
    WINDOWS,
    YEARS,
    make_level,
    make_own,
    season_errors,
)
from turnover_assets.panel import Column, PanelSpec

SAMPLE_BUCKETS = 1000
# Of so many times the share of cutoffs there is a row of the next period, which recursive models learn from.
NEXT_PERIOD = 4
CODES = 2**24  # whole numbers below it are exact in the 32 bits of a feature
RECENT_CUTOFFS = 4  # before the newest, of which forecasts are held against what came of them
NO_END = 1_000_000  # more periods than any panel has
# Of a deviation of so many times the usual one, half is taken for a peak that comes back each season.
HALF_A_PEAK = 2.0


def prepare(
    con: duckdb.DuckDBPyConnection,
    panel: PanelSpec,
    last: int,
    *,
    adjusted: str = "",
    in_force: pd.DataFrame | None = None,
    known: int | None = None,
) -> None:
    """Make the temporary relations from which rows are put together.

    Args:
        con: Connection with the cleaned tables.
        panel: The panel.
        last: Index of the last period known; no feature reads anything after it.
        adjusted: Table with the series keys, `t` and `<target>_adjusted`; the cleaned series table where left
            out. For a past cutoff it holds what was adjusted then.
        in_force: Series keys and `factor_in_force`, the scale in which a series is reported at `last`; 1
            where a series is not in it.
        known: Last period whose reported value may stand as the outcome of a row; `last` where left out.
    """
    prepare_shared(con, panel, last, adjusted=adjusted, in_force=in_force, known=known)
    prepare_own(con, panel)


def prepare_shared(
    con: duckdb.DuckDBPyConnection,
    panel: PanelSpec,
    last: int,
    *,
    adjusted: str = "",
    in_force: pd.DataFrame | None = None,
    known: int | None = None,
) -> None:
    """Make the relations that rows of all series are put together from; arguments as of prepare.

    They are those that shared_relations names.
    """
    con.execute(f"CREATE OR REPLACE TEMP TABLE series AS {_series_sql(panel)}", [last])
    _add_scale_in_force(con, panel, in_force)
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE grid AS {_grid_sql(panel, adjusted)}",
        {"last": last, "h": panel.horizon, "known": last if known is None else known},
    )
    _add_up_levels(con, panel)
    first, end = con.execute("SELECT min(t), max(t) FROM grid").fetchall()[0]
    if first is None:  # nothing is known yet, so there will be no rows either
        first = end = last
    days = calendar_table(panel, first, end).assign(season_error=season_errors(con, panel, first, end))
    con.register("calendar_frame", days)
    con.execute("CREATE OR REPLACE TEMP TABLE calendar AS SELECT * FROM calendar_frame ORDER BY t")
    con.unregister("calendar_frame")


def shared_relations(panel: PanelSpec) -> tuple[str, ...]:
    """Names of the relations that prepare_shared makes."""
    return ("series", "grid", "calendar", *(f"level_{level}" for level in panel.level_names))


def prepare_own(con: duckdb.DuckDBPyConnection, panel: PanelSpec, only: str = "") -> None:
    """Make the relations of each series by itself, as_of and around, after the shared ones.

    Args:
        con: Connection on which prepare_shared was called.
        panel: The panel.
        only: Name of a relation of series keys, outside of which nothing is made; all series where left out.
    """
    grid = "grid"
    if only:
        grid = "own_grid"
        con.execute(
            "CREATE OR REPLACE TEMP TABLE own_grid AS SELECT * FROM grid WHERE series_id IN "
            f"(SELECT series_id FROM series JOIN {only} USING ({', '.join(panel.keys)})) "
            "ORDER BY series_id, t"
        )
    make_own(con, panel, grid)


def _add_up_levels(con: duckdb.DuckDBPyConnection, panel: PanelSpec) -> None:
    """Make the aggregates of every level; the sums, from which all else follows, in one thread.

    Several add up whatever part of a group each comes across, so the last bit would be another each time.
    Ordered sums would be as exact, and take ten times as long.
    """
    usual = threads(con)
    con.execute("SET threads = 1")
    for level in panel.level_names:
        con.execute(f"CREATE OR REPLACE TEMP TABLE totals_{level} AS {_totals_sql(level)}")
    con.execute(f"SET threads = {usual}")
    for level in panel.level_names:
        make_level(con, panel, level, _peaks_sql(panel, f"FROM totals_{level}"))
        con.execute(f"DROP TABLE totals_{level}")


def threads(con: duckdb.DuckDBPyConnection) -> int:
    """How many threads the connection's queries may use."""
    return int(con.execute("SELECT current_setting('threads')").fetchall()[0][0])


def _add_scale_in_force(
    con: duckdb.DuckDBPyConnection, panel: PanelSpec, in_force: pd.DataFrame | None
) -> None:
    con.execute("ALTER TABLE series ADD COLUMN in_force DOUBLE DEFAULT 1.0")
    if in_force is None:
        return
    con.register("scale_in_force", in_force)
    on = " AND ".join(f"series.{key} = f.{key}" for key in panel.keys)
    # A turned sign is mended in the past; nobody wants forecasts of the opposite sign.
    con.execute(
        f"UPDATE series SET in_force = f.factor_in_force FROM scale_in_force AS f "
        f"WHERE {on} AND f.factor_in_force > 0"
    )
    con.unregister("scale_in_force")


def choose_training_pairs(
    con: duckdb.DuckDBPyConnection,
    panel: PanelSpec,
    share: float,
    max_rows: int,
    alive: int,
    until: int = NO_END,
) -> None:
    """Choose the past cutoffs of each series that are used for training, as the relation `pairs`.

    Which of a series' cutoffs are used differs from series to series, so that every period is seen. A share
    of them is used with every horizon, and NEXT_PERIOD times that share with the first horizon.

    Args:
        con: Connection on which prepare was called.
        panel: The panel; each cutoff gives as many rows as its horizon at most.
        share: Share of the cutoffs to use with every horizon, above 0, at most 1.
        max_rows: Upper bound of the rows; the share is lowered to keep it.
        alive: A series counts where it has a value within so many periods up to the cutoff.
        until: Last target period to take; every one that is known where left out.
    """
    counted = con.execute(
        f"SELECT count(*) FROM as_of WHERE {_ALIVE} AND t < $until", {"alive": alive, "until": until}
    )
    there = int(counted.fetchall()[0][0])
    most = max_rows // (panel.horizon + NEXT_PERIOD - 1)  # cutoffs that may have every horizon
    buckets = math.ceil(min(share, most / max(1, there)) * SAMPLE_BUCKETS)
    bucket = f"(series_id * 7919 + t * 104729) % {SAMPLE_BUCKETS}"
    whole, limit = f"{bucket} < {buckets}", ""
    if (
        there > most
    ):  # buckets hold about the share; this makes the bound strict, without favouring any series
        order = f"{bucket}, (series_id * 104729 + t * 7919) % 1009, series_id, t"
        whole = f"{whole} AND row_number() OVER (ORDER BY {order}) <= {most}"
        limit = f"ORDER BY {order} LIMIT {NEXT_PERIOD * most}"
    _make_pairs(
        con,
        panel,
        f"{_ALIVE} AND t < $until AND {bucket} < {NEXT_PERIOD * buckets} {limit}",
        {"alive": alive, "until": until},
        f"least({int(until)}, (SELECT max(r.t) FROM around AS r WHERE r.y IS NOT NULL))",
        whole,
    )


def choose_scoring_pairs(
    con: duckdb.DuckDBPyConnection, panel: PanelSpec, cutoff: int, alive: int, cutoffs: int = 1
) -> None:
    """Choose every series alive at a cutoff, and at those after it up to so many, as the relation `pairs`."""
    _make_pairs(
        con,
        panel,
        f"t >= $cutoff AND t < $cutoff + $cutoffs AND {_ALIVE}",
        {"alive": alive, "cutoff": cutoff, "cutoffs": cutoffs},
    )


def choose_recent_pairs(con: duckdb.DuckDBPyConnection, panel: PanelSpec, cutoff: int, alive: int) -> None:
    """Choose cutoffs of the RECENT_CUTOFFS cycles before a cutoff, and of each the horizons over by then.

    They are a cycle apart, or a horizon where that is shorter, so that every period is forecast.
    """
    cycle = panel.frequency.cycle
    apart = min(cycle, panel.horizon)
    _make_pairs(
        con,
        panel,
        f"t >= $first AND t < $cutoff AND ($cutoff - t) % $apart = 0 AND {_ALIVE}",
        {
            "alive": alive,
            "cutoff": cutoff,
            "first": cutoff - RECENT_CUTOFFS * cycle,
            "apart": apart,
        },
        int(cutoff),
    )


_ALIVE = "t - last_seen < $alive"


def _make_pairs(
    con: duckdb.DuckDBPyConnection,
    panel: PanelSpec,
    where: str,
    bound: dict[str, int],
    newest: int | str = NO_END,
    whole: str = "true",
) -> None:
    """Make `cutoffs`, the rows of as_of that are chosen, and the views `pairs` with horizons and between_*.

    A cutoff has every horizon where it is `whole`, the first one otherwise, up to the `newest` target period.
    """
    horizons = f"least(CASE WHEN {whole} THEN {panel.horizon} ELSE 1 END, {newest} - t)"
    con.execute(
        "CREATE OR REPLACE TEMP TABLE cutoffs AS SELECT * FROM (SELECT series_id, t AS cutoff, "
        f"place AS place_cutoff, CAST({horizons} AS INTEGER) AS horizons FROM as_of WHERE {where}) "
        "WHERE horizons > 0 ORDER BY place_cutoff",
        bound,
    )
    con.execute(
        "CREATE OR REPLACE TEMP VIEW pairs AS SELECT series_id, cutoff, horizon, cutoff + horizon AS t, "
        "place_cutoff, place_cutoff + horizon AS place_target "
        f"FROM ({_with_horizons('cutoffs', 'horizons')})"
    )
    for level in panel.level_names:
        con.execute(f"CREATE OR REPLACE TEMP VIEW between_{level} AS {_between_sql(panel, level)}")


def _with_horizons(relation: str, last: int | str) -> str:
    return f"SELECT *, CAST(unnest(range(1, {last} + 1)) AS INTEGER) AS horizon FROM {relation}"


def _series_sql(panel: PanelSpec) -> str:
    keys = ", ".join(panel.keys)
    name = panel.series.name
    joins, columns = [], []
    for table in panel.static:
        joins.append(f"LEFT JOIN cleaned.{table.name} AS {table.name} USING ({', '.join(table.keys)})")
        columns += [
            f"{code_sql(column, f'{table.name}.{column.name}')} AS {column.name}" for column in table.columns
        ]
    ids = [f"dense_rank() OVER (ORDER BY {level} NULLS FIRST) AS {level}_id" for level in panel.level_names]
    inner = ", ".join(["p.*", *columns])
    return (
        f"SELECT row_number() OVER (ORDER BY first_t, {keys}) AS series_id, *, {', '.join(ids)} FROM ("
        f"SELECT {inner} FROM (SELECT {keys}, min(t) AS first_t FROM cleaned.{name} WHERE t <= ? "
        f"GROUP BY ALL) AS p {' '.join(joins)})"
    )


def code_sql(column: Column, value: str) -> str:
    """A value as a number that depends on the value only.

    A rank among the values there are would move when a new one appears: it would carry what comes after
    the cutoff, and a model trained before would take one store for another.
    """
    if column.type == "text":
        digits = f"CASE WHEN regexp_full_match({value}, '[0-9]{{1,15}}') THEN CAST({value} AS BIGINT) END"
        hashed = f"CAST(md5_number_lower({value}) % {CODES} AS BIGINT)"
        return f"coalesce({digits} % {CODES}, {hashed})"
    return f"CAST({value} AS DOUBLE)" if column.type == "flag" else value


def _grid_sql(panel: PanelSpec, adjusted: str) -> str:
    """Every period of every series from its first to the last one to forecast; gaps are NULL.

    `place` numbers the rows from 0, in order of series and period, so that the place of a target period is
    that of the cutoff and the horizon added up.
    """
    name, keys, season = panel.series.name, ", ".join(panel.keys), panel.frequency.season
    source = adjusted or f"cleaned.{name}"
    on = {alias: " AND ".join(f"{alias}.{key} = g.{key}" for key in panel.keys) for alias in ("p", "a")}
    whole = (
        f"SELECT g.series_id, g.t, g.first_t, g.before + g.t - g.first_t AS place, "
        f"a.{panel.target}_adjusted AS y, p.{panel.target} AS reported, "
        f"CASE WHEN g.t <= $last THEN a.{panel.target}_adjusted ELSE p.{panel.target} / g.in_force END "
        f"AS actual FROM (SELECT *, unnest(range(first_t, $last + $h + 1)) AS t FROM ("
        f"SELECT series_id, {keys}, first_t, in_force, CAST(coalesce(sum($last + $h + 1 - first_t) OVER ("
        "ORDER BY series_id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS BIGINT) AS before "
        "FROM series)) AS g "
        f"LEFT JOIN {source} AS a ON {on['a']} AND a.t = g.t AND a.t <= $last "
        f"LEFT JOIN cleaned.{name} AS p ON {on['p']} AND p.t = g.t AND p.t <= $known"
    )
    return (
        "SELECT *, CASE WHEN y IS NOT NULL THEN before END AS year_ago, "
        "CASE WHEN before IS NOT NULL THEN y END AS paired "
        f"FROM (SELECT *, lag(y, {season}) OVER (PARTITION BY series_id ORDER BY t) AS before "
        f"FROM ({whole})) ORDER BY series_id, t"
    )


def _totals_sql(level: str) -> str:
    """What the members of a level add up to in each period."""
    return (
        f"SELECT s.{level}_id AS id, g.t, sum(g.y) AS total, avg(abs(g.y)) AS per_series, "
        "sum(g.paired) AS paired, sum(g.year_ago) AS year_ago "
        "FROM grid AS g JOIN series AS s USING (series_id) GROUP BY ALL"
    )


def _peaks_sql(panel: PanelSpec, totals: str) -> str:
    """The totals, and as `peak` how far each one stands out from those a cycle before and after it.

    Means around a period level out chance, and with it what comes back on the same date each season, such as
    the week before Christmas. Of the logarithm d of a total over the mean of itself and its two neighbours,
    the share d^2 / (d^2 + (2 s)^2) counts as a peak, where s is the usual size of d: what stands out far is
    kept, what everyday noise could be is not. `peak` is the ratio that this leaves, 1 where nothing is known.
    """
    frequency = panel.frequency
    season, cycle = frequency.season, frequency.cycle
    ahead = season - 2 * cycle - panel.horizon  # a season later that is not after the cutoff
    near = f"list_avg([lag(total, {cycle}) OVER w, total, lead(total, {cycle}) OVER w])"
    usual = f"median(abs(d)) OVER (w ROWS BETWEEN {season - 1} PRECEDING AND {max(ahead, 0)} FOLLOWING)"
    over = "WINDOW w AS (PARTITION BY id ORDER BY t)"
    deviations = (
        f"SELECT *, CASE WHEN total > 0 AND near > 0 THEN ln(total / near) END AS d "
        f"FROM (SELECT *, {near} AS near FROM ({totals}) {over})"
    )
    noise = (HALF_A_PEAK * MAD_TO_DEVIATION) ** 2
    ratio = f"exp(d * d * d / greatest(d * d + {noise} * usual * usual, 1e-12))"
    return (
        f"SELECT * EXCLUDE (near, d, usual), CAST(coalesce({ratio}, 1.0) AS REAL) AS peak "
        f"FROM (SELECT *, {usual} AS usual FROM ({deviations}) {over})"
    )


def _between_sql(panel: PanelSpec, level: str) -> str:
    """How a level's members stood at the cutoff and around the target, once for all their series.

    A row for each horizon of each member and chosen cutoff of one of its series: `id`, `cutoff`, `horizon`,
    and what between_expressions names.
    """
    listed = ", ".join(f"{sql} AS {name}" for name, sql in between_expressions(panel).items())
    members = (
        f"SELECT DISTINCT s.{level}_id AS id, p.cutoff FROM cutoffs AS p JOIN series AS s USING (series_id)"
    )
    return (  # materialized, since DuckDB shares out what it reads of a table among threads by 122,880 rows
        f"WITH m AS MATERIALIZED ({_with_horizons(f'({members})', panel.horizon)}) "
        f"SELECT m.id, m.cutoff, m.horizon, {listed} FROM m "
        f"LEFT JOIN level_{level} AS c ON c.id = m.id AND c.t = m.cutoff "
        f"LEFT JOIN level_{level} AS t ON t.id = m.id AND t.t = m.cutoff + m.horizon"
    )


def between_expressions(panel: PanelSpec) -> dict[str, str]:
    """How a level at the cutoff (`c`) and at the target (`t`) compare: SQL by name.

    The growth at the cutoff, `shape_1` (what stood around the target over what stood before the cutoff, a
    season earlier), and the same of all years together by kind and length of the windows; all within
    GROWTH_LIMITS.
    """
    windows = WINDOWS[panel.frequency.every]
    lengths = (windows.short, windows.medium)
    return {
        **{f"growth_{k}": f"c.growth_{k}" for k in lengths},
        "shape_1": limited(f"t.around_1 / nullif(c.base_1_{windows.short}, 0)"),
        **{
            f"pooled_{kind}_{k}": pooled(k, f"t.{kind}_{{}}", "c")
            for kind in ("around", "same")
            for k in lengths
        },
    }


def limited(ratio: str) -> str:
    """A ratio kept within limits; a missing one stays missing."""
    low, high = GROWTH_LIMITS
    return f"CASE WHEN {ratio} IS NOT NULL THEN least(greatest({ratio}, {low}), {high}) END"


def pooled(length: int, around: str, base: str) -> str:
    """The shape of the season, of all years together: around the target over before the cutoff, limited.

    A single year's shape carries that year's weather; several years' carry less of it.

    Args:
        length: Periods that the bases of the shape are taken over.
        around: SQL of the value around the target period, with `{}` for the years back.
        base: Relation of the values before the cutoff, one or more years back.
    """
    pairs = [(around.format(years), f"{base}.base_{years}_{length}") for years in YEARS]
    both = [f"CASE WHEN {a} IS NOT NULL AND {b} IS NOT NULL THEN" for a, b in pairs]
    top = " + ".join(f"{when} {a} ELSE 0 END" for when, (a, _) in zip(both, pairs, strict=True))
    bottom = " + ".join(f"{when} {b} ELSE 0 END" for when, (_, b) in zip(both, pairs, strict=True))
    return limited(f"({top}) / nullif({bottom}, 0)")
