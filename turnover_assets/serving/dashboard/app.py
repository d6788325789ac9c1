"""The web page put together: the follower, access, compression, pages.

What belongs here: which parts there are, and their order. What does not: what a part does.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI
from starlette.middleware.gzip import DEFAULT_EXCLUDED_CONTENT_TYPES, GZipMiddleware

from turnover_assets import __version__
from turnover_assets.serving import access, audit
from turnover_assets.serving.access import require
from turnover_assets.serving.champion import Champions
from turnover_assets.serving.dashboard import errors
from turnover_assets.serving.dashboard.pages import (
    about,
    accuracy,
    adjustments,
    downloads,
    lists,
    member,
    operation,
    overview,
    quality,
    series,
    signing_in,
    what_if,
)
from turnover_assets.serving.dashboard.shown import Shown
from turnover_assets.serving.dashboard.static_files import PREFIX, StaticFiles
from turnover_assets.serving.dashboard.what_if import WhatIf
from turnover_assets.serving.follower import Follower
from turnover_assets.serving.limits import Limits
from turnover_assets.serving.what_if import answer_question
from turnover_assets.serving.workers import Workers
from turnover_assets.settings import Settings
from turnover_assets.storage.snapshot_mirror import bring_served

LOGIN = "/login"
PUBLIC = ("/healthz", "/readyz", PREFIX)
PACKED_FROM = 1000  # bytes
READ = (overview, lists, member, series, accuracy, quality, adjustments, what_if, downloads, about)


def create_app(settings: Settings, what_if: WhatIf = answer_question) -> FastAPI:
    """The web page of a data home.

    Its state has `settings`, `panel`, `static`, `what_if`, the `what_if_workers`, and `follower`, which
    starts and ends with it.

    Args:
        settings: The settings.
        what_if: Answers questions of what would be.
    """
    app = FastAPI(
        title="Forecasts",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        lifespan=_running,
    )
    state = app.state
    state.settings, state.panel = settings, settings.panel_spec
    state.static, state.what_if = StaticFiles(), what_if
    state.what_if_workers = Workers(
        settings.what_if_threads, settings.what_if_waiting, settings.what_if_seconds
    )
    champions = Champions(settings.panel_spec)
    state.follower = Follower(
        settings.served_path,
        lambda taken: Shown(taken, settings, champions),
        settings.snapshot_poll_seconds,
        lambda: bring_served(settings),
    )
    errors.install(app)
    app.include_router(operation.router)
    app.include_router(signing_in.router)
    for page in READ:
        app.include_router(page.router, dependencies=[Depends(require("read"))])
    access.install(app, settings, public=PUBLIC, login=LOGIN)
    app.add_middleware(Limits, address_bytes=settings.api_address_bytes, body_bytes=settings.api_body_bytes)
    audit.install(app, settings)
    app.add_middleware(errors.Friendly, owner=app)
    packed = (*DEFAULT_EXCLUDED_CONTENT_TYPES, *downloads.PACKED)
    app.add_middleware(GZipMiddleware, minimum_size=PACKED_FROM, exclude_content_types=packed)
    return app


@asynccontextmanager
async def _running(app: FastAPI) -> AsyncIterator[None]:
    """Follow CURRENT as long as the app runs."""
    await asyncio.to_thread(app.state.follower.start)
    try:
        yield
    finally:
        await asyncio.to_thread(app.state.what_if_workers.close)
        app.state.follower.close()
