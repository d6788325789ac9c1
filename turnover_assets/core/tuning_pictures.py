"""The picture of a search for parameters, made as those of pictures.py are.

What belongs here: how a search went. What does not: the figures it shows (tuning.py).
"""

from itertools import accumulate

from matplotlib.ticker import MaxNLocator, PercentFormatter

from turnover_assets.core.pictures import COLOURS, _figure, _legend, _png
from turnover_assets.core.trials import Search


def search_picture(found: Search) -> bytes:
    """WAPE by trial, the best so far, and the candidate's own parameters, as PNG.

    Trials that were given up are left out: they were judged on fewer windows, and windows are not alike.
    """
    figure, axes = _figure(f"Search for parameters of {found.candidate.replace('_', ' ')} (WAPE)")
    whole = [trial for trial in found.trials if not trial.pruned]
    numbers = [trial.number for trial in whole]
    values = [trial.wape for trial in whole]
    axes.axhline(found.own.wape, color="0.55", linewidth=1, linestyle="--", label="own parameters")
    axes.scatter(numbers, values, color=COLOURS[0], s=14, zorder=3, label="trial")
    reached = list(accumulate(values, min))
    last = found.trials[-1].number
    axes.step([*numbers, last], [*reached, reached[-1]], where="post", color=COLOURS[1], label="best so far")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=1))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("trial", fontsize=8)
    axes.grid(axis="y", linewidth=0.4, alpha=0.6)
    _legend(figure, axes)
    return _png(figure)
