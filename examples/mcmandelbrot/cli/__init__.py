"""The command `mcm`: its sub-commands, signals, progress and output."""
