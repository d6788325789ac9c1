"""The files of MLflow's runs: in the home, or in an object store and then fetched when they are needed.

What belongs here: where a run keeps its files, adding some, getting at them, removing them. What does not:
what they are (registry.py, search_log.py).

An experiment keeps the place of its files for ever, and so does each run: those of runs from before
TURNOVER_ARTIFACTS_URL was set, or changed, stay where they are. In the home they are found by the run's id,
wherever the home stood when they were written. MLflow's own page shows files in a store too, with a client
of its own (boto3).
"""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from turnover_assets.storage.durable import PARTIAL, make_folder
from turnover_assets.storage.housekeeping import size_of
from turnover_assets.storage.object_store import ObjectStore

if TYPE_CHECKING:
    from mlflow import MlflowClient

ARTIFACTS = "artifacts"
FETCHED = "fetched"  # beside the artifacts: what was fetched, by run; it may be deleted at any time


def artifacts_address(folder: Path, url: str | None) -> str:
    """Where new experiments keep files: the store's address, or a place in MLflow's folder as a URI."""
    return url or (folder / ARTIFACTS).as_uri()


@dataclass(frozen=True)
class RunFiles:
    """The files of one run.

    Attributes:
        folder: MLflow's folder in the home.
        run_id: The run.
        address: Where they are in an object store; empty where they are in the home.
    """

    folder: Path
    run_id: str
    address: str

    @classmethod
    def of(cls, client: "MlflowClient", folder: Path, run_id: str) -> "RunFiles":
        """Those of a run, wherever they are; in the home also where MLflow does not know the run any more."""
        if found := cls.in_home(folder, run_id):
            return found
        from mlflow.exceptions import MlflowException

        try:
            address = str(client.get_run(run_id).info.artifact_uri)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise  # the database has a bad moment: what it does not tell now is not gone
            address = ""
        return cls(folder, run_id, "" if address.startswith(("file:", "/")) else address)

    @classmethod
    def in_home(cls, folder: Path, run_id: str) -> "RunFiles | None":
        """Those of a run that has a folder in the home; None where it has none."""
        return cls(folder, run_id, "") if (folder / ARTIFACTS / run_id).is_dir() else None

    @property
    def place(self) -> str:
        """Where they are, for people."""
        return self.address or str(self._in_home)

    @property
    def _in_home(self) -> Path:
        return self.folder / ARTIFACTS / self.run_id / ARTIFACTS

    @property
    def _fetched(self) -> Path:
        return self.folder / FETCHED / self.run_id

    def add(self, source: Path, name: str = "") -> None:
        """Keep the files of a folder, or one file under a name.

        Raises:
            ObjectStoreError: They cannot be written there.
            OSError: They cannot be written in the home.
        """
        sources = {name: source} if name else _below(source)
        store = ObjectStore(self.address) if self.address else None
        for key, path in sources.items():
            if store:
                store.store(path, key)
            else:
                target = self._in_home / key
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)

    def get(self, name: str) -> Path:
        """A small file as it is now; the path need not be there, as the file need not.

        Raises:
            ObjectStoreError: It cannot be fetched.
        """
        if not self.address:
            return self._in_home / name
        make_folder(self._fetched)
        target, fresh = self._fetched / name, self._fetched / f"{PARTIAL}{uuid4().hex}"
        try:
            if ObjectStore(self.address).fetch(name, fresh) is None:
                target.unlink(missing_ok=True)
            else:
                fresh.replace(target)
        finally:
            fresh.unlink(missing_ok=True)
        return target

    def whole(self, name: str, is_whole: Callable[[Path], bool]) -> Path | None:
        """A folder of files that passes a test; None where what there is does not.

        Args:
            name: Its name.
            is_whole: Whether a local folder, which need not be there, holds just what it should.

        Raises:
            ObjectStoreError: It cannot be fetched.
        """
        local = self._in_home / name if not self.address else self._fetched / name
        if local.is_dir() and is_whole(local):
            return local
        return self._fetch(name, is_whole) if self.address else None

    def _fetch(self, name: str, is_whole: Callable[[Path], bool]) -> Path | None:
        """Fetch a folder beside its place, and put it there once it has passed the test."""
        store, partial = ObjectStore(self.address), self._fetched / f"{PARTIAL}{name}-{uuid4().hex[:6]}"
        partial.mkdir(parents=True)
        try:
            for stored in store.objects(name):
                target = partial / os.path.relpath(stored.key, name)
                target.parent.mkdir(parents=True, exist_ok=True)
                store.fetch(stored.key, target)
            if not is_whole(partial):
                return None
            return self._put(partial, self._fetched / name, is_whole)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def _put(self, partial: Path, target: Path, is_whole: Callable[[Path], bool]) -> Path:
        """Give a folder its place, unless another process was quicker, which may load from it by now."""
        if not is_whole(target):
            shutil.rmtree(target, ignore_errors=True)
            try:
                partial.replace(target)
            except OSError:
                if not is_whole(target):
                    raise
        return target

    def size(self) -> int:
        """Bytes that removing them would free.

        Raises:
            ObjectStoreError: The store cannot be listed.
        """
        there = sum(stored.size for stored in ObjectStore(self.address).objects()) if self.address else 0
        return there + size_of(self._fetched) + size_of(self.folder / ARTIFACTS / self.run_id)

    def remove(self) -> None:
        """Remove them, and what was fetched of them.

        Raises:
            ObjectStoreError: The store does not permit it, or cannot be reached; some may be gone.
            OSError: Files in the home cannot be removed.
        """
        if self.address:
            store = ObjectStore(self.address)
            store.remove([stored.key for stored in store.objects()])
        for folder in (self._fetched, self.folder / ARTIFACTS / self.run_id):
            if folder.is_dir():
                shutil.rmtree(folder)


def _below(folder: Path) -> dict[str, Path]:
    """The files below a folder, by their path inside it."""
    return {p.relative_to(folder).as_posix(): p for p in sorted(folder.rglob("*")) if p.is_file()}
