"""Routes of the REST API, a module for each thing that can be asked for.

What belongs here: what a request may say, the question it asks of what is served, and what its answer looks
like. What does not: formats, pages and limits, which all share (serving/).
"""
