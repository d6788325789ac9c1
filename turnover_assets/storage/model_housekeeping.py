"""Housekeeping of models: versions that nothing needs, searches of long ago, and files without a run.

What belongs here: removing them from MLflow for good: version, run, files. What does not: what is needed
(core/housekeeping.py) and files elsewhere (housekeeping.py).

MLflow itself only marks a deleted run; its files and figures stay until they are collected. Here a run is
marked, then its version deleted, then its files, and last its figures. A process killed in between leaves a
marked run, which the next housekeeping finds, as it does those that a person deleted in MLflow's page.
"""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from turnover_assets.core.housekeeping import (
    Policy,
    SearchFacts,
    Sweep,
    by_reason,
    searches_kept,
    versions_kept,
)
from turnover_assets.errors import TurnoverError
from turnover_assets.storage import _mlflow
from turnover_assets.storage.champion_log import succession
from turnover_assets.storage.champions import Champions
from turnover_assets.storage.run_files import ARTIFACTS, FETCHED, RunFiles
from turnover_assets.storage.search_log import PARENT_TAG, experiment_name

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

RUN_FOLDER = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class ModelStore:
    """MLflow's store of a data home, as housekeeping sees it.

    Attributes:
        folder: MLflow's folder: mlflow.db and artifacts/.
        name: Name of the panel.
        database: Address of the Postgres database in place of mlflow.db; empty where there is none.
    """

    folder: Path
    name: str
    database: str = field(default="", repr=False)

    @cached_property
    def client(self) -> "MlflowClient":
        """MLflow's client."""
        return _mlflow.connect(self.folder, self.database, must_exist=True)

    def sweep_versions(self, published: Collection[int], policy: Policy, *, remove: bool) -> Sweep:
        """Delete the model versions that nothing needs.

        Args:
            published: Versions named by kept snapshots, or by the history of published forecasts.
            policy: How much to keep.
            remove: Whether to do it.
        """
        versions = {int(v.version): str(v.run_id) for v in _mlflow.model_versions(self.client, self.name)}
        if not versions:
            return Sweep("model versions")
        registered = _mlflow.registered_model(self.client, self.name)
        aliases = {alias: int(number) for alias, number in registered.aliases.items()}
        line = succession(Champions(self.client, self.name).log(), versions)
        kept = versions_kept(list(versions), aliases, line, published, policy.models)
        old = {number: run for number, run in versions.items() if number not in kept}
        freed = sum(self._size(run) for run in old.values())
        for number, run in old.items() if remove else ():
            self._mark(run)
            self.client.delete_model_version(self.name, str(number))
            self._remove(run)
        return Sweep("model versions", tuple(map(str, sorted(old))), freed, by_reason(kept))

    def sweep_searches(self, policy: Policy, now: datetime, *, remove: bool) -> Sweep:
        """Delete searches for parameters, with their trials, that are old and not in use."""
        runs = [run for run in self._runs(experiment_name(self.name)) if _is_active(run)]
        searches = [run for run in runs if PARENT_TAG not in run.data.tags]
        kept = searches_kept([_search(run) for run in searches], policy, now)
        old = [run for run in runs if run.data.tags.get(PARENT_TAG, run.info.run_id) not in kept]
        freed = sum(self._size(run.info.run_id) for run in old)
        # Trials first: were their search gone before them, a kill would leave them without one.
        for run in sorted(old, key=lambda run: PARENT_TAG not in run.data.tags) if remove else ():
            self._mark(run.info.run_id)
            self._remove(run.info.run_id)
        names = tuple(f"{run.info.run_name} {run.info.run_id[:8]}" for run in old if run in searches)
        note = f"{len(old) - len(names):,} trials" if old else ""
        return Sweep("searches for parameters", names, freed, by_reason(kept), note)

    def sweep_leftovers(self, policy: Policy, now: datetime, *, remove: bool) -> Sweep:
        """Delete runs of no version that were marked as deleted or are old, and files of no run."""
        places = [self.folder / name for name in (ARTIFACTS, FETCHED)]
        folders = {path.name for place in places for path in place.glob("*") if _is_run_folder(path)}
        runs = self._runs()
        known = {str(run.info.run_id) for run in runs}
        used = {str(version.run_id) for version in _mlflow.model_versions(self.client, None)}
        ours = {run.info.run_id for run in self._runs(self.name)}
        oldest = now.timestamp() * 1000 - policy.run_days * 86_400_000
        dead = [
            str(run.info.run_id)
            for run in runs
            if run.info.run_id not in used
            and (
                not _is_active(run)
                or (run.info.run_id in ours and _has_ended(run) and run.info.start_time < oldest)
            )
        ]
        lost = sorted(folders - known)
        freed = sum(self._size(run) for run in (*dead, *lost))
        for run_id in dead if remove else ():
            self._mark(run_id)
            self._remove(run_id)
        for run_id in lost if remove else ():
            self._files(run_id).remove()
        return Sweep("runs without a model", tuple(run[:8] for run in (*dead, *lost)), freed)

    def _runs(self, experiment: str | None = None) -> "list[Run]":
        """Runs of an experiment, or of all; also those marked as deleted, and from before the home moved."""
        from mlflow.entities import ViewType

        def is_meant(name: str) -> bool:
            return experiment is None or name == experiment or name.startswith(experiment + _mlflow.MOVED)

        wanted = [e.experiment_id for e in _mlflow.experiments(self.client) if is_meant(e.name)]
        if not wanted:
            return []
        return list(
            _mlflow.pages(
                lambda token: self.client.search_runs(
                    wanted, "", ViewType.ALL, _mlflow.PAGE, page_token=token
                )
            )
        )

    def _files(self, run_id: str) -> RunFiles:
        return RunFiles.of(self.client, self.folder, run_id)

    def _size(self, run_id: str) -> int:
        return self._files(run_id).size()

    def _mark(self, run_id: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            if _is_active(self.client.get_run(run_id)):
                self.client.delete_run(run_id)
        except MlflowException:  # somebody has deleted it for good meanwhile
            return

    def _remove(self, run_id: str) -> None:
        """Remove a marked run's files and then its figures, as `mlflow gc` does."""
        from mlflow.exceptions import MlflowException

        self._files(run_id).remove()
        try:
            self.client._tracking_client.store._hard_delete_run(run_id)
        except MlflowException:
            return


def sweep_models(
    store: ModelStore, published: Iterable[int], policy: Policy, now: datetime, *, remove: bool
) -> list[Sweep]:
    """Everything that housekeeping does in MLflow's store; nothing where there is none.

    Raises:
        TurnoverError: The log of champions cannot be read, so that nothing can be said of versions.
        OSError: Files cannot be removed.
    """
    if not store.database and not (store.folder / "mlflow.db").is_file():
        return []
    try:
        versions = store.sweep_versions(set(published), policy, remove=remove)
    except TurnoverError as error:
        versions = Sweep("model versions", note=str(error))
    return [
        versions,
        store.sweep_searches(policy, now, remove=remove),
        store.sweep_leftovers(policy, now, remove=remove),
    ]


def _is_active(run: "Run") -> bool:
    return bool(run.info.lifecycle_stage == "active")


def _has_ended(run: "Run") -> bool:
    return run.info.status not in ("RUNNING", "SCHEDULED")


def _is_run_folder(path: Path) -> bool:
    return bool(RUN_FOLDER.fullmatch(path.name)) and path.is_dir()


def _search(run: "Run") -> SearchFacts:
    return SearchFacts(
        str(run.info.run_id),
        run.data.params.get("candidate", str(run.info.run_name)),
        run.data.tags.get("accepted") == "true",
        _has_ended(run),
        datetime.fromtimestamp(run.info.start_time / 1000, UTC),
    )
