"""What the model forecasts without any change, kept from one question to the next.

What belongs here: remembering it by the series that it is of. What does not: making it (answer.py).

Half of the work of a question is what it compares with. Questions about one member of a level, or about the
total, compare with the same again and again.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable

import pandas as pd

from turnover_assets.core.models import Rows

Forecast = tuple[pd.DataFrame, Rows, pd.DataFrame]  # forecasts, what they were made of, and the series
MOST_ROWS = 50_000  # of some hundreds of bytes each


class Unchanged:
    """Forecasts of one model from one snapshot, by the series asked for; the oldest asked for go first.

    Args:
        most_rows: How many feature rows are kept in all; more in one question are not kept.
    """

    def __init__(self, most_rows: int = MOST_ROWS) -> None:
        self._most_rows, self._rows = most_rows, 0
        self._kept: OrderedDict[tuple[object, ...], Forecast] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, series: pd.DataFrame, make: Callable[[], Forecast]) -> Forecast:
        """The forecasts of some series; readers must not alter them.

        Args:
            series: Their keys, in order.
            make: Makes them, where they are not kept; may be called by two questions at once.
        """
        key = tuple(series.itertuples(index=False, name=None))
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        made = make()
        if len(made[0]) <= self._most_rows:
            self._keep(key, made)
        return made

    def _keep(self, key: tuple[object, ...], made: Forecast) -> None:
        with self._lock:
            if key not in self._kept:
                self._kept[key] = made
                self._rows += len(made[0])
            while self._rows > self._most_rows:
                _, gone = self._kept.popitem(last=False)
                self._rows -= len(gone[0])
