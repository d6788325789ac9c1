"""`/v1/series`: the series that there are, with their attributes.

What belongs here: what may be asked of series. What does not: their values.
"""

from datetime import date

from turnover_assets.panel import Column, PanelSpec, StaticTable
from turnover_assets.serving.answers import Resource
from turnover_assets.serving.pages import Question
from turnover_assets.serving.parameters import (
    Definition,
    Given,
    own,
    page_fields,
    parameters,
    series_conditions,
    series_fields,
)
from turnover_assets.serving.routes.forecasts import refuse_unknown_series
from turnover_assets.serving.rows import attribute, column, key_columns, row
from turnover_assets.serving.view import View


def resource(panel: PanelSpec, most_rows: int) -> Resource:
    """Series as rows that can be asked for."""
    return Resource(
        name="series",
        summary="The series that there are",
        description="""Each series that ever reported, with its attributes, its first and its last period, and
whether it is forecast: a series that has not reported for a while is not.""",
        parameters=parameters(
            "SeriesParameters",
            series_fields(panel),
            own(
                "is_forecast",
                bool,
                "Only series that are forecast, or only those that are not.",
                examples=[True],
            ),
            page_fields(most_rows),
        ),
        row=row("Series", _columns(panel)),
        ask=lambda view, given: _ask(panel, view, given),
        explain_nothing=lambda _, given: refuse_unknown_series(panel, given, "rows"),
    )


def _facts(panel: PanelSpec) -> dict[str, Definition]:
    return {
        f"first_{panel.time}": column(date, "First period that it reported.", date(2013, 1, 5)),
        f"last_{panel.time}": column(date, "Last period that it reported.", date(2017, 6, 10)),
        "periods_reported": column(int, "Number of periods that it reported.", 230),
        "is_forecast": column(bool, "Whether there are forecasts of it.", True),
    }


def _attributes(panel: PanelSpec) -> dict[str, tuple[StaticTable, Column]]:
    """Attributes by their name in an answer; one that a fact is called as gets an underscore at its end."""
    facts = _facts(panel)
    return {
        f"{each.name}_" if each.name in facts else each.name: (table, each)
        for table in panel.static
        for each in table.columns
    }


def _columns(panel: PanelSpec) -> dict[str, Definition]:
    attributes = {
        name: attribute(each, f"Attribute of {table.name}.")
        for name, (table, each) in _attributes(panel).items()
    }
    return {**key_columns(panel), **attributes, **_facts(panel)}


def _ask(panel: PanelSpec, view: View, given: Given) -> Question:
    found = series_conditions(panel, view, given)
    if (wanted := given.value("is_forecast")) is not None:
        found.add("is_forecast = $is_forecast", is_forecast=wanted)
    keys = ", ".join(panel.keys)
    attributes, joins = _joined(panel, view)
    return Question(
        f"WITH reporting AS (SELECT {keys}, min({panel.time}) AS first_{panel.time}, "
        f"max({panel.time}) AS last_{panel.time}, count(*) AS periods_reported FROM {panel.series.name} "
        f"GROUP BY {keys}) SELECT {keys}, {attributes} first_{panel.time}, last_{panel.time}, "
        f"periods_reported, ({keys}) IN (SELECT ({keys}) FROM forecasts) AS is_forecast "
        f"FROM reporting {joins} WHERE {found.sql}",
        panel.keys,
        found.values,
    )


def _joined(panel: PanelSpec, view: View) -> tuple[str, str]:
    """SQL of the attributes, null where the snapshot has none, and of the joins to their tables."""
    texts = [
        f"{table.name}.{each.name} AS {name}, " if view.has(table.name) else f"NULL AS {name}, "
        for name, (table, each) in _attributes(panel).items()
    ]
    joins = [
        f"LEFT JOIN {table.name} USING ({', '.join(table.keys)})"
        for table in panel.static
        if view.has(table.name)
    ]
    return "".join(texts), " ".join(joins)
