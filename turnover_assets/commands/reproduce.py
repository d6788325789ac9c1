"""`turnover reproduce`: a model version again, from the kept files alone.

What belongs here: the command and its account. What does not: the work (storage/reproduce.py).
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from turnover_assets.commands.console import err, plain_errors

if TYPE_CHECKING:
    from turnover_assets.storage.reproduce import Reproduction


def reproduce(
    version: Annotated[
        int | None, typer.Argument(min=1, help="Model version; default: the champion.", show_default=False)
    ] = None,
) -> None:
    """Make a model version again from the kept files, and compare data, scores, model and forecasts.

    Nothing in the home is changed. Ends with 1 where something differs.
    """
    from turnover_assets.settings import load_settings
    from turnover_assets.storage import reproduce as work
    from turnover_assets.storage.registry import ModelRegistry

    with plain_errors():
        settings = load_settings()
        registry = ModelRegistry.of(settings)
        done = work.reproduce(
            registry,
            version or registry.champion_version(),
            settings,
            lambda text: err.print(f"… {escape(text)}", soft_wrap=True),
        )
        for line in _account(done):
            typer.echo(line)
        if not done.same:
            raise typer.Exit(1)


def _account(done: "Reproduction") -> Iterator[str]:
    """What was compared, line by line."""
    yield f"Model version {done.version}, made again from the kept files:"
    for found in done.comparisons:
        yield f"  {'same' if found.same else 'differs':<8} {found.what}: {found.figures}"
    yield from (f"Note: {note}" for note in (*done.surroundings, *done.notes))
    if done.same:
        yield "Everything is the same."
    elif done.surroundings:
        yield f"Not everything is the same; the likely reason is: {'; '.join(done.surroundings)}."
    else:
        yield "Not everything is the same; the first line that differs is where to look."
