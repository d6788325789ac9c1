"""Monitoring: how published forecasts turned out, how steady they are, and what came in.

What belongs here: the tables of schema monitoring, over a connection. What does not: judging whether a figure
calls for anything (alerts, core/retraining.py), and how they are shown.
"""
