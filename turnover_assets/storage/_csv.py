"""Landed text: delimiters, line ends, encodings, and records with the line where they start.

What belongs here: everything that is about csv and csv.gz. What does not: which table a file belongs to
(reader.py) and what its values mean (cleaning).
"""

import csv
import gzip
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import pyarrow as pa

from turnover_assets.errors import UnreadableFileError
from turnover_assets.panel import PanelSpec
from turnover_assets.storage._files import PROBLEM_LENGTH, Part, check_unchanged, open_file, refusals

DELIMITERS = (",", ";")
BLOCK_BYTES = 1 << 20
LONGEST_LINE = 1 << 20
LONGEST_RECORD = 1 << 20  # over how many lines it may be spread, quotation marks can swallow a whole file
MOST_COLUMNS = 10_000
BATCH_CELLS, BATCH_BYTES = 4_000_000, 64 << 20  # a batch of wide or long rows ends early
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


class _Lines:
    """The physical lines of a UTF-8 text, with their ends: LF, CR LF or CR, also mixed.

    Iterating gives the lines to csv.reader. It splits and decodes about a megabyte at a time, so
    memory is bounded by that, by the longest line and by the longest record.

    Attributes:
        record: The lines given out since the list was last cleared.
        taken: Bytes split into lines so far.
    """

    def __init__(self, stream: io.BufferedIOBase) -> None:
        self.record: list[str] = []
        self.taken = 0
        self._stream = stream
        self._before = 0
        start = stream.read(4)
        for magic, what in FOREIGN.items():
            if start.startswith(magic):
                raise UnreadableFileError(f"is {what}")
        self._start = start.removeprefix(UTF8_BOM)

    def __iter__(self) -> Iterator[str]:
        for block in self._blocks():
            if sum(map(len, self.record)) > LONGEST_RECORD:
                raise UnreadableFileError(
                    f"the row that starts in line {self._before + 1 - len(self.record)} is longer than "
                    f"{LONGEST_RECORD} characters; check its quotation marks and land the file again"
                )
            self.taken += len(block)
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


def csv_head(path: Path, file_format: str, panel: PanelSpec) -> tuple[str, tuple[str, ...], bool]:
    """Delimiter, column names, and whether a row follows them.

    Raises:
        UnreadableFileError: There is no header that can be read.
    """
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
    if (count := len(headers[chosen])) > MOST_COLUMNS:
        raise UnreadableFileError(f"names {count} columns, of at most {MOST_COLUMNS}; is this a csv file?")
    with _csv_lines(path, file_format) as lines:
        has_rows = any(True for _ in islice(_records(lines, chosen), 1, 2))
    return chosen, headers[chosen], has_rows


def _choose_delimiter(headers: Mapping[str, tuple[str, ...]], panel: PanelSpec) -> str:
    """The delimiter under which the header fits a table, else the one that gives more columns."""
    tables = [set(names.values()) for names in panel.tables.values()]
    fitting = [mark for mark, names in headers.items() if any(table <= set(names) for table in tables)]
    return max(fitting or headers, key=lambda mark: len(headers[mark]))


def csv_batches(
    path: Path, file_format: str, delimiter: str, columns: tuple[str, ...], needed: Sequence[str], rows: int
) -> Iterator[Part]:
    """The rows in parts of `rows`: the columns `needed`, of those that the head found.

    Raises:
        UnreadableFileError: From the iterator, as soon as a part cannot be read.
    """
    with _csv_lines(path, file_format) as lines:
        records = _records(lines, delimiter)
        check_unchanged(_header(records), columns)
        width = len(columns)
        while part := _next_rows(islice(records, rows), lines, width):
            numbers, cells, problems = part
            texts = {name: pa.array(cells[columns.index(name) :: width], pa.string()) for name in needed}
            yield numbers, texts, pa.array(problems, pa.string())


def _next_rows(
    records: Iterator[tuple[int, list[str]]], lines: _Lines, width: int
) -> tuple[list[int], list[str | None], list[str | None]] | None:
    """The next batch's lines, cells and problems; None at the end.

    The cells of all rows stand one after the other, `width` to a row: a list kept for every row would
    cost more in garbage collection than reading the file does.
    """
    until = lines.taken + BATCH_BYTES
    numbers: list[int] = []
    cells: list[str | None] = []
    problems: list[str | None] = []
    for line, fields in records:
        numbers.append(line)
        if len(fields) == width:
            cells += fields
            problems.append(None)
        else:
            text = "".join(lines.record).rstrip("\r\n")
            problem = f"{len(fields)} field{'s' if len(fields) > 1 else ''} instead of {width}: {text}"
            cells += [*fields, *[None] * width][:width]
            problems.append(problem[:PROBLEM_LENGTH])
        if len(cells) > BATCH_CELLS or lines.taken > until:
            break
    return (numbers, cells, problems) if numbers else None


def _header(records: Iterator[tuple[int, list[str]]]) -> tuple[str, ...]:
    _, fields = next(records, (0, []))
    return tuple(name.strip() for name in fields)


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


@contextmanager
def _csv_lines(path: Path, file_format: str) -> Iterator[_Lines]:
    with refusals(), open_file(path) as raw:
        if file_format == "csv.gz":
            with gzip.GzipFile(fileobj=raw) as unpacked:
                yield _Lines(unpacked)
        else:
            yield _Lines(raw)
