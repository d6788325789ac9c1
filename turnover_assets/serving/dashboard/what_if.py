"""What would be: the interface between the page and what answers from the champion.

What belongs here: what the page asks and shows. What does not: the answer itself, which the REST API and the
page share.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from turnover_assets.serving.served import Served
from turnover_assets.serving.view import Stop


class WhatIf(Protocol):
    """Answers what would be forecast."""

    def __call__(self, served: Served, asked: Mapping[str, Any], stop: Stop) -> Mapping[str, Any]:
        """The answer from one snapshot, as `POST /v1/what-if` gives it.

        Args:
            served: The snapshot.
            asked: `series` or `new`, `covariates`, `history`, `levels`, as `POST /v1/what-if` takes them.
            stop: Ends it from another thread.

        Returns:
            `model`: with its `version`. `data`: a row for each series and period, with the series keys, the
            time column (ISO dates), `baseline` (what was published; None for a new series), `forecast`,
            `lower_80`, `upper_80`. `totals`: their sums by period, without bounds. `aggregates`: sums of the
            members of levels that were asked for, with bounds. `changes`: what was changed, in sentences.
            `warnings`: what a reader should know, each with its `kind`, what it is `about`, and a `text`.

        Raises:
            QuestionError: It cannot be answered as it was asked; the message says why and what to do.
            Problem: There is no model to ask.
        """
