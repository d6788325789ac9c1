"""MLflow's records from one store to another, whole: how a backup takes those that are in Postgres, and back.

What belongs here: copying every table as it is. What does not: what the records mean (registry.py), and the
addresses of files in them (backup.py).

Both stores must have the tables of the MLflow that is installed; one of another release is refused by it.

Invariants:
    - what is copied from Postgres is of one moment, whoever writes meanwhile;
    - the target has all of it or what it had before: one transaction puts it in.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from turnover_assets.errors import TurnoverError
from turnover_assets.storage import _mlflow

if TYPE_CHECKING:
    import sqlalchemy as sa

ROWS_AT_ONCE = 1000


def records_to_file(database: str, folder: Path) -> Path:
    """Copy MLflow's records from Postgres into mlflow.db, in a folder that has none yet.

    Args:
        database: Address of the database, as Settings.mlflow_database gives it.
        folder: The folder.

    Returns:
        The file.

    Raises:
        TurnoverError: The records cannot be read, or are of another MLflow.
    """
    with _told():
        _make_tables(folder, database)
        _make_tables(folder)
        _copy(database, _address(folder))
    return folder / "mlflow.db"


def records_to_database(folder: Path, database: str) -> None:
    """Put the records of a folder's mlflow.db, which nobody uses, into Postgres, in place of what is there.

    Args:
        folder: The folder.
        database: Address of the database, as Settings.mlflow_database gives it.

    Raises:
        TurnoverError: The records cannot be written, or are of another MLflow; the database is as before.
    """
    with _told():
        _make_tables(folder)
        _make_tables(folder, database)
        _copy(_address(folder), database)


def _address(folder: Path) -> str:
    return f"sqlite:///{folder / 'mlflow.db'}"


def _make_tables(folder: Path, database: str = "") -> None:
    """Let MLflow make its tables where there are none, and refuse those of another release of it."""
    next(_mlflow.experiments(_mlflow.connect(folder, database)), None)


@contextmanager
def _told() -> Iterator[None]:
    """What MLflow or SQLAlchemy raises, as an error that names neither tables nor the password."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import DBAPIError

    try:
        yield
    except MlflowException as error:
        raise TurnoverError(f"MLflow's records cannot be copied: {error.message}") from None
    except DBAPIError as error:
        first = str(error.orig).splitlines()[0]
        raise TurnoverError(
            f"MLflow's records cannot be copied ({first}). See that the database runs, and that its user may "
            "write there; then do the same again."
        ) from error


def _copy(source: str, target: str) -> None:
    """Put every row of a store into another, in place of its own."""
    import sqlalchemy as sa
    from mlflow.store.db.base_sql_model import Base

    tables = Base.metadata.sorted_tables  # what others refer to comes first
    engines = [sa.create_engine(address, poolclass=sa.NullPool) for address in (source, target)]
    with engines[0].connect() as reading, engines[1].begin() as writing:
        if reading.dialect.name == "postgresql":
            reading = reading.execution_options(isolation_level="REPEATABLE READ", stream_results=True)
        for table in reversed(tables):
            writing.execute(table.delete())
        for table in tables:
            columns = [column for column in table.columns if column.computed is None]
            for rows in reading.execute(sa.select(*columns)).mappings().partitions(ROWS_AT_ONCE):
                writing.execute(table.insert(), [dict(row) for row in rows])
            if writing.dialect.name == "postgresql":
                _go_on_counting(writing, table)


def _go_on_counting(connection: "sa.Connection", table: "sa.Table") -> None:
    """Let the next number that Postgres gives be beyond those that were copied."""
    import sqlalchemy as sa

    column = table.autoincrement_column
    if column is None:
        return
    sequence = connection.scalar(sa.select(sa.func.pg_get_serial_sequence(table.name, column.name)))
    newest = connection.scalar(sa.select(sa.func.max(column)))
    if sequence is not None and newest is not None:
        connection.execute(sa.select(sa.func.setval(sequence, sa.func.greatest(newest, 1))))
