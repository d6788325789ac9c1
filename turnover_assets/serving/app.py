"""The REST API put together: the follower, middlewares, routes.

What belongs here: which parts there are, and their order. What does not: what a part does.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import duckdb
from fastapi import Depends, FastAPI
from fastapi_offline import FastAPIOffline

from turnover_assets import __version__
from turnover_assets.serving import access, audit, openapi, problems
from turnover_assets.serving.answers import Resource
from turnover_assets.serving.archive import Archive
from turnover_assets.serving.champion import Champions
from turnover_assets.serving.follower import Follower
from turnover_assets.serving.lean import LeanLookups
from turnover_assets.serving.limits import Limits
from turnover_assets.serving.lookups import Lookups
from turnover_assets.serving.metrics import Metrics
from turnover_assets.serving.observing import Observing, log_as_json, log_as_text
from turnover_assets.serving.parameters import parameters
from turnover_assets.serving.routes import health, inference, invocations, rows, snapshot, what_if
from turnover_assets.serving.served import Served, unusable
from turnover_assets.serving.workers import Workers
from turnover_assets.settings import Settings, load_settings
from turnover_assets.storage.snapshot_mirror import bring_served
from turnover_assets.storage.snapshots import Snapshot

READY = ("forecasts", "explanations")  # whose rows by series are made ready, since most look-ups are of them
TIDY_SECONDS = 30.0


def create_app(settings: Settings, *, access_log: bool = True) -> FastAPI:
    """The REST API of a data home.

    Its state has `settings`, `panel`, `metrics`, `workers`, and `follower` and `archive`, which start and end
    with the app.

    Args:
        settings: The settings.
        access_log: Whether a line is written for each request.
    """
    panel = settings.panel_spec
    found = rows.resources(panel, settings.api_page_rows)
    app = FastAPIOffline(
        **openapi.about(panel),
        version=__version__,
        lifespan=_running,
        dependencies=[Depends(problems.check_query)],
    )
    state = app.state
    state.settings, state.panel = settings, panel
    state.champions = Champions(panel)
    state.follower = Follower(
        settings.served_path,
        lambda taken: _made(taken, settings, found, state.champions),
        settings.snapshot_poll_seconds,
        lambda: bring_served(settings),
    )
    state.archive = Archive(settings.served_path, lambda taken: Served(taken, settings))
    state.workers = Workers(settings.api_threads, settings.api_waiting, settings.api_seconds)
    # Questions for the model have threads of their own, so that no look-up waits behind one.
    state.what_if_workers = Workers(
        settings.what_if_threads, settings.what_if_waiting, settings.what_if_seconds
    )
    state.metrics = Metrics(state.follower)
    state.metrics.register(state.champions)
    problems.install(app)
    app.include_router(rows.build(found))
    app.include_router(snapshot.router)
    app.include_router(what_if.build(panel))
    app.include_router(invocations.build(panel))
    app.include_router(inference.build(panel))
    app.include_router(health.router)
    openapi.install(app)
    _add_middlewares(app, settings, access_log)
    return app


def app_of_environment() -> FastAPI:
    """The REST API of the home that the environment names; for servers that start several processes."""
    return create_app(load_settings())


def quiet_app_of_environment() -> FastAPI:
    """The same without a line for each request."""
    return create_app(load_settings(), access_log=False)


def _add_middlewares(app: FastAPI, settings: Settings, access_log: bool) -> None:
    """Each goes around those added before it."""
    paths = {f"/v1/{name}": name for name in READY}
    app.add_middleware(LeanLookups, follower=app.state.follower, panel=app.state.panel, paths=paths)
    access.install(app, settings)
    app.add_middleware(Limits, address_bytes=settings.api_address_bytes, body_bytes=settings.api_body_bytes)
    audit.install(app, settings)
    for collector in (app.state.access, app.state.audit):
        app.state.metrics.register(collector)
    log = log_as_json if settings.log_format == "json" else log_as_text
    app.add_middleware(Observing, metrics=app.state.metrics, log=log, only_errors=not access_log)


def _made(taken: Snapshot, settings: Settings, resources: list[Resource], champions: Champions) -> Served:
    """What is made of the current snapshot, once its files are found whole: rows of series are made ready."""
    taken.check_digests()
    served = Served(taken, settings)
    try:
        for resource in resources:
            if resource.name in READY and served.view.has(resource.name):
                served.lookups[resource.name] = _lookups(served, resource)
        served.champion = champions.take(taken)
    except BaseException:
        served.close()
        raise
    return served


def _lookups(served: Served, resource: Resource) -> Lookups:
    question = resource.ask(served.view, parameters("Nothing")())
    try:
        table = served.view.arrow(f"{question.sql} ORDER BY {', '.join(question.order)}", question.values)
    except duckdb.Error as error:
        raise unusable(served.view.snapshot, error) from None
    return Lookups(table, served.view.panel.keys, served.origin)


@asynccontextmanager
async def _running(app: FastAPI) -> AsyncIterator[None]:
    """Follow CURRENT as long as the app runs, and close older snapshots that nobody asks for any more."""
    state = app.state
    await asyncio.to_thread(state.follower.start)
    tidying = asyncio.create_task(_tidy(state.archive))
    try:
        yield
    finally:
        tidying.cancel()
        with suppress(asyncio.CancelledError):
            await tidying
        await asyncio.to_thread(state.workers.close)
        await asyncio.to_thread(state.what_if_workers.close)
        state.follower.close()
        state.archive.close()
        state.metrics.close()


async def _tidy(archive: Archive) -> None:
    while True:
        await asyncio.sleep(TIDY_SECONDS)
        await asyncio.to_thread(archive.tidy)
