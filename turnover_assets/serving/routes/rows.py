"""A route for each kind of rows: all are asked for, guarded and documented alike.

What belongs here: from a Resource to a route. What does not: the resources (a module each), and answering
(answers.py).
"""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, Field, create_model
from starlette.responses import Response

from turnover_assets.panel import PanelSpec
from turnover_assets.serving.access import Caller, require
from turnover_assets.serving.answers import Resource, answer_rows
from turnover_assets.serving.formats import FORMATS
from turnover_assets.serving.openapi import ROW_HEADERS, documented
from turnover_assets.serving.origin import OriginDocument
from turnover_assets.serving.routes import (
    accuracy,
    aggregates,
    explanations,
    forecasts,
    history,
    models,
    series,
)

MODULES = (forecasts, history, accuracy, aggregates, explanations, series, models)


def resources(panel: PanelSpec, most_rows: int) -> list[Resource]:
    """Everything that has rows."""
    return [module.resource(panel, most_rows) for module in MODULES]


def build(found: list[Resource]) -> APIRouter:
    """Their routes."""
    router = APIRouter(prefix="/v1", tags=["forecasts"])
    for resource in found:
        _add(router, resource)
    return router


def _add(router: APIRouter, resource: Resource) -> None:
    async def endpoint(
        request: Request, given: Any, _caller: Annotated[Caller, Depends(require("read"))]
    ) -> Response:
        return await answer_rows(request, resource, given)

    endpoint.__annotations__["given"] = Annotated[resource.parameters, Query()]
    router.add_api_route(
        f"/{resource.name}",
        endpoint,
        methods=["GET"],
        name=resource.name,
        summary=resource.summary,
        description=resource.description,
        response_class=Response,
        response_model=None,
        responses={200: _rows_answer(resource), **documented(304, 404, 406, 410)},
    )


def _rows_answer(resource: Resource) -> dict[str, Any]:
    """What the OpenAPI says of an answer with rows."""
    binary = {"schema": {"type": "string", "format": "binary"}}
    others = {each.media_type: binary for each in FORMATS.values() if each.name in ("arrow", "parquet")}
    return {
        "description": f"{resource.summary}, a page of them.",
        "model": _document(resource),
        "headers": ROW_HEADERS,
        "content": {FORMATS["csv"].media_type: {"schema": {"type": "string"}}, **others},
    }


def _document(resource: Resource) -> type[BaseModel]:
    """The model of a JSON answer."""
    model: type[BaseModel] = create_model(
        f"{resource.row.__name__}Page",
        served=(OriginDocument, Field(description="Where the answer comes from.")),
        data=(list[resource.row], Field(description="The rows.")),  # type: ignore[name-defined]
        next=(str | None, Field(description="Address of the next page; null on the last.")),
    )
    return model
