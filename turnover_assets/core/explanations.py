"""Why a forecast is what it is: steps from an amount a reader knows to the forecast.

What belongs here: the amount each forecast is compared with, and what each group of features adds to it. What
does not: the sentences (explanation_words.py), what the model does on the whole (partial_dependence.py), and
pictures.

A forecast is compared with the same period a year ago, in the scale that is reported now. The model is asked
again with the features that the series had a year ago; then one group of features after the other is moved to
today's values, in one order and in the reverse one, and the mean change is the group's effect. That is the
Shapley value of the two rows (baseline Shapley: Sundararajan and Najmi, 2020), estimated from one antithetic
pair of orders (Mitchell et al., 2022). It needs nothing of a model but its predictions, and adds up for any.
Series without two years of history are compared with their own average period, and start from a typical row.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from turnover_assets.core.calendar import label_of
from turnover_assets.core.closures import limited
from turnover_assets.core.explanation_words import (
    AVERAGE,
    BOUNDS,
    LEVEL,
    MISSED,
    OTHER,
    SEASON,
    YEAR_AGO,
    Wording,
)
from turnover_assets.core.features import feature_groups
from turnover_assets.core.level_changes import NONE, LevelChanges
from turnover_assets.core.models import Candidate, Rows
from turnover_assets.core.models.base import Floats
from turnover_assets.panel import PanelSpec

MINOR_GROUPS = ("age", "horizon", "attributes")  # of features; told together as OTHER


def manager_groups(panel: PanelSpec) -> dict[str, str]:
    """The group by which each feature is told to a reader.

    All that comes from one level of the panel is one group, named as the level; small groups are OTHER.

    Example:
        >>> from turnover_assets.panel import default_panel
        >>> sorted(set(manager_groups(default_panel()).values()))[:4]
        ['calendar', 'department', 'growth', 'other']
    """
    return {name: _told_as(panel, group) for name, group in feature_groups(panel).items()}


def _told_as(panel: PanelSpec, group: str) -> str:
    for level in panel.level_names:
        if group == level or group.startswith(f"{level} "):
            return level
    return OTHER if group in MINOR_GROUPS else group


def effect_columns(panel: PanelSpec) -> dict[str, str]:
    """Groups and the columns of their effects, in the order of the table."""
    groups = dict.fromkeys([LEVEL, SEASON, *manager_groups(panel).values()])
    groups.pop(OTHER, None)
    return {group: f"effect_{group.replace(' ', '_')}" for group in [*groups, MISSED, OTHER, BOUNDS]}


def explain_forecasts(
    panel: PanelSpec,
    candidate: Candidate,
    rows: Rows,
    year_ago: Rows,
    series: pd.DataFrame,
    changes: LevelChanges = NONE,
) -> pd.DataFrame:
    """Each forecast as a reference and effects that add up to it, and in words.

    Args:
        panel: The panel.
        candidate: A fitted model.
        rows: n scoring rows.
        year_ago: Rows of the cutoff one season earlier, made with what is known now; may be empty.
        series: `series_id`, the series keys, `first_t` (first period of each series) and, where there are
            changes, levels.
        changes: What the model has missed since its training, which forecasts carry on.

    Returns:
        A row for each scoring row, ordered by keys and horizon: the series keys, `cutoff`, the time column,
        `horizon`, `forecast`, `compared_with` (YEAR_AGO or AVERAGE), `reference`, `reported_year_ago`,
        the columns of effect_columns, `sentence`. Amounts are in units of the target, in the scale reported
        now; `reference` and all effects add up to `forecast`, which is that of forecasting.forecast_table.
        `effect_level` is what the change of the series' average adds, `effect_missed` what the model has
        missed lately, see level_changes.py, `effect_bounds` what stopping at zero
        adds, or not reporting on that day of the week. `reported_year_ago` is NaN where not known.
    """
    start = _starts(panel, rows, year_ago, series)
    predicted = candidate.predict(rows)
    carried = predicted * changes.of_rows(rows, series)
    shown = limited(panel, rows, carried)
    effects = _effects(panel, candidate, rows, start, predicted)
    effects[effect_columns(panel)[MISSED]] += carried - predicted
    effects[effect_columns(panel)[BOUNDS]] += shown - carried
    effects = effects.mul(rows.in_force, axis=0)
    table = rows.identity[["series_id", "cutoff", "t", "horizon"]].copy()
    table["forecast"] = shown * rows.in_force
    table["compared_with"] = np.where(start.has_year, YEAR_AGO, AVERAGE)
    table["reference"] = start.reference * rows.in_force
    table["reported_year_ago"] = np.where(start.has_year, start.reported, np.nan)
    table = pd.concat([table, effects], axis=1).merge(series, on="series_id", validate="many_to_one")
    labels = {t: label_of(panel, int(t)) for t in {*table["t"].unique(), *table["cutoff"].unique()}}
    table[panel.time], table["cutoff"] = table["t"].map(labels), table["cutoff"].map(labels)
    wording = Wording.of(panel, effect_columns(panel), table["t"].unique())
    table = table.sort_values([*panel.keys, "horizon"]).reset_index(drop=True)
    records = cast("list[dict[str, Any]]", table.to_dict("records"))
    table["sentence"] = [wording.sentence(row) for row in records]
    facts = ["forecast", "compared_with", "reference", "reported_year_ago", *effects.columns, "sentence"]
    return table[[*panel.keys, "cutoff", panel.time, "horizon", *facts]]


def effect_shares(panel: PanelSpec, explained: pd.DataFrame) -> pd.Series:
    """How much each group moves forecasts: sum of its absolute effects over that of all; largest first."""
    columns = effect_columns(panel)
    moved = explained[list(columns.values())].abs().sum()
    shares = pd.Series(moved.to_numpy() / max(float(moved.sum()), 1e-12), index=list(columns), dtype=float)
    return shares.sort_values(ascending=False, kind="stable")


@dataclass(frozen=True)
class _Starts:
    """Where the steps to n forecasts begin.

    Attributes:
        x: Shape (n, f): the features to start from.
        has_year: Whether those are the series' own of a year ago.
        reference: What the forecast is compared with, units of the target in the scale of adjusted values.
        reported: What was reported a year ago, NaN where not known.
        growth: Scale of the series now over that of a year ago; 1 where not has_year.
    """

    x: Floats
    has_year: npt.NDArray[np.bool_]
    reference: Floats
    reported: Floats
    growth: Floats


def _starts(panel: PanelSpec, rows: Rows, year_ago: Rows, series: pd.DataFrame) -> _Starts:
    before, place = _paired(panel, rows, year_ago)
    first = rows.identity["series_id"].map(series.set_index("series_id")["first_t"]).to_numpy(np.float64)
    old_enough = first <= rows.identity["cutoff"].to_numpy() - 2 * panel.frequency.season + 1
    has_year = old_enough & before["actual"].notna().to_numpy()
    x = _typical(rows)
    x[has_year] = year_ago.x[place[has_year]]
    return _Starts(
        x,
        has_year,
        np.where(has_year, before["actual"], rows.scale),
        before["reported"].to_numpy(np.float64),
        np.where(has_year, rows.scale / before["scale"].to_numpy(np.float64), 1.0),
    )


def _paired(panel: PanelSpec, rows: Rows, year_ago: Rows) -> tuple[pd.DataFrame, npt.NDArray[np.intp]]:
    """What each row's series knew a season earlier (NaN where nothing), and the place of that row."""
    facts = year_ago.identity[["series_id", "cutoff", "horizon", "scale", "actual", "reported"]]
    facts = facts.assign(cutoff=facts["cutoff"] + panel.frequency.season, place=range(len(facts)))
    on = ["series_id", "cutoff", "horizon"]
    found = rows.identity[on].merge(facts, on=on, how="left", validate="one_to_one")
    return found, found["place"].fillna(0).to_numpy(np.intp)


def _typical(rows: Rows) -> Floats:
    """For each row the medians of all rows of its horizon, shape (n, f); NaN where none is known."""
    x = np.empty_like(rows.x)
    horizons = rows.identity["horizon"].to_numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of a feature that no row knows
        for horizon in np.unique(horizons):
            own = horizons == horizon
            x[own] = np.nanmedian(rows.x[own], axis=0)
    return x


def _effects(
    panel: PanelSpec, candidate: Candidate, rows: Rows, start: _Starts, predicted: Floats
) -> pd.DataFrame:
    """From the references to the predictions, shape (n, groups), units of the target as adjusted."""
    groups = manager_groups(panel)
    told = list(dict.fromkeys(groups.values()))
    members = [[i for i, name in enumerate(rows.names) if groups[name] == group] for group in told]
    before = candidate.predict(Rows(rows.identity, start.x, rows.names))
    moved = _moved(candidate, rows, start.x, members, (before, predicted))
    columns = effect_columns(panel)
    effects = pd.DataFrame(0.0, index=range(len(rows)), columns=list(columns.values()))
    for group, values in zip(told, moved.T, strict=True):
        effects[columns[group]] += values
    at_level = start.reference * start.growth
    effects[columns[LEVEL]] += at_level - start.reference
    effects[columns[SEASON]] += before - at_level  # what set the reference apart from what is usual
    return effects


def _moved(
    candidate: Candidate,
    rows: Rows,
    start: Floats,
    members: Sequence[Sequence[int]],
    ends: tuple[Floats, Floats],
) -> Floats:
    """What moving each group of columns from the start to the rows' own values changes, shape (n, groups).

    The mean over the order given and its reverse; the groups add up to the whole change in either. `ends`
    are the predictions for the start and for the rows.
    """
    changes = np.zeros((len(rows), len(members)))
    forward = list(range(len(members)))
    for order in (forward, forward[::-1]):
        x, before = start.copy(), ends[0]
        for group in order:
            x[:, members[group]] = rows.x[:, members[group]]
            last = group == order[-1]
            after = ends[1] if last else candidate.predict(Rows(rows.identity, x, rows.names))
            changes[:, group] += (after - before) / 2
            before = after
    return changes
