"""How calls and results cross to another process: bytes, shared memory, sockets. Light: see each module."""
