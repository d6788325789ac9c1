"""A client of the REST API: published forecasts in a notebook or a program, as frames.

What belongs here: asking, following pages, trying again, and errors that say what to do. What does not:
anything of the platform. Importing this takes httpx and nothing else, pyarrow and pandas only once rows come.

    with Client("http://127.0.0.1:8000") as client:
        forecasts = client.forecasts(region=2).to_pandas()
"""

from turnover_assets.client.client import Client
from turnover_assets.client.errors import (
    ApiError,
    BusyError,
    ClientError,
    NotAllowedError,
    NotFoundError,
    SnapshotGoneError,
    UnreachableError,
)
from turnover_assets.client.retries import Retries
from turnover_assets.client.rows import Rows, Served

__all__ = [
    "ApiError",
    "BusyError",
    "Client",
    "ClientError",
    "NotAllowedError",
    "NotFoundError",
    "Retries",
    "Rows",
    "Served",
    "SnapshotGoneError",
    "UnreachableError",
]
