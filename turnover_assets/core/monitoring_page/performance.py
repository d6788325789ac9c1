"""How well published forecasts do: accuracy, bounds, errors, and how steady they are.

What belongs here: the content of the page's first two sections. What does not: the sums over single outcomes
(outcomes.py).
"""

from datetime import date
from typing import Any

import duckdb
import pandas as pd

from turnover_assets.core.accuracy import TOTAL
from turnover_assets.core.monitoring.tables import ACCURACY, MEASURES, STABILITY
from turnover_assets.core.monitoring_page import outcomes, pictures
from turnover_assets.core.templating import Records, records
from turnover_assets.panel import PanelSpec

CUTOFFS_SHOWN = 60  # in a picture
CUTOFFS_LISTED = 12
MEMBERS = 12  # of a level, the least accurate first
MEASURED = (
    "wape",
    "wape_seasonal_naive",
    "wape_promised",
    "wape_over_promised",
    "bias",
    "tracking_signal",
    "coverage_80",
    "coverage_95",
    "stability",
)


def performance(con: duckdb.DuckDBPyConnection, panel: PanelSpec, cutoff: date, last: int) -> dict[str, Any]:
    """What the section on accuracy says; `rows` is 0 where no outcome is known yet."""
    rows = outcomes.prepare(con, panel, last)
    cutoffs = _by_cutoff(con)
    horizons = outcomes.by_horizon(con).merge(_promised(con, panel), on="horizon", how="left")
    errors, zones = outcomes.errors(con), outcomes.zones(con)
    ahead = outcomes.total_forecasts(con, panel, panel.horizon + 1)
    return {
        "rows": rows,
        "cutoffs": cutoffs.tail(CUTOFFS_LISTED)[::-1].to_dict("records"),
        "by_cutoff": pictures.accuracy_by_cutoff(cutoffs) if len(cutoffs) else None,
        "horizons": horizons.to_dict("records"),
        "by_horizon": pictures.accuracy_by_horizon(horizons, panel.frequency.every) if rows else None,
        "total": pictures.total(outcomes.total_reported(con, panel, last), ahead) if len(ahead) else None,
        "errors": pictures.errors(errors) if errors else None,
        "bounds": pictures.bounds(zones) if zones is not None else None,
        "zones": [] if zones is None else zones.to_dict("records"),
        "levels": [level for level in _levels(con, panel, cutoff) if level["members"]],
        "worst": outcomes.worst_series(con),
    }


def _by_cutoff(con: duckdb.DuckDBPyConnection) -> pd.DataFrame:
    """The accuracy of each published cutoff in total, the oldest first."""
    table = con.execute(
        f"SELECT * REPLACE (CAST(cutoff AS TIMESTAMP) AS cutoff) FROM {ACCURACY} "
        f"WHERE level = '{TOTAL}' AND horizon IS NULL AND basis = 'series' "
        f"ORDER BY cutoff DESC LIMIT {CUTOFFS_SHOWN}"
    ).df()
    return table[::-1].reset_index(drop=True)


def _promised(con: duckdb.DuckDBPyConnection, panel: PanelSpec) -> pd.DataFrame:
    """What was promised by horizon, the mean over as many newest cutoffs as there are outcomes of."""
    return con.execute(
        f"SELECT horizon, avg(wape_promised) AS wape_promised FROM (SELECT *, dense_rank() OVER "
        f"(PARTITION BY horizon ORDER BY cutoff DESC) AS place FROM {ACCURACY} WHERE level = '{TOTAL}' "
        f"AND basis = 'series' AND horizon IS NOT NULL) WHERE place <= {panel.horizon} GROUP BY horizon"
    ).df()


def total_measures(con: duckdb.DuckDBPyConnection, cutoff: date) -> dict[str, float | None]:
    """The measures of the total as seen at a cutoff, by name."""
    found = records(
        con, f"SELECT measure, value FROM {MEASURES} WHERE level = '{TOTAL}' AND cutoff = ?", [cutoff]
    )
    return {row["measure"]: row["value"] for row in found}


def _levels(con: duckdb.DuckDBPyConnection, panel: PanelSpec, cutoff: date) -> list[dict[str, Any]]:
    """The accuracy of each level's members as seen at the cutoff, the least accurate first."""
    pivoted = ", ".join(f"max(value) FILTER (measure = '{name}') AS {name}" for name in MEASURED)
    found = []
    for level in panel.level_names:
        members = records(
            con,
            f"SELECT member, {pivoted} FROM {MEASURES} WHERE level = ? AND cutoff = ? GROUP BY member "
            "HAVING isfinite(wape) ORDER BY wape DESC, member",
            [level, cutoff],
        )
        shown = members[:MEMBERS]
        largest = max((row["wape"] for row in shown), default=0.0)
        found.append({"level": level, "members": shown, "count": len(members), "largest": largest})
    return found


def stability(con: duckdb.DuckDBPyConnection, panel: PanelSpec, cutoff: date) -> dict[str, Any]:
    """How the forecasts of the same periods moved since the cutoff before."""
    over_time = con.execute(
        f"SELECT CAST(cutoff AS TIMESTAMP) AS cutoff, value AS moved FROM {MEASURES} WHERE level = '{TOTAL}' "
        f"AND measure = 'stability' AND isfinite(value) ORDER BY cutoff DESC LIMIT {CUTOFFS_SHOWN}"
    ).df()[::-1]
    return {
        "over_time": pictures.shares_over_time(over_time, ["moved"]) if len(over_time) else None,
        "periods": _moved(con, panel, cutoff),
        "members": _moved_members(con, cutoff),
    }


def _moved(con: duckdb.DuckDBPyConnection, panel: PanelSpec, cutoff: date) -> Records:
    return records(
        con,
        f"SELECT {panel.time} AS period, previous_cutoff, previous_forecast, forecast, change, shift "
        f"FROM {STABILITY} WHERE level = '{TOTAL}' AND cutoff = ? ORDER BY period",
        [cutoff],
    )


def _moved_members(con: duckdb.DuckDBPyConnection, cutoff: date) -> Records:
    """The members whose sums moved most, up or down, over all periods."""
    return records(
        con,
        "SELECT level, member, (after - before) / nullif(abs(before), 0) AS moved, before, after FROM ("
        "SELECT level, member, sum(forecast) AS after, sum(previous_forecast) AS before "
        f"FROM {STABILITY} WHERE level <> '{TOTAL}' AND cutoff = ? GROUP BY level, member) "
        f"WHERE isfinite(moved) ORDER BY abs(moved) DESC, level, member LIMIT {MEMBERS}",
        [cutoff],
    )
