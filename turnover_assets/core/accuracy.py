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

from turnover_assets.core.group_metrics import METRICS, JudgedRows, names_of
from turnover_assets.panel import PanelSpec

TOTAL, HORIZON, AGE = "total", "horizon", "age"  # scopes beside the levels
ALL = "all"  # the member of the total
OF_SERIES, OF_SUMS = "series", "sums"
COLUMNS = ("model", "basis", "scope", "member", "cutoff", "rows", "bounded_rows", *METRICS)


def accuracy_table(
    rows: pd.DataFrame, panel: PanelSpec, aggregates: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Metrics for each model, scope, member and cutoff.

    Args:
        rows: Backtest rows (see the module's docstring) of any number of models.
        panel: The panel.
        aggregates: Forecasts of sums over series, as aggregate_rows gives them, where they have bounds of
            their own; made from `rows` where left out.

    Returns:
        Tidy, one row a group that has rows, with the columns of COLUMNS:
        `basis`: `series` where errors are those of single series, `sums` where forecasts and actuals are
        first added up over a member's series (single errors cancel out).
        `scope`, `member`: `total` (`all`), `horizon` (1..H), `age` (`new`, `established`), then each level
        and key of the panel with its members, as text.
        `cutoff`: the period index, or missing for all cutoffs together.
        `rows`, `bounded_rows`: rows with a known actual, and those of them that have bounds.
        The metrics, as metrics.py defines them; `mase` and `rmsse` are means over series and cutoffs,
        `pinball` is the mean over the four bounds; NaN where nothing can be said.
    """
    sums = aggregate_rows(rows, panel) if aggregates is None else aggregates
    judged = JudgedRows.of(rows, list(panel.keys))
    parts = [
        judged.table(members).assign(basis=OF_SERIES, scope=scope) for scope, members in _scopes(rows, panel)
    ]
    for scope, of_level in sums.groupby("level", sort=False):
        parts.append(
            JudgedRows.of(of_level, ["member"]).table(of_level["member"]).assign(basis=OF_SUMS, scope=scope)
        )
    table = pd.concat(parts, ignore_index=True)
    return table[list(COLUMNS)]


def aggregate_rows(rows: pd.DataFrame, panel: PanelSpec) -> pd.DataFrame:
    """Actuals and forecasts added up over the series of each member of each level, and of all.

    Only rows with a known actual count, on both sides. Sums have no bounds here, because errors of series
    are dependent and bounds do not add up.

    Returns:
        A row for each model, level, member, cutoff and horizon: `model`, `level` (`total` or a level's
        name), `member` (text), `cutoff`, `t`, `horizon`, `actual`, `forecast`.
    """
    known = rows[rows["actual"].notna()]
    points = [known[name] for name in ("model", "cutoff", "t", "horizon")]
    parts = []
    for level in (TOTAL, *_levels(panel)):
        member = known[level] if level != TOTAL else _labelled(np.zeros(len(known)), [ALL], known.index)
        by = [*points, member.rename("member")]
        grouped = known[["actual", "forecast"]].groupby(by, sort=True, observed=True, dropna=False)
        sums = grouped.sum(skipna=False).reset_index().assign(level=level)
        parts.append(sums.assign(member=names_of(sums["member"])))
    order = ["model", "level", "member", "cutoff", "t", "horizon", "actual", "forecast"]
    return pd.concat(parts, ignore_index=True)[order]


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
    return pd.Series(pd.Categorical.from_codes(codes.astype(np.int8), labels), index=index)
