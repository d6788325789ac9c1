"""What a newer release changes in a warehouse that an older one made: numbered steps, each a small function.

What belongs here: the steps of the warehouse, and the rule by which steps are made. What does not: the steps
of the home around it and its file of its own (home_layout.py), and opening the warehouse (warehouse.py).

A change of tables that the code cannot take as they are gets the next number here, and a test with a home
that the release before made. Steps stay for ever: a home may skip releases.

Invariants:
    - steps are made in the order of their numbers, each once, all in one transaction: a kill leaves the old;
    - a step does no harm where it was made before, as it is where a warehouse has lost its number;
    - what a release does not know, it refuses before anything is changed.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import duckdb

from turnover_assets import __version__
from turnover_assets.errors import NewerHomeError

FIRST_VERSION = 1  # of release 0.1.0
SCHEMAS = ("raw", "cleaned", "features", "forecasts", "reports", "monitoring", "meta")
Step = Callable[[duckdb.DuckDBPyConnection], None]


def _make_schemas(con: duckdb.DuckDBPyConnection) -> None:
    for schema in SCHEMAS:
        con.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")


def _from_first_release(con: duckdb.DuckDBPyConnection) -> None:
    """Release 0.1.0 judged models on a holdout and took its bounds from residuals; both tables are dead."""
    _make_schemas(con)  # it had no `monitoring`
    for table in ("features.holdout", "forecasts.residual_quantiles"):
        con.execute(f"DROP TABLE IF EXISTS {table}")


STEPS: Mapping[int, Step] = {2: _from_first_release}
SCHEMA_VERSION = max(STEPS)


def migrate_warehouse(
    con: duckdb.DuckDBPyConnection, path: Path, steps: Mapping[int, Step] | None = None
) -> None:
    """Bring a warehouse to the schema of this release, or make the schema where there is none.

    Args:
        con: The open warehouse, outside of a transaction.
        path: Its file, for messages.
        steps: In place of this release's steps; the greatest number is the version to reach.

    Raises:
        NewerHomeError: A newer release has migrated it; nothing was changed.
    """
    steps = STEPS if steps is None else steps
    wanted, version = max(steps), warehouse_version(con)
    if version == wanted:
        return
    if version is not None and version > wanted:
        raise NewerHomeError(f"The warehouse {path}", version, wanted, "", __version__)
    con.execute("BEGIN TRANSACTION")
    try:
        if version is None:
            _make_schemas(con)
            con.execute("CREATE TABLE meta.schema (version INTEGER NOT NULL)")
        for number in sorted(steps):
            if version is not None and number > version:
                steps[number](con)
        con.execute("INSERT INTO meta.schema VALUES (?)", [wanted])
        con.execute("COMMIT")
    except BaseException:
        roll_back(con)
        raise


def roll_back(con: duckdb.DuckDBPyConnection) -> None:
    """Roll the transaction back, also where the connection cannot do so any more."""
    try:
        con.execute("ROLLBACK")
    except duckdb.Error:  # the connection is beyond use; closing it discards the transaction
        return


def warehouse_version(con: duckdb.DuckDBPyConnection) -> int | None:
    """The version that a warehouse carries; None where it is new."""
    known = con.execute(
        "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'meta' AND table_name = 'schema'"
    ).fetchall()[0][0]
    if not known:
        return None
    found = con.execute("SELECT max(version) FROM meta.schema").fetchall()[0][0]
    return FIRST_VERSION if found is None else int(found)
