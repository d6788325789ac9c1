"""Dagster: thin decorators over core and storage.

What belongs here: assets, checks, partitions, jobs, sensors, resources. What does not: anything worth
testing without Dagster. Annotations are evaluated by Dagster, so no `from __future__ import annotations`.
"""
