"""The server of the web page.

What belongs here: how uvicorn is set up. What does not: listening (serving/server.py), and what is answered
(app.py).
"""

import socket

import uvicorn

from turnover_assets.serving.access import SERVER_OPTIONS
from turnover_assets.serving.dashboard.app import create_app
from turnover_assets.serving.protocol import PatientConfig
from turnover_assets.settings import Settings

KEEP_ALIVE_SECONDS = 30
ENDING_SECONDS = 10


def serve(settings: Settings, listening: socket.socket) -> None:
    """Answer requests until told to end by SIGTERM or SIGINT; what was asked by then is answered."""
    config = PatientConfig(
        create_app(settings),
        settings.api_client_seconds,
        ws="none",
        lifespan="on",
        log_config=None,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=ENDING_SECONDS,
        **SERVER_OPTIONS,
    )
    uvicorn.Server(config).run(sockets=[listening])
