"""Which version is champion, without MLflow, whose import takes longer than a run that has nothing to do.

What belongs here: that one question. What does not: any change (champions.py), and anything else about
versions (registry.py).
"""

import sqlite3
from pathlib import Path

from turnover_assets.storage.models_database import ask
from turnover_assets.storage.sqlite_files import reading

QUERY = "SELECT version FROM registered_model_aliases WHERE alias = 'champion' AND name = "


def champion_of(folder: Path, name: str, database: str = "") -> int | None:
    """Number of a registered model's champion; None where there is none, or MLflow's file cannot be read.

    Args:
        folder: MLflow's folder: mlflow.db and artifacts/.
        name: Name of the registered model.
        database: Address of the Postgres database in place of mlflow.db; empty where there is none.

    Raises:
        TurnoverError: The database cannot be reached or read. It is not as if there were no champion then.
    """
    if database:
        rows = ask(database, f"{QUERY}%s", [name])
        return int(rows[0][0]) if rows else None
    path = folder / "mlflow.db"
    if not path.is_file():
        return None
    try:
        with reading(path, timeout=30) as connection:
            found = connection.execute(f"{QUERY}?", [name]).fetchone()
    except sqlite3.Error:
        return None
    return int(found[0]) if found else None
