"""The `Deferator`, an iterator whose items come as Deferreds, and the `Prefetcherator`, which knows if more are left.

The iterator may run in any thread or process. An `asynqueue.interfaces.ItemSource` has its items;
`asynqueue.iteration.sources` has the sources for the main loop of this program. The pure machine
`asynqueue.core.flow.iteration.Inflow` decides how many items are fetched ahead.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from functools import partial
from itertools import count
from reprlib import repr as shortly
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar, overload

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from asynqueue.core.flow import iteration as core
from asynqueue.core.results import isA, isDeferred, isIterator
from asynqueue.errors import NotReadyError
from asynqueue.interfaces import Clock, ItemSource
from asynqueue.iteration.sources import FetchSource, LocalSource, closeNext, fetchNext, fetchPlain, fetchTriple
from asynqueue.reactor.calling import whenFired
from asynqueue.reactor.failures import ERROR, delivered, errorIn, failureOf, printable
from asynqueue.reactor.lookup import installedReactor

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

Triple: TypeAlias = tuple[T | None, bool, bool]
"""An item, whether it is one, and whether more are left."""

_log = Logger(namespace="asynqueue")
_numbers = count(1)


class Deferator(Generic[T_co]):
    """An iterator whose items come as Deferreds.

    Use it in a function with inlineCallbacks (left) or in a coroutine (right)::

        for d in deferator:             async for item in deferator:
            item = yield d                  print(item)
            print(item)

    - A Deferred of a ``for`` loop fires when it is known whether another item follows.
    - An error that the iterator raises takes the place of the next item.
    - End a loop early by `stop`, or by the ``stop`` of its last Deferred. A Deferator without any reference stops
      by itself. Errors that the iterator raises after that are logged.
    - The attribute ``d`` is a Deferred. It fires with True when all items were taken, and with False when the iteration
      has ended otherwise. It has fired when a loop over the Deferator ends.
    - A Deferator has the methods of ``d``: `addCallback` and the others add to its chain.

    Args:
        objOrRep: What is iterated:

            - an iterator, or a generator function without parameters: it runs in the main loop, in slices of a
              millisecond;
            - an asynchronous iterator;
            - a `Prefetcherator` that was set up;
            - an `asynqueue.interfaces.ItemSource`;
            - with `callTuple`, any object: it only represents the iteration in texts.
        callTuple: A callable and its arguments. Each call returns ``(item, isValid, moreLeft)``, or a Deferred or a
            coroutine of that. The next call comes after its result. An item that is not valid is ignored, and is the
            end. If ``moreLeft`` is True and no item follows, an ``async for`` ends, and a ``for`` has
            `asynqueue.errors.ImplementationError` in place of the item.
        kw: With `callTuple`, the keywords of the callable. Without, three options:

            - ``limit``, the most items that are fetched and not taken, 2 or more. None is 256, or 2 for items that are
              fetched one by one;
            - ``onEnded``, which is called once, when the iteration has ended;
            - ``reactor``, the reactor to use. None is the installed one.

    Raises:
        TypeError: The object cannot be iterated in any of these ways, or there is no such option.
        ValueError: ``limit`` is less than 2.

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
        /,
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
        **kw: Any,
    ) -> None: ...
    def __init__(self, objOrRep: Any, /, *callTuple: Any, **kw: Any) -> None:
        options: dict[str, Any] = {}
        if not callTuple:
            options, kw = kw, {}
            if not options.keys() <= {"limit", "onEnded", "reactor"}:
                raise TypeError(f"a Deferator's options are limit, onEnded and reactor, got {', '.join(options)}")
        limit, reactor = options.get("limit"), options.get("reactor")
        source = _sourceOf(objOrRep, callTuple, kw, reactor)
        if limit is None:
            limit = 2 if isinstance(source, FetchSource) else core.AHEAD_LIMIT
        self._rep = objOrRep
        self._intake = _Intake(source, options.get("onEnded"), limit)
        if isinstance(source, LocalSource) and source is not objOrRep:
            source.produceNow()  # so that a `for` loop knows at once whether there is a first item
        self.d: Deferred[bool] = Deferred()
        self._intake.ended.addCallback(_fire, weakref.ref(self.d))
        weakref.finalize(self, _stopFromAnywhere, self._intake, installedReactor(reactor)).atexit = False

    def __repr__(self) -> str:
        return f"<Deferator of {self._rep if isinstance(self._rep, str) else shortly(self._rep)}>"

    @staticmethod
    def isIterator(obj: object) -> bool:
        """Return True for iterators, which have ``__iter__`` and ``__next__``, and for generator functions.

        >>> Deferator.isIterator(iter([1])), Deferator.isIterator([1]), Deferator.isIterator("one")
        (True, False, False)
        """
        return isIterator(obj) or inspect.isgeneratorfunction(obj)

    @property
    def moreLeft(self) -> bool:
        """False when it is known that no item is left."""
        return self._intake.flow.more

    @property
    def idle(self) -> bool:
        """True while the iteration has not ended and no Deferred waits for an item."""
        return not (self._intake.flow.ended or self._intake.flow.asked)

    def stop(self) -> None:
        """End the iteration. May be called at any time, and again.

        The iterator's ``finally`` runs where the iterator runs. A Deferred that waits for an item fails with
        StopAsyncIteration.
        """
        self._intake.stop()

    def addCallback(self, callback: Callable[..., Any], *args: Any, **kw: Any) -> Deferred[Any]:
        """Add a callback to ``d``, and return ``d``. (A callback takes and returns anything: hence Any.)"""
        return self.d.addCallback(callback, *args, **kw)

    def addErrback(self, errback: Callable[..., Any], *args: Any, **kw: Any) -> Deferred[Any]:
        """Add an errback to ``d``, and return ``d``."""
        return self.d.addErrback(errback, *args, **kw)

    def addBoth(self, callback: Callable[..., Any], *args: Any, **kw: Any) -> Deferred[Any]:
        """Add a callback that is an errback too to ``d``, and return ``d``."""
        return self.d.addBoth(callback, *args, **kw)

    def addCallbacks(self, callback: Callable[..., Any], *others: Any, **kw: Any) -> Deferred[Any]:
        """Add a callback and an errback to ``d``, with the parameters of `Deferred.addCallbacks`. Return ``d``."""
        return self.d.addCallbacks(callback, *others, **kw)

    def chainDeferred(self, d: Deferred[Any]) -> Deferred[Any]:
        """Have another Deferred fire as ``d`` does. Return ``d``."""
        return self.d.chainDeferred(d)

    if not TYPE_CHECKING:  # else a type checker would accept any name

        def __getattr__(self, name: str) -> Any:
            """Return the further public attributes of ``d``."""
            if name.startswith("_") or name == "d" or not hasattr(Deferred, name):
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            return getattr(self.d, name)

    def whenKnown(self) -> Deferred[Deferator[T_co]]:
        """Wait until it is known whether there is a first item.

        Returns:
            A Deferred that fires with this Deferator.
        """
        known: Deferred[Deferator[T_co]] = Deferred()
        if self._intake.known.called:
            return succeed(self)
        self._intake.known.addCallback(lambda _: known.callback(self))
        return known

    def __iter__(self) -> Iterator[Deferred[T_co]]:
        return self

    def __next__(self) -> Deferred[T_co]:
        """Return the Deferred of the next item. Raise `NotReadyError` while the last one has not fired."""
        if not self.moreLeft and not self._intake.flow.asked:
            self._intake.notifyEnd()
            raise StopIteration
        return self._ask(lookahead=True)

    def __aiter__(self) -> AsyncIterator[T_co]:
        return self

    def __anext__(self) -> Deferred[T_co]:
        """Return the Deferred of the next item. It fails with StopAsyncIteration if there is none."""
        if not self.moreLeft and not self._intake.flow.asked:
            self._intake.notifyEnd()
            return fail(Failure(StopAsyncIteration()))
        return self._ask(lookahead=False)

    def _ask(self, lookahead: bool) -> ItemDeferred[T_co]:
        if self._intake.flow.asked:
            raise NotReadyError("the last item has not come: wait for its Deferred before you ask for the next")
        item: ItemDeferred[T_co] = ItemDeferred(self._intake.withdraw)
        item.stop = self.stop
        self._intake.ask(item, lookahead)
        return item


class Prefetcherator(Generic[T]):
    """An iteration that fetches one item ahead, so that it knows with each item whether more are left.

    Args:
        ID: Names the object in texts. None is a number.
        reactor: The reactor to use. None is the installed one.

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
        """Begin to fetch items. (Any callable can be passed, with any arguments: hence Any.)

        Args:
            iteratorOrCallable: An iterator; a generator function, which is called with `args` and `kw`; or a callable,
                which is called with them for each item. The callable returns the item, or a Deferred or a coroutine of
                it. The first call that raises an error is the end. An error other than StopIteration and IndexError is
                logged.
            args: The arguments.
            kw: The keywords.

        Returns:
            A Deferred. It fires with True if there is an item, or an error of the iterator in its place. It fires with
            False if there is none, or if `iteratorOrCallable` is none of these.

        Raises:
            RuntimeError: The object `isBusy`.
        """
        if self.isBusy():
            raise RuntimeError(f"{self!r} is busy: stop it before you set it up again")
        if inspect.isgeneratorfunction(iteratorOrCallable):
            iteratorOrCallable, args, kw = iteratorOrCallable(*args, **kw), (), {}
        if isIterator(iteratorOrCallable) and not args and not kw:
            self._deferator = Deferator(iteratorOrCallable, limit=2, reactor=self._reactor)
        elif callable(iteratorOrCallable):
            fetch = partial(fetchPlain, iteratorOrCallable, args, kw)
            self._deferator = Deferator(FetchSource(fetch, reactor=self._reactor), reactor=self._reactor)
        else:
            return succeed(False)
        return self._deferator.whenKnown().addCallback(lambda deferator: deferator.moreLeft)

    def getNext(self) -> Deferred[Triple[T]]:
        """Get the next item.

        Returns:
            A Deferred of ``(item, True, moreLeft)``, or of ``(None, False, False)`` if there is none. It fails with the
            iterator's error, after the items before that. If it is cancelled, its item is the next one.

        Raises:
            NotReadyError: The last Deferred has not fired.
        """
        deferator = self._deferator
        if deferator is None:
            return succeed((None, False, False))

        def got(item: T) -> Triple[T]:
            return item, True, deferator.moreLeft

        def none(reason: Failure) -> Triple[T]:
            if not isA(errorIn(reason), StopAsyncIteration):
                reason.raiseException()
            return None, False, False

        try:
            return next(deferator).addCallbacks(got, none)
        except StopIteration:
            return succeed((None, False, False))

    def isBusy(self) -> bool:
        """Return True while there may be items to get."""
        return self._deferator is not None and self._deferator.moreLeft

    def stop(self) -> None:
        """End the iteration, and run the iterator's ``finally``. `setup` may be called again."""
        if self._deferator is not None:
            self._deferator.stop()
            self._deferator = None


class ItemDeferred(Deferred[T]):
    """The Deferred of an item. STOP ends the iteration of the item."""

    stop: Callable[[], None]


class _Intake:
    """Passes the items of SOURCE to the Deferred that waits for one, by an `Inflow`.

    This object lives as long as the source. The `Deferator` lives as long as the program refers to it.
    """

    def __init__(self, source: ItemSource, onEnded: Callable[[], None] | None, limit: int) -> None:
        self.flow = core.Inflow(limit)
        self.known: Deferred[None] = Deferred()
        self.ended: Deferred[bool] = Deferred()
        self._source = source
        self._onEnded = onEnded
        self._waiting: Deferred[Any] | None = None  # items are of the type that the user's iterator yields
        self._due: core.Ended | None = None
        source.begin(self)
        self._do(self.flow.begin())

    def ask(self, waiting: Deferred[Any], lookahead: bool) -> None:
        self._waiting = waiting
        self._do(self.flow.ask(lookahead))

    def withdraw(self, _: Deferred[Any]) -> None:
        self._waiting = None
        self.flow.unask()

    def stop(self) -> None:
        self._do(self.flow.stop())

    def arrived(self, items: Sequence[Any], more: bool = False) -> None:
        self._do(self.flow.arrived(items, more))

    def over(self, error: BaseException | None) -> None:
        if error is not None and isA(error, StopAsyncIteration):  # else a loop would take it for the end
            refusal = RuntimeError("an iteration raised StopAsyncIteration")
            refusal.__cause__ = error
            error = refusal
        self._do(self.flow.over(error))
        if self._onEnded is not None:
            onEnded, self._onEnded = self._onEnded, None
            onEnded()

    def notifyEnd(self) -> None:
        """Fire `ended`, if the iteration has ended and that is still to be done."""
        due, self._due = self._due, None
        if due is not None:
            self.ended.callback(due.complete)

    def _do(self, commands: list[core.Command]) -> None:
        if commands and isinstance(end := commands[-1], core.Ended):
            self._due = end  # a callback that ends its loop has it notified before its turn
        for command in commands:
            if isinstance(command, core.Grant):
                self._source.grant(command.items)
            elif isinstance(command, core.Deliver):
                self._answer(command.item)
            elif isinstance(command, core.Finish):
                self.notifyEnd()
                self._answer(failureOf(command.error) if command.error is not None else Failure(StopAsyncIteration()))
            elif isinstance(command, core.FirstKnown):
                self.known.callback(None)
            elif isinstance(command, core.Close):
                self._source.close()
            elif isinstance(command, core.Ended):
                self.notifyEnd()
            else:
                _log.failure("an iterator raised an error after it was stopped", printable(command.error), ERROR)

    def _answer(self, result: Any) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            return
        if isDeferred(result):
            whenFired(result, waiting.callback)
            return
        passed = delivered(result)
        if passed is not result:  # as an item that cannot be sent, it ends the iteration
            self.stop()
        waiting.callback(passed)


def _sourceOf(objOrRep: Any, callTuple: tuple[Any, ...], kw: Mapping[str, Any], reactor: Clock | None) -> ItemSource:
    """Return the source for the arguments of a Deferator. (They may be of any type: hence Any.)"""
    if callTuple:
        f, *args = callTuple
        if not callable(f):
            raise TypeError(f"the function by which a Deferator fetches items must be callable, got {shortly(f)}")
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
    """Stop INTAKE in a turn of REACTOR.

    The garbage collector calls this in any thread and at any time, even while this iteration is being processed.
    (A reactor has threads, and a clock may have none: hence Any.)
    """
    if not intake.flow.ended:
        getattr(reactor, "callFromThread", partial(reactor.callLater, 0))(intake.stop)


def _fire(complete: bool, ref: weakref.ref[Deferred[bool]]) -> None:
    """Fire the Deferred of REF, if it still exists."""
    d = ref()
    if d is not None and not d.called:
        d.callback(complete)
