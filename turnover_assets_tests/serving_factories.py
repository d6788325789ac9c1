"""Small servers for tests of access and audit, and clients that come from where a test wants."""

from pathlib import Path
from typing import Annotated, Any

from fastapi import Body, Depends, FastAPI, Form, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from fastapi.testclient import TestClient

from turnover_assets.serving import access
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
    from datetime import UTC, datetime

    return store_of(settings).create(name, scopes or ("read",), datetime.now(UTC), **others)


def small_app(settings: Settings, **installed: Any) -> FastAPI:
    """A server with a route for each scope, and a page of signing in."""
    app = FastAPI(docs_url=None, openapi_url=None)

    @app.exception_handler(Problem)
    async def as_document(_: Request, problem: Problem) -> Response:
        return problem.response()

    @app.get("/v1/who")
    async def who(caller: Annotated[Caller, Depends(require("read"))]) -> dict[str, Any]:
        return {"id": caller.id, "name": caller.name, "scopes": sorted(caller.scopes), "ab": caller.ab_share}

    @app.post("/v1/what-if")
    async def what_if(_: Annotated[Caller, Depends(require("what-if"))], body: Any = Body()) -> Response:  # noqa: B008
        return JSONResponse(body, headers={"X-Turnover-Snapshot": "s1", "X-Turnover-Model-Version": "3"})

    @app.get("/healthz")
    async def alive() -> str:
        return "ok"

    @app.get("/unguarded")
    async def unguarded() -> str:
        return "nobody thought of a guard"

    @app.get("/metrics")
    async def metrics() -> Response:
        return PlainTextResponse("up 1\n")

    @app.get("/login")
    async def form(request: Request) -> Response:
        return PlainTextResponse(session.csrf_token(request))

    @app.post("/login")
    async def sign_in(
        request: Request,
        key: Annotated[str, Form()],
        next: Annotated[str, Form()] = "/",  # noqa: A002
    ) -> Response:
        return session.login(request, key, next)

    @app.get("/form")
    async def page(request: Request) -> Response:
        return PlainTextResponse(session.csrf_token(request), media_type="text/html")

    @app.post("/form")
    async def change(request: Request, csrf: Annotated[str, Form()]) -> Response:
        session.check_csrf(request, csrf)
        return PlainTextResponse("changed")

    @app.post("/logout")
    async def sign_out(request: Request, csrf: Annotated[str, Form()]) -> Response:
        session.check_csrf(request, csrf)
        return session.logout(request, "/login")

    access.install(app, settings, **installed)
    return app


def client_of(app: FastAPI, address: str = HERE, host: str = "localhost", scheme: str = "http") -> TestClient:
    """A client that comes from an address and calls the server by a name."""
    return TestClient(app, f"{scheme}://{host}", client=(address, 50000), follow_redirects=False)
