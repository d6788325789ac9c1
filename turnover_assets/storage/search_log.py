"""A search for parameters in MLflow: a run for the search, and one within it for each trial.

What belongs here: how a search is logged. What does not: the search (core/tuning.py), models (registry.py).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pandas as pd

from turnover_assets.storage import _mlflow
from turnover_assets.storage.run_files import RunFiles, artifacts_address

if TYPE_CHECKING:
    from mlflow import MlflowClient

PARENT_TAG = "mlflow.parentRunId"


def experiment_name(panel: str) -> str:
    """Name of the experiment of a panel's searches."""
    return f"{panel} tuning"


@dataclass(frozen=True)
class SearchLog:
    """The MLflow run of a search that is under way.

    Attributes:
        client: MLflow's client.
        experiment: Id of the experiment.
        files: The files of its run.
    """

    client: "MlflowClient"
    experiment: str
    files: RunFiles

    @property
    def run_id(self) -> str:
        """Id of the run."""
        return self.files.run_id

    def trial(
        self,
        name: str,
        parameters: Mapping[str, Any],
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
    ) -> None:
        """Log a trial as a run within that of the search."""
        tags = {PARENT_TAG: self.run_id, **tags}
        run = self.client.create_run(self.experiment, tags=tags, run_name=name)
        _mlflow.log_figures(self.client, run.info.run_id, metrics, parameters)
        self.client.set_terminated(run.info.run_id)

    def outcome(
        self,
        metrics: Mapping[str, float],
        parameters: Mapping[str, Any],
        tags: Mapping[str, str],
        trials: pd.DataFrame,
        picture: bytes,
    ) -> None:
        """Log what came of the search: figures, parameters, tags, trials.csv and search.png."""
        _mlflow.log_figures(self.client, self.run_id, metrics, parameters)
        for name, value in tags.items():
            self.client.set_tag(self.run_id, name, value)
        with TemporaryDirectory() as folder:
            trials.to_csv(Path(folder) / "trials.csv", index=False)
            (Path(folder) / "search.png").write_bytes(picture)
            self.files.add(Path(folder))


@contextmanager
def search_log(
    folder: Path,
    panel: str,
    name: str,
    tags: Mapping[str, str],
    artifacts_url: str | None = None,
    database: str = "",
) -> Iterator[SearchLog]:
    """The log of a search; its run is marked as failed where the search ends by an error.

    Args:
        folder: MLflow's folder: mlflow.db and artifacts/.
        panel: Name of the panel.
        name: Name of the run.
        tags: Tags of the run.
        artifacts_url: Object store of its files; None for the folder.
        database: Address of the Postgres database in place of mlflow.db; empty where there is none.
    """
    client = _mlflow.connect(folder, database)
    artifacts = artifacts_address(folder, artifacts_url)
    experiment = _mlflow.experiment_id(client, experiment_name(panel), artifacts, with_model=False)
    run = client.create_run(experiment, tags=dict(tags), run_name=name)
    try:
        yield SearchLog(client, experiment, RunFiles.of(client, folder, str(run.info.run_id)))
    except BaseException:
        client.set_terminated(run.info.run_id, "FAILED")
        raise
    client.set_terminated(run.info.run_id)
