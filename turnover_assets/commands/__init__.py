"""Commands of the command line beyond the daily ones, a module each; cli.py puts them together.

What belongs here: arguments, what a person sees, exit codes. What does not: the work, imported when needed.
"""
