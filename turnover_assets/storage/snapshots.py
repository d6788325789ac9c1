"""Published snapshots: immutable folders of Parquet files, and the CURRENT pointer to one of them.

What belongs here: writing a snapshot whole or not at all, moving the pointer, reading through it. What
does not: what the tables say. Readers use this module and never open the warehouse.

Invariants:
    - a snapshot folder has its final name only once every file in it is on disk;
    - CURRENT is replaced in one step, after that, and names a whole snapshot at any moment;
    - a published snapshot is never changed, and never removed while a reader has a lease on it;
    - what a killed writer left is removed by the next one, and what a live one writes is not.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import duckdb
import pandas as pd
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from turnover_assets.errors import NoSnapshotError, PublishError, UnknownNameError
from turnover_assets.storage.digests import file_sha256
from turnover_assets.storage.durable import (
    PARTIAL,
    exclusive,
    remove_partial,
    replace_file,
    shared,
    sync,
    writing_into,
)
from turnover_assets.storage.published_model import MODEL_FOLDER, PublishedModel

CURRENT = "CURRENT"
FACTS = "snapshot.json"
LEASE_ATTEMPTS = 10  # each one after the first follows a pruning of just what CURRENT had named


@dataclass(frozen=True)
class Snapshot:
    """One published snapshot.

    Attributes:
        folder: Its folder.
        facts: What snapshot.json says: `id`, `created_at`, `cutoff`, versions, and `tables` with rows and
            SHA-256 of each file; `model` has the champion's `files` with the same (see published_model.py),
            which a snapshot of an earlier release lacks.
    """

    folder: Path
    facts: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The snapshot's id, which is also its folder's name."""
        return self.folder.name

    def path(self, table: str) -> Path:
        """File of a published table.

        Raises:
            UnknownNameError: There is no such table; the message lists those there are.
        """
        if table not in self.facts["tables"]:
            raise UnknownNameError("published table", table, list(self.facts["tables"]))
        return self.folder / f"{table}.parquet"

    def check_digests(self) -> None:
        """Make sure that every table is as it was published, byte for byte.

        Raises:
            NoSnapshotError: One is not, or cannot be read.
        """
        for table, noted in self.facts["tables"].items():
            try:
                found = file_sha256(self.path(table))
            except OSError as error:
                found = error.strerror or str(error)
            if found != noted["sha256"]:
                raise NoSnapshotError(
                    f"The table {table} of the published snapshot {self.name!r} is not as it was published "
                    f"(SHA-256 {noted['sha256'][:12]}…, found {found[:80]}). Run `turnover run` to publish a "
                    "new one."
                )

    @property
    def files(self) -> Mapping[str, Mapping[str, Any]]:
        """Every file of it but snapshot.json, by its path below the folder: `bytes` and `sha256`."""
        return published_files(self.facts)

    def read(self, table: str) -> pd.DataFrame:
        """A published table, whole."""
        found: pd.DataFrame = pq.read_table(self.path(table)).to_pandas()
        return found

    def export(self, table: str, target: Any, file_format: str) -> None:
        """Write a table to a path or a binary stream, as `csv` or `parquet`, in bounded memory."""
        with pq.ParquetFile(self.path(table)) as source:
            writer = (
                pa_csv.CSVWriter(target, source.schema_arrow)
                if file_format == "csv"
                else pq.ParquetWriter(target, source.schema_arrow)
            )
            with writer:
                for batch in source.iter_batches():
                    writer.write_batch(batch)


def published_files(facts: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The files that snapshot.json names: tables and the model's; see Snapshot.files."""
    tables = {f"{table}.parquet": noted for table, noted in facts["tables"].items()}
    model = facts.get("model", {}).get("files", {})
    return tables | {f"{MODEL_FOLDER}/{name}": noted for name, noted in model.items()}


def current(published: Path) -> Snapshot:
    """The snapshot that CURRENT names.

    Raises:
        NoSnapshotError: Nothing is published, or what CURRENT names is not there.
    """
    return read_snapshot(published, _current_name(published))


def _current_name(published: Path) -> str:
    try:
        return (published / CURRENT).read_text("utf-8").strip()
    except FileNotFoundError:
        raise NoSnapshotError(
            f"Nothing has been published in {published} yet. Run `turnover run` first, or point "
            "TURNOVER_HOME to another data home."
        ) from None
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or error
        raise NoSnapshotError(
            f"{published / CURRENT} cannot be read ({problem}). Run `turnover run` to publish a new snapshot."
        ) from None


def read_snapshot(published: Path, name: str) -> Snapshot:
    """A snapshot by its id.

    Raises:
        NoSnapshotError: It is not there, or its facts cannot be read.
    """
    folder = published / name
    try:
        facts = json.loads((folder / FACTS).read_text("utf-8"))
        for table, noted in facts["tables"].items():
            _check_size(folder / f"{table}.parquet", noted["bytes"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise NoSnapshotError(
            f"The published snapshot {name!r} in {published} cannot be read ({error}). "
            "Run `turnover run` to publish a new one."
        ) from None
    return Snapshot(folder, facts)


def _check_size(path: Path, published: int) -> None:
    if (size := path.stat().st_size) != published:
        raise ValueError(f"{path.name} has {size} bytes, not the {published} that were published")


@contextmanager
def lease(published: Path, name: str | None = None) -> Iterator[Snapshot]:
    """A snapshot that is not removed before the block ends.

    Args:
        published: Folder of the snapshots.
        name: Its id; the current one where left out.

    Raises:
        NoSnapshotError: It is not there, or cannot be read.
    """
    with ExitStack() as leaving:
        yield _leased(published, name, leaving)


def _leased(published: Path, name: str | None, leaving: ExitStack) -> Snapshot:
    """Take a lease; where pruning was quicker, of what CURRENT names now."""
    for _ in range(LEASE_ATTEMPTS):
        wanted = name or _current_name(published)
        with suppress(OSError):
            leaving.enter_context(shared(published / wanted / FACTS))
            # Only now, since until the lease was taken the folder might have been removed.
            if (published / wanted / FACTS).is_file():
                return read_snapshot(published, wanted)
        if name or wanted == _current_name(published):
            break
    return read_snapshot(published, wanted)


def find_current(published: Path) -> Snapshot | None:
    """Like current, but None where nothing whole is published."""
    try:
        return current(published)
    except NoSnapshotError:
        return None


def publish(
    con: duckdb.DuckDBPyConnection,
    published: Path,
    queries: Mapping[str, str],
    facts: Mapping[str, Any],
    model: PublishedModel | None = None,
) -> Snapshot:
    """Write a new snapshot and make it current.

    Args:
        con: Connection to the tables; a query's result is copied without passing through memory.
        published: Folder of the snapshots.
        queries: For each published table the SQL that makes it.
        facts: Versions and other facts to keep beside the tables; must have `cutoff`.
        model: The model that made the forecasts; left out, the snapshot serves look-ups only.

    Raises:
        PublishError: It could not be written; what was current stays so and nothing partial is left.
    """
    created = datetime.now(UTC)
    name = f"{facts['cutoff']}_{created:%Y%m%dT%H%M%S}_{uuid4().hex[:6]}"
    about = {"id": name, "created_at": created.isoformat(), **facts}
    try:
        with writing_into(published):
            _write(con, published, name, queries, about, model)
    except (OSError, duckdb.IOException) as error:
        problem = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise PublishError(
            f"The snapshot could not be written to {published}: {problem}. The one published before stays "
            "current and nothing was lost; make room or permit writing there, then run again."
        ) from error
    return read_snapshot(published, name)


def _write(
    con: duckdb.DuckDBPyConnection,
    published: Path,
    name: str,
    queries: Mapping[str, str],
    about: Mapping[str, Any],
    model: PublishedModel | None,
) -> None:
    """Write a snapshot's folder, give it its name, and point to it; where that fails nothing of it stays."""
    partial = published / f"{PARTIAL}{name}"
    try:
        partial.mkdir()
        tables = {table: _write_table(con, partial, table, query) for table, query in queries.items()}
        said = {**about, **_model_facts(published, partial, about, model), "tables": tables}
        (partial / FACTS).write_text(json.dumps(said, indent=2, default=str), "utf-8")
        sync(partial / FACTS, partial)
        partial.rename(published / name)
        sync(published)
        replace_file(published / CURRENT, f"{name}\n")
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        if not _is_current(published, name):
            shutil.rmtree(published / name, ignore_errors=True)
        raise


def _model_facts(
    published: Path, partial: Path, about: Mapping[str, Any], model: PublishedModel | None
) -> dict[str, Any]:
    """Write the model, and what is said of it in place of what was."""
    if model is None:
        return {}
    before = find_current(published)
    files = model.write(partial, before.folder if before else None)
    return {"model": {**about.get("model", {}), "files": files}}


def _is_current(published: Path, name: str) -> bool:
    now = find_current(published)
    return now is not None and now.name == name


def _write_table(con: duckdb.DuckDBPyConnection, folder: Path, table: str, query: str) -> dict[str, Any]:
    path = folder / f"{table}.parquet"
    con.execute(
        f"COPY ({query}) TO '{str(path).replace(chr(39), chr(39) * 2)}' (FORMAT parquet, COMPRESSION zstd)"
    )
    sync(path)
    size, digest = path.stat().st_size, file_sha256(path)
    return {"rows": pq.read_metadata(path).num_rows, "bytes": size, "sha256": digest}


def prune(published: Path, keep: int) -> list[str]:
    """Remove the oldest snapshots beyond `keep`, never the current one or one that a reader has open.

    What cannot be removed now is left for a later pruning; so is everything while another process publishes.

    Args:
        published: Folder of the snapshots.
        keep: How many are left at most, the current one and those being read among them; at least 1.

    Returns:
        Names of those removed, oldest first.
    """
    with exclusive(published) as alone:
        if not alone:
            return []
        removed = [folder.name for folder in beyond(published, keep) if _set_aside(folder)]
        remove_partial(published)
    return removed


def beyond(published: Path, keep: int) -> list[Path]:
    """Folders of the oldest snapshots beyond `keep`, without the current one, oldest first; see prune."""
    now = find_current(published)
    whole = [path.parent for path in published.glob(f"[!.]*/{FACTS}")]
    others = sorted((folder for folder in whole if not now or folder != now.folder), key=_age)
    return others[: max(0, len(whole) - max(1, keep))]


def _set_aside(folder: Path) -> bool:
    """Take a snapshot's name from it, in one step, unless a reader has a lease on it."""
    with exclusive(folder / FACTS) as unread:
        if not unread:
            return False
        try:
            folder.rename(folder.with_name(f"{PARTIAL}{folder.name}"))
        except OSError:
            return False
    return True


def _age(folder: Path) -> tuple[str, str]:
    """Sorts the oldest first, and before them what cannot be read; copies keep their age."""
    try:
        return str(read_snapshot(folder.parent, folder.name).facts["created_at"]), folder.name
    except (NoSnapshotError, KeyError):
        return "", folder.name
