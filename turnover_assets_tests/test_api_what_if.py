"""What-if questions over HTTP, and champions that change while questions are answered."""

import json
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pandas as pd
import pytest
from fastapi.testclient import TestClient

from turnover_assets.core.what_if.sums import BASELINE
from turnover_assets.serving import what_if
from turnover_assets.serving.routes import what_if as what_if_route
from turnover_assets.settings import Settings, load_settings
from turnover_assets.storage.api_keys import KeyStore
from turnover_assets.storage.published_model import MODEL_FOLDER
from turnover_assets.storage.snapshots import FACTS, Snapshot, current
from turnover_assets_tests.api_factories import client_of, live_server, publish
from turnover_assets_tests.dashboard_factories import form_value, page_of, reading
from turnover_assets_tests.factories import (
    Landed,
    copy_home,
    default_history,
    default_panel,
    walmart_history,
    walmart_like,
)
from turnover_assets_tests.html_pages import Page
from turnover_assets_tests.waiting import PATIENCE, wait_until
from turnover_assets_tests.what_if_factories import Published, publish_panel, serve_panel

PANEL = default_panel()
ONE = {"store": 2, "department": 73}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return publish_panel(tmp_path_factory.mktemp("made"), PANEL, default_history())


@pytest.fixture
def home(tmp_path: Path) -> Settings:
    quick = {"snapshot_poll_seconds": 0.05, "what_if_waiting": 1, "what_if_seconds": 120.0}
    return load_settings(home=tmp_path, api_rate="unlimited", **quick)


@pytest.fixture
def client(home: Settings, made: Published) -> Iterator[TestClient]:
    serve_panel(home.home, made)
    with client_of(home) as found:
        yield found


def ask(client: TestClient, **asked: Any) -> dict[str, Any]:
    answer = client.post("/v1/what-if", json=asked)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def wait_for(client: TestClient, snapshot: Snapshot) -> None:
    wait_until(lambda: client.get("/readyz").json().get("snapshot") == snapshot.name, every=0.02)


def is_served(base: str, snapshot: Snapshot) -> bool:
    return bool(json.load(urlopen(f"{base}/readyz"))["snapshot"] == snapshot.name)


def damage(snapshot: Snapshot) -> None:
    path = snapshot.folder / MODEL_FOLDER / "model.ubj"
    path.write_bytes(path.read_bytes()[:-1])


# Questions and answers ---------------------------------------------------------------------------


def test_an_answer_names_where_it_comes_from_and_what_was_changed(
    client: TestClient, made: Published
) -> None:
    answer = client.post("/v1/what-if", json={"series": [ONE], "history": {"factor": 1.2, "periods": 4}})
    found = answer.json()

    assert found["served"]["snapshot"] == answer.headers["x-turnover-snapshot"]
    assert found["model"] == {"version": 1, "candidate": "xgboost", "role": "champion", "problem": None}
    assert found["changes"] == ["The newest 4 weeks of history are 1.2 times what they were."]
    rows = made.forecasts.query("store == 2 & department == 73").reset_index(drop=True)
    data = pd.DataFrame(found["data"])
    assert data["baseline"].tolist() == rows["forecast"].tolist()
    assert data["week"].tolist() == [str(week)[:10] for week in rows["week"]]
    assert (data["difference"] > 0).any()
    totals = pd.DataFrame(found["totals"])
    assert totals["forecast"].tolist() == pytest.approx(data["forecast"].tolist())
    assert totals.columns.tolist() == ["week", "horizon", "baseline", "forecast", "difference"]


def test_sums_of_several_series_have_no_bounds_and_nulls_where_there_is_no_baseline(
    client: TestClient,
) -> None:
    found = ask(client, new=[{"keys": {"store": 99}, "like": {"store": 2}}])

    assert {row["is_new"] for row in found["data"]} == {True}
    assert all(row[name] is None for row in found["data"] for name in (*BASELINE, "difference"))
    assert all(total["baseline"] is None and total["difference"] is None for total in found["totals"])
    of_first = [row["forecast"] for row in found["data"] if row["horizon"] == 1]
    assert found["totals"][0]["forecast"] == pytest.approx(sum(of_first))


def test_sums_of_levels_come_with_bounds_of_their_own(client: TestClient, made: Published) -> None:
    week = str(made.forecasts["week"].min())[:10]

    found = ask(
        client,
        series=[ONE],
        history={"factor": 1.5, "periods": 8},
        levels=["department", "total"],
        periods=[week],
    )

    sums = {row["level"]: row for row in found["aggregates"]}
    assert len(found["data"]) == 1
    assert (sums["department"]["member"], sums["total"]["member"]) == ("73", "")
    first = made.forecasts.query("horizon == 1")
    assert sums["total"]["baseline"] == pytest.approx(first["forecast"].sum())
    assert sums["total"]["parts"] == len(first)
    for row in sums.values():
        figures = [row[name] for name in ("lower_95", "lower_80", "forecast", "upper_80", "upper_95")]
        assert figures == sorted(figures)
        assert row["difference"] == pytest.approx(row["forecast"] - row["baseline"])
    assert ask(client, series=[ONE])["aggregates"] == []


def test_a_panel_with_values_known_ahead_takes_them(tmp_path: Path) -> None:
    walmart = publish_panel(tmp_path / "made", walmart_like(), walmart_history())
    serve_panel(tmp_path, walmart)
    settings = load_settings(home=tmp_path)
    settings.__dict__["panel_spec"] = walmart.panel  # which is in no file

    with client_of(settings) as client:
        found = ask(client, series=[{"store": 1}], covariates=[{"values": {"temperature": None}}])
        wrong = client.post(
            "/v1/what-if", json={"series": [{"store": 1}], "covariates": [{"values": {"rain": 1}}]}
        )

    assert found["changes"][0].startswith("temperature is not known for 8 weeks")
    assert {row["dept"] for row in found["data"]} == {1, 7}
    assert wrong.status_code == 422
    assert wrong.json()["problems"][0]["field"] == "covariates.0.values.rain"


WRONG: dict[str, tuple[Any, str]] = {
    "nothing": ({}, "series"),
    "no object": ([], "body"),
    "an unknown field": ({"serie": [ONE]}, "serie"),
    "an unknown key": ({"series": [{"shop": 3}]}, "series.0.shop"),
    "a text for a number": ({"series": [{"store": "x"}]}, "series.0.store"),
    "null for a key": ({"series": [{"store": None}]}, "series.0.store"),
    "no series that there is": ({"series": [{"store": 12345}]}, "series.0"),
    "no factor": ({"series": [ONE], "history": {"periods": 3}}, "history.factor"),
    "a factor below 0": ({"series": [ONE], "history": {"factor": -1, "periods": 3}}, "history.factor"),
    "no such period": ({"series": [ONE], "periods": ["2001-01-06"]}, "periods.0"),
    "no such level": ({"series": [ONE], "levels": ["shop"]}, "levels.0"),
    "no date": ({"series": [ONE], "periods": ["soon"]}, "periods.0"),
    "too many parts": ({"series": [ONE] * 101}, "series"),
    "a newcomer without keys": ({"new": [{}]}, "new.0.keys"),
}


@pytest.mark.parametrize(("asked", "field"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_question_is_answered_by_its_field(client: TestClient, asked: Any, field: str) -> None:
    answer = client.post("/v1/what-if", json=asked)

    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["problems"][0]["field"] == field
    assert answer.json()["remedy"]


def test_a_question_needs_its_scope_and_is_audited(home: Settings, made: Published) -> None:
    serve_panel(home.home, made)
    store, now = KeyStore(home.keys_path), datetime.now(UTC)
    reader, asker = store.create("reader", ["read"], now), store.create("asker", ["what-if"], now)

    with client_of(home) as client:
        refused = client.post("/v1/what-if", json={"series": [ONE]}, headers={"X-API-Key": reader.secret})
        found = client.post("/v1/what-if", json={"series": [ONE]}, headers={"X-API-Key": asker.secret})

    assert (refused.status_code, found.status_code) == (403, 200)
    rows = pd.concat([pd.read_parquet(path) for path in home.audit_path.rglob("*.parquet")])
    row = rows[rows["status"] == 200].iloc[0]
    assert (row["model_version"], row["role"], row["predictions"]) == (1, "champion", PANEL.horizon)
    assert json.loads(row["body"]) == {"series": [ONE]}


# The page ----------------------------------------------------------------------------------------


def test_the_page_shows_what_the_api_answers(landed: Landed, tmp_path: Path) -> None:
    settings = copy_home(landed, tmp_path).settings
    first = current(settings.published_path).read("forecasts").iloc[0]
    store, department = (int(first[key]) for key in ("store", "department"))
    horizon = settings.panel_spec.horizon
    newcomer = {"keys": {"store": 90001, "department": department}, "like": {"store": store}, "level": 5000}
    with client_of(settings) as client:
        changed = {"factor": 1.5, "periods": horizon}
        known = ask(client, series=[{"store": store, "department": department}], history=changed)
        new = ask(client, new=[newcomer])

    with reading(settings) as page:
        sent = {"csrf": form_value(page_of(page, "/what-if"), "csrf"), "key_department": str(department)}
        described = {"what": "new", "key_store": "90001", "like_store": str(store), "mean": "5000"}
        shown = page.post("/what-if", data={**sent, "key_store": str(store), "level": "150"})
        shown_new = page.post("/what-if", data={**sent, **described})

    for answer, found in ((shown, known), (shown_new, new)):
        text = Page(answer.text).text
        assert answer.status_code == 200, text
        assert len(found["data"]) == horizon
        for row in found["data"]:
            assert f"{row['forecast']:,.0f}" in text


# Too much at once, and too slow ------------------------------------------------------------------


def test_questions_wait_in_a_short_line_and_no_look_up_waits_behind_them(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()
    real = what_if_route.answer_question

    def slow(*given: Any) -> dict[str, Any]:
        assert go.wait(PATIENCE)
        return real(*given)

    monkeypatch.setattr(what_if_route, "answer_question", slow)
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(client.post, "/v1/what-if", json={"series": [ONE]}) for _ in range(2)]
        workers = client.app.state.what_if_workers  # type: ignore[attr-defined]
        wait_until(lambda: workers._pending >= 2, every=0.01)
        refused = client.post("/v1/what-if", json={"series": [ONE]})
        looked_up = client.get("/v1/forecasts?store=2&department=73")
        listed = client.get("/v1/series?limit=1")
        go.set()
        answered = [future.result().status_code for future in waiting]

    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) > 0
    assert (looked_up.status_code, listed.status_code) == (200, 200)
    assert answered == [200, 200]


def test_a_question_that_takes_too_long_is_given_up(
    home: Settings, made: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_panel(home.home, made)
    ended = threading.Event()
    real = what_if.answer

    def endless(opened: Any, *others: Any) -> Any:
        with opened() as overlay:
            try:
                overlay.con.execute(
                    "SELECT count(*) FROM range(100_000_000) AS a, range(100_000) AS b"
                ).fetchall()
            finally:
                ended.set()
        return real(opened, *others)

    monkeypatch.setattr(what_if, "answer", endless)
    with client_of(home.model_copy(update={"what_if_seconds": 0.3})) as client:
        with client.app.state.follower.use() as served:  # type: ignore[attr-defined]
            served.champion.bench.prepare()
        answer = client.post("/v1/what-if", json={"series": [ONE]})
        assert ended.wait(PATIENCE)
        monkeypatch.setattr(what_if, "answer", real)
        after = client.get("/v1/forecasts?store=2&department=73")

    assert answer.status_code == 503
    assert "given up" in answer.json()["detail"]
    assert after.status_code == 200


# Champions that change ---------------------------------------------------------------------------


def test_a_refused_champion_leaves_look_ups_to_the_new_snapshot_and_questions_to_the_last_good_one(
    client: TestClient, home: Settings, made: Published
) -> None:
    before = ask(client, series=[ONE])
    new = made.forecasts.assign(forecast=made.forecasts["forecast"] * 2, model_version=2)
    facts = {**made.snapshot.facts, "model": {**made.snapshot.facts["model"], "version": 2}}
    source = Snapshot(made.snapshot.folder, facts)
    aside = home.home / "aside"
    second = publish(aside, source, {"forecasts": new})
    damage(second)
    second.folder.rename(home.published_path / second.name)
    (home.published_path / "CURRENT").write_text(f"{second.name}\n")
    wait_for(client, second)

    looked_up = client.get("/v1/forecasts?store=2&department=73").json()
    after = ask(client, series=[ONE], history={"factor": 1.0, "periods": 1})
    ready, metrics = client.get("/readyz"), client.get("/metrics").text

    assert looked_up["served"]["model_version"] == 2
    assert looked_up["data"][0]["forecast"] == pytest.approx(2 * before["data"][0]["forecast"])
    assert (after["served"]["model_version"], after["model"]["version"]) == (2, 1)
    assert "model.ubj" in after["model"]["problem"]
    assert "baseline-recomputed" in {each["kind"] for each in after["warnings"]}
    assert after["data"][0]["baseline"] == pytest.approx(before["data"][0]["forecast"])
    assert ready.status_code == 200
    assert "Model version 2 is not used, version 1 answers instead" in ready.json()["problems"][0]
    assert "turnover_api_model_problem 1.0" in metrics
    assert "turnover_api_model_version 1.0" in metrics


def test_without_any_model_look_ups_go_on_and_questions_are_told_when_to_come_again(
    home: Settings, made: Published
) -> None:
    snapshot = serve_panel(home.home, made)
    facts = json.loads((snapshot.folder / FACTS).read_text("utf-8"))
    del facts["model"]["files"]
    (snapshot.folder / FACTS).write_text(json.dumps(facts))
    shutil.rmtree(snapshot.folder / MODEL_FOLDER)

    with client_of(home) as client:
        looked_up = client.get("/v1/forecasts?store=2&department=73")
        answer, ready = client.post("/v1/what-if", json={"series": [ONE]}), client.get("/readyz")
        inferred = client.post("/invocations", json={"dataframe_records": [ONE]})

    assert (looked_up.status_code, inferred.status_code, ready.status_code) == (200, 200, 200)
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert "turnover run --retrain" in answer.json()["remedy"]
    assert "without its model's files" in ready.json()["problems"][0]


def test_three_promotions_under_load_fail_no_request(home: Settings, made: Published) -> None:
    serve_panel(home.home, made)
    name, tensors = (
        PANEL.name,
        [{"name": key, "shape": [1], "datatype": "INT64", "data": [value]} for key, value in ONE.items()],
    )
    requests: dict[str, Any] = {
        "/v1/forecasts?store=2&department=73": None,
        "/v1/forecasts?region=7": None,
        "/v1/what-if": {"series": [ONE]},
        "/invocations": {"dataframe_records": [ONE]},
        f"/v2/models/{name}/infer": {"inputs": tensors},
    }
    stop, failed, seen = threading.Event(), [], []

    def load(base: str, path: str, body: Any) -> None:
        while not stop.is_set():
            data = None if body is None else json.dumps(body).encode()
            try:
                with urlopen(Request(f"{base}{path}", data, {"Content-Type": "application/json"})) as answer:
                    found = json.load(answer)
            except OSError as error:
                failed.append(f"{path}: {error}")
                continue
            seen.append((path, versions_in(found)))

    with live_server(home) as base, ThreadPoolExecutor(len(requests)) as pool:
        futures = [pool.submit(load, base, path, body) for path, body in requests.items()]
        for version in (2, 3, 4):
            reached = len(seen)
            snapshot = serve_panel(home.home, made, version)
            wait_until(partial(is_served, base, snapshot), every=0.02)
            wait_until(lambda enough=reached + 20: len(seen) >= enough, every=0.02)
        stop.set()
        for future in futures:
            future.result()

    assert failed == []
    assert all(len(versions) == 1 for _, versions in seen)  # an answer is of one champion throughout
    assert {min(versions) for _, versions in seen} >= {1, 4}
    assert {path for path, _ in seen} == set(requests)


def versions_in(answer: Any) -> set[int]:
    """The model versions that an answer names, wherever it does."""
    if isinstance(answer, list):
        return {version for each in answer for version in versions_in(each)}
    if not isinstance(answer, dict):
        return set()
    own = {int(answer["model_version"])} if "model_version" in answer else set()
    own |= {int(answer["version"])} if "candidate" in answer else set()
    return own | versions_in(list(answer.values()))
