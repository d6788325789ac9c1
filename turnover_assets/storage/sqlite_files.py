"""SQLite files that others write: opened for reading only, so that nothing is made or changed.

What belongs here: that one way to open them. What does not: what is asked of them.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path


@contextmanager
def reading(path: Path, timeout: float = 5.0) -> Iterator[sqlite3.Connection]:
    """A connection that can only read, closed where the block ends.

    Args:
        path: The file, absolute.
        timeout: Seconds to wait for a writer.

    Raises:
        sqlite3.Error: The file is not there or cannot be read.
    """
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=timeout)) as connection:
        yield connection
