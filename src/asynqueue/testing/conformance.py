"""The machine that puts a worker through everything that may happen to one.

Theory of operation. Each example is a story. A queue gets a worker, calls are made, cancelled and timed out, items are
taken, workers are killed, replaced and stopped, in whatever order Hypothesis draws. What a step may do depends on the
steps before it alone, never on how fast a worker is, so that a story can be told again and made shorter.

Some calls are *held*: they run until the story releases them. So there comes a point at which nothing can happen
without another step, everything that a worker may run having ended or being held. Then it is known what runs; only
then a worker is killed, and it is known what has to become of each of its calls. `asynqueue.testing.model` says what.

In the end everything is released, taken and shut down, every call is judged, and nothing may be left behind. The steps
are here; how they are acted out is `asynqueue.testing.harness`'s part.
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
    """A rule of the machine, for which values are DRAWN, and after which nothing may be wrong.

    (An invariant would say the same, but is told of after each step of a story: hence a rule of our own. What
    Hypothesis makes of a rule is its business: hence Any.)
    """

    def decorate(method: Callable[..., None]) -> Any:
        @wraps(method)
        def checked(self: WorkerConformance, **values: Any) -> None:
            method(self, **values)
            self._check()

        made: Any = rule  # its overloads do not allow for keywords that are not known
        return made(**drawn)(checked)

    return decorate


class WorkerConformance(Harness):
    """Checks a worker: subclass it, override `makeWorker`, and run its `TestCase`.

    Override `hurtWorker` too if your worker can be killed, and `makeClock` if it lives on a
    `twisted.internet.task.Clock`; the other attributes and methods say what else a worker may need. How many stories
    are told, and how long they are, is for Hypothesis's settings: ``TestCase.settings = settings(max_examples=50,
    stateful_step_count=20)``.

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
        """A queue, and its worker."""
        self.open()

    # What may happen to calls.

    @step(wish=callRequests())
    def call(self, wish: CallRequest) -> None:
        """A call is made."""
        self._make(wish)

    @step()
    def wait(self) -> None:
        """Things happen."""
        self._turn()

    @step()
    def settle(self) -> None:
        """All happens that can, without anything else."""
        self._rest()

    @precondition(lambda self: self.model.calls)
    @step(back=st.integers(1, 4), rested=st.booleans())
    def cancel(self, back: int, rested: bool) -> None:
        """A call is not wanted any more: when all that can has happened, or in the midst of it."""
        call = self.model.calls.get(len(self.model.calls) + 1 - back)
        if call is None or call.wish.do == "update":
            return
        if rested:
            self._rest()
        if call.ends:
            return
        runs = [run for worker in self._workers for run in worker.held if run.number == call.number]
        running = [run for worker in self._workers for run in worker.front if run.number == call.number]
        call.isStuckUnstarted = not self._journal.count("start", call.number) and (not runs or (rested and not running))
        call.cancelled = True
        self._say(f"call {call.number} is cancelled")
        for worker in self._workers:
            if worker.held:  # it may be replaced by a fresh one
                self._expose(worker)
        self._deferreds[call.number].cancel()
        if call in self._holding:
            self._holding.remove(call)

    @precondition(lambda self: self._holding)
    @step(which=st.integers(0, 2))
    def cancelHeld(self, which: int) -> None:
        """A call that runs is not wanted any more."""
        number = self._holding[which % len(self._holding)].number
        self.cancel(back=len(self.model.calls) + 1 - number, rested=True)

    @precondition(lambda self: self._holding)
    @step(which=st.integers(0, 2))
    def release(self, which: int) -> None:
        """A call that is held may end."""
        self._release(self._holding[which % len(self._holding)])

    @precondition(lambda self: not self._holding and self._overruns < 2)  # it takes its time
    @step()
    def overrun(self) -> None:
        """A call outruns its timeout, twice, and the worker is free again."""
        self._overruns += 1
        self._rest()
        for worker in self._workers:
            self._expose(worker)
        call = self._make(CallRequest("hold", where="doNext"), timeout=self.timeout)
        call.expires = True
        self._holding.remove(call)
        self._until(lambda: call.ended, Guarantee.TIMEOUT, f"call {call.number} outran its timeout and did not end")
        self._probe(Guarantee.TIMEOUT, "after a timeout")

    # What may happen to iterations.

    @precondition(lambda self: self._takers)
    @step(which=st.integers(0, 2), items=st.integers(1, 6))
    def take(self, which: int, items: int) -> None:
        """Some items are taken, and then none: what is not asked for has to wait."""
        self._taker(which).take(items)

    @precondition(lambda self: self._takers)
    @step(which=st.integers(0, 2))
    def stop(self, which: int) -> None:
        """The items of an iteration are not wanted any more."""
        taker = self._taker(which)
        self._say(f"the iteration of call {taker.call.number} is stopped")
        taker.stop()

    # What may happen to workers.

    @property
    def _canHurt(self) -> bool:
        return type(self).hurtWorker is not WorkerConformance.hurtWorker

    @step()
    def recall(self) -> None:
        """The worker is to give back what it has not started."""
        worker = self._workers[-1]
        if hasattr(worker, "recall"):
            worker.recall()

    @step()
    def update(self) -> None:
        """Something is to be done on every worker, now and in the future."""
        call = self.model.make(CallRequest("update"))
        call.workers = ENOUGH
        f = self._notebook.write if self.residents else self.callable("give")
        d = self.queue.update(f, self._place, call.number)
        self._say(f"update {call.number} is made")
        self._updates.append(call)
        self._await(call, d)

    @precondition(lambda self: self.residents)
    @step()
    def read(self) -> None:
        """What updates wrote is read."""
        call = self.model.make(CallRequest("read", retries=2))
        call.expected = [update.number for update in self._updates if update.ends and not update.exposed]
        self._submit(call, CallSpec(self._notebook.read, (self._place, call.number)))

    @precondition(lambda self: self._canHurt)
    @step()
    def hurt(self) -> None:
        """The worker is killed."""
        self._rest()
        worker = self._workers[-1]
        struck = list(worker.front)
        self._charge(struck)
        self._expose(worker)
        self._say("the worker is killed")
        self.hurtWorker(worker.worker)
        names = ", ".join(str(run.number) for run in struck)
        self._until(
            lambda: worker.gone or all(run.outcome is not None for run in struck),
            Guarantee.DEATH_NOTICED,
            f"nothing was heard of calls {names} after the worker that ran them was killed",
        )
        if not self._holding:
            self._probe(Guarantee.DEATH_NOTICED, "after the worker was killed", perhaps=1)
        self._rest()

    @precondition(lambda self: not self._holding)
    @step(behind=st.integers(1, 3), then=st.sampled_from(("cancelHeld", "hurt", "replace", "wait")))
    def crowd(self, behind: int, then: str) -> None:
        """A call is held, and others that may be started once are right behind it, when something happens to it."""
        for _ in range(6):  # which return at once, so that the worker's window grows
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
        """The worker leaves, by a crash or as it should, and another comes."""
        self._rest()
        worker = self._workers[-1]
        how = "is made to crash" if crash else "is to leave"
        self._say(f"the worker {how}, {'and' if reassign else 'and not'} to hand over its calls, and another comes")
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
        self._hire()

    @step()
    def stopWhileBusy(self) -> None:
        """The worker is told to stop while it has something to do, and another comes."""
        self._rest()
        worker = self._workers[-1]
        self._expose(worker)
        self._say("the worker is to leave, and is told to stop at once; another comes")
        self._leaving.append(self.queue.detachWorker(worker).addCallback(self._left, []))
        if not worker.gone and not worker.stops:
            worker.stop()
        numbers = {run.number for run in worker.runs}
        for call in [call for call in self._holding if call.number in numbers]:
            self._release(call)
        for number in numbers & self._takers.keys():
            self._takers[number].take(ENOUGH)  # it may wait for those
        self._hire()
        self._until(lambda: not worker.stops, Guarantee.NOTHING_LEFT, "the worker was told to stop and did not")
