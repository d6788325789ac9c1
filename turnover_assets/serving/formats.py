"""Formats of answers with rows: JSON, CSV, Arrow and Parquet, and which of them a request wants.

What belongs here: choosing and encoding. What does not: which rows (answers.py).
"""

from dataclasses import dataclass
from io import BytesIO
from typing import Any, Literal, get_args

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from pydantic_core import to_json

from turnover_assets.serving.problems import Problem

FormatName = Literal["json", "csv", "arrow", "parquet"]
FORMAT_NAMES: tuple[FormatName, ...] = get_args(FormatName)


@dataclass(frozen=True)
class Format:
    """A format.

    Attributes:
        name: How the parameter `format` calls it.
        media_type: How the header Accept calls it.
        content_type: The header Content-Type of an answer.
    """

    name: FormatName
    media_type: str
    parameters: str = ""

    @property
    def content_type(self) -> str:
        """The header Content-Type of an answer."""
        return self.media_type + self.parameters


FORMATS: dict[str, Format] = {
    each.name: each
    for each in (
        Format("json", "application/json"),
        Format("csv", "text/csv", "; charset=utf-8"),
        Format("arrow", "application/vnd.apache.arrow.stream"),
        Format("parquet", "application/vnd.apache.parquet"),
    )
}


def wanted_format(name: str | None, accept: str | None) -> Format:
    """The format of an answer.

    Args:
        name: The parameter `format`; goes before the header.
        accept: The header Accept; None where there is none.

    Raises:
        Problem: The header allows none of the formats.

    Example:
        >>> wanted_format(None, "text/html, text/*;q=0.5").name
        'csv'
    """
    if name is not None:
        return FORMATS[name]
    weights = {each: _weight(each, accept or "*/*") for each in FORMATS.values()}
    best = max(weights, key=lambda each: weights[each])  # the first of those that are alike
    if weights[best] == 0:
        raise Problem(
            406,
            "The header Accept allows none of the formats that there are.",
            f"Accept one of {', '.join(each.media_type for each in FORMATS.values())}, or name one with "
            "`format`.",
            field="Accept",
            value=accept,
        )
    return best


def _weight(format_: Format, accept: str) -> float:
    """How much a header Accept wants a format, 0..1; the most exact range that fits it decides."""
    kind = format_.media_type.split("/")[0]
    ranks = {"*/*": 1, f"{kind}/*": 2, format_.media_type: 3}
    found = [(0, 0.0)]
    for part in accept.split(","):
        range_, *parameters = (each.strip().lower() for each in part.split(";"))
        if range_ in ranks:
            found.append((ranks[range_], _quality(parameters)))
    return max(found)[1]


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name == "q":
            try:
                return min(1.0, max(0.0, float(value)))
            except ValueError:
                return 0.0
    return 1.0


def without_nan(table: pa.Table) -> pa.Table:
    """The same with nulls in place of values that are no number, so that all formats say the same."""
    for i, column in enumerate(table.columns):
        if pa.types.is_floating(column.type) and pc.any(pc.invert(pc.is_finite(column))).as_py():
            numbers = pc.if_else(pc.is_finite(column), column, pa.scalar(None, column.type))
            table = table.set_column(i, table.column_names[i], numbers)
    return table


def json_rows(table: pa.Table) -> bytes:
    """The rows as a JSON array of objects; dates in ISO form."""
    return to_json(table.to_pylist(), inf_nan_mode="null")


def encoded(table: pa.Table, format_: Format) -> bytes:
    """The rows in one of the formats for programs."""
    stream = BytesIO()
    if format_.name == "csv":
        pa_csv.write_csv(table, stream)
    elif format_.name == "parquet":
        pq.write_table(table, stream, compression="zstd")
    else:
        with pa.ipc.new_stream(stream, table.schema) as writer:
            writer.write_table(table)
    return stream.getvalue()


def json_document(served: dict[str, Any], rows: bytes, following: str | None) -> bytes:
    """A JSON answer: what was served, the rows, and where the next page is."""
    return b'{"served":%b,"data":%b,"next":%b}' % (to_json(served), rows, to_json(following))
