"""MLflow's `/invocations` and the Open Inference Protocol's `/v2`, by their own shapes."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st

from turnover_assets.core.intervals import BOUNDS
from turnover_assets.serving.predictions import MOST_INPUTS
from turnover_assets.settings import load_settings
from turnover_assets.storage.registry import ModelRegistry
from turnover_assets.storage.snapshots import current
from turnover_assets_tests.api_factories import client_of
from turnover_assets_tests.factories import Landed, default_history, default_panel
from turnover_assets_tests.test_docs import REPOSITORY
from turnover_assets_tests.what_if_factories import Published, history_of, publish_panel, serve_panel

PANEL = default_panel()
KEYS, FIGURES = ["store", "department"], ["forecast", *BOUNDS]
ONE, OTHER = {"store": 2, "department": 73}, {"store": 3, "department": 88}
MODEL = f"/v2/models/{PANEL.name}"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return publish_panel(tmp_path_factory.mktemp("made"), PANEL, default_history())


@pytest.fixture(scope="module")
def client(made: Published, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    home = tmp_path_factory.mktemp("home")
    serve_panel(home, made)
    with client_of(load_settings(home=home)) as found:
        yield found


def expected(made: Published, *series: dict[str, int], role: str = "champion") -> list[list[float]]:
    """Forecasts and bounds of series, a row for each period of each, in order."""
    table = history_of(made).query("role == @role")
    rows: list[list[float]] = []
    for one in series:
        own = table[(table[KEYS] == pd.Series(one)).all(axis=1)].sort_values("horizon")
        rows += own[FIGURES].to_numpy().tolist()
    return rows


def figures(predictions: list[dict[str, Any]]) -> list[list[float]]:
    return [[row[name] for name in FIGURES] for row in predictions]


def invoke(client: TestClient, body: Any, **headers: str) -> list[dict[str, Any]]:
    answer = client.post("/invocations", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    assert set(answer.json()) == {"predictions"}
    found: list[dict[str, Any]] = answer.json()["predictions"]
    return found


# MLflow's scoring server -------------------------------------------------------------------------

TWO = pd.DataFrame([ONE, OTHER])
FORMS: dict[str, Any] = {
    "dataframe_split": {"dataframe_split": json.loads(TWO.to_json(orient="split"))},
    "dataframe_split without an index": {"dataframe_split": {"columns": KEYS, "data": [[2, 73], [3, 88]]}},
    "dataframe_records": {"dataframe_records": TWO.to_dict("records")},
    "instances": {"instances": [ONE, OTHER]},
    "inputs, by column": {"inputs": {"store": [2, 3], "department": [73, 88]}},
    "inputs, by row": {"inputs": [ONE, OTHER]},
    "whole numbers as pandas writes them beside missing ones": {
        "instances": [{"store": 2.0, "department": 73.0}, OTHER]
    },
    "with what a client adds": {"inputs": [ONE, OTHER], "params": {}, "client_request_id": "x"},
}


@pytest.mark.parametrize("body", FORMS.values(), ids=FORMS.keys())
def test_every_form_of_input_gives_the_published_forecasts_in_its_order(
    client: TestClient, made: Published, body: Any
) -> None:
    found = invoke(client, body)

    assert figures(found) == expected(made, ONE, OTHER)
    assert list(found[0]) == [*KEYS, "cutoff", "week", "horizon", *FIGURES, "model_version", "role"]
    assert [row["horizon"] for row in found] == [*range(1, 9)] * 2
    assert {row["role"] for row in found} == {"champion"}


def test_csv_gives_the_same(client: TestClient, made: Published) -> None:
    text = TWO.to_csv(index=False)

    answer = client.post("/invocations", content=text, headers={"Content-Type": "text/csv; charset=utf-8"})

    assert answer.status_code == 200
    assert figures(answer.json()["predictions"]) == expected(made, ONE, OTHER)
    assert pd.read_csv(io.StringIO(text)).equals(TWO)


def test_a_horizon_or_a_period_leaves_one_forecast_and_a_missing_one_leaves_all(
    client: TestClient, made: Published
) -> None:
    week = str(made.forecasts["week"].max())[:10]

    found = invoke(
        client, {"instances": [{**ONE, "horizon": 3}, {**ONE, "week": week}, {**OTHER, "horizon": None}]}
    )

    all_of_one = expected(made, ONE)
    assert figures(found) == [all_of_one[2], all_of_one[7], *expected(made, OTHER)]


@pytest.mark.parametrize("role", ["challenger", "baseline"])
def test_another_role_is_asked_for_by_name(client: TestClient, made: Published, role: str) -> None:
    found = invoke(client, {"instances": [ONE], "params": {"role": role}})

    assert [row["forecast"] for row in found] == [row[0] for row in expected(made, ONE, role=role)]
    assert {row["role"] for row in found} == {role}
    assert (found[0]["lower_80"] is None) == (role == "baseline")


@settings(max_examples=20)
@given(st.data())
def test_rows_come_in_the_order_asked_also_where_they_repeat(
    client: TestClient, made: Published, data: Any
) -> None:
    every = made.forecasts[KEYS].drop_duplicates().to_dict("records")
    asked = data.draw(st.lists(st.sampled_from(every), min_size=1, max_size=12))

    assert figures(invoke(client, {"dataframe_records": asked})) == expected(made, *asked)


WRONG: dict[str, tuple[Any, int, str]] = {
    "no form": ({"data": [ONE]}, 422, "body"),
    "two forms": ({"instances": [ONE], "inputs": [ONE]}, 422, "body"),
    "a list": ([ONE], 422, "body"),
    "something else beside it": ({"instances": [ONE], "signature": 1}, 422, "signature"),
    "no rows": ({"instances": []}, 422, "instances"),
    "records that are none": ({"instances": [1]}, 422, "instances"),
    "a key that is missing": ({"instances": [{"store": 2}]}, 422, "instances.0.department"),
    "a column that there is not": ({"instances": [{**ONE, "shop": 2}]}, 422, "instances.shop"),
    "a text for a number": ({"instances": [{**ONE, "store": "two"}]}, 422, "instances.0.store"),
    "a fraction for a whole number": ({"instances": [{**ONE, "store": 2.5}]}, 422, "instances.0.store"),
    "true for a number": ({"instances": [{**ONE, "store": True}]}, 422, "instances.0.store"),
    "a number beyond all": ({"instances": [{**ONE, "store": 2**63}]}, 422, "instances.0.store"),
    "no date": ({"instances": [{**ONE, "week": "soon"}]}, 422, "instances.0.week"),
    "a series that there is not": ({"instances": [ONE, {**ONE, "store": 77}]}, 422, "instances.1"),
    "a horizon that there is not": ({"instances": [{**ONE, "horizon": 9}]}, 422, "instances.0"),
    "columns of other lengths": ({"inputs": {"store": [2, 3], "department": [73]}}, 422, "inputs"),
    "a split without data": ({"dataframe_split": {"columns": KEYS}}, 422, "dataframe_split"),
    "a split with short rows": (
        {"dataframe_split": {"columns": KEYS, "data": [[1]]}},
        422,
        "dataframe_split.data",
    ),
    "a column twice": (
        {"dataframe_split": {"columns": ["store"] * 2, "data": [[1, 1]]}},
        422,
        "dataframe_split.columns",
    ),
    "another parameter": ({"instances": [ONE], "params": {"temperature": 1}}, 422, "params"),
    "no such role": ({"instances": [ONE], "params": {"role": "boss"}}, 422, "params.role"),
    "too many rows": (
        {"inputs": {"store": [2] * (MOST_INPUTS + 1), "department": [73] * (MOST_INPUTS + 1)}},
        422,
        "inputs",
    ),
}


@pytest.mark.parametrize(("body", "status", "field"), WRONG.values(), ids=WRONG.keys())
def test_wrong_input_is_answered_by_its_field(client: TestClient, body: Any, status: int, field: str) -> None:
    answer = client.post("/invocations", json=body)

    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["problems"][0]["field"] == field


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"{", "application/json", 422),
        (b"\xff\xfe", "application/json", 422),
        (b'{"instances": [{"store": NaN}]}', "application/json", 422),
        (b"[" * 100_000, "application/json", 422),
        (b"store,department\n", "text/csv", 422),
        (b"store,department\n2\n", "text/csv", 422),
        (b"store,department\ntwo,73\n", "text/csv", 422),
        (b"store,department\n2,7\r3\n", "text/csv", 422),
        (b"store,department\n2,\x00\n", "text/csv", 422),
        (b"store,department\n2," + b"7" * 200_000, "text/csv", 422),
        (b"x", "application/vnd.apache.parquet", 415),
    ],
)
def test_what_is_no_input_is_refused(client: TestClient, content: bytes, kind: str, status: int) -> None:
    answer = client.post("/invocations", content=content, headers={"Content-Type": kind})

    assert answer.status_code == status
    assert answer.json()["remedy"]


def test_mlflows_health_check_is_answered(client: TestClient) -> None:
    assert client.get("/ping").status_code == 200


# The Open Inference Protocol ---------------------------------------------------------------------


def tensors(*series: dict[str, int], **others: list[int]) -> list[dict[str, Any]]:
    columns = {key: [one[key] for one in series] for key in KEYS} | others
    return [
        {"name": name, "shape": [len(values)], "datatype": "INT64", "data": values}
        for name, values in columns.items()
    ]


def infer(client: TestClient, path: str = MODEL, **asked: Any) -> dict[str, Any]:
    answer = client.post(f"{path}/infer", json=asked)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_health_and_metadata_are_those_of_the_protocol(client: TestClient) -> None:
    live, ready = client.get("/v2/health/live"), client.get("/v2/health/ready")
    server, model = client.get("/v2"), client.get(MODEL)
    versioned, model_ready = client.get(f"{MODEL}/versions/1"), client.get(f"{MODEL}/ready")

    assert (live.json()["live"], ready.json()["ready"]) == (True, True)
    assert set(server.json()) == {"name", "version", "extensions"}
    assert model.json() == versioned.json()
    assert set(model.json()) == {"name", "versions", "platform", "inputs", "outputs"}
    assert model.json()["versions"] == ["1", "2"]
    assert [each["name"] for each in model.json()["inputs"]] == [*KEYS, "horizon"]
    assert all(set(each) == {"name", "datatype", "shape"} for each in model.json()["outputs"])
    assert model_ready.json() == {"name": PANEL.name, "ready": True}
    assert client.get(f"{MODEL}/versions/2/ready").json()["ready"] is True


def test_inference_gives_tensors_of_the_published_forecasts(client: TestClient, made: Published) -> None:
    found = infer(client, id="42", inputs=tensors(ONE, OTHER))

    outputs = {each["name"]: each for each in found["outputs"]}
    assert (found["model_name"], found["model_version"], found["id"]) == (PANEL.name, "1", "42")
    assert list(outputs) == [*FIGURES, "week"]
    assert all(each["shape"] == [2, 8] for each in outputs.values())
    assert [list(row) for row in zip(*(outputs[name]["data"] for name in FIGURES), strict=True)] == expected(
        made, ONE, OTHER
    )
    assert outputs["week"]["datatype"] == "BYTES"
    assert outputs["week"]["data"][0] == str(made.forecasts["week"].min())[:10]


def test_outputs_horizons_and_versions_can_be_asked_for(client: TestClient, made: Published) -> None:
    found = infer(
        client,
        f"{MODEL}/versions/2",
        inputs=tensors(ONE, ONE, horizon=[2, 5]),
        outputs=[{"name": "forecast"}],
    )

    theirs = expected(made, ONE, role="challenger")
    assert [each["name"] for each in found["outputs"]] == ["forecast"]
    assert found["outputs"][0]["shape"] == [2, 1]
    assert found["outputs"][0]["data"] == [theirs[1][0], theirs[4][0]]
    assert (found["model_version"], found["parameters"]) == ("2", {"role": "challenger"})
    assert "id" not in found


def test_tensors_may_be_columns(client: TestClient, made: Published) -> None:
    columns = [{**each, "shape": [1, 1], "data": [each["data"]]} for each in tensors(ONE)]

    assert infer(client, inputs=columns)["outputs"][0]["data"] == [row[0] for row in expected(made, ONE)]


def changed(**fields: Any) -> list[dict[str, Any]]:
    return [{**tensors(ONE)[0], **fields}, tensors(ONE)[1]]


WRONG_TENSORS: dict[str, tuple[str, Any, int]] = {
    "another model": ("/v2/models/other", {"inputs": tensors(ONE)}, 404),
    "another version": (f"{MODEL}/versions/9", {"inputs": tensors(ONE)}, 404),
    "no inputs": (MODEL, {}, 422),
    "a key that is missing": (MODEL, {"inputs": tensors(ONE)[:1]}, 422),
    "a tensor twice": (MODEL, {"inputs": tensors(ONE) + tensors(ONE)}, 422),
    "an unknown tensor": (MODEL, {"inputs": changed(name="shop")}, 422),
    "another datatype": (MODEL, {"inputs": changed(datatype="BYTES")}, 422),
    "another shape": (MODEL, {"inputs": changed(shape=[2])}, 422),
    "a shape of nothing": (MODEL, {"inputs": changed(shape=[])}, 422),
    "texts": (MODEL, {"inputs": changed(data=["2"])}, 422),
    "objects": (MODEL, {"inputs": changed(data=[{}])}, 422),
    "deep lists": (MODEL, {"inputs": changed(data=[[[2]]])}, 422),
    "an unknown output": (MODEL, {"inputs": tensors(ONE), "outputs": [{"name": "mood"}]}, 422),
    "a series that there is not": (MODEL, {"inputs": changed(data=[77])}, 422),
    "a horizon for one of two rows": (MODEL, {"inputs": tensors(ONE, OTHER, horizon=[1])}, 422),
    "several horizons mixed with all": (MODEL, {"inputs": tensors(ONE, OTHER, horizon=[1, None])}, 422),
}


@pytest.mark.parametrize(("path", "body", "status"), WRONG_TENSORS.values(), ids=WRONG_TENSORS.keys())
def test_errors_have_the_protocols_error_and_ours(
    client: TestClient, path: str, body: Any, status: int
) -> None:
    answer = client.post(f"{path}/infer", json=body)

    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["error"] == answer.json()["detail"]
    assert answer.json()["remedy"]


def test_a_server_without_forecasts_is_live_and_not_ready(tmp_path: Any) -> None:
    with client_of(load_settings(home=tmp_path)) as client:
        live, ready = client.get("/v2/health/live"), client.get("/v2/health/ready")
        model, ping = client.get(f"{MODEL}/ready"), client.get("/ping")

    assert live.status_code == 200
    assert (ready.status_code, model.status_code, ping.status_code) == (503, 503, 503)
    assert ready.json()["error"]


# Beside MLflow -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_answers_are_those_of_mlflows_own_server_of_the_same_model(landed: Landed, tmp_path: Path) -> None:
    import mlflow
    from mlflow.pyfunc.scoring_server import infer_and_parse_data

    registry = ModelRegistry.of(landed.settings)
    files = tmp_path / "files"
    files.mkdir()
    registry.load(registry.champion_version()).save(files)
    mlflow.pyfunc.save_model(
        str(tmp_path / "pyfunc"),
        python_model=str(REPOSITORY / "benchmarks" / "serving_model.py"),
        artifacts={"model": str(files), "warehouse": str(landed.settings.warehouse_path)},
        pip_requirements=[],
    )
    model = mlflow.pyfunc.load_model(str(tmp_path / "pyfunc"))
    series = current(landed.settings.published_path).read("forecasts")[KEYS].drop_duplicates()
    bodies = [
        {"dataframe_split": json.loads(series.to_json(orient="split"))},
        {"dataframe_records": series.to_dict("records")},
        {"inputs": series.to_dict("list")},
    ]

    with client_of(landed.settings) as client:
        for body in bodies:
            theirs = model.predict(pd.DataFrame(infer_and_parse_data(body)))
            ours = pd.DataFrame(invoke(client, body))

            assert ours[[*KEYS, "week"]].to_numpy().tolist() == theirs[[*KEYS, "week"]].to_numpy().tolist()
            np.testing.assert_allclose(ours[FIGURES], theirs[FIGURES], rtol=1e-9)
            assert len(ours) == 8 * len(series)
