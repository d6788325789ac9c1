"""The OpenAPI document: no answer to what it allows or forbids is undescribed, or an error of the server."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import CHECKS, load_all_checks

from turnover_assets.serving.app import create_app
from turnover_assets.settings import Settings, load_settings
from turnover_assets.storage.api_keys import KeyStore
from turnover_assets_tests.api_factories import live_server

load_all_checks()
FEW, MANY = 12, 400  # requests made up for each operation
PUBLIC = ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready")
OPEN_ANYWAY = {"ignored_auth"}  # where no key is configured, none is needed
# It tries wrong keys, and the twentieth of an address is told to wait; without any key is a test of its own.
WRONG_KEYS = {"ignored_auth"}
# That the series keys exclude a level is nothing that a schema of parameters can say; nor which series there
# are, or that a tensor has as many values as its shape says.
POSTED = (
    "/v1/what-if",
    "/invocations",
    "/v2/models/{name}/infer",
    "/v2/models/{name}/versions/{version}/infer",
)
NOT_ALWAYS = {path: {"positive_data_acceptance"} for path in ("/v1/accuracy", *POSTED)}
Schema = Any


def app_of(home: Any) -> FastAPI:
    return create_app(load_settings(home=home))


def operations() -> list[tuple[str, str]]:
    paths = app_of("nowhere").openapi()["paths"]
    return [(method.upper(), path) for path, methods in paths.items() for method in methods]


OPERATIONS = pytest.mark.parametrize(("method", "path"), operations(), ids=lambda part: part)


@pytest.fixture(scope="module")
def open_schema(served_home: Settings) -> Iterator[Schema]:
    """The document of a server without keys."""
    with live_server(served_home) as base:
        yield schemathesis.openapi.from_url(f"{base}/openapi.json")


@pytest.fixture(scope="module")
def key_and_schema(
    served_home: Settings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Schema]]:
    """A key, and the document of a server that asks for one."""
    home = tmp_path_factory.mktemp("keyed")
    (home / "published").symlink_to(served_home.published_path)
    keyed = served_home.model_copy(update={"home": home, "api_rate": "unlimited"})
    new = KeyStore(keyed.keys_path).create("tests", ["read", "what-if"], datetime.now(UTC))
    with live_server(keyed) as base:
        yield new.secret, schemathesis.openapi.from_url(f"{base}/openapi.json")


def check(
    schema: Schema, method: str, path: str, examples: int, without: set[str], **options: Any
) -> set[int]:
    """Make requests up for an operation and check each answer; the statuses that were seen."""
    operation, seen = schema[path][method], set()
    skipped = without | NOT_ALWAYS.get(path, set())
    checks = [each for each in CHECKS.get_all() if each.__name__ not in skipped]

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(case=operation.as_strategy())
    def ask(case: Any) -> None:
        answer = case.call(**options)
        seen.add(answer.status_code)
        case.validate_response(answer, checks=checks, **options)

    ask()
    return seen


@OPERATIONS
def test_answers_are_those_described(open_schema: Schema, method: str, path: str) -> None:
    assert check(open_schema, method, path, FEW, OPEN_ANYWAY)


@OPERATIONS
def test_answers_to_a_key_are_those_described(
    key_and_schema: tuple[str, Schema], method: str, path: str
) -> None:
    key, schema = key_and_schema

    seen = check(schema, method, path, FEW, WRONG_KEYS, headers={"X-API-Key": key})

    assert seen - {401}


@OPERATIONS
def test_without_a_key_nothing_is_answered(
    key_and_schema: tuple[str, Schema], method: str, path: str
) -> None:
    seen = check(key_and_schema[1], method, path, FEW, {"positive_data_acceptance"})

    if path not in (*PUBLIC, "/metrics"):
        assert seen <= {400, 401, 413, 414, 429}


@pytest.mark.slow
@OPERATIONS
def test_many_answers_are_those_described(open_schema: Schema, method: str, path: str) -> None:
    assert check(open_schema, method, path, MANY, OPEN_ANYWAY)


def test_every_answer_with_rows_is_described_by_its_columns() -> None:
    document = app_of("nowhere").openapi()

    page = document["components"]["schemas"]["ForecastPage"]
    row = document["components"]["schemas"]["Forecast"]

    assert set(page["properties"]) == {"served", "data", "next"}
    assert list(row["properties"])[:4] == ["store", "department", "cutoff", "week"]
    content = document["paths"]["/v1/forecasts"]["get"]["responses"]["200"]["content"]
    assert set(content) == {
        "application/json",
        "text/csv",
        "application/vnd.apache.arrow.stream",
        "application/vnd.apache.parquet",
    }
