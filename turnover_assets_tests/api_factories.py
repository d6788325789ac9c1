"""Homes for tests of the API: snapshots with several cutoffs and roles, made from a published one."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import uvicorn
from fastapi.testclient import TestClient

from turnover_assets.serving.app import create_app
from turnover_assets.serving.server import address_of, listening_socket, server_config
from turnover_assets.settings import Settings
from turnover_assets.storage import snapshots
from turnover_assets.storage.published_model import GOLDEN, MODEL_FOLDER, PublishedModel
from turnover_assets.storage.snapshots import Snapshot
from turnover_assets_tests.waiting import PATIENCE, wait_until

WEEKS_BACK = (3, 6, 9)  # cutoffs that the history of forecasts has beside the newest
OF_PUBLISHING = ("id", "created_at", "tables")  # facts that publishing itself adds
AS_OF_BACK = 20  # one of which forecasts were made afterwards


def publish(published: Path, source: Snapshot, changed: Mapping[str, pd.DataFrame] | None = None) -> Snapshot:
    """Publish a snapshot's tables anew, some of them as frames in their stead."""
    facts = {
        name: value for name, value in source.facts.items() if name not in ("id", "created_at", "tables")
    }
    queries = {name: f"SELECT * FROM '{source.path(name)}'" for name in source.facts["tables"]}
    with duckdb.connect() as con:
        for name, frame in (changed or {}).items():
            con.register(f"frame_{name}", frame)
            queries[name] = f'SELECT * FROM "frame_{name}"'
        return snapshots.publish(con, published, queries, facts, model_of(source))


def model_of(source: Snapshot) -> PublishedModel | None:
    """The model of a snapshot, to be published again."""
    folder = source.folder / MODEL_FOLDER
    return PublishedModel(folder, pd.read_parquet(folder / GOLDEN)) if folder.is_dir() else None


def with_past_cutoffs(source: Snapshot) -> dict[str, pd.DataFrame]:
    """Tables with past cutoffs: the champion 10 % too high, the baseline 30 %, the challenger 5 % too low."""
    newest = source.read("forecast_history")
    actual = source.read("turnover").rename(columns={"turnover": "actual"})
    actual = actual[["store", "department", "week", "actual"]]
    parts = [
        _past(newest, actual, back, role, factor)
        for back in WEEKS_BACK
        for role, factor in (("champion", 1.1), ("baseline", 1.3), ("challenger", 0.95))
    ]
    as_of = _past(newest, actual, AS_OF_BACK, "champion", 1.2)
    as_of = as_of.drop(columns=["role", "model_version"]).assign(model="seasonal_naive", actual=0.0)
    return {
        "forecast_history": pd.concat([newest, *parts], ignore_index=True),
        "forecasts_as_of": as_of,
        "monitored_accuracy": _monitored(source),
    }


def _monitored(source: Snapshot) -> pd.DataFrame:
    """Accuracy as monitoring keeps it, of two cutoffs."""
    newest = pd.Timestamp(source.facts["cutoff"])
    rows = [
        {
            "cutoff": (newest - pd.Timedelta(weeks=back)).date(),
            "horizon": horizon,
            "level": level,
            "member": member,
            "basis": basis,
            "model_version": 1,
            "rows": 10 * back,
            "periods": back,
            "wape": 0.1 + 0.01 * back,
            "bias": -0.01,
            "tracking_signal": 1.5,
            "coverage_80": 0.8,
            "coverage_95": 0.95,
            "wape_seasonal_naive": 0.3,
            "wape_promised": 0.2,
            "coverage_80_promised": 0.8,
            "coverage_95_promised": None,
            "updated_at": pd.Timestamp("2030-01-01", tz="UTC"),
        }
        for back in WEEKS_BACK[:2]
        for horizon in (None, 1, 2)
        for level, member in (("total", ""), ("region", "1"))
        for basis in ("series", "sums")
    ]
    return pd.DataFrame(rows).astype({"horizon": "Int32", "coverage_95_promised": float})


def _past(newest: pd.DataFrame, actual: pd.DataFrame, back: int, role: str, factor: float) -> pd.DataFrame:
    rows = newest[newest["role"] == "champion"].copy()
    for column in ("cutoff", "week"):
        rows[column] = (pd.to_datetime(rows[column]) - pd.Timedelta(weeks=back)).dt.date
    rows = rows.merge(actual, how="left", on=["store", "department", "week"])
    value = (rows.pop("actual") * factor).fillna(1.0)
    bounds = {"lower_80": 0.95, "upper_80": 1.02, "lower_95": 0.85, "upper_95": 1.2}
    rows = rows.assign(role=role, forecast=value, **{name: value * by for name, by in bounds.items()})
    return rows.assign(model_version={"champion": 1, "baseline": 0, "challenger": 2}[role])


def client_of(settings: Settings, **options: Any) -> TestClient:
    """A client on this machine; use it as a context, so that the app follows what is published."""
    app = create_app(settings, access_log=False)
    return TestClient(app, "http://localhost", client=("127.0.0.1", 50000), **options)


@contextmanager
def live_server(settings: Settings) -> Iterator[str]:
    """The API on a free port of loopback, served as `turnover serve` does, from a thread; its address."""
    with listening_socket("127.0.0.1", 0) as listening:
        server = uvicorn.Server(server_config(create_app(settings, access_log=False), settings))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            wait_until(lambda: server.started or not thread.is_alive(), "the server answers", every=0.01)
            assert thread.is_alive()
            yield address_of(listening)
        finally:
            server.should_exit = True
            thread.join(timeout=PATIENCE)
