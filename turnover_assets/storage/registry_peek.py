"""What the model registry holds, without MLflow, whose import takes longer than a run that has nothing to do.

What belongs here: the few questions that a run asks which only forecasts. What does not: any change
(champions.py, registry.py), and whatever else there is to know of versions (model_versions.py).

The tables are MLflow's own. Tests hold that its client gives the same answers; what is not found here is
asked of the client (registry.py), who has the last word.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from turnover_assets.storage.models_database import ask
from turnover_assets.storage.sqlite_files import reading


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
        """Number of the version that an alias points to; None where none does, or it cannot be read.

        Raises:
            TurnoverError: The Postgres database cannot be reached or read; so do the others.
        """
        rows = self._ask("SELECT version FROM registered_model_aliases WHERE name = %s AND alias = %s", alias)
        return int(rows[0][0]) if rows else None

    def version(self, number: int) -> PeekedVersion | None:
        """A version; None where there is none of that number, or it cannot be read."""
        return self._version("AND version = %s", number)

    def newest(self) -> PeekedVersion | None:
        """The newest version; None where there is none, or it cannot be read."""
        return self._version("ORDER BY version DESC LIMIT 1")

    def _version(self, which: str, *values: object) -> PeekedVersion | None:
        found = self._ask(
            "SELECT version, run_id FROM model_versions WHERE name = %s "
            f"AND coalesce(current_stage, '') <> 'Deleted_Internal' {which}",
            *values,
        )
        if not found:
            return None
        number, run_id = found[0]
        tags = self._ask("SELECT key, value FROM model_version_tags WHERE name = %s AND version = %s", number)
        return PeekedVersion(int(number), str(run_id), dict(tags))

    def _ask(self, query: str, *values: object) -> Sequence[tuple[Any, ...]]:
        """Rows of a query whose first value is the model's name; none where MLflow's file cannot be read."""
        if self.database:
            return ask(self.database, query, [self.name, *values])
        path = self.folder / "mlflow.db"
        if not path.is_file():
            return []
        try:
            with reading(path, timeout=30) as connection:
                return connection.execute(query.replace("%s", "?"), [self.name, *values]).fetchall()
        except sqlite3.Error:
            return []


def champion_of(folder: Path, name: str, database: str = "") -> int | None:
    """Number of a registered model's champion; arguments as of RegistryPeek, answer as of its aliased."""
    return RegistryPeek(folder, name, database).aliased("champion")
