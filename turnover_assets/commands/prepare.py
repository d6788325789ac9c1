"""`turnover prepare`: make a data home before anything else uses it.

What belongs here: the command. What does not: the work (storage/home.py).
"""

from rich.markup import escape

from turnover_assets.commands.console import err, plain_errors


def prepare() -> None:
    """Make the home's folders and give Dagster its configuration; what is there stays.

    Every command does this for itself. Where Dagster's parts are started one by one, as in containers, this
    goes first: it stops what cannot work, such as wrong settings, before anything else starts.
    """
    from turnover_assets import maintenance
    from turnover_assets.reporting import LiveProgress
    from turnover_assets.settings import load_settings
    from turnover_assets.storage.home_panel import check_panel

    with plain_errors():
        settings = load_settings()
        with LiveProgress(err) as progress:
            maintenance.prepare(settings, progress)
        check_panel(settings)
        err.print(f"{escape(str(settings.home.absolute()))} is ready.", soft_wrap=True)
