"""What a worker is checked against.

A `CallRequest` is what is asked of a worker; a `Call` is a wish that was uttered, and what has befallen it since. From
these alone `Model.broken` tells how each call must have ended, how often it may have been started, and what items
it must have given. It knows nothing of workers, reactors or time.

A call's fate follows from four things that may befall it:

- *cancelled*: it ends in CancelledError; where it had not started, it never does.
- *charged*: its worker died, or was made to crash, while it ran. It is started again, `CallRequest.retries` times at
most,
  then it is lost. *Perhaps* charged is a call of which nobody can say whether it ran.
- *dropped*: its worker was made to crash and nobody was to have its tasks. It is lost.
- *exposed*: an iteration whose worker may have died. It gives a beginning of its items, and may then be lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import attrs
from twisted.internet.defer import CancelledError

from asynqueue.errors import QueueRunError, TimeoutError, WorkerLost
from asynqueue.iteration.deferator import Deferator
from asynqueue.testing.guarantees import Guarantee
from asynqueue.testing.workload import MORE, Journal, KitError

Broken: TypeAlias = tuple[Guarantee, str]

QUALIFIED = ("one", "two")
"""The series for which the kit's workers are made."""

UNQUALIFIED = "nobody's"
"""A series for which no worker of the kit is made."""


@attrs.frozen
class CallRequest:
    """What is asked of a worker: to ``give`` a number, to ``fail``, to ``hold`` until released, to ``iterate``."""

    do: str
    items: int = 0  # how many an iterator has
    breaks: bool = False  # it raises after them
    fed: bool = False  # they go to a consumer
    raw: bool | None = None  # the iterator itself is wanted, or its items, or what the worker gives if nothing is said
    keyword: str | None = None  # what is given has more added to it, by this name
    series: str | None = None
    niceness: int = 0
    where: str | None = None  # doNext, doLast
    retries: int = 1

    def __repr__(self) -> str:
        """The wish in the words of the one who would make it, so that a story can be read."""
        default = CallRequest(self.do)
        said = [
            f"{f.name}={x!r}" for f in attrs.fields(CallRequest)[1:] if (x := getattr(self, f.name)) != default.part(f)
        ]
        return f"Wish({', '.join([repr(self.do), *said])})"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """The same for Hypothesis's printer, which has no type."""
        printer.text(repr(self))

    def part(self, field: attrs.Attribute[Any]) -> Any:
        """The value of FIELD, of whatever type that is."""
        return getattr(self, field.name)


@attrs.define(eq=False)
class Call:
    """A wish that was uttered, and what has befallen it."""

    number: int
    wish: CallRequest
    cancelled: bool = False
    isStuckUnstarted: bool = False
    charged: int = 0
    perhaps: int = 0
    dropped: bool = False
    exposed: bool = False
    expires: bool = False  # it never ends by itself, and has a timeout
    stopped: bool = False  # its items are not wanted any more
    expected: list[int] = attrs.field(factory=list)  # what it must at least have read in a notebook
    workers: int = 1  # how many run it: more than one for an update
    ends: list[object] = attrs.field(factory=list)  # what its Deferred fired with: values, and errors
    got: list[int] = attrs.field(factory=list)  # its items
    over: bool = False  # no more items come
    error: BaseException | None = None  # what came in their place

    @property
    def ended(self) -> bool:
        """True when nothing more is heard of it."""
        return bool(self.ends) and (self.over or not self.iterates)

    @property
    def iterates(self) -> bool:
        """True when its result is taken item by item."""
        wish = self.wish
        return wish.do == "iterate" and not (wish.raw or wish.fed) and not (self.ends and _isError(self.ends[0]))

    @property
    def mayBeLost(self) -> bool:
        """True when `WorkerLost` is how it may end."""
        return self.dropped or self.exposed or self.charged + self.perhaps > self.wish.retries


class Model:
    """All calls that were made, and what does not agree with them."""

    def __init__(self) -> None:
        self.calls: dict[int, Call] = {}

    def make(self, wish: CallRequest) -> Call:
        """Utter WISH."""
        number = len(self.calls) + 1
        call = self.calls[number] = Call(number, wish)
        return call

    def broken(self, journal: Journal) -> Iterator[Broken]:
        """What does not agree, now that everything has ended: the JOURNAL is what the calls themselves wrote."""
        for call in self.calls.values():
            starts = journal.count("start", call.number)
            yield from self._settled(call)
            yield from self._started(call, starts)
            if call.ends:
                yield from self._end(call, call.ends[0], starts)
            if call.wish.do == "iterate" and not call.wish.raw:
                yield from self._items(call, journal)

    def soFar(self, journal: Journal) -> Iterator[Broken]:
        """What does not agree, whatever is still to come."""
        for call in self.calls.values():
            yield from self._started(call, journal.count("start", call.number))
            if call.got != list(range(len(call.got))):
                yield Guarantee.EXACT_ITEMS, f"call {call.number}, of {call.wish.items} items, gave {call.got}"
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
        again = min(call.wish.retries, call.charged + call.perhaps + call.expires)
        if call.isStuckUnstarted and starts:
            yield Guarantee.CANCELLATION, f"call {call.number} was cancelled before it could start, and was started"
        elif starts > call.workers * (1 + again):
            guarantee = Guarantee.STARTED_AGAIN_ONCE if again else Guarantee.NOTHING_LOST
            yield guarantee, f"call {call.number} was started {starts} times, where {1 + again} are right"

    def _end(self, call: Call, end: object, starts: int) -> Iterator[Broken]:
        number, do = call.number, call.wish.do
        if call.cancelled:
            if not isinstance(end, CancelledError):
                yield Guarantee.CANCELLATION, f"call {number} was cancelled and ended in {end!r}"
        elif isinstance(end, WorkerLost):
            if not call.mayBeLost:
                guarantee = Guarantee.STARTED_AGAIN_ONCE if call.charged else Guarantee.NEIGHBOURS
                yield guarantee, f"call {number} was lost, though its worker did not die while it ran ({end})"
        elif call.dropped:
            yield Guarantee.CRASH, f"call {number} was dropped with its worker and ended in {end!r}"
        elif call.wish.series == UNQUALIFIED:
            if starts or not isinstance(end, QueueRunError):
                yield Guarantee.QUALIFIED, f"call {number} is of a series for no worker, and ended in {end!r}"
        elif call.charged > call.wish.retries:
            yield Guarantee.STARTED_AGAIN_ONCE, f"call {number} lost {call.charged} workers and ended in {end!r}"
        elif call.expires:
            if not isinstance(end, TimeoutError):
                yield Guarantee.TIMEOUT, f"call {number} outran its timeout and ended in {end!r}"
        elif not starts:
            guarantee = Guarantee.UPDATES if do == "update" else Guarantee.NOTHING_LOST
            yield guarantee, f"call {number} ended in {end!r} and was never started"
        elif do == "fail":
            if type(end) is not KitError or end.args != (number, "in a call"):
                yield Guarantee.ORIGINAL_ERRORS, f"call {number} raised Mishap({number}) and ended in {end!r}"
        elif do == "give" and call.wish.keyword:
            if end == number or isinstance(end, TypeError):
                said = f"{call.wish.keyword}={MORE}"
                yield Guarantee.ARGUMENTS, f"call {number} was to be made with {said}, and ended in {end!r}"
            elif end != number + MORE:
                yield Guarantee.NOTHING_LOST, f"call {number} returned {number + MORE} and ended in {end!r}"
        elif do == "iterate" and call.wish.raw:
            if not isinstance(end, type(iter(range(0)))) or list(end) != list(range(call.wish.items)):
                how = f"call {number} is raw and returned an iterator of {call.wish.items} items, and ended in {end!r}"
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
        number, got, wish = call.number, call.got, call.wish
        error = call.ends[0] if call.ends and _isError(call.ends[0]) else call.error
        if got != list(range(len(got))) or len(got) > wish.items:
            yield Guarantee.EXACT_ITEMS, f"call {number}, of {wish.items} items, gave {got}"
            return
        if call.cancelled or isinstance(error, (WorkerLost, QueueRunError)):
            if isinstance(error, WorkerLost) and not call.mayBeLost:
                yield Guarantee.EXACT_ITEMS, f"the iteration of call {number} was lost, and its worker did not die"
        elif wish.fed and isinstance(error, TypeError):
            yield Guarantee.RAW, f"call {number} is not raw, and its consumer got no items ({error})"
        elif error is not None:
            if not wish.breaks or type(error) is not KitError or error.args != (number, "in an iterator"):
                yield Guarantee.ERROR_AFTER_ITEMS, f"the iterator of call {number} ended in {error!r}"
            elif len(got) != wish.items:
                yield Guarantee.ERROR_AFTER_ITEMS, f"call {number} failed after {len(got)} of {wish.items} items"
        elif not call.stopped:
            if len(got) != wish.items:
                yield Guarantee.EXACT_ITEMS, f"call {number}, of {wish.items} items, gave {got} and no more"
            elif wish.breaks:
                yield Guarantee.ERROR_AFTER_ITEMS, f"the iterator of call {number} raised, and nobody heard of it"
        if not call.exposed and not call.charged and not call.perhaps and not call.dropped:
            begun, closed = journal.count("begun", number), journal.count("closed", number)
            if begun != closed:
                yield Guarantee.ITERATION_ENDS, f"of {begun} iterators of call {number}, {closed} ran their finally"


def _isError(end: object) -> bool:
    return isinstance(end, BaseException)
