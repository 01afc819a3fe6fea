"""What a call was, and what became of it, as text for people.

The text is for logs, terminals and error messages, so three things hold for it whatever the call was: it is
made without an error, it is short, and it says what the call was when it was set, however its arguments have
changed since. `Info` gives the text, of the call it was told of last, and of earlier ones by their IDs if it is
to remember them. `showResult` and `whichThread` are for looking on while a program is being written.

An `Info` refers to the callable and the arguments of the calls it remembers, and remembers a thousand: a queue
may tell it of every call it ever makes. Importing this module installs no reactor.
"""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial, wraps
from inspect import getattr_static, iscoroutinefunction
from itertools import count
from pathlib import PurePath
from types import CoroutineType, FunctionType, MethodType, ModuleType, SimpleNamespace
from typing import Any, Literal, ParamSpec, TypeVar, overload

import attrs
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.python.reflect import namedAny
from typing_extensions import Self

from asynqueue.core.records import CallSpec, describe
from asynqueue.serialization import dumps, loads

__all__ = ["Converter", "Info", "InfoHolder", "hashIt", "showResult", "whichThread"]

P = ParamSpec("P")
T = TypeVar("T")

REMEMBERED = 1000
"""How many calls an `Info` remembers, besides those that a context is open for."""

CALL_LENGTH, MESSAGE_LENGTH, TRACEBACK_LENGTH = 2_000, 1_000, 20_000
"""The most characters of a call, of an error's message in a heading, and of a traceback; more are left out inside."""


class Info:
    """Says what a call was, and what went wrong with it.

    With REMEMBER, the last thousand calls can be asked about by their IDs, until they are forgotten
    (`forgetID`, or NOWFORGET with the last question). With WHICHTHREAD, the text names the thread in which the
    call was set.

    >>> info = Info(remember=True)
    >>> first = info.setCall(divmod, (1, 0)).ID
    >>> info.setCall(sorted, [[3, 1]], {"reverse": True}).aboutCall()
    'sorted([3, 1], reverse=True)'
    >>> info.aboutCall(first, nowForget=True)
    'divmod(1, 0)'
    >>> info.aboutCall(first)
    ''
    """

    def __init__(self, remember: bool = False, whichThread: bool = False) -> None:
        self._remember = remember
        self._whichThread = whichThread
        self._lock = threading.Lock()
        self._current: _Remembered | None = None
        self._past: dict[int, _Remembered] = {}
        # Those that a context is open for: never pushed out by later ones.
        self._held: dict[int, _Remembered] = {}

    def setCall(
        self,
        *metaArgs: Any,  # the callable and what it is called with: anything
        args: Sequence[Any] | None = None,
        kw: Mapping[str, Any] | None = None,
        instance: object = None,
    ) -> Self:
        """Take this call as the current one, under a new `ID`, and return the `Info` itself.

        METAARGS are the callable (or its name, a string), its arguments in a list or tuple (a single one needs
        none unless it is one), and its keywords in a dict. ARGS, KW and INSTANCE say the same by name; without
        METAARGS they amend the current call. INSTANCE is what a plain function is called as a method of.

        No callable and no current call to amend is a `ValueError`, more than three METAARGS a `TypeError`.

        >>> Info().setCall("ship.sail", 3).aboutCall()
        'ship.sail(3)'
        >>> Info().setCall(round).setCall(args=(2.5,)).aboutCall()
        'round(2.5)'
        """
        self._current = self._set(metaArgs, args, kw, instance)
        if self._remember:
            self._keep(self._past, self._current)
        return self

    @property
    def ID(self) -> int | None:
        """The number of the current call, which no other call has; None without a call."""
        return None if self._current is None else self._current.ID

    def forgetID(self, ID: int | None) -> None:
        """Forget the call of that ID, and refer to its arguments no longer. An unknown ID is none to forget."""
        with self._lock:
            for calls in self._past, self._held:
                if ID is not None:
                    calls.pop(ID, None)
            if self.ID == ID:
                self._current = None

    @contextmanager
    def context(
        self,
        *metaArgs: Any,  # as in setCall
        args: Sequence[Any] | None = None,
        kw: Mapping[str, Any] | None = None,
        instance: object = None,
    ) -> Iterator[InfoHolder]:
        """A context for one call, given as to `setCall`: it yields an `InfoHolder`, and forgets the call at its end.

        The `Info` may be used for other calls meanwhile, in other contexts too.

        >>> info = Info()
        >>> with info.context(divmod, (7, 2)) as one, info.context(divmod, (8, 2)) as other:
        ...     print(one.aboutCall(), other.aboutCall())
        divmod(7, 2) divmod(8, 2)
        >>> one.aboutCall()
        ''
        """
        call = self._current = self._set(metaArgs, args, kw, instance)
        self._keep(self._held, call)
        try:
            yield InfoHolder(self, call.ID)
        finally:
            self.forgetID(call.ID)

    def getInfo(self, ID: int | None, name: str, nowForget: bool = False) -> Any:
        """What is known by NAME about the call of that ID (None: the current one), or None.

        NAME is one that `saveInfo` was given, or "aboutCall", "aboutException" or "aboutFailure" for the text last
        made by the method so named, or "callDict" for a dict of what was set: "f", "fs" (its name), "args", "kw",
        "instance", and "thread" with WHICHTHREAD. With NOWFORGET the call is forgotten then.

        >>> Info().setCall(divmod, (7, 2)).getInfo(None, "callDict")["args"]
        (7, 2)
        """
        call = self._find(ID)
        if call is None:
            return None
        if nowForget:
            self.forgetID(call.ID)
        return call.callDict() if name == "callDict" else call.notes.get(name)

    def saveInfo(self, name: str, x: T, ID: int | None = None) -> T:
        """Keep X with the call of that ID (None: the current one) for as long as the call is known; gives X back.

        >>> info = Info().setCall(divmod, (7, 2))
        >>> info.getInfo(info.ID, "seconds"), info.saveInfo("seconds", 1.5), info.getInfo(info.ID, "seconds")
        (None, 1.5, 1.5)
        """
        with self._lock:
            call = self._find(ID)
            if call is not None:
                noted = attrs.evolve(call, notes={**call.notes, name: x})
                for calls in self._past, self._held:
                    if call.ID in calls:
                        calls[call.ID] = noted
                if self.ID == call.ID:
                    self._current = noted
        return x

    @overload
    def nn(
        self, ID: int | None = None, raw: Literal[False] = False
    ) -> tuple[bytes | str | None, bytes | str | None]: ...
    @overload
    def nn(self, ID: int | None = None, *, raw: Literal[True]) -> tuple[object, object]: ...
    @overload
    def nn(self, ID: int | None, raw: Literal[True]) -> tuple[object, object]: ...
    def nn(self, ID: int | None = None, raw: bool = False) -> tuple[object, object]:
        """Namespace and name of a call's callable, in a form that can be sent.

        A method gives its object, and its own name; anything else gives None, and itself. Objects are pickled, or
        given by their fully qualified names if they cannot be; with RAW they are given as they are, if they could
        be sent. A callable that was set by name gives None and its fully qualified name. What cannot be sent,
        and no call, gives ``(None, None)``.

        >>> from fractions import Fraction
        >>> Info().setCall(Fraction(1, 3).limit_denominator).nn(raw=True)
        (Fraction(1, 3), 'limit_denominator')
        >>> Info().setCall("textwrap.dedent").nn()
        (None, 'textwrap.dedent')
        """
        call = self._find(ID)
        if call is None:
            return None, None
        convert = Converter()
        f: Any = call.spec.f  # whatever was to be called
        if _isA(f, str):
            return None, convert.strToFQN(f)
        if _isA(f, MethodType):
            parent = convert.processObject(f.__self__)
            name = getattr(f, "__name__", None)
            if parent is not None and name is not None:
                return (f.__self__ if raw else parent), name
        itself = convert.processObject(f)
        return None, (f if raw and itself is not None else itself)

    def aboutCall(self, ID: int | None = None, nowForget: bool = False) -> str:
        """The call of that ID (None: the current one) as text; "" if there is none.

        >>> from functools import partial
        >>> Info().setCall(partial(sorted, reverse=True), ["abc"]).aboutCall()
        "sorted('abc', reverse=True)"
        """
        call = self._find(ID)
        if call is None:
            return ""
        return self._noted("aboutCall", call.text, call, nowForget)

    def aboutException(
        self, ID: int | None = None, exception: BaseException | None = None, nowForget: bool = False
    ) -> str:
        """What EXCEPTION (None: the one being handled) was, in which call, and its traceback.

        With neither, it is what was said of that call before, or "".

        >>> info = Info().setCall(divmod, (1, 0))
        >>> try:
        ...     divmod(1, 0)
        ... except ZeroDivisionError:
        ...     print(info.aboutException().splitlines()[0])
        Exception 'ZeroDivisionError: integer ... by zero' doing call 'divmod(1, 0)':
        """
        call = self._find(ID)
        if exception is None:
            exception = sys.exc_info()[1]
        if exception is None:
            said: str | None = self.getInfo(ID, "aboutException", nowForget)
            return said or ""
        text = _report("Exception", exception, exception.__traceback__, call)
        return self._noted("aboutException", text, call, nowForget)

    def aboutFailure(self, failureObj: Failure, ID: int | None = None, nowForget: bool = False) -> str:
        """What the failure was, in which call, and its traceback: the remote one too, if it comes from a worker.

        As an errback it turns the failure into that text.

        >>> from twisted.internet.defer import execute
        >>> d = execute(divmod, 1, 0).addErrback(Info().setCall(divmod, (1, 0)).aboutFailure)
        >>> print(d.result)
        Failure 'ZeroDivisionError: integer ... by zero' doing call 'divmod(1, 0)':
        ----...
        """
        call = self._find(ID)
        text = _report("Failure", failureObj.value, failureObj.getTracebackObject(), call)
        return self._noted("aboutFailure", text, call, nowForget)

    def _set(
        self,
        metaArgs: tuple[Any, ...],
        args: Sequence[Any] | None,
        kw: Mapping[str, Any] | None,
        instance: object,
    ) -> _Remembered:
        if len(metaArgs) > 3:
            raise TypeError(f"a call is a callable, its args and its kw: 3 at most, got {len(metaArgs)}")
        if metaArgs:
            given = metaArgs[1] if len(metaArgs) > 1 else ()
            spread = tuple(given) if _isA(given, list, tuple) else (given,)
            before = CallSpec(metaArgs[0], spread, metaArgs[2] if len(metaArgs) > 2 else {})
        elif self._current is not None and (args is not None or kw is not None or instance is not None):
            before = self._current.spec
            instance = self._current.instance if instance is None else instance
        else:
            raise ValueError("no call to tell of: setCall needs a callable, or args, kw or instance for the one it has")
        spec = CallSpec(before.f, before.args if args is None else tuple(args), dict(before.kw if kw is None else kw))
        thread = threading.current_thread().name if self._whichThread else None
        text = _callText(spec, instance) + ("" if thread is None else f" <Thread: {thread}>")
        return _Remembered(next(_IDs), spec, text, instance, thread)

    def _keep(self, calls: dict[int, _Remembered], call: _Remembered) -> None:
        with self._lock:
            calls[call.ID] = call
            while len(self._past) > REMEMBERED:
                del self._past[next(iter(self._past))]

    def _find(self, ID: int | None) -> _Remembered | None:
        current = self._current
        if ID is None or (current is not None and current.ID == ID):
            return current
        return self._held.get(ID) or self._past.get(ID)

    def _noted(self, name: str, text: str, call: _Remembered | None, nowForget: bool) -> str:
        if call is not None:
            if nowForget:
                self.forgetID(call.ID)
            else:
                self.saveInfo(name, text, call.ID)
        return text


class InfoHolder:
    """What `Info.context` yields: the methods of `Info`, about one call.

    >>> with Info().context(divmod, (1, 0)) as call:
    ...     print(call.aboutCall())
    divmod(1, 0)
    """

    def __init__(self, info: Info, ID: int) -> None:
        self.info = info
        self.ID = ID

    def getInfo(self, name: str) -> Any:
        """As `Info.getInfo`."""
        return self.info.getInfo(self.ID, name)

    def saveInfo(self, name: str, x: T) -> T:
        """As `Info.saveInfo`."""
        return self.info.saveInfo(name, x, self.ID)

    @overload
    def nn(self, raw: Literal[False] = False) -> tuple[bytes | str | None, bytes | str | None]: ...
    @overload
    def nn(self, raw: Literal[True]) -> tuple[object, object]: ...
    def nn(self, raw: bool = False) -> tuple[object, object]:
        """As `Info.nn`."""
        return self.info.nn(self.ID, True) if raw else self.info.nn(self.ID)

    def aboutCall(self) -> str:
        """As `Info.aboutCall`."""
        return self.info.aboutCall(self.ID)

    def aboutException(self, exception: BaseException | None = None) -> str:
        """As `Info.aboutException`."""
        return self.info.aboutException(self.ID, exception)

    def aboutFailure(self, failureObj: Failure) -> str:
        """As `Info.aboutFailure`."""
        return self.info.aboutFailure(failureObj, self.ID)


def showResult(f: Callable[P, T]) -> Callable[P, T]:
    """Decorates F: each call is printed with its number and its result, or the error it raised.

    A Deferred or a coroutine is followed, and printed when it has its result. F's results, errors and signature
    stay as they are.

    >>> @showResult
    ... def halve(x: int) -> float:
    ...     return x / 2
    >>> half = halve(3)
    0...: halve(3) -> 1.5
    """
    return _showing(f)


def whichThread(f: Callable[P, T]) -> Callable[P, T]:
    """Decorates F for `showResult`, above it or below: what is printed names the thread of the call.

    >>> @showResult
    ... @whichThread
    ... def halve(x: int) -> float:
    ...     return x / 2
    >>> half = halve(3)
    0...: halve(3) <Thread: MainThread> -> 1.5
    """
    try:
        setattr(f, _MARK, True)
    except (AttributeError, TypeError):  # a builtin, a bound method: there is no place on it for the mark

        @wraps(f)
        def marked(*args: P.args, **kw: P.kwargs) -> T:
            return f(*args, **kw)

        setattr(marked, _MARK, True)
        return marked
    return f


def hashIt(*args: object) -> int:
    """A hash of any objects at all, the unhashable included; within this process, as `hash` is.

    Lists, tuples, dicts and sets count by what is in them: equal ones have equal hashes, whatever the order in
    a dict or a set, and unequal ones have different hashes, but for the chance that every hash leaves. What can be
    neither hashed nor pickled counts by its identity.

    >>> hashIt({"a": [1], "b": 2}) == hashIt({"b": 2, "a": [1]}), hashIt([1, 2]) == hashIt([2, 1])
    (True, False)
    """
    return _hash(args, {}, 0)


class Converter:
    """Turns objects into what can be sent, and checks that it comes out again; None is what cannot be.

    >>> Converter().strToFQN("os.path.join")
    'posixpath.join'
    >>> Converter().objToFQN(Converter.objToFQN), Converter().objToFQN(Converter())
    ('asynqueue.info.Converter.objToFQN', None)
    """

    def strToFQN(self, x: str) -> str | None:
        """The fully qualified name of what is to be imported by the name X. Imports it."""
        try:
            found: object = namedAny(x)
        except Exception:  # what importing a module raises is anything
            return None
        return self.objToFQN(found)

    def objToPickle(self, x: object) -> bytes | None:
        """X as a pickle."""
        try:
            payload = dumps(x)
            loads(payload, "the object")
        except Exception:  # a user's __reduce__ may raise anything
            return None
        return payload

    def objToFQN(self, x: object) -> str | None:
        """The fully qualified name that X is imported by."""
        try:
            name = x.__name__ if isinstance(x, ModuleType) else f"{_attribute(x, '__module__')}.{_qualname(x)}"
            found: object = namedAny(name)
            return name if found is x or (isinstance(x, MethodType) and found == x) else None
        except Exception:  # as in strToFQN
            return None

    def processObject(self, x: object) -> bytes | str | None:
        """X as a pickle, or else its fully qualified name."""
        payload = self.objToPickle(x)
        return self.objToFQN(x) if payload is None else payload


@attrs.frozen(eq=False)
class _Remembered:
    """One call, what it was as TEXT when it was set, and the NOTES saved with it."""

    ID: int
    spec: CallSpec[Any]  # a call of whatever result
    text: str
    instance: object = None
    thread: str | None = None
    notes: Mapping[str, Any] = attrs.field(factory=dict)  # whatever a user saves

    def callDict(self) -> dict[str, Any]:
        """What was set, in the form that AsynQueue 0.9 has it in."""
        f = self.spec.f
        told = {
            "f": f,
            "fs": _callText(CallSpec(f), self.instance)[: -len("()")],
            "args": self.spec.args,
            "kw": dict(self.spec.kw),
            "instance": self.instance,
        }
        return told if self.thread is None else {**told, "thread": self.thread}


_IDs, _numbers = count(1), count(1)
_MARK = "_asynqueueWhichThread"


def _callText(spec: CallSpec[Any], instance: object) -> str:
    f: Any = spec.f  # whatever is to be called
    args, kw = spec.args, spec.kw
    for _ in range(100):  # one made by hand may be a partial of itself
        if not _isA(f, partial):
            break
        f, args, kw = f.func, (*f.args, *args), {**f.keywords, **kw}
    return _cut(describe(_subject(f, instance), args, kw), CALL_LENGTH)


def _subject(f: object, instance: object) -> object:
    """F, or where its own name would mislead, what `describe` gives a better one for."""
    try:
        if isinstance(f, str):
            return _named(f)
        if not callable(f):
            return _named(f"{_shown(f)}[Not Callable!]")
        name = _attribute(f, "__name__")
        owner = f.__self__ if instance is None and isinstance(f, MethodType) else instance
        if owner is not None and name is not None:
            return _named(f"{(owner if isinstance(owner, type) else type(owner)).__qualname__}.{name}")
        if isinstance(f, FunctionType) and name == "<lambda>":
            place = f"<lambda at {PurePath(f.__code__.co_filename).name}:{f.__code__.co_firstlineno}>"
            return _named(f.__qualname__.removesuffix("<lambda>") + place)
        if name is None and type(f).__repr__ is object.__repr__:
            return _named(f"<{type(f).__qualname__} object>")
    except Exception:  # a user's class may raise anything for being looked at
        pass
    return f


def _isA(x: object, *kinds: type) -> bool:
    """`isinstance`, but that X is not asked itself: it may raise anything."""
    return issubclass(type(x), kinds)


def _named(name: str) -> object:
    return SimpleNamespace(__qualname__=name or '""')


def _shown(x: object) -> str:
    """X as an argument is shown."""
    return _cut(describe(_named("x"), (x,))[len("x(") : -len(")")], CALL_LENGTH)


def _attribute(x: object, name: str) -> str | None:
    value = getattr(x, name, None)
    return value if isinstance(value, str) else None


def _qualname(x: object) -> str | None:
    """X's own qualified name, or a bound method's by the class that it is bound to."""
    if isinstance(x, MethodType) and isinstance(x.__self__, type):
        return f"{x.__self__.__qualname__}.{_attribute(x, '__name__')}"
    return _attribute(x, "__qualname__")


def _isMethodOf(x: object, f: object) -> bool:
    """Whether F, taken from the class of X, is one of its methods."""
    name = _attribute(f, "__name__")
    return name is not None and any(getattr_static(kind, name, None) is f for kind in type(x).__mro__)


def _report(what: str, error: BaseException | None, where: Any, call: _Remembered | None) -> str:
    """WHERE is a traceback, or what a Failure that was sent has for one."""
    heading = f"{what} '{_errorText(error)}'" + ("" if call is None else f" doing call '{call.text}'") + ":"
    try:
        lines = "".join(traceback.format_exception(None if error is None else type(error), error, where))
    except Exception as refusal:  # a user's exception may raise anything for being looked at
        lines = f"(no traceback: looking at it raised {type(refusal).__name__})"
    divider = "-" * min(len(heading), 79)
    return "\n".join((heading, divider, _cut(lines.rstrip(), TRACEBACK_LENGTH, "\n")))


def _errorText(error: BaseException | None) -> str:
    try:
        message = str(error)
    except Exception as refusal:  # a user's __str__ may raise anything
        message = f"(its str raised {type(refusal).__name__})"
    name = type(error).__qualname__
    return _cut(f"{name}: {message}" if message else name, MESSAGE_LENGTH)


def _cut(text: str, length: int, gap: str = " ") -> str:
    """TEXT, or its two ends if it is longer than LENGTH: an error's origin and the error are there."""
    if len(text) <= length:
        return text
    half = length // 2
    return f"{text[:half]}{gap}... {len(text) - 2 * half} characters ...{gap}{text[-half:]}"


def _showing(f: Callable[..., Any]) -> Callable[..., Any]:
    """`showResult` for an F of any signature: one wrapper is a coroutine function, if F is, the other is not."""

    def started(args: tuple[Any, ...], kw: Mapping[str, Any]) -> str:
        info = Info(whichThread=getattr(shown, _MARK, False))
        if args and _isMethodOf(args[0], shown):
            info.setCall(f, args[1:], kw, instance=args[0])
        else:
            info.setCall(f, args, kw)
        return f"{next(_numbers):03d}: {info.aboutCall()}"

    def following(call: str, result: Any) -> Any:
        if _isA(result, Deferred):
            return result.addCallbacks(partial(_showReturned, call), partial(_showFailure, call))
        if _isA(result, CoroutineType):
            return _awaited(call, result)
        return _showReturned(call, result)

    if iscoroutinefunction(f):

        @wraps(f)
        async def shownAsync(*args: Any, **kw: Any) -> Any:
            return await _awaited(started(args, kw), f(*args, **kw))

        shown: Callable[..., Any] = shownAsync
    else:

        @wraps(f)
        def shownPlain(*args: Any, **kw: Any) -> Any:
            call = started(args, kw)
            try:
                result = f(*args, **kw)
            except BaseException as error:
                _showError(call, error)
                raise
            return following(call, result)

        shown = shownPlain
    return shown


async def _awaited(call: str, coroutine: Coroutine[Any, Any, T]) -> T:
    try:
        result = await coroutine
    except BaseException as error:
        _showError(call, error)
        raise
    return _showReturned(call, result)


def _showReturned(call: str, result: T) -> T:
    _print(call, _shown(result))
    return result


def _showFailure(call: str, failure: Failure) -> Failure:
    _showError(call, failure.value)
    return failure


def _showError(call: str, error: BaseException | None) -> None:
    _print(call, f"raised {_errorText(error)}")


def _print(call: str, result: str) -> None:
    """One write, so that threads do not print into each other's lines."""
    gap = "\n" if len(call) + len(result) > 70 else ""
    try:
        print(f"{call}{gap} -> {result}\n", end="")
    except (OSError, ValueError):  # nobody to show it to is no reason for the call to fail
        pass


def _hash(x: object, known: dict[int, int], depth: int) -> int:
    """KNOWN are the objects met, by their identities: what contains itself comes to an end, in linear time."""
    if not _isA(x, list, tuple, dict, set, frozenset):
        return _hashOfOne(x)
    if id(x) not in known:
        known[id(x)] = 0
        try:
            known[id(x)] = _hashOfMany(x, known, depth + 1)
        except Exception:  # a user's own kind of list may raise anything for being iterated
            known[id(x)] = _hashOfOne(x)
    return known[id(x)]


def _hashOfMany(x: Any, known: dict[int, int], depth: int) -> int:
    if depth > 100:
        return len(x)
    if _isA(x, dict):
        return hash(("dict", frozenset((_hash(k, known, depth), _hash(v, known, depth)) for k, v in x.items())))
    hashes = [_hash(item, known, depth) for item in x]
    if _isA(x, set, frozenset):
        return hash(("set", frozenset(hashes)))
    return hash(("list" if _isA(x, list) else "tuple", *hashes))


def _hashOfOne(x: object) -> int:
    try:
        return hash(x)
    except Exception:  # a user's __hash__ may raise anything
        pass
    try:
        return hash(dumps(x))
    except Exception:  # a user's __reduce__ may raise anything
        return hash((type(x).__qualname__, id(x)))
