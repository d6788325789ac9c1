"""The server of the web page.

What belongs here: listening, and how uvicorn is set up. What does not: what is answered (app.py).
"""

import socket

import uvicorn

from turnover_assets.errors import TurnoverError
from turnover_assets.serving.access import SERVER_OPTIONS
from turnover_assets.serving.dashboard.app import create_app
from turnover_assets.serving.protocol import PatientConfig
from turnover_assets.settings import Settings

BACKLOG = 512
KEEP_ALIVE_SECONDS = 30
ENDING_SECONDS = 10


def listening_socket(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        TurnoverError: It cannot listen there.
    """
    found = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
        found.listen(BACKLOG)
    except OSError as error:
        found.close()
        raise TurnoverError(
            f"The web page cannot be served at {host} port {port} ({error.strerror or error}). Choose others "
            "with --host and --port, or TURNOVER_DASHBOARD_HOST and TURNOVER_DASHBOARD_PORT."
        ) from None
    return found


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
