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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from types import MethodType
from typing import Any, Literal, TypeVar, overload

import attrs
from twisted.python.failure import Failure
from typing_extensions import Self

from asynqueue.core.records import CallSpec
from asynqueue.info.conversion import Converter, hashIt
from asynqueue.info.decorators import showResult, whichThread
from asynqueue.info.text import callText, currentThread, isA, report

__all__ = ["Converter", "Info", "InfoHolder", "hashIt", "showResult", "whichThread"]

T = TypeVar("T")

REMEMBERED = 1000
"""How many calls an `Info` remembers, besides those that a context is open for."""

_IDs = count(1)


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
        """Keep X by NAME with the call of that ID (None: the current one) while the call is known; gives X back.

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
        if isA(f, str):
            return None, convert.strToFQN(f)
        if isA(f, MethodType):
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
        text = report("Exception", exception, exception.__traceback__, None if call is None else call.text)
        return self._noted("aboutException", text, call, nowForget)

    def aboutFailure(self, failureObj: Failure, ID: int | None = None, nowForget: bool = False) -> str:
        """What FAILUREOBJ was, in which call, and its traceback: the remote one too, if it comes from a worker.

        As an errback it turns the failure into that text.

        >>> from twisted.internet.defer import execute
        >>> d = execute(divmod, 1, 0).addErrback(Info().setCall(divmod, (1, 0)).aboutFailure)
        >>> print(d.result)
        Failure 'ZeroDivisionError: integer ... by zero' doing call 'divmod(1, 0)':
        ----...
        """
        call = self._find(ID)
        text = report("Failure", failureObj.value, failureObj.getTracebackObject(), None if call is None else call.text)
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
            spread = tuple(given) if isA(given, list, tuple) else (given,)
            before = CallSpec(metaArgs[0], spread, metaArgs[2] if len(metaArgs) > 2 else {})
        elif self._current is not None and (args is not None or kw is not None or instance is not None):
            before = self._current.spec
            instance = self._current.instance if instance is None else instance
        else:
            raise ValueError("no call to tell of: setCall needs a callable, or args, kw or instance for the one it has")
        spec = CallSpec(before.f, before.args if args is None else tuple(args), dict(before.kw if kw is None else kw))
        thread = currentThread() if self._whichThread else None
        return _Remembered(next(_IDs), spec, callText(spec, instance, thread), instance, thread)

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
    """What `Info.context` yields: the methods of INFO, about the call of that ID alone.

    >>> with Info().context(divmod, (1, 0)) as call:
    ...     print(call.aboutCall())
    divmod(1, 0)
    """

    def __init__(self, info: Info, ID: int) -> None:
        self.info = info
        self.ID = ID

    def getInfo(self, name: str) -> Any:
        """What is known by NAME about the call, as `Info.getInfo` tells it."""
        return self.info.getInfo(self.ID, name)

    def saveInfo(self, name: str, x: T) -> T:
        """Keep X by NAME with the call, as `Info.saveInfo` does."""
        return self.info.saveInfo(name, x, self.ID)

    @overload
    def nn(self, raw: Literal[False] = False) -> tuple[bytes | str | None, bytes | str | None]: ...
    @overload
    def nn(self, raw: Literal[True]) -> tuple[object, object]: ...
    def nn(self, raw: bool = False) -> tuple[object, object]:
        """Namespace and name of the call's callable, or with RAW themselves, as `Info.nn` has them."""
        return self.info.nn(self.ID, True) if raw else self.info.nn(self.ID)

    def aboutCall(self) -> str:
        """As `Info.aboutCall`."""
        return self.info.aboutCall(self.ID)

    def aboutException(self, exception: BaseException | None = None) -> str:
        """What EXCEPTION was, in that call, as `Info.aboutException` tells it."""
        return self.info.aboutException(self.ID, exception)

    def aboutFailure(self, failureObj: Failure) -> str:
        """What FAILUREOBJ was, in that call, as `Info.aboutFailure` tells it."""
        return self.info.aboutFailure(failureObj, self.ID)


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
            "fs": callText(CallSpec(f), self.instance)[: -len("()")],
            "args": self.spec.args,
            "kw": dict(self.spec.kw),
            "instance": self.instance,
        }
        return told if self.thread is None else {**told, "thread": self.thread}
