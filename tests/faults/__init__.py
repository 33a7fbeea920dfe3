"""The fault matrix: every way to break the service that is foreseen, each a test on a real broker.

Each test carries a `fault` mark from which docs/failure-modes.md is made; `make test-faults` runs them all.
"""
