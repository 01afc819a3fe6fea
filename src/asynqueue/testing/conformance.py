"""The state machine that puts a worker through everything that may happen to one.

Each example is a story. A queue gets a worker. Calls are made, cancelled and timed out, items are taken, and workers
are killed, replaced and stopped, in an order that Hypothesis chooses. What a step may do depends only on earlier steps,
never on the speed of a worker. So a story can be repeated and made shorter.

Some calls are *held*: they run until the story releases them. So there is a point at which nothing can happen without
another step, because every call has ended or is held. Then it is known which calls run. A worker is killed only then,
so the outcome of each of its calls is known. `asynqueue.testing.model` decides it.

At the end everything is released, taken and shut down, every call is checked, and nothing may be left behind. This
module has the steps, and `asynqueue.testing.harness` carries them out.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from asynqueue.core.records import CallSpec
from asynqueue.testing.guarantees import Guarantee
from asynqueue.testing.harness import ENOUGH, Harness
from asynqueue.testing.model import CallRequest
from asynqueue.testing.strategies import callRequests


def step(**drawn: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], Any]:
    """Make a rule of the machine, with DRAWN values. After it, no guarantee may be broken.

    An invariant would do the same, but Hypothesis prints it after each step. (Any, because a rule's type is
    Hypothesis's own.)
    """

    def decorate(method: Callable[..., None]) -> Any:
        @wraps(method)
        def checked(self: WorkerConformance, **values: Any) -> None:
            method(self, **values)
            self._check()

        made: Any = rule  # Any, because its overloads do not accept unknown keywords
        return made(**drawn)(checked)

    return decorate


class WorkerConformance(Harness):
    """Checks a worker. Make a subclass, override `makeWorker`, and run its `TestCase`.

    Also override `hurtWorker` if the worker can be killed, and `makeClock` if it runs on a
    `twisted.internet.task.Clock`. Other attributes and methods are for special needs. The number of stories and their
    length are Hypothesis's settings: ``TestCase.settings = settings(max_examples=50, stateful_step_count=20)``.

    Raises:
        GuaranteeBroken: A guarantee did not hold.

    Example:
        >>> class MemoryConformance(WorkerConformance):
        ...     blocking = False
        ...     def makeClock(self):
        ...         return Clock()
        ...     def makeWorker(self, series):
        ...         return MemoryWorker(self.clock, series)
        ...     def hurtWorker(self, worker):
        ...         worker.die()
        >>> TestMemoryWorker = MemoryConformance.TestCase
    """

    @initialize()
    def attach(self) -> None:
        """Make a queue and a worker."""
        self.open()

    # Steps with calls.

    @step(request=callRequests())
    def call(self, request: CallRequest) -> None:
        """Make a call."""
        self._make(request)

    @step()
    def wait(self) -> None:
        """Run one turn."""
        self._turn()

    @step()
    def settle(self) -> None:
        """Run until only held calls are running."""
        self._rest()

    @precondition(lambda self: self.model.calls)
    @step(back=st.integers(1, 4), rested=st.booleans())
    def cancel(self, back: int, rested: bool) -> None:
        """Cancel a call, at rest or while it may be starting."""
        call = self.model.calls.get(len(self.model.calls) + 1 - back)
        if call is None or call.request.do == "update":
            return
        if rested:
            self._rest()
        if call.ends:
            return
        runs = [run for worker in self._workers for run in worker.held if run.number == call.number]
        running = [run for worker in self._workers for run in worker.front if run.number == call.number]
        call.unstarted = not self._journal.count("start", call.number) and (not runs or (rested and not running))
        call.cancelled = True
        self._record(f"call {call.number} is cancelled")
        for worker in self._workers:
            if worker.held:  # it may be replaced by a new one
                self._expose(worker)
        self._deferreds[call.number].cancel()
        if call in self._holding:
            self._holding.remove(call)

    @precondition(lambda self: self._holding)
    @step(which=st.integers(0, 2))
    def cancelHeld(self, which: int) -> None:
        """Cancel a running call."""
        number = self._holding[which % len(self._holding)].number
        self.cancel(back=len(self.model.calls) + 1 - number, rested=True)

    @precondition(lambda self: self._holding)
    @step(which=st.integers(0, 2))
    def release(self, which: int) -> None:
        """Release a held call."""
        self._release(self._holding[which % len(self._holding)])

    @precondition(lambda self: not self._holding and self._overruns < 2)  # it is slow
    @step()
    def overrun(self) -> None:
        """Let a call exceed its time limit twice. The worker must be free afterwards."""
        self._overruns += 1
        self._rest()
        for worker in self._workers:
            self._expose(worker)
        call = self._make(CallRequest("hold", where="doNext"), timeout=self.timeout)
        call.expires = True
        self._holding.remove(call)
        self._until(lambda: call.ended, Guarantee.TIMEOUT, f"call {call.number} exceeded its time limit")
        self._probe(Guarantee.TIMEOUT, "after a timeout")

    # Steps with iterations.

    @precondition(lambda self: self._takers)
    @step(which=st.integers(0, 2), items=st.integers(1, 6))
    def take(self, which: int, items: int) -> None:
        """Take some items and no more. The others must wait."""
        self._taker(which).take(items)

    @precondition(lambda self: self._takers)
    @step(which=st.integers(0, 2))
    def stop(self, which: int) -> None:
        """Stop an iteration."""
        taker = self._taker(which)
        self._record(f"the iteration of call {taker.call.number} is stopped")
        taker.stop()

    # Steps with workers.

    @property
    def _canHurt(self) -> bool:
        return type(self).hurtWorker is not WorkerConformance.hurtWorker

    @step()
    def recall(self) -> None:
        """Recall the calls that the worker has not started."""
        worker = self._workers[-1]
        if hasattr(worker, "recall"):
            worker.recall()

    @step()
    def update(self) -> None:
        """Run an update on every worker, present and future."""
        call = self.model.make(CallRequest("update"))
        call.workers = ENOUGH
        f = self._notebook.write if self.residents else self.callable("give")
        d = self.queue.update(f, self._place, call.number)
        self._record(f"update {call.number} is made")
        self._updates.append(call)
        self._await(call, d)

    @precondition(lambda self: self.residents)
    @step()
    def read(self) -> None:
        """Read what updates wrote."""
        call = self.model.make(CallRequest("read", retries=2))
        call.expected = [update.number for update in self._updates if update.ends and not update.exposed]
        self._submit(call, CallSpec(self._notebook.read, (self._place, call.number)))

    @precondition(lambda self: self._canHurt)
    @step()
    def hurt(self) -> None:
        """Kill the worker."""
        self._rest()
        worker = self._workers[-1]
        struck = list(worker.front)
        self._charge(struck)
        self._expose(worker)
        self._record("the worker is killed")
        self.hurtWorker(worker.worker)
        names = ", ".join(str(run.number) for run in struck)
        self._until(
            lambda: worker.gone or all(run.outcome is not None for run in struck),
            Guarantee.DEATH_NOTICED,
            f"calls {names} had no outcome after the worker that ran them was killed",
        )
        if not self._holding:
            self._probe(Guarantee.DEATH_NOTICED, "after the worker was killed", perhaps=1)
        self._rest()

    @precondition(lambda self: not self._holding)
    @step(behind=st.integers(1, 3), then=st.sampled_from(("cancelHeld", "hurt", "replace", "wait")))
    def queueBehind(self, behind: int, then: str) -> None:
        """Hold a call with others behind it that may start only once, then do THEN."""
        for _ in range(6):  # calls that return at once, so that the worker's window grows
            self._make(CallRequest("give"))
        self._rest()
        self._make(CallRequest("hold"))
        for _ in range(behind):
            self._make(CallRequest("give", retries=0))
        if then == "cancelHeld":
            self.cancelHeld(which=0)
        elif then == "replace":
            self.replace(crash=True, reassign=True)
        elif then == "hurt" and self._canHurt:
            self.hurt()

    @step(crash=st.booleans(), reassign=st.booleans())
    def replace(self, crash: bool, reassign: bool) -> None:
        """Detach the worker, by a crash or normally, and attach another."""
        self._rest()
        worker = self._workers[-1]
        how = "is crashed" if crash else "is detached"
        calls = "reassigned" if reassign else "not reassigned"
        self._record(f"the worker {how}, its calls are {calls}, and another is attached")
        unfinished = [run.task for run in worker.held]
        if crash:
            if reassign:
                self._charge(worker.front)
            else:
                self._drop(worker.held)
            self._expose(worker)
        self._exposeUpdates()
        left = self.queue.detachWorker(worker, reassign=reassign, crash=crash)
        self._leaving.append(left.addCallback(self._left, unfinished if crash and not reassign else []))
        self._addWorker()

    @step()
    def stopWhileBusy(self) -> None:
        """Stop the worker while it is busy, and attach another."""
        self._rest()
        worker = self._workers[-1]
        self._expose(worker)
        self._record("the worker is detached and stopped at once, and another is attached")
        self._leaving.append(self.queue.detachWorker(worker).addCallback(self._left, []))
        if not worker.gone and not worker.stops:
            worker.stop()
        numbers = {run.number for run in worker.runs}
        for call in [call for call in self._holding if call.number in numbers]:
            self._release(call)
        for number in numbers & self._takers.keys():
            self._takers[number].take(ENOUGH)  # the worker may wait for these items
        self._addWorker()
        self._until(lambda: not worker.stops, Guarantee.NOTHING_LEFT, "the worker was stopped and never finished")
