"""Measurements whose results are in docs/results.md."""
