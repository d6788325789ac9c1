"""Weekly turnover forecasts per store and department, as a Dagster asset platform."""

import os

__version__ = "0.2.0"

# OpenMP's threads spin while they wait for each other. On a machine that has other work too, training
# then takes ten times as long; asked to sleep instead, they lose nothing. Read once, when OpenMP loads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# NumPy asks for huge pages, which virtual machines may hand out at a fifth of the pace of small ones
# (docs/decisions/0018-arithmetic-on-arrays.md). Read once, when NumPy loads.
os.environ.setdefault("NUMPY_MADVISE_HUGEPAGE", "0")
