"""`turnover serve`: the REST API.

What belongs here: the command. What does not: the server (serving/server.py).
"""

import signal
from types import FrameType
from typing import Annotated

import typer
from rich.markup import escape

from turnover_assets.commands.console import err, plain_errors


def serve(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; default: TURNOVER_API_HOST.")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Port, 0 for a free one; default: TURNOVER_API_PORT."),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, max=64, help="Processes that answer; more than one for many clients.")
    ] = 1,
    access_log: Annotated[bool, typer.Option(help="Write a line for each request.")] = True,
) -> None:
    """Serve the published forecasts as a REST API; its documentation is at /docs.

    It follows what is published without restart, and ends on Ctrl-C or SIGTERM once it has answered what was
    asked.
    """
    from turnover_assets.serving.access import check_exposure
    from turnover_assets.serving.server import address_of, listening_socket
    from turnover_assets.serving.server import serve as run
    from turnover_assets.settings import load_settings

    with plain_errors():
        settings = load_settings()
        where = host or settings.api_host
        note = check_exposure(settings, where)
        with listening_socket(where, settings.api_port if port is None else port) as listening:
            if note:
                err.print(f"[yellow]…[/] {escape(note)}", soft_wrap=True, level="WARNING")
            err.print(f"Forecasts at {address_of(listening)}, documentation at /docs (Ctrl-C ends it)")
            signal.signal(signal.SIGTERM, _stop)  # as uvicorn repeats the signal once it has ended
            try:
                run(settings, listening, access_log=access_log, workers=workers)
            except KeyboardInterrupt:
                err.print("Ended.")


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
