"""`POST /v1/what-if`: forecasts as they would be.

What belongs here: from a request to an answer. What does not: their shapes (what_if_shapes.py), and working
a question out (what_if.py).
"""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Request
from fastapi.responses import JSONResponse, Response

from turnover_assets.errors import QuestionError
from turnover_assets.panel import PanelSpec
from turnover_assets.serving import audit
from turnover_assets.serving.access import Caller, require
from turnover_assets.serving.openapi import ROW_HEADERS
from turnover_assets.serving.problems import Problem
from turnover_assets.serving.view import Stop
from turnover_assets.serving.what_if import answer_question
from turnover_assets.serving.what_if_shapes import answer_model, example_of, question_model

DESCRIPTION = """
Asks the champion: with other values known ahead, with another level of the newest history, or for series
that there are not yet. The features are made by the SQL that makes those of published forecasts, as of
the same cutoff, and without a change the answer is the published forecast. Nothing is stored. `warnings`
say what the model does not use, what training has not seen, and what was assumed.
"""


def build(panel: PanelSpec) -> APIRouter:
    """The route."""
    router = APIRouter(tags=["what-if"])

    async def what_if(
        request: Request, asked: Any, _caller: Annotated[Caller, Depends(require("what-if"))]
    ) -> Response:
        plain = asked.model_dump(by_alias=True, exclude_unset=True)
        found: Response = await request.app.state.what_if_workers.run(
            lambda stop: _answer(request, plain, stop)
        )
        return found

    what_if.__annotations__["asked"] = Annotated[
        question_model(panel), Body(openapi_examples={"another level": {"value": example_of(panel)}})
    ]
    router.add_api_route(
        "/v1/what-if",
        what_if,
        methods=["POST"],
        summary="Forecasts as they would be",
        description=DESCRIPTION,
        response_class=Response,
        response_model=None,
        responses={200: {"model": answer_model(panel), "headers": ROW_HEADERS}},
    )
    return router


def _answer(request: Request, asked: dict[str, Any], stop: Stop) -> Response:
    with request.app.state.follower.use() as served:
        try:
            found = answer_question(served, asked, stop)
        except QuestionError as error:
            raise Problem(422, error.detail, error.remedy, error.field) from None
        audit.note(request, model_version=found["model"]["version"], predictions=len(found["data"]))
        headers = {**served.origin.headers, "Cache-Control": "no-store"}
        return JSONResponse(found, headers=headers)
