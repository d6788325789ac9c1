"""The server of the REST API: starting it, and ending it without leaving anybody without an answer.

What belongs here: how uvicorn is set up. What does not: what is answered (app.py).
"""

import os
import socket
from tempfile import TemporaryDirectory
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.supervisors import Multiprocess

from turnover_assets.errors import TurnoverError
from turnover_assets.serving.access import SERVER_OPTIONS
from turnover_assets.serving.app import create_app
from turnover_assets.serving.protocol import PatientConfig
from turnover_assets.settings import Settings

BACKLOG = 2048
KEEP_ALIVE_SECONDS = 30
SHARED_METRICS = "PROMETHEUS_MULTIPROC_DIR"  # the Prometheus client's own; a folder that processes share
FACTORIES = {
    True: "turnover_assets.serving.app:app_of_environment",
    False: "turnover_assets.serving.app:quiet_app_of_environment",
}  # by whether requests are logged


def listening_socket(
    host: str, port: int, *, what: str = "API", settings: str = "TURNOVER_API"
) -> socket.socket:
    """A socket that listens.

    Args:
        host: Where.
        port: 0 for any that is free.
        what: What is to be served, for the error.
        settings: How the settings of place and port begin.

    Raises:
        TurnoverError: It cannot listen there.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
        found.listen(BACKLOG)
    except OSError as error:
        found.close()
        raise TurnoverError(
            f"The {what} cannot be served at {host} port {port} ({error.strerror or error}). Choose others "
            f"with --host and --port, or {settings}_HOST and {settings}_PORT."
        ) from None
    return found


def address_of(listening: socket.socket) -> str:
    """The address of the service, for people."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def serve(settings: Settings, listening: socket.socket, *, access_log: bool = True, workers: int = 1) -> None:
    """Answer requests until told to end by SIGTERM or SIGINT; what was asked by then is answered.

    Args:
        settings: The settings; with several processes they must be those of the environment.
        listening: Where requests come in.
        access_log: Whether a line is written for each request.
        workers: Processes that answer; beyond one each reads the settings anew.
    """
    if workers == 1:
        config = server_config(create_app(settings, access_log=access_log), settings)
        uvicorn.Server(config).run(sockets=[listening])
        return
    config = server_config(FACTORIES[access_log], settings, factory=True, workers=workers)
    with TemporaryDirectory(prefix="turnover-metrics-") as folder:
        os.environ[SHARED_METRICS] = folder
        Multiprocess(config, [listening]).run()


def server_config(app: FastAPI | str, settings: Settings, **options: Any) -> PatientConfig:
    """How uvicorn is set up for an app, or for what makes one."""
    return PatientConfig(
        app,
        settings.api_client_seconds,
        ws="none",
        lifespan="on",
        log_config=None,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=settings.api_shutdown_seconds,
        **SERVER_OPTIONS,
        **options,
    )
