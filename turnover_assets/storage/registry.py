"""The model registry: MLflow through its own client, on the store of a data home.

What belongs here: model versions and their files, and what is kept of decisions on them. What does not:
fitting and choosing models; moving aliases (champions.py), facts on all versions (model_versions.py), where
files are (run_files.py), and how MLflow is called (_mlflow.py).

A model version's files are `model.json` (what it is: candidate, features, interval quantiles, versions)
beside the files that the candidate itself writes, and origin/ (what it was made from); none is a pickle.
Their SHA-256 stands in the version's tags and is checked before anything is loaded.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Self

import pandas as pd

from turnover_assets.core.calendar import index_of
from turnover_assets.errors import TurnoverError
from turnover_assets.panel import PanelSpec
from turnover_assets.storage import _mlflow
from turnover_assets.storage.champions import CHALLENGER, CHAMPION, Champions
from turnover_assets.storage.model_versions import (
    ModelVersionDetails,
    ModelVersionFacts,
    details_of,
    list_versions,
)
from turnover_assets.storage.published_model import MODEL_FOLDER, ORIGIN_FOLDER
from turnover_assets.storage.registry_peek import PeekedVersion, RegistryPeek, champion_of
from turnover_assets.storage.run_files import RunFiles, artifacts_address

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

    from turnover_assets.core.gate import Decision
    from turnover_assets.core.intervals import Intervals
    from turnover_assets.core.models import Candidate
    from turnover_assets.settings import Settings
    from turnover_assets.storage.origin import Origin

GATE = "gate"
CHECKS_FILE = "gate_checks.csv"
LONGEST_TAG = 5000  # characters


@dataclass(frozen=True)
class TrainedModel:
    """A fitted candidate with all that is needed to forecast and to say where it comes from.

    Attributes:
        candidate: The fitted model.
        intervals: Its residual quantiles.
        features: Names of the features it expects, in order.
        versions: `data_version`, `code_version`, `panel`, `cutoff` and the like, as text.
        origin: What it was made from; None where that is not known.
        backtest: What its backtest promised: `wape`, `bias`, `wape_seasonal_naive`; empty where not known.
    """

    candidate: "Candidate"
    intervals: "Intervals"
    features: tuple[str, ...]
    versions: Mapping[str, str]
    origin: "Origin | None" = None
    backtest: Mapping[str, float] = field(default_factory=dict)

    def trained_until(self, panel: PanelSpec) -> int:
        """Index of the last period that it has seen."""
        return index_of(panel, date.fromisoformat(self.versions["cutoff"]))

    def save(self, folder: Path) -> None:
        """Write everything into an existing folder."""
        facts = {
            "candidate": self.candidate.name,
            "features": list(self.features),
            "intervals": self.intervals.to_dict(),
            "versions": dict(self.versions),
            "backtest": dict(self.backtest),
        }
        (folder / "model.json").write_text(json.dumps(facts, indent=2), "utf-8")
        self.candidate.save(folder)
        if self.origin:
            self.origin.save(folder / ORIGIN_FOLDER)

    @classmethod
    def load(cls, folder: Path) -> "TrainedModel":
        """Read what save wrote, or an earlier release."""
        from turnover_assets.core.intervals import Intervals
        from turnover_assets.core.models import candidate_class
        from turnover_assets.storage.origin import Origin

        facts = json.loads((folder / "model.json").read_text("utf-8"))
        candidate = candidate_class(facts["candidate"]).load(folder)
        origin = folder / ORIGIN_FOLDER
        return cls(
            candidate,
            Intervals.from_dict(facts.get("intervals", facts)),
            tuple(facts["features"]),
            facts["versions"],
            Origin.load(origin) if origin.is_dir() else None,
            facts.get("backtest", {}),
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
        artifacts_url: Object store of the files of new models; None for the folder.
        database: Address of the Postgres database in place of mlflow.db, a secret; empty where there is none.
    """

    folder: Path
    name: str
    artifacts_url: str | None = None
    database: str = field(default="", repr=False)

    @classmethod
    def of(cls, settings: "Settings") -> Self:
        """The registry of a data home's panel."""
        return cls(
            settings.mlflow_path, settings.panel_spec.name, settings.artifacts_url, settings.mlflow_database
        )

    def register(self, model: TrainedModel, record: TrainingRecord) -> int:
        """Log a model as a run, register it as a new version, and return the version's number."""
        client = _mlflow.connect(self.folder, self.database)
        experiment = _mlflow.experiment_id(
            client, self.name, artifacts_address(self.folder, self.artifacts_url)
        )
        run = client.create_run(experiment, tags=dict(record.tags), run_name=model.candidate.name)
        run_id = str(run.info.run_id)
        try:
            _mlflow.log_figures(client, run_id, record.metrics, {**record.parameters, **model.versions})
            digest = _log_files(RunFiles.of(client, self.folder, run_id), model, record)
            own = {"candidate": model.candidate.name, "sha256": digest}
            version = client.create_model_version(
                self.name,
                f"runs:/{run_id}/{MODEL_FOLDER}",
                run_id,
                tags={**model.versions, **record.tags, **own},
            )
        except BaseException:
            client.set_terminated(run_id, "FAILED")
            raise
        client.set_terminated(run_id)
        return int(version.version)

    def record_decision(self, version: int, decision: "Decision") -> None:
        """Keep a gate's decision on a version, and move the alias that follows from it.

        A version promoted becomes champion; one refused becomes challenger, whose forecasts are made beside
        the champion's. The figures go to the version's run as `gate_<name>`, the checks become its file
        gate_checks.csv, and the tags `decision` and `decision_reason` say what was decided.
        """
        client = self._client()
        found = _mlflow.model_version(client, self.name, version)
        reason = " ".join((*decision.reasons, *decision.warnings))
        _mlflow.log_figures(client, str(found.run_id), {f"gate_{k}": v for k, v in decision.figures.items()})
        with TemporaryDirectory() as temporary:
            decision.checks.to_csv(Path(temporary) / CHECKS_FILE, index=False)
            self._files_of(client, found).add(Path(temporary) / CHECKS_FILE, CHECKS_FILE)
        tags = {"decision": "promoted" if decision.promoted else "refused", "decision_reason": reason}
        for name, value in tags.items():
            client.set_model_version_tag(self.name, str(version), name, value[:LONGEST_TAG])
            client.set_tag(str(found.run_id), name, value[:LONGEST_TAG])
        if decision.promoted:
            Champions(client, self.name).promote(version, GATE, reason)
        else:
            Champions(client, self.name).challenge(version)

    def promote(self, version: int, *, by: str = GATE, reason: str = "") -> None:
        """Make a version the champion; see Champions.

        Args:
            version: Its number.
            by: `gate`, or who decides.
            reason: Why.

        Raises:
            UnknownNameError: There is no such version; the message lists those there are.
        """
        self._champions().promote(version, by, reason)

    def rollback(self, *, by: str, reason: str) -> int:
        """Go back to the champion before the present one, and return its number; see Champions.

        Raises:
            TurnoverError: There is none.
        """
        return self._champions().rollback(by, reason)

    def rollback_target(self) -> int:
        """The version that rollback would go back to.

        Raises:
            TurnoverError: There is none.
        """
        return self._champions().rollback_target()

    def champion_version(self) -> int:
        """Number of the champion.

        Raises:
            TurnoverError: There is no champion yet.
        """
        if version := self.find_champion():
            return version
        raise TurnoverError(
            f"There is no champion among the models of {self.name!r} yet. Run `turnover run`."
        )

    def check_present(self) -> None:
        """Make sure that there are models at all.

        Raises:
            TurnoverError: There are none.
        """
        _mlflow.registered_model(self._client(), self.name)

    def find_champion(self) -> int | None:
        """Number of the champion, None where there is none."""
        return self._peek().aliased(CHAMPION)

    def challenger_version(self) -> int | None:
        """Number of the newest version that the gate refused, unless one was promoted since; else None."""
        return self._peek().aliased(CHALLENGER)

    def versions(self) -> list[ModelVersionFacts]:
        """Facts on every version, oldest first, without reading model files."""
        return list_versions(self._client(), self.name)

    def details(self, version: int) -> ModelVersionDetails:
        """All that is kept of a version.

        Raises:
            UnknownNameError: There is no such version; the message lists those there are.
        """
        client = self._client()
        found = _mlflow.model_version(client, self.name, version)
        return details_of(client, found, self._files_of(client, found).get(CHECKS_FILE))

    def load(self, version: int) -> TrainedModel:
        """A registered model; see files."""
        return TrainedModel.load(self.files(version))

    def files(self, version: int) -> Path:
        """The folder of a registered model, its files checked against the digest in its tags.

        Files in an object store are fetched once.

        Raises:
            UnknownNameError: There is no such version; the message lists those there are.
            TurnoverError: The files are missing or not those that were registered.
            ObjectStoreError: They cannot be fetched.
        """
        found = self._peek().version(version) or _mlflow.model_version(self._client(), self.name, version)
        kept = RunFiles.in_home(self.folder, str(found.run_id)) or self._files_of(self._client(), found)
        digest = found.tags.get("sha256")
        folder = kept.whole(MODEL_FOLDER, lambda folder: _digest(folder) == digest)
        if folder is None:
            raise TurnoverError(
                f"The files of model version {version} in {kept.place} are missing or were changed since "
                "they were registered. Train again with `turnover run`, or restore them from a backup."
            )
        return folder

    def check_usable(self, version: int, panel: PanelSpec) -> None:
        """Make sure that a version can forecast the panel with this release.

        Raises:
            UnknownNameError: There is no such version; the message lists those there are.
            TurnoverError: Its files were changed, or it was trained for other features or another panel.
        """
        if misfit := self._misfit(version, panel):
            raise TurnoverError(
                f"{misfit} Choose another version (`turnover models list`), or go back to the release and "
                "the panel (TURNOVER_PANEL) that it was trained with."
            )

    def _misfit(self, version: int, panel: PanelSpec) -> str:
        problems = "; and ".join(misfits(self._loaded(version), panel))
        return f"Model version {version} cannot make forecasts now: {problems}." if problems else ""

    def why_unusable(self, panel: PanelSpec) -> str:
        """Why no champion can forecast the panel with this release; empty where one can."""
        version = champion_of(self.folder, self.name, self.database)
        return self.why_unfit(version, panel) if version else "There is no champion yet."

    def why_unfit(self, version: int, panel: PanelSpec) -> str:
        """Why a version cannot forecast the panel with this release; empty where it can."""
        try:
            return self._misfit(version, panel)
        except TurnoverError as error:
            return str(error)

    def newest_tags(self) -> Mapping[str, str]:
        """Where the newest version comes from: the tags it was registered with, and `version`.

        Raises:
            TurnoverError: There is none.
        """
        if newest := self._peek().newest():
            return {**newest.tags, "version": str(newest.number)}
        raise TurnoverError(f"There are no models of {self.name!r} yet. Run `turnover run`.")

    def candidate_of(self, version: int) -> str:
        """Name of a version's candidate."""
        return str(_mlflow.model_version(self._client(), self.name, version).tags["candidate"])

    def of_same_recipe(self, version: int) -> list[int]:
        """Numbers of the versions that were made by the same recipe as one, itself included."""
        versions = _mlflow.model_versions(self._client(), self.name)
        recipes = {int(found.version): found.tags.get("recipe", "") for found in versions}
        same = recipes.get(version)
        return [
            number for number, recipe in recipes.items() if number == version or (same and recipe == same)
        ]

    def _loaded(self, version: int) -> TrainedModel:
        """A registered model; what cannot be read although it is unchanged is of another release."""
        try:
            return self.load(version)
        except (KeyError, ValueError, TypeError, OSError) as error:
            raise TurnoverError(
                f"The files of model version {version} are of a release that this one cannot read ({error}). "
                "Choose another version (`turnover models list`), or go back to the release that trained it."
            ) from error

    def _peek(self) -> RegistryPeek:
        _mlflow.check_there(self.folder, self.database)
        return RegistryPeek(self.folder, self.name, self.database)

    def _client(self) -> "MlflowClient":
        return _mlflow.connect(self.folder, self.database, must_exist=True)

    def _champions(self) -> Champions:
        return Champions(self._client(), self.name)

    def _files_of(self, client: "MlflowClient", version: "ModelVersion | PeekedVersion") -> RunFiles:
        """The files of a version's run."""
        return RunFiles.of(client, self.folder, str(version.run_id))


def _log_files(files: RunFiles, model: TrainedModel, record: TrainingRecord) -> str:
    """Keep everything that is a file; returns the digest of the model's own."""
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "features.txt").write_text("\n".join(model.features), "utf-8")
        for name, table in record.tables.items():
            table.to_csv(folder / f"{name}.csv", index=False)
        for name, picture in record.pictures.items():
            (folder / f"{name}.png").write_bytes(picture)
        (folder / MODEL_FOLDER).mkdir()
        model.save(folder / MODEL_FOLDER)
        files.add(folder)
        return _digest(folder / MODEL_FOLDER)


def misfits(model: TrainedModel, panel: PanelSpec) -> Iterator[str]:
    """Why a model cannot forecast a panel with this release."""
    from turnover_assets.core.features import feature_names

    trained_for = model.origin.panel.digest if model.origin else model.versions.get("panel")
    if trained_for != panel.digest:
        yield f"its panel was another one (digest {trained_for}, now {panel.digest})"
    wanted, here = set(model.features), set(feature_names(panel))
    if wanted != here:
        listed = f"gone: {sorted(wanted - here)}, new: {sorted(here - wanted)}"
        yield f"its features are not those of this release and panel ({listed})"


def _digest(folder: Path) -> str:
    """SHA-256 over names and contents of a folder's files."""
    found = sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        found.update(path.relative_to(folder).as_posix().encode() + b"\0")
        found.update(sha256(path.read_bytes()).digest())
    return found.hexdigest()
