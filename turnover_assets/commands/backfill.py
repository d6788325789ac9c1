"""`turnover backfill`: what would have been forecast at past cutoffs, published beside the rest.

What belongs here: the command. What does not: the work (maintenance.py, core/as_of.py).
"""

from datetime import datetime
from typing import Annotated

import typer
from rich.markup import escape

from turnover_assets.commands.console import err, plain_errors

DATE = "%Y-%m-%d"
Day = Annotated[datetime | None, typer.Option(formats=[DATE], help="The first, or last, cutoff of a range.")]


def backfill(
    cutoff: Annotated[
        list[datetime] | None, typer.Option(formats=[DATE], help="A past cutoff; may be repeated.")
    ] = None,
    since: Day = None,
    until: Day = None,
) -> None:
    """Forecast past cutoffs again, with what could be known then, and publish that as forecasts_as_of.

    The same as materialising partitions of the asset forecasts/as_of in Dagster's page. What was published at
    those cutoffs stays as it was, in forecast_history.
    """
    from turnover_assets.maintenance import Cutoffs
    from turnover_assets.maintenance import backfill as fill
    from turnover_assets.reporting import LiveProgress
    from turnover_assets.settings import load_settings

    with plain_errors():
        chosen = Cutoffs(
            tuple(day.date() for day in cutoff or ()),
            since.date() if since else None,
            until.date() if until else None,
        )
        with LiveProgress(err) as progress:
            done = fill(load_settings(), chosen, progress)
        listed = done[0] if len(done) == 1 else f"{len(done)} cutoffs, {done[0]} to {done[-1]}"
        err.print(
            f"Forecast as of {escape(listed)}. Read it: turnover export forecasts_as_of", soft_wrap=True
        )
