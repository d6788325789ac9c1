"""Pages for people in the data home: written whole or not at all.

What belongs here: the files in `<home>/reports`. What does not: what they say (core/pages.py).
"""

from datetime import date
from pathlib import Path
from uuid import uuid4

from turnover_assets.errors import HomeError


def write_page(path: Path, html: str) -> None:
    """Put a page in place of the one before it, in one step; see write_report."""
    write_report(path, html.encode())


def write_report(path: Path, content: bytes) -> None:
    """Put a file for people in place of the one before it, in one step.

    Raises:
        HomeError: It could not be written; the one before it is still there.
    """
    fresh = path.with_name(f".{path.name}.{uuid4().hex[:6]}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_bytes(content)
        fresh.replace(path)
    except OSError as error:
        raise HomeError(
            path.parent.parent,
            f"the file {path} cannot be written ({error.strerror or error})",
            "Nothing else was changed; make room or permit writing there, then run again.",
        ) from error
    finally:
        if fresh.parent.is_dir():
            fresh.unlink(missing_ok=True)


def dated(folder: Path) -> list[date]:
    """The dates that pages of a folder are named after, as in `2030-06-01.html`, the newest first."""
    found = (_day(path.stem) for path in folder.glob("*.html"))
    return sorted((day for day in found if day is not None), reverse=True)


def is_dated(name: str) -> bool:
    """Whether a name is a date."""
    return _day(name) is not None


def _day(name: str) -> date | None:
    try:
        day = date.fromisoformat(name)
    except ValueError:
        return None
    return day if str(day) == name else None
