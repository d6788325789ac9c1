"""Downloads: every published table as csv or Parquet, and the workbooks where there are any.

What belongs here: sending files. What does not: making them.
"""

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter
from starlette.responses import Response, StreamingResponse

from turnover_assets.errors import UnknownNameError
from turnover_assets.serving.dashboard.lists import natural
from turnover_assets.serving.dashboard.members import no_such, spaced
from turnover_assets.serving.dashboard.rendering import Reader, Reading

router = APIRouter()
CHUNK = 1 << 18
TYPES = {
    "csv": "text/csv; charset=utf-8",
    "parquet": "application/vnd.apache.parquet",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}
PACKED = (TYPES["parquet"], TYPES["xlsx"])  # which packing once more would only slow down
IN_WORDS = {
    "forecasts": "The forecasts of every series, with their ranges",
    "aggregates": "Forecasts by level and in total, with ranges of their own",
    "explanations": "Why each forecast is what it is",
    "level_changes": "What forecasts carry on of what the model has missed lately",
    "accuracy": "The models that were compared, and how well each did",
    "monitored_accuracy": "How good published forecasts turned out to be",
    "backtest": "Forecasts of the past that the model was judged by",
    "backtest_accuracy": "How good those were",
    "backtest_aggregates": "The same for levels and the total",
    "findings": "What looks wrong in the history",
    "adjustments": "What was repaired, or might be",
    "rejected": "Rows of files that could not be used",
    "restatements": "Values that a later file changed",
    "files": "The files that arrived",
    "missing_series": "Series that were expected and did not report",
    "checks": "What was checked, and what came of it",
    "forecast_history": "Every forecast that was published before",
    "seasonal_profile": "The season of the year",
    "measures": "Accuracy and data quality in figures, as alerts see them",
    "stability": "How much forecasts moved from one publishing to the next",
    "drift": "How far inputs are from those of a year ago",
    "inputs": "What came in before each publishing",
    "feature_ranges": "What the model has seen of each of its inputs",
    "gate_checks": "How the model was compared with the one before it",
    "retraining": "When a new model is due, and why",
    "decisions": "What schedules and sensors decided, and why",
    "runs": "How the runs went that made all this",
    "steps": "How long each of their steps took",
    "profile": "Sums, means and gaps of each column, run by run",
}
FIRST = ("forecasts", "aggregates", "explanations", "monitored_accuracy", "adjustments")


@router.get("/downloads")
def downloads(reader: Reading) -> Response:
    """What can be downloaded."""
    tables = reader.shown.facts["tables"]
    names = [*(name for name in FIRST if name in tables), *sorted(tables.keys() - {*FIRST})]
    static = {table.name: f"What is known of each {spaced(table.keys[0])}" for table in reader.panel.static}
    words = (
        IN_WORDS
        | static
        | {reader.panel.series.name: f"The history: {reader.panel.target} as reported, and as adjusted"}
    )
    return reader.page(
        "downloads",
        "Downloads",
        "/downloads",
        tables=[(name, words.get(name, ""), tables[name]) for name in names],
        workbooks=workbooks(reader),
    )


@router.get("/download")
def download(reader: Reading, table: str, format: Literal["csv", "parquet"] = "csv") -> Response:  # noqa: A002
    """A published table."""
    snapshot = reader.shown.view.snapshot
    try:
        path = snapshot.path(table)
    except UnknownNameError:
        raise no_such(f"There is no table {table[:100]!r}.") from None
    name = f"{table}_{reader.shown.cutoff}.{format}"
    if format == "parquet":
        return _file_answer(path.open("rb"), name, "parquet")
    spool: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed once it has been sent
    snapshot.export(table, spool, "csv")
    spool.seek(0)
    return _file_answer(spool, name, "csv")


@router.get("/workbook")
def workbook(reader: Reading, name: str) -> Response:
    """A workbook."""
    found = {path.name: path for path in workbooks(reader)}
    if name not in found:
        raise no_such(f"There is no workbook {name[:100]!r}.")
    return _file_answer(found[name].open("rb"), name, "xlsx")


def workbooks(reader: Reader) -> list[Path]:
    """The workbooks of the snapshot that is shown, by name; none where they are kept elsewhere."""
    folder = reader.settings.workbooks_path / reader.shown.view.snapshot.name
    return sorted(folder.glob("*.xlsx"), key=lambda path: natural(path.name))


def csv_answer(name: str, text: str) -> Response:
    """A csv file; with a mark that makes spreadsheets read it as UTF-8."""
    return Response(("\ufeff" + text).encode(), headers=_as_file(f"{name}.csv"), media_type=TYPES["csv"])


def _file_answer(stream: IO[bytes], name: str, kind: str) -> Response:
    return StreamingResponse(_chunks(stream), headers=_as_file(name), media_type=TYPES[kind])


def _chunks(stream: IO[bytes]) -> Iterator[bytes]:
    with stream:
        while part := stream.read(CHUNK):
            yield part


def _as_file(name: str) -> dict[str, Any]:
    plain = re.sub(r"[^\w.-]+", "_", name)
    simple = plain.encode("ascii", "replace").decode().replace("?", "_")
    return {
        "Content-Disposition": f"attachment; filename=\"{simple}\"; filename*=UTF-8''{quote(plain)}",
        "Cache-Control": "private, no-store",
    }
