"""Evidently's reports as HTML texts: data drift, target drift, regression performance.

What belongs here: calling Evidently, which is an extra (`make evidently`) and imported late, since that takes
seconds. What does not: the rows it is given (core/report_samples.py), our own page (core/monitoring_page/).

Evidently counts its users by default. Its switch is the variable DO_NOT_TRACK, which is set before it is
imported; and its pages get a policy by which a browser loads nothing from anywhere.
"""

import os
import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pandas as pd

from turnover_assets.core.monitoring.distances import DRIFTED
from turnover_assets.core.report_samples import PREDICTION, TARGET, Samples
from turnover_assets.errors import TurnoverError

if TYPE_CHECKING:
    from evidently import Report

DO_NOT_TRACK = "DO_NOT_TRACK"
PSI, WASSERSTEIN = "psi", "wasserstein"
LIMITS = {
    PSI: DRIFTED,
    WASSERSTEIN: 0.1,
}  # from which on a column counts as drifted; the second is Evidently's
MOST_CATEGORIES = 20  # different values, up to which Evidently makes no bins
NAMES = DATA_DRIFT, TARGET_DRIFT, PERFORMANCE = ("data_drift", "target_drift", "regression_performance")
POLICY = (
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; script-src 'unsafe-inline' "
    "'unsafe-eval'; style-src 'unsafe-inline'; img-src data: blob:; font-src data:\">"
)


def require_evidently() -> None:
    """Make sure that Evidently is there, before anything is read.

    Raises:
        TurnoverError: It is not installed.
    """
    if find_spec("evidently") is None:
        raise TurnoverError(
            "Evidently's reports need the package evidently, which is not installed. It comes with the extra "
            "`evidently` of turnover-assets: `make evidently` installs it as it was locked. The monitoring "
            "page shows drift and accuracy without it."
        )


def evidently_reports(samples: Mapping[str, Samples]) -> dict[str, str]:
    """The reports whose samples are given, each as the HTML of a page that needs no network.

    Args:
        samples: By name, which is one of NAMES.

    Raises:
        TurnoverError: Evidently is not installed.
    """
    require_evidently()
    os.environ[DO_NOT_TRACK] = "1"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own, on columns that are constant or empty
        return {name: _page(name, sample) for name, sample in samples.items()}


def _page(name: str, samples: Samples) -> str:
    from evidently import DataDefinition, Dataset, Regression

    columns = [str(column) for column in samples.current.columns]
    judged = [Regression(target=TARGET, prediction=PREDICTION)] if name == PERFORMANCE else None
    definition = DataDefinition(numerical_columns=columns, regression=judged)
    current = Dataset.from_pandas(samples.current, definition)
    reference = None
    if samples.reference is not None:
        reference = Dataset.from_pandas(samples.reference, definition)
    html: str = _report(name, samples).run(current, reference).get_html_str(as_iframe=False)
    return html.replace("<head>", f"<head>\n{POLICY}", 1).lstrip()


def _report(name: str, samples: Samples) -> "Report":
    from evidently import Report
    from evidently.metrics import MAE, RMSE, AbsMaxError, MeanError, R2Score, ValueDrift
    from evidently.presets import DataDriftPreset, ValueStats

    if name == DATA_DRIFT:
        methods = drift_methods(samples.reference)
        limits = {column: LIMITS[method] for column, method in methods.items()}
        return Report([DataDriftPreset(per_column_method=dict(methods), per_column_threshold=limits)])
    if name == TARGET_DRIFT:
        compared = [ValueDrift(column=TARGET, method=PSI, threshold=LIMITS[PSI])]
        return Report([*(compared if samples.reference is not None else []), ValueStats(column=TARGET)])
    # Its preset is led by MAPE, which says nothing where values may be 0.
    return Report(
        [
            MeanError(error_plot=True, error_distr=True),
            MAE(error_plot=False, error_distr=False),
            RMSE(error_distr=False),
            R2Score(),
            AbsMaxError(error_normality=True),
        ]
    )


def drift_methods(reference: pd.DataFrame | None) -> dict[str, str]:
    """How Evidently shall compare each column.

    PSI where it makes bins of the values. Fewer different values are categories to it, and then a growth of
    three departments that is not the same to the last digit is as far away as can be: for these Wasserstein.
    """
    if reference is None:
        return {}
    return {
        str(name): PSI if reference[name].nunique() > MOST_CATEGORIES else WASSERSTEIN
        for name in reference.columns
    }
