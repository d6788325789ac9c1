"""Features: rows of (series, cutoff, horizon), for training and for scoring from the same expressions.

What belongs here: every feature, as an SQL expression in one of the groups below. What does not: models, the
relations that the expressions read (relations.py), and anything that reads a value after the cutoff.

Values are divided by the series' own scale (mean absolute value of the last season), so that one global
model serves series of every size, and the model's loss is weighted by that scale.
"""

import re
from collections.abc import Container, Sequence
from dataclasses import dataclass

from turnover_assets.core.calendar import moving_holidays
from turnover_assets.core.histories import WINDOWS, YEARS, signed
from turnover_assets.core.relations import CODES, code_sql, limited, pooled
from turnover_assets.panel import Frequency, PanelSpec

FACTS = ("k.scale", "s.in_force", "r.actual", "r.reported", "calendar.season_error")
IDENTITY = ("series_id", "cutoff", "horizon", "t", *(fact.split(".")[1] for fact in FACTS))
LATER_FACTS = ("season_error",)  # which rows that earlier releases made do not have
# Beginnings of the names of features that forecast the target by themselves, divided by the scale.
FORECASTING = ("lag_0", "mean_", "year_ago_", "around_", "recent_", "pooled_", "cycle_")


@dataclass(frozen=True)
class Feature:
    """One feature: its name, the SQL that makes it, and the group by which it is explained."""

    name: str
    sql: str
    group: str

    @property
    def alone(self) -> str:
        """The alias of the one relation that its SQL reads; empty where it is not one that is kept.

        Example:
            >>> Feature("lag_0", "k.lag_0 / k.scale", "recent level").alone
            'k'
            >>> Feature("year_ago", "r.year_ago_same / k.scale", "season").alone
            ''
        """
        found = set(self.relations)
        alias = found.pop() if len(found) == 1 else ""
        return "" if alias.split("_")[0] in _OF_PAIRS else alias

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns that the SQL reads, as `alias.name`; for the aliases see _joins.

        Example:
            >>> Feature("recent_store", "k.mean_4 * b_store.shape_1 / k.scale", "season").reads
            ('k.mean_4', 'b_store.shape_1', 'k.scale')
        """
        return tuple(dict.fromkeys(columns_of(self.sql)))

    @property
    def relations(self) -> frozenset[str]:
        """Aliases of the relations that the SQL reads."""
        return _aliases(self.sql)


_OF_PAIRS = ("p", "b")  # what aliases of relations begin with that have a row for each pair


def features(panel: PanelSpec) -> list[Feature]:
    """Every feature of the panel, in the order of the columns of a row."""
    found = _recent(panel.frequency) + _season(panel)
    for level in panel.level_names:
        found += _level(panel, level)
    found += _calendar(panel) + _attributes(panel) + _covariates(panel)
    return found


def rows_sql(panel: PanelSpec) -> str:
    """What rows are: one for each of the chosen `pairs` of cutoff and horizon.

    The same rows are made faster by row_arrays.py; tests compare them.

    Columns: `series_id`, `cutoff` and `t` (period indices), `horizon` (1..H), `scale` (units of the
    target), `in_force` (reported over adjusted values at the last period known), `actual` (adjusted value at
    t; after the last period known the reported one in the scale of adjusted ones), `reported` (both NULL
    where not known yet) and `season_error` (see histories.py), then the features.
    """
    identity = [*(f"p.{name}" for name in IDENTITY[:4]), *FACTS]
    return _select_sql(panel, identity, features(panel))


def relation_sql(
    panel: PanelSpec, alias: str, keys: Sequence[str], chosen: Sequence[Feature], read: Sequence[str]
) -> str:
    """What a relation holds, and what is made of it alone, for each of its rows.

    Args:
        panel: The panel.
        alias: The relation, as expressions name it; of `v_*` there is a row for each of `around`.
        keys: SQL of further columns.
        chosen: Features that read no other relation.
        read: Columns of it, as `alias.name`; see doubles_sql.
    """
    columns = [*keys, *doubles_sql(read)]
    if alias.startswith("v_"):
        return _select_sql(panel, columns, chosen, "around")
    table = _TABLES.get(alias) or f"level_{alias.partition('_')[2]}"
    return f"SELECT {', '.join([*columns, *_made_sql(chosen)])} FROM {table} AS {alias}"


def doubles_sql(columns: Sequence[str]) -> list[str]:
    """SQL of columns, given as `alias.name`, in double precision and by that name."""
    return [f'CAST({column} AS DOUBLE) AS "{column}"' for column in columns]


def mixed_sql(panel: PanelSpec, chosen: Sequence[Feature]) -> str:
    """The same expressions for each of the `pairs`: their `number` from 0, in order, then the features."""
    number = "row_number() OVER (ORDER BY place_cutoff, horizon) - 1 AS number"
    return _select_sql(panel, ["p.number"], chosen, f"(SELECT *, {number} FROM pairs)")


def read_sql(panel: PanelSpec, columns: Sequence[str]) -> str:
    """The columns, given as `alias.name`, for each of the `pairs`."""
    return _select_sql(panel, columns, [])


def _select_sql(
    panel: PanelSpec, identity: Sequence[str], chosen: Sequence[Feature], pairs: str = "pairs"
) -> str:
    """Rows of the features, with those relations joined that are read."""
    listed = ",\n  ".join([*identity, *_made_sql(chosen)])
    read = {"s", *_aliases(listed)}  # others are joined to the series
    joins = [join for alias, join in _joins(panel).items() if alias in read]
    return "\n".join([f"SELECT {listed}\nFROM {pairs} AS p", *joins])


def _made_sql(chosen: Sequence[Feature]) -> list[str]:
    return [f"CAST({feature.sql} AS REAL) AS {feature.name}" for feature in chosen]


_TABLES = {"s": "series", "k": "as_of", "r": "around", "calendar": "calendar"}


def _joins(panel: PanelSpec) -> dict[str, str]:
    """How each relation is joined to pairs (`p`) and series (`s`), by the alias that expressions name.

    Every pair has its rows in the relations. With left joins DuckDB reads the pairs in their order.
    """
    found = {
        "s": "LEFT JOIN series AS s ON s.series_id = p.series_id",
        "k": "LEFT JOIN as_of AS k ON k.place = p.place_cutoff",
        "r": "LEFT JOIN around AS r ON r.place = p.place_target",
        "calendar": "LEFT JOIN calendar ON calendar.t = p.t",
    }
    for level in panel.level_names:
        for at, period in (("c", "cutoff"), ("t", "t")):
            found[f"{at}_{level}"] = (
                f"LEFT JOIN level_{level} AS {at}_{level} "
                f"ON {at}_{level}.id = s.{level}_id AND {at}_{level}.t = p.{period}"
            )
        found[f"b_{level}"] = (
            f"LEFT JOIN between_{level} AS b_{level} ON b_{level}.id = s.{level}_id "
            f"AND b_{level}.cutoff = p.cutoff AND b_{level}.horizon = p.horizon"
        )
    for table in panel.covariates:
        on = [f"v_{table.name}.{key} = s.{key}" for key in table.keys] + [f"v_{table.name}.t = p.t"]
        found[f"v_{table.name}"] = f"LEFT JOIN cleaned.{table.name} AS v_{table.name} ON {' AND '.join(on)}"
    return found


def columns_of(sql: str) -> list[str]:
    """The columns that SQL reads, as `alias.name`."""
    return re.findall(r"\b[A-Za-z_]\w*\.[A-Za-z_]\w*", sql)


def _aliases(sql: str) -> frozenset[str]:
    """Aliases of the relations that SQL reads."""
    return frozenset(column.split(".")[0] for column in columns_of(sql))


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
        Feature("periods_since_seen", "k.t - k.last_seen", "recent level"),
        Feature("log_scale", "ln(k.scale)", "recent level"),
        Feature("age", f"least(k.age, {3 * frequency.season})", "age"),
        Feature("horizon_ahead", "p.horizon", "horizon"),
        *(Feature(f"growth_{k}", f"k.growth_{k}", "growth") for k in (windows.short, windows.medium)),
    ]


def _season(panel: PanelSpec) -> list[Feature]:
    windows = WINDOWS[panel.frequency.every]
    short, medium = windows.short, windows.medium
    names = [f"year_ago_{signed(-k)}" for k in (-2, -1, 0, 1, 2)]
    names += [f"around_{years}_{width}" for years in (1, 2) for width in ("narrow", "wide")]
    names += [f"cycle_{j}" for j in range(4)] if panel.frequency.cycle > 1 else []
    found = [Feature(name, f"r.{name} / k.scale", "season") for name in names]
    own_shape = limited(f"r.around_1_narrow / nullif(k.base_1_{short}, 0)")
    older_shape = limited(f"r.around_2_narrow / nullif(k.base_2_{short}, 0)")
    return [
        *found,
        Feature("year_ago_grown", f"r.year_ago_same * k.growth_{medium} / k.scale", "season"),
        Feature("around_grown", f"r.around_1_narrow * k.growth_{short} / k.scale", "season"),
        Feature("recent_shaped", f"k.mean_{windows.means[0]} * {own_shape} / k.scale", "season"),
        Feature("recent_shaped_older", f"k.mean_{windows.means[0]} * {older_shape} / k.scale", "season"),
        Feature("around_years", f"{_mean_of('r.around_{}_narrow')} / k.scale", "season"),
        *(Feature(f"pooled_{k}", _pooled(k), "season") for k in (short, medium)),
    ]


def _pooled(length: int) -> str:
    return f"k.mean_{length} * {pooled(length, 'r.around_{}_narrow', 'k')} / k.scale"


def _mean_of(value: str) -> str:
    """Mean over the years for which the SQL, with `{}` for the years back, has a value."""
    values = [value.format(years) for years in YEARS]
    total = " + ".join(f"coalesce({v}, 0)" for v in values)
    known = " + ".join(f"CAST({v} IS NOT NULL AS INTEGER)" for v in values)
    return f"({total}) / nullif({known}, 0)"


def _level(panel: PanelSpec, level: str) -> list[Feature]:
    windows, at_cutoff, between = WINDOWS[panel.frequency.every], f"c_{level}", f"b_{level}"
    lengths = (windows.short, windows.medium)
    found = [Feature(f"{level}_growth_{k}", f"{at_cutoff}.growth_{k}", f"{level} growth") for k in lengths]
    found.append(Feature(f"{level}_shape_1", f"{between}.shape_1", f"{level} season"))
    shaped = f"k.mean_{windows.means[0]} * {between}.shape_1 / k.scale"
    found.append(Feature(f"recent_{level}_shape_1", shaped, f"{level} season"))
    for kind in ("around", "same"):
        for k in lengths:
            sql = f"k.mean_{k} * {between}.pooled_{kind}_{k} / k.scale"
            found.append(Feature(f"pooled_{level}_{kind}_{k}", sql, f"{level} season"))
    grown_medium = f"r.year_ago_same * {between}.growth_{windows.medium} / k.scale"
    grown = f"r.around_1_narrow * {between}.growth_{windows.short} / k.scale"
    return [
        *found,
        Feature(f"around_{level}_grown", grown, f"{level} growth"),
        Feature(f"year_ago_{level}_grown", grown_medium, f"{level} growth"),
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


def identity_in(columns: Container[str]) -> list[str]:
    """The columns of IDENTITY, but for those of LATER_FACTS that are not among the given ones."""
    return [name for name in IDENTITY if name in columns or name not in LATER_FACTS]


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
