"""Workbooks in the home: written for a snapshot, kept as long as it is, and the file of who gets them.

What belongs here: those files. What does not: their content (core/workbook/), and sending them
(workbook_mail.py).
"""

import tomllib
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

from turnover_assets.core.workbook import workbook
from turnover_assets.core.workbook.recipients import Book, parse_recipients
from turnover_assets.errors import RecipientsError
from turnover_assets.panel import PanelSpec
from turnover_assets.storage.pages import write_report
from turnover_assets.storage.snapshots import Snapshot
from turnover_assets.storage.workbook_source import WorkbookSource


def write_level(folder: Path, snapshot: Snapshot, panel: PanelSpec, level: str) -> dict[Book, Path]:
    """Write the workbooks of all members of a level into a snapshot's own folder below `folder`.

    Raises:
        HomeError: One could not be written.
        UnknownNameError, NoSnapshotError: See WorkbookSource.
    """
    with WorkbookSource(snapshot, panel, level) as source:
        return {(level, member): _write(folder, snapshot, source, member) for member in source.members}


def write_books(
    folder: Path, snapshot: Snapshot, panel: PanelSpec, books: Collection[Book], made: Collection[Book] = ()
) -> dict[Book, Path]:
    """Write some workbooks, beside those that were made before; members that there are not are left out.

    Args:
        folder: Folder of the folders of each snapshot.
        snapshot: The snapshot.
        panel: Its panel.
        books: The workbooks wanted.
        made: Those that are there already.

    Raises:
        HomeError, UnknownNameError, NoSnapshotError: See write_level.
    """
    wanted = [book for book in dict.fromkeys(books) if book not in made]
    found: dict[Book, Path] = {}
    with ExitStack() as leaving:
        for level in dict.fromkeys(level for level, _ in wanted):
            source = leaving.enter_context(WorkbookSource(snapshot, panel, level))
            for member in (member for of, member in wanted if of == level and member in source.members):
                found[level, member] = _write(folder, snapshot, source, member)
    return found


def _write(folder: Path, snapshot: Snapshot, source: WorkbookSource, member: str) -> Path:
    content = source.content(member)
    path = folder / snapshot.name / content.file_name
    write_report(path, workbook(content))
    return path


def outlived(folder: Path, snapshots: Iterable[str]) -> list[Path]:
    """Folders of workbooks whose snapshot is there no more, in order."""
    kept = set(snapshots)
    return sorted(path for path in _folders(folder) if path.name not in kept)


def _folders(folder: Path) -> Iterator[Path]:
    return (path for path in folder.glob("*") if path.is_dir())


def read_recipients(path: Path, panel: PanelSpec) -> dict[str, list[Book]]:
    """The workbooks that each address gets; none where there is no file.

    Raises:
        RecipientsError: With everything that is wrong in the file.
    """
    try:
        data = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise RecipientsError(str(path), [("", f"cannot be read ({error.strerror})")]) from None
    except UnicodeDecodeError:
        raise RecipientsError(str(path), [("", "is no UTF-8 text")]) from None
    except tomllib.TOMLDecodeError as error:
        raise RecipientsError(str(path), [("", f"is not TOML: {error}")]) from None
    return parse_recipients(data, panel, str(path))
