"""What both kinds of landed file share: opening them, and turning every failure into a reason.

What belongs here: access to a file's bytes, UnreadableFileError from whatever the operating system, gzip
and Arrow raise, and the shape in which _csv.py and _parquet.py hand rows to reader.py. What does not:
any one format.
"""

import errno
import gzip
import io
import stat
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from turnover_assets.errors import UnreadableFileError

PROBLEM_LENGTH = 200

# Line numbers, text by name in the file, and what is wrong with each row (null for a good one).
Part = tuple[Sequence[int], dict[str, pa.Array], pa.Array]


@contextmanager
def refusals() -> Iterator[None]:
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
        first = shortened((str(error).splitlines() or [""])[0], PROBLEM_LENGTH)
        raise UnreadableFileError(
            f"the parquet file is truncated or corrupt ({first}); land it again"
        ) from None


def open_file(path: Path) -> io.BufferedReader:
    """Open a file for reading; a pipe or device, which could block for ever, is refused."""
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "Is a directory")
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "Not a regular file")
    return path.open("rb")


def check_unchanged(columns: tuple[str, ...], before: tuple[str, ...]) -> None:
    """Make sure that the columns are those that the head of the file had.

    Raises:
        UnreadableFileError: They are not.
    """
    if columns != before:
        raise UnreadableFileError("changed while it was being read; land it again under a name of its own")


def listed(names: Iterable[str]) -> str:
    """Names in quotation marks, with commas between them."""
    return ", ".join(repr(name) for name in names)


def shortened(text: str, length: int) -> str:
    """The text in one line, cut to a length where it is longer; what cannot be shown is a question mark."""
    text = "".join(c if c.isprintable() else "?" for c in text[: length + 1])
    return text if len(text) <= length else text[: length - 1] + "…"
