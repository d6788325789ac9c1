"""The steward's ledger as a file: reading it, its fingerprint, and adding an entry.

What belongs here: access to the file adjustments.toml. What does not: what its entries mean (core/ledger.py).

Invariants:
    - what a person wrote stays as it is, byte for byte: entries are added at the end;
    - a ledger that would not be valid never takes the place of the one there is;
    - the file is replaced in one step, under a lock, so that two who add lose nothing.
"""

import stat
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import tomlkit
from filelock import FileLock

from turnover_assets.core.ledger import Ledger, parse_ledger
from turnover_assets.errors import HomeError, LedgerError, LedgerMovedError, TurnoverError
from turnover_assets.panel import PanelSpec
from turnover_assets.storage.durable import replace_file

LOCK_SECONDS = 30.0
NO_LEDGER = sha256(b"").hexdigest()[:12]  # version of a ledger that is not there
_HEADING = """\
# What is known to be wrong with the reported values ([[adjustment]]), and where the detectors are mistaken
# ([[veto]]). docs/configuration.md describes every field; `turnover adjustments check` validates this file.
"""


def ledger_version(path: Path) -> str:
    """Fingerprint of a ledger file, whatever it holds; that of an empty one where there is none.

    Raises:
        LedgerError: The file cannot be read.
    """
    return version_of(ledger_content(path))


def read_ledger(path: Path, panel: PanelSpec) -> Ledger:
    """Read and validate a ledger; without a file there are no entries.

    Raises:
        LedgerError: With everything that is wrong in the file.
    """
    content = ledger_content(path)
    return replace(_parse(content, panel, path), version=version_of(content))


def add_entry(
    path: Path,
    panel: PanelSpec,
    kind: Literal["adjustment", "veto"],
    fields: Mapping[str, Any],
    expected: str | None = None,
) -> str:
    """Add an entry at the end of a ledger; the file is made where there is none.

    Args:
        path: The file; where it is a link, the file that it leads to is replaced.
        panel: The panel.
        kind: `adjustment` or `veto`.
        fields: The entry's fields as TOML has them; those that are None are left out.
        expected: Version of the ledger that the entry was decided on; any where left out.

    Returns:
        The text that was added.

    Raises:
        LedgerError: The ledger is not valid as it is; nothing is written.
        TurnoverError: It would not be valid with the entry; nothing is written.
        LedgerMovedError: It is not the expected one any more; nothing is written.
        HomeError: The file cannot be written; it is as it was.
    """
    added = _entry_text(kind, fields)
    target = path.resolve()
    try:
        with FileLock(target.with_name(f".{target.name}.lock"), timeout=LOCK_SECONDS):
            before = ledger_content(target)
            if expected is not None and version_of(before) != expected:
                raise LedgerMovedError(str(path))
            after = _appended(before or _HEADING.encode(), added)
            _parse(before, panel, path)
            _check_addition(after, panel, path)
            _replace(target, after)
    except OSError as error:  # Timeout of the lock is one
        raise HomeError(
            path.parent, f"{path.name} cannot be written ({error.strerror or error})", "Nothing was changed."
        ) from error
    return added


def ledger_content(path: Path) -> bytes:
    """What is in a ledger file; nothing where there is none.

    Raises:
        LedgerError: The file cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise LedgerError(str(path), [("", f"cannot be read ({error.strerror})")]) from None


def version_of(content: bytes) -> str:
    """Fingerprint of a ledger's content."""
    return sha256(content).hexdigest()[:12]


def _parse(content: bytes, panel: PanelSpec, path: Path) -> Ledger:
    try:
        data = tomllib.loads(content.decode("utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise LedgerError(str(path), [("", f"is not TOML: {error}")]) from None
    return parse_ledger(data, panel, str(path), date.today())


def _check_addition(after: bytes, panel: PanelSpec, path: Path) -> None:
    try:
        _parse(after, panel, path)
    except LedgerError as error:
        listed = "\n".join(f"  - {where}: {what}" for where, what in error.problems)
        raise TurnoverError(
            f"The entry was not added to {path}, which would then have these problems:\n{listed}\n"
            "Change the entries that stand there, or what you add."
        ) from None


def _entry_text(kind: str, fields: Mapping[str, Any]) -> str:
    table = tomlkit.table()
    for name, value in fields.items():
        if isinstance(value, Mapping):
            members = tomlkit.inline_table()
            members.update(value)
            table.add(name, members)
        elif value is not None:
            table.add(name, value)
    return f"[[{kind}]]\n{table.as_string()}"


def _appended(content: bytes, added: str) -> bytes:
    """The content with a text after it, an empty line between them, and line ends as the content has them."""
    end = b"\r\n" if b"\r\n" in content else b"\n"
    gap = end if content.endswith(b"\n") else end * 2
    return content + gap + added.encode().replace(b"\n", end)


def _replace(target: Path, content: bytes) -> None:
    """Put content in place of a file in one step, with the rights that the file had."""
    rights = stat.S_IMODE(target.stat().st_mode) if target.exists() else None
    replace_file(target, content.decode())
    if rights is not None:
        target.chmod(rights)
