"""Whose forecasts answer: the champion's, another's by name, or a share of the challenger's.

What belongs here: forecasts of the newest cutoff by role, and which series of which caller are the
challenger's. What does not: who takes part in such a test (a property of the caller's key), and older
cutoffs.

In a test each series of a caller is always answered by the same role: a hash of the caller's id and the
series keys falls below the share or not. A series that the challenger has not forecast is the champion's.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from turnover_assets.core.forecast_history import CHALLENGER, CHAMPION, ROLES
from turnover_assets.core.intervals import BOUNDS
from turnover_assets.panel import PanelSpec
from turnover_assets.serving.access import Caller
from turnover_assets.serving.pages import Question
from turnover_assets.serving.parameters import Given
from turnover_assets.serving.problems import Problem
from turnover_assets.serving.view import View

Role = Literal["champion", "challenger", "baseline"]
ROLE_HEADER = "X-Turnover-Role"
MIXED = "mixed"
PARTS = 1_000_000  # that a share is counted in
HISTORY = "forecast_history"
Ask = Callable[[View, Given], Question]


@dataclass(frozen=True)
class Relation:
    """SQL of a relation, and what is bound to it.

    Attributes:
        sql: A query.
        values: Values of its parameters.
    """

    sql: str
    values: Mapping[str, Any]


def role_table(view: View, role: str) -> Relation:
    """Forecasts of the newest cutoff by one role: the columns of `forecasts`, and `role`.

    Raises:
        Problem: It has forecast nothing at that cutoff.
    """
    columns = ", ".join(_columns(view.panel))
    if role == CHAMPION:
        return Relation(f"SELECT {columns}, '{CHAMPION}' AS role FROM forecasts", {})
    cutoff = str(view.facts["cutoff"])
    sql = f"SELECT {columns}, role FROM {HISTORY} WHERE role = $role AND cutoff = CAST($role_cutoff AS DATE)"
    values = {"role": role, "role_cutoff": cutoff}
    if role not in ROLES or not view.has(HISTORY) or not _count(view, sql, values):
        raise Problem(
            404,
            f"The {role} has no forecasts of the cutoff {cutoff}.",
            "Ask for those of the champion; /v1/models lists the models that forecast.",
            field="role",
            value=role,
        )
    return Relation(sql, values)


def answering(view: View, role: str | None, caller: Caller | None) -> Relation:
    """Forecasts of the newest cutoff for a caller: of the role asked for, or as the caller's test says."""
    if role is not None or not caller or not caller.ab_share:
        return role_table(view, role or CHAMPION)
    mine = role_table(view, CHAMPION)
    try:
        theirs = role_table(view, CHALLENGER)
    except Problem:
        return mine
    return _split(view.panel, caller, mine, theirs)


def challengers(panel: PanelSpec, caller: Caller) -> tuple[str, dict[str, Any]]:
    """SQL that holds for the series of a caller that the challenger answers, and what is bound to it."""
    texts = ", ".join(f"CAST({key} AS VARCHAR)" for key in panel.keys)
    hashed = f"md5_number_lower(concat_ws('|', $ab_caller, {texts}))"
    below = round((caller.ab_share or 0.0) * PARTS)
    return f"({hashed} % {PARTS} < $ab_below)", {"ab_caller": caller.id, "ab_below": below}


def test_of(caller: Caller | None, given: Given) -> str:
    """What tells a caller's part in a test from that of others; empty where a request is in none."""
    has_role = "own_role" in type(given).model_fields
    if caller is None or not caller.ab_share or not has_role or given.value("role") or given.value("cutoff"):
        return ""
    return f".{caller.id}.{round(caller.ab_share * PARTS)}"


def of_caller(ask: Ask, view: View, given: Given, caller: Caller | None) -> Question:
    """The question for what a request says; in a test, of the challenger for some of the series."""
    mine = ask(view, given)
    if caller is None or not test_of(caller, given):
        return mine
    theirs = ask(view, given.model_copy(update={"own_role": CHALLENGER}))
    found = _split(view.panel, caller, Relation(mine.sql, mine.values), Relation(theirs.sql, theirs.values))
    return Question(found.sql, mine.order, found.values)


def _split(panel: PanelSpec, caller: Caller, mine: Relation, theirs: Relation) -> Relation:
    """The challenger's rows of its series, and the champion's of all others."""
    hit, values = challengers(panel, caller)
    same = " AND ".join(f"o.{key} = m.{key}" for key in panel.keys)
    return Relation(
        f"SELECT * FROM ({theirs.sql}) WHERE {hit} UNION ALL SELECT * FROM ({mine.sql}) AS m "
        f"WHERE NOT {hit} OR NOT EXISTS (FROM ({theirs.sql}) AS o WHERE {same})",
        {**mine.values, **theirs.values, **values},
    )


def version_of(table: pa.Table) -> dict[str, int | None]:
    """For the audit: the model version of an answer, where it has just one."""
    found = set(table["model_version"].to_pylist())
    return {"model_version": found.pop() if len(found) == 1 else None}


def said_role(roles: set[str]) -> str:
    """The role that an answer is of, for its header and the audit."""
    return next(iter(roles)) if len(roles) == 1 else MIXED if roles else CHAMPION


def _columns(panel: PanelSpec) -> list[str]:
    return [*panel.keys, "cutoff", panel.time, "horizon", "forecast", *BOUNDS, "model_version"]


def _count(view: View, sql: str, values: Mapping[str, Any]) -> int:
    return int(view.arrow(f"SELECT count(*) AS n FROM ({sql})", values)["n"][0].as_py())
