"""What has become of every file so far, read from the journal of the kept files.

What belongs here: the list of files as people and programs get it. What does not: writing the journal
(kept.py), and the manifest in the warehouse (manifest.py), which holds the same. The warehouse is not opened,
so the list is there at once: also while a run is under way, and before anything was published.
"""

from pathlib import Path

import pandas as pd

from turnover_assets.storage.kept import kept_files

COLUMNS = {
    "file_no": "Int64",
    "name": "str",
    "status": "str",
    "table_name": "str",
    "row_count": "Int64",
    "reason": "str",
    "digest": "str",
    "format": "str",
    "delimiter": "str",
    "extra_columns": "str",
    "landed_at": "datetime64[us, UTC]",
}


def list_files(home: Path, *, refused: bool = False) -> pd.DataFrame:
    """Every file on record, in the order they landed: the columns of the published table `files`.

    Of a content that was refused and later looked at again, the newest record counts.

    Args:
        home: The data home; it need not be there.
        refused: Only those that were refused.

    Raises:
        HomeError: A record cannot be read.
    """
    newest = {row["digest"]: row for row in kept_files(home).records()}
    rows = [
        row | {"extra_columns": ", ".join(row["extra_columns"]) if row["extra_columns"] is not None else None}
        for row in sorted(newest.values(), key=lambda row: int(row["file_no"]))
        if not refused or row["status"] == "refused"
    ]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    table["landed_at"] = pd.to_datetime(table["landed_at"], utc=True, format="ISO8601")
    return table.astype(COLUMNS).rename(columns={"row_count": "rows"})
