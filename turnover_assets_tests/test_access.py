"""Access: who is let in, who is not, and that nobody gets in by a way that was not meant."""

import asyncio
import logging
import os
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from turnover_assets.core.api_keys import SCOPES, Rate, compose_key
from turnover_assets.errors import TurnoverError
from turnover_assets.serving.access import SERVER_OPTIONS, check_exposure, keyring
from turnover_assets.serving.access.limits import NANO, Limits
from turnover_assets.serving.access.peers import client_of as client_behind
from turnover_assets.serving.access.peers import host_name, is_loopback, is_within, limit_name
from turnover_assets.serving.access.recognition import WRONG_RATE
from turnover_assets.serving.access.rules import access_rules
from turnover_assets.settings import Settings
from turnover_assets_tests.serving_factories import (
    ELSEWHERE,
    HERE,
    client_of,
    new_key,
    settings_of,
    small_app,
    status_from_elsewhere,
    store_of,
)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_of(tmp_path)


def reached(client: TestClient, path: str = "/v1/who", **headers: str) -> int:
    return client.get(
        path, headers={name.replace("_", "-"): value for name, value in headers.items()}
    ).status_code


# Keys --------------------------------------------------------------------------------------------


def test_a_key_is_recognised_in_either_header_with_its_scopes(settings: Settings) -> None:
    key = new_key(settings, "analyst", "read", "what-if", ab_share=0.25)
    client = client_of(small_app(settings), ELSEWHERE)
    who = {"id": key.kept.key_id, "name": "analyst", "scopes": ["read", "what-if"], "ab": 0.25}

    for headers in (
        {"X-API-Key": key.secret},
        {"Authorization": f"Bearer {key.secret}"},
        {"Authorization": f"bearer  {key.secret}"},
    ):
        assert client.get("/v1/who", headers=headers).json() == who


def test_a_scope_that_the_key_has_not_is_refused_by_name(settings: Settings) -> None:
    key = new_key(settings, "analyst", "read")

    answer = client_of(small_app(settings), ELSEWHERE).post(
        "/v1/what-if", json={}, headers={"X-API-Key": key.secret}
    )

    assert answer.status_code == 403
    assert "'what-if'" in answer.json()["detail"]
    assert "turnover keys create --scope what-if" in answer.json()["remedy"]


def test_without_a_key_nothing_is_reached_but_what_is_public(settings: Settings) -> None:
    new_key(settings)
    client = client_of(small_app(settings), HERE)

    assert reached(client, "/healthz") == 200
    for path in ("/v1/who", "/unguarded", "/nowhere", "/healthz/x", "//healthz", "/v1/who/../healthz"):
        answer = client.get(path)
        assert answer.status_code == 401, path
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("headers", "detail"),
    [
        ({"X-API-Key": "ta_12345678_short"}, "mistyped or incomplete"),
        ({"X-API-Key": ""}, "mistyped or incomplete"),
        ({"X-API-Key": compose_key("A" * 8, "b" * 32)}, "no such API key"),
        ({"Authorization": f"Bearer {compose_key('A' * 8, 'b' * 32)}"}, "no such API key"),
        ({"Authorization": "Basic dXNlcjpwYXNz"}, "Only the scheme Bearer"),
        ({"Authorization": "Bearer"}, "mistyped or incomplete"),
    ],
    ids=str,
)
@pytest.mark.parametrize("with_keys", [True, False], ids=["keys", "no keys"])
def test_whoever_presents_something_wrong_is_never_somebody_else(
    settings: Settings, headers: dict[str, str], detail: str, with_keys: bool
) -> None:
    if with_keys:
        new_key(settings)

    answer = client_of(small_app(settings), HERE).get("/v1/who", headers=headers)

    assert answer.status_code == 401
    assert detail in answer.json()["detail"]


def test_a_key_that_came_twice_is_refused(settings: Settings) -> None:
    key = new_key(settings)
    headers = [("X-API-Key", key.secret), ("X-API-Key", key.secret)]

    answer = client_of(small_app(settings), ELSEWHERE).get("/v1/who", headers=headers)

    assert (answer.status_code, answer.json()["problems"][0]["field"]) == (400, "x-api-key")


def test_an_expired_key_is_refused_as_such(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    expires = datetime.now(UTC) + timedelta(minutes=1)
    key = new_key(settings, expires_at=expires)
    client = client_of(small_app(settings), ELSEWHERE)
    assert reached(client, x_api_key=key.secret) == 200
    monkeypatch.setattr(keyring, "datetime", SimpleNamespace(now=lambda _: expires))

    answer = client.get("/v1/who", headers={"X-API-Key": key.secret})

    assert answer.status_code == 401
    assert answer.json()["detail"] == f"The API key {key.kept.key_id} is expired."


def test_a_running_server_refuses_a_revoked_key_within_two_seconds(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, app = new_key(settings), small_app(settings)
    client, now = client_of(app, ELSEWHERE), app.state.access.keyring._clock()
    monkeypatch.setattr(app.state.access.keyring, "_clock", lambda: now)
    assert reached(client, x_api_key=key.secret) == 200
    store_of(settings).revoke(key.kept.key_id, datetime.now(UTC))

    now += 2

    assert reached(client, x_api_key=key.secret) == 401


@pytest.mark.parametrize(
    "address",
    [
        "?api_key={}",
        "?x={}",
        "?store=1&apikey=other",
        "?access_token=abc",
        "/{}",
        "?X-API-Key=1",
        "?a=1;api-key=2",
    ],
)
def test_a_key_in_the_address_is_refused_with_a_remedy_and_blanked(settings: Settings, address: str) -> None:
    key = new_key(settings)
    app, seen = small_app(settings), []

    async def outer(scope: Any, receive: Any, send: Any) -> None:
        await app(scope, receive, send)
        seen.append(f"{scope['path']}?{scope['query_string'].decode()} {scope['raw_path'].decode()}")

    client = client_of(outer, ELSEWHERE)  # type: ignore[arg-type]

    answer = client.get("/v1/who" + address.format(key.secret), headers={"X-API-Key": key.secret})

    assert answer.status_code == 400
    assert "header X-API-Key" in answer.json()["remedy"]
    assert key.secret not in seen[-1]
    assert key.secret not in answer.text


def test_no_key_is_ever_logged(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    key, client = new_key(settings), client_of(small_app(settings), ELSEWHERE)
    wrong = compose_key(key.kept.key_id, "w" * 32)

    for _ in range(WRONG_RATE.requests + 5):
        reached(client, x_api_key=wrong)
    reached(client, x_api_key=key.secret)

    assert "Wrong keys or tokens come from 192.0.2.7" in caplog.text
    assert "w" * 32 not in caplog.text
    assert key.secret not in caplog.text


# Without keys ------------------------------------------------------------------------------------


def test_without_keys_this_machine_may_do_everything(settings: Settings) -> None:
    found = client_of(small_app(settings), HERE).get("/v1/who").json()

    assert (found["id"], found["scopes"]) == ("local", sorted(SCOPES))


@pytest.mark.parametrize("address", [ELSEWHERE, "10.0.0.1", "::ffff:192.0.2.7", "testclient"])
def test_without_keys_nobody_else_may_do_anything(settings: Settings, address: str) -> None:
    assert reached(client_of(small_app(settings), address)) == 401


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "X-Real-IP", "Via", "X-Forwarded-Host"])
def test_without_keys_what_a_proxy_on_this_machine_passes_on_is_refused(
    settings: Settings, header: str
) -> None:
    answer = client_of(small_app(settings), HERE).get("/v1/who", headers={header: "192.0.2.7"})

    assert answer.status_code == 401
    assert "A proxy passed this on" in answer.json()["detail"]


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "localhost.evil.example", "192.0.2.1", ""]
)
def test_without_keys_another_name_is_refused_as_of_rebound_dns(settings: Settings, host: str) -> None:
    answer = client_of(small_app(settings), HERE).get("/v1/who", headers={"Host": host})

    assert answer.status_code == 421
    assert "TURNOVER_ALLOWED_HOSTS" in answer.json()["remedy"]


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1", "[::1]:8000", "LOCALHOST", "localhost."])
def test_without_keys_the_machine_has_its_own_names(settings: Settings, host: str) -> None:
    assert reached(client_of(small_app(settings), HERE), host=host) == 200


def test_names_that_are_set_are_held_to_with_keys_too(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, allowed_hosts="forecasts.example.com")
    key, client = new_key(settings), client_of(small_app(settings), ELSEWHERE)

    assert reached(client, host="Forecasts.example.com:443", x_api_key=key.secret) == 200
    assert reached(client, host="other.example.com", x_api_key=key.secret) == 421
    assert reached(client, "/healthz", host="10.1.2.3") == 200


def test_keys_that_cannot_be_read_do_not_open_a_server(settings: Settings) -> None:
    settings.keys_path.write_text("no database")

    assert client_of(small_app(settings)).get("/v1/who").status_code == 401


def test_making_a_first_key_closes_a_running_server_and_revoking_it_does_not_open_it(
    settings: Settings,
) -> None:
    app = small_app(settings)
    client = client_of(app, HERE)
    assert reached(client) == 200

    key = new_key(settings)
    app.state.access.keyring._next = 0.0
    assert reached(client) == 401
    store_of(settings).revoke(key.kept.key_id, datetime.now(UTC))
    app.state.access.keyring._next = 0.0
    assert reached(client) == 401


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.8.8.8", "[::1]"])
def test_on_loopback_a_server_without_keys_starts_and_says_what_that_means(
    settings: Settings, host: str
) -> None:
    assert "listening on loopback only" in check_exposure(settings, host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "forecasts.example.com", ""])
def test_elsewhere_a_server_without_keys_does_not_start(settings: Settings, host: str) -> None:
    with pytest.raises(TurnoverError, match="turnover keys create"):
        check_exposure(settings, host)
    assert not settings.keys_path.exists()


@pytest.mark.parametrize(
    "others",
    [
        {"oidc_issuer": "https://id.example.com", "oidc_audience": "turnover"},
        {"proxy_user_header": "X-Forwarded-User"},
    ],
    ids=["OIDC", "a proxy"],
)
def test_with_a_way_in_a_server_starts_anywhere(tmp_path: Path, others: dict[str, str]) -> None:
    assert check_exposure(settings_of(tmp_path, **others), "0.0.0.0") == ""


def test_with_every_key_revoked_a_server_starts_and_says_that_nobody_gets_in(settings: Settings) -> None:
    key = new_key(settings)
    assert check_exposure(settings, "0.0.0.0") == ""

    store_of(settings).revoke(key.kept.key_id, datetime.now(UTC))

    assert "Every API key is revoked" in check_exposure(settings, "0.0.0.0")


def test_the_server_judges_proxies_itself_and_logs_no_addresses() -> None:
    import uvicorn

    config = uvicorn.Config("x", **SERVER_OPTIONS)

    assert (config.proxy_headers, config.access_log, config.server_header) == (False, False, False)


# Behind a proxy ----------------------------------------------------------------------------------


@pytest.fixture
def behind_proxy(tmp_path: Path) -> Settings:
    return settings_of(
        tmp_path,
        proxy_user_header="X-Forwarded-User",
        proxy_user_scopes="read,adjust",
        trusted_proxies="127.0.0.1, 10.1.0.0/16",
    )


@pytest.mark.parametrize("proxy", ["127.0.0.1", "10.1.2.3"])
def test_a_trusted_proxy_names_the_user(behind_proxy: Settings, proxy: str) -> None:
    answer = client_of(small_app(behind_proxy), proxy).get(
        "/v1/who", headers={"X-Forwarded-User": " ann@example.com "}
    )

    assert answer.json() == {
        "id": "user:ann@example.com",
        "name": "ann@example.com",
        "scopes": ["adjust", "read"],
        "ab": None,
    }


def test_nobody_else_names_a_user(behind_proxy: Settings, tmp_path: Path) -> None:
    app = small_app(behind_proxy)

    assert reached(client_of(app, ELSEWHERE), x_forwarded_user="ann") == 401
    assert reached(client_of(app, HERE)) == 401
    assert reached(client_of(app, HERE), x_forwarded_user=" ") == 401
    plain = settings_of(tmp_path / "plain")
    new_key(plain)
    assert reached(client_of(small_app(plain), HERE), x_forwarded_user="ann") == 401


def test_a_wrong_key_is_refused_whatever_the_proxy_says(behind_proxy: Settings) -> None:
    assert reached(client_of(small_app(behind_proxy), HERE), x_forwarded_user="ann", x_api_key="wrong") == 401


PROXIES = access_rules(Settings(trusted_proxies="127.0.0.1,10.0.0.0/8,2001:db8::/32")).proxies


@pytest.mark.parametrize(
    ("peer", "chain", "client"),
    [
        ("192.0.2.7", "198.51.100.1", "192.0.2.7"),
        ("127.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("127.0.0.1", "6.6.6.6, 198.51.100.1", "198.51.100.1"),
        ("127.0.0.1", "6.6.6.6, 198.51.100.1, 10.0.0.5", "198.51.100.1"),
        ("127.0.0.1", "10.0.0.9, 10.0.0.5", "10.0.0.9"),
        ("127.0.0.1", "198.51.100.1:4711", "198.51.100.1"),
        ("127.0.0.1", "[2001:db9::1]:4711", "2001:db9::1"),
        ("127.0.0.1", "nonsense", "127.0.0.1"),
        ("127.0.0.1", "6.6.6.6, nonsense", "127.0.0.1"),
        ("127.0.0.1", "", "127.0.0.1"),
        ("127.0.0.1", ", ".join(["10.0.0.1"] * 1000), "10.0.0.1"),
        ("", "198.51.100.1", ""),
    ],
)
def test_the_client_is_the_last_address_that_is_no_trusted_proxys(peer: str, chain: str, client: str) -> None:
    assert client_behind(peer, {b"x-forwarded-for": chain.encode()}, PROXIES) == client


def test_addresses_are_told_by_what_they_are() -> None:
    assert is_loopback("127.0.0.1")
    assert is_loopback("::1")
    assert is_loopback("::ffff:127.0.0.1")
    assert not is_loopback("localhost")
    assert is_within("::ffff:10.1.1.1", PROXIES)
    assert not is_within("10.1.1.1.evil", PROXIES)
    assert (
        limit_name("2001:db8:1:2:3::9") == limit_name("2001:db8:1:2:ffff::") != limit_name("2001:db8:1:3::")
    )
    assert limit_name("::ffff:192.0.2.7") == "192.0.2.7"
    assert host_name(b"[::1]:80") == "::1"


@pytest.mark.parametrize(
    ("others", "problem"),
    [
        ({"trusted_proxies": "proxy"}, "TURNOVER_TRUSTED_PROXIES"),
        ({"metrics_networks": "10.0.0.1/8"}, "has host bits set"),
        ({"proxy_user_scopes": "read,write"}, "no scope write"),
        ({"api_rate": "fast"}, "is no rate"),
        ({"api_allowed_origins": "tools.example.com"}, "is no origin"),
        ({"api_allowed_origins": "https://tools.example.com/"}, "is no origin"),
        ({"api_allowed_origins": "*"}, "is no origin"),
        ({"oidc_issuer": "https://id.example.com"}, "TURNOVER_OIDC_AUDIENCE"),
        ({"oidc_audience": "turnover"}, "TURNOVER_OIDC_ISSUER"),
        ({"oidc_issuer": "http://id.example.com", "oidc_audience": "t"}, "begins with https://"),
        ({"oidc_issuer": "https://i", "oidc_audience": "t", "oidc_jwks_url": "file:///x"}, "OIDC_JWKS_URL"),
        ({"oidc_issuer": "https://i", "oidc_audience": "t", "oidc_algorithms": "RS256,HS256"}, "ALGORITHMS"),
        ({"oidc_issuer": "https://i", "oidc_audience": "t", "oidc_algorithms": "none"}, "ALGORITHMS"),
        ({"oidc_issuer": "https://i", "oidc_audience": "t", "oidc_scope_map": "x"}, "of the form"),
        ({"oidc_issuer": "https://i", "oidc_audience": "t", "oidc_scope_map": "x=all"}, "no scope all"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_settings_that_cannot_be_used_keep_a_server_from_starting(
    tmp_path: Path, others: dict[str, str], problem: str
) -> None:
    settings = settings_of(tmp_path, **others)

    with pytest.raises(TurnoverError, match=problem):
        check_exposure(settings, HERE)
    with pytest.raises(TurnoverError, match=problem):
        small_app(settings)


# Metrics, CORS, headers --------------------------------------------------------------------------


def test_metrics_are_read_from_their_networks_or_with_the_scope_admin(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, metrics_networks="10.9.0.0/16")
    reader, admin = new_key(settings), new_key(settings, "admin", "admin")
    app = small_app(settings)

    assert reached(client_of(app, "10.9.8.7"), "/metrics") == 200
    assert reached(client_of(app, HERE), "/metrics") == 401
    assert reached(client_of(app, ELSEWHERE), "/metrics", x_api_key=reader.secret) == 403
    assert reached(client_of(app, ELSEWHERE), "/metrics", x_api_key=admin.secret) == 200
    assert reached(client_of(app, "10.9.8.7"), "/v1/who") == 401


def test_by_default_metrics_are_for_this_machine_and_not_for_whom_a_proxy_on_it_speaks_for(
    settings: Settings,
) -> None:
    new_key(settings)
    client = client_of(small_app(settings), HERE)

    assert reached(client, "/metrics") == 200
    assert reached(client, "/metrics", x_forwarded_for="192.0.2.7") == 401


def test_pages_of_other_origins_may_not_call_unless_they_are_named(tmp_path: Path) -> None:
    origin = "https://tools.example.com"
    closed, opened = settings_of(tmp_path), settings_of(tmp_path, api_allowed_origins=origin)
    key = new_key(closed)
    asking = {
        "Origin": origin,
        "Access-Control-Request-Method": "GET",
        "Access-Control-Request-Headers": "X-API-Key",
    }

    def preflight(settings: Settings, **headers: str) -> Any:
        client = client_of(small_app(settings), ELSEWHERE)
        return client.options("/v1/who", headers={**asking, **headers})

    assert "access-control-allow-origin" not in preflight(closed).headers
    found = preflight(opened)
    assert found.status_code == 200
    assert found.headers["access-control-allow-origin"] == origin
    assert "access-control-allow-credentials" not in found.headers
    assert "access-control-allow-origin" not in preflight(opened, Origin="https://evil.example").headers
    client = client_of(small_app(opened), ELSEWHERE)
    for headers in ({"X-API-Key": key.secret}, {}):
        answer = client.get("/v1/who", headers={"Origin": origin, **headers})
        assert answer.headers["access-control-allow-origin"] == origin


@pytest.mark.parametrize("path", ["/healthz", "/v1/who", "/nowhere"])
def test_every_answer_has_the_headers_that_keep_browsers_careful(settings: Settings, path: str) -> None:
    headers = client_of(small_app(settings), HERE).get(path).headers

    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    assert headers["content-security-policy"].startswith("default-src 'none'")


def test_pages_keep_their_scripts_and_their_own_headers(settings: Settings) -> None:
    headers = client_of(small_app(settings), HERE).get("/form").headers

    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "default-src" not in headers["content-security-policy"]


def test_a_websocket_is_closed(settings: Settings) -> None:
    app, sent = small_app(settings), []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app({"type": "websocket", "path": "/", "headers": []}, None, send))  # type: ignore[arg-type]

    assert sent == [{"type": "websocket.close", "code": 1008}]


# Limits ------------------------------------------------------------------------------------------


def test_a_key_has_a_limit_of_its_own_and_is_told_when_to_come_again(settings: Settings) -> None:
    slow, other = new_key(settings, "slow", rate="3/hour"), new_key(settings, "other")
    client = client_of(small_app(settings), ELSEWHERE)

    answers = [client.get("/v1/who", headers={"X-API-Key": slow.secret}) for _ in range(4)]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert [answer.headers["ratelimit-remaining"] for answer in answers] == ["2", "1", "0", "0"]
    assert answers[0].headers["ratelimit-limit"] == "3"
    assert answers[0].headers["ratelimit-policy"] == "3;w=3600"
    assert answers[0].headers["ratelimit-reset"] == "1200"
    assert answers[3].headers["retry-after"] == "1200"
    assert "3/hour" in answers[3].json()["detail"]
    assert reached(client, x_api_key=other.secret) == 200


def test_a_key_may_have_no_limit_and_the_setting_is_for_the_others(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, api_rate="2/day")
    free, plain = new_key(settings, "free", rate="unlimited"), new_key(settings, "plain")
    client = client_of(small_app(settings), ELSEWHERE)

    assert [reached(client, x_api_key=free.secret) for _ in range(10)] == [200] * 10
    assert [reached(client, x_api_key=plain.secret) for _ in range(3)] == [200, 200, 429]


def test_strangers_have_a_limit_by_address_that_no_key_suffers_from(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, api_rate="5/day")
    key, app = new_key(settings), small_app(settings)
    client = client_of(app, ELSEWHERE)

    assert [reached(client) for _ in range(7)] == [401] * 5 + [429] * 2
    assert reached(client, x_api_key=key.secret) == 200
    assert reached(client, "/healthz") == 200
    assert reached(client_of(app, "192.0.2.8")) == 401


@given(
    rate=st.builds(Rate, st.integers(1, 1000), st.sampled_from([1, 60, 3600])),
    waits=st.lists(st.integers(0, 5 * NANO), max_size=60),
)
def test_the_limit_is_exactly_that_of_a_bucket(rate: Rate, waits: list[int]) -> None:
    now, bucket = 10**18, Fraction(rate.requests)
    limits = Limits(10, lambda: now)

    for wait in waits:
        now += wait
        bucket = min(Fraction(rate.requests), bucket + Fraction(wait * rate.requests, rate.seconds * NANO))
        standing = limits.take("a", rate)
        assert standing.allowed == (bucket >= 1)
        bucket -= standing.allowed
        assert standing.remaining == int(bucket)
        if standing.remaining == 0:
            assert 0 < standing.retry_after <= rate.seconds
        assert limits.look("a", rate).remaining == standing.remaining


@given(st.integers(1, 500))
def test_so_many_may_come_at_once_and_not_one_more(requests: int) -> None:
    limits = Limits(10, lambda: 7)

    allowed = [limits.take("a", Rate(requests, 60)).allowed for _ in range(requests + 3)]

    assert allowed == [True] * requests + [False] * 3


def test_what_is_remembered_is_bounded_and_whoever_is_active_stays() -> None:
    now = 0
    limits, rate = Limits(100, lambda: now), Rate(5, 60)
    for number in range(1000):
        now += 1
        limits.take(f"{number}", rate)
        limits.take("busy", Rate(10**6, 60))

    assert len(limits) == 100
    assert limits.look("busy", Rate(10**6, 60)).remaining < 10**6
    assert limits.look("0", rate).remaining == 5


# Ten thousand wrong keys -------------------------------------------------------------------------


def test_ten_thousand_wrong_keys_are_counted_and_a_right_one_is_answered_all_the_while(
    settings: Settings,
) -> None:
    key, app = new_key(settings, rate="unlimited"), small_app(settings)
    wrong = [compose_key(f"{number:08}", os.urandom(16).hex()) for number in range(10_000)]
    statuses: list[int] = []

    async def ask(presented: str) -> int:
        return await status_from_elsewhere(app, (b"x-api-key", presented.encode()))

    async def attack() -> None:
        for number, each in enumerate(wrong):
            statuses.append(await ask(each))
            if number % 100 == 0:
                assert await ask(key.secret) == 200

    asyncio.run(attack())

    assert statuses[: WRONG_RATE.requests] == [401] * WRONG_RATE.requests
    assert set(statuses) == {401, 429}
    metrics = CollectorRegistry()
    metrics.register(app.state.access)
    text = generate_latest(metrics).decode()
    assert 'turnover_access_wrong_total{kind="key",reason="unknown"} 10000.0' in text
    assert f'turnover_access_limited_total{{limit="wrong"}} {statuses.count(429)}.0' in text
    assert "turnover_access_keys 1.0" in text
