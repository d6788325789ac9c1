"""`/v1/models`: the model versions whose forecasts were kept, the champion among them.

What belongs here: what a snapshot tells of models. What does not: the registry, which serving does not read.
"""

from datetime import date
from typing import Literal

from turnover_assets.core.forecast_history import BASELINE, CHALLENGER, CHAMPION
from turnover_assets.panel import PanelSpec
from turnover_assets.serving.answers import Resource
from turnover_assets.serving.pages import Question
from turnover_assets.serving.parameters import Definition, Given, page_fields, parameters
from turnover_assets.serving.rows import column, optional, row
from turnover_assets.serving.view import View


def resource(_panel: PanelSpec, most_rows: int) -> Resource:
    """Model versions as rows that can be asked for."""
    return Resource(
        name="models",
        summary="Model versions that forecast",
        description="""Each model version whose forecasts were kept, with the part it had last and the cutoffs
it forecast. Of the champion the candidate and what its backtest promised are told too: the error of 8 periods
(WAPE) beside that of repeating last year.""",
        parameters=parameters("ModelParameters", page_fields(most_rows)),
        row=row("Model", _columns()),
        ask=_ask,
        explain_nothing=lambda _view, _given: None,
    )


def _columns() -> dict[str, Definition]:
    return {
        "model_version": column(int, "Its version in the registry.", 4),
        "role": column(Literal[CHAMPION, CHALLENGER], "The part that it had last."),
        "is_champion": column(bool, "Whether it makes the forecasts that are served.", True),
        "first_cutoff": column(date, "First cutoff that it forecast.", date(2017, 4, 15)),
        "last_cutoff": column(date, "Last cutoff that it forecast.", date(2017, 6, 10)),
        "cutoffs": column(int, "Number of cutoffs that it forecast.", 9),
        "candidate": optional(str, "Name of the candidate.", "blend"),
        "wape": optional(float, "WAPE in its backtest.", 0.306),
        "wape_seasonal_naive": optional(float, "WAPE of repeating last year, on the same rows.", 0.347),
    }


def _ask(view: View, _given: Given) -> Question:
    model = view.facts["model"]
    told = ("candidate", "wape", "wape_seasonal_naive")
    facts = ", ".join(
        f"CASE WHEN model_version = $version THEN CAST(${name} AS {kind}) END AS {name}"
        for name, kind in zip(told, ("VARCHAR", "DOUBLE", "DOUBLE"), strict=True)
    )
    return Question(
        "SELECT model_version, max_by(role, (made_at, role)) AS role, "
        "model_version = $version AS is_champion, "
        "min(cutoff) AS first_cutoff, max(cutoff) AS last_cutoff, count(DISTINCT cutoff) AS cutoffs, "
        f"{facts} FROM forecast_history WHERE role <> '{BASELINE}' GROUP BY model_version",
        ["model_version"],
        {"version": int(model["version"]), **{name: model.get(name) for name in told}},
    )
