"""Resources: the outside world as Dagster hands it to assets.

What belongs here: small ConfigurableResources that make the storage objects. What does not: their logic.
"""

from pathlib import Path

import dagster as dg

from turnover_assets.settings import MLFLOW_URI, Settings, with_driver
from turnover_assets.storage.registry import ModelRegistry
from turnover_assets.storage.warehouse import Warehouse


class WarehouseResource(dg.ConfigurableResource[Warehouse]):
    """The DuckDB warehouse; every asset that uses it belongs to the pool `warehouse`."""

    path: str
    threads: int
    memory_limit: str
    lock_timeout_seconds: float

    def open(self) -> Warehouse:
        """The warehouse; each `transaction()` of it opens and closes the file."""
        return Warehouse(Path(self.path), self.threads, self.memory_limit, self.lock_timeout_seconds)


class RegistryResource(dg.ConfigurableResource[ModelRegistry]):
    """The MLflow registry."""

    folder: str
    name: str
    artifacts_url: str | None = None
    database: str = ""

    def open(self) -> ModelRegistry:
        """The registry; MLflow is imported at its first use."""
        return ModelRegistry(Path(self.folder), self.name, self.artifacts_url, with_driver(self.database))


def build_warehouse(settings: Settings) -> WarehouseResource:
    """The warehouse of a data home."""
    return WarehouseResource(
        path=str(settings.warehouse_path),
        threads=settings.threads,
        memory_limit=settings.memory_limit,
        lock_timeout_seconds=settings.lock_timeout_seconds,
    )


def build_registry(settings: Settings) -> RegistryResource:
    """The registry of a data home; Dagster's page shows the variable of the database, not its address."""
    return RegistryResource(
        folder=str(settings.mlflow_path),
        name=settings.panel_spec.name,
        artifacts_url=settings.artifacts_url,
        database=dg.EnvVar(MLFLOW_URI) if settings.mlflow_uri else "",
    )
