"""Benchmarks: each is a command, `python -m benchmarks.<name>`, that states the machine it ran on.

Results are committed as JSON in `results/`.
"""
