"""`turnover dashboard`: the web page for managers.

What belongs here: the command. What does not: the page (serving/dashboard).
"""

import signal
from types import FrameType
from typing import Annotated

import typer
from rich.markup import escape

from turnover_assets.commands.console import err, plain_errors


def dashboard(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; default: TURNOVER_DASHBOARD_HOST.")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Port, 0 for a free one; default: TURNOVER_DASHBOARD_PORT."),
    ] = None,
) -> None:
    """Serve the web page on which managers read forecasts, accuracy and reasons, and decide on adjustments.

    It follows what is published without restart. With no key configured it listens on this machine only.
    """
    from turnover_assets.serving.access import check_exposure
    from turnover_assets.serving.dashboard.server import serve
    from turnover_assets.serving.server import address_of, listening_socket
    from turnover_assets.settings import load_settings

    with plain_errors():
        settings = load_settings()
        where = host or settings.dashboard_host
        note = check_exposure(settings, where)
        chosen = settings.dashboard_port if port is None else port
        with listening_socket(where, chosen, what="web page", settings="TURNOVER_DASHBOARD") as listening:
            if note:
                err.print(f"[yellow]…[/] {escape(note)}", soft_wrap=True, level="WARNING")
            err.print(f"The web page is at {escape(address_of(listening))} (Ctrl-C ends it)")
            signal.signal(signal.SIGTERM, _stop)  # as uvicorn repeats the signal once it has ended
            try:
                serve(settings, listening)
            except KeyboardInterrupt:
                err.print("Ended.")


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
