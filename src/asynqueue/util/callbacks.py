"""A place in the callback chain of somebody else's Deferred, which stays as it was."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar, overload
from weakref import ReferenceType, ref

from twisted.internet.defer import Deferred

from asynqueue.reactor.calling import make

__all__ = ["callAfterDeferred"]

P = ParamSpec("P")
T = TypeVar("T")


@overload
def callAfterDeferred(
    namespace: object, dName: str, f: Callable[P, Deferred[T]], /, *args: P.args, **kw: P.kwargs
) -> Deferred[T]: ...
@overload
def callAfterDeferred(
    namespace: object,
    dName: str,
    f: Callable[P, Coroutine[Deferred[Any], Any, T]],
    /,
    *args: P.args,
    **kw: P.kwargs,
) -> Deferred[T]: ...
@overload
def callAfterDeferred(
    namespace: object, dName: str, f: Callable[P, T], /, *args: P.args, **kw: P.kwargs
) -> Deferred[T]: ...
def callAfterDeferred(namespace: object, dName: str, f: Callable[..., Any], /, *args: Any, **kw: Any) -> Deferred[Any]:
    """Call F with what follows it once the Deferred that NAMESPACE has as its attribute DNAME has fired.

    With no such attribute, or if it has fired or is no Deferred, F is called at once. The Deferred stays as
    it was, its failure too, which does not keep F from being called. The Deferred returned has the result
    of F; cancelled before F is called, it keeps F from it.

    >>> class Connection:
    ...     ready = Deferred()
    >>> d = callAfterDeferred(Connection, "ready", print, "connected", "as", "bob", sep="-")
    >>> Connection.ready.callback(None)
    connected-as-bob
    """
    d = getattr(namespace, dName, None)
    if not isinstance(d, Deferred):
        return make(f, args, kw)
    fired: Deferred[None] = Deferred()
    atThisPlace(d, lambda _: fired.callback(None))
    return fired.addCallback(lambda _: make(f, args, kw))


def atThisPlace(d: Deferred[Any], call: Callable[[ReferenceType[Deferred[Any]]], None]) -> None:
    """CALL, with a weak reference to D, when the chain of D reaches its present end; leave D as it is."""
    d.addBoth(_pass, ref(d), call)


def _pass(result: T, key: ReferenceType[Deferred[Any]], call: Callable[[ReferenceType[Deferred[Any]]], None]) -> T:
    d = key()
    assert d is not None, "a Deferred is there while its callbacks run"
    # Paused, so that whoever is called and then awaits D, or chains to it, does so behind us in its chain. In
    # the midst of its run D would give its result to both, and report a failure that was handled.
    d.pause()
    try:
        call(key)
    finally:
        d.unpause()
    return result
