"""`/v1/accuracy`: how good forecasts were, of sums by level and of single series.

What belongs here: what may be asked of accuracy, and the figures of single series, which no table has. What
does not: figures of levels, which monitoring and the backtest publish.

Figures of a series are those of core/metrics.py; a period that it did not report does not count.
"""

from datetime import date
from typing import Literal

from turnover_assets.core.aggregates import TOTAL
from turnover_assets.core.forecast_history import BASELINE, CHAMPION
from turnover_assets.core.models import BASELINE as SEASONAL_NAIVE
from turnover_assets.panel import PanelSpec
from turnover_assets.serving.answers import Resource
from turnover_assets.serving.pages import Question
from turnover_assets.serving.parameters import (
    Conditions,
    Definition,
    Given,
    chosen,
    horizon_condition,
    horizon_field,
    own,
    page_fields,
    parameters,
    period_conditions,
    period_fields,
    series_conditions,
    series_fields,
)
from turnover_assets.serving.problems import Problem
from turnover_assets.serving.routes.aggregates import (
    level_columns,
    level_conditions,
    level_fields,
    refuse_unknown_member,
)
from turnover_assets.serving.rows import attribute, column, optional, row
from turnover_assets.serving.view import View

SERIES = "series"  # what the level of a single series is called
LIVE, BACKTEST = "live", "backtest"
SOURCE = "What was published (default), or the backtest."
FIGURES = (
    *("rows", "periods", "wape", "bias", "tracking_signal", "coverage_80", "coverage_95"),
    *("wape_seasonal_naive", "wape_promised", "coverage_80_promised", "coverage_95_promised"),
)
FIRST_DAY = "DATE '0001-01-01'"  # before any cutoff, for figures over all of them


def resource(panel: PanelSpec, most_rows: int) -> Resource:
    """Accuracy as rows that can be asked for."""
    return Resource(
        name="accuracy",
        summary="How good forecasts were",
        description=f"""By default of the total and of every member of every level, as monitoring saw what
was published at each cutoff (`source=live`); `source=backtest` has what the backtest of the newest training
found. Series keys or attributes ask for single series instead (`level` is `{SERIES}`), over all cutoffs from
`from` to `to` together. `horizon` null means all horizons together, `cutoff` null all cutoffs together. A
home that has only just begun to forecast has no live figures yet.""",
        parameters=parameters(
            "AccuracyParameters",
            series_fields(panel),
            level_fields(panel),
            period_fields("cutoffs"),
            horizon_field(panel),
            own("source", Literal["live", "backtest"], SOURCE, examples=["backtest"]),
            page_fields(most_rows),
        ),
        row=row("Accuracy", _columns(panel)),
        ask=lambda view, given: _ask(panel, view, given),
        explain_nothing=refuse_unknown_member,
    )


def _columns(panel: PanelSpec) -> dict[str, Definition]:
    keys = {key.name: attribute(key, "Series key; null for sums.") for key in panel.series.keys}
    share = "as a share of what was reported"
    return {
        "source": column(Literal["live", "backtest"], "Whether of what was published, or of the backtest."),
        **level_columns(),
        **keys,
        "basis": column(Literal["series", "sums"], "Errors of single series, or errors of sums."),
        "model": column(str, "The model, or the part that it had.", CHAMPION),
        "model_version": optional(int, "Its version; null where there are several, or none.", 4),
        "cutoff": optional(date, "Cutoff of the forecasts; null for all of them.", date(2017, 6, 10)),
        "horizon": optional(int, "Periods ahead; null for all of them.", 1),
        "rows": column(int, "Number of forecasts with an outcome.", 96),
        "periods": optional(int, "Number of periods with an outcome.", 8),
        "wape": optional(float, f"Sum of absolute errors {share}.", 0.21),
        "bias": optional(float, f"Sum of errors {share}; above 0 where too high.", 0.01),
        "tracking_signal": optional(float, "Sum of errors over their mean size.", 1.2),
        "coverage_80": optional(float, "Share of outcomes within the 80 % bounds.", 0.79),
        "coverage_95": optional(float, "Share of outcomes within the 95 % bounds.", 0.94),
        "wape_seasonal_naive": optional(float, "WAPE of repeating last year, on the same rows.", 0.27),
        "wape_promised": optional(float, "WAPE that the backtest of the version promised.", 0.2),
        "coverage_80_promised": optional(float, "The same of the 80 % bounds.", 0.8),
        "coverage_95_promised": optional(float, "The same of the 95 % bounds.", 0.95),
    }


def _ask(panel: PanelSpec, view: View, given: Given) -> Question:
    is_live = (given.value("source") or LIVE) == LIVE
    if any(chosen(panel, given)):
        return _of_series(panel, view, given, is_live)
    found = level_conditions(given)
    period_conditions(found, given, "cutoff")
    horizon_condition(found, given)
    table = _live_sums() if is_live else _backtest_sums()
    if not is_live:
        found.values["baseline"] = SEASONAL_NAIVE
    nulls = ", ".join(f"CAST(NULL AS {_sql_type(key.type)}) AS {key.name}" for key in panel.series.keys)
    columns = ", ".join(_columns(panel))
    return Question(
        f"SELECT {columns} FROM (SELECT *, {nulls} FROM ({table})) WHERE {found.sql}",
        [f"coalesce(cutoff, {FIRST_DAY})", "level", "member", "basis", "model", "coalesce(horizon, 0)"],
        found.values,
    )


def _sql_type(kind: str) -> str:
    return {"integer": "BIGINT", "number": "DOUBLE", "text": "VARCHAR", "flag": "BOOLEAN"}[kind]


def _live_sums() -> str:
    """Figures of what was published, as monitoring has them."""
    figures = ", ".join(FIGURES)
    return (
        f"SELECT '{LIVE}' AS source, level, member, basis, '{CHAMPION}' AS model, model_version, cutoff, "
        f"horizon, {figures} FROM monitored_accuracy"
    )


def _backtest_sums() -> str:
    """Figures of the backtest; its scope `horizon` is the total by horizon."""
    level = f"CASE WHEN b.scope = 'horizon' THEN '{TOTAL}' ELSE b.scope END AS level"
    member = "CASE WHEN b.scope = 'horizon' THEN '' ELSE b.member END AS member"
    horizon = "CASE WHEN b.scope = 'horizon' THEN CAST(b.member AS INTEGER) END AS horizon"
    same = " AND ".join(
        f"n.{name} IS NOT DISTINCT FROM b.{name}" for name in ("basis", "scope", "member", "cutoff")
    )
    return (
        f"SELECT '{BACKTEST}' AS source, {level}, {member}, b.basis, b.model, NULL::BIGINT AS model_version, "
        f"b.cutoff, {horizon}, b.rows, NULL::BIGINT AS periods, b.wape, b.bias, "
        "NULL::DOUBLE AS tracking_signal, b.coverage_80, b.coverage_95, n.wape AS wape_seasonal_naive, "
        "NULL::DOUBLE AS wape_promised, NULL::DOUBLE AS coverage_80_promised, "
        "NULL::DOUBLE AS coverage_95_promised "
        f"FROM backtest_accuracy AS b LEFT JOIN backtest_accuracy AS n ON n.model = $baseline AND {same} "
        "WHERE b.scope <> 'age'"
    )


def _of_series(panel: PanelSpec, view: View, given: Given, is_live: bool) -> Question:
    """Figures of single series, over the cutoffs that are asked for."""
    for name in ("level", "member"):
        if given.value(name) is not None:
            raise Problem(
                422,
                f"The parameter {name} asks for sums, the series keys or attributes for single series.",
                f"Leave out {name}, or name a member of a level instead, as in level=region&member=2.",
                field=name,
                value=given.value(name),
            )
    found = series_conditions(panel, view, given)
    period_conditions(found, given, "cutoff")
    outcomes = _live_outcomes(panel) if is_live else _backtest_outcomes(panel, found)
    keys = ", ".join(panel.keys)
    member = ", ".join(f"CAST({key} AS VARCHAR)" for key in panel.keys)
    horizon = ""
    if (wanted := given.value("horizon")) is not None:
        horizon = " HAVING horizon = $horizon"
        found.values["horizon"] = wanted
    figures = (
        f"SELECT {keys}, model, horizon, max(model_version) AS newest, min(model_version) AS oldest, "
        f"{_FIGURES.format(time=panel.time)} FROM ({outcomes}) WHERE {found.sql} "
        f"GROUP BY GROUPING SETS (({keys}, model, horizon), ({keys}, model)){horizon}"
    )
    source = LIVE if is_live else BACKTEST
    return Question(
        f"SELECT '{source}' AS source, '{SERIES}' AS level, concat_ws('/', {member}) AS member, {keys}, "
        "'series' AS basis, model, CASE WHEN newest = oldest THEN newest END AS model_version, "
        "CAST(NULL AS DATE) AS cutoff, horizon, "
        f"{', '.join(FIGURES)} FROM (SELECT *, {_NOT_OF_SERIES} FROM ({figures}))",
        [*panel.keys, "model", "coalesce(horizon, 0)"],
        found.values,
    )


_KNOWN = "actual IS NOT NULL"
_FIGURES = """
count(*) AS rows, count(DISTINCT {time}) AS periods,
sum(abs(forecast - actual)) / nullif(sum(abs(actual)), 0) AS wape,
sum(forecast - actual) / nullif(sum(abs(actual)), 0) AS bias,
avg(CAST(actual BETWEEN lower_80 AND upper_80 AS INTEGER)) AS coverage_80,
avg(CAST(actual BETWEEN lower_95 AND upper_95 AS INTEGER)) AS coverage_95,
CASE WHEN count(*) = count(naive) THEN sum(abs(naive - actual)) / nullif(sum(abs(actual)), 0) END
  AS wape_seasonal_naive
"""
_NOT_OF_SERIES = ", ".join(
    f"CAST(NULL AS DOUBLE) AS {name}"
    for name in ("tracking_signal", "wape_promised", "coverage_80_promised", "coverage_95_promised")
)


def _live_outcomes(panel: PanelSpec) -> str:
    """Every forecast of the champion that was published, with what was reported and what naive said."""
    keys = panel.keys
    reported = " AND ".join(f"s.{key} = h.{key}" for key in (*keys, panel.time))
    same = " AND ".join(f"n.{name} = h.{name}" for name in (*keys, "cutoff", "horizon"))
    return (
        f"SELECT h.* EXCLUDE (role, made_at), '{CHAMPION}' AS model, s.{panel.target} AS actual, "
        f"n.forecast AS naive FROM forecast_history AS h JOIN {panel.series.name} AS s ON {reported} "
        f"LEFT JOIN forecast_history AS n ON n.role = '{BASELINE}' AND {same} "
        f"WHERE h.role = '{CHAMPION}' AND s.{panel.target} IS NOT NULL"
    )


def _backtest_outcomes(panel: PanelSpec, found: Conditions) -> str:
    """The same of the compared windows of the backtest."""
    found.values["baseline"] = SEASONAL_NAIVE
    same = " AND ".join(f"n.{name} = b.{name}" for name in (*panel.keys, "cutoff", "horizon"))
    return (
        "SELECT b.*, CAST(NULL AS BIGINT) AS model_version, n.forecast AS naive FROM backtest AS b "
        f"LEFT JOIN backtest AS n ON n.model = $baseline AND {same} WHERE b.{_KNOWN}"
    )
