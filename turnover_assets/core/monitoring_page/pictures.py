"""The pictures of the monitoring page, made as those of core/pictures.py are: SVG in the colour of the text.

What belongs here: one function a picture. What does not: the figures they show. No text of a file gets into a
picture but as letters, which matplotlib escapes.
"""

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from turnover_assets.core.pictures import (
    _INK,
    _INKED,
    COLOURS,
    FEWEST_BARS,
    _amounts,
    _figure,
    _legend,
    _short,
    _shortened,
    _svg,
)

OWN, REPORTED, NAIVE, PROMISED = COLOURS[1], COLOURS[0], "#8a8f98", COLOURS[2]
CURRENT, BEFORE = COLOURS[1], COLOURS[5]
SMALL = (5.2, 2.5)  # inches, of a picture that stands beside another
FEW = 8  # cutoffs that are labelled one by one
BESIDE = 3  # distributions beside one another
LABEL = 30  # letters of a line over a distribution
FEW_RUNS = 12  # that there is room for at least, so that a bar is a bar
CLOSEST = 0.08  # of an axis, that a tick stands from zero at least


@dataclass(frozen=True)
class Distribution:
    """Shares of rows by bin, now and before.

    Attributes:
        name: What is distributed.
        edges: Shape (b + 1,).
        current: Shape (b,), adds up to at most 1.
        reference: Shape (b,), of the rows it is compared with.
    """

    name: str
    edges: Sequence[float]
    current: Sequence[float]
    reference: Sequence[float]


def _dates(axes: Axes, cutoffs: Iterable[pd.Timestamp] = ()) -> None:
    """Label the horizontal axis with dates: those of the cutoffs, where they are few."""
    places = list(cutoffs)
    if 0 < len(places) <= FEW:
        axes.set_xticks(
            np.array(places, dtype="datetime64[ns]"), [f"{place.day} {place:%b}" for place in places]
        )
        axes.set_xlabel(f"{places[-1]:%Y}", fontsize=8)
        return
    locator = AutoDateLocator(minticks=2, maxticks=7)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]


def _shares(axes: Axes, decimals: int | None = 0) -> None:
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=decimals))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.grid(axis="y", linewidth=0.4, alpha=0.6)


def _accuracy(axes: Axes, table: pd.DataFrame, by: str) -> None:
    """WAPE of published forecasts, of the naive ones and as promised; what is not known has no point."""
    styles = (
        ("wape_seasonal_naive", "seasonal naive", NAIVE, "--"),
        ("wape_promised", "promised", PROMISED, ":"),
        ("wape", "published", OWN, "-"),
    )
    for column, label, colour, style in styles:
        if table[column].notna().any():
            axes.plot(table[by], table[column], style, marker="o", markersize=3, color=colour, label=label)
    _shares(axes)
    axes.set_ylim(bottom=0)


@rc_context(_INKED)
def accuracy_by_cutoff(table: pd.DataFrame) -> str:
    """`cutoff`, `wape`, `wape_seasonal_naive`, `wape_promised`."""
    figure, axes = _figure("", *SMALL)
    _accuracy(axes, table, "cutoff")
    _dates(axes, table["cutoff"])
    _legend(figure, axes)
    return _svg(figure)


@rc_context(_INKED)
def accuracy_by_horizon(table: pd.DataFrame, every: str) -> str:
    """`horizon`, `wape`, `wape_seasonal_naive`, `wape_promised`."""
    figure, axes = _figure("", *SMALL)
    _accuracy(axes, table, "horizon")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel(f"{every}s ahead", fontsize=8)
    _legend(figure, axes)
    return _svg(figure)


@rc_context(_INKED)
def total(reported: pd.DataFrame, forecasts: pd.DataFrame) -> str:
    """The total as reported, and as it was forecast at each cutoff.

    Args:
        reported: `period`, `value`.
        forecasts: `cutoff`, `period`, `value`; the newest cutoff is told from those before it.
    """
    figure, axes = _figure("", height=2.9)
    axes.plot(reported["period"], reported["value"], color=REPORTED, linewidth=1.6, label="reported")
    newest = forecasts["cutoff"].max()
    for cutoff, own in forecasts.groupby("cutoff"):
        if cutoff != newest:
            label = "" if "earlier" in axes.get_legend_handles_labels()[1] else "earlier"
            axes.plot(own["period"], own["value"], color=CURRENT, linewidth=0.8, alpha=0.55, label=label)
    own = forecasts[forecasts["cutoff"] == newest]
    style: dict[str, Any] = {"marker": "o", "markersize": 3, "linewidth": 1.8}
    axes.plot(own["period"], own["value"], color=CURRENT, label="newest", **style)
    _amounts(axes)
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    _dates(axes)
    _legend(figure, axes)
    return _svg(figure)


@rc_context(_INKED)
def errors(found: Distribution) -> str:
    """Errors as shares of a usual value, of published (`current`) and naive forecasts (`reference`)."""
    figure, axes = _figure("", *SMALL)
    axes.bar(
        found.edges[:-1], found.current, np.diff(found.edges), align="edge", color=OWN, label="published"
    )
    axes.stairs(found.reference, found.edges, color=_INK, linewidth=1.1, label="seasonal naive")
    axes.axvline(0.0, color=_INK, linewidth=0.6)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_xlabel("too low  |  too high, of the usual value of the series", fontsize=8)
    _shares(axes)
    _legend(figure, axes)
    return _svg(figure)


@rc_context(_INKED)
def bounds(table: pd.DataFrame) -> str:
    """Where outcomes fell among the bounds: `zone`, `share`, `expected`."""
    figure, axes = _figure("", *SMALL)
    place = np.arange(len(table))
    axes.bar(place, table["share"], 0.7, color=OWN, label="found")
    axes.hlines(table["expected"], place - 0.42, place + 0.42, color=_INK, linewidth=1.6, label="as meant")
    above = table[["share", "expected"]].max(axis=1)
    for x, y, value in zip(place, above, table["share"], strict=True):
        axes.annotate(f"{value:.1%}", (float(x), y), (0, 3), textcoords="offset points", ha="center", size=7)
    axes.set_xticks(place, table["zone"].tolist())
    _shares(axes)
    axes.set_ylim(0, max(table["share"].max(), table["expected"].max()) * 1.12)
    _legend(figure, axes)
    return _svg(figure)


@rc_context(_INKED)
def shares_over_time(table: pd.DataFrame, names: Sequence[str]) -> str:
    """Lines of shares by `cutoff`; the columns are named as they are labelled."""
    figure, axes = _figure("", *SMALL)
    for name, colour in zip(names, (OWN, REPORTED, PROMISED), strict=False):
        axes.plot(table["cutoff"], table[name], color=colour, marker="o", markersize=3, label=name)
    _shares(axes, None)
    axes.set_ylim(bottom=0, top=max(0.01, float(table[list(names)].max().max()) * 1.1))
    _dates(axes, table["cutoff"])
    if len(names) > 1:
        _legend(figure, axes)
    return _svg(figure)


@rc_context(_INKED)
def durations(table: pd.DataFrame) -> str:
    """How long runs took, the newest at the right: `seconds`, `job`, `failed`."""
    figure, axes = _figure("", *SMALL)
    for job, colour in zip(sorted(table["job"].unique()), COLOURS, strict=False):
        own = table[table["job"] == job]
        axes.bar(own.index, own["seconds"], 0.75, color=colour, label=str(job))
    failed = table[table["failed"]]
    if len(failed):
        axes.scatter(failed.index, failed["seconds"], marker="x", color=_INK, s=24, label="failed", zorder=3)
    axes.set_xlim(min(-0.6, len(table) - FEW_RUNS - 0.6), len(table) - 0.4)
    axes.set_xticks([])
    axes.set_xlabel("runs, the newest at the right", fontsize=8)
    axes.set_ylabel("seconds", fontsize=8)
    _amounts(axes)
    _legend(figure, axes)
    return _svg(figure)


@rc_context(_INKED)
def distributions(found: Sequence[Distribution], labels: tuple[str, str]) -> str:
    """Small distributions beside one another: rows now as bars, rows before as an outline.

    Args:
        found: At least one.
        labels: What is now, and what is before.
    """
    rows = -(-len(found) // BESIDE)
    figure = Figure(figsize=(7.2, 0.4 + 1.5 * rows), layout="constrained")
    places = figure.subplots(rows, BESIDE, squeeze=False).ravel()
    for axes, one in zip(places, found, strict=False):
        _now_and_before(axes, one, labels)
        axes.set_title(_wrapped(one.name), loc="left", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.set_yticks([])
    for axes in places[len(found) :]:
        axes.set_visible(False)
    handles, texts = places[0].get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside upper left", ncols=2, fontsize=8, frameon=False)
    return _svg(figure)


def _now_and_before(axes: Axes, one: Distribution, labels: tuple[str, str]) -> None:
    axes.stairs(one.current, one.edges, fill=True, color=CURRENT, alpha=0.8, linewidth=0, label=labels[0])
    axes.stairs(one.reference, one.edges, color=_INK, linewidth=1.1, label=labels[1])
    axes.spines[["top", "right"]].set_visible(False)


def _wrapped(text: str) -> str:
    return "\n".join(textwrap.wrap(text, LABEL, max_lines=2, placeholder=" …"))


@rc_context(_INKED)
def target(found: Distribution, scale: float, labels: tuple[str, str]) -> str:
    """How often each amount is reported, now and before; edges are asinh(amount / scale)."""
    figure, axes = _figure("", *SMALL)
    _now_and_before(axes, found, labels)
    ticks = _amount_ticks(scale * np.sinh(found.edges[0]), scale * np.sinh(found.edges[-1]), scale)
    axes.set_xticks(np.arcsinh(np.array(ticks) / scale), [_short(tick) for tick in ticks])
    axes.set_ylabel("share of rows", fontsize=8)
    _shares(axes)
    _legend(figure, axes)
    return _svg(figure)


def _amount_ticks(least: float, most: float, scale: float) -> list[float]:
    """Zero, and outwards, from where they do not touch it, 1, 3, 10, 30, … inside the bounds."""
    powers = 10.0 ** np.arange(np.floor(np.log10(scale)), 16)
    steps = sorted([*powers, *(3 * powers)])
    apart = CLOSEST * (np.arcsinh(most / scale) - np.arcsinh(least / scale))
    far = [step for step in steps if np.arcsinh(step / scale) >= apart]
    return [tick for tick in (*(-step for step in far), 0.0, *far) if least <= tick <= most]


@rc_context(_INKED)
def changes(table: pd.DataFrame) -> str:
    """By how much members changed: `member`, `change` (a share)."""
    figure, axes = _figure("", SMALL[0], max(SMALL[1], 0.6 + 0.2 * len(table)))
    members = [_shortened(str(member)) for member in table["member"]]
    place = np.arange(len(table))
    colours = [CURRENT if change < 0 else REPORTED for change in table["change"]]
    bars = axes.barh(place, table["change"], 0.7, color=colours)
    axes.bar_label(bars, labels=[f"{change:+.1%}" for change in table["change"]], fontsize=7, padding=3)
    axes.axvline(0.0, color=_INK, linewidth=0.6)
    axes.set_yticks(place, members)
    axes.set_ylim(max(len(table), FEWEST_BARS) - 0.4, -0.6)
    axes.margins(x=0.15)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    return _svg(figure)
