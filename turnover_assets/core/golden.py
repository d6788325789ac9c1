"""Golden rows: a few scoring rows with the forecasts that the pipeline made of them.

What belongs here: choosing them, and telling whether a model that was loaded elsewhere forecasts the same.
What does not: where they are kept (storage/published_model.py).

A model file can be whole and still forecast other numbers: with another release of a library, or on another
processor. Who loads a model predicts the golden rows first, and does not use one that differs.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from turnover_assets.core.features import identity_in
from turnover_assets.core.forecasting import forecast_table
from turnover_assets.core.intervals import BOUNDS, Intervals
from turnover_assets.core.level_changes import NONE, LevelChanges
from turnover_assets.core.models import Candidate, Rows
from turnover_assets.panel import PanelSpec

SERIES = 5  # from the smallest to the largest
TOLERANCE = 1e-6  # of the scale of a row: trees add up in 32 bits, in another order on another processor
FIGURES = ("forecast", *BOUNDS)


def golden_rows(panel: PanelSpec, rows: Rows, series: pd.DataFrame, forecasts: pd.DataFrame) -> pd.DataFrame:
    """All rows of a few series, with their forecasts.

    Args:
        panel: The panel.
        rows: Scoring rows.
        series: `series_id`, the series keys and levels.
        forecasts: What was made of the rows; see forecasting.forecast_table.

    Returns:
        A row for each series and horizon: the series keys and levels, the identity, the features, forecast
        and bounds. Rows whose forecast is not known are left out.
    """
    own = rows.identity.reset_index(drop=True)
    sizes = own.groupby("series_id")["scale"].first().sort_values(kind="stable")
    places = np.unique(np.linspace(0, len(sizes) - 1, min(SERIES, len(sizes))).round().astype(int))
    chosen = own["series_id"].isin(sizes.index[places]).to_numpy()
    x = pd.DataFrame(rows.x[chosen], columns=list(rows.names))
    table = pd.concat([own[chosen].reset_index(drop=True), x], axis=1)
    on = [*panel.keys, "horizon"]
    named = list(dict.fromkeys(["series_id", *panel.keys, *panel.level_names]))
    table = table.merge(series[named], on="series_id", validate="many_to_one")
    return table.merge(forecasts[[*on, *FIGURES]], on=on, validate="one_to_one")


def differences(
    panel: PanelSpec,
    candidate: Candidate,
    intervals: Intervals,
    names: Sequence[str],
    golden: pd.DataFrame,
    changes: LevelChanges = NONE,
) -> str:
    """How a model's forecasts of golden rows differ from those kept with them; empty where they do not.

    Args:
        panel: The panel.
        candidate: The model.
        intervals: Its intervals.
        names: Names of the features that it expects, in order.
        golden: As golden_rows made them.
        changes: What was carried on in the forecasts.
    """
    levels = [] if changes.is_none else panel.level_names  # which earlier releases did not write
    identity = identity_in(golden.columns)
    missing = [name for name in (*panel.keys, *levels, *identity, *names, *FIGURES) if name not in golden]
    if missing or golden.empty:
        return f"they are not rows of this model (missing: {', '.join(missing) or 'all rows'})"
    identity += ["closed"] if "closed" in golden else []  # which earlier releases did not ask
    rows = Rows(golden[identity], golden[list(names)].to_numpy(np.float32), tuple(names))
    series = golden[list(dict.fromkeys(["series_id", *panel.keys, *levels]))].drop_duplicates()
    on = [*panel.keys, "horizon"]
    made = golden[on].merge(
        forecast_table(panel, candidate, intervals, rows, series, changes), on=on, how="left"
    )
    scale = np.maximum((rows.scale * np.abs(rows.in_force))[:, None], 1e-9)
    error = np.abs(made[list(FIGURES)].to_numpy(float) - golden[list(FIGURES)].to_numpy(float)) / scale
    worst = float(np.nanmax(np.where(np.isnan(error), np.inf, error)))
    return "" if worst <= TOLERANCE else f"the largest difference is {worst:.3g} of the scale of its series"
