"""Origins: what a model was made from, written and read back, and just the files of its landed version."""

from pathlib import Path

import duckdb
import numpy as np
import xgboost

from turnover_assets.panel import default_panel
from turnover_assets.storage import manifest
from turnover_assets.storage.ledger import read_ledger
from turnover_assets.storage.origin import LEDGER, Origin, landed_files, library_versions
from turnover_assets.storage.warehouse import Warehouse
from turnover_assets_tests.factories import TURNOVER_HEADER, land_text, walmart_like

PANEL = default_panel()


def test_an_origin_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    ledger = "# ümlaut, and line ends of another system\r\n".encode()
    origin = Origin(
        landed=((1, "3fa9"), (4, "0c1d")),
        ledger=ledger,
        panel=walmart_like(),
        settings={"training_share": 0.1, "seed": 3},
        libraries=library_versions(),
        scores={"xgboost": float(np.nextafter(0.1, 1.0)), "seasonal_naive": 1 / 3},
    )

    origin.save(tmp_path / "origin")

    assert Origin.load(tmp_path / "origin") == origin
    assert (tmp_path / "origin" / LEDGER).read_bytes() == ledger
    assert read_ledger(tmp_path / "origin" / LEDGER, origin.panel).corrections == ()


def test_libraries_are_named_with_their_releases() -> None:
    found = library_versions()

    assert (found["duckdb"], found["xgboost"]) == (duckdb.__version__, xgboost.__version__)
    assert found.keys() >= {"machine", "python", "numpy", "pandas", "sklearn", "holidays", "skops"}


def test_files_that_landed_after_a_version_are_none_of_it(tmp_path: Path) -> None:
    warehouse = Warehouse(tmp_path / "home" / "warehouse.duckdb")
    contents = {"z.csv": "2017-06-03,1,88,1\n", "odd.csv": "", "a.csv": "2017-06-03,2,88,1\n"}
    landed = [
        land_text(
            tmp_path / "files", warehouse, PANEL, name, (TURNOVER_HEADER if rows else "a,b\n1,2\n") + rows
        )
        for name, rows in contents.items()
    ]
    version = manifest.landed_version(landed, PANEL)
    later = land_text(tmp_path / "files", warehouse, PANEL, "b.csv", TURNOVER_HEADER + "2017-06-03,3,88,1\n")

    with warehouse.transaction() as con:
        then, now = (landed_files(con, PANEL, v) for v in (version, newest_version(con)))
        of_another_home = landed_files(con, PANEL, "0123456789abcdef")

    assert then == ((1, landed[0].digest), (3, landed[2].digest))
    assert now == (*then, (4, later.digest))
    assert of_another_home == ()


def newest_version(con: duckdb.DuckDBPyConnection) -> str:
    return manifest.landed_version(manifest.records(con, PANEL), PANEL)
