"""The shapes of the Open Inference Protocol: tensors in, tensors out, and what is said of them.

What belongs here: the protocol's JSON, and how it maps to inputs and forecasts. What does not: routes
(routes/inference.py), and the forecasts (predictions.py).

See github.com/kserve/open-inference-protocol, specification/protocol/inference_rest.md.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from turnover_assets.panel import Column, PanelSpec
from turnover_assets.serving.parameters import EXAMPLES
from turnover_assets.serving.predictions import FIGURES, HORIZON, Inputs, input_columns
from turnover_assets.serving.problems import Problem

SERVER = "turnover-assets"
PLATFORM = "turnover_assets"
DATATYPES: Mapping[str, str] = {"integer": "INT64", "number": "FP64", "text": "BYTES", "flag": "BOOL"}
WHOLE = frozenset(f"{sign}INT{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64))
REAL = frozenset(["FP16", "FP32", "FP64"])
ACCEPTED: Mapping[str, frozenset[str]] = {
    "integer": WHOLE,
    "number": WHOLE | REAL,
    "text": frozenset(["BYTES"]),
    "flag": frozenset(["BOOL"]),
}


class Tensor(BaseModel):
    """What a tensor is."""

    name: str
    datatype: str
    shape: list[int] = Field(description="-1 for what varies.")


class ServerMetadata(BaseModel):
    """What the server is."""

    name: str
    version: str
    extensions: list[str]


class ModelMetadata(BaseModel):
    """What the model takes and gives."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[Tensor]
    outputs: list[Tensor]


class Live(BaseModel):
    """That it answers."""

    live: bool


class Ready(BaseModel):
    """Whether it should be asked."""

    live: bool
    ready: bool


class ModelReady(BaseModel):
    """Whether a model should be asked."""

    name: str
    ready: bool


class RequestInput(BaseModel):
    """An input tensor."""

    name: str = Field(max_length=200)
    shape: list[Annotated[int, Field(ge=0, lt=2**63)]] = Field(max_length=8)
    datatype: str = Field(max_length=20)
    parameters: dict[str, Any] | None = None
    data: list[Any]


class RequestOutput(BaseModel):
    """An output tensor that is wanted."""

    name: str = Field(max_length=200)
    parameters: dict[str, Any] | None = None


class InferenceRequest(BaseModel):
    """A question."""

    id: str | None = Field(None, max_length=200)
    parameters: dict[str, Any] | None = None
    inputs: list[RequestInput] = Field(min_length=1, max_length=100)
    outputs: list[RequestOutput] | None = Field(None, max_length=100)


class ResponseOutput(BaseModel):
    """An output tensor."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any] = Field(description="Row by row.")


class InferenceResponse(BaseModel):
    """The answer."""

    model_config = ConfigDict(protected_namespaces=())

    model_name: str
    model_version: str
    id: str | None = None
    parameters: dict[str, Any] | None = None
    outputs: list[ResponseOutput]


def example_of(panel: PanelSpec) -> dict[str, Any]:
    """A request for one period of one series."""
    inputs = [
        {"name": each.name, "shape": [1], "datatype": DATATYPES[each.type], "data": [EXAMPLES[each.type]]}
        for each in panel.series.keys
    ]
    ahead = {"name": HORIZON, "shape": [1], "datatype": DATATYPES["integer"], "data": [1]}
    return {"id": "42", "inputs": [*inputs, ahead], "outputs": [{"name": "forecast"}]}


def metadata_of(panel: PanelSpec, versions: Sequence[str]) -> ModelMetadata:
    """What the model takes and gives."""
    inputs = [
        Tensor(name=each.name, datatype=DATATYPES[each.type], shape=[-1])
        for each in input_columns(panel).values()
        if each.name != panel.time
    ]
    outputs = [Tensor(name=name, datatype="FP64", shape=[-1, -1]) for name in FIGURES]
    outputs.append(Tensor(name=panel.time, datatype="BYTES", shape=[-1, -1]))
    return ModelMetadata(
        name=panel.name, versions=list(versions), platform=PLATFORM, inputs=inputs, outputs=outputs
    )


def read_inputs(panel: PanelSpec, tensors: Sequence[RequestInput]) -> Inputs:
    """The columns that tensors give.

    Raises:
        Problem: A tensor is not known, comes twice, or is not what it says.
    """
    columns = {name: each for name, each in input_columns(panel).items() if name != panel.time}
    found: dict[str, list[Any]] = {}
    for i, tensor in enumerate(tensors):
        field = f"inputs.{i}"
        if tensor.name not in columns or tensor.name in found:
            detail = f"The tensor {tensor.name} is not known, or comes twice."
            raise Problem(
                422, detail, f"Give each of: {', '.join(columns)} ({HORIZON} may be left out).", field
            )
        found[tensor.name] = _values(columns[tensor.name], tensor, field)
    return found


def _values(column: Column, tensor: RequestInput, field: str) -> list[Any]:
    if tensor.datatype not in ACCEPTED[column.type]:
        wanted = ", ".join(sorted(ACCEPTED[column.type]))
        detail = f"The datatype of {tensor.name} is {tensor.datatype}, which it cannot be."
        raise Problem(422, detail, f"Use one of: {wanted}.", f"{field}.datatype", value=tensor.datatype)
    values = list(_flat(tensor.data))
    rows = tensor.shape[0] if tensor.shape else 0
    if rows != len(values) or any(size != 1 for size in tensor.shape[1:]):
        detail = f"The shape of {tensor.name} is {tensor.shape}, but it has {len(values)} values."
        raise Problem(422, detail, "Give a shape [n] or [n, 1] and n values.", f"{field}.shape")
    return values


def _flat(data: Sequence[Any]) -> Iterator[Any]:
    """The values of nested lists, row by row; no deeper than tensors of one column are."""
    for each in data:
        if isinstance(each, list):
            yield from each
        else:
            yield each


def wanted_outputs(panel: PanelSpec, outputs: Sequence[RequestOutput] | None) -> list[str]:
    """Names of the outputs that are wanted; all where none is named.

    Raises:
        Problem: One is not known.
    """
    known = [*FIGURES, panel.time]
    for i, each in enumerate(outputs or ()):
        if each.name not in known:
            detail = f"There is no output {each.name}."
            raise Problem(
                422, detail, f"Ask for some of: {', '.join(known)}.", f"outputs.{i}.name", value=each.name
            )
    return [each.name for each in outputs] if outputs else known


def tensors_of(panel: PanelSpec, table: pa.Table, names: Sequence[str]) -> list[ResponseOutput]:
    """Output tensors of forecasts; see predictions.predictions."""
    places = Counter(table["place"].to_pylist())
    if len({*places.values()}) > 1:
        raise Problem(
            422,
            f"Some rows ask for one {HORIZON} and others for all, so that the answer is no tensor.",
            f"Give every row a {HORIZON} or none, or ask in two requests.",
            "inputs",
        )
    rows = len(places)
    shape = [rows, table.num_rows // max(rows, 1)]
    return [
        ResponseOutput(
            name=name,
            shape=shape,
            datatype="BYTES" if name == panel.time else "FP64",
            data=[_element(value) for value in table[name].to_pylist()],
        )
        for name in names
    ]


def _element(value: Any) -> Any:
    """An element of a tensor; what has no bounds, as the baseline, has null for them."""
    if hasattr(value, "isoformat"):
        return value.isoformat()[:10]
    return None if value != value else value
