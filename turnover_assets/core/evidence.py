"""What a decision between two models rests on: their backtest rows, brought side by side.

What belongs here: lining up rows, choosing windows, and each model's figures. What does not: limits and the
decision (gate.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from turnover_assets.core.metrics import QUANTILES, bias, coverage, pinball, wape, width
from turnover_assets.panel import PanelSpec


@dataclass(frozen=True, eq=False)
class Evidence:
    """What is known about a challenger.

    Attributes:
        panel: The panel.
        challenger: Its backtest rows (accuracy.py says which columns), without `model`.
        champion: The champion's, for the same series, cutoffs and horizons; None where there is no champion,
            or where it took no part.
        is_absent: Whether there is a champion that can forecast, but took no part in some window.
        naive: The seasonal naive forecast's for the same rows; only a first champion is compared with it.
        live_challenger: Forecasts that the challenger made beside the champion's at past cutoffs, as
            backtest rows; bounds are not needed, and only rows of both count.
        live_champion: What was published at those cutoffs.
        tuned_until: Index of the last target period on which either model's recipe was chosen; None where
            nothing was tuned. A window is untouched where it begins after that period.
    """

    panel: PanelSpec
    challenger: pd.DataFrame
    champion: pd.DataFrame | None = None
    naive: pd.DataFrame | None = None
    live_challenger: pd.DataFrame | None = None
    live_champion: pd.DataFrame | None = None
    tuned_until: int | None = None
    is_absent: bool = False

    def backtest(self) -> "Pair | None":
        """The backtest rows of both, None where there is no champion; raises as `side_by_side`."""
        return side_by_side(self.challenger, self.champion, self.panel.keys)

    def live(self) -> "Pair | None":
        """The rows for which both have live forecasts; None where none of these has an outcome yet."""
        if self.live_challenger is None or self.live_champion is None:
            return None
        by = [*self.panel.keys, "cutoff", "horizon"]
        mine = self.live_challenger.merge(self.live_champion[by], on=by)
        theirs = self.live_champion.merge(self.live_challenger[by], on=by)
        return side_by_side(mine, theirs, self.panel.keys) if mine["actual"].abs().sum() > 0 else None

    def untouched(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Rows of windows that begin after everything either model was tuned on."""
        if self.tuned_until is None:
            return rows
        return rows[rows.groupby("cutoff")["t"].transform("min") > self.tuned_until]


@dataclass(frozen=True, eq=False)
class Pair:
    """Rows of two models for the same series, cutoffs and horizons, in the same order.

    Both are judged against the challenger's actuals, which are the newest known.
    """

    challenger: pd.DataFrame
    champion: pd.DataFrame

    def where(self, rows: pd.DataFrame) -> "Pair":
        """The pair on some of the challenger's rows."""
        return Pair(rows, self.champion.loc[rows.index])


def side_by_side(
    challenger: pd.DataFrame | None, champion: pd.DataFrame | None, keys: Sequence[str]
) -> Pair | None:
    """Line up the rows of two models; None where one of them has none.

    Raises:
        ValueError: A model has two rows for one series, cutoff and horizon, one of them has rows that the
            other has not, or no row has an actual other than 0.
    """
    if challenger is None or champion is None:
        return None
    by = [*keys, "cutoff", "horizon"]
    for name, rows in (("challenger", challenger), ("champion", champion)):
        if twice := int(rows.duplicated(by).sum()):
            raise ValueError(f"the {name} has {twice} rows more than one for a series, cutoff and horizon")
    found = challenger[by].merge(champion[by], on=by, how="outer", indicator=True)["_merge"].value_counts()
    if found["left_only"] or found["right_only"]:
        raise ValueError(
            f"the models were not judged on the same rows: {found['left_only']} only of the challenger, "
            f"{found['right_only']} only of the champion, {found['both']} of both; "
            "backtest both on the same windows"
        )
    if not challenger["actual"].abs().sum() > 0:
        raise ValueError(f"none of {len(challenger)} rows has a known actual other than 0")
    left = challenger.reset_index(drop=True)
    right = left[by].merge(champion.drop(columns="actual"), on=by, how="left", validate="one_to_one")
    return Pair(left, right.assign(actual=left["actual"]))


def not_finite(rows: pd.DataFrame) -> int:
    """How many forecasts are no finite number."""
    return int((~np.isfinite(rows["forecast"].to_numpy(np.float64))).sum())


def wape_of(rows: pd.DataFrame) -> float:
    """WAPE of backtest rows."""
    return wape(rows["actual"].to_numpy(np.float64), rows["forecast"].to_numpy(np.float64))


def figures_of(rows: pd.DataFrame) -> dict[str, float]:
    """`wape`, `bias` and, where there are bounds, `pinball` (mean over bounds), coverages and widths."""
    actual, forecast = (rows[name].to_numpy(np.float64) for name in ("actual", "forecast"))
    bounds = {name: rows[name].to_numpy(np.float64) for name in QUANTILES}
    losses = [pinball(actual, bounds[name], quantile) for name, quantile in QUANTILES.items()]
    found = {"wape": wape_of(rows), "bias": bias(actual, forecast), "pinball": float(np.mean(losses))}
    for level in (80, 95):
        lower, upper = bounds[f"lower_{level}"], bounds[f"upper_{level}"]
        found[f"coverage_{level}"] = coverage(actual, lower, upper)
        found[f"width_{level}"] = width(actual, lower, upper)
    return found


def segments(pair: Pair, level: str, minimum_share: float) -> pd.DataFrame:
    """WAPE of both models by member of a level.

    Args:
        pair: Rows of both models.
        level: A level or key of the panel.
        minimum_share: Members with a smaller share of the sum of |actual| are left out.

    Returns:
        Indexed by member: `challenger`, `champion` (WAPE), `change` (relative, above 0 where the challenger
        is worse; infinite where the champion made no error), the worst first.
    """
    actual = pair.challenger["actual"]
    members = pair.challenger[level]
    table = pd.DataFrame(
        {
            "size": actual.abs(),
            "challenger": (actual - pair.challenger["forecast"]).abs(),
            "champion": (actual - pair.champion["forecast"]).abs(),
        }
    )
    sums = table[actual.notna()].groupby(members[actual.notna()], observed=True).sum()
    sums = sums[(sums["size"] > 0) & (sums["size"] >= minimum_share * sums["size"].sum())]
    found = sums[["challenger", "champion"]].div(sums["size"], axis=0)
    worse = found["challenger"] > found["champion"]
    relative = found["challenger"] / found["champion"].where(found["champion"] > 0) - 1
    found["change"] = relative.where(found["champion"] > 0, worse.map({True: np.inf, False: 0.0}))
    return found.sort_values("change", ascending=False, kind="stable")
