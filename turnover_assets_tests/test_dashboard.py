"""The web page, held against the published files: values, links, hostile texts, locales, errors."""

import csv
import io
import re
import shutil
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient

from turnover_assets.core.calendar import label_of
from turnover_assets.serving.dashboard import rendering
from turnover_assets.settings import Settings
from turnover_assets.storage.snapshots import CURRENT, Snapshot, current
from turnover_assets_tests.api_factories import publish
from turnover_assets_tests.dashboard_factories import (
    HTML,
    chart_data,
    crawl,
    page_of,
    reading,
    small_snapshot,
    table_cells,
)
from turnover_assets_tests.factories import daily, panel_data, parse_panel, settings_for, walmart_like
from turnover_assets_tests.html_pages import EVIL, Page
from turnover_assets_tests.waiting import wait_until

EVERY_PAGE = (
    *("/", "/level?name=store", "/all", "/search?q=1", "/accuracy", "/quality", "/adjustments"),
    *("/downloads", "/about"),
)


@pytest.fixture(scope="module")
def reader(served_home: Settings) -> Iterator[TestClient]:
    with reading(served_home) as client:
        yield client


@pytest.fixture(scope="module")
def snapshot(served_home: Settings) -> Snapshot:
    return current(served_home.published_path)


def test_the_overview_says_what_forecasts_carry_on(served_home: Settings, tmp_path: Path) -> None:
    source = current(served_home.published_path)
    table = pd.DataFrame(
        [("total", "", 1.4), ("department", "2", 0.5), ("department", "1", 1.001)],
        columns=["level", "member", "factor"],
    ).assign(change=1.0, usual=0.1, periods=3, cutoff=date(2024, 6, 29), model_version=1)
    home = settings_for(tmp_path)
    publish(home.published_path, source, {"level_changes": table})

    with reading(home) as client, reading(served_home) as before:
        told, quiet = (page_of(one, "/").text for one in (client, before))

    words = "Recent forecasts were off by more than usual"
    assert words in told
    assert "All series: +40.0%" in told
    assert "Department 2: -30.0%" in told.replace("\N{MINUS SIGN}", "-")
    assert "Department 1: +0.1%" not in told
    assert words not in quiet


def last_year(snapshot: Snapshot) -> pd.DataFrame:
    """What every series had a year before each week to forecast, the obvious way."""
    history = snapshot.read("turnover").set_index(["store", "department", "week"])["turnover_adjusted"]
    told = snapshot.read("explanations")
    told = told[told["compared_with"] == "year ago"].set_index(["store", "department", "week"])["reference"]
    rows = []
    for week in snapshot.read("forecasts")["week"].unique():
        before = (pd.Timestamp(week) - pd.Timedelta(days=364)).date()
        for store, department, at in history.index:
            if at == before:
                value = told.get((store, department, week), history[store, department, at])
                rows.append((store, department, week, value))
    return pd.DataFrame(rows, columns=["store", "department", "week", "value"])


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text.removeprefix("\ufeff"))))


def shown(value: float) -> str:
    """A number of at least 100 as an English reader writes it."""
    return f"{value:,.0f}".replace("-", "\N{MINUS SIGN}")


def signed(change: float) -> str:
    """A change with its sign, which nothing has none of."""
    text = f"{change:+.1%}".replace("-", "\N{MINUS SIGN}")
    return "0.0%" if text[1:] == "0.0%" else text


# Values ------------------------------------------------------------------------------------------


def test_the_overview_shows_the_published_total_and_sets_it_against_last_year(
    reader: TestClient, snapshot: Snapshot
) -> None:
    total = snapshot.read("aggregates").query("level == 'total'").sort_values("horizon")
    change = total["forecast"].sum() / last_year(snapshot)["value"].sum() - 1

    text = page_of(reader, "/").text

    assert f"Against last year {signed(change)}" in text
    figures = chart_data(reader.get("/").text)[0]
    forecast = next(line for line in figures["lines"] if line["key"] == "forecast")
    assert forecast["values"][-8:] == pytest.approx(total["forecast"].tolist(), rel=1e-5)
    band = next(band for band in figures["bands"] if band["key"] == "band-80")
    assert band["lower"][-8:] == pytest.approx(total["lower_80"].tolist(), rel=1e-5)


@pytest.mark.parametrize("level", ["department", "store", "region"])
def test_a_list_has_every_member_with_its_forecast_last_year_and_change(
    reader: TestClient, snapshot: Snapshot, level: str
) -> None:
    sums = snapshot.read("aggregates").query("level == @level")
    before = last_year(snapshot).merge(snapshot.read("stores"), on="store", how="left")
    for member, rows in sums.groupby("member"):
        own = before[before[level].astype("Int64").astype(str) == member]["value"].sum()
        forecast, ahead = rows["forecast"].sum(), rows.sort_values("horizon")["forecast"].iloc[0]
        change = signed(forecast / own - 1) if own > 0 else "\N{EN DASH}"
        wanted = [f"{level.title()} {member}", "", shown(ahead), shown(forecast), shown(own), change]

        cells = next(
            row for row in table_cells(reader.get(f"/level?name={level}").text) if row[0] == wanted[0]
        )

        assert cells == wanted


def test_downloads_of_a_series_have_its_history_last_year_and_forecasts(
    reader: TestClient, snapshot: Snapshot
) -> None:
    forecasts = snapshot.read("forecasts").query("store == 1").sort_values(["department", "horizon"])
    department = int(forecasts["department"].iloc[0])
    own = forecasts[forecasts["department"] == department]
    history = snapshot.read("turnover").query("store == 1 and department == @department").set_index("week")

    rows = {
        row["week"]: row for row in rows_of(reader.get(f"/series.csv?store=1&department={department}").text)
    }

    for week, value in history["turnover"].items():
        assert float(rows[str(week)]["reported"]) == value
    for row in own.to_dict("records"):
        assert float(rows[str(row["week"])]["forecast"]) == row["forecast"]
        assert float(rows[str(row["week"])]["upper_95"]) == row["upper_95"]
    year = last_year(snapshot).query("store == 1 and department == @department").set_index("week")["value"]
    assert {w: float(rows[str(w)]["last_year"]) for w in year.index} == pytest.approx(year.to_dict())
    a_week = history.index[-1]
    a_year_before = a_week - timedelta(days=364)
    assert float(rows[str(a_week)]["last_year"]) == history["turnover_adjusted"][a_year_before]


def test_a_download_of_a_member_adds_up_its_series(reader: TestClient, snapshot: Snapshot) -> None:
    store = 1
    history = snapshot.read("turnover").query("store == @store").groupby("week")["turnover"].sum()

    rows = {row["week"]: row for row in rows_of(reader.get(f"/member.csv?level=store&name={store}").text)}

    newest = history[history.index <= date.fromisoformat(snapshot.facts["cutoff"])]
    assert {week: float(rows[str(week)]["reported"]) for week in newest.index} == pytest.approx(
        newest.to_dict()
    )


def test_past_forecasts_are_the_newest_ones_published_before_each_week(
    reader: TestClient, snapshot: Snapshot
) -> None:
    past = snapshot.read("forecast_history").query("role == 'champion'")
    past = past[past["week"] <= date.fromisoformat(snapshot.facts["cutoff"])]
    newest = past.sort_values("cutoff").groupby(["store", "department", "week"]).last().reset_index()
    first = newest.iloc[0]
    wanted = newest.query("store == @first.store and department == @first.department").set_index("week")

    address = f"/series.csv?store={first.store}&department={first.department}"
    rows = {row["week"]: row["past_forecast"] for row in rows_of(reader.get(address).text)}

    assert {week: float(rows[str(week)]) for week in wanted.index} == wanted["forecast"].to_dict()
    text = page_of(reader, address.replace(".csv", "")).text
    assert "What was published just before each week" in text


def test_why_a_forecast_is_what_it_is_stands_with_the_published_sentence_and_effects(
    reader: TestClient, snapshot: Snapshot
) -> None:
    row = snapshot.read("explanations").sort_values(["store", "department", "horizon"]).iloc[0]

    answer = reader.get(f"/series?store={row.store}&department={row.department}").text

    assert row["sentence"].replace(" %", "%") in Page(answer).text.replace("  ", " ")
    steps = [cells for cells in table_cells(answer) if cells and cells[0] == "Forecast"]
    assert len(steps) == 8  # one for each week


def test_accuracy_stands_as_monitoring_has_it_beside_what_was_promised(
    reader: TestClient, snapshot: Snapshot
) -> None:
    rows = snapshot.read("monitored_accuracy").query("level == 'total' and basis == 'series'")
    whole = rows[rows["horizon"].isna()].sort_values("cutoff", ascending=False)

    cells = table_cells(reader.get("/accuracy").text)

    for row in whole.to_dict("records"):
        wanted = [f"{row['wape']:.1%}", f"{row['wape_promised']:.1%}", f"{row['wape_seasonal_naive']:.1%}"]
        assert any(line[2:5] == wanted for line in cells)


def test_accuracy_by_horizon_counts_in_whole_periods(reader: TestClient, snapshot: Snapshot) -> None:
    cells = table_cells(reader.get("/accuracy").text)

    first = next(number for number, row in enumerate(cells) if row[0] == "Weeks ahead")
    horizon = snapshot.facts["horizon"]
    assert [row[0] for row in cells[first + 1 : first + 1 + horizon]] == [str(k + 1) for k in range(horizon)]


def test_what_is_packed_already_is_sent_as_it_is(reader: TestClient) -> None:
    packed = {"Accept-Encoding": "gzip"}

    table = "/download?table=turnover&format="
    assert "content-encoding" not in reader.get(f"{table}parquet", headers=packed).headers
    assert reader.get(f"{table}csv", headers=packed).headers["content-encoding"] == "gzip"


def test_data_quality_counts_what_was_rejected_and_names_each_row(
    reader: TestClient, snapshot: Snapshot
) -> None:
    rejected = snapshot.read("rejected")

    text = page_of(reader, "/quality").text

    assert f"Rows rejected {len(rejected)}" in text
    for row in rejected.to_dict("records"):
        assert row["message"] in text
    for row in snapshot.read("restatements").head(3).to_dict("records"):
        assert shown(row["new_value"]) in text


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_tables_are_downloaded_as_they_were_published(
    reader: TestClient, snapshot: Snapshot, kind: str
) -> None:
    answer = reader.get(f"/download?table=forecasts&format={kind}")

    content = io.BytesIO(answer.content)
    exact = {"float_precision": "round_trip"}
    table = pd.read_csv(content, **exact) if kind == "csv" else pq.read_table(content).to_pandas()
    assert table["forecast"].tolist() == snapshot.read("forecasts")["forecast"].tolist()
    assert f"forecasts_{snapshot.facts['cutoff']}.{kind}" in answer.headers["content-disposition"]


def test_a_search_finds_members_and_series_by_the_beginnings_of_words(reader: TestClient) -> None:
    one = reader.get("/search?q=store 1 dep", follow_redirects=False)
    titles = [text for tag, text in Page(one.text).texts if tag == "a"]

    assert [t for t in titles if t.startswith("Store 1,")]
    assert "is called" in page_of(reader, "/search?q=zzz").text


def test_lists_are_sorted_and_searched_by_their_addresses(reader: TestClient, snapshot: Snapshot) -> None:
    sums = snapshot.read("aggregates").query("level == 'store'").groupby("member")["forecast"].sum()

    ascending = [row[0] for row in table_cells(reader.get("/level?name=store&sort=forecast").text)[1:]]

    assert ascending == [f"Store {member}" for member in sums.sort_values().index]
    searched = [row[0] for row in table_cells(reader.get("/level?name=store&q=1").text)[1:]]
    assert searched == [name for name in searched if name.split()[1].startswith("1")]
    assert searched


# Links, texts, locales ---------------------------------------------------------------------------


def test_every_page_that_is_linked_to_is_there(reader: TestClient, snapshot: Snapshot) -> None:
    found = crawl(reader)

    series = snapshot.read("forecasts")[["store", "department"]].drop_duplicates()
    assert sum(address.startswith("/series?") for address in found) >= len(series)
    assert {address.split("?")[0] for address in EVERY_PAGE if "search" not in address} <= {
        address.split("?")[0] for address in found
    }
    for address, page in found.items():
        assert all(not at.get("style") for _, at in page.elements), address  # the policy would drop it
        assert page.count("h1") == 1
        assert all(not link.startswith(("http:", "https:", "//", "javascript:")) for link in page.addresses)


def test_texts_of_files_never_become_markup(served_home: Settings, tmp_path: Path) -> None:
    source = current(served_home.published_path)
    frames = {name: source.read(name) for name in ("adjustments", "findings", "rejected", "files")}
    frames["adjustments"] = frames["adjustments"].assign(reason=EVIL, who=EVIL, selector=EVIL)
    frames["findings"] = frames["findings"].assign(sentence=EVIL, selector=EVIL)
    frames["rejected"] = frames["rejected"].assign(file=EVIL, message=EVIL, raw_values=EVIL)
    frames["files"] = frames["files"].assign(name=EVIL, reason=EVIL, status="refused")
    frames["explanations"] = source.read("explanations").assign(sentence=EVIL)
    settings = served_home.model_copy(update={"home": tmp_path})
    settings.published_path.mkdir()
    publish(settings.published_path, source, frames)
    told = frames["adjustments"]["adjustment_id"].iloc[0]

    with reading(settings) as client:
        pages = [client.get(address).text for address in (*EVERY_PAGE, f"/adjustment?id={told}")]
        pages.append(client.get("/series?store=1&department=11").text)
        pages += [
            client.get(f"/{path}", params={"q": EVIL, "name": EVIL}).text for path in ("search", "level")
        ]

    assert sum("alert(" in html for html in pages) >= 4
    assert all("<script>alert" not in html and "<img" not in html for html in pages)


def test_names_of_any_kind_lead_to_their_own_pages(tmp_path: Path) -> None:
    names = [EVIL, "a/b?c=d&e#f", "über % +", "(none)", "..", "café;1"]
    panel = parse_panel(
        panel_data(
            levels=["shop"],
            series={**panel_data()["series"], "keys": [{"name": "shop"}, {"name": "q"}]},
        ),
        "test",
    )
    settings = with_panel(tmp_path, panel)
    small_snapshot(settings.published_path, panel, [{"shop": n, "q": str(k)} for k, n in enumerate(names)])

    with reading(settings) as client:
        found = crawl(client)
        titles = {text for page in found.values() for tag, text in page.texts if tag == "h1"}

    written = {"(none)": "Without shop", "..": "Shop .."}
    assert {f"{written.get(n, n)}, q {k}" for k, n in enumerate(names)} <= titles
    assert {written.get(n, n) for n in names} <= titles


@pytest.mark.parametrize(
    ("accepted", "amount"),
    [
        ("de", "1.234.567"),
        ("fr-CA, fr;q=0.9", "1\u202f234\u202f567"),
        ("tlh", "1,234,567"),
        ("en-IN", "1,234,567"),
    ],
)
def test_numbers_are_written_as_the_reader_does(tmp_path: Path, accepted: str, amount: str) -> None:
    panel = daily()
    settings = with_panel(tmp_path, panel)
    small_snapshot(settings.published_path, panel, [{"shop": "north"}, {"shop": "south"}])
    forecasts = current(settings.published_path).read("forecasts").assign(forecast=1234567.2)
    publish(settings.published_path, current(settings.published_path), {"forecasts": forecasts})

    with reading(settings, headers={**HTML, "Accept-Language": accepted}) as client:
        page = client.get("/series?shop=north").text

    assert amount in page
    assert '<html lang="en"' in page


def test_a_chosen_locale_is_kept_in_a_cookie_and_numbers_of_sentences_follow_it(tmp_path: Path) -> None:
    panel = daily()
    settings = with_panel(tmp_path, panel)
    small_snapshot(settings.published_path, panel, [{"shop": "north"}])

    with reading(settings) as client:
        before = client.get("/series?shop=north").text
        client.get("/series?shop=north&lang=de")
        after = client.get("/series?shop=north").text
        client.get("/?lang=nonsense")
        still = client.get("/series?shop=north").text

    assert "1,234.5 expected" in before
    assert "Jun 1, 2030" in before
    assert "1.234,5 expected" in after
    assert "01.06.2030" in after
    assert "1.234,5 expected" in still


def with_panel(home: Path, panel: Any) -> Settings:
    """Settings whose panel needs no file."""
    settings = settings_for(home)
    settings.__dict__["panel_spec"] = panel
    return settings


@pytest.mark.parametrize("panel", [daily(), walmart_like()], ids=lambda panel: panel.name)
def test_another_panel_has_all_its_pages_with_its_own_names_and_unit(tmp_path: Path, panel: Any) -> None:
    settings = with_panel(tmp_path, panel)
    series: list[dict[str, Any]] = [{"shop": "north"}, {"shop": "côte d'or"}]
    attributes = {}
    if panel.name == "walmart-like":
        series = [{"store": s, "dept": d} for s in (1, 2) for d in (1, 7)]
        attributes["stores"] = pd.DataFrame({"store": [1, 2], "kind": ["A", None], "size": [10.0, 20.5]})
    small_snapshot(settings.published_path, panel, series, attributes)

    with reading(settings) as client:
        found = crawl(client)
        html = "".join(page.html for page in found.values())

    assert f"Next {panel.horizon} {panel.frequency.every}s" in html
    assert ("$" in html) == (panel.series.target.unit == "USD")
    assert sum(address.startswith("/series?") for address in found) == len(series)


# Following, errors, answers ----------------------------------------------------------------------


def test_a_new_set_of_forecasts_is_shown_without_a_restart(served_home: Settings, tmp_path: Path) -> None:
    source = current(served_home.published_path)
    settings = served_home.model_copy(update={"home": tmp_path})
    settings.published_path.mkdir()
    publish(settings.published_path, source)

    with reading(settings) as client:
        assert "model 77" not in client.get("/").text
        facts = {**source.facts, "model": {**source.facts["model"], "version": 77}}
        publish(settings.published_path, Snapshot(source.folder, facts))
        wait_until(lambda: "model 77" in client.get("/").text, "the page shows model 77", every=0.05)


def test_where_nothing_is_published_the_page_says_so_and_what_to_do(tmp_path: Path) -> None:
    with reading(settings_for(tmp_path)) as client:
        page = page_of(client, "/", 503)
        assert client.get("/healthz").json() == {"status": "ok"}
        assert client.get("/readyz").status_code == 503

    assert "No forecasts have been published yet." in page.text
    assert "turnover run" in page.text
    assert str(tmp_path) not in page.html


def test_a_newer_set_that_cannot_be_read_leaves_the_old_one_and_is_told(
    served_home: Settings, tmp_path: Path
) -> None:
    settings = served_home.model_copy(update={"home": tmp_path})
    settings.published_path.mkdir()
    publish(settings.published_path, current(served_home.published_path))

    with reading(settings) as client:
        (settings.published_path / CURRENT).write_text("nowhere\n")
        wait_until(lambda: "cannot be shown" in client.get("/").text, "the page says so", every=0.05)
        page = page_of(client, "/about")

    assert "A newer set of forecasts cannot be shown" in page.text
    assert "nowhere" in page.text  # the reason, for whoever uses this machine


def test_old_forecasts_carry_a_banner(served_home: Settings, tmp_path: Path) -> None:
    source = current(served_home.published_path)
    settings = served_home.model_copy(update={"home": tmp_path})
    settings.published_path.mkdir()
    made = publish(settings.published_path, source)
    facts = (made.folder / "snapshot.json").read_text()
    old = re.sub(r'"created_at": "\d{4}', '"created_at": "2020', facts)
    (made.folder / "snapshot.json").write_text(old)

    with reading(settings) as client:
        assert "These forecasts are old" in page_of(client, "/accuracy").text
    with reading(served_home) as client:
        assert "These forecasts are old" not in page_of(client, "/accuracy").text


@pytest.mark.parametrize(
    "address",
    [
        "/nix",
        "/level?name=nothing",
        "/member?level=store&name=999",
        "/member?level=nothing&name=1",
        "/series?store=999&department=11",
        "/series?store=one&department=11",
        "/series?store=1",
        f"/series?store={10**30}&department=11",
        "/adjustment?id=nothing",
        "/download?table=nothing",
        "/download?table=../forecasts",
        "/workbook?name=../../adjustments.toml",
        "/static/nothing",
    ],
)
def test_an_address_of_nothing_gets_a_page_that_leads_on(reader: TestClient, address: str) -> None:
    page = page_of(reader, address, 404)

    assert "To the overview" in page.text


def test_what_cannot_be_used_is_told_as_a_page_and_to_programs_as_a_document(reader: TestClient) -> None:
    assert reader.post("/accuracy").status_code == 405
    assert page_of(reader, "/download?table=forecasts&format=exe", 422).count("h1") == 1
    assert page_of(reader, "/level?name=store&page=two", 422).count("h1") == 1
    told = reader.get("/nix", headers={"Accept": "application/json"})
    assert told.headers["content-type"] == "application/problem+json"


def test_what_nobody_expected_is_a_page_with_a_number_and_without_internals(
    served_home: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("the inside of the server")

    with reading(served_home, raise_server_exceptions=False) as client:
        monkeypatch.setattr(rendering, "notices", fail)
        answer = client.get("/about")

    number = re.search(r"error ([0-9a-f]{8})", answer.text)
    assert answer.status_code == 500
    assert "the inside" not in answer.text
    assert number is not None
    assert number[1] in caplog.text


def test_pages_are_compressed_revalidated_and_bound_to_their_own_scripts(reader: TestClient) -> None:
    first = reader.get("/")
    again = reader.get("/", headers={"If-None-Match": first.headers["etag"]})

    assert first.headers["content-encoding"] == "gzip"
    assert again.status_code == 304
    policy = first.headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert first.headers["x-content-type-options"] == "nosniff"


def test_static_files_are_kept_by_browsers_until_they_change(reader: TestClient) -> None:
    html = reader.get("/").text
    for address in re.findall(r'"(/static/[^"]+)"', html):
        found = reader.get(address)
        assert found.status_code == 200
        assert "immutable" in found.headers["cache-control"]
        assert reader.get(address.split("?")[0]).headers["cache-control"] == "public, no-cache"
        assert reader.get(address, headers={"If-None-Match": found.headers["etag"]}).status_code == 304


def test_slips_that_were_mended_do_not_flatten_the_picture(tmp_path: Path) -> None:
    panel = daily()
    settings = with_panel(tmp_path, panel)
    made = small_snapshot(settings.published_path, panel, [{"shop": "north"}])
    history = made.read("takings")
    history.loc[history.index[-30], "amount"] = 1e6
    publish(settings.published_path, made, {"takings": history})

    with reading(settings) as client:
        figures = chart_data(client.get("/").text)[0]

    assert figures["limit"] is not None
    assert figures["limit"] < 1000
    assert label_of(panel, 12_000) == date.fromisoformat(made.facts["cutoff"])


def test_where_files_of_the_snapshot_are_gone_pages_say_so(served_home: Settings, tmp_path: Path) -> None:
    shutil.copytree(served_home.published_path, tmp_path / "published")
    settings = served_home.model_copy(update={"home": tmp_path})
    with reading(settings) as client:
        shutil.rmtree(current(settings.published_path).folder)
        found = [
            client.get(address) for address in ("/", "/quality", "/adjustments", "/download?table=stores")
        ]

    assert {page.status_code for page in found} == {503}
    assert all("What is published cannot be read at the moment." in page.text for page in found)
    assert not [page for page in found if str(tmp_path) in page.text]
