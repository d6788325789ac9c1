"""Small servers for tests of access and audit, and clients that come from where a test wants."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, FastAPI, Form, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from fastapi.testclient import TestClient

from turnover_assets.serving import access, audit
from turnover_assets.serving.access import Caller, require, session
from turnover_assets.serving.problems import Problem
from turnover_assets.settings import Settings, load_settings
from turnover_assets.storage.api_keys import KeyStore, NewKey

HERE, ELSEWHERE = "127.0.0.1", "192.0.2.7"


def settings_of(home: Path, **others: Any) -> Settings:
    return load_settings(home=home, **others)


def store_of(settings: Settings) -> KeyStore:
    return KeyStore(settings.keys_path)


def new_key(settings: Settings, name: str = "a program", *scopes: Any, **others: Any) -> NewKey:
    return store_of(settings).create(name, scopes or ("read",), datetime.now(UTC), **others)


def small_app(settings: Settings, **installed: Any) -> FastAPI:
    """A server with a route for each scope, and a page of signing in."""
    app = FastAPI(docs_url=None, openapi_url=None)
    app.include_router(_api())
    app.include_router(_pages())
    app.add_exception_handler(Problem, lambda _, problem: problem.response())  # type: ignore[attr-defined]
    access.install(app, settings, **installed)
    return app


async def status_from_elsewhere(app: FastAPI, *headers: tuple[bytes, bytes]) -> int:
    """Ask who one is from another machine, on the event loop that runs; the status of the answer."""
    status = 0

    async def send(message: Any) -> None:
        nonlocal status
        status = message.get("status", status)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/v1/who",
        "raw_path": b"/v1/who",
        "query_string": b"",
        "client": (ELSEWHERE, 1),
        "scheme": "http",
        "http_version": "1.1",
        "server": ("localhost", 80),
        "headers": [(b"host", b"localhost"), *headers],
    }
    await app(scope, receive, send)
    return status


def _api() -> APIRouter:
    router = APIRouter()

    @router.get("/v1/who")
    async def who(caller: Annotated[Caller, Depends(require("read"))]) -> dict[str, Any]:
        return {"id": caller.id, "name": caller.name, "scopes": sorted(caller.scopes), "ab": caller.ab_share}

    @router.get("/v1/forecasts", dependencies=[Depends(require("read"))])
    async def forecasts() -> list[int]:
        return [1, 2, 3]

    @router.post("/v1/what-if")
    async def what_if(_: Annotated[Caller, Depends(require("what-if"))], body: Any = Body()) -> Response:  # noqa: B008
        return JSONResponse(body, headers={"X-Turnover-Snapshot": "s1", "X-Turnover-Model-Version": "3"})

    @router.get("/healthz")
    async def alive() -> str:
        return "ok"

    @router.get("/unguarded")
    async def unguarded() -> str:
        return "nobody thought of a guard"

    @router.get("/metrics")
    async def metrics() -> Response:
        return PlainTextResponse("up 1\n")

    return router


def _pages() -> APIRouter:
    router = APIRouter()

    @router.post("/login")
    async def sign_in(
        request: Request, key: Annotated[str, Form()], wanted: Annotated[str, Form(alias="next")] = "/"
    ) -> Response:
        return session.login(request, key, wanted)

    @router.get("/form")
    async def page(request: Request) -> Response:
        return PlainTextResponse(session.csrf_token(request), media_type="text/html")

    @router.post("/form")
    async def change(request: Request, csrf: Annotated[str, Form()]) -> Response:
        session.check_csrf(request, csrf)
        return PlainTextResponse("changed")

    @router.post("/logout")
    async def sign_out(request: Request, csrf: Annotated[str, Form()]) -> Response:
        session.check_csrf(request, csrf)
        return session.logout(request, "/login")

    return router


def audited_app() -> FastAPI:
    """The small server of the home that the environment names, with its audit."""
    settings = load_settings()
    app = small_app(settings)
    audit.install(app, settings)
    return app


def client_of(app: FastAPI, address: str = HERE, host: str = "localhost", scheme: str = "http") -> TestClient:
    """A client that comes from an address and calls the server by a name."""
    return TestClient(app, f"{scheme}://{host}", client=(address, 50000), follow_redirects=False)
