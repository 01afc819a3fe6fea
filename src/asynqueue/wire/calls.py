"""How one call of a client runs on a server, and how the items of an iterator that it returns are sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from time import perf_counter
from typing import Any
from typing import Protocol as Typed

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from asynqueue.core.protocol import messages as m
from asynqueue.core.protocol.admission import ItemThrottle
from asynqueue.core.protocol.chunkedpayload import ChunkedPayload, joined
from asynqueue.core.records import CallSpec, Iterating, Raised, Returned, RunOutcome, Task
from asynqueue.core.results import Kind, isA, kindOf
from asynqueue.errors import ImplementationError, SerializationError
from asynqueue.interfaces import ItemSource
from asynqueue.iteration.sources import FetchSource, LocalSource, closeNext, fetchNext
from asynqueue.reactor.calling import run, whenFired
from asynqueue.reactor.failures import errorIn
from asynqueue.threads.worker import ThreadWorker
from asynqueue.transport.errorcodec import dumpError
from asynqueue.transport.script.context import using
from asynqueue.transport.script.namespace import Namespace
from asynqueue.transport.serialization import PIECES, loads
from asynqueue.wire.universe import WireWorkerUniverse, unpack

_AWAITED = (Kind.COROUTINE, Kind.DEFERRED, Kind.ASYNC_ITERATOR)
"""The results of a method in a thread for which the main loop waits."""


class CallRunner:
    """Runs the calls of the client PEER: in the main loop, or in one thread per call when the client wants that.

    METHODS are those of UNIVERSE, by name. ONENDED is called with the number and the outcome of each call that has
    ended and was not cancelled.
    """

    _log = Logger(namespace="asynqueue")

    def __init__(
        self,
        reactor: Any,  # a reactor has a clock and threads, and there is no one interface for both
        universe: WireWorkerUniverse,
        methods: Mapping[str, Callable[..., Any]],  # a user's method takes and returns anything
        peer: str,
        onEnded: Callable[[int, RunOutcome], None],
    ) -> None:
        self._reactor = reactor
        self._universe = universe
        self._methods = methods
        self._peer = peer
        self._onEnded = onEnded
        self.namespace: Namespace = Namespace()
        """What this server has of the client's ``__main__``."""
        self._running: dict[int, Deferred[Any]] = {}  # each fires with an outcome, or with a method's result
        self._idleThreads: list[ThreadWorker] = []
        self._busyThreads: dict[int, ThreadWorker] = {}

    def run(self, call: m.Call) -> None:
        """Run CALL."""
        started = perf_counter()
        try:
            method, args, kw, inThread = self._load(call)
            if inThread:
                self._runInThread(call, CallSpec(method, args, kw))
                return
            started = perf_counter()
            result = method(*args, **kw)
        except BaseException as error:  # SystemExit too: the call ends, and not the server
            self._onEnded(call.id, Raised(error, perf_counter() - started))
        else:
            self._returned(call, result, started)

    def discard(self, call: m.Call) -> None:
        """Discard CALL, which does not run. Its definitions count: later calls may need them."""
        try:
            name, _, definitions, _ = unpack(call.payload)
            if definitions is not None and name in self._methods:
                self.namespace.define(definitions)
        except (ValueError, SerializationError) as error:
            self._log.warn("{peer} has sent definitions that are of no use: {error}", peer=self._peer, error=error)

    def cancel(self, number: int) -> None:
        """Cancel call NUMBER, which runs. It has no outcome."""
        self._running.pop(number).cancel()
        thread = self._busyThreads.pop(number, None)
        if thread is not None:  # its worker has abandoned the thread of the call, and has a fresh one
            self._idleThreads.append(thread)

    def stop(self) -> None:
        """Cancel all calls, and abandon the threads."""
        running, self._running = self._running, {}
        for number, ending in running.items():
            if number not in self._busyThreads:
                ending.cancel()
        for thread in [*self._idleThreads, *self._busyThreads.values()]:
            thread.crash()

    def _load(self, call: m.Call) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], bool]:
        name, inThread, definitions, arguments = unpack(call.payload)
        method = self._methods.get(name)
        if method is None:
            universe = type(self._universe).__name__
            self._log.warn(
                "refused {peer} a call: {universe} has no public method {name!r}",
                peer=self._peer, universe=universe, name=name,
            )  # fmt: skip
            raise ImplementationError(f"{universe} has no public method {name!r}")
        if definitions is not None:
            self.namespace.define(definitions)
        with using(self.namespace):
            args, kw = loads(arguments, "the call")
        return method, args, kw, inThread

    def _runInThread(self, call: m.Call, spec: CallSpec[Any]) -> None:
        thread = self._idleThreads.pop() if self._idleThreads else ThreadWorker(reactor=self._reactor)
        self._busyThreads[call.id] = thread
        ending = self._running[call.id] = thread.run(Task(call.id, spec, raw=call.raw))
        ending.addCallback(self._threadEnded, call, thread)

    def _threadEnded(self, outcome: RunOutcome, call: m.Call, thread: ThreadWorker) -> None:
        if self._running.pop(call.id, None) is None:
            if isinstance(outcome, Iterating):
                outcome.source.close()
            return  # it was cancelled
        del self._busyThreads[call.id]
        self._idleThreads.append(thread)
        if isinstance(outcome, Returned) and kindOf(outcome.value) in _AWAITED:
            self._returned(call, outcome.value, perf_counter() - outcome.seconds)
        else:
            self._onEnded(call.id, outcome)

    def _returned(self, call: m.Call, result: Any, started: float) -> None:
        """The method has returned RESULT, of any type. Wait for it, iterate it, or end CALL with it."""
        kind = kindOf(result)
        if kind is Kind.COROUTINE:
            result = run(result)
        if kind in (Kind.COROUTINE, Kind.DEFERRED):
            self._running[call.id] = result
            whenFired(result, self._fired, call, started)
        elif not call.raw and kind is Kind.ASYNC_ITERATOR:
            fetch, close = partial(fetchNext, result), partial(closeNext, result)
            self._onEnded(call.id, Iterating(FetchSource(fetch, close, self._reactor), perf_counter() - started))
        elif not call.raw and kind is Kind.ITERATOR:
            self._onEnded(call.id, Iterating(LocalSource(result, self._reactor), perf_counter() - started))
        else:
            self._onEnded(call.id, Returned(result, perf_counter() - started))

    def _fired(self, result: Any, call: m.Call, started: float) -> None:
        if self._running.pop(call.id, None) is None:
            return  # it was cancelled
        if isA(result, Failure):
            error = errorIn(result)
            self._onEnded(call.id, Raised(error, perf_counter() - started))
        else:
            self._returned(call, result, started)


class IterationOwner(Typed):
    """The connection to which an iteration belongs."""

    def backlog(self) -> int:
        """Return how many bytes wait to be sent."""
        raise NotImplementedError

    def sendOfIteration(self, message: m.ToLocal) -> None:
        """Send MESSAGE, which is of an iteration."""

    def iterationEnded(self, number: int) -> None:
        """The iteration of call NUMBER has ended."""


class ServedIteration:
    """Sends the items of SOURCE, an iterator that call NUMBER returned, on the connection CLIENT.

    At most about BACKLOG bytes of items wait to be sent. Items are pickled for the program of NAMESPACE.
    """

    def __init__(
        self, client: IterationOwner, number: int, source: ItemSource, backlog: int, namespace: Namespace
    ) -> None:
        self._client = client
        self._number = number
        self._source = source
        self._namespace = namespace
        self._throttle = ItemThrottle(backlog)
        self._over = False
        source.begin(self)

    def granted(self, items: int) -> None:
        """Allow the iterator ITEMS more items: the client grants them."""
        self._throttle.granted(items)
        self.draw()

    def draw(self) -> None:
        """Ask the iterator for items, as many as credit and backlog allow."""
        items = 0 if self._over else self._throttle.draw(self._client.backlog())
        if items:
            self._source.grant(items)

    def close(self) -> None:
        """Close the iterator: no more items are wanted."""
        self._source.close()

    def arrived(self, items: Sequence[Any], more: bool = False) -> None:
        """Send ITEMS, which the iterator has produced. An item that cannot be sent ends the iteration."""
        if self._over:
            return
        dumped: list[bytes | ChunkedPayload] = []
        refusal: SerializationError | None = None
        for item in items:
            try:
                with using(self._namespace):
                    dumped.append(PIECES.dumpItem(item))
            except SerializationError as error:
                refusal = error
                break
        payload = joined(dumped)
        self._throttle.arrived(len(items), len(payload))
        if dumped:
            self._client.sendOfIteration(m.Items(self._number, len(dumped), payload))
        if refusal is not None:
            self.over(refusal)
            self._source.close()
        else:
            self.draw()

    def over(self, error: BaseException | None) -> None:
        """Send the end of the iteration, with ERROR if it failed."""
        if self._over:
            return
        self._over = True
        number = self._number
        with using(self._namespace):
            end = m.Exhausted(number) if error is None else m.Failed(number, dumpError(error))
        self._client.sendOfIteration(end)
        self._client.iterationEnded(number)
