"""Describe calls, their results and their errors as text for people.

The text is for logs, terminals and error messages. Whatever the call was, it has three properties: making it never
fails, it is short, and it describes the call as it was when it was set, even if its arguments have changed since.

An `Info` describes the current call, and with `remember` also the last thousand calls by their IDs. It keeps references
to their callables and arguments. Importing this module installs no reactor.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from types import MethodType
from typing import Any, Literal, TypeVar, overload

from twisted.python.failure import Failure
from typing_extensions import Self

from asynqueue.core.records import CallSpec
from asynqueue.core.results import isA
from asynqueue.info.conversion import Converter, hashIt
from asynqueue.info.decorators import showResult, whichThread
from asynqueue.info.knowncalls import KnownCall, KnownCalls
from asynqueue.info.text import callText, currentThread, report

__all__ = ["Converter", "Info", "InfoHolder", "hashIt", "showResult", "whichThread"]

T = TypeVar("T")

_IDs = count(1)


class Info:
    """Describes a call, and what went wrong with it.

    Args:
        remember: Keep the last thousand calls, to be described by their IDs until they are forgotten. (See `forgetID`
            and the parameter `nowForget`.)
        whichThread: Add the name of the thread in which the call was set.

    Example:
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
        self._calls = KnownCalls()

    def setCall(
        self,
        *metaArgs: Any,  # Any: the callable and its arguments
        args: Sequence[Any] | None = None,
        kw: Mapping[str, Any] | None = None,
        instance: object = None,
    ) -> Self:
        """Make a call the current one, under a new `ID`.

        Args:
            metaArgs: The callable (or its name, a string), its arguments in a list or tuple, and its keywords in a
                dict. A single argument may be given without a list, unless it is a list or tuple itself.
            args: The positional arguments. Without `metaArgs`, they replace those of the current call.
            kw: The keyword arguments, likewise.
            instance: The object whose method the callable is, if it is a plain function.

        Returns:
            This `Info`.

        Raises:
            ValueError: There is neither a callable nor a current call to change.
            TypeError: `metaArgs` has more than three items.

        Example:
            >>> Info().setCall("ship.sail", 3).aboutCall()
            'ship.sail(3)'
            >>> Info().setCall(round).setCall(args=(2.5,)).aboutCall()
            'round(2.5)'
        """
        self._calls.set(self._made(metaArgs, args, kw, instance), self._remember)
        return self

    @property
    def ID(self) -> int | None:
        """The unique number of the current call. None without a call."""
        return self._calls.ID

    def forgetID(self, ID: int | None) -> None:
        """Forget a call and release its arguments.

        Args:
            ID: The ID of the call. An unknown ID is ignored.
        """
        self._calls.forget(ID)

    @contextmanager
    def context(
        self,
        *metaArgs: Any,  # as in setCall
        args: Sequence[Any] | None = None,
        kw: Mapping[str, Any] | None = None,
        instance: object = None,
    ) -> Iterator[InfoHolder]:
        """Return a context for one call. It yields an `InfoHolder`, and forgets the call at its end.

        Meanwhile the `Info` can be used for other calls, in other contexts too.

        Args:
            metaArgs: As for `setCall`.
            args: As for `setCall`.
            kw: As for `setCall`.
            instance: As for `setCall`.

        Example:
            >>> info = Info()
            >>> with info.context(divmod, (7, 2)) as one, info.context(divmod, (8, 2)) as other:
            ...     print(one.aboutCall(), other.aboutCall())
            divmod(7, 2) divmod(8, 2)
            >>> one.aboutCall()
            ''
        """
        call = self._made(metaArgs, args, kw, instance)
        self._calls.hold(call)
        try:
            yield InfoHolder(self, call.ID)
        finally:
            self.forgetID(call.ID)

    def getInfo(self, ID: int | None, name: str, nowForget: bool = False) -> Any:
        """Return an item of information about a call.

        Args:
            ID: The ID of the call. None is the current one.
            name: A name that was given to `saveInfo`. "aboutCall", "aboutException" and "aboutFailure" are the last
                texts of these methods. "callDict" is a dict with "f", "fs" (its name), "args", "kw", "instance", and
                with `whichThread` also "thread".
            nowForget: Forget the call afterwards.

        Returns:
            The item, or None.

        Example:
            >>> Info().setCall(divmod, (7, 2)).getInfo(None, "callDict")["args"]
            (7, 2)
        """
        call = self._calls.find(ID)
        if call is None:
            return None
        if nowForget:
            self.forgetID(call.ID)
        return call.callDict() if name == "callDict" else call.notes.get(name)

    def saveInfo(self, name: str, x: T, ID: int | None = None) -> T:
        """Save an item of information with a call, for as long as the call is known.

        Args:
            name: The name of the item.
            x: The item.
            ID: The ID of the call. None is the current one.

        Returns:
            The item `x` itself.

        Example:
            >>> info = Info().setCall(divmod, (7, 2))
            >>> info.getInfo(info.ID, "seconds"), info.saveInfo("seconds", 1.5), info.getInfo(info.ID, "seconds")
            (None, 1.5, 1.5)
        """
        self._calls.note(ID, name, x)
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
        """Return the namespace and the name of a call's callable, in a form that can be sent.

        - For a method: its object and its name.
        - For a callable that was set by name: None and its fully qualified name.
        - For any other callable: None and the callable.
        - If it cannot be sent, or without a call: ``(None, None)``.

        Args:
            ID: The ID of the call. None is the current one.
            raw: Return the objects themselves. With False they are pickled, or else replaced by their fully qualified
                names.

        Returns:
            The two, as above.

        Example:
            >>> from fractions import Fraction
            >>> Info().setCall(Fraction(1, 3).limit_denominator).nn(raw=True)
            (Fraction(1, 3), 'limit_denominator')
            >>> Info().setCall("textwrap.dedent").nn()
            (None, 'textwrap.dedent')
        """
        call = self._calls.find(ID)
        if call is None:
            return None, None
        convert = Converter()
        f: Any = call.spec.f  # Any, because any object may be set as the callable
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
        """Describe a call.

        Args:
            ID: The ID of the call. None is the current one.
            nowForget: Forget the call afterwards.

        Returns:
            The text. It is empty without a call.

        Example:
            >>> from functools import partial
            >>> Info().setCall(partial(sorted, reverse=True), ["abc"]).aboutCall()
            "sorted('abc', reverse=True)"
        """
        call = self._calls.find(ID)
        if call is None:
            return ""
        return self._noted("aboutCall", call.text, call, nowForget)

    def aboutException(
        self, ID: int | None = None, exception: BaseException | None = None, nowForget: bool = False
    ) -> str:
        """Describe an exception, the call that raised it, and the traceback.

        Args:
            ID: The ID of the call. None is the current one.
            exception: The exception. None is the one that is being handled.
            nowForget: Forget the call afterwards.

        Returns:
            The text. Without an exception it is the last text for this call, or empty.

        Example:
            >>> info = Info().setCall(divmod, (1, 0))
            >>> try:
            ...     divmod(1, 0)
            ... except ZeroDivisionError:
            ...     print(info.aboutException().splitlines()[0])
            Exception 'ZeroDivisionError: ...by zero' doing call 'divmod(1, 0)':
        """
        call = self._calls.find(ID)
        if exception is None:
            exception = sys.exc_info()[1]
        if exception is None:
            last: str | None = self.getInfo(ID, "aboutException", nowForget)
            return last or ""
        text = report("Exception", exception, exception.__traceback__, None if call is None else call.text)
        return self._noted("aboutException", text, call, nowForget)

    def aboutFailure(self, failureObj: Failure, ID: int | None = None, nowForget: bool = False) -> str:
        """Describe a Failure, the call that failed, and the traceback.

        The remote traceback is included for a remote worker.

        As an errback it converts the failure to that text.

        Args:
            failureObj: The Failure.
            ID: The ID of the call. None is the current one.
            nowForget: Forget the call afterwards.

        Returns:
            The text.

        Example:
            >>> from twisted.internet.defer import execute
            >>> d = execute(divmod, 1, 0).addErrback(Info().setCall(divmod, (1, 0)).aboutFailure)
            >>> print(d.result)
            Failure 'ZeroDivisionError: ...by zero' doing call 'divmod(1, 0)':
            ----...
        """
        call = self._calls.find(ID)
        text = report("Failure", failureObj.value, failureObj.getTracebackObject(), None if call is None else call.text)
        return self._noted("aboutFailure", text, call, nowForget)

    def _made(
        self,
        metaArgs: tuple[Any, ...],
        args: Sequence[Any] | None,
        kw: Mapping[str, Any] | None,
        instance: object,
    ) -> KnownCall:
        if len(metaArgs) > 3:
            raise TypeError(f"setCall takes a callable, its args and its kw, at most 3 items, got {len(metaArgs)}")
        if metaArgs:
            given = metaArgs[1] if len(metaArgs) > 1 else ()
            spread = tuple(given) if isA(given, list, tuple) else (given,)
            before = CallSpec(metaArgs[0], spread, metaArgs[2] if len(metaArgs) > 2 else {})
        elif (current := self._calls.find(None)) is not None and any(it is not None for it in (args, kw, instance)):
            before = current.spec
            instance = current.instance if instance is None else instance
        else:
            raise ValueError("no call to describe: give setCall a callable, or change the current call")
        spec = CallSpec(before.f, before.args if args is None else tuple(args), dict(before.kw if kw is None else kw))
        thread = currentThread() if self._whichThread else None
        return KnownCall(next(_IDs), spec, callText(spec, instance, thread), instance, thread)

    def _noted(self, name: str, text: str, call: KnownCall | None, nowForget: bool) -> str:
        if call is not None:
            if nowForget:
                self.forgetID(call.ID)
            else:
                self.saveInfo(name, text, call.ID)
        return text


class InfoHolder:
    """The methods of an `Info` for one call. `Info.context` yields it.

    Args:
        info: The `Info`.
        ID: The ID of the call.

    Example:
        >>> with Info().context(divmod, (1, 0)) as call:
        ...     print(call.aboutCall())
        divmod(1, 0)
    """

    def __init__(self, info: Info, ID: int) -> None:
        self.info = info
        self.ID = ID

    def getInfo(self, name: str) -> Any:
        """Return an item of information, as `Info.getInfo`.

        Args:
            name: The name of the item.
        """
        return self.info.getInfo(self.ID, name)

    def saveInfo(self, name: str, x: T) -> T:
        """Save an item of information and return it, as `Info.saveInfo`.

        Args:
            name: The name of the item.
            x: The item.
        """
        return self.info.saveInfo(name, x, self.ID)

    @overload
    def nn(self, raw: Literal[False] = False) -> tuple[bytes | str | None, bytes | str | None]: ...
    @overload
    def nn(self, raw: Literal[True]) -> tuple[object, object]: ...
    def nn(self, raw: bool = False) -> tuple[object, object]:
        """Return the namespace and the name of the callable, as `Info.nn`.

        Args:
            raw: Return the objects themselves.
        """
        return self.info.nn(self.ID, True) if raw else self.info.nn(self.ID)

    def aboutCall(self) -> str:
        """Describe the call, as `Info.aboutCall`."""
        return self.info.aboutCall(self.ID)

    def aboutException(self, exception: BaseException | None = None) -> str:
        """Describe an exception that this call raised, as `Info.aboutException`.

        Args:
            exception: The exception. None is the one that is being handled.
        """
        return self.info.aboutException(self.ID, exception)

    def aboutFailure(self, failureObj: Failure) -> str:
        """Describe a Failure, as `Info.aboutFailure`.

        Args:
            failureObj: The Failure.
        """
        return self.info.aboutFailure(failureObj, self.ID)
