"""Kept files: the bytes of every accepted file as they came, and the journal of what landed.

What belongs here: copying a landed file, keeping it under its content's name, and one record of the journal
for each row of the manifest. What does not: judging a file (landing.py) and building a warehouse from what
is kept (rebuild.py).

    raw/3f/3fa9…           bytes of one content, named by their SHA-256, never changed
    raw/panels/0c1d….json  the panel that files were read with, named by its digest
    raw/pending/00000012.json   the manifest's row of file 12, whose transaction may not have committed
    raw/journal/00000012.json   the same, once it has

Invariants:
    - bytes, panel and pending record are on disk before the transaction that accepts the file commits, so
      what is accepted is kept;
    - a record moves to the journal after the commit; where a kill came between, the next landing settles it
      by the manifest; bytes whose landing did not commit do no harm;
    - what is in the journal is never written again: a warehouse that would is older than the journal.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

from turnover_assets.errors import HomeError, UnreadableFileError
from turnover_assets.panel import PanelSpec
from turnover_assets.storage._files import open_file, refusals
from turnover_assets.storage.durable import PARTIAL, make_folder, replace_file, sync, writing_into
from turnover_assets.storage.reader import fingerprint

CHUNK_BYTES = 1 << 20
READ_ONLY = 0o444


@dataclass(frozen=True)
class Copy:
    """A copy that is being judged.

    Attributes:
        path: Where it is.
        digest: SHA-256 of its content, hexadecimal.
    """

    path: Path
    digest: str


@dataclass(frozen=True)
class KeptFiles:
    """The kept files of a data home.

    Attributes:
        folder: Where they are; made at first use.
    """

    folder: Path

    def path(self, digest: str) -> Path:
        """Where the bytes of a content are, or would be."""
        return self.folder / digest[:2] / digest

    def has(self, digest: str) -> bool:
        """Whether the bytes of a content are there; `is_whole` also reads them."""
        return self.path(digest).is_file()

    def is_whole(self, digest: str) -> bool:
        """Whether the bytes of a content are there and as they were."""
        try:
            return fingerprint(self.path(digest)) == digest
        except UnreadableFileError:
            return False

    @contextmanager
    def copied(self, source: Path) -> Iterator[Copy]:
        """A copy of a file, on disk; gone at the end of the block unless it was kept.

        Raises:
            UnreadableFileError: The source cannot be read.
            HomeError: The copy cannot be written.
        """
        partial = self.folder / f"{PARTIAL}{uuid4().hex}"
        with ExitStack() as leaving:
            with self._writing():
                leaving.enter_context(writing_into(self.folder))
                leaving.callback(partial.unlink, missing_ok=True)
                digest = _copy(source, partial)
            yield Copy(partial, digest)

    def keep(self, copy: Copy, panel: PanelSpec) -> None:
        """Keep a copy, and the panel that it was read with.

        Raises:
            HomeError: It cannot be written.
        """
        kept, spec = self.path(copy.digest), self.panel_path(panel.digest)
        with self._writing():
            make_folder(kept.parent)
            make_folder(spec.parent)
            if not spec.is_file():
                replace_file(spec, panel.model_dump_json())
            copy.path.chmod(READ_ONLY)
            copy.path.replace(kept)
            sync(kept.parent)

    def record(self, row: Mapping[str, Any], *, committed: bool = False) -> None:
        """Write the record of a row of the manifest.

        Args:
            row: The row, by column.
            committed: Whether the transaction that has it is known to have committed.

        Raises:
            HomeError: It cannot be written, or another file landed under that number before.
        """
        path = self._record_path("journal" if committed else "pending", row["file_no"])
        if self._record_path("journal", row["file_no"]).is_file():
            raise HomeError(
                self.folder.parent,
                f"its warehouse lacks files that have landed: {self.folder / 'journal'} has a record of file "
                f"{row['file_no']} already",
                "The warehouse was removed, or one from an older backup was put back. Nothing was changed; "
                "make it whole with `turnover rebuild`, then run again.",
            )
        with self._writing():
            make_folder(path.parent)
            replace_file(path, json.dumps(row, indent=2, default=str) + "\n")

    def has_record(self, row: Mapping[str, Any]) -> bool:
        """Whether the journal has this very content under this number."""
        try:
            found = json.loads(self._record_path("journal", row["file_no"]).read_text("utf-8"))
        except (OSError, ValueError):
            return False
        return isinstance(found, dict) and found.get("digest") == row["digest"]

    def settle(self, row: Mapping[str, Any], *, committed: bool) -> None:
        """Move a pending record to the journal, or remove it where its transaction did not commit.

        Raises:
            HomeError: It cannot be written.
        """
        pending, path = (self._record_path(folder, row["file_no"]) for folder in ("pending", "journal"))
        with self._writing(), suppress(FileNotFoundError):  # another process was quicker
            if committed:
                make_folder(path.parent)
                pending.replace(path)
                sync(path.parent)
            else:
                pending.unlink()

    def pending(self) -> list[dict[str, Any]]:
        """Records of landings that may not have committed; at most one, but for damage.

        Raises:
            HomeError: A record cannot be read.
        """
        return self._records("pending")

    def records(self) -> list[dict[str, Any]]:
        """The journal, in the order of landing.

        Raises:
            HomeError: A record cannot be read; all that cannot are named.
        """
        return self._records("journal")

    def _records(self, folder: str) -> list[dict[str, Any]]:
        rows, unread = [], []
        for path in sorted((self.folder / folder).glob("[!.]*.json")):
            try:
                rows.append(dict(json.loads(path.read_text("utf-8"))))
            except (OSError, ValueError, TypeError) as error:
                unread.append(f"{path} ({getattr(error, 'strerror', None) or error})")
        if unread:
            raise HomeError(
                self.folder.parent,
                f"records of landed files cannot be read: {', '.join(unread)}",
                "Put them back from a backup, or move them away: their files then count as not kept.",
            )
        return rows

    def has_panel(self, digest: str) -> bool:
        """Whether a file was accepted that was read with this panel."""
        return self.panel_path(digest).is_file()

    def panel(self, digest: str) -> PanelSpec:
        """The panel that files were read with.

        Raises:
            HomeError: It is not there, or cannot be read.
        """
        path = self.panel_path(digest)
        try:
            return PanelSpec.model_validate_json(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise HomeError(
                self.folder.parent,
                f"the kept panel {path} cannot be read ({getattr(error, 'strerror', None) or error})",
                "Put it back from a backup.",
            ) from None

    def _record_path(self, folder: str, file_no: int) -> Path:
        return self.folder / folder / f"{file_no:08d}.json"

    def panel_path(self, digest: str) -> Path:
        """Where a panel is that files were read with, or would be."""
        return self.folder / "panels" / f"{digest}.json"

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise HomeError(
                self.folder.parent,
                f"{self.folder} cannot be written ({error.strerror or error})",
                "Nothing was changed. Make room or permit writing there, then run again.",
            ) from error


def kept_files(home: Path) -> KeptFiles:
    """The kept files of a data home."""
    return KeptFiles(home / "raw")


def _copy(source: Path, target: Path) -> str:
    """Copy a file to disk; gives its SHA-256."""
    digest = sha256()
    with target.open("xb") as stream:
        for chunk in _chunks(source):
            digest.update(chunk)
            stream.write(chunk)
        stream.flush()
        os.fsync(stream.fileno())
    return digest.hexdigest()


def _chunks(source: Path) -> Iterator[bytes]:
    with refusals(), open_file(source) as stream:
        while chunk := stream.read(CHUNK_BYTES):
            yield chunk
