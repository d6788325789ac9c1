"""The web page in a browser: sites that are served, how controls are found, and what using each must do.

What belongs here: what tests of the page share. What does not: the tests (test_dashboard_controls.py,
test_dashboard_browser.py).
"""
