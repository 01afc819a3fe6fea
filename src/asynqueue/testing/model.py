"""The model that a worker is checked against.

A `CallRequest` is what is asked of a worker. A `Call` is a request that was made, and what has happened to it since.
From these alone, `Model.broken` decides how each call must have ended, how often it may have been started, and what
items it must have given. The model knows nothing of workers, reactors or time.

Four events decide how a call ends:

- *cancelled*: it ends with CancelledError. If it had not started, it never starts.
- *charged*: its worker died or crashed while the call ran. The call starts again, at most `CallRequest.retries` times.
  After that it is lost. If it is unknown whether the call ran, it is *perhaps* charged.
- *dropped*: its worker crashed and its tasks were not reassigned. It is lost.
- *exposed*: the worker of an iteration may have died. The iteration gives its first items, and may then be lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import attrs
from twisted.internet.defer import CancelledError

from asynqueue.core.records import CallSpec
from asynqueue.errors import QueueRunError, TimeoutError, WorkerLost
from asynqueue.iteration.deferator import Deferator
from asynqueue.testing.guarantees import Guarantee
from asynqueue.testing.workload import MORE, Journal, KitError

Broken: TypeAlias = tuple[Guarantee, str]

QUALIFIED = ("one", "two")
"""The series for which the kit's workers are made."""

UNQUALIFIED = "nobody's"
"""A series for which the kit makes no worker."""


@attrs.frozen
class CallRequest:
    """A call that the kit asks a worker to run.

    Attributes:
        do: What the call does: "give" a number, "fail", "hold" until it is released, or "iterate".
        items: The number of an iterator's items.
        breaks: The iterator raises an error after its items.
        fed: The items go to a consumer.
        raw: True wants the iterator itself, False its items, and None does not say.
        keyword: The name of a keyword argument, which is added to the result.
        series: The series of the call.
        niceness: The niceness of the call.
        where: "doNext", "doLast" or None.
        retries: How often the call may start again.
    """

    do: str
    items: int = 0
    breaks: bool = False
    fed: bool = False
    raw: bool | None = None
    keyword: str | None = None
    series: str | None = None
    niceness: int = 0
    where: str | None = None
    retries: int = 1

    def __repr__(self) -> str:
        """Return the Python code of the request, as short as possible."""
        default = CallRequest(self.do)
        said = [
            f"{f.name}={x!r}" for f in attrs.fields(CallRequest)[1:] if (x := getattr(self, f.name)) != default.part(f)
        ]
        return f"CallRequest({', '.join([repr(self.do), *said])})"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Print the same with Hypothesis's printer, which has no type."""
        printer.text(repr(self))

    def part(self, field: attrs.Attribute[Any]) -> Any:
        """Return the value of FIELD. (Any, because fields differ in type.)"""
        return getattr(self, field.name)


@attrs.define(eq=False)
class Call:
    """A request that was made, and what has happened to it."""

    number: int
    request: CallRequest
    cancelled: bool = False
    unstarted: bool = False
    charged: int = 0
    perhaps: int = 0
    dropped: bool = False
    exposed: bool = False
    expires: bool = False  # the call never ends by itself, and has a time limit
    stopped: bool = False  # the iteration was stopped
    expected: list[int] = attrs.field(factory=list)  # the numbers that it must have read in a notebook
    workers: int = 1  # how many workers run it: more than one for an update
    ends: list[object] = attrs.field(factory=list)  # the values and errors with which its Deferred fired
    got: list[int] = attrs.field(factory=list)  # its items
    over: bool = False  # the iteration has ended
    error: BaseException | None = None  # the error of the iteration

    def spec(self, f: Callable[..., Any], place: str) -> CallSpec[Any]:
        """Return the call itself.

        Args:
            f: The function of `asynqueue.testing.workload` that does what the request says, or one like it.
            place: The directory of the journal.
        """
        request = self.request
        args: tuple[Any, ...] = (place, self.number)
        if request.do == "iterate":
            args += (request.items, request.breaks) if request.raw is None else (request.items, False, True)
        return CallSpec(f, args, {request.keyword: MORE} if request.keyword else {})

    def options(self) -> dict[str, Any]:
        """Return the options with which it is submitted."""
        request = self.request
        options: dict[str, Any] = {name: getattr(request, name) for name in ("series", "niceness", "retries", "raw")}
        return {**options, request.where: True} if request.where else options

    @property
    def ended(self) -> bool:
        """True when the call, and its iteration, have ended."""
        return bool(self.ends) and (self.over or not self.iterates)

    @property
    def iterates(self) -> bool:
        """True when its result is taken item by item."""
        request = self.request
        byItem = request.do == "iterate" and not (request.raw or request.fed)
        return byItem and not (self.ends and _isError(self.ends[0]))

    @property
    def mayBeLost(self) -> bool:
        """True when the call may end with `WorkerLost`."""
        return self.dropped or self.exposed or self.charged + self.perhaps > self.request.retries


class Model:
    """All calls that were made, and the checks of their outcomes."""

    def __init__(self) -> None:
        self.calls: dict[int, Call] = {}

    def make(self, request: CallRequest) -> Call:
        """Make a call.

        Args:
            request: What is asked of the worker.

        Returns:
            The new call.
        """
        number = len(self.calls) + 1
        call = self.calls[number] = Call(number, request)
        return call

    def broken(self, journal: Journal) -> Iterator[Broken]:
        """Yield the broken guarantees after everything has ended.

        Args:
            journal: What the calls themselves recorded.
        """
        for call in self.calls.values():
            starts = journal.count("start", call.number)
            yield from self._settled(call)
            yield from self._started(call, starts)
            if call.ends:
                yield from self._end(call, call.ends[0], starts)
            if call.request.do == "iterate" and not call.request.raw:
                yield from self._items(call, journal)

    def soFar(self, journal: Journal) -> Iterator[Broken]:
        """Yield the guarantees that are broken already, whatever comes next.

        Args:
            journal: What the calls themselves recorded.
        """
        for call in self.calls.values():
            yield from self._started(call, journal.count("start", call.number))
            if call.got != list(range(len(call.got))):
                yield Guarantee.EXACT_ITEMS, f"call {call.number}, of {call.request.items} items, gave {call.got}"
            if len(call.ends) > 1:
                yield from self._settled(call)

    def _settled(self, call: Call) -> Iterator[Broken]:
        if len(call.ends) != 1:
            times = "never" if not call.ends else f"{len(call.ends)} times"
            yield Guarantee.NOTHING_LOST, f"call {call.number} settled {times}"
        elif call.iterates and not isinstance(call.ends[0], Deferator):
            yield Guarantee.RAW, f"call {call.number} is not raw, and gave no items, but {call.ends[0]!r}"
        elif call.iterates and not call.over:
            yield Guarantee.ITERATION_ENDS, f"the iteration of call {call.number} never ended"

    def _started(self, call: Call, starts: int) -> Iterator[Broken]:
        again = min(call.request.retries, call.charged + call.perhaps + call.expires)
        if call.unstarted and starts:
            yield Guarantee.CANCELLATION, f"call {call.number} was cancelled before it could start, and was started"
        elif starts > call.workers * (1 + again):
            guarantee = Guarantee.STARTED_AGAIN_ONCE if again else Guarantee.NOTHING_LOST
            yield guarantee, f"call {call.number} was started {starts} times, where {1 + again} are right"

    def _end(self, call: Call, end: object, starts: int) -> Iterator[Broken]:
        number, do = call.number, call.request.do
        if call.cancelled:
            if not isinstance(end, CancelledError):
                yield Guarantee.CANCELLATION, f"call {number} was cancelled and ended in {end!r}"
        elif isinstance(end, WorkerLost):
            if not call.mayBeLost:
                guarantee = Guarantee.STARTED_AGAIN_ONCE if call.charged else Guarantee.NEIGHBOURS
                yield guarantee, f"call {number} was lost, though its worker did not die while it ran ({end})"
        elif call.dropped:
            yield Guarantee.CRASH, f"call {number} was dropped with its worker and ended in {end!r}"
        elif call.request.series == UNQUALIFIED:
            if starts or not isinstance(end, QueueRunError):
                yield Guarantee.QUALIFIED, f"call {number} is of a series for no worker, and ended in {end!r}"
        elif call.charged > call.request.retries:
            yield Guarantee.STARTED_AGAIN_ONCE, f"call {number} lost {call.charged} workers and ended in {end!r}"
        elif call.expires:
            if not isinstance(end, TimeoutError):
                yield Guarantee.TIMEOUT, f"call {number} exceeded its time limit and ended in {end!r}"
        elif not starts:
            guarantee = Guarantee.UPDATES if do == "update" else Guarantee.NOTHING_LOST
            yield guarantee, f"call {number} ended in {end!r} and was never started"
        elif do == "fail":
            if type(end) is not KitError or end.args != (number, "in a call"):
                yield Guarantee.ORIGINAL_ERRORS, f"call {number} raised KitError({number}) and ended in {end!r}"
        elif do == "give" and call.request.keyword:
            if end == number or isinstance(end, TypeError):
                said = f"{call.request.keyword}={MORE}"
                yield Guarantee.ARGUMENTS, f"call {number} was to be made with {said}, and ended in {end!r}"
            elif end != number + MORE:
                yield Guarantee.NOTHING_LOST, f"call {number} returned {number + MORE} and ended in {end!r}"
        elif do == "iterate" and call.request.raw:
            if not isinstance(end, type(iter(range(0)))) or list(end) != list(range(call.request.items)):
                how = f"call {number} is raw, for an iterator of {call.request.items} items, and ended in {end!r}"
                yield Guarantee.RAW, how
        elif do in ("give", "hold"):
            if end != number:
                yield Guarantee.NOTHING_LOST, f"call {number} returned {number} and ended in {end!r}"
        elif do == "update":
            if not isinstance(end, list) or set(end) - {number}:
                yield Guarantee.UPDATES, f"update {number} returned {number} on each worker and ended in {end!r}"
        elif do == "read" and not (isinstance(end, list) and set(call.expected) <= set(end)):
            yield Guarantee.RESIDENTS, f"call {number} read {end!r} where updates wrote {call.expected}"

    def _items(self, call: Call, journal: Journal) -> Iterator[Broken]:
        number, got, request = call.number, call.got, call.request
        error = call.ends[0] if call.ends and _isError(call.ends[0]) else call.error
        if got != list(range(len(got))) or len(got) > request.items:
            yield Guarantee.EXACT_ITEMS, f"call {number}, of {request.items} items, gave {got}"
            return
        if call.cancelled or isinstance(error, (WorkerLost, QueueRunError)):
            if isinstance(error, WorkerLost) and not call.mayBeLost:
                yield Guarantee.EXACT_ITEMS, f"the iteration of call {number} was lost, and its worker did not die"
        elif request.fed and isinstance(error, TypeError):
            yield Guarantee.RAW, f"call {number} is not raw, and its consumer got no items ({error})"
        elif error is not None:
            if not request.breaks or type(error) is not KitError or error.args != (number, "in an iterator"):
                yield Guarantee.ERROR_AFTER_ITEMS, f"the iterator of call {number} ended in {error!r}"
            elif len(got) != request.items:
                yield Guarantee.ERROR_AFTER_ITEMS, f"call {number} failed after {len(got)} of {request.items} items"
        elif not call.stopped:
            if len(got) != request.items:
                yield Guarantee.EXACT_ITEMS, f"call {number}, of {request.items} items, gave {got} and no more"
            elif request.breaks:
                yield Guarantee.ERROR_AFTER_ITEMS, f"the iterator of call {number} raised an error, which was lost"
        if not call.exposed and not call.charged and not call.perhaps and not call.dropped:
            begun, closed = journal.count("begun", number), journal.count("closed", number)
            if begun != closed:
                yield Guarantee.ITERATION_ENDS, f"of {begun} iterators of call {number}, {closed} ran their finally"


def _isError(end: object) -> bool:
    return isinstance(end, BaseException)
