"""`turnover upgrade`: an older release's home brought to the layout of this one.

What belongs here: the command and what it says. What does not: the steps (storage/home_layout.py and
storage/migrations.py).
"""

from rich.markup import escape

from turnover_assets.commands.console import err, plain_errors


def upgrade() -> None:
    """Bring the data home to the layout of this release, as the first run would; once more does nothing.

    Back the home up before: an older release refuses a home that was brought up. Waits for a run that is
    under way. A home that is not there yet is made.
    """
    from turnover_assets import __version__
    from turnover_assets.maintenance import bring_up
    from turnover_assets.reporting import LiveProgress
    from turnover_assets.settings import load_settings

    with plain_errors():
        settings = load_settings()
        with LiveProgress(err) as progress:
            before, after = bring_up(settings, progress)
        home, told = escape(str(settings.home.absolute())), f"layout {after.layout} of release {__version__}"
        if before is None:
            err.print(f"{home} is new, with {told}.", soft_wrap=True)
        elif before.layout == after.layout:
            err.print(f"{home} has {told} already.", soft_wrap=True)
        else:
            err.print(f"{home} was brought from layout {before.layout} to {told}.", soft_wrap=True)
