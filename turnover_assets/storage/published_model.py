"""The champion inside a published snapshot: its files, and rows whose forecasts are known.

What belongs here: writing them into a snapshot's folder, and telling whether they are still those that were
published. What does not: the rest of a snapshot (snapshots.py), and using the model (serving/champion.py).

The files are those that the registry keeps (model.json and what the candidate wrote, no pickle), without
origin/, which only who trains needs. snapshot.json has the size and SHA-256 of each. A champion stays for
many snapshots, so that an unchanged file is a hard link to that of the snapshot before.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from turnover_assets.errors import ModelRefusedError
from turnover_assets.storage.digests import file_sha256
from turnover_assets.storage.durable import sync

MODEL_FOLDER = "model"  # in a run's artifacts as in a snapshot
ORIGIN_FOLDER = "origin"  # in a model's folder
GOLDEN = "golden.parquet"
FileFacts = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class PublishedModel:
    """What is published of a champion.

    Attributes:
        files: Its folder in the registry.
        golden: Rows with their forecasts; see core/golden.py.
    """

    files: Path
    golden: pd.DataFrame

    def write(self, snapshot: Path, before: Path | None) -> FileFacts:
        """Write it into the folder of a snapshot that is being made.

        Args:
            snapshot: The folder.
            before: Folder of the snapshot before it, whose files are linked to where they are the same.

        Returns:
            By name below model/: `bytes` and `sha256`.
        """
        folder = snapshot / MODEL_FOLDER
        for source in sorted(self.files.rglob("*")):
            name = source.relative_to(self.files)
            if source.is_file() and name.parts[0] not in (ORIGIN_FOLDER, GOLDEN):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                _copy(source, folder / name, before / MODEL_FOLDER / name if before else None)
        folder.mkdir(exist_ok=True)
        self.golden.to_parquet(folder / GOLDEN, index=False, compression="zstd")
        written = _files_of(folder)
        sync(*(folder / name for name in written), *{(folder / name).parent for name in written})
        return {name: _facts(folder / name) for name in written}


def verified_folder(snapshot: Path, facts: Mapping[str, Any]) -> Path:
    """The folder of a snapshot's model, once every file in it is known to be the one that was published.

    Args:
        snapshot: The snapshot's folder.
        facts: What snapshot.json says.

    Raises:
        ModelRefusedError: There is no model in it, or a file is missing, was changed or was added.
    """
    noted: FileFacts = facts.get("model", {}).get("files", {})
    if not noted:
        raise ModelRefusedError(
            f"the snapshot {snapshot.name!r} was published without its model's files, as an earlier "
            "release did, or one whose registry had lost them"
        )
    folder = snapshot / MODEL_FOLDER
    try:
        found = {name: _facts(folder / name) for name in _files_of(folder)}
    except OSError as error:
        raise ModelRefusedError(f"its files cannot be read ({error.strerror or error})") from None
    wrong = sorted(name for name in {*noted, *found} if dict(noted.get(name, {})) != found.get(name))
    if wrong:
        listed = ", ".join(wrong)
        raise ModelRefusedError(f"these of its files are not those that were published: {listed}")
    return folder


def _copy(source: Path, target: Path, before: Path | None) -> None:
    """Copy a file, or link to the same one of the snapshot before, where its file system can."""
    if before and before.is_file() and _facts(before) == _facts(source):
        try:
            target.hardlink_to(before)
        except OSError:
            pass
        else:
            return
    shutil.copyfile(source, target)


def _files_of(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _facts(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
