"""`/v1/aggregates`: forecasts of sums, by level and in total, with bounds of their own.

What belongs here: what may be asked of them. What does not: how they are made (core/aggregates.py).
"""

from typing import Literal

from turnover_assets.core.aggregates import TOTAL
from turnover_assets.core.intervals import BOUNDS
from turnover_assets.panel import PanelSpec
from turnover_assets.serving.answers import Resource
from turnover_assets.serving.pages import Question
from turnover_assets.serving.parameters import (
    Conditions,
    Definition,
    Given,
    horizon_condition,
    horizon_field,
    own,
    page_fields,
    parameters,
    period_conditions,
    period_fields,
)
from turnover_assets.serving.problems import Problem, nearest
from turnover_assets.serving.rows import column, dated, forecast_columns, row, time_column
from turnover_assets.serving.view import View

MEMBER = "Only this member of the level, such as the number of a store."


def resource(panel: PanelSpec, most_rows: int) -> Resource:
    """Forecasts of sums as rows that can be asked for."""
    return Resource(
        name="aggregates",
        summary="Forecasts of sums by level",
        description=f"""The next {panel.horizon} periods of the total and of each member of each level. A
sum's forecast is the sum of its parts' forecasts; its bounds are not, since errors of the parts depend on
each other: they come from the errors that forecasts of the sum itself made.""",
        parameters=parameters(
            "AggregateParameters",
            level_fields(panel),
            period_fields("forecasts of periods"),
            horizon_field(panel),
            page_fields(most_rows),
        ),
        row=row("Aggregate", _columns(panel)),
        ask=lambda _, given: _ask(panel, given),
        explain_nothing=refuse_unknown_member,
    )


def level_fields(panel: PanelSpec) -> dict[str, Definition]:
    """Fields for a level and one of its members."""
    levels = Literal[(*panel.level_names, TOTAL)]  # type: ignore[valid-type]
    return {
        **own("level", levels, "Only sums of this level.", examples=[(TOTAL, *panel.level_names)[-1]]),
        **own("member", str, MEMBER, max_length=200, examples=["2"]),
    }


def level_columns() -> dict[str, Definition]:
    """The level and the member of a row."""
    return {
        "level": column(str, f"Level of the sum; `{TOTAL}` for the sum of all series.", "region"),
        "member": column(str, "Member of the level, as text; empty for the total.", "2"),
    }


def _columns(panel: PanelSpec) -> dict[str, Definition]:
    return {
        **level_columns(),
        **dated(),
        **time_column(panel, "Period that is forecast"),
        "horizon": column(int, "How many periods after the cutoff it is.", 1),
        **forecast_columns(panel),
        "parts": column(int, "Number of series in the sum.", 312),
    }


def _ask(panel: PanelSpec, given: Given) -> Question:
    found = level_conditions(given)
    period_conditions(found, given, panel.time)
    horizon_condition(found, given)
    columns = ", ".join(["level", "member", "cutoff", panel.time, "horizon", "forecast", *BOUNDS, "parts"])
    return Question(
        f"SELECT {columns} FROM aggregates WHERE {found.sql}", ["level", "member", "horizon"], found.values
    )


def level_conditions(given: Given) -> Conditions:
    """Conditions for the level and the member that are asked for."""
    found = Conditions()
    for name in ("level", "member"):
        if (value := given.value(name)) is not None:
            found.add(f"{name} = ${name}", **{name: value})
    return found


def refuse_unknown_member(view: View, given: Given) -> None:
    """Say that a member is not one of its level, or of any where none is named.

    Raises:
        Problem: So it is.
    """
    level, member = given.value("level"), given.value("member")
    if member is None:
        return
    values = {} if level is None else {"level": level}
    where = "level = $level" if values else "true"
    found = view.records(f"SELECT DISTINCT member FROM aggregates WHERE {where}", values)
    members = [each["member"] for each in found]
    if member not in members:
        whose = f"The level {level}" if level else "Every level"
        query = f"level={level}&horizon=1" if level else "horizon=1"
        raise Problem(
            404,
            f"{whose} is without such a member.{nearest(member, members)}",
            f"/v1/aggregates?{query} lists the members.",
            field="member",
            value=member,
        )
