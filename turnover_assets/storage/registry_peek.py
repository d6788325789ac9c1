"""What the model registry holds, without MLflow, whose import takes longer than a run that has nothing to do.

What belongs here: the few questions that a run asks which only forecasts. What does not: any change
(champions.py, registry.py), and whatever else there is to know of versions (model_versions.py).

The tables are MLflow's own; tests hold that its client gives the same answers. Workspaces are not told apart:
a database holds the models of one home, in MLflow's default workspace.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from turnover_assets.storage.champions import CHAMPION
from turnover_assets.storage.models_database import ask
from turnover_assets.storage.sqlite_files import reading

_THERE = "v.name = %s AND coalesce(v.current_stage, '') <> 'Deleted_Internal'"


@dataclass(frozen=True)
class PeekedVersion:
    """A version of a registered model.

    Attributes:
        number: Its number.
        run_id: The run that made it.
        tags: Its tags.
    """

    number: int
    run_id: str
    tags: Mapping[str, str]


@dataclass(frozen=True)
class RegistryPeek:
    """One registered model, read only.

    Attributes:
        folder: MLflow's folder: mlflow.db and artifacts/.
        name: Name of the registered model.
        database: Address of the Postgres database in place of mlflow.db, a secret; empty where there is none.
    """

    folder: Path
    name: str
    database: str = field(default="", repr=False)

    def aliased(self, alias: str) -> int | None:
        """Number of the version that an alias points to; None where none does.

        Raises:
            sqlite3.Error: MLflow's file cannot be read; so do the others.
            TurnoverError: The Postgres database cannot be reached or read; so do the others.
        """
        rows = self._ask("SELECT version FROM registered_model_aliases WHERE name = %s AND alias = %s", alias)
        return int(rows[0][0]) if rows else None

    def version(self, number: int) -> PeekedVersion | None:
        """A version; None where there is none of that number."""
        return self._version("AND v.version = %s", number)

    def newest(self) -> PeekedVersion | None:
        """The newest version; None where there is none."""
        newest = f"SELECT max(v.version) FROM model_versions AS v WHERE {_THERE}"
        return self._version(f"AND v.version = ({newest})", self.name)

    def _version(self, which: str, *values: object) -> PeekedVersion | None:
        rows = self._ask(
            "SELECT v.version, v.run_id, t.key, t.value FROM model_versions AS v "
            "LEFT JOIN model_version_tags AS t ON t.name = v.name AND t.version = v.version "
            f"WHERE {_THERE} {which}",
            *values,
        )
        if not rows:
            return None
        number, run_id, *_ = rows[0]
        return PeekedVersion(int(number), str(run_id), {tag: value for *_, tag, value in rows if tag})

    def _ask(self, query: str, *values: object) -> Sequence[tuple[Any, ...]]:
        """Rows of a query whose first value is the model's name; none where there are no tables yet."""
        if self.database:
            return ask(self.database, query, [self.name, *values])
        path = self.folder / "mlflow.db"
        if not path.is_file():
            return []
        try:
            with reading(path, timeout=30) as connection:
                return connection.execute(query.replace("%s", "?"), [self.name, *values]).fetchall()
        except sqlite3.Error as error:
            if "no such table" in str(error):
                return []
            raise type(error)(f"{path}: {error}") from error


def champion_of(folder: Path, name: str, database: str = "") -> int | None:
    """Number of a registered model's champion; None where there is none, or MLflow's file cannot be read.

    Args:
        folder: MLflow's folder.
        name: Name of the registered model.
        database: As of RegistryPeek.

    Raises:
        TurnoverError: The Postgres database cannot be reached or read. It is not as if there were no champion
            then.
    """
    try:
        return RegistryPeek(folder, name, database).aliased(CHAMPION)
    except sqlite3.Error:
        return None
