"""Windows: what could be known at a past cutoff, and what was reported afterwards.

What belongs here: choosing cutoffs, and the feature rows of each. What does not: models and scores
(backtest.py).

Invariants:
    - nothing in a window's training rows, features or adjustments needs a value after its cutoff;
    - what is scored against is what was reported, not what was adjusted.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import duckdb
import pandas as pd

from turnover_assets.core import relations
from turnover_assets.core.adjustments import adjust, in_force, series_attributes_sql
from turnover_assets.core.closures import with_closures
from turnover_assets.core.cutoffs import first_period, last_period
from turnover_assets.core.level_changes import usual_changes
from turnover_assets.core.metrics import NAIVE_ERRORS_SQL
from turnover_assets.core.models import Rows
from turnover_assets.core.repairs import Repairs
from turnover_assets.core.row_arrays import select_rows
from turnover_assets.core.rows import RowLimits
from turnover_assets.errors import NothingToForecastError
from turnover_assets.panel import PanelSpec

Transaction = Callable[[], AbstractContextManager[duckdb.DuckDBPyConnection]]


@dataclass(frozen=True)
class Window:
    """One cutoff of a backtest.

    Attributes:
        cutoff: Index of the last period known.
        training: Rows to learn from; their target periods lie at or before the cutoff.
        scoring: Rows of the cutoff, and of those after it that were asked for, in order of series, cutoff
            and horizon; `reported` is NaN where not reported, or not yet.
        factors: Series keys, `t` and `factor` (reported over adjusted value) where it was not 1, as known at
            the cutoff; NaN where the value counted as missing.
        series: For each series `series_id`, the keys and levels of the panel, `first_t` (its first period
            that counts, see cutoffs.first_period), `naive_mae` and `naive_mse` (see
            metrics.NAIVE_ERRORS_SQL) as of the cutoff.
        recent: Rows of the cutoffs just before, with outcomes known at the cutoff; None where not asked for.
        usual: As of the cutoff, see level_changes.usual_changes; None where not asked for.
    """

    cutoff: int
    training: Rows
    scoring: Rows
    factors: pd.DataFrame
    series: pd.DataFrame
    recent: Rows | None = None
    usual: pd.DataFrame | None = None


def make_windows(
    con: duckdb.DuckDBPyConnection,
    panel: PanelSpec,
    cutoffs: Iterable[int],
    limits: RowLimits,
    repairs: Repairs,
    dense: int = 1,
    used_since: int | None = None,
) -> Iterator[Window]:
    """The windows of the given cutoffs (period indices), one at a time.

    Args:
        con: Connection with the cleaned tables.
        panel: The panel.
        cutoffs: Cutoffs, in the order wanted.
        limits: How many rows to make.
        repairs: How the history is repaired; asked anew as of each cutoff.
        dense: Cutoffs to score from each one on. Those after the first are scored as a model would be that
            was trained at the first: with newer values, the same adjustments.
        used_since: A model that was trained then takes part: later windows have `recent` and `usual`.
    """
    known = last_period(con, panel)
    for cutoff in cutoffs:
        newest, in_use = min(cutoff + dense - 1, known), used_since is not None and cutoff > used_since
        yield _make_window(con, panel, cutoff, limits, repairs, newest, known, in_use=in_use)


def make_windows_apart(
    transaction: Transaction,
    panel: PanelSpec,
    cutoffs: Iterable[int],
    limits: RowLimits,
    repairs: Repairs,
    dense: int = 1,
    used_since: int | None = None,
) -> Iterator[Window]:
    """The same, each in a transaction of its own: DuckDB keeps a window's temporary tables until its end.

    Args:
        transaction: Opens one with the cleaned tables.
        panel: The panel.
        cutoffs: Cutoffs, in the order wanted.
        limits: How many rows to make.
        repairs: As for make_windows.
        dense: As for make_windows.
        used_since: As for make_windows.
    """
    for cutoff in cutoffs:
        with transaction() as con:
            window = next(make_windows(con, panel, [cutoff], limits, repairs, dense, used_since))
        yield window
        del window  # or two of them would stand in memory while the next one is made


def _make_window(
    con: duckdb.DuckDBPyConnection,
    panel: PanelSpec,
    cutoff: int,
    limits: RowLimits,
    repairs: Repairs,
    newest: int,
    known: int,
    *,
    in_use: bool,
) -> Window:
    """The window of a cutoff, scored up to `newest`; a function, so that nothing of it stays in memory."""
    decided = repairs.as_of(con, panel, cutoff)
    adjust(con, panel, decided, newest)
    scale = in_force(con, panel, decided, cutoff)
    relations.prepare(con, panel, newest, adjusted="adjusted", in_force=scale, known=known)
    relations.choose_training_pairs(con, panel, limits.share, limits.max_rows, limits.alive, until=cutoff)
    training = select_rows(con, panel, known=True)
    factors = _factors(con, panel, "adjusted")
    relations.choose_scoring_pairs(con, panel, cutoff, limits.alive, newest - cutoff + 1)
    scoring, recent, usual = with_closures(panel, select_rows(con, panel)), None, None
    if in_use:
        relations.choose_recent_pairs(con, panel, cutoff, limits.alive)
        recent, usual = select_rows(con, panel, known=True), usual_changes(con, panel, cutoff)
    return Window(cutoff, training, scoring, factors, _series_facts(con, panel, cutoff), recent, usual)


def present_factors(con: duckdb.DuckDBPyConnection, panel: PanelSpec) -> pd.DataFrame:
    """What Window.factors holds, as known now."""
    return _factors(con, panel, f"cleaned.{panel.series.name}")


def _factors(con: duckdb.DuckDBPyConnection, panel: PanelSpec, table: str) -> pd.DataFrame:
    reported, adjusted = panel.target, f"{panel.target}_adjusted"
    factor = (
        f"CASE WHEN {reported} = 0 AND {adjusted} = 0 THEN 1.0 ELSE {reported} / nullif({adjusted}, 0) END"
    )
    return con.execute(
        f"SELECT {', '.join(panel.keys)}, t, {factor} AS factor FROM {table} WHERE adjustment_id IS NOT NULL"
    ).df()


def _series_facts(con: duckdb.DuckDBPyConnection, panel: PanelSpec, cutoff: int) -> pd.DataFrame:
    """What is known of each series at a cutoff; see Window.series."""
    con.execute(
        "CREATE OR REPLACE TEMP VIEW history AS SELECT series_id, t, y AS value FROM grid "
        f"WHERE t <= {int(cutoff)};"
        f"CREATE OR REPLACE TEMP VIEW origins AS SELECT series_id, {int(cutoff)} AS cutoff FROM series"
    )
    columns = ", ".join(f"a.{name}" for name in dict.fromkeys([*panel.keys, *panel.level_names]))
    on = " AND ".join(f"a.{key} = s.{key}" for key in panel.keys)
    return con.execute(
        f"SELECT s.series_id, {columns}, greatest(s.first_t, $first) AS first_t, e.naive_mae, e.naive_mse "
        "FROM series AS s "
        f"JOIN ({series_attributes_sql(panel)}) AS a ON {on} "
        f"LEFT JOIN ({NAIVE_ERRORS_SQL}) AS e USING (series_id) ORDER BY s.series_id",
        {"season": panel.frequency.season, "first": first_period(con, panel, cutoff)},
    ).df()


def recent_cutoffs(
    con: duckdb.DuckDBPyConnection, panel: PanelSpec, windows: int, alive: int
) -> tuple[int, ...]:
    """Cutoffs of up to so many windows that do not overlap, oldest first; all their outcomes are known.

    The newest lies one horizon before the newest period, the others follow at a horizon's distance, as long
    as a season of history lies before them. One that could not be scored lies as much earlier as need be.

    Raises:
        NothingToForecastError: Not even one can be had.
    """
    newest, season = last_period(con, panel) - panel.horizon, panel.frequency.season
    found = _apart(scorable_cutoffs(con, panel, alive), newest, panel.horizon, windows)
    if not found or found[0] <= newest - season:
        raise NothingToForecastError(
            "In the last year no series reported in two neighbouring stretches of "
            f"{panel.horizon} periods, so models cannot be compared. Land the periods in between."
        )
    earliest = first_period(con, panel) + season
    return (*(t for t in reversed(found[1:]) if t >= earliest), found[0])


def with_evidence_before(
    con: duckdb.DuckDBPyConnection, panel: PanelSpec, cutoffs: Sequence[int], windows: int, alive: int
) -> tuple[int, ...]:
    """The cutoffs asked for, and as many earlier ones as needed so that each has evidence before it.

    Evidence for a cutoff are windows whose outcomes were all known then.

    Args:
        con: Connection with the cleaned tables.
        panel: The panel.
        cutoffs: Cutoffs that are to be judged.
        windows: Windows of evidence before each, as far as history goes.
        alive: A series has stopped where it has no value in so many periods.

    Returns:
        All of them, oldest first.
    """
    earliest = first_period(con, panel) + panel.frequency.season
    possible = [t for t in scorable_cutoffs(con, panel, alive) if t >= earliest]
    found: set[int] = set()
    for cutoff in sorted(cutoffs):
        before = sum(t + panel.horizon <= cutoff for t in found)
        oldest = min((t for t in found if t + panel.horizon <= cutoff), default=cutoff)
        found |= {cutoff, *_apart(possible, oldest - panel.horizon, panel.horizon, windows - before)}
    return tuple(sorted(found))


def scorable_cutoffs(con: duckdb.DuckDBPyConnection, panel: PanelSpec, alive: int) -> list[int]:
    """Cutoffs at which a series was alive that reported within the horizon, oldest first.

    Of two reports of a series, one at a and the next at b, it is alive up to a + alive - 1, and cutoffs from
    b - horizon on have b as an outcome.
    """
    reports = con.execute(
        f"SELECT DISTINCT t, next FROM (SELECT t, lead(t) OVER (PARTITION BY {', '.join(panel.keys)} "
        f"ORDER BY t) AS next FROM cleaned.{panel.series.name}) WHERE next IS NOT NULL"
    ).fetchall()
    stretches = (range(max(a, b - panel.horizon), min(b, a + alive)) for a, b in reports)
    return sorted({t for stretch in stretches for t in stretch})


def _apart(possible: Sequence[int], newest: int, distance: int, most: int) -> list[int]:
    """Of ordered cutoffs the newest ones that lie so far apart, the newest first."""
    found: list[int] = []
    for cutoff in reversed(possible):
        if len(found) < most and cutoff <= newest:
            found.append(cutoff)
            newest = cutoff - distance
    return found
