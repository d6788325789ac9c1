"""Reads one landed file (csv, csv.gz or parquet) into columns of text, without trusting its name.

What belongs here: telling formats, delimiters and kinds of file apart, bounded reading, physical line
numbers, and turning every way in which a file can be broken into an UnreadableFileError. What does
not: the meaning of a value. Missing-value texts, types, dates, keys and duplicates are cleaning's.

Invariants:
    - A file is only ever read; its content is never changed.
    - Every row of the file is in exactly one batch, in file order, with the line where it starts.
    - A file that is broken in its middle raises from the iterator; it never ends early and quietly.
"""

import csv
import errno
import gzip
import hashlib
import io
import stat
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from turnover_assets.errors import UnreadableFileError
from turnover_assets.panel import PanelSpec

BATCH_ROWS = 100_000
DELIMITERS = (",", ";")
BLOCK_BYTES = 1 << 20
LONGEST_LINE = 1 << 20
PROBLEM_LENGTH = 200
UTF8_BOM = b"\xef\xbb\xbf"
GZIP_MAGIC, PARQUET_MAGIC = b"\x1f\x8b", b"PAR1"
# What text in UTF-8 never starts with, and what it is instead.
FOREIGN = {
    b"\xff\xfe": "UTF-16 text; UTF-8 is expected. Save it as UTF-8 and land it again",
    b"\xfe\xff": "UTF-16 text; UTF-8 is expected. Save it as UTF-8 and land it again",
    b"PK\x03\x04": "a zip archive or an Excel workbook. Land it as csv, csv.gz or parquet",
    GZIP_MAGIC: "gzip inside gzip. Land it compressed once",
    PARQUET_MAGIC: "parquet inside gzip. Land the parquet file itself, it is compressed already",
}
# Up to here a whole number in a float64 is exact, so its digits can be written out.
EXACT_WHOLE = 2**53
# Arrow's text of a timestamp made ISO 8601, and a plain date where it is midnight.
ISO_REWRITES = (
    (r"\.0+(Z|[+-]\d{4})?$", r"\1"),
    (r"(\.\d*[1-9])0+", r"\1"),
    (r" 00:00:00(Z|[+-]\d{4})?$", ""),
    (r"([+-]\d\d)(\d\d)$", r"\1:\2"),
    (" ", "T"),
)


# Line numbers, text by name in the file, and what is wrong with each row (null for a good one).
_Part = tuple[Sequence[int], dict[str, pa.Array], pa.Array]


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
        delimiter, columns, has_rows = _parquet_head(path)
    else:
        delimiter, columns, has_rows = _csv_head(path, file_format, panel)
    table = recognise(columns, panel)
    needed = set(panel.tables[table].values())
    if twice := sorted(name for name in needed if columns.count(name) > 1):
        raise UnreadableFileError(
            f"names the column {_listed(twice)} more than once; each needs its own name"
        )
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
    reader = _parquet_batches if head.format == "parquet" else _csv_batches
    for lines, columns, problems in reader(path, head, list(dict.fromkeys(sources.values()))):
        texts = [pc.utf8_trim_whitespace(columns[source]) for source in sources.values()]
        yield pa.table([pa.array(lines, pa.int64()), *texts, problems], names=["line", *sources, "malformed"])


def fingerprint(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal.

    Raises:
        UnreadableFileError: If the file cannot be read.
    """
    with _refusals(), _open(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def recognise(columns: Sequence[str], panel: PanelSpec) -> str:
    """The panel's table to which a file with these columns belongs.

    A table fits if the file has all of its columns; of several, the one that needs most is taken.

    Args:
        columns: Names in the file; surrounding white space is ignored.
        panel: The panel.

    Raises:
        UnreadableFileError: If no table fits (it names the nearest) or several fit alike.

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
            f"fits several kinds of file alike ({_listed(best)}); "
            "give the columns of one of them another name, in the files and in the panel"
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
    return (
        f"fits no known kind of file: nearest is {nearest!r}, which lacks the "
        f"column{'s' if len(missing) > 1 else ''} {_listed(missing)} "
        f"(found: {_shortened(', '.join(found), 2 * PROBLEM_LENGTH)}){hint}"
    )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


# --- files and what can be wrong with them


@contextmanager
def _refusals() -> Iterator[None]:
    """Turn what the operating system, gzip and Arrow raise on a bad file into a reason."""
    try:
        yield
    except EOFError:
        raise UnreadableFileError("the gzip file is truncated; land it again, complete") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise UnreadableFileError(f"the gzip file is corrupt ({error}); land it again") from None
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and error.errno:
            raise UnreadableFileError(f"cannot be read ({error.strerror})") from None
        first = _shortened((str(error).splitlines() or [""])[0], PROBLEM_LENGTH)
        raise UnreadableFileError(
            f"the parquet file is truncated or corrupt ({first}); land it again"
        ) from None


def _open(path: Path) -> io.BufferedReader:
    """Open a file for reading; a pipe or device, which could block for ever, is refused."""
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "Is a directory")
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "Not a regular file")
    return path.open("rb")


def _tell_format(path: Path) -> str:
    with _refusals(), _open(path) as stream:
        start = stream.read(4)
    if start.startswith(GZIP_MAGIC):
        return "csv.gz"
    return "parquet" if start == PARQUET_MAGIC else "csv"


# --- csv


class _Lines:
    """The physical lines of a UTF-8 text, with their ends: LF, CR LF or CR, also mixed.

    Iterating gives the lines to csv.reader. It splits and decodes about a megabyte at a time, so
    memory is bounded by that and by the longest line.

    Attributes:
        record: The lines given out since the list was last cleared.
    """

    def __init__(self, stream: io.BufferedIOBase) -> None:
        self.record: list[str] = []
        self._stream = stream
        self._before = 0
        start = stream.read(4)
        for magic, what in FOREIGN.items():
            if start.startswith(magic):
                raise UnreadableFileError(f"is {what}")
        self._start = start.removeprefix(UTF8_BOM)

    def __iter__(self) -> Iterator[str]:
        for block in self._blocks():
            lines = io.StringIO(self._decoded(block), newline="").readlines()
            for line in lines:
                self.record.append(line)
                yield line
            self._before += len(lines)

    def _blocks(self) -> Iterator[bytes]:
        """Whole lines, a block at a time."""
        rest = self._start
        while chunk := self._stream.read(BLOCK_BYTES):
            block = rest + chunk
            # A CR at the very end may be the first half of CR LF, so it waits for the next block.
            cut = max(block.rfind(b"\n"), block.rfind(b"\r", 0, -1)) + 1
            rest = block[cut:]
            if cut:
                yield block[:cut]
            if len(rest) > LONGEST_LINE:
                raise UnreadableFileError(
                    f"line {self._before + 1} is longer than {LONGEST_LINE} bytes; is this a csv file?"
                )
        if rest:
            yield rest

    def _decoded(self, block: bytes) -> str:
        if (nul := block.find(b"\0")) >= 0:
            raise UnreadableFileError(
                f"line {self._line_at(block, nul)} holds a NUL byte, so it is not text in UTF-8; "
                "export the file again as csv in UTF-8"
            )
        try:
            return block.decode("utf-8")
        except UnicodeDecodeError as error:
            raise UnreadableFileError(
                f"line {self._line_at(block, error.start)} holds the byte 0x{block[error.start]:02x}, which "
                "is not UTF-8; UTF-8 is expected. Save the file as UTF-8 and land it again"
            ) from None

    def _line_at(self, block: bytes, offset: int) -> int:
        return self._before + len((block[:offset] + b".").splitlines())


@contextmanager
def _csv_lines(path: Path, file_format: str) -> Iterator[_Lines]:
    with _refusals(), _open(path) as raw:
        if file_format == "csv.gz":
            with gzip.GzipFile(fileobj=raw) as unpacked:
                yield _Lines(unpacked)
        else:
            yield _Lines(raw)


def _records(lines: _Lines, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Every record that is not blank, with the line where it starts; its text is in lines.record."""
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    start = 1
    try:
        for fields in reader:
            if len(fields) > 1 or (fields and fields[0].strip()):
                yield start, fields
            start = reader.line_num + 1
            lines.record.clear()
    except csv.Error as error:
        raise UnreadableFileError(
            f"the row that starts in line {start} cannot be read ({error}); "
            "check its quotation marks and land the file again"
        ) from None


def _header(records: Iterator[tuple[int, list[str]]]) -> tuple[str, ...]:
    _, fields = next(records, (0, []))
    return tuple(name.strip() for name in fields)


def _csv_head(path: Path, file_format: str, panel: PanelSpec) -> tuple[str, tuple[str, ...], bool]:
    """Delimiter, column names, and whether a row follows them."""
    headers: dict[str, tuple[str, ...]] = {}
    problems: list[UnreadableFileError] = []
    for delimiter in DELIMITERS:
        try:
            with _csv_lines(path, file_format) as lines:
                headers[delimiter] = _header(_records(lines, delimiter))
        except UnreadableFileError as problem:  # perhaps quotes that only the other one makes sense of
            problems.append(problem)
    if not headers:
        raise problems[0]
    if not any(headers.values()):
        raise UnreadableFileError("is empty: there is no header line; land it again once it is complete")
    chosen = _choose_delimiter(headers, panel)
    with _csv_lines(path, file_format) as lines:
        has_rows = any(True for _ in islice(_records(lines, chosen), 1, 2))
    return chosen, headers[chosen], has_rows


def _choose_delimiter(headers: Mapping[str, tuple[str, ...]], panel: PanelSpec) -> str:
    """The delimiter under which the header fits a table, else the one that gives more columns."""
    tables = [set(names.values()) for names in panel.tables.values()]
    fitting = [mark for mark, names in headers.items() if any(table <= set(names) for table in tables)]
    return max(fitting or headers, key=lambda mark: len(headers[mark]))


def _csv_batches(path: Path, head: FileHead, needed: Sequence[str]) -> Iterator[_Part]:
    with _csv_lines(path, head.format) as lines:
        records = _records(lines, head.delimiter or ",")
        _check_unchanged(_header(records), head)
        width = len(head.columns)
        while part := _next_rows(records, lines, width):
            numbers, cells, problems = part
            columns = {
                name: pa.array(cells[head.columns.index(name) :: width], pa.string()) for name in needed
            }
            yield numbers, columns, pa.array(problems, pa.string())


def _next_rows(
    records: Iterator[tuple[int, list[str]]], lines: _Lines, width: int
) -> tuple[list[int], list[str | None], list[str | None]] | None:
    """The next batch's lines, cells and problems; None at the end.

    The cells of all rows stand one after the other, `width` to a row: a list kept for every row would
    cost more in garbage collection than reading the file does.
    """
    numbers: list[int] = []
    cells: list[str | None] = []
    problems: list[str | None] = []
    for line, fields in islice(records, BATCH_ROWS):
        numbers.append(line)
        if len(fields) == width:
            cells += fields
            problems.append(None)
        else:
            text = "".join(lines.record).rstrip("\r\n")
            problem = f"{len(fields)} field{'s' if len(fields) > 1 else ''} instead of {width}: {text}"
            cells += [*fields, *[None] * width][:width]
            problems.append(problem[:PROBLEM_LENGTH])
    return (numbers, cells, problems) if numbers else None


def _check_unchanged(columns: tuple[str, ...], head: FileHead) -> None:
    if columns != head.columns:
        raise UnreadableFileError("changed while it was being read; land it again under a name of its own")


# --- parquet


def _parquet_head(path: Path) -> tuple[None, tuple[str, ...], bool]:
    with _refusals(), pq.ParquetFile(path) as file:
        columns = tuple(name.strip() for name in file.schema_arrow.names)
        return None, columns, file.metadata.num_rows > 0


def _parquet_batches(path: Path, head: FileHead, needed: Sequence[str]) -> Iterator[_Part]:
    with _refusals(), pq.ParquetFile(path, page_checksum_verification=True) as file:
        names = file.schema_arrow.names
        _check_unchanged(tuple(name.strip() for name in names), head)
        stored = {name: names[head.columns.index(name)] for name in needed}
        done = 0
        for batch in file.iter_batches(BATCH_ROWS, columns=list(stored.values())):
            columns = {name: _as_text(name, batch.column(own)) for name, own in stored.items()}
            yield range(done + 1, done + len(batch) + 1), columns, pa.nulls(len(batch), pa.string())
            done += len(batch)
        if done != file.metadata.num_rows:
            raise UnreadableFileError(
                f"the parquet file is corrupt: {done} rows instead of {file.metadata.num_rows}; land it again"
            )


def _as_text(name: str, values: pa.Array) -> pa.Array:
    """A parquet column as text that reads back to the same values; nulls stay null."""
    try:
        values.validate(full=True)
        if pa.types.is_dictionary(values.type):
            values = values.dictionary_decode()
        if pa.types.is_floating(values.type):
            return _float_text(values)
        if pa.types.is_decimal(values.type):
            plain = [None if value is None else format(value, "f") for value in values.to_pylist()]
            return pa.array(plain, pa.string())
        text = values.cast(pa.string())
        return _iso_text(text) if pa.types.is_timestamp(values.type) else text
    except pa.ArrowException as error:
        raise UnreadableFileError(
            f"the column {name!r} of type {values.type} cannot be read as text ({error})"
        ) from None


def _float_text(values: pa.Array) -> pa.Array:
    """The shortest text that reads back; whole numbers as integers, since keys may be stored as floats."""
    wide = values.cast(pa.float64())
    text = pc.if_else(pc.is_nan(wide), "NaN", values.cast(pa.string()))
    whole = pc.and_(pc.equal(wide, pc.trunc(wide)), pc.less(pc.abs(wide), EXACT_WHOLE))
    digits = pc.if_else(whole, wide, 0).cast(pa.int64()).cast(pa.string())
    return pc.if_else(whole, digits, text)


def _iso_text(text: pa.Array) -> pa.Array:
    for pattern, replacement in ISO_REWRITES:
        text = pc.replace_substring_regex(text, pattern, replacement)
    return text
