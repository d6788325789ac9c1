"""Pure logic: data in, data out.

What belongs here: cleaning rules, features, models, metrics, reports, pictures. What does not: anything
that opens a file, reads the environment, or imports Dagster, MLflow or a web framework.
"""
