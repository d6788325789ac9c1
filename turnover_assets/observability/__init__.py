"""What operators see of the platform: metrics for Prometheus, and logs that programs read.

What belongs here: reading Dagster's records, published snapshots and the disk, and serving what was read.
What does not: the catalogue of metrics (core/operator_metrics.py). Nothing here opens the warehouse.
"""
