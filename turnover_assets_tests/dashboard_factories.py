"""The web page for tests: clients of it, snapshots of small panels without a run, and reading its pages."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import duckdb
import numpy as np
import pandas as pd
from fastapi.testclient import TestClient

from turnover_assets.core.calendar import label_of
from turnover_assets.core.explanations import effect_columns
from turnover_assets.core.intervals import BOUNDS
from turnover_assets.panel import PanelSpec
from turnover_assets.serving.dashboard.app import create_app
from turnover_assets.serving.dashboard.what_if import WhatIf
from turnover_assets.serving.what_if import answer_question
from turnover_assets.settings import Settings
from turnover_assets.storage import snapshots
from turnover_assets.storage.snapshots import Snapshot
from turnover_assets_tests.html_pages import Page

HTML = {"Accept": "text/html", "Accept-Language": "en"}
NOT_PAGES = re.compile(r"^(/static/|/download\?|/workbook\?|/logout|.*\.csv\?)")


@contextmanager
def reading(settings: Settings, what_if: WhatIf = answer_question, **options: Any) -> Iterator[TestClient]:
    """A reader on this machine."""
    app = create_app(settings, what_if)
    options = {"client": ("127.0.0.1", 50000), "headers": HTML, **options}
    with TestClient(app, "http://localhost", **options) as client:
        yield client


def page_of(client: TestClient, address: str, code: int = 200) -> Page:
    """A page that was answered."""
    answer = client.get(address)
    assert answer.status_code == code, answer.text[:2000]
    assert answer.headers["content-type"].startswith("text/html")
    return Page(answer.text)


def form_value(page: Page, name: str) -> str:
    """The value of a field of a page's form."""
    values = (at.get("value") for tag, at in page.elements if tag == "input" and at.get("name") == name)
    return next(value for value in values if value is not None)


def table_cells(html: str) -> list[list[str]]:
    """The cells of all rows of all tables, as text."""
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", html, re.DOTALL)
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in rows]
    return [[re.sub(r"<[^>]+>", "", cell).strip() for cell in row] for row in cells]


def chart_data(html: str) -> list[dict[str, Any]]:
    """What the charts of a page are drawn from."""
    found = re.findall(r'<script type="application/json">(.*?)</script>', html, re.DOTALL)
    return [json.loads(text) for text in found]


def crawl(client: TestClient, start: str = "/", at_most: int = 400) -> dict[str, Page]:
    """Every page that can be reached from one, by address; each must be answered."""
    found: dict[str, Page] = {}
    waiting = [start]
    while waiting and len(found) < at_most:
        address = waiting.pop()
        if address in found:
            continue
        answer = client.get(address)
        assert answer.status_code == 200, (address, answer.status_code)
        if not answer.headers["content-type"].startswith("text/html"):
            continue
        page = found[address] = Page(answer.text)
        links = (at.get("href") for tag, at in page.elements if tag == "a")
        for link in links:
            target = urljoin(address, str(link)).partition("#")[0] or address
            assert target.startswith("/"), (address, link)
            if target not in found and not NOT_PAGES.match(target):
                waiting.append(target)
    return found


# Snapshots ---------------------------------------------------------------------------------------


def small_snapshot(
    published: Path,
    panel: PanelSpec,
    series: Sequence[Mapping[str, Any]],
    attributes: Mapping[str, pd.DataFrame] | None = None,
    others: Mapping[str, pd.DataFrame] | None = None,
) -> Snapshot:
    """A snapshot of two seasons and a horizon of each series; series k has 100 (k + 1) a period, 5 % growth.

    Args:
        published: Folder of the snapshots.
        panel: The panel.
        series: The keys of each series.
        attributes: The static tables by name.
        others: More tables, or others in place of those made here.
    """
    season, last = panel.frequency.season, 12_000 if panel.frequency.every == "day" else 1_500
    past, ahead = range(last - 2 * season + 1, last + 1), range(last + 1, last + 1 + panel.horizon)
    history = pd.DataFrame(
        [
            {**keys, panel.time: label_of(panel, t), panel.target: 100.0 * (k + 1)}
            for k, keys in enumerate(series)
            for t in past
        ]
    )
    history[f"{panel.target}_adjusted"], history["adjustment_id"] = history[panel.target], None
    forecasts = pd.DataFrame(
        [
            {
                **keys,
                "cutoff": label_of(panel, last),
                panel.time: label_of(panel, t),
                "horizon": t - last,
                "forecast": 105.0 * (k + 1),
            }
            for k, keys in enumerate(series)
            for t in ahead
        ]
    )
    for name, factor in zip(BOUNDS, _factors(), strict=True):
        forecasts[name] = forecasts["forecast"] * factor
    forecasts["model_version"] = 1
    tables = {
        "forecasts": forecasts,
        panel.series.name: history,
        "explanations": _explanations(panel, forecasts),
        "aggregates": _aggregates(panel, forecasts, attributes or {}),
        "forecast_history": forecasts.assign(role="champion", made_at=pd.Timestamp("2030-01-01", tz="UTC")),
        **(attributes or {}),
        **(others or {}),
    }
    facts = {
        "panel": panel.name,
        "cutoff": str(label_of(panel, last)),
        "last_period": str(label_of(panel, ahead[-1])),
        "horizon": panel.horizon,
        "series": len(series),
        "rejected_rows": 0,
        "code_version": "0.0.0",
        "data_version": "0",
        "model": {"version": 1, "candidate": "seasonal_naive", "wape": 0.2, "wape_seasonal_naive": 0.2},
    }
    published.mkdir(parents=True, exist_ok=True)
    with duckdb.connect() as con:
        for name, frame in tables.items():
            con.register(f"frame_{name}", frame)
        queries = {name: f'SELECT * FROM "frame_{name}"' for name in tables}
        return snapshots.publish(con, published, queries, facts)


def _factors() -> list[float]:
    return [{"lower_80": 0.9, "upper_80": 1.1, "lower_95": 0.8, "upper_95": 1.2}[name] for name in BOUNDS]


def _explanations(panel: PanelSpec, forecasts: pd.DataFrame) -> pd.DataFrame:
    found = forecasts[[*panel.keys, "cutoff", panel.time, "horizon", "forecast"]].assign(
        compared_with="year ago", reference=forecasts["forecast"] / 1.05, reported_year_ago=np.nan
    )
    for column in effect_columns(panel).values():
        found[column] = 0.0
    found["effect_level"] = found["forecast"] - found["reference"]
    return found.assign(sentence="1,234.5 expected, 5 % above the same period of 2030-06-01 (1,100).")


def _aggregates(
    panel: PanelSpec, forecasts: pd.DataFrame, attributes: Mapping[str, pd.DataFrame]
) -> pd.DataFrame:
    rows = forecasts
    for table in panel.static:
        if table.name in attributes:
            rows = rows.merge(attributes[table.name], how="left", on=list(table.keys))
    parts = []
    for level in ("total", *panel.level_names):
        member = "" if level == "total" else rows[level].astype("string").fillna("(none)")
        sums = rows.assign(level=level, member=member).groupby(
            ["level", "member", "cutoff", panel.time, "horizon"], as_index=False
        )
        parts.append(sums[["forecast", *BOUNDS]].sum().assign(parts=sums.size()["size"].to_numpy()))
    return pd.concat(parts, ignore_index=True)
