"""Landing folders: which files lie in one, and the fingerprint of each.

What belongs here: listing a folder, names, and fingerprints. What does not: what is on record of a file
(manifest.py) and the content of one (reader.py). A user's file is only ever read.
"""

import os
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from turnover_assets.errors import TurnoverError, UnreadableFileError
from turnover_assets.storage.fingerprints import Fingerprint, look, recall, remember
from turnover_assets.storage.reader import fingerprint

UNFINISHED_SUFFIXES = (".part", ".partial", ".tmp", ".crdownload", ".swp", "~")


@dataclass(frozen=True)
class LandedFile:
    """A file found in a landing folder.

    Attributes:
        path: Where it is.
        name: Its path inside the landing folder, with forward slashes.
        digest: SHA-256 of its content, hexadecimal.
    """

    path: Path
    name: str
    digest: str

    @property
    def partition_key(self) -> str:
        """Name and content in one text, unique for a content under a name."""
        safe = "".join(c if c.isprintable() else "?" for c in self.name).replace("...", "…")
        return f"{safe}@{self.digest[:12]}"


def list_folder(folder: Path) -> list[Path]:
    """Files of a landing folder and its subfolders, by name; hidden and unfinished ones left out.

    Links to files are followed, links to folders are not.

    Raises:
        TurnoverError: The folder or one below it is missing or cannot be listed (never an empty list
            instead).
    """
    found: list[Path] = []
    try:
        for parent, subfolders, names in os.walk(folder, onerror=_raise):
            subfolders[:] = [name for name in subfolders if not _is_left_out(Path(parent, name))]
            found += [Path(parent, name) for name in names if _is_finished(name)]
        return sorted((path for path in found if path.is_file()), key=landing_order)
    except OSError as error:
        raise TurnoverError(
            f"The landing folder {error.filename or folder} cannot be listed ({error.strerror}). "
            "Check the path and its permissions."
        ) from None


def _raise(error: OSError) -> None:
    raise error


def _is_left_out(folder: Path) -> bool:
    """Hidden folders, and data homes: what the platform itself writes does not land."""
    try:
        return folder.name.startswith(".") or (folder / "dagster" / "dagster.yaml").is_file()
    except OSError:  # the listing itself will say that it cannot be read
        return False


def landing_order(path: Path) -> tuple[tuple[str, ...], str]:
    """By name without its endings first, so that `a (1).csv` and `a_restated.csv` come after `a.csv`."""
    *folders, name = path.parts
    return (*folders, name.partition(".")[0]), name


def _is_finished(name: str) -> bool:
    return not name.startswith(".") and not name.endswith(UNFINISHED_SUFFIXES)


def scan(folder: Path, memory: Path | None = None) -> list[LandedFile]:
    """Fingerprint every file of a landing folder, by name; a file that vanishes meanwhile is left out.

    Args:
        folder: The landing folder.
        memory: Where fingerprints are remembered, so that only new and changed files are read; those of
            other folders are forgotten. None reads every file.

    Raises:
        TurnoverError: The folder cannot be listed.
    """
    before = recall(memory) if memory else {}
    now: dict[str, Fingerprint] = {}
    landed = []
    for path in list_folder(folder):
        try:
            entry = look(path, before.get(str(path)))
        except UnreadableFileError as error:
            entry = Fingerprint(_stand_in(path, error), None)
        if entry.stamp:
            now[str(path)] = entry
        if entry.stamp or path.exists():
            landed.append(LandedFile(path, readable_name(path, folder), entry.digest))
    if memory and now != before:
        remember(memory, now)
    return landed


def readable_name(path: Path, folder: Path) -> str:
    """The path inside a folder as text; what is not UTF-8 in it is shown as a replacement character."""
    return os.fsencode(path.relative_to(folder).as_posix()).decode("utf-8", "replace")


def content_digest(path: Path) -> str:
    """SHA-256 of the content; where it cannot be read, of path and problem, which stand for it."""
    try:
        return fingerprint(path)
    except UnreadableFileError as error:
        return _stand_in(path, error)


def _stand_in(path: Path, error: UnreadableFileError) -> str:
    return sha256(os.fsencode(f"{path}:{error.reason}")).hexdigest()
