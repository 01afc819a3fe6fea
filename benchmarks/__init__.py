"""Measure AsynQueue beside its alternatives, in one run: ``python -m benchmarks``."""
