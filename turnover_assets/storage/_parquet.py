"""Landed parquet: its columns as text that reads back to the same values.

What belongs here: everything that is about parquet and Arrow types. What does not: which table a file
belongs to (reader.py) and what its values mean (cleaning).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from turnover_assets.errors import UnreadableFileError
from turnover_assets.storage._files import Part, check_unchanged, refusals

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
    with refusals(), pq.ParquetFile(path, page_checksum_verification=True) as file:
        names = file.schema_arrow.names
        check_unchanged(tuple(name.strip() for name in names), columns)
        stored = {name: names[columns.index(name)] for name in needed}
        # No look at file.metadata.row_group(…).column(…): with damaged metadata it ends the process.
        done = 0
        for batch in file.iter_batches(rows, columns=list(stored.values())):
            texts = {name: _as_text(name, batch.column(own)) for name, own in stored.items()}
            yield range(done + 1, done + len(batch) + 1), texts, pa.nulls(len(batch), pa.string())
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
