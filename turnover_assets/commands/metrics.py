"""`turnover metrics`: numbers for operators, as Prometheus reads them.

What belongs here: the command. What does not: the metrics (core/operator_metrics.py) and how they are read
(observability/).
"""

import signal
from types import FrameType
from typing import Annotated

import typer
from rich.markup import escape

from turnover_assets.commands.console import err, plain_errors


def metrics(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 9464,
    host: Annotated[str, typer.Option(help="Address to listen on; there is no login.")] = "127.0.0.1",
    once: Annotated[
        bool, typer.Option("--once", help="Print the metrics once, for a textfile collector.")
    ] = False,
) -> None:
    """Serve metrics of this home for Prometheus, at /metrics; /healthz says that it answers.

    It reads what is published and Dagster's records, never the warehouse, so it may run beside everything.
    """
    from turnover_assets.observability.collector import HomeCollector
    from turnover_assets.observability.endpoint import server, text_of
    from turnover_assets.settings import load_settings

    with plain_errors():
        collector = HomeCollector(load_settings(), in_background=not once, tell=_tell)
        if once:
            typer.echo(text_of(collector), nl=False)
            return
        listening = server(collector, host, port)
        err.print(f"Metrics at http://{escape(host)}:{port}/metrics (Ctrl-C ends it)")
        signal.signal(signal.SIGTERM, _stop)
        with listening:
            try:
                listening.serve_forever()
            except KeyboardInterrupt:
                err.print("Ended.")


def _tell(part: str, error: Exception) -> None:
    """A part that cannot be read, once until it can be read again."""
    problem = escape(f"{type(error).__name__}: {error}")
    err.print(f"[yellow]…[/] {part} cannot be read: {problem}", soft_wrap=True, level="WARNING")


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
