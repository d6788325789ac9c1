"""`/v1/snapshot`: what is served, and what panel it is of.

What belongs here: facts of the snapshot. What does not: whether it is worth having (health.py).
"""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field

from turnover_assets.panel import PanelSpec
from turnover_assets.serving.access import Caller, require
from turnover_assets.serving.formats import FORMATS
from turnover_assets.serving.openapi import documented
from turnover_assets.serving.origin import CACHING, OriginDocument, entity_tag, is_known
from turnover_assets.serving.served import Served, served

router = APIRouter(tags=["forecasts"])


class Level(BaseModel):
    """A key or an attribute of the series, as a parameter and a column."""

    name: str
    type: str


class PanelDocument(BaseModel):
    """What the retailer's data looks like."""

    name: str
    keys: list[Level] = Field(description="The series keys.")
    attributes: list[Level] = Field(description="Attributes of series.")
    levels: list[str] = Field(description="Keys and attributes by which series are added up.")
    time: str = Field(description="Name of the column of periods.")
    every: str = Field(description="`week` or `day`.")
    target: str = Field(description="Name of the column of reported values.")
    unit: str = Field(description="What one unit of it is; empty where the panel does not say.")
    horizon: int = Field(description="Periods that are forecast.")


class TableDocument(BaseModel):
    """A published table."""

    rows: int
    bytes: int
    sha256: str


class SnapshotDocument(BaseModel):
    """What is served."""

    created_at: str = Field(description="When it was published.")
    last_period: str = Field(description="Last period that is forecast.")
    series: int = Field(description="Number of series that are forecast.")
    code_version: str = Field(description="Release that published it.")
    panel: PanelDocument
    tables: dict[str, TableDocument]


class SnapshotAnswer(BaseModel):
    """What is served, with where it comes from."""

    served: OriginDocument
    data: SnapshotDocument


@router.get(
    "/v1/snapshot", summary="What is served", response_model=SnapshotAnswer, responses=documented(304)
)
def snapshot(
    request: Request,
    found: Annotated[Served, Depends(served)],
    _caller: Annotated[Caller, Depends(require("read"))],
) -> Response:
    """The snapshot in use: when it was published, by which release, the panel, and its tables."""
    tag = entity_tag(found.origin, FORMATS["json"])
    headers = {**found.origin.headers, **CACHING, "ETag": tag}
    if is_known(request.headers.get("if-none-match"), tag):
        return Response(status_code=304, headers=headers)
    facts = found.view.facts
    data = {name: facts[name] for name in ("created_at", "last_period", "series", "code_version", "tables")}
    data["panel"] = panel_facts(found.view.panel)
    return JSONResponse({"served": found.origin.document(), "data": data}, headers=headers)


def panel_facts(panel: PanelSpec) -> dict[str, Any]:
    """What a client needs to know of a panel."""
    columns = [each for table in panel.static for each in table.columns]
    return {
        "name": panel.name,
        "keys": [{"name": each.name, "type": each.type} for each in panel.series.keys],
        "attributes": [{"name": each.name, "type": each.type} for each in columns],
        "levels": list(panel.level_names),
        "time": panel.time,
        "every": panel.frequency.every,
        "target": panel.target,
        "unit": panel.series.target.unit,
        "horizon": panel.horizon,
    }
