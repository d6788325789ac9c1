"""Lists: the members of a level, all series, and what a search finds.

What belongs here: what is listed, and in what order. What does not: sorting and searching
(dashboard/lists.py).
"""

from fastapi import APIRouter
from starlette.responses import RedirectResponse, Response

from turnover_assets.serving.dashboard import lists
from turnover_assets.serving.dashboard.members import no_such, spaced
from turnover_assets.serving.dashboard.rendering import Reading

router = APIRouter()


@router.get("/level")
def level_list(reader: Reading, name: str = "", sort: str = "", q: str = "", page: int = 1) -> Response:
    """The members of a level."""
    if name not in reader.panel.level_names:
        raise no_such(f"Forecasts are not added up by {name[:100]!r}.")
    rows = [lists.member_row(member) for member in reader.shown.members[name].values()]
    known = lists.columns(reader.panel.frequency.every, reader.panel.horizon)
    return reader.page(
        "list",
        f"By {spaced(name)}",
        f"level:{name}",
        page=lists.cut(rows, known, sort, q, page, name=name),
        columns=known,
        what=spaced(name),
    )


@router.get("/all")
def series_list(reader: Reading, sort: str = "", q: str = "", page: int = 1) -> Response:
    """All series."""
    known = lists.columns(reader.panel.frequency.every, reader.panel.horizon)
    return reader.page(
        "list",
        "All series",
        "/all",
        page=lists.cut(reader.shown.series_rows, known, sort, q, page),
        columns=known,
        what="series",
    )


@router.get("/search")
def search(reader: Reading, q: str = "") -> Response:
    """What a search finds; what is certainly meant is shown at once."""
    found = lists.found_in(reader.shown, q)
    if found.meant:
        return RedirectResponse(found.meant.address, 303)
    return reader.page("search", "Search", "", found=found, search=q[: lists.LONGEST_SEARCH])
