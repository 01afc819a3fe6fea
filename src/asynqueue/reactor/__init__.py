"""Helpers for code that runs in a Twisted reactor: clocks, Deferreds, triggers, time limits."""
