"""Sessions of the web page: bound to a key, signed, ended with it; forms of other sites are refused."""

import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fastapi import FastAPI

from turnover_assets.serving.access import session
from turnover_assets.serving.access.session import COOKIE, SECURE_COOKIE, Sessions, read_secret
from turnover_assets.settings import Settings
from turnover_assets_tests.serving_factories import (
    ELSEWHERE,
    client_of,
    new_key,
    settings_of,
    small_app,
    store_of,
)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_of(tmp_path)


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    new_key(settings, "somebody else")
    return small_app(settings, login="/login")


def test_signing_in_with_a_key_opens_the_pages_until_it_is_revoked(app: FastAPI, settings: Settings) -> None:
    key, client = new_key(settings, "manager", "read", "adjust"), client_of(app, ELSEWHERE)

    asked = client.get("/v1/who?x=1", headers={"Accept": "text/html"})
    signed_in = client.post("/login", data={"key": f" {key.secret} ", "next": "/v1/who"})
    inside = client.get("/v1/who")
    store_of(settings).revoke("manager", datetime.now(UTC))
    app.state.access.keyring._next = 0.0
    after = client.get("/v1/who")

    assert (asked.status_code, asked.headers["location"]) == (303, "/login?next=%2Fv1%2Fwho%3Fx%3D1")
    assert (signed_in.status_code, signed_in.headers["location"]) == (303, "/v1/who")
    assert inside.json() == {
        "id": key.kept.key_id,
        "name": "manager",
        "scopes": ["adjust", "read"],
        "ab": None,
    }
    assert after.status_code == 401


def test_the_cookie_is_kept_from_scripts_other_sites_and_plain_connections(
    app: FastAPI, settings: Settings
) -> None:
    key = new_key(settings)

    plain = client_of(app).post("/login", data={"key": key.secret}).headers["set-cookie"]
    secure = client_of(app, scheme="https").post("/login", data={"key": key.secret}).headers["set-cookie"]
    behind_proxy = client_of(app).post(
        "/login", data={"key": key.secret}, headers={"X-Forwarded-Proto": "https"}
    )

    for cookie in (plain, secure):
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert key.secret not in cookie
    assert plain.startswith(f"{COOKIE}=")
    assert secure.startswith(f"{SECURE_COOKIE}=")
    assert "Secure" in secure
    assert "Secure" in behind_proxy.headers["set-cookie"]


def test_a_wrong_key_begins_no_session(app: FastAPI) -> None:
    answer = client_of(app).post("/login", data={"key": "ta_wrong"})

    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers
    assert "mistyped" in answer.json()["detail"]


def test_signing_out_ends_the_session_for_who_kept_the_cookie(app: FastAPI, settings: Settings) -> None:
    key, client = new_key(settings), client_of(app, ELSEWHERE)
    client.post("/login", data={"key": key.secret})
    kept = client.cookies[COOKIE]

    out = client.post("/logout", data={"csrf": client.get("/form").text})
    client.cookies.set(COOKIE, kept)

    assert (out.status_code, out.headers["location"]) == (303, "/login")
    assert client.get("/v1/who").status_code == 401


def test_a_form_needs_the_token_of_its_own_session(app: FastAPI, settings: Settings) -> None:
    key, client, other = new_key(settings), client_of(app, ELSEWHERE), client_of(app, ELSEWHERE)
    for each in (client, other):
        each.post("/login", data={"key": key.secret})

    assert client.post("/form", data={"csrf": client.get("/form").text}).text == "changed"
    assert client.post("/form", data={"csrf": other.get("/form").text}).status_code == 403
    assert client.post("/form", data={"csrf": "x"}).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [{"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "https://evil.example"},
     {"Origin": "null"}, {"Origin": "http://localhost:9999"}],
    ids=str,
)  # fmt: skip
def test_forms_of_other_sites_are_refused_also_where_no_session_is_needed(
    tmp_path: Path, headers: dict[str, str]
) -> None:
    client = client_of(small_app(settings_of(tmp_path)))
    token = client.get("/form").text

    assert client.post("/form", data={"csrf": token}).status_code == 200
    assert client.post("/form", data={"csrf": token}, headers=headers).status_code == 403
    assert client.post("/v1/what-if", json={}, headers=headers).status_code == 403


@pytest.mark.parametrize(
    ("wanted", "led_to"),
    [
        ("/series?store=3", "/series?store=3"),
        ("//evil.example/", "/"),
        ("https://evil.example/", "/"),
        ("/\\evil.example", "/"),
        ("javascript:alert(1)", "/"),
        ("/a\r\nSet-Cookie: x=1", "/"),
    ],
)
def test_signing_in_leads_to_pages_of_this_site_only(
    app: FastAPI, settings: Settings, wanted: str, led_to: str
) -> None:
    key = new_key(settings)

    answer = client_of(app).post("/login", data={"key": key.secret, "next": wanted})

    assert answer.headers["location"] == led_to


def test_a_changed_or_foreign_or_old_session_is_none(tmp_path: Path) -> None:
    sessions, foreign = Sessions(tmp_path / "a", 60), Sessions(tmp_path / "b", 60)
    text = sessions.begin("AAAAAAAA")
    content, _, signature = text.partition(".")

    found = sessions.read(text)

    assert found is not None
    assert found.key_id == "AAAAAAAA"
    for wrong in (
        "",
        ".",
        "x.y",
        content,
        f"{content}.",
        f"{content[:-2]}.{signature}",
        foreign.begin("AAAAAAAA"),
    ):
        assert sessions.read(wrong) is None
    assert Sessions(tmp_path / "a", -1).read(Sessions(tmp_path / "a", -1).begin("AAAAAAAA")) is None


def test_processes_share_one_secret_that_others_cannot_read(tmp_path: Path) -> None:
    path = tmp_path / "home" / "session.secret"

    first = Sessions(path, 60).begin("AAAAAAAA")

    assert Sessions(path, 60).read(first) is not None
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [found.name for found in path.parent.iterdir()] == ["session.secret"]


def test_without_a_place_for_the_secret_sessions_last_as_long_as_the_process(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    sessions = Sessions(tmp_path / "file" / "session.secret", 60)

    assert "end with this process" in sessions.problem
    assert sessions.read(sessions.begin("AAAAAAAA")) is not None


def test_a_secret_that_was_cut_short_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "session.secret").write_bytes(b"short")

    with pytest.raises(OSError, match="delete it"):
        read_secret(tmp_path / "session.secret")


def test_a_session_does_not_open_the_api_where_there_is_no_page_of_signing_in(settings: Settings) -> None:
    new_key(settings)
    app = small_app(settings)
    text = app.state.access.sessions.begin(store_of(settings).read()[0].key_id)

    answer = client_of(app, ELSEWHERE).get("/v1/who", headers={"Cookie": f"{session.COOKIE}={text}"})

    assert answer.status_code == 401
