"""The errors of AsynQueue.

Each is an `AsynQueueError`. An error with a counterpart among Python's own is that as well, so ``except
TimeoutError`` and ``except RuntimeError`` catch it. An error that *your* callable raises is never wrapped: it
arrives as itself.
"""

from __future__ import annotations

import builtins

__all__ = [
    "AsynQueueError",
    "AuthenticationError",
    "ImplementationError",
    "InvariantError",
    "NotReadyError",
    "ProcessError",
    "QueueRunError",
    "SerializationError",
    "ThreadError",
    "TimeoutError",
    "WorkerError",
    "WorkerLost",
]


class AsynQueueError(Exception):
    """The base of every error that AsynQueue itself raises."""


class QueueRunError(AsynQueueError, RuntimeError):
    """The queue cannot take or keep a call, because it is shut down or is shutting down."""


class ImplementationError(AsynQueueError, TypeError):
    """An object does not satisfy a protocol. The message names what is missing."""


class NotReadyError(ImplementationError, RuntimeError):
    """The next item of an iteration was requested before the last one had arrived."""


class InvariantError(AsynQueueError, RuntimeError):
    """A guarantee is broken, by a worker that violates its protocol or by a defect of AsynQueue."""


class TimeoutError(AsynQueueError, builtins.TimeoutError):
    """A call ran longer than its timeout, as often as it may be started."""


class WorkerError(AsynQueueError, RuntimeError):
    """A worker cannot do its work."""


class WorkerLost(WorkerError):
    """The worker of a call died while it ran, as often as the call may be started."""


class ThreadError(WorkerError):
    """A thread of AsynQueue cannot be used."""


class ProcessError(WorkerError):
    """A worker process cannot be started or kept running."""


class AuthenticationError(AsynQueueError):
    """A peer did not authenticate itself."""


class SerializationError(AsynQueueError, ValueError):
    """An object cannot cross a link. The message names the argument, result, item or error, and why."""
