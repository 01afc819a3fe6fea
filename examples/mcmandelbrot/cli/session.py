"""One run of the reactor: open a queue, do one piece of work with it, shut the queue down.

A signal that asks the program to end (Ctrl-C, `kill`, a closed terminal) cancels the work. The queue shuts down as
usual, so that no process is left. A second signal does not wait for that. Twisted's own handlers would stop the reactor
during the work, and `task.react` would not tell which signal it was.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from types import FrameType
from typing import Any, Generic, Protocol, TypeVar

from twisted.internet.base import ReactorBase
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from mcmandelbrot.cli.signals import notIgnored
from mcmandelbrot.errors import Interrupted


class Shuttable(Protocol):
    """The part of a `TaskQueue` that a session uses."""

    def shutdown(self) -> Deferred[None]: ...


Q = TypeVar("Q", bound=Shuttable)
T = TypeVar("T")


class Session(Generic[Q, T]):
    """Calls WORK with the queue from OPEN, in one run of REACTOR."""

    def __init__(
        self,
        open: Callable[[], Q],
        work: Callable[[Q], Coroutine[Deferred[Any], Any, T]],  # Any, because a coroutine may await any Deferred
        reactor: ReactorBase,
    ) -> None:
        self._open = open
        self._work = work
        self._reactor = reactor
        self._working: Deferred[T] | None = None
        self._signal: int | None = None
        self._results: list[T] = []
        self._failure: Failure | None = None

    def run(self) -> T:
        """Run, and return the result of the work.

        Raise the error of the work, or `Interrupted` if a signal ended it.
        """
        self._reactor.callWhenRunning(self._begin, notIgnored())
        self._reactor.run()
        if self._signal is not None and not self._results:
            raise Interrupted(self._signal)
        if self._failure is not None:
            self._failure.raiseException()
        return self._results[0]

    def _begin(self, numbers: list[signal.Signals]) -> None:
        for number in numbers:
            signal.signal(number, self._notice)
        Deferred.fromCoroutine(self._main()).addCallbacks(self._results.append, self._fail).addCallback(self._end)

    async def _main(self) -> T:
        with _ctrlCHeldBack():
            queue = self._open()
        try:
            self._working = Deferred.fromCoroutine(self._work(queue))
            return await self._working
        finally:
            self._working = None
            await queue.shutdown()

    def _fail(self, failure: Failure) -> None:
        self._failure = failure

    def _end(self, _: None) -> None:
        if self._reactor.running:
            self._reactor.stop()

    def _notice(self, number: int, frame: FrameType | None) -> None:
        self._reactor.callFromThread(self._interrupt, number)

    def _interrupt(self, number: int) -> None:
        if self._signal is not None:
            self._end(None)
            return
        self._signal = number
        if self._working is not None:
            self._working.cancel()


@contextmanager
def _ctrlCHeldBack() -> Iterator[None]:
    """Block Ctrl-C in this context, and so in the fork server that starts in it, which ignores SIGINT once it runs.

    The server's processes have it blocked, too, until they ignore it.
    """
    resource_tracker.ensure_running()  # Starting the fork server does this first, which would unblock SIGINT.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
