"""The rows of each series ready to be sent.

What belongs here: finding the rows of a series, and encoding them once. What does not: requests (lean.py).
"""

from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa

from turnover_assets.serving.formats import FORMATS, json_document, json_rows, without_nan
from turnover_assets.serving.origin import CACHING, Origin, entity_tag
from turnover_assets.serving.roles import ROLE_HEADER, said_role

KEPT_BODIES = 200_000  # encoded answers that are kept of a table; others are encoded each time
JSON = FORMATS["json"]
Headers = list[tuple[bytes, bytes]]


class Lookups:
    """The rows of a table by series, each series' encoded when it is first asked for.

    Args:
        table: The rows, sorted by the series keys.
        keys: Names of the series keys.
        origin: Where they come from.
    """

    def __init__(self, table: pa.Table, keys: tuple[str, ...], origin: Origin) -> None:
        self._table = without_nan(table).combine_chunks()
        self._ranges = _ranges(table, keys)
        self._origin = origin.document()
        self._bodies: dict[tuple[bytes, ...], bytes] = {}
        self.tag = entity_tag(origin, JSON)
        headers = {**origin.headers, **CACHING, "ETag": self.tag}
        if "role" in table.column_names and table.num_rows:
            headers[ROLE_HEADER] = said_role(set(table["role"].to_pylist()))
        self.headers: Headers = [(name.lower().encode(), value.encode()) for name, value in headers.items()]

    def body(self, series: tuple[bytes, ...]) -> bytes | None:
        """The JSON answer for a series, its keys as they stand in an address; None where it has no rows."""
        found = self._bodies.get(series)
        if found is None and (rows := self._ranges.get(series)) is not None:
            part = json_rows(self._table.slice(rows[0], rows[1] - rows[0]))
            found = json_document(self._origin, part, None)
            if len(self._bodies) < KEPT_BODIES:
                self._bodies[series] = found
        return found


def _ranges(table: pa.Table, keys: tuple[str, ...]) -> dict[tuple[bytes, ...], tuple[int, int]]:
    """First row of each series and the one after its last, by its keys as they stand in an address."""
    if not table.num_rows:
        return {}
    columns = [table[key].to_numpy(zero_copy_only=False) for key in keys]
    changes = np.logical_or.reduce([column[1:] != column[:-1] for column in columns])
    starts = np.concatenate([[0], np.flatnonzero(changes) + 1])
    ends = np.concatenate([starts[1:], [table.num_rows]])
    texts = ([_in_address(value) for value in column[starts].tolist()] for column in columns)
    rows = zip(starts.tolist(), ends.tolist(), strict=True)
    return dict(zip(zip(*texts, strict=True), rows, strict=True))


def _in_address(value: Any) -> bytes:
    """A key as it stands in an address, escaped: `A+` there is another key, the text `A `."""
    if isinstance(value, bool):
        return b"true" if value else b"false"
    return quote(str(value), safe="").encode()
