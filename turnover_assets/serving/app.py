"""The REST API put together: the follower, middlewares, routes.

What belongs here: which parts there are, and their order. What does not: what a part does.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from turnover_assets import __version__
from turnover_assets.serving.follower import Follower
from turnover_assets.serving.served import Served
from turnover_assets.settings import Settings

TITLE = "Turnover forecasts"


def create_app(settings: Settings) -> FastAPI:
    """The REST API of a data home.

    Its state has `settings`, `panel` and `follower`, which starts and ends with the app.
    """
    app = FastAPI(title=TITLE, version=__version__, lifespan=_following)
    app.state.settings, app.state.panel = settings, settings.panel_spec
    app.state.follower = Follower(
        settings.published_path,
        lambda snapshot: Served(snapshot, settings),
        settings.snapshot_poll_seconds,
    )
    return app


@asynccontextmanager
async def _following(app: FastAPI) -> AsyncIterator[None]:
    """Follow CURRENT as long as the app runs."""
    app.state.follower.start()
    yield
    app.state.follower.close()
