"""What people and programs read: the REST API and the web page, made from published snapshots alone.

What belongs here: following the current snapshot, answering from it, and who may ask. What does not: making
forecasts, and anything that opens the warehouse or knows of Dagster.
"""
