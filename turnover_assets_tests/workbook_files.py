"""What tests of workbooks share: content by hand, and files read again."""

import io
import re
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pandas as pd
import pytest
from openpyxl.worksheet.worksheet import Worksheet

from turnover_assets.core.conformal import BOUNDS
from turnover_assets.core.workbook import Content, Origin
from turnover_assets.panel import PanelSpec
from turnover_assets_tests.factories import make_panel

CUTOFF = date(2030, 6, 3)  # a Monday, as the periods of the smallest panel begin
ORIGIN = Origin(
    "2030-06-03_20300612T060000_abc123",
    datetime(2030, 6, 12, 6, 0, tzinfo=UTC),
    CUTOFF,
    "residual_boosting",
    7,
    "0123456789abcdef",
    "0.2.0",
)
# What it says of each file that it converts, and where there is no Java, which its databases and macros need.
HARMLESS = re.compile(r"convert \S+ -> \S+ using filter : |Warning: failed to launch javaldx ")
EMPTY: dict[str, tuple[str, ...]] = {
    "stopped": ("reported_last_year",),
    "promised": ("model", "basis", "wape", "bias", "coverage_80", "coverage_95", "rows"),
    "tests": ("cutoff", "horizon", "forecast", "actual"),
    "live": (
        *("cutoff", "model_version", "periods", "wape", "wape_promised", "wape_seasonal_naive", "bias"),
        "coverage_80",
    ),
    "outcomes": ("cutoff", "horizon", "forecast", "actual"),
    "adjustments": (
        "status",
        "selector",
        "since",
        "until",
        "kind",
        "factor",
        "value",
        "reason",
        "who",
        "rows",
    ),
    "checks": ("asset", "check_name", "severity", "figure", "at_least", "at_most"),
    "missing": ("last_reported",),
    "restatements": ("old_value", "new_value", "new_file"),
}


def text_panel(**changes: Any) -> PanelSpec:
    """A panel of weeks with two keys that are texts."""
    series = {
        "name": "sales",
        "keys": [{"name": "shop", "type": "text"}, {"name": "family", "type": "text"}],
        "time": {"name": "week"},
        "target": {"name": "amount", "unit": "EUR"},
    }
    return make_panel(series=series, horizon=3, **changes)


def content_of(
    keys: list[tuple[Any, ...]],
    panel: PanelSpec | None = None,
    member: str = "",
    seed: int = 1,
    **changes: Any,
) -> Content:
    """Content of some series with amounts drawn at random, of the total."""
    panel = panel or text_panel()
    rng, days = np.random.default_rng(seed), panel.frequency.days
    labels = [CUTOFF + timedelta(days=days * step) for step in range(1, panel.horizon + 1)]
    rows = [
        {
            **dict(zip(panel.keys, key, strict=True)),
            panel.time: label,
            "horizon": step,
            "forecast": amount,
            **{bound: amount * factor for bound, factor in zip(BOUNDS, (0.9, 1.1, 0.8, 1.2), strict=True)},
            "last_year": amount * 0.9 if step != 2 else np.nan,
            "reported_last_year": amount * 1.8,
            "sentence": f"{amount:.0f} expected",
        }
        for key in keys
        for step, label in enumerate(labels, start=1)
        for amount in [float(rng.gamma(3.0, 50.0))]
    ]
    forecasts = pd.DataFrame(rows)
    sums = forecasts.groupby([panel.time, "horizon"], as_index=False)[["forecast", *BOUNDS]].sum()
    season = panel.frequency.season * days
    past = [CUTOFF - timedelta(days=days * step) for step in range(2 * season // days - 1, -1, -1)]
    level = 150.0 * len(keys) * (1 + 0.2 * np.sin(np.arange(len(past)) / 8))
    history = pd.DataFrame({panel.time: past, "reported": level * 2, "comparable": level})
    content = Content(
        panel=panel,
        origin=ORIGIN,
        level="total",
        member=member,
        forecasts=forecasts,
        sums=sums,
        history=history,
        **{
            name: pd.DataFrame(columns=[*panel.keys, panel.time, *columns]) for name, columns in EMPTY.items()
        },
    )
    return replace(content, **changes)


def read(made: bytes, *, formulas: bool = False) -> openpyxl.Workbook:
    """A workbook with the values that it was written with, or with its formulas."""
    return openpyxl.load_workbook(io.BytesIO(made), data_only=not formulas)


def grid(sheet: Worksheet, header: str) -> pd.DataFrame:
    """The table of a sheet whose header has a name, as a frame; it ends where the first column is empty."""
    rows = list(sheet.iter_rows(values_only=True))
    first = next(number for number, row in enumerate(rows) if header in row)
    names = [name for name in rows[first] if name is not None]
    body = []
    for row in rows[first + 1 :]:
        if row[0] is None:
            break
        body.append(row[: len(names)])
    return pd.DataFrame(body, columns=names)


def cells(book: openpyxl.Workbook) -> Iterator[tuple[str, str, Any]]:
    """Sheet, place and value of every cell that has one."""
    for sheet in book.worksheets:
        for row in sheet.iter_rows():
            for one in row:
                if one.value is not None:
                    yield sheet.title, one.coordinate, one.value


def without_values(made: bytes) -> bytes:
    """A workbook whose formulas have lost their values, so that whoever opens it must calculate them."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(made)) as source, zipfile.ZipFile(target, "w") as fresh:
        for name in source.namelist():
            data = source.read(name)
            if name.startswith("xl/worksheets/sheet"):
                data = re.sub(rb"(</f>)<v>[^<]*</v>", rb"\1", data)
            fresh.writestr(name, data)
    return target.getvalue()


def with_part(made: bytes, name: str, content: bytes) -> bytes:
    """A workbook of which a part is another."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(made)) as source, zipfile.ZipFile(target, "w") as fresh:
        for each in source.namelist():
            fresh.writestr(each, content if each == name else source.read(each))
    return target.getvalue()


def converted(made: bytes, folder: Path, kind: str) -> Path:
    """A workbook as LibreOffice writes it in another format; skips where there is no LibreOffice.

    It must say nothing on the way but what it always says. A file that it would offer to repair it does not
    load at all without a screen, and says so.
    """
    program = shutil.which("soffice")
    if program is None:
        pytest.skip("no LibreOffice: install Debian's libreoffice-calc")
    source = folder / "book.xlsx"
    source.write_bytes(made)
    profile = f"-env:UserInstallation=file://{folder / 'profile'}"
    done = subprocess.run(
        [program, profile, "--headless", "--convert-to", kind, "--outdir", str(folder / "out"), str(source)],
        capture_output=True,
        text=True,
        timeout=180,
        check=True,
    )
    said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    unexpected = [line for line in said if not HARMLESS.match(line)]
    assert not unexpected, unexpected
    found = folder / "out" / f"book.{kind.partition(':')[0]}"
    assert found.is_file(), said
    return found
