"""The web page for managers: published forecasts, read by people.

What belongs here: pages, their pictures and words, and the app that serves them. What does not: making
forecasts, recognising callers (serving/access), and deciding on adjustments (storage/stewardship.py).

A page is HTML made here, whole without JavaScript; scripts add pointers on charts and sorting in place.
"""
