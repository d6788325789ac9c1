"""MLflow's store in a Postgres database (TURNOVER_MLFLOW_URI): single questions to it, without MLflow.

What belongs here: asking it what MLflow would take a second of imports to tell, and saying plainly that it
cannot be reached. What does not: any change (the modules on models, through MLflow), copying (model_copy.py).
"""

from collections.abc import Sequence
from contextlib import closing
from types import ModuleType
from typing import Any

from turnover_assets.errors import TurnoverError
from turnover_assets.storage.postgres_address import ESCAPE, Parts


def ask(uri: str, query: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
    """The rows of a query that changes nothing; none where MLflow has not made its tables yet.

    Args:
        uri: Address of the database, as Settings.mlflow_database gives it.
        query: SQL, with a `%s` for each value.
        values: What is bound to it.

    Raises:
        TurnoverError: The database cannot be reached or read.
    """
    driver = _driver()
    try:
        parts = Parts.of(uri)
    except ValueError as error:
        raise TurnoverError(f"TURNOVER_MLFLOW_URI cannot be used: {error}. {ESCAPE}") from None
    try:
        with closing(driver.connect(parts.address, **parts.secrets)) as connection:
            connection.set_session(readonly=True)
            with connection.cursor() as cursor:
                cursor.execute(query, values)
                return list(cursor.fetchall())
    except driver.errors.UndefinedTable:
        return []
    except driver.Error as error:
        problem = parts.without_secrets(" ".join(str(error).split()))
        raise TurnoverError(
            f"MLflow's database cannot be used ({problem}). See that it runs and that TURNOVER_MLFLOW_URI "
            "names it, with a user who may write there; nothing was changed."
        ) from None


def check_reachable(uri: str) -> None:
    """Make sure that the database answers: MLflow itself would try for minutes before it says so.

    Raises:
        TurnoverError: It does not.
    """
    ask(uri, "SELECT 1")


def _driver() -> ModuleType:
    try:
        import psycopg2
        import psycopg2.errors
    except ImportError:
        raise TurnoverError(
            "TURNOVER_MLFLOW_URI names a Postgres database, but its driver is not installed. Install "
            "turnover-assets with the extra `postgres`."
        ) from None
    module: ModuleType = psycopg2
    return module
