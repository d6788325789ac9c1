"""`turnover evidently`: Evidently's reports on the newest cutoff.

What belongs here: the command and its account. What does not: the work (maintenance.py, defs/evidently.py).
"""

import typer
from rich.markup import escape

from turnover_assets.commands.console import err, plain_errors


def evidently() -> None:
    """Write Evidently's reports on data drift, target drift and regression performance.

    They are about the newest cutoff, each one HTML file that needs no network. Needs evidently, which comes
    with the extra `evidently` of the package; the monitoring page does without it.
    """
    from turnover_assets.maintenance import make_evidently_reports
    from turnover_assets.settings import load_settings

    with plain_errors():
        made = make_evidently_reports(load_settings(), _tell)
        for name in str(made["reports"]).split(", "):
            typer.echo(f"{made['folder']}/{name}.html")


def _tell(news: str, text: str) -> None:
    """News of the work, a line each."""
    if news in ("note", "wait"):
        err.print(f"… {escape(text)}", soft_wrap=True)
