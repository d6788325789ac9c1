"""OIDC tokens against a real issuer on loopback: its keys change, its tokens expire, others forge them."""

import asyncio
import base64
import hmac
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from fastapi import FastAPI
from fastapi.testclient import TestClient
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from turnover_assets.serving.access import tokens
from turnover_assets.serving.access.recognition import WRONG_RATE
from turnover_assets.settings import Settings
from turnover_assets_tests.serving_factories import (
    ELSEWHERE,
    client_of,
    new_key,
    settings_of,
    small_app,
    status_from_elsewhere,
)

AUDIENCE = "turnover"
PATIENCE = (
    20.0  # seconds that an issuer is silent at most, so that whoever waits for it fails and does not hang
)
Sign = Callable[..., str]


class Issuer:
    """An identity provider: its discovery document, its keys, and tokens signed by them."""

    def __init__(self) -> None:
        self.private: dict[str, Any] = {}
        self.entries: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []
        self.answered: list[str] = []
        self.broken, self.answers = False, threading.Event()
        self.answers.set()
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked.append(self.path)
                issuer.answers.wait(PATIENCE)
                issuer.answered.append(self.path)
                found = {
                    "/.well-known/openid-configuration": {
                        "issuer": issuer.url,
                        "jwks_uri": f"{issuer.url}/keys",
                    },
                    "/keys": {"keys": list(issuer.entries.values())},
                }[self.path]
                self.send_response(500 if issuer.broken else 200)
                self.end_headers()
                self.wfile.write(json.dumps(found).encode())

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def add(self, key_id: str, private: Any, algorithm: str = "", **others: Any) -> None:
        makers = {rsa.RSAPrivateKey: RSAAlgorithm, ec.EllipticCurvePrivateKey: ECAlgorithm}
        maker = next((found for kind, found in makers.items() if isinstance(private, kind)), OKPAlgorithm)
        entry = maker.to_jwk(private.public_key(), as_dict=True)
        self.private[key_id] = private
        self.entries[key_id] = {
            **entry, "kid": key_id, **({"alg": algorithm} if algorithm else {}), "use": "sig", **others
        }  # fmt: skip

    def sign(self, key_id: str = "one", algorithm: str = "RS256", header: Any = None, **claims: Any) -> str:
        now = time.time()
        content = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "ann",
            "iat": now,
            "exp": now + 600,
            "scope": "read",
            **claims,
        }
        content = {name: value for name, value in content.items() if value is not None}
        headers = {"kid": key_id} if header is None else header
        return jwt.encode(content, self.private[key_id], algorithm, headers=headers)

    def close(self) -> None:
        self.answers.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


RSA = {name: rsa.generate_private_key(65537, 2048) for name in ("one", "two", "foreign")}


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    made = Issuer()
    made.add("one", RSA["one"], "RS256")
    yield made
    made.close()


@pytest.fixture
def settings(tmp_path: Path, issuer: Issuer) -> Settings:
    return settings_of(tmp_path, oidc_issuer=issuer.url, oidc_audience=AUDIENCE)


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    return small_app(settings)


@pytest.fixture
def client(app: FastAPI) -> TestClient:
    return client_of(app, ELSEWHERE)


def ask(client: TestClient, token: str) -> Any:
    return client.get("/v1/who", headers={"Authorization": f"Bearer {token}"})


def refusal(client: TestClient, token: str) -> str:
    answer = ask(client, token)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    return str(answer.json()["detail"])


def test_a_token_of_the_issuer_is_accepted_with_its_scopes(client: TestClient, issuer: Issuer) -> None:
    answer = ask(client, issuer.sign(scope="openid read what-if", preferred_username="Ann"))

    assert answer.json() == {"id": "oidc:ann", "name": "Ann", "scopes": ["read", "what-if"], "ab": None}
    assert issuer.asked == ["/.well-known/openid-configuration", "/keys"]


def test_the_keys_are_fetched_once_for_many_tokens(client: TestClient, issuer: Issuer) -> None:
    for subject in range(20):
        assert ask(client, issuer.sign(sub=str(subject))).status_code == 200

    assert issuer.asked.count("/keys") == 1


def test_an_address_of_keys_may_be_named_in_place_of_discovery(tmp_path: Path, issuer: Issuer) -> None:
    settings = settings_of(
        tmp_path, oidc_issuer=issuer.url, oidc_audience=AUDIENCE, oidc_jwks_url=f"{issuer.url}/keys"
    )

    assert ask(client_of(small_app(settings), ELSEWHERE), issuer.sign()).status_code == 200
    assert issuer.asked == ["/keys"]


@pytest.mark.parametrize(
    ("claims", "detail"),
    [
        ({"exp": time.time() - 120}, "has expired"),
        ({"exp": None}, "exp"),
        ({"nbf": time.time() + 3600}, "not yet valid"),
        ({"iat": time.time() + 3600}, "not yet valid"),
        ({"aud": "another"}, "meant for another service"),
        ({"aud": None}, "aud"),
        ({"iss": "https://evil.example"}, "issuer"),
        ({"iss": None}, "iss"),
        ({"sub": None}, "sub"),
    ],
)
def test_claims_that_do_not_hold_are_refused(
    client: TestClient, issuer: Issuer, claims: dict[str, Any], detail: str
) -> None:
    assert detail in refusal(client, issuer.sign(**claims))


def test_clocks_may_differ_by_the_leeway_and_no_more(tmp_path: Path, issuer: Issuer) -> None:
    settings = settings_of(tmp_path, oidc_issuer=issuer.url, oidc_audience=AUDIENCE, oidc_leeway_seconds=30)
    client = client_of(small_app(settings), ELSEWHERE)

    assert ask(client, issuer.sign(exp=time.time() - 25)).status_code == 200
    assert ask(client, issuer.sign(exp=time.time() - 35)).status_code == 401


def test_a_token_that_was_accepted_is_refused_once_it_has_expired(
    tmp_path: Path, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(tmp_path, oidc_issuer=issuer.url, oidc_audience=AUDIENCE, oidc_leeway_seconds=0)
    expires = int(time.time()) + 60
    client, token = client_of(small_app(settings), ELSEWHERE), issuer.sign(exp=expires)
    assert ask(client, token).status_code == 200

    set_clock(monkeypatch, expires - 0.5)
    assert ask(client, token).status_code == 200
    set_clock(monkeypatch, expires + 0.5)
    assert "has expired" in refusal(client, token)


def test_one_audience_of_several_is_enough(client: TestClient, issuer: Issuer) -> None:
    assert ask(client, issuer.sign(aud=["another", AUDIENCE])).status_code == 200


def set_clock(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let it be so many seconds after 1970, for whoever judges tokens."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.fromtimestamp(seconds, tz)

    monkeypatch.setattr(tokens.time, "time", lambda: seconds)
    monkeypatch.setattr("jwt.api_jwt.datetime", Clock)


# Forged ------------------------------------------------------------------------------------------


def encoded(part: Any) -> str:
    content = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def test_a_token_without_a_signature_is_refused(client: TestClient, issuer: Issuer) -> None:
    _, content, signature = issuer.sign().split(".")

    for algorithm in ("none", "None", "NONE", "nOnE", ""):
        header = encoded({"alg": algorithm, "typ": "JWT", "kid": "one"})
        for forged in (f"{header}.{content}.", f"{header}.{content}.{signature}"):
            assert "algorithm" in refusal(client, forged)


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_a_token_signed_with_the_public_key_as_a_secret_is_refused(
    client: TestClient, issuer: Issuer, algorithm: str
) -> None:
    public = RSA["one"].public_key()
    content = issuer.sign(scope="admin").split(".")[1]
    forms = (serialization.PublicFormat.SubjectPublicKeyInfo, serialization.PublicFormat.PKCS1)
    for secret in [
        *(public.public_bytes(serialization.Encoding.PEM, form) for form in forms),
        *(public.public_bytes(serialization.Encoding.DER, form) for form in forms),
    ]:
        signed = f"{encoded({'alg': algorithm, 'typ': 'JWT', 'kid': 'one'})}.{content}"
        signature = hmac.digest(secret, signed.encode(), algorithm.replace("HS", "sha"))

        assert "algorithm" in refusal(client, f"{signed}.{encoded(signature)}")


def test_a_token_of_a_foreign_key_is_refused_whatever_id_it_names(client: TestClient, issuer: Issuer) -> None:
    issuer.private["one"] = RSA["foreign"]

    assert "Signature verification failed" in refusal(client, issuer.sign())
    public = RSAAlgorithm.to_jwk(RSA["foreign"].public_key(), as_dict=True)
    for header in ({"kid": "one", "jwk": public}, {"kid": "one", "jku": "https://evil.example/keys"}):
        assert ask(client, issuer.sign(header=header)).status_code == 401


def test_a_changed_token_is_refused(client: TestClient, issuer: Issuer) -> None:
    head, _, signature = issuer.sign().split(".")
    other = issuer.sign(scope="admin").split(".")[1]

    assert ask(client, f"{head}.{other}.{signature}").status_code == 401


@pytest.mark.parametrize("token", ["x", "x.y.z", "eyJhbGciOiJSUzI1NiJ9", "..", "a" * 9000, "\xff"])
def test_what_is_no_token_is_refused_without_asking_the_issuer(
    client: TestClient, issuer: Issuer, token: str
) -> None:
    answer = client.get("/v1/who", headers={"Authorization": b"Bearer " + token.encode("latin-1")})

    assert answer.status_code == 401
    assert issuer.asked == []


def test_a_key_that_is_not_for_signatures_signs_nothing(client: TestClient, issuer: Issuer) -> None:
    issuer.add("two", RSA["two"], "RS256", use="enc")

    assert "a key that its issuer has not" in refusal(client, issuer.sign("two"))


def test_an_algorithm_that_the_key_does_not_name_is_refused(tmp_path: Path, issuer: Issuer) -> None:
    settings = settings_of(
        tmp_path, oidc_issuer=issuer.url, oidc_audience=AUDIENCE, oidc_algorithms="RS256,RS512"
    )
    client = client_of(small_app(settings), ELSEWHERE)

    assert ask(client, issuer.sign(algorithm="RS512")).status_code == 401
    assert ask(client, issuer.sign(algorithm="PS256")).status_code == 401
    assert ask(client, issuer.sign()).status_code == 200


@pytest.mark.parametrize(
    ("algorithm", "make"),
    [
        ("RS512", lambda: RSA["two"]),
        ("PS256", lambda: RSA["two"]),
        ("ES256", lambda: ec.generate_private_key(ec.SECP256R1())),
        ("ES384", lambda: ec.generate_private_key(ec.SECP384R1())),
        ("EdDSA", ed25519.Ed25519PrivateKey.generate),
    ],
)
def test_algorithms_that_are_set_are_accepted_where_a_key_names_none(
    tmp_path: Path, issuer: Issuer, algorithm: str, make: Callable[[], Any]
) -> None:
    settings = settings_of(
        tmp_path, oidc_issuer=issuer.url, oidc_audience=AUDIENCE, oidc_algorithms=f"RS256,{algorithm}"
    )
    issuer.add("two", make())

    assert ask(client_of(small_app(settings), ELSEWHERE), issuer.sign("two", algorithm)).status_code == 200


# Keys that change --------------------------------------------------------------------------------


def test_a_new_key_is_fetched_when_a_token_first_names_it(
    client: TestClient, app: FastAPI, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "UNKNOWN_SECONDS", 0.0)
    assert ask(client, issuer.sign()).status_code == 200

    issuer.add("two", RSA["two"], "RS256")

    assert ask(client, issuer.sign("two")).status_code == 200
    assert ask(client, issuer.sign("one")).status_code == 200


def test_a_key_that_the_issuer_withdrew_is_refused_after_the_next_fetch_also_for_known_tokens(
    client: TestClient, app: FastAPI, issuer: Issuer
) -> None:
    token = issuer.sign()
    assert ask(client, token).status_code == 200

    issuer.add("two", RSA["two"], "RS256")
    del issuer.entries["one"]
    app.state.access.tokens.keys.refresh().result(10)

    assert ask(client, token).status_code == 401
    assert ask(client, issuer.sign("two")).status_code == 200


@pytest.mark.parametrize("algorithm", [[], {}, 7, None, True])
def test_an_algorithm_that_is_no_text_is_refused_as_any_other(client: TestClient, algorithm: Any) -> None:
    token = f"{encoded({'alg': algorithm, 'kid': 'one'})}.{encoded({})}.eA"

    assert ask(client, token).status_code == 401


def test_ids_that_are_made_up_do_not_make_the_issuer_busy(client: TestClient, issuer: Issuer) -> None:
    issuer.private["made up"] = RSA["foreign"]

    for number in range(10):
        issuer.private[f"made-up-{number}"] = RSA["foreign"]
        assert "a key that its issuer has not" in refusal(client, issuer.sign(f"made-up-{number}"))

    assert issuer.asked.count("/keys") == 1


def test_without_an_id_the_only_key_is_meant_and_among_several_none(
    client: TestClient, app: FastAPI, issuer: Issuer
) -> None:
    token = issuer.sign(header={})
    assert ask(client, token).status_code == 200

    issuer.add("two", RSA["two"], "RS256")
    app.state.access.tokens.keys.refresh().result(10)

    assert ask(client, token).status_code == 401


def test_keys_are_fetched_again_each_hour_without_anybody_waiting(settings: Settings, issuer: Issuer) -> None:
    clock = [0.0]
    rules = small_app(settings).state.access.rules.oidc
    keys = tokens.IssuerKeys(rules, lambda: clock[0])
    judge = tokens.Tokens(rules, keys)

    def accept() -> None:
        asyncio.run(judge.accept(issuer.sign(sub=str(time.time())).encode()))

    accept()
    clock[0] = tokens.FRESH_SECONDS - 1
    accept()
    assert issuer.asked.count("/keys") == 1
    clock[0] += 2
    issuer.answers.clear()
    accept()
    assert issuer.answered.count("/keys") == 1
    issuer.answers.set()
    keys.refresh().result(10)
    assert issuer.answered.count("/keys") == 2


def test_keys_that_are_there_before_anybody_waits_for_them_are_found(
    settings: Settings, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = tokens.IssuerKeys(small_app(settings).state.access.rules.oidc)
    fetch = keys.refresh
    monkeypatch.setattr(keys, "refresh", lambda: fetch().result(10))

    assert asyncio.run(keys.find("one", "RS256")).key_id == "one"


def test_while_the_issuer_is_away_known_keys_hold_for_a_day(
    settings: Settings, issuer: Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    clock = [0.0]
    rules = small_app(settings).state.access.rules.oidc
    keys = tokens.IssuerKeys(rules, lambda: clock[0])
    judge = tokens.Tokens(rules, keys)
    asyncio.run(judge.accept(issuer.sign().encode()))
    issuer.broken = True

    clock[0] = tokens.USABLE_SECONDS - 1
    asyncio.run(judge.accept(issuer.sign(sub="bob").encode()))
    keys.refresh().result(10)
    clock[0] += 2

    assert "500" in keys.problem
    assert "cannot be read" in caplog.text
    with pytest.raises(tokens.WrongTokenError):
        asyncio.run(judge.accept(issuer.sign(sub="eve").encode()))
    issuer.broken = False
    clock[0] += tokens.UNKNOWN_SECONDS
    asyncio.run(judge.accept(issuer.sign(sub="eve").encode()))


def test_an_issuer_that_cannot_be_reached_is_said_and_keys_of_our_own_go_on(
    tmp_path: Path, issuer: Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_of(tmp_path, oidc_issuer="http://127.0.0.1:9", oidc_audience=AUDIENCE)
    key, client = new_key(settings), client_of(small_app(settings), ELSEWHERE)

    assert "The issuer's keys cannot be read" in refusal(client, issuer.sign())
    assert client.get("/v1/who", headers={"X-API-Key": key.secret}).status_code == 200
    assert client.get("/v1/who", headers={"Authorization": f"Bearer {key.secret}"}).status_code == 200
    assert caplog.records[0].levelno == logging.WARNING


def test_a_slow_issuer_keeps_nobody_else_waiting(settings: Settings, app: FastAPI, issuer: Issuer) -> None:
    key, token = new_key(settings), issuer.sign()
    issuer.answers.clear()

    async def together() -> list[int]:
        with_token = asyncio.create_task(
            status_from_elsewhere(app, (b"authorization", f"Bearer {token}".encode()))
        )
        while not issuer.asked:
            await asyncio.sleep(0.01)
        with_key = [status_from_elsewhere(app, (b"x-api-key", key.secret.encode())) for _ in range(5)]
        statuses = list(await asyncio.gather(*with_key))
        assert not with_token.done()
        assert issuer.answered == []
        issuer.answers.set()
        return [*statuses, await with_token]

    assert asyncio.run(together()) == [200] * 6


# Scopes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings_of_scopes", "claims", "scopes"),
    [
        ({}, {"scope": "read adjust openid"}, ["adjust", "read"]),
        ({}, {"scope": ["read", 7, None]}, ["read"]),
        ({}, {"scope": "READ write"}, []),
        ({}, {"scope": {"read": True}}, []),
        ({}, {"scope": None}, []),
        (
            {
                "oidc_scopes_claim": "realm_access.roles",
                "oidc_scope_map": "analysts=read+what-if, leads=adjust",
            },
            {"realm_access": {"roles": ["analysts", "other", "leads"]}, "scope": "admin"},
            ["adjust", "read", "what-if"],
        ),
        ({"oidc_scopes_claim": "a.b.c"}, {"a": "text"}, []),
    ],
)
def test_a_claim_gives_scopes_as_it_is_mapped(
    tmp_path: Path, issuer: Issuer, settings_of_scopes: dict[str, str], claims: Any, scopes: list[str]
) -> None:
    settings = settings_of(tmp_path, oidc_issuer=issuer.url, oidc_audience=AUDIENCE, **settings_of_scopes)

    answer = ask(client_of(small_app(settings), ELSEWHERE), issuer.sign(**claims))

    if "read" in scopes:
        assert answer.json()["scopes"] == scopes
    else:
        assert answer.status_code == 403


def test_wrong_tokens_are_throttled_and_a_known_one_is_answered_all_the_same(
    client: TestClient, app: FastAPI, issuer: Issuer
) -> None:
    good = issuer.sign()
    assert ask(client, good).status_code == 200
    _, content, signature = good.split(".")
    forged = f"{encoded({'alg': 'RS256', 'kid': 'one', 'x': 1})}.{content}.{signature}"

    statuses = [ask(client, forged).status_code for _ in range(WRONG_RATE.requests + 5)]

    assert statuses == [401] * WRONG_RATE.requests + [429] * 5
    assert ask(client, good).status_code == 200
    assert ask(client_of(app, "192.0.2.8"), issuer.sign(sub="bob")).status_code == 200


def test_no_token_is_kept_as_it_came(client: TestClient, app: FastAPI, issuer: Issuer) -> None:
    token = issuer.sign()
    ask(client, token)

    kept = app.state.access.tokens._accepted

    assert list(kept) == [sha256(token.encode()).digest()]
