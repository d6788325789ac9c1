"""Weekly turnover forecasts per store and department, as a Dagster asset platform."""

__version__ = "0.1.0"
