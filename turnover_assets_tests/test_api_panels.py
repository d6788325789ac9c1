"""The API of other panels: their names, texts as keys, days as periods, names that the API uses itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote_plus

import duckdb
import pandas as pd
import pytest
from fastapi.testclient import TestClient

from turnover_assets.panel import PanelSpec, parse_panel
from turnover_assets.serving.app import create_app
from turnover_assets.serving.parameters import selectors
from turnover_assets.settings import load_settings
from turnover_assets.storage import snapshots
from turnover_assets_tests.factories import daily, panel_data, walmart_like

SHOPS = ["Zürich & Söhne", "a/b=c+d", "007", "", "100 %"]
CUTOFF = date(2024, 3, 1)


def awkward() -> PanelSpec:
    """Keys of other types, and attributes that are called as parameters of the API."""
    data = panel_data(name="awkward", horizon=3)
    data["series"]["keys"] = [{"name": "shop", "type": "text"}, {"name": "is_outlet", "type": "flag"}]
    columns = [{"name": "format", "type": "text"}, {"name": "page", "type": "integer"}]
    return parse_panel(data | {"static": [{"name": "shops", "keys": ["shop"], "columns": columns}]}, "test")


def forecasts(panel: PanelSpec, series: list[dict[str, Any]]) -> pd.DataFrame:
    """Forecasts of series: the number of the series and the horizon."""
    bounds = dict.fromkeys(("lower_80", "upper_80", "lower_95", "upper_95"))
    return pd.DataFrame(
        [
            {
                **keys,
                "cutoff": CUTOFF,
                panel.time: CUTOFF + timedelta(days=panel.frequency.days * horizon),
                "horizon": horizon,
                "forecast": 100.0 * number + horizon,
                **bounds,
                "model_version": 1,
            }
            for number, keys in enumerate(series)
            for horizon in range(1, panel.horizon + 1)
        ]
    ).astype(dict.fromkeys(bounds, float))


@contextmanager
def serving(
    panel: PanelSpec, home: Path, monkeypatch: pytest.MonkeyPatch, **tables: pd.DataFrame
) -> Iterator[TestClient]:
    """A client of an API that serves these tables."""
    settings = load_settings(home=home)
    monkeypatch.setattr(type(settings), "panel_spec", panel)
    tables["aggregates"] = pd.DataFrame({"level": ["total"], "member": [""]})
    tables["forecast_history"] = tables["forecasts"].assign(role="champion")
    facts = {"panel": panel.name, "cutoff": CUTOFF, "model": {"version": 1}, "data_version": "d"}
    with duckdb.connect() as con:
        for name, frame in tables.items():
            con.register(f"frame_{name}", frame)
        queries = {name: f"SELECT * FROM frame_{name}" for name in tables}
        settings.published_path.mkdir(parents=True)
        snapshots.publish(con, settings.published_path, queries, facts)
    app = create_app(settings, access_log=False)
    with TestClient(app, "http://localhost", client=("127.0.0.1", 50000)) as client:
        yield client


def test_a_look_up_means_by_an_address_what_the_ordinary_way_means(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    panel = daily()
    table = forecasts(panel, [{"shop": shop} for shop in ("A ", "A+", "50 ", "50%20")])
    with serving(panel, tmp_path, monkeypatch, forecasts=table) as client:
        for address in ("A+", "A%20", "A%2B", "A%2b", "50%20", "50%2520"):
            lean = client.get(f"/v1/forecasts?shop={address}")
            ordinary = client.get(f"/v1/forecasts?shop={address}&limit=100")

            assert lean.json()["data"] == ordinary.json()["data"], address
            assert {row["shop"] for row in lean.json()["data"]} == {unquote_plus(address)}


def test_texts_as_keys_are_looked_up_whatever_they_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    panel = daily()
    table = forecasts(panel, [{"shop": shop} for shop in SHOPS])
    with serving(panel, tmp_path, monkeypatch, forecasts=table) as client:
        for number, shop in enumerate(SHOPS):
            lean = client.get(f"/v1/forecasts?shop={quote(shop, safe='')}")
            ordinary = client.get("/v1/forecasts", params={"shop": shop, "limit": 100})

            assert lean.content == ordinary.content
            assert [row["forecast"] for row in lean.json()["data"]] == [
                100.0 * number + horizon for horizon in range(1, 15)
            ]
        unknown = client.get("/v1/forecasts?shop=nowhere")
        days = client.get("/v1/forecasts?shop=007&from=2024-03-03&to=2024-03-04").json()["data"]

    assert unknown.status_code == 404
    assert [row["day"] for row in days] == ["2024-03-03", "2024-03-04"]


def test_names_that_the_api_uses_itself_get_an_underscore(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    panel = awkward()
    series = [{"shop": shop, "is_outlet": flag} for shop in SHOPS for flag in (False, True)]
    shops = pd.DataFrame({"shop": SHOPS, "format": ["big", "small", "big", "small", "big"], "page": range(5)})
    tables = {"forecasts": forecasts(panel, series), "shops": shops}
    with serving(panel, tmp_path, monkeypatch, **tables) as client:
        small = client.get("/v1/forecasts?format_=small&is_outlet=true&format=json").json()["data"]
        third = client.get("/v1/forecasts?page_=2&horizon=1").json()["data"]
        lean = client.get("/v1/forecasts?is_outlet=true&shop=007")
        ordinary = client.get("/v1/forecasts?is_outlet=1&shop=007")
        wrong = client.get("/v1/forecasts?format=small").json()

    assert {(row["shop"], row["is_outlet"]) for row in small} == {(SHOPS[1], True), ("", True)}
    assert [row["shop"] for row in third] == ["007", "007"]
    assert lean.content == ordinary.content
    assert len(lean.json()["data"]) == 3
    assert wrong["problems"][0]["field"] == "format"


@pytest.mark.parametrize("panel", [daily(), walmart_like(), awkward()], ids=lambda panel: panel.name)
def test_the_document_speaks_of_the_panel_in_its_own_words(
    panel: PanelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_settings(home=tmp_path)
    monkeypatch.setattr(type(settings), "panel_spec", panel)

    document = create_app(settings).openapi()

    given = {each["name"] for each in document["paths"]["/v1/forecasts"]["get"]["parameters"]}
    columns = document["components"]["schemas"]["HistoryRow"]["properties"]
    assert {each.name for each in selectors(panel)} <= given
    assert {*panel.keys, panel.time, panel.target} <= set(columns)
    assert "department" not in str(document["components"]["schemas"]["Forecast"])
