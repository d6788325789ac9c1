"""Metrics of groups of forecasts, by level, member and horizon, beside seasonal naive and the promise.

What belongs here: applying the metrics of core/group_metrics.py, and weighing promises like what came true.
What does not: which forecasts are judged (outcomes.py), what is kept (accuracy.py, measures.py).
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from turnover_assets.core.accuracy import ALL, TOTAL
from turnover_assets.core.group_metrics import JudgedRows
from turnover_assets.core.intervals import BOUNDS
from turnover_assets.panel import PanelSpec

CELL = ["group", "level", "member"]
METRICS = ["wape", "bias", "coverage_80", "coverage_95"]
PROMISED = ["wape", "wape_seasonal_naive", "coverage_80", "coverage_95"]
Floats = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]


def judge_series(rows: pd.DataFrame, panel: PanelSpec) -> pd.DataFrame:
    """Judge forecasts by the errors of single series.

    Args:
        rows: As Outcomes.rows, with a column `group`.
        panel: The panel.

    Returns:
        A row for each group, level (`total`, then those of the panel), member (text) and horizon (missing for
        all together) that has an outcome: `group`, `level`, `member`, `horizon`, `rows`, `bounded_rows`,
        `abs_actual`, METRICS and `wape_seasonal_naive` (on the same rows).
    """
    members = [(TOTAL, pd.Series(ALL, index=rows.index))]
    members += [(level, rows[level]) for level in panel.level_names]
    return _judge(rows, list(panel.keys), members)


def judge_sums(sums: pd.DataFrame) -> pd.DataFrame:
    """Judge forecasts of sums, as Outcomes.sums with a column `group`; returns what judge_series does."""
    parts = [
        _judge(part, ["member"], [(str(level), part["member"])])
        for level, part in sums.groupby("level", sort=False)
    ]
    return pd.concat(parts, ignore_index=True) if parts else _judge(sums, ["member"], [])


def _judge(rows: pd.DataFrame, keys: list[str], members: Sequence[tuple[str, pd.Series]]) -> pd.DataFrame:
    """The metrics of each level's members, of the forecasts and of seasonal naive."""
    marked = rows.assign(model=rows["group"], cutoff=rows["horizon"])
    naive = marked.drop(columns=list(BOUNDS)).assign(forecast=rows["naive"])
    columns = [*CELL, "horizon", "rows", "bounded_rows", "abs_actual", *METRICS, "wape_seasonal_naive"]
    found = []
    if len(rows):
        own, other = JudgedRows.of(marked, keys), JudgedRows.of(naive, keys)
        for level, member in members:
            table, beside = own.table(member), other.table(member)  # groups in the same order
            found.append(table.assign(level=level, wape_seasonal_naive=beside["wape"]))
    if not found:
        return pd.DataFrame({name: pd.Series(dtype=object) for name in columns})
    table = pd.concat(found, ignore_index=True).rename(columns={"model": "group", "cutoff": "horizon"})
    return table.loc[table["rows"] > 0, columns].reset_index(drop=True)


def tracking_signals(sums: pd.DataFrame) -> pd.DataFrame:
    """Whether errors of sums pile up on one side, over target periods.

    The error e of a target period is the mean of (forecast - actual) over the forecasts made of it. The
    signal is the sum of e over the mean of |e|: with n periods it lies between -n and n, is n where every
    forecast was too high, and near 0 where errors take turns. By custom, beyond 4 either way says that
    forecasts are biased. Source: Brown (1959), Statistical Forecasting for Inventory Control; with
    the mean absolute deviation over the same periods, as in Nahmias, Production and Operations Analysis.

    Args:
        sums: As Outcomes.sums with a column `group`.

    Returns:
        A row for each group, level and member: CELL, `tracking_signal` (NaN without any error at all) and
        `periods`.
    """
    errors = sums.assign(error=sums["forecast"] - sums["actual"]).dropna(subset="error")
    by_period = errors.groupby([*CELL, "t"], sort=False)["error"].mean().reset_index()
    by_period["size"] = by_period["error"].abs()
    found = by_period.groupby(CELL, sort=False).agg(
        error=("error", "sum"), size=("size", "mean"), periods=("t", "size")
    )
    found["tracking_signal"] = found["error"] / found["size"].where(found["size"] > 0)
    return found[["tracking_signal", "periods"]].reset_index()


def promised_like(judged: pd.DataFrame, promises: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """The promise for the same horizons, weighed as the outcomes are.

    Horizons differ in how hard they are, and at first only the nearest have outcomes. So a promised WAPE is
    weighed by what was reported for each horizon, a promised coverage by the number of rows.

    Args:
        judged: What judge_series or judge_sums gave, with `model_version` and `basis`.
        promises: Rows of tables.PROMISES; a horizon that lacks one has that of all horizons.
        by: The columns that make a group.

    Returns:
        A row for each group: `by`, and PROMISED with `_promised` appended; NaN where an outcome of the group
        has no promise.
    """
    cells = judged[judged["horizon"].notna()]
    key = ["model_version", "basis", "level", "member"]
    told = promises.rename(columns={name: f"{name}_promised" for name in PROMISED})
    of_all = told["horizon"].isna()
    near = cells[[*key, "horizon"]].merge(told[~of_all], on=[*key, "horizon"], how="left")
    far = cells[key].merge(told[of_all].drop(columns="horizon"), on=key, how="left")
    group, first = _numbered(cells, by)
    found = cells.iloc[first][list(by)].reset_index(drop=True)
    for name in PROMISED:
        column = f"{name}_promised"
        values = near[column].fillna(far[column]).to_numpy(np.float64)
        weight = cells["bounded_rows" if name.startswith("coverage") else "abs_actual"].to_numpy(np.float64)
        found[column] = _weighted(group, values, weight)
    return found


def _numbered(table: pd.DataFrame, by: Sequence[str]) -> tuple[Numbers, Numbers]:
    """The number of each row's group, in order of appearance, and the first row of each."""
    numbers = np.asarray(table.groupby(list(by), sort=False, dropna=False).ngroup(), dtype=np.int64)
    return numbers, np.unique(numbers, return_index=True)[1].astype(np.int64)


def _weighted(group: Numbers, values: Floats, weight: Floats) -> Floats:
    """Weighted means by group; what has no weight does not count, what has and is NaN makes it NaN."""
    counted = np.where(weight > 0, values * weight, 0.0)
    sums, weights = (np.bincount(group, weights=column) for column in (counted, weight))
    found: Floats = np.divide(sums, weights, out=np.full(len(sums), np.nan), where=weights > 0)
    return found
