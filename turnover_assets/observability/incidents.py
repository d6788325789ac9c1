"""Open incidents of alerts, as the alerts' own store keeps them.

What belongs here: that one question. What does not: rules, deliveries, and writing the store.
"""

from pathlib import Path

from turnover_assets.storage.sqlite_files import reading

OPEN = "SELECT severity, count(*) FROM incidents WHERE resolved_at IS NULL GROUP BY severity"


def open_incidents(store: Path) -> dict[str, int]:
    """How many incidents are open, by severity; empty where no alert has ever been evaluated.

    Raises:
        sqlite3.Error: The store cannot be read.
    """
    if not store.is_file():
        return {}
    with reading(store, timeout=1.0) as con:
        return {str(severity): int(count) for severity, count in con.execute(OPEN)}
