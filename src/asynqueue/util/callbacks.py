"""Wait for a Deferred that belongs to other code, without changing its result."""

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
    """Call `f` after the Deferred in an attribute has fired.

    If there is no such attribute, or it is not a Deferred, or it has fired, `f` is called at once. The Deferred keeps
    its result. `f` is also called after a failure.

    Args:
        namespace: The object that has the Deferred.
        dName: The name of the attribute.
        f: Any callable. It may return a Deferred or a coroutine.
        args: Positional arguments for `f`.
        kw: Keyword arguments for `f`.

    Returns:
        A Deferred of the result of `f`. If it is cancelled before `f` is called, `f` is not called.

    Example:
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
    atChainEnd(d, lambda _: fired.callback(None))
    return fired.addCallback(lambda _: make(f, args, kw))


def atChainEnd(d: Deferred[Any], call: Callable[[ReferenceType[Deferred[Any]]], None]) -> None:
    """Run CALL with a weak reference to D when the chain of D reaches its present end. D keeps its result."""
    d.addBoth(_pass, ref(d), call)


def _pass(result: T, key: ReferenceType[Deferred[Any]], call: Callable[[ReferenceType[Deferred[Any]]], None]) -> T:
    d = key()
    assert d is not None, "a Deferred exists while its callbacks run"
    # CALL may await D or chain to it. While D runs its callbacks, it would give its result to both and report a
    # failure that is handled. Pausing D puts the new callbacks behind this one.
    d.pause()
    try:
        call(key)
    finally:
        d.unpause()
    return result
