"""The audit: what is recorded, that nothing slows or fails an answer, that no row is lost."""

import json
import logging
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Any

import pyarrow.parquet as pq
import pytest
from fastapi import APIRouter, Body, FastAPI, Request
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from turnover_assets.serving import audit
from turnover_assets.serving import recorder as recorder_module
from turnover_assets.serving.blanking import BLANK, blanked
from turnover_assets.serving.recorder import Recorder
from turnover_assets.settings import Settings
from turnover_assets.storage import audit as files
from turnover_assets.storage.audit import (
    COLUMNS,
    AuditFilter,
    opened_audit,
    segments,
    sweep_audit,
    write_rows,
)
from turnover_assets.storage.durable import PARTIAL, shared
from turnover_assets_tests.serving_factories import (
    ELSEWHERE,
    HERE,
    client_of,
    new_key,
    settings_of,
    small_app,
)
from turnover_assets_tests.waiting import PATIENCE, wait_until

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)


def row(at: datetime = NOW, request_id: str = "r", **others: Any) -> files.Row:
    values = {
        **dict.fromkeys(COLUMNS, ""),
        "asked_at": int(at.timestamp() * 1e6),
        "request_id": request_id,
        "status": 200,
        "milliseconds": 1.5,
        **dict.fromkeys(("body_bytes", "bytes", "dropped"), 0),
        **dict.fromkeys(("model_version", "predictions")),
    }
    return tuple({**values, **others}.values())


def rows_of(folder: Path, **chosen: Any) -> list[dict[str, Any]]:
    with opened_audit(folder, AuditFilter(**chosen)) as con:
        found: list[dict[str, Any]] = (
            con.sql("SELECT * FROM audit ORDER BY asked_at, request_id").to_arrow_table().to_pylist()
        )
    return found


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_of(tmp_path, audit_flush_seconds=0.01)


@pytest.fixture
def app(settings: Settings) -> Iterator[FastAPI]:
    made = small_app(settings)

    @made.post("/noted")
    async def noted(request: Request, body: Any = Body()) -> Any:  # noqa: B008
        audit.note(request, role="challenger", predictions=8, model_version=7)

    @made.get("/broken")
    async def broken() -> None:
        raise ZeroDivisionError

    things = APIRouter()

    @things.get("/{name}")
    async def thing(name: str) -> str:
        return name

    made.include_router(things, prefix="/things")

    audit.install(made, settings)
    yield made
    made.state.audit.close()


def recorded(app: FastAPI, settings: Settings) -> list[dict[str, Any]]:
    app.state.audit.close()
    return rows_of(settings.audit_path)


# What is recorded --------------------------------------------------------------------------------


def test_a_request_is_recorded_with_who_what_and_how(app: FastAPI, settings: Settings) -> None:
    key = new_key(settings, "analyst", "read", "what-if")
    before = datetime.now(UTC)

    answer = client_of(app, ELSEWHERE).post(
        "/v1/what-if?store=3&note=a%20b", json={"price": 2}, headers={"X-API-Key": key.secret}
    )

    (found,) = recorded(app, settings)
    assert before - timedelta(seconds=1) < found.pop("asked_at") <= datetime.now(UTC)
    assert 0 < found.pop("milliseconds") < 10_000
    assert found == {
        "request_id": answer.headers["x-request-id"],
        "caller": key.kept.key_id,
        "method": "POST",
        "route": "/v1/what-if",
        "path": "/v1/what-if",
        "query": "store=3&note=a b",
        "body": '{"price":2}',
        "body_bytes": 11,
        "status": 200,
        "bytes": len(answer.content),
        "snapshot": "s1",
        "model_version": 3,
        "role": "champion",
        "predictions": None,
        "dropped": 0,
    }


def test_refusals_are_recorded_and_probes_are_not(app: FastAPI, settings: Settings) -> None:
    new_key(settings)
    client = client_of(app, ELSEWHERE)

    for path in ("/healthz", "/v1/who", "/nowhere"):
        client.get(path)

    found = recorded(app, settings)
    assert [(one["path"], one["status"], one["caller"]) for one in found] == [
        ("/v1/who", 401, ""),
        ("/nowhere", 401, ""),
    ]


def test_an_error_of_ours_is_recorded_as_what_is_answered(app: FastAPI, settings: Settings) -> None:
    client = TestClient(app, "http://localhost", client=(HERE, 1), raise_server_exceptions=False)

    assert client.get("/broken").status_code == 500

    (found,) = recorded(app, settings)
    assert (found["route"], found["status"]) == ("/broken", 500)


def test_the_route_is_recorded_as_it_is_written_and_what_it_notes(app: FastAPI, settings: Settings) -> None:
    client = client_of(app)

    client.get("/things/screw")
    client.post("/noted", json=[1])

    thing, noted = recorded(app, settings)
    assert (thing["route"], thing["path"]) == ("/things/{name}", "/things/screw")
    assert (noted["role"], noted["predictions"], noted["model_version"]) == ("challenger", 8, 7)


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("4bf92f3577b34da6a3ce929d0e0e4736", True),
        ("order-2026.11", True),
        ("7", True),
        ("", False),
        ("x" * 200, False),
        ("with space and more", False),
        ("ta_AAAAAAAA_bbbbbbbbbbbbbbbbbbbb", False),
    ],
)
def test_a_sane_request_id_is_taken_over(app: FastAPI, given: str, taken: bool) -> None:
    answer = client_of(app).get("/v1/who", headers={"X-Request-ID": given})

    assert (answer.headers["x-request-id"] == given) == taken
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize("known", ["outer-1", "ta_AAAAAAAA_bbbbbbbbbbbbbbbbbbbb"])
def test_a_middleware_further_out_gives_the_id_unless_it_is_a_key(
    app: FastAPI, settings: Settings, known: str
) -> None:
    async def outer(scope: Any, receive: Any, send: Any) -> None:
        scope.setdefault("state", {})["request_id"] = known
        await app(scope, receive, send)

    answer = client_of(outer).get("/v1/who")  # type: ignore[arg-type]

    (found,) = recorded(app, settings)
    assert found["request_id"] == answer.headers["x-request-id"]
    assert (found["request_id"] == known) == (known == "outer-1")


def test_of_a_long_body_the_beginning_is_kept_and_of_a_binary_one_the_size(
    tmp_path: Path, app: FastAPI, settings: Settings
) -> None:
    client = client_of(app)

    client.post("/noted", json="x" * 10_000)
    client.post("/noted", content=b"\x00\x01\xff", headers={"Content-Type": "application/octet-stream"})

    text, binary = recorded(app, settings)
    assert (len(text["body"]), text["body_bytes"]) == (settings.audit_body_bytes, 10_002)
    assert (binary["body"], binary["body_bytes"]) == ("", 3)


# No secret is kept -------------------------------------------------------------------------------


def test_no_secret_gets_into_the_audit_however_it_is_sent(app: FastAPI, settings: Settings) -> None:
    key = new_key(settings, "analyst", "read", "what-if")
    client = client_of(app, ELSEWHERE)
    good = {"X-API-Key": key.secret}
    token = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJtZSJ9.c2lnbmF0dXJl"

    client.get(f"/v1/who?api_key={key.secret}")
    client.get(f"/v1/who?x={key.secret.replace('_', '%5F')}", headers=good)
    client.get(f"/{key.secret}", headers=good)
    client.get("/v1/who", headers={"Authorization": f"Bearer {token}"})
    client.get(f"/v1/who?access_token={token}", headers=good)
    client.post("/login", data={"key": key.secret})
    client.post("/login", data={"key": "not quite a key"})
    client.post(
        "/v1/what-if",
        json={"api_key": "hidden-1", "a": [{"password": 'hid"den-2'}], "t": token},
        headers=good,
    )
    client.get("/v1/who", headers={"X-Request-ID": key.secret, **good})

    assert len(recorded(app, settings)) == 9
    kept = b"".join(path.read_bytes() for path in settings.audit_path.rglob("*.parquet"))
    text = json.dumps(rows_of(settings.audit_path), default=str)
    secret = key.secret.split("_")[2]
    for hidden in (secret, secret[:20], token, "c2lnbmF0dXJl", "not quite a key", "hidden-1", "den-2"):
        assert hidden not in text
        assert hidden.encode() not in kept
    assert key.kept.key_id in text


@given(st.text(alphabet='ekyJ"=&;?:ta_.-\\ \n', max_size=300))
def test_blanking_is_idempotent(text: str) -> None:
    assert blanked(blanked(text)) == blanked(text)


@pytest.mark.parametrize(
    "part", ["key", "eyJ", "eyJa.", '"key', '"token":"', "&key", "ta_aaaaaaaa_", "\\\\", '"a"=']
)
def test_no_text_takes_long_to_blank(part: str) -> None:
    began = time.perf_counter()

    blanked(part * (100_000 // len(part)))

    assert time.perf_counter() - began < 1


def test_what_is_no_secret_stays(app: FastAPI) -> None:
    text = 'store=3&department=73&region=a {"keys": {"store": 3}, "inputs": [{"name": "x", "data": [1.5]}]}'

    assert blanked(text) == text
    assert blanked("csrf=abc&note=x") == f"csrf={BLANK}&note=x"


# Nothing slows or fails an answer ----------------------------------------------------------------


def test_a_full_or_closed_disk_is_counted_and_what_waits_is_written_once_it_can_be(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "audit"
    folder.write_text("a file stands where the folder should be")
    recorder = Recorder(folder, 0.005, largest_rows=10)

    for number in range(25):
        recorder.add(row(request_id=f"{number:02}"))
    wait_until(lambda: recorder.problem)
    metrics = CollectorRegistry()
    metrics.register(recorder)
    failing = generate_latest(metrics).decode()
    folder.unlink()
    wait_until(lambda: not recorder.problem)
    recorder.add(row(request_id="after"))
    recorder.close()

    assert "turnover_audit_failing 1.0" in failing
    assert "turnover_audit_dropped_total 15.0" in failing
    found = rows_of(folder)
    assert [one["request_id"] for one in found if one["request_id"]] == [
        *(f"{n:02}" for n in range(10)),
        "after",
    ]
    assert sum(one["dropped"] for one in found) == 15
    assert [record.levelno for record in caplog.records] == [logging.ERROR, logging.WARNING]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_disk_without_room_leaves_no_half_segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(table: Any, where: Path, **_: Any) -> None:
        where.write_bytes(b"PAR1")
        with Path("/dev/full").open("wb", buffering=0) as stream:
            stream.write(b"x")

    monkeypatch.setattr(files.pq, "write_table", full)
    recorder = Recorder(tmp_path / "audit", 0.005)
    recorder.add(row())
    wait_until(lambda: recorder.problem)

    assert "No space left" in recorder.problem
    # It tries again and again, and takes each half away.
    wait_until(lambda: not [path for path in tmp_path.rglob("*") if path.is_file()], seconds=10, every=0.002)
    monkeypatch.undo()
    recorder.close()
    assert len(rows_of(tmp_path / "audit")) == 1


def test_answers_go_on_while_the_audit_cannot_be_written(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, audit_flush_seconds=0.005)
    settings.audit_path.write_text("no folder")
    app = small_app(settings)
    audit.install(app, settings)

    answers = [client_of(app).get("/v1/who").status_code for _ in range(5)]

    wait_until(lambda: app.state.audit.problem)
    assert answers == [200] * 5


def test_what_waits_is_bounded_in_bytes_too(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, 3600, largest_bytes=100_000)

    for _ in range(100):
        recorder.add(row(body="x" * 10_000))

    assert recorder.dropped == 90
    recorder.close()
    assert sum(one["dropped"] for one in rows_of(tmp_path)) == 90


def test_a_row_that_cannot_be_written_costs_only_itself(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, 3600)

    for number in range(1200):
        recorder.add(row(request_id="\ud800" if number == 700 else f"{number:04}"))
    recorder.add(row(model_version=2**40))
    recorder.close()

    found = rows_of(tmp_path)
    assert len([one for one in found if one["request_id"]]) == 1199
    assert sum(one["dropped"] for one in found) == 2
    assert recorder.problem == ""


def test_adding_a_row_does_not_wait_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writing, go_on, written = Event(), Event(), 0

    def slow(folder: Path, rows: Sequence[files.Row]) -> Iterator[int]:
        nonlocal written
        writing.set()
        go_on.wait(PATIENCE)
        written += len(rows)
        yield from write_rows(folder, rows)

    monkeypatch.setattr(recorder_module, "write_rows", slow)
    recorder = Recorder(tmp_path, 0.001)
    recorder.add(row())
    assert writing.wait(PATIENCE)

    for number in range(5000):
        recorder.add(row(request_id=f"{number}"))

    assert (written, recorder.waiting, recorder.dropped) == (0, 5001, 0)
    go_on.set()
    recorder.close()
    assert recorder.recorded == 5001


def test_ending_the_server_writes_what_waits(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, audit_flush_seconds=3600)
    app = small_app(settings)
    audit.install(app, settings)

    with client_of(app) as client:
        client.get("/v1/who")
        assert not settings.audit_path.exists()

    assert len(rows_of(settings.audit_path)) == 1


# Several processes, crashes ----------------------------------------------------------------------


def _write_for_ever(folder: Path, name: str) -> None:
    recorder, number = Recorder(folder, 0.02), 0
    while True:
        recorder.add(row(datetime.now(UTC), f"{name}-{number:06}"))
        number += 1
        time.sleep(0.0005)


def test_processes_write_side_by_side_and_a_kill_loses_only_what_waited(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_for_ever, args=(tmp_path, name)) for name in "ab"]
    for writer in writers:
        writer.start()
    wait_until(lambda: len(list(tmp_path.glob("*/[!.]*.parquet"))) >= 8)
    for writer in writers:
        os.kill(writer.pid or 0, signal.SIGKILL)
        writer.join()

    found = [one["request_id"] for one in rows_of(tmp_path)]

    for name in "ab":
        numbers = sorted(int(each[2:]) for each in found if each.startswith(name))
        assert numbers == list(range(len(numbers)))
        assert len(numbers) > 10


# Days, merging, retention ------------------------------------------------------------------------


def written(folder: Path, *batches: list[files.Row]) -> None:
    for batch in batches:
        list(write_rows(folder, batch))


def aged(folder: Path) -> None:
    """Let everything have been written long ago."""
    for path in folder.rglob("*.parquet"):
        os.utime(path, (0, 0))


def test_rows_are_kept_by_the_day_they_are_of(tmp_path: Path) -> None:
    midnight = datetime(2026, 11, 28, tzinfo=UTC)

    written(tmp_path, [row(midnight - timedelta(microseconds=1), "old"), row(midnight, "new")])

    assert [day.name for day in files.days(tmp_path)] == ["2026-11-27", "2026-11-28"]
    assert [one["request_id"] for one in rows_of(tmp_path, since=midnight)] == ["new"]
    assert [one["request_id"] for one in rows_of(tmp_path, until=midnight)] == ["old"]


def test_small_segments_become_one_with_the_same_rows(tmp_path: Path) -> None:
    written(tmp_path, *[[row(request_id=f"{n}-{m}") for m in range(3)] for n in range(5)])
    aged(tmp_path)
    before = rows_of(tmp_path)

    told = sweep_audit(tmp_path, 90, NOW, remove=False)
    sweep = sweep_audit(tmp_path, 90, NOW, remove=True)

    assert told.note == "would merge 5 small files"
    assert sweep.note == "merged 5 small files"
    assert len(list(tmp_path.glob("*/*.parquet"))) == 1
    assert rows_of(tmp_path) == before
    assert sweep_audit(tmp_path, 90, NOW, remove=True).note == ""
    written(tmp_path, [row(request_id="late")])
    aged(tmp_path)
    assert sweep_audit(tmp_path, 90, NOW, remove=True).note == "merged 2 small files"
    assert len(rows_of(tmp_path)) == len(before) + 1


def test_a_segment_that_was_just_written_is_left_alone(tmp_path: Path) -> None:
    written(tmp_path, [row()], [row()])

    assert sweep_audit(tmp_path, 90, datetime.now(UTC), remove=True).note == ""


@pytest.mark.parametrize("moment", ["before the name", "after the name", "between removals"])
def test_a_merging_that_is_killed_neither_loses_nor_doubles_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    written(tmp_path, *[[row(request_id=str(n))] for n in range(4)])
    aged(tmp_path)
    before, calls = rows_of(tmp_path), []

    def die(path: Path, *args: Any, **_: Any) -> None:
        calls.append(path)
        if moment != "between removals" or len(calls) > 2:
            raise KeyboardInterrupt
        os.unlink(path)  # noqa: PTH108

    with monkeypatch.context() as patched:
        if moment == "before the name":
            patched.setattr(Path, "rename", die)
        else:
            patched.setattr(Path, "unlink", lambda path, **_: None if PARTIAL in path.name else die(path))
        with pytest.raises(KeyboardInterrupt):
            sweep_audit(tmp_path, 90, NOW, remove=True)

    assert rows_of(tmp_path) == before
    sweep_audit(tmp_path, 90, NOW, remove=True)
    assert rows_of(tmp_path) == before
    assert len(list(tmp_path.glob("*/[!.]*.parquet"))) == 1


def test_nothing_is_removed_from_below_a_reader(tmp_path: Path) -> None:
    written(tmp_path, [row()], [row()])
    aged(tmp_path)

    with shared(tmp_path):
        sweep = sweep_audit(tmp_path, 90, NOW, remove=True)

    assert "somebody reads it" in sweep.note
    assert len(list(tmp_path.glob("*/*.parquet"))) == 2


def test_days_that_are_too_old_go_and_the_others_stay(tmp_path: Path) -> None:
    written(tmp_path, *[[row(NOW - timedelta(days=age))] for age in (0, 1, 10, 11, 400)])

    told = sweep_audit(tmp_path, 10, NOW, remove=False)
    sweep = sweep_audit(tmp_path, 10, NOW, remove=True)

    assert told.removed == sweep.removed == ("2025-10-24", "2026-11-17")
    assert sweep.freed > 0
    assert sweep.reasons() == "3 days"
    assert [day.name for day in files.days(tmp_path)] == ["2026-11-18", "2026-11-27", "2026-11-28"]


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    written(tmp_path, [row()])
    damaged = tmp_path / "2026-11-28" / "damaged.parquet"
    damaged.write_bytes(b"no parquet")

    with pytest.raises(Exception, match=r"damaged\.parquet"):
        rows_of(tmp_path)


def test_what_goes_wrong_with_whoever_reads_is_not_the_audits(tmp_path: Path) -> None:
    with pytest.raises(BrokenPipeError), opened_audit(tmp_path, AuditFilter()):
        raise BrokenPipeError


def test_the_folder_is_for_its_owner_only(tmp_path: Path) -> None:
    written(tmp_path / "audit", [row()])

    assert (tmp_path / "audit").stat().st_mode & 0o077 == 0
    assert date.fromisoformat(segments(next((tmp_path / "audit").iterdir()))[0].parent.name)
    assert pq.read_schema(segments(next((tmp_path / "audit").iterdir()))[0]).names == list(COLUMNS)
    shutil.rmtree(tmp_path / "audit")
