"""MLflow's client on the store of a data home: few calls, whole pages, no noise.

The store is an SQLite file in the home, or a Postgres database; models' files are in the home either way.

What belongs here: connecting, experiments, logging in batches, searching page by page. What does not: what
is logged, and what aliases and tags mean (registry.py). MLflow is imported late, since that takes a second.
"""

import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from turnover_assets.errors import TurnoverError, UnknownNameError
from turnover_assets.storage.models_database import check_reachable

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel
    from mlflow.store.entities import PagedList

PAGE = 500  # entities asked for at a time
METRICS_A_CALL, PARAMETERS_A_CALL = 1000, 100  # MLflow refuses more
MOVED = " until the move of "  # in the name of an experiment that a home had before it was moved
NOT_IN_A_NAME = re.compile(r"[^\w./ -]")

T = TypeVar("T")


def connect(folder: Path, database: str = "", *, must_exist: bool = False) -> "MlflowClient":
    """A client of the store in a folder, or in a database.

    Args:
        folder: Where mlflow.db is, or will be.
        database: Address of the Postgres database that is used instead; empty where none is.
        must_exist: Whether to refuse to make mlflow.db; a database's tables are made in any case.

    Raises:
        TurnoverError: There is none yet, or the database cannot be reached.
    """
    if must_exist:
        check_there(folder, database)
    if database:
        check_reachable(database)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow import MlflowClient

    logging.getLogger("mlflow").setLevel(logging.WARNING)  # it reports each of its migrations
    folder.mkdir(parents=True, exist_ok=True)
    uri = database or f"sqlite:///{folder / 'mlflow.db'}"
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def check_there(folder: Path, database: str) -> None:
    """Make sure that there is a store; a database has one as soon as it is used.

    Raises:
        TurnoverError: There is none yet.
    """
    if not database and not (folder / "mlflow.db").is_file():
        raise TurnoverError(f"There are no models in {folder} yet. Run `turnover run`.")


def pages(search: "Callable[[str | None], PagedList[T]]") -> Iterator[T]:
    """Everything that a search finds.

    Args:
        search: Gives the page of a token; the first one for None.
    """
    token = None
    while True:
        page = search(token)
        yield from page
        if not (token := page.token):
            return


def experiment_id(client: "MlflowClient", name: str, artifacts: str, *, with_model: bool = True) -> str:
    """Id of the experiment; it and, where wanted, the registered model of its name are made at first use.

    An experiment keeps the place of its artifacts for ever, so a home that was moved, or that keeps them
    elsewhere from now on, begins a new one. One that was deleted in MLflow's page is taken back.

    Args:
        client: MLflow's client.
        name: Name of the experiment.
        artifacts: Address of the place that runs keep their files below; see run_files.artifacts_address.
        with_model: Whether to make the registered model.
    """
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is not None and found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    if with_model:
        with suppress(MlflowException):  # it is there; a run that was killed may have made it alone
            client.create_registered_model(name)
    if found is not None and found.artifact_location == artifacts:
        return str(found.experiment_id)
    if found is not None:
        moved = f"{name}{MOVED}{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}"
        client.rename_experiment(found.experiment_id, moved)
    return str(client.create_experiment(name, artifact_location=artifacts))


def log_figures(
    client: "MlflowClient",
    run_id: str,
    metrics: Mapping[str, float],
    parameters: Mapping[str, Any] | None = None,
) -> None:
    """Log metrics and parameters in as few calls as MLflow allows.

    Characters that MLflow does not allow in a name become underscores.
    """
    from mlflow.entities import Metric, Param

    now = int(time.time() * 1000)
    figures = [Metric(_name(name), float(value), now, 0) for name, value in metrics.items()]
    params = [Param(_name(name), str(value)) for name, value in (parameters or {}).items()]
    while figures or params:
        client.log_batch(run_id, figures[: METRICS_A_CALL - PARAMETERS_A_CALL], params[:PARAMETERS_A_CALL])
        figures, params = figures[METRICS_A_CALL - PARAMETERS_A_CALL :], params[PARAMETERS_A_CALL:]


def _name(name: str) -> str:
    return NOT_IN_A_NAME.sub("_", name)


def registered_model(client: "MlflowClient", name: str) -> "RegisteredModel":
    """A registered model with its tags and aliases.

    Raises:
        TurnoverError: There is none of that name.
    """
    from mlflow.exceptions import MlflowException

    try:
        return client.get_registered_model(name)
    except MlflowException:
        raise TurnoverError(f"There are no models of {name!r} yet. Run `turnover run`.") from None


def model_version(client: "MlflowClient", name: str, version: int) -> "ModelVersion":
    """A version of a registered model.

    Raises:
        UnknownNameError: There is no such version; the message lists those there are.
    """
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version(name, str(version))
    except MlflowException:
        there = [str(found.version) for found in model_versions(client, name)]
        raise UnknownNameError("model version", str(version), there) from None


def model_versions(client: "MlflowClient", name: str | None) -> "list[ModelVersion]":
    """Every version of a registered model, or of all, by number; aliases are not filled in."""
    quote = '"' if name and "'" in name else "'"
    wanted = f"name={quote}{name}{quote}" if name else None
    found = pages(lambda token: client.search_model_versions(wanted, PAGE, None, token))
    return sorted(found, key=lambda version: int(version.version))


def runs(client: "MlflowClient", run_ids: Sequence[str]) -> "dict[str, Run]":
    """Runs by id, with metrics and parameters; those that no longer exist are left out."""
    from mlflow.entities import ViewType

    everywhere = [e.experiment_id for e in experiments(client)]
    found: dict[str, Run] = {}
    for start in range(0, len(run_ids), PAGE):
        listed = ", ".join(f"'{run_id}'" for run_id in run_ids[start : start + PAGE])
        wanted = f"attributes.run_id IN ({listed})"
        some = client.search_runs(everywhere, wanted, ViewType.ALL, PAGE)  # as many as are asked for at most
        found |= {run.info.run_id: run for run in some}
    return found


def experiments(client: "MlflowClient") -> "Iterator[Any]":
    """Every experiment, also deleted ones."""
    from mlflow.entities import ViewType

    return pages(lambda token: client.search_experiments(ViewType.ALL, PAGE, page_token=token))
