"""Landed parquet: its columns as text that reads back to the same values.

What belongs here: everything that is about parquet and Arrow types. What does not: which table a file
belongs to (reader.py) and what its values mean (cleaning).
"""

import csv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from turnover_assets.errors import UnreadableFileError
from turnover_assets.storage._files import Part, check_unchanged, refusals

TEXTS = (pa.string(), pa.binary(), pa.large_string(), pa.large_binary())
# Up to here a whole number in a float64 is exact, so its digits can be written out.
EXACT_WHOLE = 2**53
# A text may be as long as a field of csv may. Rows are read a few at a time, since only their mean size is
# known before, and put together up to so many bytes.
LONGEST_TEXT = csv.field_size_limit()
STEP_ROWS, STEP_BYTES, BATCH_BYTES = 1_000, 8 << 20, 32 << 20
# Arrow's text of a timestamp made ISO 8601, and a plain date where it is midnight.
ISO_REWRITES = (
    (r"\.0+(Z|[+-]\d{4})?$", r"\1"),
    (r"(\.\d*[1-9])0+", r"\1"),
    (r" 00:00:00(Z|[+-]\d{4})?$", ""),
    (r"([+-]\d\d)(\d\d)$", r"\1:\2"),
    (" ", "T"),
)


def parquet_head(path: Path) -> tuple[None, tuple[str, ...], bool]:
    """No delimiter, the column names, and whether there are rows.

    Raises:
        UnreadableFileError: The file is damaged.
    """
    with refusals(), pq.ParquetFile(path) as file:
        columns = tuple(name.strip() for name in file.schema_arrow.names)
        return None, columns, file.metadata.num_rows > 0


def parquet_batches(path: Path, columns: tuple[str, ...], needed: Sequence[str], rows: int) -> Iterator[Part]:
    """The rows in parts of `rows`: the columns `needed`, of those that the head found.

    Raises:
        UnreadableFileError: From the iterator, as soon as a part cannot be read.
    """
    with refusals():
        schema = pq.read_schema(path)
        check_unchanged(tuple(name.strip() for name in schema.names), columns)
        stored = {name: schema.names[columns.index(name)] for name in needed}
        for name, own in stored.items():
            _check_type(name, schema.types[schema.names.index(own)])
        # A text that stands in many rows stays in memory once until its length is known.
        with pq.ParquetFile(
            path, read_dictionary=list(stored.values()), page_checksum_verification=True
        ) as file:
            # No look at file.metadata.row_group(…).column(…): with damaged metadata it ends the process.
            done = 0
            for part in _gathered(_steps(file, stored, _step_rows(file.metadata, rows)), rows):
                texts = {name: _as_text(name, part[name].combine_chunks()) for name in stored}
                yield range(done + 1, done + len(part) + 1), texts, pa.nulls(len(part), pa.string())
                done += len(part)
            if done != file.metadata.num_rows:
                raise UnreadableFileError(
                    f"the parquet file is corrupt: {done} rows instead of {file.metadata.num_rows}; "
                    "land it again"
                )


def _check_type(name: str, kind: pa.DataType) -> None:
    """Refuse by its type what cannot become a short text, before any of it is read."""
    if pa.types.is_nested(kind) or (pa.types.is_fixed_size_binary(kind) and kind.byte_width > LONGEST_TEXT):
        raise UnreadableFileError(f"the column {name!r} of type {kind} cannot be read as text")


def _step_rows(metadata: pq.FileMetaData, rows: int) -> int:
    """How many rows to read at once, by the row group whose rows are largest."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    largest = max((group.total_byte_size // max(1, group.num_rows) for group in groups), default=0)
    return max(1, min(rows, STEP_ROWS, STEP_BYTES // max(1, largest)))


def _steps(file: pq.ParquetFile, stored: Mapping[str, str], rows: int) -> Iterator[pa.Table]:
    """A few rows at a time, each column plain and under the name that is needed."""
    for batch in file.iter_batches(rows, columns=list(stored.values())):
        columns = {name: batch.column(own) for name, own in stored.items()}
        widest = sum(_longest(name, values) for name, values in columns.items())
        height = max(1, STEP_BYTES // max(1, widest))
        for start in range(0, len(batch), height):
            yield pa.table({name: _plain(values.slice(start, height)) for name, values in columns.items()})


def _longest(name: str, values: pa.Array) -> int:
    """Bytes of the longest text that a dictionary would spread over rows; other values count as none."""
    with _as_reason(name, values.type):
        values.validate(full=True)
        if not pa.types.is_dictionary(values.type) or values.type.value_type not in TEXTS:
            return 0
        longest = int(pc.max(pc.binary_length(values.dictionary)).as_py() or 0)
    if longest > LONGEST_TEXT:
        raise UnreadableFileError(
            f"the column {name!r} holds a text of {longest} bytes, of at most {LONGEST_TEXT}"
        )
    return longest


def _plain(values: pa.Array) -> pa.Array:
    return values.dictionary_decode() if pa.types.is_dictionary(values.type) else values


def _gathered(steps: Iterator[pa.Table], rows: int) -> Iterator[pa.Table]:
    """Steps put together to `rows` rows; a part with long texts ends early."""
    waiting: list[pa.Table] = []
    count = size = 0
    for step in steps:
        count, size = count + len(step), size + step.nbytes
        if waiting and (count > rows or size > BATCH_BYTES):
            yield pa.concat_tables(waiting)
            waiting, count, size = [], len(step), step.nbytes
        waiting.append(step)
    if waiting:
        yield pa.concat_tables(waiting)


@contextmanager
def _as_reason(name: str, kind: pa.DataType) -> Iterator[None]:
    """Turn what Arrow raises on a column's values into a reason."""
    try:
        yield
    except pa.ArrowException as error:
        raise UnreadableFileError(
            f"the column {name!r} of type {kind} cannot be read as text ({error})"
        ) from None


def _as_text(name: str, values: pa.Array) -> pa.Array:
    """A parquet column as text that reads back to the same values; nulls stay null."""
    with _as_reason(name, values.type):
        if pa.types.is_floating(values.type):
            return _float_text(values)
        if pa.types.is_decimal(values.type):
            plain = [None if value is None else format(value, "f") for value in values.to_pylist()]
            return pa.array(plain, pa.string())
        text = values.cast(pa.string())
        return _iso_text(text) if pa.types.is_timestamp(values.type) else text


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
