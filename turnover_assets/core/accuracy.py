"""The accuracy of backtest forecasts: every metric for every model, cutoff, level and horizon.

What belongs here: which groups of rows are judged, and the metrics of all groups at once. What does not: the
metrics' definitions (metrics.py), making the forecasts, deciding between models (gate.py).

Backtest rows: a row for each model, series, cutoff and horizon, with the series keys and level columns,
`cutoff` and `t` (period indices), `horizon` (1..H), `actual` (as reported, NaN where unknown), `forecast`,
`lower_80`, `upper_80`, `lower_95`, `upper_95` (all four or none), `naive_mae`, `naive_mse` (in-sample errors
of the seasonal naive forecast as of the cutoff), `is_new` (younger than a season at the cutoff) and `model`.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pandas as pd

from turnover_assets.core.group_metrics import METRICS, JudgedRows
from turnover_assets.panel import PanelSpec

TOTAL, HORIZON, AGE = "total", "horizon", "age"  # scopes beside the levels
ALL = ""  # the member of the total
OF_SERIES, OF_SUMS = "series", "sums"
COLUMNS = ("model", "basis", "scope", "member", "cutoff", "rows", "bounded_rows", *METRICS)


def accuracy_table(
    rows: pd.DataFrame, panel: PanelSpec, aggregates: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Metrics for each model, scope, member and cutoff.

    Args:
        rows: Backtest rows (see the module's docstring) of any number of models.
        panel: The panel.
        aggregates: Forecasts of sums over the series of each level's members, where they shall be judged too:
            as backtest rows, with `level` and `member` in place of the series keys.

    Returns:
        Tidy, one row a group that has rows, with the columns of COLUMNS:
        `basis`: `series` where errors are those of single series, `sums` where they are those of
        `aggregates` (errors of single series cancel out).
        `scope`, `member`: `total` (an empty text), `horizon` (1..H), `age` (`new`, `established`), then each
        level and key of the panel with its members, as text.
        `cutoff`: the period index, or missing for all cutoffs together.
        `rows`, `bounded_rows`: rows with a known actual, and those of them that have bounds.
        The metrics, as metrics.py defines them; `mase` and `rmsse` are means over series and cutoffs,
        `pinball` is the mean over the four bounds; NaN where nothing can be said.
    """
    judged = JudgedRows.of(rows, list(panel.keys))
    parts = [judged.table(of).assign(basis=OF_SERIES, scope=scope) for scope, of in _scopes(rows, panel)]
    if aggregates is not None:
        for level, sums in aggregates.groupby("level", sort=False):
            judged = JudgedRows.of(sums, ["member"])
            parts.append(judged.table(sums["member"]).assign(basis=OF_SUMS, scope=level))
    table = pd.concat(parts, ignore_index=True)
    return table[list(COLUMNS)]


def _levels(panel: PanelSpec) -> list[str]:
    """The levels, then the keys that are none."""
    return list(dict.fromkeys([*panel.level_names, *panel.keys]))


def _scopes(rows: pd.DataFrame, panel: PanelSpec) -> Iterator[tuple[str, pd.Series]]:
    """Each scope with the member of each row."""
    yield TOTAL, _labelled(np.zeros(len(rows)), [ALL], rows.index)
    yield HORIZON, rows["horizon"]
    yield AGE, _labelled(rows["is_new"].to_numpy(np.bool_), ["established", "new"], rows.index)
    for level in _levels(panel):
        yield level, rows[level]


def _labelled(codes: npt.NDArray[np.generic], labels: list[str], index: pd.Index) -> pd.Series:
    """A few labels given by number; a column of texts would cost more than the metrics."""
    return pd.Series(pd.Categorical.from_codes(codes.astype(np.int8).tolist(), pd.Index(labels)), index=index)
