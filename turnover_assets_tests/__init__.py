"""Tests of turnover_assets; the modules mirror the package."""
