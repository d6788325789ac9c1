"""Reads one landed file (csv, csv.gz or parquet) into columns of text, without trusting its name.

What belongs here: telling formats, delimiters and kinds of file apart, bounded reading, physical line
numbers, and turning every way in which a file can be broken into an UnreadableFileError. What does
not: the meaning of a value. Missing-value texts, types, dates, keys and duplicates are cleaning's.

Invariants:
    - A file is only ever read; its content is never changed.
    - Every row of the file is in exactly one batch, in file order, with the line where it starts.
    - A file that is broken in its middle raises from the iterator; it never ends early and quietly.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from turnover_assets.errors import UnreadableFileError
from turnover_assets.panel import PanelSpec
from turnover_assets.storage._csv import GZIP_MAGIC, PARQUET_MAGIC, csv_batches, csv_head
from turnover_assets.storage._files import PROBLEM_LENGTH, Part, listed, open_file, refusals, shortened
from turnover_assets.storage._parquet import parquet_batches, parquet_head

BATCH_ROWS = 100_000
OTHER_DELIMITERS = {"\t": "tabs", "|": "vertical bars"}


@dataclass(frozen=True)
class FileHead:
    """What is known of a file before its rows are read.

    Attributes:
        table: Name of the panel's table that the file belongs to.
        format: `csv`, `csv.gz` or `parquet`, as told by the content.
        delimiter: `,` or `;`; None for parquet.
        columns: Names in the file, in file order, stripped of surrounding white space.
        extra_columns: Those that the panel does not use.
    """

    table: str
    format: str
    delimiter: str | None
    columns: tuple[str, ...]
    extra_columns: tuple[str, ...]


def read_head(path: Path, panel: PanelSpec) -> FileHead:
    """Tell what a file is, from its first bytes and its column names.

    Args:
        path: The landed file; its name is not looked at.
        panel: The panel whose tables the file may belong to.

    Raises:
        UnreadableFileError: If the file cannot be read, is empty, holds no row, fits no table or
            several alike, or names a needed column twice.
    """
    file_format = _tell_format(path)
    if file_format == "parquet":
        delimiter, columns, has_rows = parquet_head(path)
    else:
        delimiter, columns, has_rows = csv_head(path, file_format, panel)
    table = recognise(columns, panel)
    needed = set(panel.tables[table].values())
    if twice := sorted(name for name in needed if columns.count(name) > 1):
        raise UnreadableFileError(f"names the column {listed(twice)} more than once; each needs its own name")
    if not has_rows:
        raise UnreadableFileError("holds a header but no row of data; land it again once it is complete")
    extra = tuple(name for name in columns if name not in needed)
    return FileHead(table, file_format, delimiter, columns, extra)


def read_batches(path: Path, panel: PanelSpec, head: FileHead) -> Iterator[pa.Table]:
    """Read a file's rows as text.

    Args:
        path: The landed file.
        panel: The panel that `head` was made with.
        head: What read_head said of this file.

    Yields:
        Tables of at most BATCH_ROWS rows: `line` (int64; the physical line where the record starts,
        1-based, the header's counted; for parquet the 1-based row), one string column for each
        canonical column of the table in the panel's order, stripped of surrounding white space, and
        `malformed` (string; null for a good row, otherwise what is wrong and the row's own text).
        Of a malformed row, the values that there are stand by position and the others are null.

    Raises:
        UnreadableFileError: From the iterator, as soon as a part cannot be read. Batches before it
            were yielded already, so the caller undoes what it did with them.
    """
    sources = panel.tables[head.table]
    for lines, columns, problems in _parts(path, head, list(dict.fromkeys(sources.values()))):
        texts = [pc.utf8_trim_whitespace(columns[source]) for source in sources.values()]
        yield pa.table([pa.array(lines, pa.int64()), *texts, problems], names=["line", *sources, "malformed"])


def _parts(path: Path, head: FileHead, needed: Sequence[str]) -> Iterator[Part]:
    if head.format == "parquet":
        return parquet_batches(path, head.columns, needed, BATCH_ROWS)
    return csv_batches(path, head.format, head.delimiter or ",", head.columns, needed, BATCH_ROWS)


def fingerprint(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal.

    Raises:
        UnreadableFileError: If the file cannot be read.
    """
    with refusals(), open_file(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def recognise(columns: Sequence[str], panel: PanelSpec) -> str:
    """The panel's table to which a file with these columns belongs.

    A table fits if the file has all of its columns; of several, the one that needs most is taken. A file of
    the series that would be taken for another is refused, or what it reports would be lost.

    Args:
        columns: Names in the file; surrounding white space is ignored.
        panel: The panel.

    Raises:
        UnreadableFileError: If no table fits (it names the nearest), several fit alike, or see above.

    Example:
        >>> from turnover_assets.panel import default_panel
        >>> names = ["day_id", "but_num_business_unit", "dpt_num_department", "turnover"]
        >>> recognise(names, default_panel())
        'turnover'
    """
    found = [name.strip() for name in columns]
    required = {table: set(names.values()) for table, names in panel.tables.items()}
    fitting = {table: len(names) for table, names in required.items() if names <= set(found)}
    if not fitting:
        raise UnreadableFileError(_why_unknown(found, required))
    best = [table for table, size in fitting.items() if size == max(fitting.values())]
    if len(best) > 1:
        raise UnreadableFileError(
            f"fits several kinds of file alike ({listed(best)}); "
            "give the columns of one of them another name, in the files and in the panel"
        )
    if (series := panel.series.name) in fitting and best != [series]:
        raise UnreadableFileError(
            f"holds the columns of {series!r} and all of {best[0]!r}, and a file is of one kind; "
            f"land it as two files, one without {listed(sorted(required[best[0]] - required[series]))}, "
            f"one without {panel.tables[series][panel.target]!r}"
        )
    return best[0]


def _why_unknown(found: Sequence[str], required: Mapping[str, set[str]]) -> str:
    folded = {name.casefold() for name in found}
    but_for_case = [
        table for table, names in required.items() if {name.casefold() for name in names} <= folded
    ]
    nearest = min(but_for_case or required, key=lambda table: len(required[table] - set(found)))
    missing = sorted(required[nearest] - set(found))
    hint = "; it would fit but for upper and lower case, which must agree" if but_for_case else ""
    if len(found) == 1 and (other := next((mark for mark in OTHER_DELIMITERS if mark in found[0]), "")):
        seen = OTHER_DELIMITERS[other]
        hint = f"; its fields seem to be separated by {seen}; commas or semicolons are expected"
    return (
        f"fits no known kind of file: nearest is {nearest!r}, which lacks the "
        f"column{'s' if len(missing) > 1 else ''} {listed(missing)} "
        f"(found: {shortened(', '.join(found), 2 * PROBLEM_LENGTH)}){hint}"
    )


def _tell_format(path: Path) -> str:
    with refusals(), open_file(path) as stream:
        start = stream.read(4)
    if start.startswith(GZIP_MAGIC):
        return "csv.gz"
    return "parquet" if start == PARQUET_MAGIC else "csv"
