"""Pages of rows: a question, the rows after a place in it, and the token that names that place.

What belongs here: cutting a question's rows into pages. What does not: what is asked, and the answer's form.

Invariants:
    - a token names its snapshot, and pages of one question concatenated are the whole, whatever is published
      meanwhile;
    - where a page begins is told by values of the columns that order the rows, never by a count, so that the
      thousandth page costs what the first does.
"""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from hashlib import blake2b
from typing import Any

import duckdb
import pyarrow as pa

from turnover_assets.serving.problems import Problem
from turnover_assets.serving.view import Stop, View

Place = tuple[Any, ...]


@dataclass(frozen=True)
class Question:
    """Rows that are asked for.

    Attributes:
        sql: The query that gives them, in no order.
        order: Expressions over its columns that order them; never null, and together different for each row.
        values: What is bound to its parameters.
    """

    sql: str
    order: Sequence[str]
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Token:
    """Where a page begins.

    Attributes:
        snapshot: The snapshot that the pages before came from.
        digest: Fingerprint of the question.
        after: Values of the order's expressions in the last row before the page.
    """

    snapshot: str
    digest: str
    after: Place

    def text(self) -> str:
        """The token as it stands in an address."""
        after = [{"date": str(each)} if isinstance(each, date) else each for each in self.after]
        plain = json.dumps([self.snapshot, self.digest, after], separators=(",", ":"))
        return urlsafe_b64encode(plain.encode()).decode().rstrip("=")


def read_token(text: str, digest: str) -> Token:
    """A token as it stands in an address.

    Args:
        text: The token.
        digest: Fingerprint of the question that it came with.

    Raises:
        Problem: It is no token, or one of another question.
    """
    try:
        snapshot, own, after = json.loads(urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        snapshot, own, place = str(snapshot), str(own), tuple(map(_value, after))
    except (ValueError, TypeError, LookupError):
        raise no_such_page(text) from None
    if own != digest:
        raise Problem(
            404,
            "The page token is of another question than the one that came with it.",
            "Follow the link `next` as it is, or leave `page` out to start at the first page.",
            field="page",
            value=text,
        )
    return Token(snapshot, own, place)


def _value(plain: Any) -> Any:
    """A value of a place, of those that DuckDB can be given."""
    if isinstance(plain, dict):
        return date.fromisoformat(plain["date"])
    if isinstance(plain, str):
        plain.encode()
    elif not (isinstance(plain, int | float) and abs(plain) < 2**63):
        raise ValueError("not a value of a place")
    return plain


def no_such_page(text: str) -> Problem:
    """What is said of a token that none of our links has."""
    return Problem(
        404,
        "There is no page of this token.",
        "Follow the link `next` as it is, or leave `page` out to start at the first page.",
        field="page",
        value=text,
    )


def digest_of(name: str, parameters: Mapping[str, Any]) -> str:
    """Fingerprint of a question: the route's name and its parameters, without format, limit and page."""
    plain = json.dumps([name, sorted(parameters.items())], default=str)
    return blake2b(plain.encode(), digest_size=9).hexdigest()


def page_of(
    view: View, question: Question, limit: int, after: Place, stop: Stop
) -> tuple[pa.Table, Place | None]:
    """The rows after a place, at most `limit`; and the place of the last one where more follow.

    Raises:
        ValueError: The place is not one of this question.
        duckdb.InterruptException: It was stopped.
    """
    names = [f"_place_{i}" for i in range(len(question.order))]
    places = ", ".join(f"{each} AS {name}" for each, name in zip(question.order, names, strict=True))
    values = dict(question.values)
    later = "true"
    if after:
        if len(after) != len(names):
            raise ValueError("another number of values")
        values |= {f"after_{i}": value for i, value in enumerate(after)}
        bound = ", ".join(f"$after_{i}" for i in range(len(after)))
        # The first one alone lets whole row groups be left out, which the comparison of rows does not.
        later = f"{names[0]} >= $after_0 AND ({', '.join(names)}) > ({bound})"
    sql = (
        f"SELECT * FROM (SELECT *, {places} FROM ({question.sql})) WHERE {later} "
        f"ORDER BY {', '.join(names)} LIMIT {limit + 1}"
    )
    try:
        table = view.arrow(sql, values, stop)
    except (duckdb.ConversionException, duckdb.BinderException, duckdb.InvalidInputException) as error:
        if not after:
            raise
        raise ValueError(str(error)) from None  # values that cannot be compared with the columns
    rows = table.slice(0, limit)
    more = table.num_rows > limit
    last = rows.select(names).slice(limit - 1).to_pylist()[0] if more else {}
    return rows.drop_columns(names), tuple(last.values()) if more else None
