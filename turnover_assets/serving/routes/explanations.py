"""`/v1/explanations`: why forecasts are what they are.

What belongs here: what may be asked of explanations. What does not: how they are made (core/explanations.py).
"""

from typing import Literal

from turnover_assets.core.explanation_words import AVERAGE, YEAR_AGO
from turnover_assets.core.explanations import effect_columns
from turnover_assets.panel import PanelSpec
from turnover_assets.serving.answers import Resource
from turnover_assets.serving.pages import Question
from turnover_assets.serving.parameters import (
    Definition,
    Given,
    horizon_condition,
    horizon_field,
    page_fields,
    parameters,
    period_conditions,
    period_fields,
    series_conditions,
    series_fields,
)
from turnover_assets.serving.routes.forecasts import refuse_unknown_series
from turnover_assets.serving.rows import (
    amount,
    column,
    dated,
    key_columns,
    optional,
    row,
    time_column,
)
from turnover_assets.serving.view import View


def resource(panel: PanelSpec, most_rows: int) -> Resource:
    """Explanations as rows that can be asked for."""
    return Resource(
        name="explanations",
        summary="Why forecasts are what they are",
        description="""Each forecast as steps from an amount that a reader knows: `reference` and all effects
add up to `forecast`. `sentence` says the same in words. The effects say what moves the forecast, not what
causes sales.""",
        parameters=parameters(
            "ExplanationParameters",
            series_fields(panel),
            period_fields("forecasts of periods"),
            horizon_field(panel),
            page_fields(most_rows),
        ),
        row=row("Explanation", _columns(panel)),
        ask=lambda view, given: _ask(panel, view, given),
        explain_nothing=lambda _, given: refuse_unknown_series(panel, given, "explanations"),
    )


def _columns(panel: PanelSpec) -> dict[str, Definition]:
    effects = {
        name: optional(float, f"What {group.replace('_', ' ')} adds.", 220.0)
        for group, name in effect_columns(panel).items()
    }
    return {
        **key_columns(panel),
        **dated(),
        **time_column(panel, "Period that is forecast"),
        "horizon": column(int, "How many periods after the cutoff it is.", 1),
        "forecast": column(float, f"Expected {amount(panel)}.", 1840.0),
        "compared_with": column(Literal[YEAR_AGO, AVERAGE], "What `reference` is of."),
        "reference": optional(float, "What the series had then, adjusted, in the scale of now.", 1470.0),
        "reported_year_ago": optional(float, "What was reported then.", 1470.0),
        **effects,
        "sentence": column(str, "The same in words.", "1,840 expected, 25 % above the same week last year …"),
    }


def _ask(panel: PanelSpec, view: View, given: Given) -> Question:
    found = series_conditions(panel, view, given)
    period_conditions(found, given, panel.time)
    horizon_condition(found, given)
    there = view.columns("explanations")
    columns = ", ".join(c if c in there else f"CAST(NULL AS DOUBLE) AS {c}" for c in _columns(panel))
    return Question(
        f"SELECT {columns} FROM explanations WHERE {found.sql}", [*panel.keys, "horizon"], found.values
    )
