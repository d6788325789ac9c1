"""Workbooks as e-mail: put into the outbox of alerts, once for each snapshot and address.

What belongs here: which messages there are. What does not: the outbox (alert_store.py), sending
(alert_channels.py), and who gets what (workbook_files.py).
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from turnover_assets.core.alerts.channels import Severity
from turnover_assets.core.alerts.incidents import Message
from turnover_assets.core.workbook.recipients import Book
from turnover_assets.storage.alert_store import WORKBOOKS, AlertStore
from turnover_assets.storage.snapshots import Snapshot

MOST_BYTES = (
    8_000_000  # of files in one message; encoded they are a third larger, and many servers take 10 MB
)


def enqueue_workbooks(
    store: AlertStore,
    home: Path,
    snapshot: Snapshot,
    recipients: Mapping[str, Sequence[Book]],
    made: Mapping[Book, Path],
    now: datetime,
) -> int:
    """Put a message for each address into the outbox, with all its workbooks; gives how many are new.

    Args:
        store: The outbox.
        home: The home, in which the files are.
        snapshot: The snapshot that the workbooks are of.
        recipients: The workbooks that each address gets; those that were not made are left out.
        made: The files.
        now: The time.

    Raises:
        HomeError: The outbox cannot be written.
    """
    new = 0
    for address, books in recipients.items():
        files = [made[book] for book in books if book in made]
        for part, together in enumerate(_parts(files), start=1):
            message = _message(home, snapshot, address, together, now)
            new += store.enqueue_once(f"{snapshot.name}/{address}/{part}", message, WORKBOOKS)
    return new


def _parts(files: Sequence[Path]) -> Iterator[list[Path]]:
    """Files in groups that are small enough for one message, or of one file."""
    together: list[Path] = []
    size = 0
    for path in files:
        own = path.stat().st_size
        if together and size + own > MOST_BYTES:
            yield together
            together, size = [], 0
        together.append(path)
        size += own
    if together:
        yield together


def _message(home: Path, snapshot: Snapshot, address: str, files: Sequence[Path], now: datetime) -> Message:
    cutoff, last = snapshot.facts["cutoff"], snapshot.facts["last_period"]
    names = ", ".join(path.stem.removesuffix(f"_{cutoff}").replace("-", " ", 1) for path in files)
    return Message(
        "workbook",
        Severity.INFO,
        f"Forecasts up to {last}: {names}",
        (
            f"Attached are the forecasts up to {last}, made with what was reported up to {cutoff}.",
            "The first sheet of a workbook says how to read it.",
        ),
        "",
        now,
        recipient=address,
        attachments=tuple(path.relative_to(home).as_posix() for path in files),
    )
