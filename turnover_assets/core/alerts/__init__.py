"""Alerts: rules, which of them hold, and what is told of it, once.

What belongs here: pure functions; facts, open incidents and the time come in; conditions, changes and
messages go out. What does not: keeping and sending them (storage/alert_store.py, alert_channels.py), and
gathering the facts (defs/alert_facts.py).

- measures.py: the measures that a rule may name, and how they read.
- channels.py: where messages go.
- rules.py: the file of rules, validated.
- conditions.py: rules against measures.
- events.py: rules against what happened: runs, files, checks, lateness.
- incidents.py: what opens, stays open, grows worse, is recalled, and ends; and the messages on it.
"""
