"""The pages, a module each: what they ask of a snapshot, and what they show of it.

What belongs here: routes and their content. What does not: markup (templates/) and what all pages have in
common (rendering.py).
"""
