"""About: which forecasts these are, and how old.

What belongs here: what tells one set of forecasts from another. What does not: how good they are
(accuracy.py).
"""

from datetime import UTC, datetime

from fastapi import APIRouter
from starlette.responses import Response

from turnover_assets.serving.dashboard.rendering import Reader, Reading

router = APIRouter()


@router.get("/about")
def about(reader: Reading) -> Response:
    """Which forecasts these are."""
    now = datetime.now(UTC)
    following = reader.request.app.state.follower.following
    return reader.page(
        "about",
        "About",
        "/about",
        facts=reader.shown.facts,
        age=now - reader.shown.published_at,
        following=following,
        retraining=_retraining(reader),
    )


def _retraining(reader: Reader) -> str:
    """Whether a new model is due, and why or why not."""
    if not reader.shown.view.has("retraining"):
        return ""
    found = reader.shown.view.records("SELECT sentence FROM retraining ORDER BY decided_at DESC LIMIT 1")
    return str(found[0]["sentence"]) if found else ""
