"""Workbooks in the home: written for a snapshot, kept as long as it is, and the file of who gets them.

What belongs here: those files. What does not: their content (core/workbook/), and sending them
(workbook_mail.py).
"""

import tomllib
from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

from turnover_assets.core.processes import Processes
from turnover_assets.core.workbook import workbook
from turnover_assets.core.workbook.content import Content
from turnover_assets.core.workbook.recipients import Book, parse_recipients
from turnover_assets.errors import RecipientsError
from turnover_assets.panel import PanelSpec
from turnover_assets.storage.pages import write_report
from turnover_assets.storage.snapshots import Snapshot
from turnover_assets.storage.workbook_source import WorkbookSource

MANY = 2_000  # forecasts for each further process: a second of work, for half a second to begin


def write_level(
    folder: Path, snapshot: Snapshot, panel: PanelSpec, level: str, *, processes: int = 1
) -> dict[Book, Path]:
    """Write the workbooks of all members of a level into a snapshot's own folder below `folder`.

    Args:
        folder: Folder of the folders of each snapshot.
        snapshot: The snapshot.
        panel: Its panel.
        level: A level of the panel, or `total`.
        processes: Processes, with this one, that make them; fewer where there are few forecasts.

    Raises:
        HomeError: One could not be written.
        UnknownNameError, NoSnapshotError: See WorkbookSource.
    """
    with WorkbookSource(snapshot, panel, level) as source:
        return _write_all(folder, snapshot, source, source.members, processes)


def write_books(
    folder: Path,
    snapshot: Snapshot,
    panel: PanelSpec,
    books: Collection[Book],
    made: Collection[Book] = (),
    *,
    processes: int = 1,
) -> dict[Book, Path]:
    """Write some workbooks, beside those that were made before; members that there are not are left out.

    Args:
        folder: Folder of the folders of each snapshot.
        snapshot: The snapshot.
        panel: Its panel.
        books: The workbooks wanted.
        made: Those that are there already.
        processes: See write_level.

    Raises:
        HomeError, UnknownNameError, NoSnapshotError: See write_level.
    """
    wanted = [book for book in dict.fromkeys(books) if book not in made]
    found: dict[Book, Path] = {}
    for level in dict.fromkeys(level for level, _ in wanted):
        with WorkbookSource(snapshot, panel, level) as source:
            members = [member for of, member in wanted if of == level and member in source.members]
            found |= _write_all(folder, snapshot, source, members, processes)
    return found


def _write_all(
    folder: Path, snapshot: Snapshot, source: WorkbookSource, members: Sequence[str], processes: int
) -> dict[Book, Path]:
    found = {}
    with closing(make_books(source, members, processes)) as books:
        for member, (name, content) in zip(members, books, strict=True):
            found[source.level, member] = folder / snapshot.name / name
            write_report(found[source.level, member], content)
    return found


def make_books(
    source: WorkbookSource, members: Sequence[str], processes: int
) -> Generator[tuple[str, bytes], None, None]:
    """Name and bytes of the workbook of each member, in order; to be closed where it is left early.

    Args:
        source: Where they are from.
        members: Members of its level.
        processes: Processes, with this one, that make them; fewer where there are few forecasts.
    """
    forecasts = source.forecasts * len(members) // max(1, len(source.members))  # about
    count = min(processes, len(members), 1 + forecasts // MANY)
    with Processes.beside(count) as shared:
        yield from shared.map(_named, map(source.content, members))


def _named(content: Content) -> tuple[str, bytes]:
    """Name and bytes of a workbook."""
    return content.file_name, workbook(content)


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
