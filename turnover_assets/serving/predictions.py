"""Predictions for the series that a client of models names: from what is published, in the order asked.

What belongs here: what MLflow's protocol and the Open Inference Protocol share. What does not: their shapes
(routes/invocations.py, routes/inference.py).

A question of either is the published one: what will this series be, so many periods ahead. So it is
answered from published forecasts, which were checked before they were published, and not by calling the
model again.
"""

import math
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import pyarrow as pa

from turnover_assets.core.intervals import BOUNDS
from turnover_assets.panel import Column, PanelSpec
from turnover_assets.serving.access import Caller
from turnover_assets.serving.problems import Problem
from turnover_assets.serving.roles import answering
from turnover_assets.serving.view import Stop, View

HORIZON = "horizon"
MOST_INPUTS = 5000
FIGURES = ("forecast", *BOUNDS)
SQL_TYPES: Mapping[str, str] = {"integer": "BIGINT", "number": "DOUBLE", "text": "VARCHAR", "flag": "BOOLEAN"}
Inputs = Mapping[str, Sequence[Any]]


def input_columns(panel: PanelSpec) -> dict[str, Column]:
    """What a client may give of each prediction: the keys, which it must, horizon and period."""
    keys = {key.name: key for key in panel.series.keys}
    return {
        **keys,
        HORIZON: Column(name=HORIZON, type="integer"),
        panel.time: Column(name=panel.time, type="text"),
    }


def predictions(
    view: View, inputs: Inputs, role: str | None, caller: Caller | None, stop: Stop, field: str
) -> pa.Table:
    """Published forecasts for inputs.

    Args:
        view: What is served.
        inputs: By column as many values as there are inputs. `horizon` or the time column leave one period of
            the series; where neither is given, or None, all periods are meant.
        role: Whose forecasts; None for the champion's, or as the caller's test says.
        caller: Who asks.
        stop: Ends it from another thread.
        field: Where in the request the inputs stand.

    Returns:
        `place` (of the input), the series keys, cutoff, time column, `horizon`, forecast, bounds,
        `model_version`, `role`; in the order of inputs and horizons.

    Raises:
        Problem: A value is of another type, or something has no forecast.
    """
    panel = view.panel
    checked = check_inputs(panel, inputs, field)
    source = answering(view, role, caller)
    count = len(next(iter(checked.values())))
    columns = input_columns(panel)
    lists = ", ".join(
        f"unnest(CAST($input_{i} AS {_sql_type(panel, columns[name])}[])) AS wanted_{name}"
        for i, name in enumerate(checked)
    )
    bound = {f"input_{i}": list(values) for i, values in enumerate(checked.values())}
    on = [f"f.{key} = w.wanted_{key}" for key in panel.keys]
    on += [
        f"(w.wanted_{name} IS NULL OR f.{name} = w.wanted_{name})"
        for name in (HORIZON, panel.time)
        if name in checked
    ]
    table = view.arrow(
        f"SELECT w.place, f.* FROM (SELECT unnest(range($count)) AS place, {lists}) AS w "
        f"LEFT JOIN ({source.sql}) AS f ON {' AND '.join(on)} ORDER BY w.place, f.horizon",
        {**source.values, **bound, "count": count},
        stop,
    )
    _check_found(panel, table, checked, field)
    return table


def check_inputs(panel: PanelSpec, inputs: Inputs, field: str) -> dict[str, list[Any]]:
    """The inputs with values of the panel's types.

    Raises:
        Problem: Something is missing, not known, too much, or of another type.
    """
    columns = input_columns(panel)
    missing = [key for key in panel.keys if key not in inputs]
    unknown = [name for name in inputs if name not in columns]
    if missing or unknown:
        wrong = [(name, f"The column {name} is missing.", None) for name in missing]
        wrong += [(name, f"There is no column {name}.", None) for name in unknown]
        (name, detail, _), *others = wrong
        raise Problem(
            422,
            detail,
            f"Give these columns: {', '.join(panel.keys)}; and, if wanted, {HORIZON} or {panel.time}.",
            f"{field}.{name}",
            others=[(f"{field}.{n}", d, v) for n, d, v in others],
        )
    lengths = {len(values) for values in inputs.values()}
    if len(lengths) != 1:
        raise Problem(422, "The columns are not of one length.", "Give a value of each for every row.", field)
    if not 0 < (count := lengths.pop()) <= MOST_INPUTS:
        detail = f"{count} rows are asked for, which is not between 1 and {MOST_INPUTS}."
        raise Problem(422, detail, "Ask in several requests.", field)
    return {
        name: [_checked(panel, columns[name], value, f"{field}.{i}.{name}") for i, value in enumerate(values)]
        for name, values in inputs.items()
    }


def _checked(panel: PanelSpec, column: Column, value: Any, field: str) -> Any:
    """A value of a column's type; whole numbers may come as 3.0, as dataframes write them."""
    optional = column.name not in panel.keys
    if optional and (value is None or value == ""):
        return None
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if column.type == "integer" and number and value == int(value) and abs(value) < 2**63:
        return int(value)
    if column.type == "number" and number:
        return float(value)
    if column.type == "flag" and isinstance(value, bool):
        return value
    if column.type == "text" and isinstance(value, str) and (column.name != panel.time or _is_date(value)):
        return value
    wanted = "a date such as 2017-06-17" if column.name == panel.time else f"of type {column.type}"
    raise Problem(422, f"The value is not {wanted}.", "Correct it and ask again.", field, value=value)


def _is_date(text: str) -> bool:
    try:
        return date.fromisoformat(text) is not None
    except ValueError:
        return False


def _sql_type(panel: PanelSpec, column: Column) -> str:
    return "DATE" if column.name == panel.time else SQL_TYPES[column.type]


def _check_found(panel: PanelSpec, table: pa.Table, inputs: Inputs, field: str) -> None:
    """Make sure that every input has a forecast."""
    if not table["horizon"].null_count:
        return
    lost = [
        p for p, h in zip(table["place"].to_pylist(), table["horizon"].to_pylist(), strict=True) if h is None
    ]
    wrong = [
        (f"{field}.{place}", f"There is no forecast of {_named(inputs, place)}.", None) for place in lost[:20]
    ]
    (where, detail, _), *others = wrong
    raise Problem(
        422,
        detail if len(lost) == 1 else f"{len(lost)} rows have no forecast; the first: {detail}",
        f"/v1/series lists the series that are forecast; each is for {panel.horizon} periods.",
        where,
        others=others,
    )


def _named(inputs: Inputs, place: int) -> str:
    given = ((name, values[place]) for name, values in inputs.items())
    return ", ".join(f"{name} {value}" for name, value in given if value is not None)
