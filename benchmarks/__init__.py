"""AsynQueue beside everything else that one might take for it, measured in one run: ``python -m benchmarks``."""
