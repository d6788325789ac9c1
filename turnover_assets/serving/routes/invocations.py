"""`POST /invocations` and `GET /ping`: what clients of MLflow's scoring server ask.

What belongs here: MLflow's shapes of input and output. What does not: the forecasts (predictions.py).

Input is one of `dataframe_split`, `dataframe_records`, `instances` and `inputs`, or CSV: a row for each
series, by its keys. Output is `predictions`, a record for each period of each row, in that order. Errors
are problem documents, as everywhere.
"""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import pyarrow as pa
from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field, create_model

from turnover_assets.panel import Column, PanelSpec
from turnover_assets.serving import audit
from turnover_assets.serving.access import Caller, require
from turnover_assets.serving.openapi import ROW_HEADERS, documented
from turnover_assets.serving.parameters import EXAMPLES
from turnover_assets.serving.predictions import HORIZON, Inputs, input_columns, predictions
from turnover_assets.serving.problems import Problem
from turnover_assets.serving.roles import ROLE_HEADER, Role, said_role, version_of
from turnover_assets.serving.routes.health import Health
from turnover_assets.serving.rows import (
    column,
    dated,
    forecast_columns,
    key_columns,
    optional,
    row,
    time_column,
)
from turnover_assets.serving.view import Stop

ROLES: tuple[Role, ...] = ("champion", "challenger", "baseline")
FORMATS = ("dataframe_split", "dataframe_records", "instances", "inputs")
REMEDY = f"Send an object with exactly one of {', '.join(FORMATS)}, or text/csv with a header."
JSON_TYPES, CSV_TYPES = ("application/json",), ("text/csv",)


def build(panel: PanelSpec) -> APIRouter:
    """The routes."""
    router = APIRouter(tags=["inference"])
    answered = _answer_model(panel)

    @router.get("/ping", summary="Whether MLflow's clients may ask", response_model=Health)
    async def ping(request: Request, _caller: Annotated[Caller, Depends(require("read"))]) -> Response:
        """Whether forecasts are served."""
        with request.app.state.follower.use():
            return JSONResponse({"status": "ok"})

    async def invocations(request: Request, caller: Annotated[Caller, Depends(require("read"))]) -> Response:
        body = await request.body()
        kind = request.headers.get("content-type", "application/json")
        return await request.app.state.workers.run(  # type: ignore[no-any-return]
            lambda stop: _answer(request, caller, body, kind, stop)
        )

    router.add_api_route(
        "/invocations",
        invocations,
        methods=["POST"],
        summary="Predictions, as of MLflow's scoring server",
        description="""A row for each series, by its keys; `horizon` or the time column leave one period of
it. Answered from the published forecasts. `params` may name the `role` whose forecasts are wanted.""",
        response_class=Response,
        response_model=None,
        responses={200: {"model": answered, "headers": ROW_HEADERS}, **documented(404, 415)},
        openapi_extra={"requestBody": _body(panel)},
    )
    return router


def _answer(request: Request, caller: Caller, body: bytes, kind: str, stop: Stop) -> Response:
    with request.app.state.follower.use() as served:
        panel = served.view.panel
        field, inputs, role = read_body(panel, body, kind)
        table = predictions(served.view, inputs, role, caller, stop, field)
        told = said_role(set(table["role"].to_pylist()))
        audit.note(request, role=told, predictions=table.num_rows, **version_of(table))
        headers = {**served.origin.headers, ROLE_HEADER: told, "Cache-Control": "no-store"}
        return JSONResponse({"predictions": records(table)}, headers=headers)


def records(table: pa.Table) -> list[dict[str, Any]]:
    """The rows as records: dates in ISO form, nothing for what is not known."""
    rows = table.drop_columns(["place"]).to_pylist()
    return [{name: _value(value) for name, value in each.items()} for each in rows]


def _value(value: Any) -> Any:
    if hasattr(value, "isoformat"):
        return value.isoformat()[:10]
    return None if value != value else value


def read_body(panel: PanelSpec, body: bytes, kind: str) -> tuple[str, Inputs, Role | None]:
    """The inputs of a body: the field they stand in, the columns, and the role that `params` name.

    Raises:
        Problem: They cannot be read.
    """
    media = kind.partition(";")[0].strip().lower()
    if media in CSV_TYPES:
        return "csv", _of_csv(panel, _text(body)), None
    if media not in JSON_TYPES:
        listed = " or ".join((*JSON_TYPES, *CSV_TYPES))
        raise Problem(415, f"The body is of type {media[:100]}.", f"Send {listed}.", "content-type")
    try:
        asked = json.loads(_text(body), parse_constant=_refused)
    except (ValueError, RecursionError) as error:
        raise Problem(422, f"The body is no JSON: {str(error)[:100]}.", REMEDY, "body") from None
    named = [name for name in FORMATS if isinstance(asked, dict) and name in asked]
    if len(named) != 1:
        raise Problem(422, f"It has {len(named)} of the four forms of input.", REMEDY, "body")
    if unknown := set(asked) - {*named, "params", "client_request_id"}:
        raise Problem(422, f"There is no field {min(unknown)[:100]}.", REMEDY, min(unknown)[:100])
    return named[0], READERS[named[0]](panel, named[0], asked[named[0]]), _role(asked.get("params"))


def _text(body: bytes) -> str:
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Problem(422, "The body is no text in UTF-8.", REMEDY, "body") from None


def _refused(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _role(params: Any) -> Role | None:
    if params is None:
        return None
    if not isinstance(params, dict) or set(params) - {"role"}:
        raise Problem(422, "The only parameter is role.", f"Name one of {', '.join(ROLES)}.", "params")
    if (role := params.get("role")) not in (*ROLES, None):
        raise Problem(
            422, "There is no such role.", f"Name one of {', '.join(ROLES)}.", "params.role", value=role
        )
    return role


def _of_records(panel: PanelSpec, field: str, value: Any) -> Inputs:
    """Records; a name that one record lacks is not known there."""
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise _not(field, "a list of records, such as [{...}, {...}]")
    names = dict.fromkeys([*panel.keys, *(name for each in value for name in each)])
    return {name: [each.get(name) for each in value] for name in names}


def _of_columns(_panel: PanelSpec, field: str, value: Any) -> Inputs:
    """Columns by name, or records."""
    if isinstance(value, dict) and all(isinstance(each, list) for each in value.values()):
        return value
    if isinstance(value, dict):
        return {name: [each] for name, each in value.items()}
    if isinstance(value, list):
        return _of_records(_panel, field, value)
    raise _not(field, "an object of columns, or a list of records")


def _of_split(_panel: PanelSpec, field: str, value: Any) -> Inputs:
    """A dataframe as pandas writes it with orient="split"; its index is passed over."""
    is_split = isinstance(value, dict) and set(value) <= {"columns", "data", "index"}
    columns, data = (value.get("columns"), value.get("data")) if is_split else (None, None)
    if (
        not isinstance(columns, list)
        or not isinstance(data, list)
        or not all(isinstance(c, str) for c in columns)
    ):
        raise _not(field, "an object with columns and data")
    if len(set(columns)) < len(columns):
        raise Problem(422, "A column comes twice.", "Name each column once.", f"{field}.columns")
    if not all(isinstance(each, list) and len(each) == len(columns) for each in data):
        raise _not(f"{field}.data", "a list of rows with a value for each column")
    return {name: [each[i] for each in data] for i, name in enumerate(columns)}


def _of_csv(panel: PanelSpec, text: str) -> Inputs:
    try:
        rows = list(csv.reader(io.StringIO(text, newline="")))
    except csv.Error:  # a value of a hundred thousand characters, or one with a zero byte
        rows = []
    if len(rows) < 2 or any(len(each) != len(rows[0]) for each in rows):
        raise _not("csv", "a header and rows of as many values")
    columns = input_columns(panel)
    found = _of_split(panel, "csv", {"columns": rows[0], "data": rows[1:]})
    return {name: [_parsed(columns.get(name), each) for each in values] for name, values in found.items()}


def _parsed(column: Column | None, text: str) -> Any:
    """A value of CSV; what cannot be read is left as it is, and told of later."""
    if column is None or column.type == "text":
        return text
    if column.type == "flag":
        return {"true": True, "1": True, "false": False, "0": False}.get(text.lower(), text)
    try:
        return float(text) if column.type == "number" else int(text)
    except ValueError:
        return text or None


READERS: Mapping[str, Callable[[PanelSpec, str, Any], Inputs]] = {
    "dataframe_split": _of_split,
    "dataframe_records": _of_records,
    "instances": _of_records,
    "inputs": _of_columns,
}


def _not(field: str, wanted: str) -> Problem:
    return Problem(422, f"It is not {wanted}.", f"Give {wanted}.", field)


def _answer_model(panel: PanelSpec) -> type[BaseModel]:
    columns = {
        **key_columns(panel),
        **dated(),
        **time_column(panel, "Period that is forecast"),
        HORIZON: column(int, "How many periods after the cutoff it is.", 1),
        **forecast_columns(panel),
        "model_version": optional(int, "Version of the model.", 4),
        "role": column(str, "The part that the model has.", "champion"),
    }
    prediction = row("Prediction", columns)
    return create_model(
        "Predictions",
        predictions=(list[prediction], Field(description="A record for each period of each row.")),  # type: ignore[valid-type]
    )


def _body(panel: PanelSpec) -> dict[str, Any]:
    """What the OpenAPI says of the body."""
    record, names = _record_schema(panel), list(input_columns(panel))
    of = {
        "dataframe_split": _object(
            {"columns": _strings(names), "data": _rows_schema(), "index": {"type": "array"}}
        ),
        "dataframe_records": {"type": "array", "items": record, "minItems": 1},
        "instances": {"type": "array", "items": record, "minItems": 1},
        "inputs": {"oneOf": [_columns_schema(panel), {"type": "array", "items": record, "minItems": 1}]},
    }
    of["dataframe_split"]["required"] = ["columns", "data"]
    params = _object({"role": {"type": "string", "enum": list(ROLES)}})
    forms = [{**_object({name: of[name], "params": params}), "required": [name]} for name in FORMATS]
    example = {
        "dataframe_records": [{name: record["properties"][name]["examples"][0] for name in panel.keys}]
    }
    content: dict[str, Any] = {
        "application/json": {"schema": {"oneOf": forms}, "example": example},
        "text/csv": {"schema": {"type": "string"}, "example": _as_csv(example["dataframe_records"])},
    }
    return {"required": True, "content": content}


def _as_csv(records: Sequence[Mapping[str, Any]]) -> str:
    lines = [",".join(records[0]), *(",".join(map(str, record.values())) for record in records)]
    return "\n".join(lines) + "\n"


def _object(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": dict(properties), "additionalProperties": False}


def _strings(names: Sequence[str]) -> dict[str, Any]:
    return {"type": "array", "items": {"type": "string", "enum": list(names)}, "uniqueItems": True}


def _rows_schema() -> dict[str, Any]:
    return {"type": "array", "items": {"type": "array"}, "minItems": 1}


def _record_schema(panel: PanelSpec) -> dict[str, Any]:
    kinds = {"integer": "integer", "number": "number", "text": "string", "flag": "boolean"}
    found: dict[str, dict[str, Any]] = {
        name: {"type": kinds[each.type], "examples": [EXAMPLES[each.type]]}
        for name, each in input_columns(panel).items()
    }
    found[HORIZON] |= {"minimum": 1, "maximum": panel.horizon, "examples": [1]}
    found[panel.time] |= {"format": "date", "examples": ["2017-06-17"]}
    return {**_object(found), "required": list(panel.keys)}


def _columns_schema(panel: PanelSpec) -> dict[str, Any]:
    record = _record_schema(panel)
    columns = {
        name: {"type": "array", "items": each, "minItems": 1} for name, each in record["properties"].items()
    }
    return {**_object(columns), "required": list(panel.keys)}
