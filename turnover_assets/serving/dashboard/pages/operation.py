"""`/healthz`, `/readyz` and the static files: what needs no caller.

What belongs here: whether it answers, and whether it has something to show. What does not: pages.
"""

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

router = APIRouter()


@router.get("/healthz")
async def healthz() -> Response:
    """That it answers."""
    return JSONResponse({"status": "ok"})


@router.get("/readyz")
async def readyz(request: Request) -> Response:
    """Whether there is something to show, and what."""
    following = request.app.state.follower.following
    if following.snapshot is None:
        return JSONResponse({"status": "not ready"}, 503)
    facts = following.snapshot.facts
    return JSONResponse({"status": "ready", "snapshot": facts["id"], "cutoff": facts["cutoff"]})


@router.get("/static/{name}")
async def static(request: Request, name: str) -> Response:
    """A file that pages need."""
    answer: Response = request.app.state.static.answer(request, name)
    return answer
