"""Small panels, raw rows and warehouses for tests."""

import multiprocessing
import os
import pickle
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from itertools import chain
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import numpy as np
import pandas as pd
import pytest
from filelock import FileLock
from matplotlib.figure import Figure

from turnover_assets.core import cleaning
from turnover_assets.core.samples import sample_files
from turnover_assets.core.synthetic import Retailer, make_retailer
from turnover_assets.panel import PanelSpec, default_panel, parse_panel
from turnover_assets.runner import Outcome, bring_up_to_date
from turnover_assets.settings import Settings, load_settings
from turnover_assets.storage import landing, manifest
from turnover_assets.storage.landing_folder import LandedFile
from turnover_assets.storage.manifest import FileRecord
from turnover_assets.storage.migrations import SCHEMAS
from turnover_assets.storage.reader import fingerprint
from turnover_assets.storage.warehouse import Warehouse

T = TypeVar("T")

# Modules whose functions run in processes of their own; see clean_processes.
WITH_PROCESSES = ("kills", "test_kept", "test_snapshots", "test_warehouse")

LANDED_AT = datetime(2030, 6, 1, 12, tzinfo=UTC)

# Panels ------------------------------------------------------------------------------------------


def panel_data(**changes: Any) -> dict[str, Any]:
    """The smallest panel as plain data, as it would come from a TOML file."""
    data: dict[str, Any] = {
        "name": "small",
        "series": {
            "name": "sales",
            "keys": [{"name": "shop", "type": "integer"}],
            "time": {"name": "week"},
            "target": {"name": "amount"},
        },
    }
    return data | changes


def make_panel(**changes: Any) -> PanelSpec:
    """The smallest panel, with some of its fields replaced."""
    return parse_panel(panel_data(**changes), "test")


def walmart_like() -> PanelSpec:
    """Weeks labelled by their last day, a text attribute, and values known ahead."""
    return parse_panel(
        {
            "name": "walmart-like",
            "levels": ["dept", "store"],
            "frequency": {"every": "week", "starts_on": "saturday"},
            "series": {
                "name": "sales",
                "keys": [
                    {"name": "store", "column": "Store", "type": "integer"},
                    {"name": "dept", "column": "Dept", "type": "integer"},
                ],
                "time": {"name": "week", "column": "Date", "label": "end"},
                "target": {"name": "amount", "column": "Weekly_Sales", "nonnegative": False, "unit": "USD"},
            },
            "static": [
                {
                    "name": "stores",
                    "keys": ["store"],
                    "columns": [
                        {"name": "kind", "column": "Type", "type": "text"},
                        {"name": "size", "column": "Size", "type": "number"},
                    ],
                }
            ],
            "covariates": [
                {
                    "name": "features",
                    "keys": ["store"],
                    "columns": [
                        {"name": "temperature", "column": "Temperature", "type": "number"},
                        {"name": "is_holiday", "column": "IsHoliday", "type": "flag"},
                    ],
                }
            ],
            "holidays": {"country": "US"},
        },
        "test",
    )


def daily() -> PanelSpec:
    """Days, one key that is a text, French dates, no calendar."""
    return parse_panel(
        {
            "name": "daily",
            "horizon": 14,
            "frequency": {"every": "day"},
            "series": {
                "name": "takings",
                "keys": [{"name": "shop", "type": "text"}],
                "time": {"name": "day", "column": "Jour", "format": "%d/%m/%Y"},
                "target": {"name": "amount", "column": "Chiffre d'affaires"},
            },
        },
        "test",
    )


# Warehouses --------------------------------------------------------------------------------------


@contextmanager
def memory_warehouse(copy_of: Path | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """A warehouse in memory, with its schemas; with what keep_warehouse kept, where that is named."""
    con = duckdb.connect(config={"threads": 1})
    try:
        if copy_of is None:
            for schema in SCHEMAS:
                con.execute(f"CREATE SCHEMA {schema}")
        else:
            con.execute(f"ATTACH '{copy_of}' AS kept (READ_ONLY)")
            con.execute("COPY FROM DATABASE kept TO memory; DETACH kept")
        yield con
    finally:
        con.close()


def keep_warehouse(con: duckdb.DuckDBPyConnection, path: Path) -> Path:
    """Write a warehouse in memory to a file, of which tests have copies; filling one takes a second."""
    con.execute(f"ATTACH '{path}' AS kept")
    con.execute("COPY FROM DATABASE memory TO kept; DETACH kept")
    return path


@dataclass(frozen=True)
class RawFile:
    """Rows as the reader gives them: texts by canonical name, None where the row is too short."""

    table: str
    rows: Sequence[Mapping[str, str | None]]
    delimiter: str = ","
    lines: Sequence[int] = ()
    malformed: Mapping[int, str] = field(default_factory=dict)  # by position in `rows`

    def line(self, position: int) -> int:
        return self.lines[position] if self.lines else position + 2


def insert_raw(con: duckdb.DuckDBPyConnection, panel: PanelSpec, files: Sequence[RawFile]) -> None:
    """Put files into the raw tables as landing would, numbered from 1 and named `file_<n>`."""
    manifest.prepare(con, panel)
    for number, file in enumerate(files, start=1):
        known: dict[str, Any] = {
            "file_no": number,
            "digest": f"digest {number}",
            "name": f"file_{number}",
            "path": f"file_{number}",
            "status": "accepted",
            "table_name": file.table,
            "row_count": len(file.rows),
            "format": "csv",
            "delimiter": file.delimiter,
            "panel_digest": panel.digest,
            "reader_version": "1",
            "final": True,
            "landed_at": LANDED_AT,
        }
        con.execute(
            f"INSERT INTO raw.files ({', '.join(known)}) VALUES ({', '.join('?' * len(known))})",
            list(known.values()),
        )
        columns = list(panel.tables[file.table])
        values = [
            [number, file.line(i), *(row.get(c) for c in columns), file.malformed.get(i)]
            for i, row in enumerate(file.rows)
        ]
        if values:
            row = f"({', '.join('?' * (len(columns) + 3))})"
            con.execute(
                f"INSERT INTO raw.{file.table} VALUES {', '.join([row] * len(values))}",
                list(chain.from_iterable(values)),
            )


def empty_raw(con: duckdb.DuckDBPyConnection, panel: PanelSpec) -> None:
    """Forget every landed file, so that a connection can serve many examples."""
    manifest.prepare(con, panel)
    for table in ("files", *panel.tables):
        con.execute(f"DELETE FROM raw.{table}")


def clean_all(con: duckdb.DuckDBPyConnection, panel: PanelSpec) -> None:
    """Clean every table of the panel from what is in raw."""
    manifest.prepare(con, panel)
    cleaning.clean_all(con, panel)


def insert_frames(
    con: duckdb.DuckDBPyConnection, panel: PanelSpec, frames: Mapping[str, pd.DataFrame]
) -> None:
    """Put frames with canonical columns into raw, one file each, and clean them.

    Far quicker than executing row by row, and the texts are those a csv would hold.
    """
    insert_raw(con, panel, [RawFile(table, ()) for table in frames])
    for number, (table, frame) in enumerate(frames.items(), start=1):
        texts = frame[list(panel.tables[table])].map(lambda v: None if pd.isna(v) else str(v))
        con.register("frame", texts.astype("str").assign(line=range(2, len(frame) + 2)))
        columns = ", ".join(f"nullif({c}, 'nan')" for c in panel.tables[table])
        con.execute(f"INSERT INTO raw.{table} SELECT {number}, line, {columns}, NULL FROM frame")
        con.unregister("frame")
    clean_all(con, panel)


def land_text(
    folder: Path, warehouse: Warehouse, panel: PanelSpec, name: str, content: str | bytes
) -> FileRecord:
    """Write a file and land it, as the platform would."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return land_path(warehouse, panel, path)


def land_path(warehouse: Warehouse, panel: PanelSpec, path: Path) -> FileRecord:
    """Land a file where it is."""
    return landing.land(warehouse, panel, LandedFile(path, path.name, fingerprint(path)), "test run")


def land_frame(
    folder: Path, warehouse: Warehouse, panel: PanelSpec, name: str, frame: pd.DataFrame
) -> FileRecord:
    """Write a frame, whose columns are named as in the files, as csv and land it."""
    return land_text(folder, warehouse, panel, name, frame.to_csv(index=False))


# Homes -------------------------------------------------------------------------------------------

TURNOVER_HEADER = "day_id,but_num_business_unit,dpt_num_department,turnover\n"
BASELINES_ONLY = 0.005  # a training share that leaves too few rows for trees, so that runs are quick
# Settings of a home whose runs are quick. New weeks often change what detectors make of so short a history,
# and tables so small are read before a second thread has begun.
QUICK = {"training_share": BASELINES_ONLY, "backtest_windows": 1, "retrain_changed_share": 0.5, "threads": 1}


@dataclass(frozen=True)
class Landed:
    """A home with published forecasts, and what went into it."""

    settings: Settings
    folder: Path
    outcome: Outcome
    retailer: Retailer


def quiet(_news: str, _text: str) -> None:
    """Progress that nobody looks at."""


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def settings_for(home: Path, training_share: float = BASELINES_ONLY, **others: Any) -> Settings:
    """Settings of a home whose runs are quick, with others where they are named."""
    return load_settings(home=home, **{**QUICK, "training_share": training_share, **others})


def land_retailer(root: Path, training_share: float, **others: Any) -> Landed:
    """A synthetic retailer with the defects of real feeds, brought to published forecasts."""
    settings = settings_for(root / "var", training_share, **others)
    folder = root / "files"
    folder.mkdir()
    retailer = make_retailer(stores=8, departments=2, weeks=125, seed=3)
    for file in sample_files(retailer, recent_weeks=4, defects=True, seed=3).files:
        (folder / file.name).write_bytes(file.content)
    return Landed(settings, folder, bring_up_to_date(settings, folder, quiet), retailer)


def made_once(folder: Path, make: Callable[[Path], T]) -> T:
    """What the first of several processes makes in a folder; the others wait for it and read it."""
    kept = folder / "made.pickle"
    with FileLock(folder.with_suffix(".lock")):
        if not kept.is_file():
            folder.mkdir()
            kept.write_bytes(pickle.dumps(make(folder)))
    return pickle.loads(kept.read_bytes())


def copy_home(landed: Landed, root: Path) -> Landed:
    """The same, in a home and a folder of one's own."""
    shutil.copytree(landed.settings.home, root / "var")
    shutil.copytree(landed.folder, root / "files")
    settings = landed.settings.model_copy(update={"home": root / "var"})
    return Landed(settings, root / "files", landed.outcome, landed.retailer)


def draw_nothing(patch: pytest.MonkeyPatch) -> None:
    """Leave every picture empty from now on."""
    patch.setattr(Figure, "draw", lambda *_: None)


def clean_processes() -> ForkServerContext:
    """Where processes come from that have imported what tests need of them, and have nothing open.

    Each is forked from a server without threads, so that it begins at once.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([f"{__package__}.{name}" for name in WITH_PROCESSES])
    return context


def next_week(landed: Landed, amount: str = "", ahead: int = 1) -> str:
    """A file for a week after the last one, for every series of the retailer.

    Args:
        landed: The home.
        amount: What each series sold; where left out, as much as in the last week.
        ahead: Weeks after the last one.
    """
    turnover = landed.retailer.turnover
    newest = turnover["day_id"].max()
    week = (pd.Timestamp(newest) + pd.Timedelta(weeks=ahead)).date()
    lines = [
        f"{week},{row.but_num_business_unit},{row.dpt_num_department},{amount or row.turnover}"
        for row in turnover[turnover["day_id"] == newest].itertuples()
    ]
    return TURNOVER_HEADER + "\n".join(lines) + "\n"


# Histories ---------------------------------------------------------------------------------------


def default_history(seed: int = 1, periods: int = 125) -> dict[str, pd.DataFrame]:
    """Frames of the default panel with what makes features hard, in canonical columns.

    Five stores in three regions (one store lists none), three departments; a young series, one that
    has ended, gaps, zeros, negative values, and a department of a single store.
    """
    rng = np.random.default_rng(seed)
    first = date(2015, 1, 3)  # a Saturday
    rows = []
    for store in (2, 3, 5, 11, 40):
        for department in (73, 88, 117):
            if department == 117 and store != 5:
                continue
            begin = {(3, 88): periods - 20, (40, 73): periods - 60}.get((store, department), 0)
            end = periods - 25 if (store, department) == (11, 88) else periods
            for t in range(begin, end):
                if rng.random() < 0.06 and begin < t < end - 1:
                    continue
                season = 1 + 0.5 * np.sin(2 * np.pi * t / 52 + store)
                value = round(float(department * season * rng.gamma(4.0, 0.25)), 2)
                if store == 40 and department == 88:
                    value = float(rng.choice([0.0, 0.0, value, -0.25 * value]))
                rows.append((store, department, (first + timedelta(weeks=t)).isoformat(), round(value, 2)))
    sales = pd.DataFrame(rows, columns=["store", "department", "week", "turnover"])
    stores = pd.DataFrame(
        {
            "store": [2, 3, 5, 11, 40],
            "postcode": ["01000", "75011", "2A004", "59000", "75011"],
            "latitude": [46.2, 48.8, 41.9, 50.6, 48.8],
            "longitude": [5.2, 2.3, 8.7, 3.0, 2.3],
            "region": ["7", "3", "9", None, "3"],
            "zone": ["4", "10", "2", "4", "10"],
        }
    )
    return {"stores": stores, "turnover": sales}


def walmart_history(seed: int = 2, periods: int = 120) -> dict[str, pd.DataFrame]:
    """Frames of the Walmart-like panel; the covariates reach beyond the last week of sales."""
    rng = np.random.default_rng(seed)
    ends = [(date(2010, 2, 5) + timedelta(weeks=t)).isoformat() for t in range(periods + 12)]
    sales = [
        (store, dept, week, round(float(rng.normal(20.0 * dept, 8.0)), 2))
        for store in (1, 2, 3)
        for dept in (1, 7)
        for week in ends[:periods]
    ]
    known = [
        (store, week, None if rng.random() < 0.1 else round(float(rng.normal(50, 20)), 1), rng.random() < 0.1)
        for store in (1, 2, 3)
        for week in ends
    ]
    stores = pd.DataFrame(
        {"store": [1, 2, 3], "kind": ["A", "B", "A"], "size": [151315.0, 202307.5, 37392.0]}
    )
    return {
        "stores": stores,
        "features": pd.DataFrame(known, columns=["store", "week", "temperature", "is_holiday"]),
        "sales": pd.DataFrame(sales, columns=["store", "dept", "week", "amount"]),
    }


def daily_history(seed: int = 3, periods: int = 800) -> dict[str, pd.DataFrame]:
    """Frames of the daily panel: two shops, closed on most Sundays."""
    rng = np.random.default_rng(seed)
    days = [date(2021, 3, 1) + timedelta(days=t) for t in range(periods)]
    rows = [
        (shop, day.strftime("%d/%m/%Y"), round(float(level * rng.gamma(5.0, 0.2)), 2))
        for shop, level in (("north", 100.0), ("côte d'or", 40.0))
        for day in days
        if day.weekday() != 6 or rng.random() < 0.2
    ]
    return {"takings": pd.DataFrame(rows, columns=["shop", "day", "amount"])}


__all__ = [
    "BASELINES_ONLY",
    "QUICK",
    "TURNOVER_HEADER",
    "Landed",
    "RawFile",
    "clean_all",
    "clean_processes",
    "copy_home",
    "daily",
    "daily_history",
    "default_history",
    "default_panel",
    "draw_nothing",
    "empty_raw",
    "insert_frames",
    "insert_raw",
    "keep_warehouse",
    "land_frame",
    "land_path",
    "land_retailer",
    "land_text",
    "made_once",
    "make_panel",
    "memory_warehouse",
    "next_week",
    "panel_data",
    "quiet",
    "settings_for",
    "walmart_history",
    "walmart_like",
]


# Rights ----------------------------------------------------------------------------------------


NOBODY = 65534


def as_nobody(work: Callable[[], object]) -> str:
    """What work returns, as text, for a user without rights: root drops them in a process of its own."""
    if os.geteuid() != 0:
        return str(work())
    inlet, outlet = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            answer = str(work())
        except BaseException as error:  # noqa: BLE001 the child tells whatever went wrong
            answer = f"{type(error).__name__}: {error}"
        os.write(outlet, answer.encode())
        os._exit(0)
    os.close(outlet)
    os.waitpid(child, 0)
    with os.fdopen(inlet) as stream:
        return stream.read()
