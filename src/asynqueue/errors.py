"""What can go wrong, by name.

Every error of ours is an `AsynQueueError`; one that has a cousin among Python's own errors is that as well, so
``except TimeoutError`` and ``except RuntimeError`` do what their reader expects. An error raised by *your*
callable is never wrapped in one of these: it comes back as itself.
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
    """A call that the queue cannot take or keep, because it is shut down or shutting down."""


class ImplementationError(AsynQueueError, TypeError):
    """An object that does not satisfy the protocol it was passed for; the message says what is missing."""


class NotReadyError(AsynQueueError, RuntimeError):
    """The next item of an iteration was asked for before the last one had come."""


class InvariantError(AsynQueueError, RuntimeError):
    """A guarantee was broken, by a worker that does not keep its protocol or by a defect of ours."""


class TimeoutError(AsynQueueError, builtins.TimeoutError):
    """A call that ran longer than its timeout, as often as it may be started."""


class WorkerError(AsynQueueError, RuntimeError):
    """A worker that cannot do its work."""


class WorkerLost(WorkerError):
    """A call whose worker died under it, as often as it may be started."""


class ThreadError(WorkerError):
    """A thread of ours that cannot be used."""


class ProcessError(WorkerError):
    """A worker process that cannot be started or kept."""


class AuthenticationError(AsynQueueError):
    """A peer that did not prove who it is."""


class SerializationError(AsynQueueError, ValueError):
    """What cannot cross a link: the message says which argument, result, item or exception, and why."""
