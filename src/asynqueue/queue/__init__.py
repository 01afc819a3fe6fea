"""A `TaskQueue`: what carries out the scheduler's commands."""
