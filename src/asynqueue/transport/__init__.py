"""Move calls and results between processes: links, serialization, shared memory, sockets."""
