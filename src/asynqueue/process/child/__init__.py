"""What runs in a worker process. Imports neither Twisted nor attrs, but for `reactor`."""
