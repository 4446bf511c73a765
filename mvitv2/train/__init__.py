"""Answers to better numbers: recipes as data, optimiser groups, schedule, checkpoints, one loop.

Import from the modules. ``jobs.train`` is what the command runs; ``loop.fit`` is the engine under it, which
knows of steps, checkpoints and signals, and of no task.
"""
