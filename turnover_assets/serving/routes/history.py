"""`/v1/history`: what was reported, beside what models see of it.

What belongs here: what may be asked of the history. What does not: why a value was adjusted.
"""

from turnover_assets.panel import PanelSpec
from turnover_assets.serving.answers import Resource
from turnover_assets.serving.pages import Question
from turnover_assets.serving.parameters import (
    Definition,
    Given,
    page_fields,
    parameters,
    period_conditions,
    period_fields,
    series_conditions,
    series_fields,
)
from turnover_assets.serving.routes.forecasts import refuse_unknown_series
from turnover_assets.serving.rows import amount, key_columns, optional, row, time_column
from turnover_assets.serving.view import View


def resource(panel: PanelSpec, most_rows: int) -> Resource:
    """The history as rows that can be asked for."""
    return Resource(
        name="history",
        summary="Reported and adjusted values by series",
        description=f"""What was reported of each series and period, and `{panel.target}_adjusted`, which is
what models see: the same where nothing was wrong with it, else what it was repaired to, for the reason that
`adjustment_id` names.""",
        parameters=parameters(
            "HistoryParameters",
            series_fields(panel),
            period_fields("periods"),
            page_fields(most_rows),
        ),
        row=row("HistoryRow", _columns(panel)),
        ask=lambda view, given: _ask(panel, view, given),
        explain_nothing=lambda _, given: refuse_unknown_series(panel, given, "reported values"),
    )


def _columns(panel: PanelSpec) -> dict[str, Definition]:
    return {
        **key_columns(panel),
        **time_column(panel, "Period"),
        panel.target: optional(float, f"Reported {amount(panel)}.", 1470.0),
        f"{panel.target}_adjusted": optional(float, "The same as models see it.", 1470.0),
        "adjustment_id": optional(str, "Why the two differ; null where they do not.", "3f9a0c2d11b8"),
    }


def _ask(panel: PanelSpec, view: View, given: Given) -> Question:
    found = series_conditions(panel, view, given)
    period_conditions(found, given, panel.time)
    columns = ", ".join(_columns(panel))
    return Question(
        f"SELECT {columns} FROM {panel.series.name} WHERE {found.sql}",
        [*panel.keys, panel.time],
        found.values,
    )
