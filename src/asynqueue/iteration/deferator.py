"""A `Deferator`: an iterator whose items come as Deferreds. A `Prefetcherator`: one that tells whether more are left.

The iterator may live anywhere; what is here drives the pure machine `asynqueue.core.flow.iteration.Inflow`, which
decides how much is fetched ahead, with an `asynqueue.interfaces.ItemSource`, which has the items.
`asynqueue.iteration.sources` has those of this program's own main loop.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from functools import partial
from itertools import count
from reprlib import repr as shortly
from typing import Any, Generic, TypeAlias, TypeVar, overload

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from asynqueue.core.flow import iteration as core
from asynqueue.core.flow.iterators import isIterator
from asynqueue.errors import NotReadyError
from asynqueue.interfaces import Clock, ItemSource
from asynqueue.iteration.sources import FetchSource, LocalSource, closeNext, fetchNext, fetchPair, fetchTriple
from asynqueue.reactor.failures import ERROR, failureOf
from asynqueue.reactor.lookup import installedReactor

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

Triple: TypeAlias = tuple[T | None, bool, bool]
"""An item, whether it is one, and whether more are left."""

_log = Logger(namespace="asynqueue")
_numbers = count(1)


class Deferator(Generic[T_co]):
    """An iterator whose items come as Deferreds.

    In a function with inlineCallbacks, or in a coroutine::

        for d in deferator:             async for item in deferator:
            item = yield d                  print(item)
            print(item)

    A Deferred that `for` gives fires once it is known whether another item follows. An error that the iterator
    raised comes in the place of the next item. Leave a loop early with `stop`, or with the `stop` that each Deferred
    has; a Deferator that nobody has any more stops by itself. What the iterator raises after that is logged.

    OBJORREP is one of these:

    - an iterator, or a generator function without arguments, which is run in the main loop, a slice at a time;
    - an asynchronous iterator;
    - a `Prefetcherator` that has been set up;
    - an `asynqueue.interfaces.ItemSource`;
    - anything at all that says for people what is iterated, if CALLTUPLE says how: a callable ``f``, its arguments, and
      last of all, if it is a dict, its keywords. Each call of ``f`` gives ``(item, isValid, moreLeft)``, or a Deferred
      or a coroutine of that, and is made when the one before has fired. When the item is not valid, it is not one, and
      there was none left. A ``moreLeft`` that turns out to be wrong is the end in an ``async for``; a `for`, which goes
      round for one more item then, has `asynqueue.errors.ImplementationError` in its place.

    At most LIMIT items (2 or more) are fetched and not taken: 256, if it is not given, or 2 where they are fetched one
    by one. `d` fires True when all items have been taken, False when the iteration has ended otherwise; ONENDED is
    called once, when it has ended either way. REACTOR is the installed one if it is not given. Raises TypeError for
    what cannot be iterated so.

    >>> from twisted.internet.task import Clock
    >>> clock = Clock()
    >>> deferator = Deferator(iter("ab"), reactor=clock)
    >>> d = next(deferator).addCallback(print)
    >>> clock.advance(0)
    a
    """

    @overload
    def __init__(
        self,
        objOrRep: ItemSource
        | Iterator[T_co]
        | AsyncIterator[T_co]
        | Callable[[], Iterator[T_co]]
        | Prefetcherator[T_co],
        *,
        limit: int | None = None,
        onEnded: Callable[[], None] | None = None,
        reactor: Clock | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self,
        objOrRep: object,
        f: Callable[..., Deferred[Triple[T_co]] | Coroutine[Any, Any, Triple[T_co]] | Triple[T_co]],
        /,
        *args: Any,
        limit: int | None = None,
        onEnded: Callable[[], None] | None = None,
        reactor: Clock | None = None,
    ) -> None: ...
    def __init__(
        self,
        objOrRep: Any,
        *callTuple: Any,
        limit: int | None = None,
        onEnded: Callable[[], None] | None = None,
        reactor: Clock | None = None,
    ) -> None:
        source = _sourceOf(objOrRep, callTuple, reactor)
        if limit is None:
            limit = 2 if isinstance(source, FetchSource) else core.AHEAD_LIMIT
        self._rep = objOrRep
        self._intake = _Intake(source, onEnded, limit)
        if isinstance(source, LocalSource) and source is not objOrRep:
            source.hurry()  # so that `for` knows at once whether there is anything to go round for
        self.d: Deferred[bool] = Deferred()
        self._intake.ended.addCallback(_tell, weakref.ref(self.d))
        weakref.finalize(self, _stopFromAnywhere, self._intake, installedReactor(reactor)).atexit = False

    def __repr__(self) -> str:
        return f"<Deferator of {self._rep if isinstance(self._rep, str) else shortly(self._rep)}>"

    @staticmethod
    def isIterator(x: object) -> bool:
        """True for generators, generator functions, and whatever else has ``__iter__`` and ``__next__``.

        >>> Deferator.isIterator(iter([1])), Deferator.isIterator([1]), Deferator.isIterator("one")
        (True, False, False)
        """
        return isIterator(x) or inspect.isgeneratorfunction(x)

    @property
    def moreLeft(self) -> bool:
        """False once it is known that there is nothing more to ask for."""
        return self._intake.flow.more

    @property
    def idle(self) -> bool:
        """True while it has not ended, and nobody waits for an item of it."""
        return not (self._intake.flow.ended or self._intake.flow.asked)

    def stop(self) -> None:
        """End the iteration. The iterator's ``finally`` is run where it lives; what waits for an item is told
        that there is none. May be called at any time, and again."""
        self._intake.stop()

    def whenKnown(self) -> Deferred[Deferator[T_co]]:
        """Fires with this Deferator once it is known whether there is a first item."""
        known: Deferred[Deferator[T_co]] = Deferred()
        if self._intake.known.called:
            return succeed(self)
        self._intake.known.addCallback(lambda _: known.callback(self))
        return known

    def __iter__(self) -> Iterator[Deferred[T_co]]:
        return self

    def __next__(self) -> Deferred[T_co]:
        """The Deferred of the next item. Raises `NotReadyError` while the last one has not fired."""
        if not self.moreLeft and not self._intake.flow.asked:
            raise StopIteration
        return self._ask(lookahead=True)

    def __aiter__(self) -> AsyncIterator[T_co]:
        return self

    def __anext__(self) -> Deferred[T_co]:
        """The Deferred of the next item; fails with StopAsyncIteration when there is none."""
        if not self.moreLeft and not self._intake.flow.asked:
            return fail(Failure(StopAsyncIteration()))
        return self._ask(lookahead=False)

    def _ask(self, lookahead: bool) -> ItemDeferred[T_co]:
        if self._intake.flow.asked:
            raise NotReadyError("the last item has not come: wait for its Deferred before you ask for the next")
        item: ItemDeferred[T_co] = ItemDeferred(self._intake.unask)
        item.stop = self.stop
        self._intake.ask(item, lookahead)
        return item


class Prefetcherator(Generic[T]):
    """Fetches one item ahead, and so can tell with each whether more are left.

    ID is for people, a number of its own if it is not given.

    >>> from twisted.internet.task import Clock
    >>> clock = Clock()
    >>> p = Prefetcherator(reactor=clock)
    >>> d = p.setup(iter("ab")).addCallback(print)
    True
    >>> for _ in range(3):
    ...     d = p.getNext().addCallback(print)
    ...     clock.advance(0)
    ('a', True, True)
    ('b', True, False)
    (None, False, False)
    """

    def __init__(self, ID: object = None, *, reactor: Clock | None = None) -> None:
        self.ID = next(_numbers) if ID is None else ID
        self._reactor = reactor
        self._deferator: Deferator[T] | None = None

    def __repr__(self) -> str:
        return f"<Prefetcherator {shortly(self.ID)}>"

    def setup(self, iteratorOrCallable: Any, /, *args: Any, **kw: Any) -> Deferred[bool]:
        """Fetch from ITERATORORCALLABLE: an iterator, what a generator function makes of ARGS and KW, or by a callable.

        The callable is called with ARGS and KW for each item, and gives ``(item, isValid)``, or a Deferred or a
        coroutine of that; the first that is not valid is the end.

        Fires True when there is something to get, an item or an error; False when there is not, or when it is nothing
        to fetch from. Raises RuntimeError while it `isBusy` with what it was set up with before. (Any callable will
        do, and whatever it takes: hence Any.)
        """
        if self.isBusy():
            raise RuntimeError(f"{self!r} is busy: stop it before you set it up again")
        if inspect.isgeneratorfunction(iteratorOrCallable):
            iteratorOrCallable, args, kw = iteratorOrCallable(*args, **kw), (), {}
        if isIterator(iteratorOrCallable) and not args and not kw:
            self._deferator = Deferator(iteratorOrCallable, limit=2, reactor=self._reactor)
        elif callable(iteratorOrCallable):
            fetch = partial(fetchPair, iteratorOrCallable, args, kw)
            self._deferator = Deferator(FetchSource(fetch, reactor=self._reactor), reactor=self._reactor)
        else:
            return succeed(False)
        return self._deferator.whenKnown().addCallback(lambda deferator: deferator.moreLeft)

    def getNext(self) -> Deferred[Triple[T]]:
        """Fires with ``(item, True, moreLeft)``, or with ``(None, False, False)`` when there is none.

        It fails with what the iterator raised, after the items before that. To cancel it leaves the item the next one.
        Raises `asynqueue.errors.NotReadyError` while the last one has not fired.
        """
        deferator = self._deferator
        if deferator is None:
            return succeed((None, False, False))

        def got(item: T) -> Triple[T]:
            return item, True, deferator.moreLeft

        def none(reason: Failure) -> Triple[T]:
            reason.trap(StopAsyncIteration)
            return None, False, False

        try:
            return next(deferator).addCallbacks(got, none)
        except StopIteration:
            return succeed((None, False, False))

    def isBusy(self) -> bool:
        """True while there may be something to get."""
        return self._deferator is not None and self._deferator.moreLeft

    def stop(self) -> None:
        """End it, and run the iterator's ``finally``. It may be set up again."""
        if self._deferator is not None:
            self._deferator.stop()
            self._deferator = None


class ItemDeferred(Deferred[T]):
    """Fires with an item. STOP ends the iteration it comes from."""

    stop: Callable[[], None]


class _Intake:
    """Drives an `Inflow`: what comes from SOURCE goes to whoever waits for it.

    It lives as long as the source does; the `Deferator` lives as long as somebody has it.
    """

    def __init__(self, source: ItemSource, onEnded: Callable[[], None] | None, limit: int) -> None:
        self.flow = core.Inflow(limit)
        self.known: Deferred[None] = Deferred()
        self.ended: Deferred[bool] = Deferred()
        self._source = source
        self._onEnded = onEnded
        self._waiting: Deferred[Any] | None = None  # items are of the type that the user's iterator yields
        source.begin(self)
        self._do(self.flow.begin())

    def ask(self, waiting: Deferred[Any], lookahead: bool) -> None:
        self._waiting = waiting
        self._do(self.flow.ask(lookahead))

    def unask(self, _: Deferred[Any]) -> None:
        self._waiting = None
        self.flow.unask()

    def stop(self) -> None:
        self._do(self.flow.stop())

    def arrived(self, items: Sequence[Any], more: bool = False) -> None:
        self._do(self.flow.arrived(items, more))

    def over(self, error: BaseException | None) -> None:
        self._do(self.flow.over(error))
        if self._onEnded is not None:
            onEnded, self._onEnded = self._onEnded, None
            onEnded()

    def _do(self, commands: list[core.Command]) -> None:
        for command in commands:
            if isinstance(command, core.Grant):
                self._source.grant(command.items)
            elif isinstance(command, core.Deliver):
                self._answer(command.item)
            elif isinstance(command, core.Finish):
                self._answer(failureOf(command.error) if command.error is not None else Failure(StopAsyncIteration()))
            elif isinstance(command, core.FirstKnown):
                self.known.callback(None)
            elif isinstance(command, core.Close):
                self._source.close()
            elif isinstance(command, core.Ended):
                self.ended.callback(command.complete)
            else:
                _log.failure("an iterator raised an error after it was stopped", failureOf(command.error), ERROR)

    def _answer(self, result: Any) -> None:
        waiting, self._waiting = self._waiting, None
        if isinstance(result, Deferred) and waiting is not None:
            result.chainDeferred(waiting)
        elif waiting is not None:
            waiting.callback(result)


def _sourceOf(objOrRep: Any, callTuple: tuple[Any, ...], reactor: Clock | None) -> ItemSource:
    """Where the items come from that a Deferator is asked for. (It may be asked for by anything: hence Any.)"""
    if callTuple:
        f, *args = callTuple
        if not callable(f):
            raise TypeError(f"what a Deferator fetches its items by must be callable, got {shortly(f)}")
        kw = args.pop() if args and isinstance(args[-1], dict) else {}
        return FetchSource(partial(fetchTriple, f, tuple(args), kw), reactor=reactor)
    if isinstance(objOrRep, ItemSource):
        return objOrRep
    if isinstance(objOrRep, Prefetcherator):
        return FetchSource(partial(fetchTriple, objOrRep.getNext, (), {}), objOrRep.stop, reactor)
    if inspect.isgeneratorfunction(objOrRep):
        objOrRep = objOrRep()
    if isinstance(objOrRep, AsyncIterator):
        return FetchSource(partial(fetchNext, objOrRep), partial(closeNext, objOrRep), reactor)
    if isIterator(objOrRep):
        return LocalSource(objOrRep, reactor)
    raise TypeError(f"a Deferator needs an iterator, got {type(objOrRep).__name__}")


def _stopFromAnywhere(intake: _Intake, reactor: Any) -> None:
    """Have INTAKE stopped by REACTOR, in a turn of its own.

    Rubbish is collected in any thread, and in the middle of anything, this very iteration's machinery included.
    (A reactor has threads, a clock need not: hence Any.)
    """
    if not intake.flow.ended:
        getattr(reactor, "callFromThread", partial(reactor.callLater, 0))(intake.stop)


def _tell(complete: bool, whom: weakref.ref[Deferred[bool]]) -> None:
    """Fire the Deferred that WHOM refers to, if anybody has it still."""
    d = whom()
    if d is not None and not d.called:
        d.callback(complete)
