"""The plugin that AsynQueue runs in each worker of a Dask cluster.

A call is a Dask task, the coroutine `run`. It asks `SchedulerSide` for permission, makes the call in the worker's own
thread pool, and waits for the outcome. If the call is cancelled, the task ends at once. Its thread is then *abandoned*,
and a new thread takes its place. A `WorkerSide` is installed in a worker with the first call there.

An iterator that a call returns stays in the worker. It has a thread of its own, which continues as far as there is
credit, so it occupies no slot of the cluster.

The cluster imports this module, which imports neither Twisted nor attrs.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterator
from contextvars import copy_context
from queue import SimpleQueue
from time import perf_counter
from typing import Any

from distributed import Worker, get_worker
from distributed.diagnostics.plugin import WorkerPlugin

from asynqueue.core.flow.iteration import Outflow
from asynqueue.core.flow.iterators import closeIterator, takeSlice
from asynqueue.core.results import Kind, kindOf
from asynqueue.core.scheduling.clusterpermits import First, Refuse
from asynqueue.dask import internals
from asynqueue.errors import SerializationError, WorkerLost
from asynqueue.transport.callcodec import NUMBER, CallDecoder
from asynqueue.transport.errorcodec import dumpError
from asynqueue.transport.script.context import using
from asynqueue.transport.script.namespace import Namespace
from asynqueue.transport.serialization import INLINE, Resident, Undelivered

PROTOCOL = "asynqueue_1"
"""The name of AsynQueue's part in a cluster. Incompatible versions have different names."""

SLICE = 0.01
"""The time for which an iterator may run before its items are sent, in seconds."""

Outcome = tuple[Any, ...]
"""How a call ended: the kind, its seconds, its value, and the errors of updates that ran before it."""


def op(name: str) -> str:
    """Return the name of the operation NAME among those of Dask."""
    return f"{PROTOCOL}_{name}"


_sides: weakref.WeakKeyDictionary[Worker, WorkerSide] = weakref.WeakKeyDictionary()


async def run(session: str, call: str, raw: bool, payload: bytes) -> Outcome:
    """Make the call in PAYLOAD, if it may start here. This is the Dask task."""
    return await (await _sideOf(get_worker())).run(session, call, raw, payload)


async def install(dask_worker: Worker) -> None:
    """Install a `WorkerSide` in DASK_WORKER."""
    await _sideOf(dask_worker)


async def _sideOf(worker: Worker) -> WorkerSide:
    side = _sides.get(worker)
    if side is None:
        side = _sides[worker] = WorkerSide()
        await worker.plugin_add(plugin=side, name=PROTOCOL)
    return side


class WorkerSide(WorkerPlugin):
    """AsynQueue's part in one worker of the cluster."""

    name = PROTOCOL

    def __init__(self) -> None:
        self._programs: dict[str, _Program] = {}
        self._jobs: dict[tuple[str, str], _Job] = {}
        self._iterations: dict[tuple[str, str], _Iteration] = {}
        self._residents: dict[tuple[str, int], Any] = {}
        self._updated: dict[tuple[str, int], Outcome] = {}
        self._catchingUp: dict[str, asyncio.Lock] = {}

    def setup(self, worker: Worker) -> None:
        """Serve in WORKER."""
        internals.requireWorker(worker)
        self._worker = worker
        internals.serve(worker, **{op(f.__name__): f for f in (self.catchUp, self.items, self.end)})
        internals.listen(worker, **{op(f.__name__): f for f in (self.abandon, self.forget)})

    def teardown(self, worker: Worker) -> None:
        """Close the iterators, because WORKER closes."""
        for iteration in self._iterations.values():
            iteration.close()
        self._iterations.clear()

    async def run(self, session: str, call: str, raw: bool, payload: bytes) -> Outcome:
        """Make a call, if it may start here."""
        errors: list[bytes] = []
        async with self._catchingUp.setdefault(session, asyncio.Lock()):
            refused = await self._mayStart(session, call, errors)
        if refused is not None:
            return "Refused", 0.0, refused, errors
        program = await self._program(session, payload)
        job = self._jobs[session, call] = _Job(self._worker, call, raw, program.namespace)
        try:
            what, seconds, it = await job.run(lambda: self._called(session, program, payload))
        finally:
            del self._jobs[session, call]
        if what == "Iterating":
            self._iterations[session, call] = _Iteration(it, program.namespace)
            it = self._worker.address
        return what, seconds, it, errors

    async def catchUp(self, session: str, number: int) -> Outcome:
        """Run the updates that this worker has missed. Return the outcome of update NUMBER."""
        async with self._catchingUp.setdefault(session, asyncio.Lock()):
            try:
                await self._mayStart(session, None, [])
            except OSError as error:
                return "Lost", 0.0, f"a Dask worker could not ask the scheduler for the update: {error}"
        ended = self._updated.get((session, number))
        return ended or ("Raised", 0.0, dumpError(RuntimeError("this update was withdrawn before this worker ran it")))

    # Called by sessions.

    async def items(self, session: str, call: str, credit: int) -> tuple[int, bytes, bytes | None, bool]:
        """Return up to CREDIT more items of an iterator, within a slice of time.

        The result is their number, the items, the error raised, and whether the iterator is over.
        """
        iteration = self._iterations.get((session, call))
        if iteration is None:
            return 0, b"", dumpError(WorkerLost("the iteration ended early: its iterator was closed")), True
        number, payload, error, over = await iteration.items(credit)
        if over:
            self._iterations.pop((session, call), None)
        return number, payload, error, over

    async def end(self, session: str, call: str) -> bytes | None:
        """Close an iterator. Return the error that it raised, or None."""
        iteration = self._iterations.pop((session, call), None)
        return None if iteration is None else await iteration.end()

    # Called by the scheduler.

    def abandon(self, session: str, call: str) -> None:
        """Abandon a call whose outcome is not wanted any more."""
        job = self._jobs.get((session, call))
        if job is not None:
            job.abandon()
        iteration = self._iterations.pop((session, call), None)
        if iteration is not None:
            iteration.close()

    def forget(self, session: str) -> None:
        """Abandon and forget everything of SESSION."""
        for job in [job for key, job in self._jobs.items() if key[0] == session]:
            job.abandon()
        for key in [key for key in self._iterations if key[0] == session]:
            self._iterations.pop(key).close()
        for kept in (self._residents, self._updated):
            for number in [number for number in kept if number[0] == session]:
                del kept[number]
        self._catchingUp.pop(session, None)
        self._programs.pop(session, None)

    async def _mayStart(self, session: str, call: str | None, errors: list[bytes]) -> bool | None:
        """Ask the scheduler for permission, and first run the updates that it requires.

        Return None if the call may start, else whether it has been started before.
        """
        ask: Callable[..., Awaitable[tuple[Any, ...]]] = getattr(self._worker.scheduler, op("starting"))
        did: int | None = None
        while True:
            what, *more = await ask(session=session, call=call, worker=self._worker.address, did=did)
            if what == First.__name__:
                did, payload, run = more
                if (session, did) in self._updated:
                    continue  # the connection ended before the scheduler knew that it ran
                outcome = self._updated[session, did] = await self._update(session, payload, run)
                if outcome[0] == "Raised":
                    errors.append(outcome[2])
            else:
                return bool(more[0]) if what == Refuse.__name__ else None

    async def _program(self, session: str, payload: bytes) -> _Program:
        """Return what is known of the program of SESSION, with all definitions that the call in PAYLOAD needs."""
        program = self._programs.setdefault(session, _Program())
        (number,) = NUMBER.unpack_from(payload)
        async with program.requesting:
            if program.number < number:
                ask: Callable[..., Awaitable[tuple[int, list[bytes]]]] = getattr(
                    self._worker.scheduler, op("definitions")
                )
                last, streams = await ask(session=session, after=program.number, number=number)
                program.streams += streams
                program.number = last
        return program

    async def _update(self, session: str, payload: bytes, run: bool) -> Outcome:
        program = await self._program(session, payload)

        def called() -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
            f, args, kw = self._called(session, program, payload)
            return (f, args, kw) if run else (lambda: None, (), {})

        what, seconds, it = await _Job(self._worker, None, False, program.namespace).run(called)
        if what == "Iterating":
            what, it = "Raised", dumpError(TypeError("an update cannot return an iterator"))
        return what, seconds, it

    def _called(self, session: str, program: _Program, payload: bytes) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
        try:
            f, args, kw, objects = program.load(payload)
        except SerializationError as error:
            raise Undelivered(*error.args) from error.__cause__
        if type(f) is Resident:
            key = session, f.key
            if objects:
                self._residents[key] = objects[0]
            if key not in self._residents:
                raise SerializationError("the resident object of this call is missing on this Dask worker")
            f = self._residents[key] if f.name is None else getattr(self._residents[key], f.name)
        return f, args, kw


class _Program:
    """What this worker has of the program of one session."""

    def __init__(self) -> None:
        self.namespace = Namespace()
        self.requesting = asyncio.Lock()
        self.number = 0  # of the last definitions that have come
        self.streams: list[bytes] = []  # those that have come and are not used yet
        self._decoder = CallDecoder(namespace=self.namespace)
        self._lock = threading.Lock()

    def load(self, payload: bytes) -> tuple[Any, tuple[Any, ...], dict[str, Any], list[Any]]:
        """Return callable, arguments, keywords and further objects of a call. Raises `SerializationError`."""
        with self._lock:
            while self.streams:
                self.namespace.define(self.streams.pop(0))
            return self._decoder.load(memoryview(payload)[NUMBER.size :])


def _resultOf(value: Any) -> tuple[str, bytes]:
    try:
        return "Returned", INLINE.dumpResult(value)
    except SerializationError as error:
        return "Raised", dumpError(error)


class _Job:
    """One call in a thread of WORKER, where its name is KEY. With RAW, an iterator is a value like any other."""

    def __init__(self, worker: Worker, key: str | None, raw: bool, namespace: Namespace) -> None:
        self._worker = worker
        self._namespace = namespace
        self._key = key
        self._raw = raw
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[tuple[str, float, Any]] = self._loop.create_future()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None  # while it runs there
        self._threadState: dict[str, Any] = {}
        self._abandoned = False

    async def run(self, called: Callable[[], tuple[Any, tuple[Any, ...], dict[str, Any]]]) -> tuple[str, float, Any]:
        """Make the call that CALLED returns. Return the kind of outcome, its seconds and its value."""
        self._worker.executor.submit(copy_context().run, self._workInNamespace, called)
        try:
            what, seconds, it = await self._ended
            return await self._await(it) if what == "Awaiting" else (what, seconds, it)
        except asyncio.CancelledError:
            self.abandon()
            raise

    def abandon(self) -> None:
        """End the call now. Its thread continues on its own, and another takes its place."""
        with self._lock:
            self._abandoned = True
            thread = self._thread
            if thread is not None:
                thread.name += " (abandoned)"
                internals.replaceThread(self._worker.executor, thread, self._threadState)
        self._end("Abandoned", 0.0, None)

    async def _await(self, coroutine: Any) -> tuple[str, float, Any]:
        """Wait for COROUTINE in the worker's loop, as Dask does for its own."""
        started = perf_counter()
        task = asyncio.create_task(self._outcomeOf(coroutine))
        self._ended = self._loop.create_future()  # for `abandon`
        ends: set[asyncio.Future[Any]] = {task, self._ended}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if self._ended.done():
            task.cancel()
            return self._ended.result()
        what, it = task.result()
        return what, perf_counter() - started, it

    async def _outcomeOf(self, coroutine: Any) -> tuple[str, bytes]:
        """Return how COROUTINE ends. A SystemExit that it raises must not end the worker's loop."""
        try:
            result = await coroutine
        except BaseException as error:
            with using(self._namespace):
                return "Raised", dumpError(error)
        with using(self._namespace):
            return _resultOf(result)

    def _workInNamespace(self, called: Callable[[], tuple[Any, tuple[Any, ...], dict[str, Any]]]) -> None:
        with using(self._namespace):
            self._work(called)

    def _work(self, called: Callable[[], tuple[Any, tuple[Any, ...], dict[str, Any]]]) -> None:
        with self._lock:
            if self._abandoned:
                return
            self._thread = threading.current_thread()
            self._threadState = internals.enterCall(self._key)
        started = perf_counter()
        it: Any  # Any: what the user's callable returned, or its bytes
        try:
            f, args, kw = called()
            started = perf_counter()
            it = f(*args, **kw)
            seconds = perf_counter() - started
        except BaseException as error:  # SystemExit too, which ends the call and not the thread
            seconds = perf_counter() - started
            what, it = "Raised", dumpError(self._namespace.explained(error))
        else:
            kind = kindOf(it)
            if kind is Kind.COROUTINE:
                what = "Awaiting"
            elif not self._raw and kind is Kind.ITERATOR:
                what = "Iterating"
            else:
                what, it = _resultOf(it)
        with self._lock:
            self._thread = None
        try:
            self._loop.call_soon_threadsafe(self._end, what, seconds, it)
        except RuntimeError:
            pass  # the worker has closed meanwhile

    def _end(self, what: str, seconds: float, it: Any) -> None:
        if not self._ended.done():
            self._ended.set_result((what, seconds, it))


class _Iteration:
    """An iterator and the thread that runs it."""

    def __init__(self, iterator: Iterator[Any], namespace: Namespace) -> None:
        self._namespace = namespace
        self._iterator = iterator
        self._flow = Outflow()
        self._loop = asyncio.get_running_loop()
        self._asked: SimpleQueue[tuple[int, asyncio.Future[Any]] | None] = SimpleQueue()
        work = copy_context().run
        threading.Thread(target=work, args=(self._workInNamespace,), name="asynqueue-iteration", daemon=True).start()

    async def items(self, credit: int) -> tuple[int, bytes, bytes | None, bool]:
        """Return up to CREDIT more items, within a slice of time."""
        answer: tuple[int, bytes, bytes | None, bool] = await self._ask(credit)
        return answer

    async def end(self) -> bytes | None:
        """Close the iterator. Return the error that it raised, or None."""
        raised: bytes | None = (await self._ask(0))[2]
        return raised

    def close(self) -> None:
        """Close the iterator and end its thread."""
        self._asked.put(None)

    def _ask(self, credit: int) -> asyncio.Future[Any]:
        answer = self._loop.create_future()
        self._asked.put((credit, answer))
        return answer

    def _workInNamespace(self) -> None:
        with using(self._namespace):
            self._work()

    def _work(self) -> None:
        while (asked := self._asked.get()) is not None:
            credit, answer = asked
            items, error = self._produce(credit) if credit else ([], self._close())
            answered = len(items), b"".join(items), error, self._flow.ended
            try:
                self._loop.call_soon_threadsafe(_answer, answer, answered)
            except RuntimeError:
                break  # the worker has closed meanwhile
            if self._flow.ended:
                return
        self._close()

    def _produce(self, credit: int) -> tuple[list[bytes], bytes | None]:
        """Return the items of one slice, and the error that ended them, if any."""
        self._flow.granted(credit - self._flow.credit)
        items, over, error = takeSlice(self._next, self._flow, perf_counter, SLICE)
        if not over:
            self._flow.sent(len(items))
            return items, None
        failure = None if error is None else dumpError(error)
        closed = self._close()
        return items, closed if failure is None else failure

    def _next(self) -> bytes:
        return INLINE.dumpItem(next(self._iterator))

    def _close(self) -> bytes | None:
        """Run the iterator's ``finally``. Return the error that it raised, or None."""
        self._flow.end()
        try:
            closeIterator(self._iterator)
        except BaseException as error:
            return dumpError(error)
        return None


def _answer(answer: asyncio.Future[Any], answered: Any) -> None:
    if not answer.done():
        answer.set_result(answered)
