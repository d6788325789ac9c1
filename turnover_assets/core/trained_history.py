"""The history that the newest model was trained on, to see how much of it has changed since.

What belongs here: keeping it and comparing with it. What does not: what follows from that (retraining.py).
"""

import duckdb

from turnover_assets.core.tables import has_table
from turnover_assets.panel import PanelSpec

TRAINED = "reports.trained_history"


def keep_trained_history(con: duckdb.DuckDBPyConnection, panel: PanelSpec) -> None:
    """Keep the adjusted values as they are now, in place of those kept before."""
    con.execute(
        f"CREATE OR REPLACE TABLE {TRAINED} AS SELECT {', '.join(panel.keys)}, t, "
        f"{panel.target}_adjusted AS value FROM cleaned.{panel.series.name}"
    )


def changed_since_training(con: duckdb.DuckDBPyConnection, panel: PanelSpec) -> float:
    """Sum of |value now - value trained on| over sum of |value trained on|, up to the last period trained on.

    What is missing on a side counts as 0 there, so rows that came later for past periods count as well.

    Returns:
        NaN where nothing was kept, or it adds up to nothing.
    """
    if not has_table(con, TRAINED):
        return float("nan")
    keys = ", ".join([*panel.keys, "t"])
    changed, total = con.execute(
        f"SELECT sum(abs(coalesce(c.{panel.target}_adjusted, 0) - coalesce(k.value, 0))), sum(abs(k.value)) "
        f"FROM (FROM cleaned.{panel.series.name} WHERE t <= (SELECT max(t) FROM {TRAINED})) AS c "
        f"FULL JOIN {TRAINED} AS k USING ({keys})"
    ).fetchall()[0]
    return float(changed / total) if total else float("nan")
