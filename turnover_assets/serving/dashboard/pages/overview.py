"""The overview: the total, the first level, and the map.

What belongs here: what a manager looks at first. What does not: the lists of all members (lists.py).
"""

from fastapi import APIRouter
from starlette.responses import Response

from turnover_assets.core.aggregates import TOTAL
from turnover_assets.serving.dashboard import history, places
from turnover_assets.serving.dashboard.accuracy_words import headline
from turnover_assets.serving.dashboard.rendering import Reading

router = APIRouter()
LISTED = 12  # members of a level


@router.get("/")
def overview(reader: Reading) -> Response:
    """The page that everything begins with."""
    shown, panel = reader.shown, reader.panel
    past = history.member_history(shown, TOTAL, "")
    first = panel.level_names[0]
    drawn = places.map_of(shown, panel)
    others = [level for level in panel.level_names if level != first and shown.members[level]]
    ranked = drawn.level if drawn else others[0] if others else None
    return reader.page(
        "overview",
        "Overview",
        "/",
        total=shown.total,
        chart=history.chart(panel, past, reader.formats, f"{panel.target}, all series together", "total"),
        history=past,
        first=first,
        members=list(shown.members[first].values()),
        map=drawn,
        map_classes=places.NAMES,
        ranked=ranked,
        ranking=list(shown.members[ranked].values()) if ranked else [],
        listed=LISTED,
        accuracy=headline(shown),
    )
