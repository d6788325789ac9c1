"""`/v1/forecasts`: forecasts by series, attribute, period, and cutoff.

What belongs here: what may be asked of forecasts, and where those of each cutoff stand. What does not: sums
(aggregates.py).

The snapshot has forecasts in three tables: `forecasts` those of its own cutoff, `forecast_history` what was
published at each cutoff, by role, and `forecasts_as_of` what was made afterwards for past cutoffs. What was
published goes before what was made afterwards.
"""

from typing import Literal

from turnover_assets.core.forecast_history import CHAMPION
from turnover_assets.core.intervals import BOUNDS
from turnover_assets.panel import PanelSpec
from turnover_assets.serving.answers import Resource
from turnover_assets.serving.pages import Question
from turnover_assets.serving.parameters import (
    Conditions,
    Day,
    Definition,
    Given,
    horizon_condition,
    horizon_field,
    one_series,
    own,
    page_fields,
    parameters,
    period_conditions,
    period_fields,
    series_conditions,
    series_fields,
)
from turnover_assets.serving.problems import Problem
from turnover_assets.serving.roles import Role
from turnover_assets.serving.rows import (
    column,
    dated,
    forecast_columns,
    key_columns,
    optional,
    row,
    time_column,
)
from turnover_assets.serving.view import View

HISTORY, AS_OF = "forecast_history", "forecasts_as_of"
NEWEST_TOLD = 5  # cutoffs that an answer names where one is asked for that there is not

WHOSE = "Whose forecasts; without it the champion's, which are the published ones."


def resource(panel: PanelSpec, most_rows: int) -> Resource:
    """Forecasts as rows that can be asked for."""
    return Resource(
        name="forecasts",
        summary="Forecasts by series",
        description=f"""The next {panel.horizon} periods of each series, with bounds that 80 % and 95 %
of outcomes keep to. Without `cutoff` they are those of the newest one. With the date of an older cutoff
they are what was published then or, where nothing was, what would have been forecast then (`origin` is
`as of`). `role` asks for what another model forecast beside the champion. Where the caller's key takes
part in a test of both, some of its series are answered by the challenger; each row names the `role`.""",
        parameters=parameters(
            "ForecastParameters",
            series_fields(panel),
            period_fields("forecasts of periods"),
            horizon_field(panel),
            _cutoff_field(panel),
            own("role", Role, WHOSE, examples=["champion"]),
            page_fields(most_rows),
        ),
        row=row("Forecast", _columns(panel)),
        ask=lambda view, given: _ask(panel, view, given),
        explain_nothing=lambda view, given: _explain_nothing(panel, view, given),
    )


def _cutoff_field(panel: PanelSpec) -> dict[str, Definition]:
    return own("cutoff", Day, f"The last {panel.time} known; without it the newest.", examples=["2017-06-10"])


def _columns(panel: PanelSpec) -> dict[str, Definition]:
    return {
        **key_columns(panel),
        **dated(),
        **time_column(panel, "Period that is forecast"),
        "horizon": column(int, "How many periods after the cutoff it is.", 1),
        **forecast_columns(panel),
        "model_version": optional(
            int, "Version of the model; null where it was made for this cutoff alone.", 4
        ),
        "role": column(Role, "The part that the model had."),
        "origin": column(Literal["published", "as of"], "Published then, or made afterwards as of then."),
    }


def _ask(panel: PanelSpec, view: View, given: Given) -> Question:
    found = series_conditions(panel, view, given)
    period_conditions(found, given, panel.time)
    horizon_condition(found, given)
    table = _table(view, given, found)
    columns = ", ".join([*panel.keys, "cutoff", panel.time, "horizon", "forecast", *BOUNDS])
    return Question(
        f"SELECT {columns}, model_version, role, origin FROM ({table}) WHERE {found.sql}",
        [*panel.keys, "horizon"],
        found.values,
    )


def _table(view: View, given: Given, found: Conditions) -> str:
    """SQL of the forecasts of the cutoff and role that are asked for."""
    role, cutoff = given.value("role") or CHAMPION, given.value("cutoff")
    newest = str(view.facts["cutoff"])
    if role == CHAMPION and (cutoff is None or str(cutoff) == newest):
        return f"SELECT *, '{CHAMPION}' AS role, 'published' AS origin FROM forecasts"
    found.add("cutoff = CAST($cutoff AS DATE)", cutoff=str(cutoff or newest))
    found.add("role = $role", role=role)
    kept = f"SELECT *, 'published' AS origin FROM {HISTORY}"
    if role != CHAMPION or not view.has(AS_OF):
        return kept
    return (
        f"{kept} UNION ALL BY NAME SELECT * EXCLUDE (actual, model), CAST(NULL AS BIGINT) AS model_version, "
        f"'{CHAMPION}' AS role, 'as of' AS origin FROM {AS_OF} WHERE cutoff NOT IN "
        f"(SELECT cutoff FROM {HISTORY} WHERE role = '{CHAMPION}')"
    )


def _explain_nothing(panel: PanelSpec, view: View, given: Given) -> None:
    """A series, role or cutoff without forecasts is told as such."""
    role, cutoff = given.value("role") or CHAMPION, given.value("cutoff")
    known = cutoffs(view, role)
    if str(cutoff or view.facts["cutoff"]) not in known:
        newest = ", ".join(known[:NEWEST_TOLD]) or "none"
        raise Problem(
            404,
            f"The {role} has no forecasts of the cutoff {cutoff or view.facts['cutoff']}.",
            f"Ask for one of those there are, the newest being: {newest}. `turnover backfill` makes "
            "forecasts as of past cutoffs.",
            field="cutoff" if cutoff else "role",
            value=str(cutoff or role),
        )
    refuse_unknown_series(panel, given, "forecasts")


def cutoffs(view: View, role: str) -> list[str]:
    """The cutoffs of which a role has forecasts, newest first."""
    queries = [f"SELECT cutoff FROM {HISTORY} WHERE role = $role"]
    if role == CHAMPION:
        queries.append("SELECT cutoff FROM forecasts WHERE $role = $role")
        if view.has(AS_OF):
            queries.append(f"SELECT cutoff FROM {AS_OF}")
    rows = view.records(
        f"SELECT DISTINCT cutoff FROM ({' UNION ALL '.join(queries)}) ORDER BY 1 DESC", {"role": role}
    )
    return [str(each["cutoff"]) for each in rows]


def refuse_unknown_series(panel: PanelSpec, given: Given, what: str) -> None:
    """Say that the one series that a request names has nothing, where it names nothing else.

    Raises:
        Problem: It names one series, and nothing that would leave out some of its rows.
    """
    series = one_series(panel, given)
    narrowed = any(given.value(name) is not None for name in ("from", "to", "horizon", "is_forecast"))
    if series is not None and not narrowed:
        named = ", ".join(f"{key} {value}" for key, value in series.items())
        raise Problem(
            404,
            f"There are no {what} of the series {named}.",
            "/v1/series lists the series that there are, and says which of them are forecast.",
            field=panel.keys[0],
            value=series[panel.keys[0]],
        )
