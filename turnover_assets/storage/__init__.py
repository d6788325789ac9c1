"""The outside world: landing folder, DuckDB warehouse, published snapshots, MLflow registry.

What belongs here: everything that opens a file, a database or a registry. What does not: rules about
data (core) and orchestration (defs).
"""
