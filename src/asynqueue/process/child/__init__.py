"""The code that runs in a worker process. It imports neither Twisted nor attrs, except for `reactor`."""
