"""`/healthz`, `/readyz` and `/metrics`: for those who run the service; they need no key.

What belongs here: whether it answers, whether what it answers is worth having, and metrics. What does not:
the metrics themselves (metrics.py).
"""

from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, Field

from turnover_assets.serving.follower import Following
from turnover_assets.serving.origin import origin_of
from turnover_assets.settings import Settings

router = APIRouter(tags=["operation"])
UNSEEN_ROUNDS, UNSEEN_SECONDS = (
    10,
    60.0,
)  # without a look at CURRENT, after which the follower counts as stuck


class Health(BaseModel):
    """That it answers."""

    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """Whether what it answers is worth having."""

    status: Literal["ready", "not ready"] = Field(description="`ready`, or `not ready` with status 503.")
    problems: list[str] = Field(description="What is the matter; some of it may not yet make it unready.")
    snapshot: str | None = Field(None, description="Name of the snapshot that is served.")
    cutoff: str | None = Field(None, description="Last period known to its forecasts.")
    age_seconds: float | None = Field(None, description="Seconds since it was published.")
    model_version: int | None = Field(None, description="Version of the champion that made the forecasts.")
    data_version: str | None = Field(None, description="Fingerprint of the data they were made from.")


@router.get("/healthz", summary="Whether it answers", response_model=Health)
async def healthz() -> JSONResponse:
    """It does, or nothing would come back. What it serves is not looked at."""
    return JSONResponse({"status": "ok"})


@router.get(
    "/readyz",
    summary="Whether it should be asked",
    response_model=Readiness,
    responses={503: {"model": Readiness, "description": "It should not be asked."}},
)
async def readyz(request: Request) -> JSONResponse:
    """Age and version of the forecasts.

    Not ready where nothing is served, where the forecasts are too old, where what CURRENT names could not be
    used for some time.
    """
    state = request.app.state
    found = readiness(state.settings, state.follower.following, datetime.now(UTC))
    found.problems += [state.champions.problem] if state.champions.problem else []
    return JSONResponse(found.model_dump(), 200 if found.status == "ready" else 503)


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={200: {"content": {CONTENT_TYPE_LATEST.split(";")[0]: {"schema": {"type": "string"}}}}},
)
def metrics(request: Request) -> Response:
    """Requests by route and status, how long they took, and the age of what is served."""
    return Response(request.app.state.metrics.text(), media_type=CONTENT_TYPE_LATEST)


def readiness(settings: Settings, following: Following, now: datetime) -> Readiness:
    """Whether what is served is worth having at a time; anybody may ask: it tells no path and no address."""
    told = following.problem.replace(str(settings.home.absolute()), "the home")
    told = told.replace(settings.snapshots_url, "…") if settings.snapshots_url else told
    problems, grave = [told] if told else [], []
    if following.problem_since is not None:
        broken = now - following.problem_since
        if following.snapshot is None or broken.total_seconds() > settings.api_broken_seconds:
            grave.append(f"This has lasted for {broken.total_seconds():.0f} s.")
    if _is_stuck(settings, following, now):
        grave.append("What is published has not been looked at for too long.")
    if following.snapshot is None:
        return Readiness(status="not ready", problems=[*problems, *grave])
    age = now - datetime.fromisoformat(following.snapshot.facts["created_at"])
    if age > settings.api_stale_after:
        grave.append(f"The forecasts are {age.days} days old, more than {settings.api_stale_after.days}.")
    facts: dict[str, Any] = origin_of(following.snapshot).document()
    return Readiness(
        status="not ready" if grave else "ready",
        problems=[*problems, *grave],
        age_seconds=round(age.total_seconds(), 3),
        **facts,
    )


def _is_stuck(settings: Settings, following: Following, now: datetime) -> bool:
    if following.checked_at is None:
        return True
    unseen = now - following.checked_at
    return unseen > timedelta(seconds=max(UNSEEN_SECONDS, UNSEEN_ROUNDS * settings.snapshot_poll_seconds))
