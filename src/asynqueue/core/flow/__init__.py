"""Flow control: credit, bounded buffers, order, counting, locking."""
