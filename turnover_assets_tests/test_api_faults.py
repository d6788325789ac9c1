"""What goes wrong around the API degrades as documented, and none of it takes the service down."""

import asyncio
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qsl

import duckdb
import pytest
from fastapi import Body, FastAPI
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from turnover_assets.serving import problems
from turnover_assets.serving.app import create_app
from turnover_assets.serving.archive import MOST_OPEN, Archive
from turnover_assets.serving.limits import Limits
from turnover_assets.serving.problems import Problem
from turnover_assets.serving.served import Served
from turnover_assets.serving.view import Stop
from turnover_assets.serving.workers import Workers
from turnover_assets.settings import Settings
from turnover_assets.storage import snapshots
from turnover_assets.storage.audit import AuditFilter, opened_audit
from turnover_assets.storage.snapshots import CURRENT, Snapshot, current
from turnover_assets_tests.api_factories import client_of, live_server, publish
from turnover_assets_tests.waiting import PATIENCE, wait_until

OLDER_RELEASE = ("stores", "monitored_accuracy", "explanations")


@pytest.fixture
def home(served_home: Settings, tmp_path: Path) -> Settings:
    """A home of one's own."""
    shutil.copytree(served_home.published_path, tmp_path / "published")
    return served_home.model_copy(update={"home": tmp_path})


@contextmanager
def client_at(settings: Settings) -> Iterator[tuple[TestClient, FastAPI]]:
    with client_of(settings) as client:
        app = client.app
        assert isinstance(app, FastAPI)
        yield client, app


def one_series(snapshot: Snapshot) -> str:
    first = snapshot.read("forecasts").iloc[0]
    return f"store={first['store']}&department={first['department']}"


# Snapshots -----------------------------------------------------------------------------------------------


def test_nothing_published_is_told_and_served_once_it_is(home: Settings) -> None:
    snapshot = current(home.published_path)
    (home.published_path / CURRENT).unlink()

    with client_at(home) as (client, _):
        empty, unready = client.get("/v1/forecasts"), client.get("/readyz")
        lookup = client.get(f"/v1/forecasts?{one_series(snapshot)}")
        (home.published_path / CURRENT).write_text(f"{snapshot.name}\n")
        wait_until(lambda: client.get("/readyz").status_code == 200)
        found = client.get("/v1/forecasts")

    assert empty.status_code == lookup.status_code == unready.status_code == 503
    assert int(empty.headers["retry-after"]) > 0
    assert str(home.home) not in empty.text
    assert "Nothing has been published" in unready.json()["problems"][0]
    assert (unready.json()["status"], unready.json()["snapshot"]) == ("not ready", None)
    assert found.status_code == 200


@pytest.mark.parametrize("fault", ["pointer to what is not there", "broken bytes", "another panel"])
def test_what_cannot_be_used_is_told_and_the_snapshot_before_goes_on(home: Settings, fault: str) -> None:
    before = current(home.published_path)
    with client_at(home) as (client, app):
        if fault == "pointer to what is not there":
            (home.published_path / CURRENT).write_text("2031-01-01_gone\n")
        elif fault == "another panel":
            publish(home.published_path, replace(before, facts={**before.facts, "panel": "another"}))
        else:
            broken = publish(home.published_path, before)
            content = bytearray(broken.path("turnover").read_bytes())
            content[len(content) // 2] ^= 0xFF  # the same size, and the footer is whole
            broken.path("turnover").write_bytes(content)
        wait_until(lambda: bool(app.state.follower.following.problem))
        answer, ready = client.get(f"/v1/history?{one_series(before)}"), client.get("/readyz")
        metrics = client.get("/metrics").text
        app.state.settings = home.model_copy(update={"api_broken_seconds": 0.0})
        later = client.get("/readyz")

    assert answer.headers["x-turnover-snapshot"] == before.name
    assert (ready.status_code, ready.json()["snapshot"]) == (200, before.name)
    assert ready.json()["problems"]
    assert "turnover_api_snapshot_problem 1.0" in metrics
    assert later.status_code == 503


def test_a_snapshot_that_is_removed_by_hand_answers_what_is_in_memory(home: Settings) -> None:
    snapshot = current(home.published_path)
    series = one_series(snapshot)
    keys = {name: int(value) for name, value in parse_qsl(series)}
    with client_at(home) as (client, _):
        shutil.rmtree(snapshot.folder)
        lookup = client.get(f"/v1/forecasts?{series}")
        hot = client.get("/v1/aggregates")
        cold = client.get("/v1/explanations")
        model = client.get(f"/v2/models/{home.panel_spec.name}")
        challengers = client.post(
            "/invocations",
            json={"dataframe_records": [keys], "params": {"role": "challenger"}},
        )

    assert [model.status_code, challengers.status_code] == [503, 503]
    assert model.json()["error"] == model.json()["detail"]
    assert lookup.status_code == hot.status_code == 200
    assert cold.status_code == 503
    assert "publish a new one" in cold.json()["remedy"]
    assert str(home.home) not in cold.text


def test_a_snapshot_of_an_earlier_release_answers_what_it_has(home: Settings) -> None:
    snapshot = current(home.published_path)
    kept = {name: facts for name, facts in snapshot.facts["tables"].items() if name not in OLDER_RELEASE}
    older = publish(home.published_path, replace(snapshot, facts={**snapshot.facts, "tables": kept}))

    with client_at(home) as (client, _):
        answers = {
            path: client.get(f"/v1/{path}")
            for path in ("forecasts", "series", "accuracy", "explanations", "forecasts?region=1")
        }

    assert answers["forecasts"].headers["x-turnover-snapshot"] == older.name
    assert answers["series"].json()["data"][0]["region"] is None
    for path in ("accuracy", "explanations", "forecasts?region=1"):
        assert answers[path].status_code == 503
        assert "turnover run" in answers[path].json()["remedy"]


def test_forecasts_that_are_too_old_are_not_ready(home: Settings) -> None:
    with client_at(home) as (client, app):
        app.state.settings = home.model_copy(update={"api_stale_after_days": 1e-9})
        stale = client.get("/readyz")
        kserve = client.get("/v2/health/ready")

    assert stale.status_code == 503
    assert "days old" in stale.json()["problems"][0]
    assert stale.json()["age_seconds"] > 0
    assert kserve.status_code == 503
    assert "days old" in kserve.json()["error"]


# Pages while CURRENT moves -------------------------------------------------------------------------------


def test_pages_stay_in_their_snapshot_while_others_are_published(home: Settings) -> None:
    first = current(home.published_path)
    newer = first.read("aggregates").assign(forecast=-1.0)
    with client_at(home) as (client, app):
        page = client.get("/v1/aggregates?limit=20").json()
        found = page["data"]
        second = publish(home.published_path, first, {"aggregates": newer})
        wait_until(lambda: app.state.follower.following.snapshot.name == second.name)
        while page["next"]:
            answer = client.get(page["next"])
            page = answer.json()
            assert page["served"]["snapshot"] == answer.headers["x-turnover-snapshot"] == first.name
            found += page["data"]
        now = client.get("/v1/aggregates").json()

    assert [row["forecast"] for row in found] == list(first.read("aggregates")["forecast"])
    assert {row["forecast"] for row in now["data"]} == {-1.0}


def test_a_page_of_a_snapshot_that_is_gone_is_gone(home: Settings) -> None:
    first = current(home.published_path)
    with client_at(home) as (client, app):
        address = client.get("/v1/aggregates?limit=20").json()["next"]
        second = publish(home.published_path, first)
        wait_until(lambda: app.state.follower.following.snapshot.name == second.name)
        kept = client.get(address)
        assert snapshots.prune(home.published_path, keep=1) == []  # leased for those in their pages
        app.state.archive.tidy(idle_seconds=-1)
        assert snapshots.prune(home.published_path, keep=1) == [first.name]
        gone = client.get(address)

    assert kept.status_code == 200
    assert gone.status_code == 410
    assert gone.json()["problems"][0]["field"] == "page"
    assert "Leave `page` out" in gone.json()["remedy"]


@pytest.mark.parametrize("name", ["../../etc", "", "a/b", ".partial", "x" * 300])
def test_no_token_leads_out_of_the_published_folder(home: Settings, name: str) -> None:
    with client_at(home) as (_, app), pytest.raises(Problem) as refused, app.state.archive.use(name):
        pass

    assert refused.value.status == 410


def test_only_so_many_older_snapshots_are_open_and_those_asked_for_longest_ago_are_closed(
    home: Settings,
) -> None:
    older = [current(home.published_path)]
    older += [publish(home.published_path, older[0]) for _ in range(MOST_OPEN)]
    archive = Archive(home.published_path, lambda snapshot: Served(snapshot, home))
    for snapshot in older[:MOST_OPEN]:
        with archive.use(snapshot.name) as served:
            assert served.origin.snapshot == snapshot.name

    with ExitStack() as using:
        for snapshot in older[1:]:
            using.enter_context(archive.use(snapshot.name))
        with pytest.raises(Problem, match="too many older snapshots"), archive.use(older[0].name):
            pass
        removed = snapshots.prune(home.published_path, keep=1)
    archive.close()

    assert removed == [older[0].name]
    assert len(snapshots.prune(home.published_path, keep=1)) == MOST_OPEN - 1


def test_asking_for_one_that_is_gone_closes_no_other(home: Settings) -> None:
    made: list[str] = []

    def make(snapshot: Snapshot) -> Served:
        made.append(snapshot.name)
        return Served(snapshot, home)

    first = current(home.published_path)
    archive = Archive(home.published_path, make)
    for snapshot in [first, *(publish(home.published_path, first) for _ in range(MOST_OPEN - 1))]:
        with archive.use(snapshot.name):
            pass

    with pytest.raises(Problem, match="no longer there"), archive.use("2001-01-01_gone"):
        pass
    with archive.use(first.name):
        pass
    archive.close()

    assert len(made) == MOST_OPEN


# Limits --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small() -> Iterator[TestClient]:
    """An app that takes 1000 bytes, and tells how many it got."""
    app = FastAPI()
    problems.install(app)

    @app.post("/count")
    async def count(body: Annotated[bytes, Body(media_type="application/octet-stream")]) -> int:
        return len(body)

    app.add_middleware(Limits, address_bytes=200, body_bytes=1000)
    with TestClient(app) as client:
        yield client


def parts(size: int) -> Iterator[bytes]:
    """A body whose length is not said beforehand."""
    for start in range(0, size, 300):
        yield b"x" * min(300, size - start)


@given(size=st.integers(0, 3000), said=st.booleans())
def test_bodies_are_taken_up_to_the_limit_whether_their_length_is_said_or_not(
    small: TestClient, size: int, said: bool
) -> None:
    kind = {"Content-Type": "application/octet-stream"}

    answer = small.post("/count", content=b"x" * size if said else parts(size), headers=kind)

    if size > 1000:
        assert answer.status_code == 413
        assert answer.json()["problems"][0]["field"] == "body"
        assert answer.headers["content-type"] == "application/problem+json"
    elif size:
        assert (answer.status_code, answer.json()) == (200, size)


def test_addresses_that_are_too_long_are_refused(small: TestClient) -> None:
    assert small.get(f"/count?{'x' * 300}").status_code == 414
    assert small.get(f"/{'x' * 300}").status_code == 414


def test_what_is_refused_for_its_length_is_in_the_audit(home: Settings) -> None:
    with client_at(home.model_copy(update={"api_address_bytes": 100})) as (client, _):
        answer = client.get(f"/v1/history?store={'1' * 200}")

    with opened_audit(home.audit_path, AuditFilter()) as con:
        found = con.sql(
            "SELECT status FROM audit WHERE request_id = $id", params={"id": answer.headers["x-request-id"]}
        )
        assert found.fetchall() == [(414,)]


def test_an_answer_that_takes_too_long_is_given_up_and_its_thread_is_free_again(home: Settings) -> None:
    impatient = home.model_copy(update={"api_seconds": 0.3, "api_threads": 1})
    endless = "SELECT sum(a.range * b.range) AS x FROM range(1000000000) AS a, range(1000000000) AS b"
    with client_at(impatient) as (client, app):
        with app.state.follower.use() as served:
            ask = served.view.arrow
            served.view.arrow = lambda sql, values=(), stop=None: ask(endless, (), stop)
            slow = client.get("/v1/history")
            served.view.arrow = ask
        again = client.get("/v1/history?limit=1")

    assert slow.status_code == 503
    assert int(slow.headers["retry-after"]) > 0
    assert "0.3 s" in slow.json()["detail"]
    assert again.status_code == 200


def test_more_questions_than_may_wait_are_refused_at_once() -> None:
    async def ask() -> None:
        may_end, workers = threading.Event(), Workers(threads=1, waiting=1, seconds=20)
        asked = [asyncio.create_task(workers.run(lambda _: may_end.wait(PATIENCE))) for _ in range(2)]
        await asyncio.sleep(0.05)

        with pytest.raises(Problem, match="More questions wait") as refused:
            await workers.run(lambda _: True)

        assert refused.value.headers["Retry-After"] == "1"
        may_end.set()
        assert await asyncio.gather(*asked) == [True, True]
        assert await workers.run(lambda _: 3) == 3
        workers.close()

    asyncio.run(ask())


def test_a_question_that_is_stopped_before_it_begins_is_not_asked() -> None:
    stop = Stop()
    stop.set()

    with duckdb.connect() as con, pytest.raises(duckdb.InterruptException), stop.watching(con):
        pytest.fail("asked")


def test_errors_of_the_service_tell_nothing_but_a_number(
    home: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    with client_at(home) as (client, app):
        with app.state.follower.use() as served:

            def broken(*_: Any) -> None:
                raise RuntimeError("the password is 1234")

            served.view.arrow = broken
            answer = client.get("/v1/history", headers={"X-Request-Id": "my-number"})
            del served.view.arrow
        metrics = client.get("/metrics").text

    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert "my-number" in answer.json()["remedy"]
    assert answer.headers["x-request-id"] == "my-number"
    assert "1234" not in answer.text
    assert "the password is 1234" in capsys.readouterr().err
    assert 'turnover_api_requests_total{method="GET",route="/v1/history",status="500"} 1.0' in metrics


# Clients -------------------------------------------------------------------------------------------------


@pytest.fixture
def address(home: Settings) -> Iterator[tuple[str, int]]:
    """A server that gives its clients half a second."""
    with live_server(home.model_copy(update={"api_client_seconds": 0.5})) as base:
        host, port = base.removeprefix("http://").split(":")
        yield host, int(port)


def is_cut(connection: socket.socket, within: float = 5.0) -> bool:
    """Whether the server ends a connection, rather than wait."""
    connection.settimeout(within)
    try:
        while connection.recv(65536):
            pass
    except ConnectionError:
        return True
    except TimeoutError:
        return False
    return True


BEGINNINGS = {
    "nothing": b"",
    "part of a line": b"GET /v1/fore",
    "no end of the headers": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: 1\r\n",
    "no end of the body": b"POST /v1/forecasts HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n\r\nabc",
}


@pytest.mark.parametrize("beginning", list(BEGINNINGS))
def test_who_does_not_finish_a_request_is_cut(address: tuple[str, int], beginning: str) -> None:
    with socket.create_connection(address) as connection:
        connection.sendall(BEGINNINGS[beginning])
        began = time.monotonic()

        assert is_cut(connection)
        assert time.monotonic() - began < 4


def test_who_sends_empty_lines_after_an_answer_is_cut(address: tuple[str, int]) -> None:
    with socket.create_connection(address) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(4096)
        connection.sendall(b"\r\n")

        assert is_cut(connection)


def test_headers_without_end_are_cut(address: tuple[str, int]) -> None:
    with socket.create_connection(address) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Long: ")
        try:
            for _ in range(100):
                connection.sendall(b"x" * 10_000)
        except ConnectionError:
            return
        assert is_cut(connection)


def test_who_does_not_read_the_answer_is_cut_and_others_are_answered(address: tuple[str, int]) -> None:
    request, wanted = b"GET /v1/history?format=csv HTTP/1.1\r\nHost: localhost\r\n\r\n", 1000
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(address)
        with socket.create_connection(address) as other:
            slow.sendall(request * wanted)  # answers of more bytes than the buffers of both sides take
            other.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            other.settimeout(PATIENCE)
            assert other.recv(100).startswith(b"HTTP/1.1 200")
        time.sleep(2)  # far longer than it has
        slow.settimeout(PATIENCE)
        answers = b""
        with suppress(ConnectionError):
            while part := slow.recv(65536):
                answers += part
        assert answers.count(b"HTTP/1.1 200") < wanted


def test_a_client_that_reads_slowly_but_steadily_gets_all(home: Settings) -> None:
    patient = home.model_copy(update={"api_client_seconds": 0.5})
    with live_server(patient) as base, socket.socket() as slow:
        host, port = base.removeprefix("http://").split(":")
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect((host, int(port)))
        slow.sendall(b"GET /v1/history?format=csv HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        slow.settimeout(PATIENCE)
        content = b""
        while part := slow.recv(8192):
            content += part
            time.sleep(0.05)
    head, body = content.split(b"\r\n\r\n", 1)
    assert b"content-length: %d" % len(body) in head.lower()


def test_the_app_is_made_without_a_home(tmp_path: Path, served_home: Settings) -> None:
    nowhere = served_home.model_copy(update={"home": tmp_path / "nowhere"})

    with TestClient(create_app(nowhere, access_log=False), "http://localhost") as client:
        assert client.get("/healthz").json() == {"status": "ok"}
        assert client.get("/readyz").status_code == 503
