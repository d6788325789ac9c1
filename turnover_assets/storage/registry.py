"""The model registry: MLflow through its own client, on a local SQLite store.

What belongs here: experiments, runs, model versions and aliases; storing and reading a model's files.
What does not: fitting and choosing models. MLflow is imported late, since that takes seconds.

A model version's files are `model.json` (what it is: candidate, features, interval quantiles, versions)
beside the files that the candidate itself writes, and origin/ (what it was made from); none is a pickle.
Their SHA-256 stands in the version's tags and is checked before anything is loaded.
"""

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pandas as pd

from turnover_assets.core.intervals import Intervals
from turnover_assets.core.models import Candidate, candidate_class
from turnover_assets.errors import TurnoverError, UnknownNameError
from turnover_assets.storage.origin import Origin

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHAMPION = "champion"
MODEL_FOLDER = "model"
ORIGIN_FOLDER = "origin"


@dataclass(frozen=True)
class TrainedModel:
    """A fitted candidate with all that is needed to forecast and to say where it comes from.

    Attributes:
        candidate: The fitted model.
        intervals: Its residual quantiles.
        features: Names of the features it expects, in order.
        versions: `data_version`, `code_version`, `panel`, `cutoff` and the like, as text.
        origin: What it was made from; None where that is not known.
    """

    candidate: Candidate
    intervals: Intervals
    features: tuple[str, ...]
    versions: Mapping[str, str]
    origin: Origin | None = None

    def save(self, folder: Path) -> None:
        """Write everything into an existing folder."""
        facts = {
            "candidate": self.candidate.name,
            "features": list(self.features),
            "quantiles": json.loads(self.intervals.quantiles.to_json(orient="split", double_precision=15)),
            "versions": dict(self.versions),
        }
        (folder / "model.json").write_text(json.dumps(facts, indent=2), "utf-8")
        self.candidate.save(folder)
        if self.origin:
            self.origin.save(folder / ORIGIN_FOLDER)

    @classmethod
    def load(cls, folder: Path) -> "TrainedModel":
        """Read what save wrote, or an earlier release."""
        facts = json.loads((folder / "model.json").read_text("utf-8"))
        quantiles = pd.DataFrame(**facts["quantiles"]).rename_axis("horizon")
        candidate = candidate_class(facts["candidate"]).load(folder)
        origin = folder / ORIGIN_FOLDER
        return cls(
            candidate,
            Intervals(quantiles),
            tuple(facts["features"]),
            facts["versions"],
            Origin.load(origin) if origin.is_dir() else None,
        )


@dataclass(frozen=True)
class TrainingRecord:
    """What is logged with a model beside its files.

    Attributes:
        metrics: Figures by name.
        parameters: Hyper-parameters and settings by name.
        tags: Where it comes from, for example the Dagster run id.
        tables: Tables to keep as CSV artifacts, by file name without ending.
        pictures: PNG artifacts, by file name without ending.
    """

    metrics: Mapping[str, float]
    parameters: Mapping[str, Any]
    tags: Mapping[str, str]
    tables: Mapping[str, pd.DataFrame]
    pictures: Mapping[str, bytes]


@dataclass(frozen=True)
class ModelRegistry:
    """The registry of one panel's models inside a data home.

    Attributes:
        folder: MLflow's folder: mlflow.db and artifacts/.
        name: Name of the experiment and of the registered model.
    """

    folder: Path
    name: str

    @property
    def uri(self) -> str:
        """Tracking and registry address."""
        return f"sqlite:///{self.folder / 'mlflow.db'}"

    def register(self, model: TrainedModel, record: TrainingRecord) -> int:
        """Log a model as a run, register it as a new version, and return the version's number."""
        client = self._client()
        run = client.create_run(
            self._experiment(client), tags=dict(record.tags), run_name=model.candidate.name
        )
        run_id = run.info.run_id
        try:
            self._log(client, run_id, model, record)
            digest = self._log_model(client, run_id, model)
            version = client.create_model_version(
                self.name,
                f"runs:/{run_id}/{MODEL_FOLDER}",
                run_id,
                tags={**record.tags, "candidate": model.candidate.name, "sha256": digest},
            )
        except BaseException:
            client.set_terminated(run_id, "FAILED")
            raise
        client.set_terminated(run_id)
        return int(version.version)

    def promote(self, version: int) -> None:
        """Give a version the alias `champion`."""
        self._client().set_registered_model_alias(self.name, CHAMPION, str(version))

    def champion_version(self) -> int:
        """Number of the champion.

        Raises:
            TurnoverError: There is no champion yet.
        """
        from mlflow.exceptions import MlflowException

        try:
            client = self._client(must_exist=True)
            return int(client.get_model_version_by_alias(self.name, CHAMPION).version)
        except MlflowException:
            raise TurnoverError(
                f"There is no champion among the models of {self.name!r} yet. Run `turnover run`."
            ) from None

    def load(self, version: int) -> TrainedModel:
        """A registered model; see files."""
        return TrainedModel.load(self.files(version))

    def files(self, version: int) -> Path:
        """The folder of a registered model, its files checked against the digest in its tags.

        Raises:
            UnknownNameError: There is no such version; the message lists those there are.
            TurnoverError: The files are missing or not those that were registered.
        """
        found = self._version(version)
        folder = self.folder / "artifacts" / str(found.run_id) / "artifacts" / MODEL_FOLDER
        if not folder.is_dir() or _digest(folder) != found.tags.get("sha256"):
            raise TurnoverError(
                f"The files of model version {version} in {folder} are missing or were changed since they "
                "were registered. Train again with `turnover run`, or restore them from a backup."
            )
        return folder

    def _version(self, version: int) -> "ModelVersion":
        there = [v for v in self._client(must_exist=True).search_model_versions() if v.name == self.name]
        for found in there:
            if int(found.version) == version:
                return found
        raise UnknownNameError("model version", str(version), [str(found.version) for found in there])

    def _client(self, *, must_exist: bool = False) -> "MlflowClient":
        if must_exist and not (self.folder / "mlflow.db").is_file():
            raise TurnoverError(f"There are no models in {self.folder} yet. Run `turnover run`.")
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.WARNING)  # it reports each of its migrations
        self.folder.mkdir(parents=True, exist_ok=True)
        return MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    def _experiment(self, client: "MlflowClient") -> str:
        """Id of the experiment; it and the registered model are made at first use.

        An experiment keeps the place of its artifacts for ever, so a home that was moved begins a new one.
        """
        artifacts = (self.folder / "artifacts").as_uri()
        found = client.get_experiment_by_name(self.name)
        if found is not None and found.artifact_location == artifacts:
            return str(found.experiment_id)
        if found is None:
            client.create_registered_model(self.name)
        else:
            client.rename_experiment(
                found.experiment_id, f"{self.name} until the move of {datetime.now(UTC):%Y-%m-%dT%H:%M:%S}"
            )
        return str(client.create_experiment(self.name, artifact_location=artifacts))

    def _log(self, client: "MlflowClient", run_id: str, model: TrainedModel, record: TrainingRecord) -> None:
        for name, value in record.metrics.items():
            client.log_metric(run_id, name, value)
        for name, value in {**record.parameters, **model.versions}.items():
            client.log_param(run_id, name, value)
        client.log_text(run_id, "\n".join(model.features), "features.txt")
        for name, table in record.tables.items():
            client.log_text(run_id, table.to_csv(index=False), f"{name}.csv")
        with TemporaryDirectory() as temporary:
            for name, picture in record.pictures.items():
                path = Path(temporary) / f"{name}.png"
                path.write_bytes(picture)
                client.log_artifact(run_id, str(path))

    def _log_model(self, client: "MlflowClient", run_id: str, model: TrainedModel) -> str:
        with TemporaryDirectory() as temporary:
            folder = Path(temporary)
            model.save(folder)
            client.log_artifacts(run_id, temporary, MODEL_FOLDER)
            return _digest(folder)


def _digest(folder: Path) -> str:
    """SHA-256 over names and contents of a folder's files."""
    found = sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        found.update(path.relative_to(folder).as_posix().encode() + b"\0")
        found.update(sha256(path.read_bytes()).digest())
    return found.hexdigest()
