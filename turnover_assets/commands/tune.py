"""`turnover tune`: a search for the hyper-parameters of a candidate.

What belongs here: the command and its account. What does not: the work (maintenance.py, core/tuning.py).
"""

import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer
from rich.markup import escape

from turnover_assets.commands.console import err, plain_errors


def tune(
    trials: Annotated[
        int, typer.Option(min=1, help="Trials, the candidate's own parameters among them.")
    ] = 30,
    minutes: Annotated[float, typer.Option(min=0.01, help="No trial begins after so many minutes.")] = 30.0,
    windows: Annotated[int, typer.Option(min=2, help="Windows on which a trial is judged.")] = 4,
    candidate: Annotated[str, typer.Option(help="The candidate whose parameters are searched.")] = "xgboost",
) -> None:
    """Search for hyper-parameters on windows before those that models are compared on.

    What is found replaces the candidate's own parameters in the next training if it is better by a margin;
    the gate then decides as always. Needs optuna, which comes with the extra `tuning` of the package.
    """
    from turnover_assets.maintenance import search_parameters
    from turnover_assets.settings import load_settings

    with plain_errors():
        config = {"candidate": candidate, "trials": trials, "minutes": minutes, "windows": windows}
        found = search_parameters(load_settings(), config, _tell)
        for line in _account(found):
            typer.echo(line)


def _tell(news: str, text: str) -> None:
    """News of the search, a line each."""
    if news in ("note", "wait"):
        err.print(f"… {escape(text)}", soft_wrap=True)


def _account(found: Mapping[str, Any]) -> Iterator[str]:
    """What was found, line by line."""
    yield str(found["decision"])
    yield f"Windows as of {found['windows']}; they end with {found['until']}."
    own, best = json.loads(found["own_parameters"]), json.loads(found["best_parameters"])
    yield f"{'parameter':<20} {'own':>10} {'best':>10}"
    yield from (f"{name:<20} {own[name]:>10.4g} {value:>10.4g}" for name, value in best.items())
    yield f"MLflow run {found['mlflow_run_id']} of the experiment with the panel's name and «tuning»."
    if found["accepted"]:
        yield "`turnover run --retrain` trains with the best parameters now; the gate decides on the model."
