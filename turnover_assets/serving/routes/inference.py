"""`/v2`: the Open Inference Protocol, which clients of KServe, Triton and Seldon speak.

What belongs here: the protocol's routes. What does not: its shapes (open_inference.py), and the forecasts
(predictions.py).

The model is called as the panel is; its versions are those that forecast at the newest cutoff. The inputs
are a tensor for each series key, of one length n, and optionally `horizon`. The outputs are forecast,
bounds and the time column, of the shape [n, H], or [n, 1] where a horizon was given. Errors are problem
documents that have the protocol's `error` too.
"""

import json
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Path, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute

from turnover_assets import __version__
from turnover_assets.core.forecast_history import CHALLENGER, CHAMPION
from turnover_assets.errors import NoSnapshotError
from turnover_assets.panel import PanelSpec
from turnover_assets.serving import audit
from turnover_assets.serving.access import Caller, require
from turnover_assets.serving.open_inference import (
    SERVER,
    InferenceRequest,
    InferenceResponse,
    Live,
    ModelMetadata,
    ModelReady,
    Ready,
    ServerMetadata,
    example_of,
    metadata_of,
    read_inputs,
    tensors_of,
    wanted_outputs,
)
from turnover_assets.serving.openapi import ROW_HEADERS, documented
from turnover_assets.serving.predictions import predictions
from turnover_assets.serving.problems import MEDIA_TYPE, UNANSWERABLE, Problem, busy_problem
from turnover_assets.serving.roles import ROLE_HEADER, Role, role_table, said_role
from turnover_assets.serving.routes.health import readiness
from turnover_assets.serving.served import Served
from turnover_assets.serving.view import Stop, View

MODEL, VERSION = "/models/{name}", "/models/{name}/versions/{version}"
Reader = Annotated[Caller, Depends(require("read"))]
Version = Annotated[str, Path(description="A version that forecasts at the newest cutoff.", examples=["4"])]


class ProtocolRoute(APIRoute):
    """A route whose problem documents have the protocol's `error` too."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, with errors answered here."""
        handler = super().get_route_handler()

        async def answered(request: Request) -> Response:
            try:
                return await handler(request)
            except (Problem, RequestValidationError, NoSnapshotError, *UNANSWERABLE) as error:
                known = request.app.exception_handlers
                kind = next(kind for kind in type(error).__mro__ if kind in known)
                found = await known[kind](request, error)
                document = json.loads(found.body)
                headers = {name: value for name, value in found.headers.items() if name != "content-length"}
                document["error"] = document["detail"]
                return JSONResponse(document, found.status_code, headers, MEDIA_TYPE)

        return answered


def build(panel: PanelSpec) -> APIRouter:
    """The routes."""
    router = APIRouter(prefix="/v2", tags=["inference"], route_class=ProtocolRoute)
    _add_server(router)
    _add_metadata(router, panel)
    _add_readiness(router, panel)
    _add_inference(router, panel)
    return router


def _add_server(router: APIRouter) -> None:
    @router.get("/health/live", summary="Whether it answers", response_model=Live)
    async def live() -> Response:
        """It does, or nothing would come back."""
        return JSONResponse({"live": True})

    @router.get("/health/ready", summary="Whether it should be asked", response_model=Ready)
    def ready(request: Request) -> Response:
        """Whether forecasts are served that are worth having; see /readyz."""
        with request.app.state.follower.use():
            check_ready(request)
        return JSONResponse({"live": True, "ready": True})

    @router.get("", summary="What the server is", response_model=ServerMetadata)
    async def server(_caller: Reader) -> Response:
        """Name and version of the server."""
        return JSONResponse({"name": SERVER, "version": __version__, "extensions": []})


def check_ready(request: Request) -> None:
    """Make sure that /readyz says so of what is in use, too.

    Raises:
        Problem: It does not.
    """
    state = request.app.state
    found = readiness(state.settings, state.follower.following, datetime.now(UTC))
    if found.status != "ready":
        raise busy_problem(" ".join(found.problems), "Ask again in a while; /readyz says more.")


def _called(panel: PanelSpec) -> Any:
    """The parameter that names the model."""
    return Path(description="What the panel is called.", examples=[panel.name])


def _add_metadata(router: APIRouter, panel: PanelSpec) -> None:
    called = _called(panel)
    said: dict[str, Any] = {
        "summary": "What the model takes and gives",
        "response_model": ModelMetadata,
        "responses": documented(404),
    }

    @router.get(MODEL, **said)
    async def of_any(request: Request, name: Annotated[str, called], _caller: Reader) -> Response:
        """Tensors, and the versions that may be asked."""
        return await told(request, name, None)

    @router.get(VERSION, **said)
    async def of_version(
        request: Request, name: Annotated[str, called], version: Version, _caller: Reader
    ) -> Response:
        """The same of one version."""
        return await told(request, name, version)

    async def told(request: Request, name: str, version: str | None) -> Response:
        return await _of_a_model(
            request,
            (name, version),
            lambda served: metadata_of(panel, list(versions(served.view))).model_dump(),
        )


def _add_readiness(router: APIRouter, panel: PanelSpec) -> None:
    called = _called(panel)
    said: dict[str, Any] = {
        "summary": "Whether the model should be asked",
        "response_model": ModelReady,
        "responses": documented(404),
    }

    @router.get(f"{MODEL}/ready", **said)
    async def of_any(request: Request, name: Annotated[str, called], _caller: Reader) -> Response:
        """Whether forecasts of the model are served."""
        return await told(request, name, None)

    @router.get(f"{VERSION}/ready", **said)
    async def of_version(
        request: Request, name: Annotated[str, called], version: Version, _caller: Reader
    ) -> Response:
        """The same of one version."""
        return await told(request, name, version)

    async def told(request: Request, name: str, version: str | None) -> Response:
        def ready(_served: Served) -> dict[str, Any]:
            check_ready(request)
            return {"name": name, "ready": True}

        return await _of_a_model(request, (name, version), ready)


async def _of_a_model(
    request: Request, model: tuple[str, str | None], tell: Callable[[Served], dict[str, Any]]
) -> Response:
    """What is told of a model that is served, within the time limit of look-ups."""

    def work(_stop: Stop) -> Response:
        with request.app.state.follower.use() as served:
            role_of(served.view, *model)
            return JSONResponse(tell(served), headers=served.origin.headers)

    made: Response = await request.app.state.workers.run(work)
    return made


def _add_inference(router: APIRouter, panel: PanelSpec) -> None:
    called = _called(panel)
    given = Body(openapi_examples={"a series": {"value": example_of(panel)}})
    said: dict[str, Any] = {
        "summary": "Forecasts, by the Open Inference Protocol",
        "response_class": Response,
        "response_model": None,
        "responses": {200: {"model": InferenceResponse, "headers": ROW_HEADERS}, **documented(404)},
    }

    @router.post(f"{MODEL}/infer", **said)
    async def of_any(
        request: Request,
        asked: Annotated[InferenceRequest, given],
        caller: Reader,
        name: Annotated[str, called],
    ) -> Response:
        """Published forecasts of the series that the tensors name."""
        return await made(request, asked, caller, name, None)

    @router.post(f"{VERSION}/infer", **said)
    async def of_version(
        request: Request,
        asked: Annotated[InferenceRequest, given],
        caller: Reader,
        name: Annotated[str, called],
        version: Version,
    ) -> Response:
        """The same of one version."""
        return await made(request, asked, caller, name, version)

    async def made(
        request: Request, asked: InferenceRequest, caller: Caller, name: str, version: str | None
    ) -> Response:
        def work(stop: Stop) -> Response:
            with request.app.state.follower.use() as served:
                return _infer(request, served, caller, (name, version), asked, stop)

        found: Response = await request.app.state.workers.run(work)
        return found


def _infer(
    request: Request,
    served: Served,
    caller: Caller,
    model: tuple[str, str | None],
    asked: InferenceRequest,
    stop: Stop,
) -> Response:
    view = served.view
    role = role_of(view, *model)
    names = wanted_outputs(view.panel, asked.outputs)
    table = predictions(view, read_inputs(view.panel, asked.inputs), role, caller, stop, "inputs")
    outputs = tensors_of(view.panel, table, names)
    made = sorted(set(table["model_version"].to_pylist()))
    told = said_role(set(table["role"].to_pylist()))
    audit.note(
        request, role=told, predictions=table.num_rows, model_version=made[0] if len(made) == 1 else None
    )
    found = InferenceResponse(
        model_name=view.panel.name,
        model_version=",".join(map(str, made)),
        id=asked.id,
        parameters={"role": told},
        outputs=outputs,
    )
    headers = {**served.origin.headers, ROLE_HEADER: told, "Cache-Control": "no-store"}
    return JSONResponse(found.model_dump(exclude_none=True), headers=headers)


def versions(view: View) -> dict[str, Role]:
    """The versions that forecast at the newest cutoff, with the part that each has; the champion first."""
    found: dict[str, Role] = {str(view.facts["model"]["version"]): CHAMPION}  # type: ignore[dict-item]
    try:
        challenger = role_table(view, CHALLENGER)
    except Problem:
        return found
    rows = view.arrow(f"SELECT DISTINCT model_version FROM ({challenger.sql})", challenger.values)
    for version in rows["model_version"].to_pylist():
        found.setdefault(str(version), CHALLENGER)  # type: ignore[arg-type]
    return found


def role_of(view: View, name: str, version: str | None) -> Role | None:
    """The role of a version; None where none is asked for.

    Raises:
        Problem: There is no such model or version.
    """
    if name != view.panel.name:
        raise Problem(404, "There is no such model.", f"It is called {view.panel.name}.", "name", value=name)
    if version is None:
        return None
    known = versions(view)
    if version not in known:
        remedy = f"Ask for one of: {', '.join(known)}; or leave the version out."
        raise Problem(404, "There is no such version that forecasts.", remedy, "version", value=version)
    return known[version]
