"""The overview: the total, the first level, and the map.

What belongs here: what a manager looks at first. What does not: the lists of all members (lists.py).
"""

from fastapi import APIRouter
from starlette.responses import Response

from turnover_assets.core.aggregates import TOTAL
from turnover_assets.serving.dashboard import history, places
from turnover_assets.serving.dashboard.accuracy_words import headline
from turnover_assets.serving.dashboard.members import member_title
from turnover_assets.serving.dashboard.rendering import Reader, Reading

router = APIRouter()
LISTED = 12  # members of a level
WORTH_SAYING = 0.02  # by which forecasts are changed


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
        carried=_carried(reader),
    )


def _carried(reader: Reader) -> list[tuple[str, float]]:
    """What forecasts carry on of what the model has missed: whose, and by how much they change in all."""
    if not reader.shown.view.has("level_changes"):
        return []
    rows = reader.shown.view.records(
        "SELECT level, member, CASE WHEN level = $total THEN factor ELSE factor * coalesce(("
        "SELECT factor FROM level_changes WHERE level = $total), 1) END - 1 AS by_much FROM level_changes "
        f"WHERE abs(factor - 1) >= {WORTH_SAYING} ORDER BY level <> $total, abs(factor - 1) DESC",
        {"total": TOTAL},
    )
    return [(_whose(row["level"], row["member"]), row["by_much"]) for row in rows]


def _whose(level: str, member: str) -> str:
    return "All series" if level == TOTAL else member_title(level, member)
