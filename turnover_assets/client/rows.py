"""Rows of an answer, as a pandas or Arrow table or as plain records, and where they come from.

What belongs here: the pages of an answer put together. What does not: asking for them (client.py).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from importlib.util import find_spec
from io import BytesIO
from typing import TYPE_CHECKING, Any, Self

import httpx

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

ARROW, JSON = "application/vnd.apache.arrow.stream", "application/json"
DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
Records = list[dict[str, Any]]


@dataclass(frozen=True)
class Served:
    """Where an answer comes from.

    Attributes:
        snapshot: Name of the snapshot.
        cutoff: Last period known to its forecasts.
        model_version: Version of the champion that made them.
        data_version: Fingerprint of what they were made from.
    """

    snapshot: str
    cutoff: date
    model_version: int
    data_version: str

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> Self:
        """From the headers of an answer."""
        return cls(
            headers["x-turnover-snapshot"],
            date.fromisoformat(headers["x-turnover-cutoff"]),
            int(headers["x-turnover-model-version"]),
            headers["x-turnover-data-version"],
        )


class Rows:
    """The rows of an answer; all of them are of one snapshot.

    Args:
        served: Where they come from.
        pages: Arrow tables, or records where pyarrow is not installed.
        notes: What else a JSON answer says beside its rows, such as warnings.

    Attributes:
        served: Where they come from.
        notes: What else the answer says.
    """

    def __init__(
        self, served: Served, pages: "Sequence[pa.Table | Records]", notes: Mapping[str, Any] | None = None
    ) -> None:
        self.served, self.notes = served, dict(notes or {})
        self._pages = pages

    def __len__(self) -> int:
        return sum(len(page) for page in self._pages)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.to_records())

    def __repr__(self) -> str:
        return f"<{len(self):,} rows of {self.served.snapshot}>"

    def to_records(self) -> Records:
        """The rows as dictionaries."""
        found: Records = []
        for page in self._pages:
            found += page if isinstance(page, list) else page.to_pylist()
        return found

    @cached_property
    def _table(self) -> "pa.Table":
        import pyarrow as pa

        pages = [pa.Table.from_pylist(page) if isinstance(page, list) else page for page in self._pages]
        return pa.concat_tables(pages, promote_options="default")

    def to_arrow(self) -> "pa.Table":
        """The rows as an Arrow table."""
        return self._table

    def to_pandas(self) -> "pd.DataFrame":
        """The rows as a frame; dates are timestamps, and what the answer came from is in `attrs`."""
        import pandas as pd

        if find_spec("pyarrow"):
            frame: pd.DataFrame = self._table.to_pandas(date_as_object=False)
        else:
            frame = pd.DataFrame(self.to_records())
            for name in [name for name in frame if any(isinstance(each, date) for each in frame[name])]:
                frame[name] = pd.to_datetime(frame[name])
        frame.attrs["served"] = vars(self.served) | {"cutoff": str(self.served.cutoff)}
        return frame


def accepted() -> str:
    """The format to ask for: Arrow, which keeps all types, where it can be read."""
    return ARROW if find_spec("pyarrow") else JSON


def page_of(response: httpx.Response) -> "pa.Table | Records":
    """The rows of one answer."""
    if response.headers["content-type"].startswith(ARROW):
        import pyarrow as pa

        return pa.ipc.open_stream(BytesIO(response.content)).read_all()
    return with_dates(response.json()["data"])


def with_dates(records: Records) -> Records:
    """Records of JSON, in which a column of texts that all are dates is one of dates, as in Arrow.

    Example:
        >>> with_dates([{"week": "2017-06-17", "shop": "a"}])
        [{'week': datetime.date(2017, 6, 17), 'shop': 'a'}]
    """
    names = dict.fromkeys(name for row in records for name in row)
    dated = {name for name in names if _are_dates([row.get(name) for row in records])}
    return [
        {name: date.fromisoformat(each) if name in dated and each else each for name, each in row.items()}
        for row in records
    ]


def _are_dates(values: list[Any]) -> bool:
    given = [value for value in values if value is not None]
    return bool(given) and all(isinstance(value, str) and _is_date(value) for value in given)


def _is_date(text: str) -> bool:
    try:
        return bool(DATE.fullmatch(text)) and date.fromisoformat(text) is not None
    except ValueError:
        return False
