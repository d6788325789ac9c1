"""Features: rows of (series, cutoff, horizon), for training and for scoring from the same SQL.

What belongs here: every feature, as an SQL expression in one of the groups below. What does not: models, the
relations that the expressions read (relations.py), and anything that reads a value after the cutoff.

Values are divided by the series' own scale (mean absolute value of the last season), so that one global
model serves series of every size, and the model's loss is weighted by that scale.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from turnover_assets.core.calendar import moving_holidays
from turnover_assets.core.relations import CODES, WINDOWS, YEARS, code_sql, signed
from turnover_assets.panel import CovariateTable, Frequency, PanelSpec

IDENTITY = ("series_id", "cutoff", "horizon", "t", "scale", "in_force", "actual", "reported")
# Beginnings of the names of features that forecast the target by themselves, divided by the scale.
FORECASTING = ("lag_0", "mean_", "year_ago_", "around_", "recent_", "pooled_", "cycle_")
GROWTH_LIMITS = (0.2, 5.0)  # a ratio beyond this says more about missing data than about growth


@dataclass(frozen=True)
class Feature:
    """One feature: its name, the SQL that makes it, and the group by which it is explained."""

    name: str
    sql: str
    group: str


def features(panel: PanelSpec) -> list[Feature]:
    """Every feature of the panel, in the order of the columns of a row."""
    found = _recent(panel.frequency) + _season(panel)
    for level in panel.level_names:
        found += _level(panel, level)
    found += _calendar(panel) + _attributes(panel) + _covariates(panel)
    return found


def rows_sql(panel: PanelSpec) -> str:
    """The one text that makes rows: one for each of the chosen `pairs` of cutoff and horizon.

    Columns: `series_id`, `cutoff` and `t` (period indices), `horizon` (1..H), `scale` (units of the
    target), `in_force` (reported over adjusted values at the last period known), `actual` (adjusted value at
    t; after the last period known the reported one in the scale of adjusted ones) and `reported` (both NULL
    where not known yet), then the features.
    """
    selected = ",\n  ".join(f"CAST({f.sql} AS REAL) AS {f.name}" for f in features(panel))
    levels = "\n".join(
        f"LEFT JOIN level_{level} AS c_{level} ON c_{level}.id = s.{level}_id AND c_{level}.t = p.cutoff\n"
        f"LEFT JOIN level_{level} AS t_{level} ON t_{level}.id = s.{level}_id AND t_{level}.t = p.t"
        for level in panel.level_names
    )
    covariates = "\n".join(_covariate_join(table) for table in panel.covariates)
    return f"""
SELECT p.series_id, p.cutoff, p.horizon, p.t, k.scale, s.in_force, r.actual, r.reported,
  {selected}
FROM pairs AS p
JOIN as_of AS k ON k.place = p.place_cutoff
JOIN around AS r ON r.place = p.place_target
JOIN series AS s ON s.series_id = p.series_id
JOIN calendar ON calendar.t = p.t
{levels}
{covariates}"""


def _level_code(panel: PanelSpec, level: str) -> str:
    """A member of a level as a number; attributes have been made numbers in `series`."""
    keys = {key.name: key for key in panel.series.keys}
    code = code_sql(keys[level], f"s.{level}") if level in keys else f"s.{level}"
    column = keys.get(level) or next(c for table in panel.static for c in table.columns if c.name == level)
    return f"{code} % {CODES}" if column.type == "integer" else code


def _recent(frequency: Frequency) -> list[Feature]:
    windows = WINDOWS[frequency.every]
    found = [Feature(f"lag_{k}", f"k.lag_{k} / k.scale", "recent level") for k in windows.lags]
    found += [Feature(f"mean_{k}", f"k.mean_{k} / k.scale", "recent level") for k in windows.means]
    return [
        *found,
        Feature("deviation", "k.deviation / k.scale", "recent level"),
        Feature("zero_share", "k.zero_share", "recent level"),
        Feature("periods_since_seen", "p.cutoff - k.last_seen", "recent level"),
        Feature("log_scale", "ln(k.scale)", "recent level"),
        Feature("age", f"least(k.age, {3 * frequency.season})", "age"),
        Feature("horizon_ahead", "p.horizon", "horizon"),
        *(
            Feature(f"growth_{k}", _limited(f"k.growth_{k}"), "growth")
            for k in (windows.short, windows.medium)
        ),
    ]


def _limited(ratio: str) -> str:
    """A ratio kept within limits; a missing one stays missing."""
    low, high = GROWTH_LIMITS
    return f"CASE WHEN {ratio} IS NOT NULL THEN least(greatest({ratio}, {low}), {high}) END"


def _season(panel: PanelSpec) -> list[Feature]:
    windows = WINDOWS[panel.frequency.every]
    short, medium = windows.short, windows.medium
    names = [f"year_ago_{signed(-k)}" for k in (-2, -1, 0, 1, 2)]
    names += [f"around_{years}_{width}" for years in (1, 2) for width in ("narrow", "wide")]
    names += [f"cycle_{j}" for j in range(4)] if panel.frequency.cycle > 1 else []
    found = [Feature(name, f"r.{name} / k.scale", "season") for name in names]
    own_shape = _limited(f"r.around_1_narrow / nullif(k.base_1_{short}, 0)")
    older_shape = _limited(f"r.around_2_narrow / nullif(k.base_2_{short}, 0)")
    return [
        *found,
        Feature("year_ago_grown", f"r.year_ago_same * {_limited(f'k.growth_{medium}')} / k.scale", "season"),
        Feature("around_grown", f"r.around_1_narrow * {_limited(f'k.growth_{short}')} / k.scale", "season"),
        Feature("recent_shaped", f"k.mean_{windows.means[0]} * {own_shape} / k.scale", "season"),
        Feature("recent_shaped_older", f"k.mean_{windows.means[0]} * {older_shape} / k.scale", "season"),
        Feature("around_years", f"{_mean_of('r.around_{}_narrow')} / k.scale", "season"),
        *(Feature(f"pooled_{k}", _shaped(k, "r.around_{}_narrow", "k"), "season") for k in (short, medium)),
    ]


def _shaped(length: int, around: str, base: str) -> str:
    """The mean of the last periods times the shape of the season, of all years together.

    A single year's shape carries that year's weather; several years' carry less of it.

    Args:
        length: Periods that the mean and the bases of the shape are taken over.
        around: SQL of the value around the target period, with `{}` for the years back.
        base: Relation of the values before the cutoff, one or more years back.
    """
    pairs = [(around.format(years), f"{base}.base_{years}_{length}") for years in YEARS]
    both = [f"CASE WHEN {a} IS NOT NULL AND {b} IS NOT NULL THEN" for a, b in pairs]
    top = " + ".join(f"{when} {a} ELSE 0 END" for when, (a, _) in zip(both, pairs, strict=True))
    bottom = " + ".join(f"{when} {b} ELSE 0 END" for when, (_, b) in zip(both, pairs, strict=True))
    return f"k.mean_{length} * {_limited(f'({top}) / nullif({bottom}, 0)')} / k.scale"


def _mean_of(value: str) -> str:
    """Mean over the years for which the SQL, with `{}` for the years back, has a value."""
    values = [value.format(years) for years in YEARS]
    total = " + ".join(f"coalesce({v}, 0)" for v in values)
    known = " + ".join(f"CAST({v} IS NOT NULL AS INTEGER)" for v in values)
    return f"({total}) / nullif({known}, 0)"


def _level(panel: PanelSpec, level: str) -> list[Feature]:
    windows = WINDOWS[panel.frequency.every]
    at_cutoff, at_target = f"c_{level}", f"t_{level}"
    found = [
        Feature(f"{level}_growth_{k}", _limited(f"{at_cutoff}.growth_{k}"), f"{level} growth")
        for k in (windows.short, windows.medium)
    ]
    shape = _limited(f"{at_target}.around_1 / nullif({at_cutoff}.base_1_{windows.short}, 0)")
    found.append(Feature(f"{level}_shape_1", shape, f"{level} season"))
    shaped = f"k.mean_{windows.means[0]} * {shape} / k.scale"
    found.append(Feature(f"recent_{level}_shape_1", shaped, f"{level} season"))
    for kind in ("around", "same"):
        for k in (windows.short, windows.medium):
            sql = _shaped(k, f"{at_target}.{kind}_{{}}", at_cutoff)
            found.append(Feature(f"pooled_{level}_{kind}_{k}", sql, f"{level} season"))
    grown_medium = _limited(f"{at_cutoff}.growth_{windows.medium}")
    grown = f"r.around_1_narrow * {_limited(f'{at_cutoff}.growth_{windows.short}')} / k.scale"
    return [
        *found,
        Feature(f"around_{level}_grown", grown, f"{level} growth"),
        Feature(f"year_ago_{level}_grown", f"r.year_ago_same * {grown_medium} / k.scale", f"{level} growth"),
        Feature(f"{level}_code", _level_code(panel, level), level),
    ]


def _calendar(panel: PanelSpec) -> list[Feature]:
    names = (
        "season_sin season_cos month holidays holidays_before holidays_after holidays_last_year "
        "days_to_year_end"
    )
    moving = [f"days_to_{name}" for name in moving_holidays(panel)]
    return [Feature(name, f"calendar.{name}", "calendar") for name in (*names.split(), *moving)]


def _attributes(panel: PanelSpec) -> list[Feature]:
    columns = [column for table in panel.static for column in table.columns]
    return [
        Feature(f"attribute_{column.name}", f"s.{column.name}", "attributes")
        for column in columns
        if column.name not in panel.level_names
    ]


def _covariates(panel: PanelSpec) -> list[Feature]:
    found = []
    for table in panel.covariates:
        for column in table.columns:
            if column.type != "text":
                sql = f"CAST(v_{table.name}.{column.name} AS DOUBLE)"
                found.append(Feature(f"known_{column.name}", sql, "known ahead"))
    return found


def _covariate_join(table: CovariateTable) -> str:
    on = [f"v_{table.name}.{key} = s.{key}" for key in table.keys] + [f"v_{table.name}.t = p.t"]
    return f"LEFT JOIN cleaned.{table.name} AS v_{table.name} ON {' AND '.join(on)}"


def feature_names(panel: PanelSpec) -> list[str]:
    """Names of the features, in the order of the columns."""
    return [feature.name for feature in features(panel)]


def feature_groups(panel: PanelSpec) -> dict[str, str]:
    """The group of each feature, by which forecasts are explained."""
    return {feature.name: feature.group for feature in features(panel)}


def check_row_columns(columns: Sequence[str], expected: Sequence[str]) -> None:
    """Make sure that rows have the features a model was trained on, in that order.

    Raises:
        ValueError: With the missing and the unexpected ones.
    """
    if list(columns) != list(expected):
        missing, extra = set(expected) - set(columns), set(columns) - set(expected)
        raise ValueError(
            f"The rows do not have the features of the model (missing: {sorted(missing)}, "
            f"unexpected: {sorted(extra)}). Train the model again with this release."
        )
