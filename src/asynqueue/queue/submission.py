"""How a program hands calls to a queue: `call`, `submit` and `update`, with the types of their results.

Each method checks its arguments, makes the `CallSpec` and the `Task`, and passes the task to the scheduler.
`asynqueue.queue.mapping` adds `map`, and `asynqueue.queue.taskqueue` completes the class with workers and the queue's
end.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Hashable, Iterator
from functools import lru_cache
from typing import Any, Literal, TypeVar, final, overload

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from typing_extensions import Unpack

from asynqueue.core.records import CallSpec, Method, Task
from asynqueue.core.scheduling.scheduler import Scheduler
from asynqueue.core.scheduling.statistics import StatsCollector
from asynqueue.core.serieskey import seriesKey
from asynqueue.core.text import NO_KEYWORDS
from asynqueue.errors import QueueRunError
from asynqueue.interfaces import Clock, Consumer
from asynqueue.iteration.deferator import Deferator
from asynqueue.queue.calls import Calls, Pending
from asynqueue.queue.driver import Driver
from asynqueue.queue.options import BY_NAME, ByName, CallOptions, checkCall, checkTimeout
from asynqueue.queue.updates import Updates
from asynqueue.reactor.callercontext import callerContext
from asynqueue.reactor.stdlog import logger

_methodOf = lru_cache(maxsize=1000)(Method)

T = TypeVar("T")
C = TypeVar("C", bound=Consumer)


@final
class Whatever:
    """The result type of a callable whose own type variables decide its result.

    `Submission.call` does not see such a callable's arguments and therefore gives Any. `CallSpec.of` sees them.
    """


class Submission:
    """The calls of a queue. `asynqueue.TaskQueue` is the class to use."""

    def __init__(
        self,
        callTimeout: float | None,
        warn: bool,
        verbose: bool,
        spew: bool,
        returnFailure: bool,
        maxQueued: int | None,
        reactor: Clock | None,
    ) -> None:
        checkTimeout(callTimeout)
        if maxQueued is not None and (type(maxQueued) is not int or maxQueued < 1):
            raise ValueError(f"maxQueued must be an integer of 1 or more, or None for no limit; got {maxQueued!r}")
        self._callTimeout = callTimeout
        self._returnFailure = returnFailure
        self._lastTask = 0
        self._log = Logger("asynqueue", source=self)
        self._maxQueued = maxQueued
        self._logging = (warn, verbose, spew)
        self._compose(reactor)

    def _compose(self, reactor: Clock | None) -> None:
        """Make the parts of the queue, which has no workers then."""
        self._scheduler = Scheduler()
        self._statistics = StatsCollector()
        self._driver = Driver(self._scheduler, self._maxQueued, reactor)
        self._calls = Calls(self._driver, self._statistics, logger(self), *self._logging)
        self._cancel = self._calls.cancel  # once, and not for each call
        self._updates = Updates(self._driver, self._log)

    @overload
    def call(
        self, f: Callable[..., object], /, *args: Any, consumer: C, niceness: int = 0, series: Hashable = None,
        doNext: bool = False, doLast: bool = False, timeout: float | None = None, raw: None = None,
        retries: int | None = None, returnFailure: bool | None = None, **kw: Any,
    ) -> Deferred[C]: ...  # fmt: skip
    @overload
    def call(
        self, f: Callable[..., Whatever], /, *args: Any, consumer: None = None, niceness: int = 0,
        series: Hashable = None, doNext: bool = False, doLast: bool = False, timeout: float | None = None,
        raw: bool | None = None, retries: int | None = None, returnFailure: bool | None = None, **kw: Any,
    ) -> Deferred[Any]: ...  # fmt: skip
    @overload
    def call(
        self, f: Callable[..., T], /, *args: Any, raw: Literal[True], consumer: None = None, niceness: int = 0,
        series: Hashable = None, doNext: bool = False, doLast: bool = False, timeout: float | None = None,
        retries: int | None = None, returnFailure: bool | None = None, **kw: Any,
    ) -> Deferred[T]: ...  # fmt: skip
    @overload
    def call(
        self, f: Callable[..., Iterator[T]], /, *args: Any, consumer: None = None, niceness: int = 0,
        series: Hashable = None, doNext: bool = False, doLast: bool = False, timeout: float | None = None,
        raw: Literal[False] | None = None, retries: int | None = None, returnFailure: bool | None = None, **kw: Any,
    ) -> Deferred[Deferator[T]]: ...  # fmt: skip
    @overload
    def call(
        self, f: Callable[..., Deferred[T] | Coroutine[Any, Any, T]], /, *args: Any, consumer: None = None,
        niceness: int = 0, series: Hashable = None, doNext: bool = False, doLast: bool = False,
        timeout: float | None = None, raw: bool | None = None, retries: int | None = None,
        returnFailure: bool | None = None, **kw: Any,
    ) -> Deferred[T]: ...  # fmt: skip
    @overload
    def call(
        self, f: Callable[..., T], /, *args: Any, consumer: None = None, niceness: int = 0, series: Hashable = None,
        doNext: bool = False, doLast: bool = False, timeout: float | None = None, raw: bool | None = None,
        retries: int | None = None, returnFailure: bool | None = None, **kw: Any,
    ) -> Deferred[T]: ...  # fmt: skip

    @overload
    def call(self, f: str, /, *args: Any, consumer: C, **kw: Any) -> Deferred[C]: ...
    @overload
    def call(self, f: str, /, *args: Any, **kw: Any) -> Deferred[Any]: ...

    def call(
        self,
        f: Any,
        /,
        *args: Any,
        niceness: int = 0,
        series: Hashable = None,
        doNext: bool = False,
        doLast: bool = False,
        timeout: float | None = None,
        consumer: Consumer | None = None,
        raw: bool | None = None,
        retries: int | None = None,
        returnFailure: bool | None = None,
        **kw: Any,
    ) -> Deferred[Any]:
        """Queue the call ``f(*args, **kw)``.

        Args:
            f: Any callable that the worker can run. For a `WireWorker`, it may also be the name of a method, and no
                other worker is given the call.
            *args: Its positional arguments. They must not change until a worker is given the call.
            niceness: An integer from -20 (often) to 20 (seldom): the share of the calls among those that wait. Calls at
                N+10 get about half of what calls at N get.
            series: A hashable. Only workers qualified for it run the call; series take turns.
            doNext: Put the call before all others.
            doLast: Put the call after all others.
            timeout: Seconds from when a worker can start the call. On the first expiry the call is tried again, at the
                front. On the second it fails.
            consumer: An `IConsumer` that is fed the items of an iterator. The Deferred then fires with the consumer. It
                fires with the result if that is no iterator.
            raw: With True, an iterator is a result like any other.
            retries: How often the call may be started again after its worker died or its time ran out; 1 by default.
            returnFailure: With False, a failure is logged and the Deferred fires with None.
            **kw: Its keyword arguments, other than those above: for these, use `submit`.

        Returns:
            A Deferred of the result. An iterator comes as a `Deferator`. Cancel the Deferred to cancel the call. It
            fails with the error that the call raised, with `asynqueue.errors.WorkerLost` when workers died under the
            call, with `asynqueue.errors.TimeoutError`, or with CancelledError.

        Raises:
            ValueError, TypeError: An option has a wrong value or type.
            asynqueue.errors.QueueRunError: The queue is shut down.
        """
        if type(f) is str:
            f, series = self._byName(f, series)
        return self._submit(
            CallSpec(f, args, kw or NO_KEYWORDS),
            niceness,
            series,
            doNext,
            doLast,
            timeout,
            consumer,
            raw,
            retries,
            returnFailure,
        )

    @overload
    def submit(
        self, spec: CallSpec[object], *, consumer: C, raw: None = None, **options: Unpack[CallOptions]
    ) -> Deferred[C]: ...
    @overload
    def submit(
        self, spec: CallSpec[T], *, raw: Literal[True], consumer: None = None, **options: Unpack[CallOptions]
    ) -> Deferred[T]: ...
    @overload
    def submit(
        self, spec: CallSpec[Iterator[T]], *, consumer: None = None, raw: Literal[False] | None = None,
        **options: Unpack[CallOptions],
    ) -> Deferred[Deferator[T]]: ...  # fmt: skip
    @overload
    def submit(
        self, spec: CallSpec[Deferred[T]], *, consumer: None = None, raw: bool | None = None,
        **options: Unpack[CallOptions],
    ) -> Deferred[T]: ...  # fmt: skip
    @overload
    def submit(
        self, spec: CallSpec[Coroutine[Any, Any, T]], *, consumer: None = None, raw: bool | None = None,
        **options: Unpack[CallOptions],
    ) -> Deferred[T]: ...  # fmt: skip
    @overload
    def submit(
        self, spec: CallSpec[T], *, consumer: None = None, raw: bool | None = None, **options: Unpack[CallOptions]
    ) -> Deferred[T]: ...

    def submit(
        self,
        spec: CallSpec[Any],
        *,
        consumer: Consumer | None = None,
        raw: bool | None = None,
        niceness: int = 0,
        series: Hashable = None,
        doNext: bool = False,
        doLast: bool = False,
        timeout: float | None = None,
        retries: int | None = None,
        returnFailure: bool | None = None,
    ) -> Deferred[Any]:
        """Queue a call made with `CallSpec.of`, whose arguments a type checker has checked one by one.

        Args:
            spec: The call. No option of the queue can clash with a keyword of the callable.
            consumer, raw, niceness, series, doNext, doLast, timeout, retries, returnFailure: As for `call`.

        Returns:
            A Deferred of the result, as `call` does.

        Raises:
            TypeError: `spec` is no `CallSpec`, or an option has a wrong type.
            ValueError: An option has a wrong value.
            asynqueue.errors.QueueRunError: The queue is shut down.
        """
        if not isinstance(spec, CallSpec):
            raise TypeError(f"submit takes a CallSpec, as from CallSpec.of(f, ...); got {type(spec).__name__}")
        f: Any = spec.f  # the name of a method, perhaps, which its type does not tell
        if type(f) is str:
            method, series = self._byName(f, series)
            spec = CallSpec(method, spec.args, spec.kw)
        return self._submit(spec, niceness, series, doNext, doLast, timeout, consumer, raw, retries, returnFailure)

    def _submit(
        self,
        spec: CallSpec[Any],
        niceness: int,
        series: Hashable,
        doNext: bool,
        doLast: bool,
        timeout: float | None,
        consumer: Consumer | None,
        raw: bool | None,
        retries: int | None,
        returnFailure: bool | None,
    ) -> Deferred[Any]:
        checkCall(spec, niceness, series, doNext, doLast, timeout, retries, consumer, raw)
        if not self._scheduler.running:
            raise QueueRunError(f"{self._driver.refusal}: {spec} was not queued")
        if timeout is None:
            timeout = self._callTimeout
        if returnFailure is None:
            returnFailure = self._returnFailure
        elif type(returnFailure) is not bool:
            raise TypeError(f"returnFailure must be True, False, or None for the queue's own; got {returnFailure!r}")
        if series is not None and type(series) is not str and type(series) is not ByName:
            series = seriesKey(series)
        self._lastTask += 1
        task = Task(
            self._lastTask,
            spec,
            series,
            niceness,
            doNext,
            doLast,
            timeout,
            1 if retries is None else retries,
            raw,
            context=callerContext(),
        )
        calls, driver = self._calls, self._driver
        pending = calls.pending[task.id] = Pending(self._cancel, task, driver.stamp())
        if consumer is not None:
            pending.consumer = consumer
        if not returnFailure:
            pending.returnFailure = False
        driver.happened(self._scheduler.submit(task))
        return pending

    def _byName(self, name: str, series: Hashable) -> tuple[Method, ByName]:
        """Return the method with this NAME, and the series by which only workers of wires are qualified for it."""
        if not self._takesNames():
            raise TypeError(
                f"what is called must be callable, got {name!r}: only a WireWorker calls a method by its name, and "
                "this queue has none"
            )
        return _methodOf(name), BY_NAME if series is None else ByName(seriesKey(series))

    def _takesNames(self) -> bool:
        """Return whether a worker of this queue, or one that may come, takes calls by name."""
        raise NotImplementedError

    @overload
    def update(
        self, f: Callable[..., Whatever], /, *args: Any, ephemeral: bool = False, sequential: bool = False,
        series: Hashable = None, niceness: int = 0, consumer: None = None, **kw: Any,
    ) -> Deferred[list[Any]]: ...  # fmt: skip
    @overload
    def update(
        self, f: Callable[..., Deferred[T] | Coroutine[Any, Any, T]], /, *args: Any, ephemeral: bool = False,
        sequential: bool = False,
        series: Hashable = None, niceness: int = 0, consumer: None = None, **kw: Any,
    ) -> Deferred[list[T]]: ...  # fmt: skip
    @overload
    def update(
        self, f: Callable[..., T], /, *args: Any, ephemeral: bool = False, sequential: bool = False,
        series: Hashable = None, niceness: int = 0, consumer: None = None, **kw: Any,
    ) -> Deferred[list[T]]: ...  # fmt: skip

    @overload
    def update(self, f: str, /, *args: Any, **kw: Any) -> Deferred[list[Any]]: ...

    def update(
        self,
        f: Any,
        /,
        *args: Any,
        ephemeral: bool = False,
        sequential: bool = False,
        series: Hashable = None,
        niceness: int = 0,
        consumer: None = None,
        **kw: Any,
    ) -> Deferred[list[Any]]:
        """Call ``f(*args, **kw)`` on every worker, past the queue, and on every later worker before its first call.

        If `f` is a method of an object, the object becomes *resident*: it lives on in every worker process, and later
        calls of its methods run on that copy.

        An update that fails on a worker is saved all the same. On a later worker its failure is logged. An update
        under which two workers in a row die is abandoned, which is logged: later workers do not run it.

        Args:
            f: Any callable that the workers can run, or a name as for `call`. It must not return an iterator.
            *args: Its positional arguments.
            ephemeral: With True, later workers do not run the update.
            sequential: With True, one worker ends the update before the next begins. A worker goes on with calls until
                its turn comes.
            series: A hashable. Only workers qualified for it run the update: the present ones, and later ones.
            niceness: An integer from -20 to 20. It is accepted as in 0.9, and has no effect: an update goes before all
                queued calls.
            consumer: None. An update has no items.
            **kw: Its keyword arguments.

        Returns:
            A Deferred of the list of results, one for each present worker that is qualified. It fails with the first
            error if the update fails on any of them.

        Raises:
            ValueError: There is a consumer, or `niceness` is out of range.
            TypeError: `f` is not callable, or `series` is not hashable.
            asynqueue.errors.QueueRunError: The queue is shut down.
        """
        if consumer is not None:
            raise ValueError("an update runs on every worker and cannot feed a consumer")
        if type(f) is str:
            f, series = self._byName(f, series)
        spec = CallSpec(f, args, kw)
        checkCall(spec, niceness, series, False, False, None, None, None, None)
        if not self._scheduler.running:
            raise QueueRunError(f"{self._driver.refusal}: the update {spec} was not made")
        self._lastTask += 1
        context = callerContext()
        task = Task(self._lastTask, spec, series, raw=False, update=True, ephemeral=ephemeral, context=context)
        return self._updates.begin(task, ephemeral, sequential)

    def cancelSeries(self, series: Hashable) -> None:
        """Cancel the queued calls of a series. They never run, and their Deferreds fail with CancelledError.

        Running calls go on.

        Raises:
            TypeError: `series` is not hashable.
        """
        self._driver.later(self._scheduler.cancelSeries(ByName(seriesKey(series))))
        self._driver.happened(self._scheduler.cancelSeries(seriesKey(series)))

    def cancelAll(self) -> None:
        """Cancel all queued calls: they never run, and fail with CancelledError. Running calls go on."""
        self._driver.happened(self._scheduler.cancelAll())
