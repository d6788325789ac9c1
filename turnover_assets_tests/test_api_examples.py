"""The examples of the OpenAPI document: every parameter and body has one, it is valid, and it is answered."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from fastapi.testclient import TestClient
from jsonschema_rs import Draft202012Validator

from turnover_assets.serving.app import create_app
from turnover_assets.settings import Settings, load_settings
from turnover_assets.storage.snapshots import Snapshot, current
from turnover_assets_tests.api_factories import client_of

DOCUMENT: dict[str, Any] = create_app(load_settings(home="nowhere")).openapi()
OPERATIONS = [(method, path) for path, methods in DOCUMENT["paths"].items() for method in methods]


@pytest.fixture(scope="module")
def client(served_home: Settings) -> Iterator[TestClient]:
    with client_of(served_home) as found:
        yield found


@pytest.fixture(scope="module")
def own(served_home: Settings) -> dict[str, Any]:
    """What a home has where an example names what only some homes have."""
    return of_home(current(served_home.published_path))


def of_home(snapshot: Snapshot) -> dict[str, Any]:
    first = snapshot.read("forecasts").iloc[0]
    store = snapshot.read("stores").set_index("store").loc[first["store"]]
    known = {name: str(store[name]) for name in ("postcode", "region", "zone")}
    keys = {name: int(first[name]) for name in ("store", "department")}
    cutoff = str(snapshot.facts["cutoff"])
    version = str(snapshot.facts["model"]["version"])
    return {**known, **keys, "cutoff": cutoff, "member": str(store["region"]), "version": version}


def examples_of(described: Mapping[str, Any]) -> list[Any]:
    """The examples of a parameter, or of a kind of body, wherever OpenAPI lets them stand."""
    named = [each["value"] for each in described.get("examples", {}).values()]
    alone = [described["example"]] if "example" in described else []
    return [*named, *alone, *described.get("schema", {}).get("examples", [])]


def is_valid(schema: Mapping[str, Any], example: Any) -> bool:
    whole = {**schema, "components": DOCUMENT["components"]}
    return Draft202012Validator(whole).is_valid(example)


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_every_example_is_there_and_valid_and_answered(
    client: TestClient, own: dict[str, Any], method: str, path: str
) -> None:
    operation = DOCUMENT["paths"][path][method]
    given = {each["name"]: each for each in operation.get("parameters", [])}
    in_path = {name: own.get(name, examples_of(given[name])[0]) for name in given if f"{{{name}}}" in path}
    address = path.format(**in_path)

    for name, described in given.items():
        found = examples_of(described)
        assert found, name
        assert all(is_valid(described["schema"], example) for example in found), name
        if name not in in_path:
            _is_answered(client, address, name, found[0], own)
    for media_type, body in operation.get("requestBody", {}).get("content", {}).items():
        found = examples_of(body)
        assert found, media_type
        assert all(is_valid(body["schema"], example) for example in found), media_type
        for example in found:
            text = example if isinstance(example, str) else json.dumps(example)
            answer = client.post(address, content=of_series(text, own), headers={"Content-Type": media_type})
            assert answer.status_code == 200, answer.text
    if method == "get":
        assert client.get(address).status_code == 200


def _is_answered(client: TestClient, address: str, name: str, example: Any, own: dict[str, Any]) -> None:
    """With rows, where the example is of something that this home has.

    A token of a page holds for one snapshot: the example is told to be of another, the next page is asked.
    """
    value = own.get(name, example)
    given = {name: str(value).lower() if isinstance(value, bool) else value}
    if name == "page":
        assert client.get(address, params={"page": example}).status_code == 404
        first = client.get(address, params={"limit": 1}).json()
        if not first["next"]:
            return  # models, of which there is one
        given = {"page": first["next"].partition("page=")[2], "limit": 1}
    if name == "member":
        given |= {"level": "region"} | ({"source": "backtest"} if address.endswith("accuracy") else {})
    answer = client.get(address, params=given)
    assert answer.status_code == 200, (given, answer.text)
    assert answer.headers["content-type"].startswith("text/csv" if name == "format" else "application/json")
    if name in own or name in ("limit", "horizon", "role", "is_forecast", "page"):
        assert answer.json()["data"], (address, given)


def of_series(text: str, own: Mapping[str, Any]) -> str:
    """A body about the series that a home has; the examples are of store 3 and department 3."""
    if text.startswith("store,department"):
        return f"store,department\n{own['store']},{own['department']}\n"
    body = json.loads(text)
    for record in (*body.get("series", ()), *body.get("dataframe_records", ())):
        record |= {name: own[name] for name in ("store", "department")}
    for tensor in body.get("inputs", ()):
        tensor["data"] = [own.get(tensor["name"], tensor["data"][0])]
    return json.dumps(body)
