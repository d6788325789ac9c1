"""Panels of short periods: blocks are searched in means over the short cycle, then their edges are refined.

What belongs here: putting the periods of a cycle (the days of a week) together, and the way back. What does
not: the search itself (blocks.py). A search by days would cost some hundred times as much and find hardly
more, since the days of a week share most of their noise; blocks shorter than four cycles are not found.
"""

from dataclasses import replace

import numpy as np

from turnover_assets.core.anomalies.blocks import Block
from turnover_assets.core.anomalies.matrix import Floats, History, compare_with_peers, log_ratio, row_medians

LOOKOUT = 3  # cycles before an edge that tell the level


def by_cycle(history: History, cycle: int) -> History:
    """Means of each cycle, the last one up to the cutoff; NaN where less than half of it is known."""
    whole = history.values[:, history.periods % cycle :]
    days = whole.reshape(len(whole), -1, cycle)
    known = np.sum(~np.isnan(days), axis=2)
    means = np.nansum(days, axis=2) / np.maximum(known, 1)
    return replace(history, values=np.where(known >= cycle / 2, means, np.nan))


def to_the_period(history: History, block: Block, cycle: int) -> Block:
    """A block of cycles as one of periods, each edge where the group's values change the most clearly."""
    ratio = _ratio(history, block, cycle)
    ahead = history.periods % cycle
    start = _edge(ratio, ahead + block.start * cycle, block.shift, cycle)
    end = ahead + block.end * cycle
    if end < history.periods:
        end = _edge(ratio, end, -block.shift, cycle)
    return replace(block, start=start, end=end)


def _ratio(history: History, block: Block, cycle: int) -> Floats:
    """Log ratio of the group to its peers, less what is usual at each position of the cycle."""
    expected = compare_with_peers(history.values, block.grouping).expected[block.rows]
    reported = history.values[block.rows]
    both = np.isfinite(expected) & np.isfinite(reported)
    ratio = log_ratio(np.sum(reported, axis=0, where=both), np.sum(expected, axis=0, where=both))
    usual = [float(row_medians(ratio[None, position::cycle])[0]) for position in range(cycle)]
    return np.asarray(ratio - np.resize(usual, len(ratio)))


def _edge(ratio: Floats, near: int, by: float, cycle: int) -> int:
    """The first period at the new level, within a cycle of `near` (least squares)."""
    before = ratio[max(0, near - LOOKOUT * cycle) : max(0, near - cycle)]
    level = float(row_medians(before[None, :])[0]) if len(before) else float("nan")
    first, after = max(0, near - cycle), min(len(ratio), near + cycle)
    beside = ratio[first:after]
    closer_to_old = np.nan_to_num((beside - level) ** 2 - (beside - level - by) ** 2)
    if not closer_to_old.any():
        return near
    return first + int(np.argmin(np.concatenate([[0.0], np.cumsum(closer_to_old)])))
