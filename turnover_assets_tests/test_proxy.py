"""The proxy for real: nginx with the stack's configuration, before parts that tell what reached them.

Skipped where nginx is missing (Debian's package nginx-light).
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from turnover_assets_tests.factories import free_port
from turnover_assets_tests.proxy_factories import PARTS, Proxy, running_proxy

CLAIMED = {"X-Forwarded-User": "root", "X-Webauth-User": "root", "X-Forwarded-For": "10.9.9.9"}


class Telling(BaseHTTPRequestHandler):
    """Answers with what was asked of it."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        told = {"part": self.server.part, "path": self.path, "headers": dict(self.headers)}  # type: ignore[attr-defined]
        content = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_GET  # noqa: N815  (the name that the server looks for)

    def log_message(self, *_: Any) -> None:
        """Nothing: the tests tell."""


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """The proxy, and each part a thread on an address of its own."""
    port = free_port()
    parts = {part: f"127.0.0.{number}" for number, part in enumerate(PARTS, start=11)}
    with ExitStack() as leaving:
        for part, address in parts.items():
            server = ThreadingHTTPServer((address, port), Telling)
            server.part = part  # type: ignore[attr-defined]
            Thread(target=server.serve_forever, daemon=True).start()
            leaving.callback(server.server_close)
            leaving.callback(server.shutdown)
        places = {part: f"{address}:{port}" for part, address in parts.items()}
        yield leaving.enter_context(running_proxy(tmp_path_factory.mktemp("proxy"), places))


# Passwords -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "part", "viewers"),
    [
        ("/", "dashboard", True),
        ("/department/4?week=2024-01-06", "dashboard", True),
        ("/static/page.css", "dashboard", True),
        ("/dagster/graphql", "webserver", False),
        ("/view/server_info", "viewer", True),
        ("/mlflow/", "mlflow", False),
        ("/prometheus/graph", "prometheus", False),
        ("/grafana/d/turnover", "grafana", True),
        ("/docs", "api", True),
        ("/openapi.json", "api", True),
        ("/api/docs", "api", True),
    ],
)
def test_a_page_is_for_those_who_have_its_password(
    proxy: Proxy, path: str, part: str, *, viewers: bool
) -> None:
    assert proxy.ask(path)[0] == 401
    assert proxy.ask(path, X_Forwarded_User="operator")[0] == 401
    status, found = proxy.ask(path, "operator")
    assert (status, found["part"]) == (200, part)
    assert proxy.ask(path, "viewer")[0] == (200 if viewers else 401)


def test_a_part_learns_who_has_passed_and_nothing_that_a_client_made_up(proxy: Proxy) -> None:
    for path in ("/", "/dagster/x", "/view/x", "/prometheus/x", "/grafana/x", "/docs"):
        _, found = proxy.ask(path, "operator", **{name.replace("-", "_"): v for name, v in CLAIMED.items()})
        headers = found["headers"]
        assert (headers["X-Forwarded-User"], headers["X-Webauth-User"]) == ("operator", "operator"), path
        assert headers["X-Forwarded-For"] == "127.0.0.1", path
        assert "Authorization" not in headers, path
    _, found = proxy.ask("/mlflow/x", "operator", X_Forwarded_User="root")
    assert not {"X-Forwarded-User", "Authorization", "Origin"} & found["headers"].keys()
    assert found["headers"]["Host"] == "mlflow:5000"


def test_what_another_site_s_page_asks_for_is_refused(proxy: Proxy) -> None:
    assert proxy.ask("/dagster/graphql", "operator", Origin="https://elsewhere.example")[0] == 403
    assert proxy.ask("/dagster/graphql", "operator", Origin="null")[0] == 403
    assert proxy.ask("/dagster/graphql", "operator", Origin=proxy.origin)[0] == 200


# The API -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "/api"])
def test_a_program_reaches_the_api_with_its_key_and_as_nobody(proxy: Proxy, prefix: str) -> None:
    claimed = {name.replace("-", "_"): value for name, value in CLAIMED.items()}

    status, found = proxy.ask(
        f"{prefix}/v1/forecasts?store=4&cutoff=2024-01-06", Authorization="Bearer ta_key", **claimed
    )

    assert (status, found["part"]) == (200, "api")
    assert found["path"] == "/v1/forecasts?store=4&cutoff=2024-01-06"
    assert found["headers"]["Authorization"] == "Bearer ta_key"
    assert not {"X-Forwarded-User", "X-Webauth-User"} & found["headers"].keys()
    assert found["headers"]["X-Forwarded-For"] == "127.0.0.1"
    assert found["headers"]["X-Forwarded-Proto"] == "https"


def test_a_name_in_a_path_reaches_the_api_as_it_was_sent(proxy: Proxy) -> None:
    _, whole = proxy.ask("/v1/series/a%20b%2Fc")
    _, below = proxy.ask("/api/v1/series/caf%C3%A9%20x")

    assert whole["path"] == "/v1/series/a%20b%2Fc"
    assert below["path"] == "/v1/series/caf%C3%A9%20x"


def test_a_page_of_another_site_may_bring_a_key_and_the_api_judges_it(proxy: Proxy) -> None:
    status, found = proxy.ask("/v1/forecasts", X_API_Key="ta_key", Origin="https://elsewhere.example")

    assert status == 200
    assert found["headers"]["Origin"] == "https://elsewhere.example"


@pytest.mark.parametrize(
    "path",
    [
        "/v1/../dagster/graphql",
        "/v1/%2e%2e/dagster/graphql",
        "/api/v1/..%2f../dagster/graphql",
        "/v1//../dagster/",
    ],
)
def test_no_way_round_leads_from_the_api_to_a_page(proxy: Proxy, path: str) -> None:
    assert proxy.ask(path)[0] in (400, 401, 403)
    status, found = proxy.ask(path, "operator", Origin="https://elsewhere.example")
    assert status in (400, 403) or found["part"] == "api"


@pytest.mark.parametrize("path", ["/metrics", "/api/metrics", "/readyz", "/api/readyz", "/api/", "/v3/x"])
def test_nothing_else_of_the_api_is_had_from_outside(proxy: Proxy, path: str) -> None:
    assert proxy.ask(path)[0] in (401, 404)
    assert proxy.ask(path, "operator")[1].get("part") != "api"


def test_what_there_is_beside_the_forecasts_is_told_to_those_who_have_a_password(proxy: Proxy) -> None:
    assert [proxy.ask("/stack")[0], proxy.ask("/stack", "viewer")[0]] == [401, 200]
