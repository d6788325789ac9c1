"""The client: against the API itself, and against services that are slow, busy, wrong or gone."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pyarrow as pa
import pytest
from fastapi.testclient import TestClient

from turnover_assets.client import (
    ApiError,
    BusyError,
    Client,
    ClientError,
    NotAllowedError,
    NotFoundError,
    Retries,
    Rows,
    Served,
    SnapshotGoneError,
    UnreachableError,
)
from turnover_assets.client import client as client_module
from turnover_assets.client import rows as rows_module
from turnover_assets.serving.app import create_app
from turnover_assets.settings import Settings
from turnover_assets.storage import snapshots
from turnover_assets.storage.snapshots import Snapshot, current
from turnover_assets_tests.api_factories import live_server, publish
from turnover_assets_tests.serving_factories import new_key

HEADERS = {
    "X-Turnover-Snapshot": "s1",
    "X-Turnover-Cutoff": "2030-06-03",
    "X-Turnover-Model-Version": "7",
    "X-Turnover-Data-Version": "abc",
}
SERVED = Served("s1", date(2030, 6, 3), 7, "abc")


# Against the API ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def transport(served_home: Settings) -> Iterator[httpx.BaseTransport]:
    """The API in this process."""
    app = create_app(served_home, access_log=False)
    with TestClient(app, "http://localhost", client=("127.0.0.1", 50000)) as served:
        yield served._transport


@pytest.fixture
def client(transport: httpx.BaseTransport) -> Client:
    return Client("http://localhost", transport=transport)


@pytest.fixture(scope="module")
def snapshot(served_home: Settings) -> Snapshot:
    return current(served_home.published_path)


def dated(table: pd.DataFrame) -> pd.DataFrame:
    """A published table with its dates as timestamps."""
    return table.assign(**{name: pd.to_datetime(table[name]) for name in ("cutoff", "week") if name in table})


def test_forecasts_are_those_published(client: Client, snapshot: Snapshot) -> None:
    rows = client.forecasts()

    expected = dated(snapshot.read("forecasts")).assign(origin="published")
    frame = rows.to_pandas()
    pd.testing.assert_frame_equal(frame[list(expected)], expected, check_dtype=False, check_index_type=False)
    assert rows.served == Served(
        snapshot.name,
        date.fromisoformat(snapshot.facts["cutoff"]),
        snapshot.facts["model"]["version"],
        snapshot.facts["data_version"],
    )
    assert frame.attrs["served"]["snapshot"] == snapshot.name
    assert len(rows) == len(expected)


def test_pages_are_followed_and_are_one_whole(client: Client, transport: httpx.BaseTransport) -> None:
    small = Client("http://localhost", transport=transport, page_rows=7)

    assert (
        small.forecasts(store=small.series().to_records()[0]["store"])
        .to_arrow()
        .equals(client.forecasts(store=client.series().to_records()[0]["store"]).to_arrow())
    )


def test_parameters_take_values_lists_and_dates(client: Client, snapshot: Snapshot) -> None:
    table = dated(snapshot.read("forecasts"))
    stores, weeks = sorted(table["store"].unique()[:2]), sorted(table["week"].unique())
    chosen = client.forecasts(store=stores, from_=weeks[1], to=weeks[2].date(), horizon=None).to_pandas()

    expected = table[table["store"].isin(stores) & table["week"].between(weeks[1], weeks[2])]
    assert list(chosen["forecast"]) == list(expected["forecast"])


def test_everything_can_be_asked_for(client: Client, snapshot: Snapshot) -> None:
    first = snapshot.read("forecasts").iloc[0]
    series = {"store": int(first["store"]), "department": int(first["department"])}

    assert len(client.history(**series)) > 50
    assert set(client.aggregates(level="total").to_pandas()["member"]) == {""}
    assert {"wape", "coverage_80"} <= set(client.accuracy(source="backtest", level="total").to_pandas())
    assert client.explanations(**series, horizon=1).to_records()[0]["sentence"]
    assert client.models().to_pandas()["is_champion"].any()
    assert set(client.series(is_forecast=True).to_pandas()["is_forecast"]) == {True}
    found = client.snapshot()
    assert (found["served"]["snapshot"], found["data"]["panel"]["time"]) == (snapshot.name, "week")


def test_without_pyarrow_rows_come_as_records(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    with_arrow = client.forecasts(horizon=1).to_pandas()
    monkeypatch.setattr(rows_module, "find_spec", lambda _: None)

    rows = client.forecasts(horizon=1)

    assert rows.to_records()[0]["week"] == with_arrow["week"].dt.date[0]
    pd.testing.assert_frame_equal(rows.to_pandas(), with_arrow, check_dtype=False)


def test_an_unknown_parameter_is_told_with_the_nearest(client: Client) -> None:
    with pytest.raises(ApiError, match=r"There is no parameter stor\. Did you mean store\?") as caught:
        client.forecasts(stor=1)

    assert caught.value.status == 422
    assert caught.value.fields == {"stor": "There is no parameter stor. Did you mean store?"}
    assert caught.value.problem["title"] == "Unprocessable Entity"
    assert caught.value.request_id


def test_a_series_that_there_is_not_is_not_found(client: Client) -> None:
    with pytest.raises(NotFoundError, match="/v1/series lists the series that there are"):
        client.forecasts(store=987654, department=1)


def test_over_a_socket_with_a_key(served_home: Settings, tmp_path: Path) -> None:
    settings = served_home.model_copy(update={"home": tmp_path})
    snapshot = current(served_home.published_path)
    settings.published_path.mkdir()
    publish(settings.published_path, snapshot)
    key = new_key(settings)

    with live_server(settings) as address:
        with Client(address, key.secret) as client:
            assert len(client.forecasts()) == snapshot.facts["tables"]["forecasts"]["rows"]
        with Client(address, "wrong") as client, pytest.raises(NotAllowedError, match="401"):
            client.forecasts()
    gone = Client(address, retries=Retries(attempts=2), sleep=lambda _: None)
    with gone, pytest.raises(UnreachableError, match=r"No answer from http://127\.0\.0\.1:\d+/v1/forecasts"):
        gone.forecasts()


def test_a_snapshot_published_between_pages_does_not_mix_with_the_first(
    served_home: Settings, tmp_path: Path
) -> None:
    settings = served_home.model_copy(update={"home": tmp_path, "snapshot_poll_seconds": 0.02})
    snapshot = current(served_home.published_path)
    settings.published_path.mkdir()
    first = publish(settings.published_path, snapshot)
    doubled = snapshot.read("forecasts").assign(forecast=lambda table: table["forecast"] * 2)

    def meanwhile(found: httpx.Response) -> None:
        if len(list(settings.published_path.glob("*/snapshot.json"))) == 1 and "page" not in str(found.url):
            publish(settings.published_path, snapshot, {"forecasts": doubled})

    with live_server(settings) as address, Client(address, page_rows=20) as client:
        client._http.event_hooks["response"] = [meanwhile]
        rows = client.forecasts()

    assert rows.served.snapshot == first.name
    assert list(rows.to_pandas()["forecast"]) == list(snapshot.read("forecasts")["forecast"])
    assert snapshots.current(settings.published_path).name != first.name


# Against services by hand ---------------------------------------------------------------------------

Answer = Callable[[httpx.Request], httpx.Response]


class Service:
    """Answers one request after the other as told, the last one for ever; notes requests and waiting."""

    def __init__(self, *answers: Answer | httpx.Response | Exception) -> None:
        self.answers, self.asked, self.waited = list(answers), list[httpx.Request](), list[float]()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer(request) if callable(answer) else answer

    def client(self, url: str = "http://localhost", **options: Any) -> Client:
        transport = httpx.MockTransport(self)
        return Client(url, transport=transport, sleep=self.waited.append, **options)


def rows_answer(*records: dict[str, Any], following: str = "", **more: Any) -> httpx.Response:
    """An answer as Arrow, as the service gives it."""
    sink = pa.BufferOutputStream()
    table = pa.Table.from_pylist(list(records))
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    link = {"Link": f'<{following}>; rel="next"'} if following else {}
    kind = {"Content-Type": "application/vnd.apache.arrow.stream"}
    return httpx.Response(
        200, headers={**HEADERS, **kind, **link, **more}, content=sink.getvalue().to_pybytes()
    )


def problem(status: int, **headers: str) -> httpx.Response:
    document = {"status": status, "detail": "So it is.", "remedy": "Do this.", "problems": []}
    kind = {"Content-Type": "application/problem+json", **headers}
    return httpx.Response(status, headers=kind, content=json.dumps(document))


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_service_is_asked_again_after_the_time_it_says(status: int) -> None:
    service = Service(problem(status, **{"Retry-After": "3"}), rows_answer({"a": 1}))

    assert service.client().forecasts().to_records() == [{"a": 1}]
    assert service.waited == [3.0]


def test_waiting_doubles_where_the_service_does_not_say(monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service(*[problem(503)] * 3, rows_answer({"a": 1}))

    service.client().forecasts()

    assert [low <= waited <= 2 * low for low, waited in zip((0.25, 0.5, 1.0), service.waited, strict=True)]
    assert len(service.asked) == 4


def test_a_date_to_wait_for_is_understood() -> None:
    until = datetime.now(UTC) + timedelta(seconds=20)
    service = Service(problem(503, **{"Retry-After": format_datetime(until, usegmt=True)}), rows_answer())

    service.client().forecasts()

    assert 15 < service.waited[0] <= 20


@pytest.mark.parametrize("text", ["soon", "Mon, 99 Nov 2030", "-5", "nan"])
def test_a_time_that_makes_no_sense_does_no_harm(text: str) -> None:
    wait = Retries().wait(1, text)

    assert wait is None or 0.0 <= wait <= 0.5


def test_a_wait_that_is_too_long_is_given_up_with_what_the_service_says() -> None:
    service = Service(problem(429, **{"Retry-After": "3600"}))

    with pytest.raises(BusyError, match=r"429: So it is\. Do this\."):
        service.client().forecasts()
    assert (service.waited, len(service.asked)) == ([], 1)


def test_attempts_are_bounded() -> None:
    service = Service(problem(503))

    with pytest.raises(BusyError):
        service.client(retries=Retries(attempts=3)).forecasts()
    assert len(service.asked) == 3


@pytest.mark.parametrize("error", [httpx.ConnectError("refused"), httpx.ReadTimeout("slow")])
def test_a_service_that_does_not_answer_is_asked_again(error: Exception) -> None:
    service = Service(error, rows_answer({"a": 1}))

    assert len(service.client().forecasts()) == 1
    with pytest.raises(UnreachableError, match=type(error).__name__):
        Service(error).client(retries=Retries(attempts=1)).forecasts()


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, ApiError), (401, NotAllowedError), (403, NotAllowedError), (404, NotFoundError), (500, ApiError)],
)
def test_what_is_refused_is_not_asked_again(status: int, kind: type[ApiError]) -> None:
    service = Service(problem(status, **{"X-Request-Id": "r1"}))

    with pytest.raises(kind) as caught:
        service.client().forecasts()

    assert type(caught.value) is kind
    assert (caught.value.status, caught.value.request_id, caught.value.remedy) == (status, "r1", "Do this.")
    assert len(service.asked) == 1


@pytest.mark.parametrize("body", [b"<html>bad gateway", b"[1]", b"\xff", b'{"error": "x"}', b""])
def test_an_answer_of_another_program_is_an_error_too(body: bytes) -> None:
    with pytest.raises(ApiError, match="no problem document"):
        Service(httpx.Response(418, content=body)).client().forecasts()


def test_pages_use_the_token_alone_so_that_a_proxy_may_have_another_path() -> None:
    service = Service(
        rows_answer({"a": 1}, following="/elsewhere/v1/forecasts?limit=1&page=t%2F1"),
        rows_answer({"a": 2}),
    )
    rows = service.client("https://example.com/turnover/", page_rows=1).forecasts(store=[1, 2])

    assert [dict(row) for row in rows] == [{"a": 1}, {"a": 2}]
    assert [request.url.path for request in service.asked] == ["/turnover/v1/forecasts"] * 2
    assert [request.url.params.multi_items() for request in service.asked] == [
        [("limit", "1"), ("store", "1"), ("store", "2")],
        [("limit", "1"), ("store", "1"), ("store", "2"), ("page", "t/1")],
    ]


def test_pages_begin_anew_where_their_snapshot_is_gone() -> None:
    first = rows_answer({"a": 1}, following="/v1/forecasts?page=t1")
    service = Service(first, problem(410), rows_answer({"a": 5}))

    assert service.client().forecasts().to_records() == [{"a": 5}]
    with pytest.raises(SnapshotGoneError):
        Service(problem(410)).client().forecasts()


def test_a_page_with_other_types_does_not_hinder() -> None:
    service = Service(
        rows_answer({"a": 1, "b": None}, following="/v1/forecasts?page=t"), rows_answer({"a": 2, "b": 0.5})
    )

    assert service.client().forecasts().to_pandas()["b"].tolist()[1] == 0.5


def test_a_what_if_question_is_posted_and_its_warnings_are_notes() -> None:
    answer = {
        "served": {},
        "data": [{"store": 3, "week": "2030-06-10"}],
        "warnings": ["far from what was seen"],
    }
    service = Service(httpx.Response(200, headers=HEADERS, json=answer))

    rows = service.client().what_if({"series": [{"store": 3}]})

    (asked,) = service.asked
    assert (asked.method, asked.url.path) == ("POST", "/v1/what-if")
    assert json.loads(asked.content) == {"series": [{"store": 3}]}
    assert rows.to_records() == [{"store": 3, "week": date(2030, 6, 10)}]
    assert rows.to_pandas()["week"][0] == pd.Timestamp("2030-06-10")
    assert rows.notes == {"warnings": ["far from what was seen"]}
    assert rows.served == SERVED


@pytest.mark.parametrize(
    "texts", [["2030-02-31"], ["2030-06-10", "a"], [None], ["20300610"], [3, "2030-06-10"]]
)
def test_texts_that_are_not_all_dates_stay_texts(texts: list[Any]) -> None:
    records = [{"key": text} for text in texts]

    assert rows_module.with_dates(records) == records


def test_key_and_token_go_into_headers_and_into_no_repr() -> None:
    service = Service(rows_answer())
    keyed = service.client(key="secret-key")
    keyed.forecasts()
    service.client(token="secret-token").forecasts()

    assert service.asked[0].headers["X-API-Key"] == "secret-key"
    assert service.asked[1].headers["Authorization"] == "Bearer secret-token"
    assert service.asked[0].headers["User-Agent"].startswith("turnover-client/")
    assert "secret" not in repr(keyed)


@pytest.mark.parametrize(
    "url", ["http://forecasts.example.com", "http://192.0.2.7:8000", "http://[2001:db8::1]"]
)
def test_a_key_is_not_sent_where_anybody_can_read_it(url: str) -> None:
    with pytest.raises(ClientError, match="plain http to another machine"):
        Client(url, "secret")

    Client(url).close()
    Client(url, "secret", is_insecure=True).close()


@pytest.mark.parametrize(
    "url", ["https://example.com", "http://localhost:8000", "http://127.0.0.1", "http://[::1]"]
)
def test_a_key_may_go_where_nobody_can_listen(url: str) -> None:
    Client(url, "secret").close()


def test_a_redirect_is_not_followed_so_that_the_key_goes_nowhere_else() -> None:
    service = Service(httpx.Response(307, headers={"Location": "https://other.example.com/"}))

    with pytest.raises(ApiError, match="307"):
        service.client(key="secret").forecasts()
    assert len(service.asked) == 1


def test_it_is_closed_at_the_end_of_its_block() -> None:
    with Service(rows_answer()).client() as client:
        client.forecasts()

    assert client._http.is_closed


def test_no_rows_are_an_empty_frame_with_its_columns() -> None:
    empty = pa.table({"store": pa.array([], pa.int64()), "week": pa.array([], pa.date32())})
    rows = Rows(SERVED, [empty])

    assert (len(rows), list(rows.to_pandas()), rows.to_records()) == (0, ["store", "week"], [])
    assert repr(rows) == "<0 rows of s1>"


def test_importing_it_brings_nothing_of_the_platform() -> None:
    code = (
        "import sys, turnover_assets.client\n"
        "heavy = {'pandas', 'pyarrow', 'numpy', 'duckdb', 'dagster', 'mlflow', 'fastapi', 'pydantic'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_every_way_to_ask_has_its_method() -> None:
    assert client_module.STARTS > 1
    asked = {"series", "forecasts", "history", "aggregates", "accuracy", "explanations", "models"}
    assert asked <= {name for name in vars(Client) if not name.startswith("_")}
