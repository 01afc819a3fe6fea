"""Objects <-> bytes, on both sides of a link.

Pickle carries what it can, being fast. What it refuses, and whatever belongs to ``__main__`` (which is another
module on the other side), goes by value through cloudpickle. An object that neither can carry is a
`SerializationError` that names it; so is one that does not come out on the other side. Worker processes read
this module: it imports neither attrs nor Twisted, and cloudpickle only when it is needed.
"""

from __future__ import annotations

import copyreg
import io
import pickle
import traceback
from collections.abc import Callable, Mapping, Sequence
from types import MethodType
from typing import Any, NamedTuple

from asynqueue.core.protocol.messages import Payload
from asynqueue.core.protocol.payload import ChunkedPayload
from asynqueue.errors import SerializationError
from asynqueue.transport.pickler import LARGE, PickleWriter, areLarge, plainPickler
from asynqueue.transport.sharedmemory import SharedMemoryChannel, referenceLength

PROTOCOL = 5

_SMALL = (bool, float, int, type(None))
_CAUSE: Any = BaseException.__dict__["__cause__"]  # to a type checker an attribute, and no descriptor


class Resident(NamedTuple):
    """Stands for the callable NAME of the resident object KEY, or for that object itself."""

    key: int
    name: str | None


class Undelivered(SerializationError):
    """A call that did not come out on the far side: nothing of it has arrived."""


class RemoteTraceback(Exception):
    """The traceback of an error that was raised elsewhere, as text: the cause of the error as it arrives."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def dumps(obj: Any, parcels: SharedMemoryChannel | None = None, large: bool = False) -> bytes:
    """OBJ as bytes; as a slip for one of PARCELS, if there are any, when it is LARGE or turns out to be.

    Raises whatever the picklers raise.
    """
    if parcels is None:
        return _dumpsInline(obj)
    if large:
        try:
            slip = parcels.send(obj)
        except BaseException:  # what goes by value does not go like this, and what cannot go at all is told of below
            slip = None
        return slip or _dumpsInline(obj)
    payload = _dumpsPlainly(obj, parcels.isSmall)
    buffers, parcels.large = parcels.large, ()
    if payload is None:
        payload, buffers = _dumpsByValue(obj), ()
    if not buffers and len(payload) < LARGE:
        return payload
    return parcels.sendPickled(payload, buffers) or (_dumpsInline(obj) if buffers else payload)


def _dumpsInline(obj: Any) -> bytes:
    return _dumpsPlainly(obj) or _dumpsByValue(obj)


def _dumpsPlainly(obj: Any, isSmall: Callable[[pickle.PickleBuffer], bool] | None = None) -> bytes | None:
    """OBJ as bytes, without those buffers in it that are not ISSMALL; None if it has to go by value."""
    try:
        if MethodType in copyreg.dispatch_table:
            file = io.BytesIO()
            plainPickler(file, isSmall).dump(obj)
            payload = file.getvalue()
        else:
            payload = pickle.dumps(obj, PROTOCOL, buffer_callback=isSmall)
    except BaseException:  # pickle and the objects it asks raise many things, SystemExit too; cloudpickle decides
        return None
    # A name in __main__ is pickled as a name, which the other side's __main__ does not have.
    return None if b"__main__" in payload else payload


def _dumpsByValue(obj: Any) -> bytes:
    import cloudpickle

    payload: bytes = cloudpickle.dumps(obj, PROTOCOL)
    return payload


def dumpsInPieces(obj: Any) -> bytes | ChunkedPayload:
    """OBJ as bytes; in pieces when it is large, and then large bytes in it are not copied. What may change is.

    Raises whatever the picklers raise.
    """
    if type(obj) in _SMALL:
        return pickle.dumps(obj, PROTOCOL)
    chunks = PickleWriter()
    try:
        pickle.Pickler(chunks, PROTOCOL).dump(obj)
        chunks.parts = [bytes(part) for part in chunks.parts]  # those that are bytes are the same
        byValue = chunks.mentionsMain()
    except BaseException:  # as by `_dumpsPlainly`
        byValue = True
    if byValue:
        return _dumpsByValue(obj)
    return ChunkedPayload(chunks.parts) if sum(map(len, chunks.parts)) >= LARGE else b"".join(chunks.parts)


def loads(payload: Payload | memoryview, what: str, parcels: SharedMemoryChannel | None = None) -> Any:
    """The object in PAYLOAD, which is WHAT, or in the one of PARCELS that it is a slip for.

    Raises `SerializationError`.
    """
    try:
        if isinstance(payload, ChunkedPayload):
            return pickle.Unpickler(payload).load()
        if parcels is not None and referenceLength(payload):
            return parcels.open(payload)
        return pickle.loads(payload)
    except BaseException as error:
        raise SerializationError(f"{what} cannot be unpickled: {_reason(error)}") from error


def dumpCall(
    f: object,
    args: Sequence[Any],
    kw: Mapping[str, Any],
    *more: Any,
    describe: Callable[[], str],
    parcels: SharedMemoryChannel | None = None,
) -> bytes:
    """A call as bytes, with PARCELS for what is large. DESCRIBE tells what it is, for a `SerializationError` that
    names the argument."""
    try:
        return dumps((f, args, dict(kw), *more), parcels)
    except BaseException as error:  # SystemExit too: it is the call that ends, not whoever makes it
        raise _refusedCall(f, args, kw, describe, error) from error


def dumpCallInPieces(
    args: Sequence[Any], kw: Mapping[str, Any], *, describe: Callable[[], str]
) -> bytes | ChunkedPayload:
    """What a call is passed as by `dumpsInPieces`. DESCRIBE is as for `dumpCall`."""
    try:
        return dumpsInPieces((args, dict(kw)))
    except BaseException as error:  # as above
        raise _refusedCall(None, args, kw, describe, error) from error


def _refusedCall(
    f: object, args: Sequence[Any], kw: Mapping[str, Any], describe: Callable[[], str], error: BaseException
) -> SerializationError:
    """What is wrong with a call, of which nothing but ERROR is known."""
    parts: list[tuple[str, Any]] = [("the callable", f)]
    parts += [(f"argument {n}", x) for n, x in enumerate(args, 1)]
    parts += [(f"argument {name}", x) for name, x in kw.items()]
    for what, part in parts:
        culprit = _refusal(part)
        if culprit is not None:
            return SerializationError(f"{what} of {describe()} cannot be pickled: {culprit}")
    return SerializationError(f"{describe()} cannot be pickled: {_reason(error)}")


def dumpResult(result: Any, parcels: SharedMemoryChannel | None = None) -> bytes:
    """A call's RESULT as bytes, with PARCELS for what is large. Raises `SerializationError`."""
    try:
        return dumps(result, parcels, parcels is not None and areLarge((result,)))
    except BaseException as error:  # as above
        raise _refused("the result", result, error) from error


def dumpResultInPieces(result: Any) -> bytes | ChunkedPayload:
    """A call's RESULT as by `dumpsInPieces`. Raises `SerializationError`."""
    try:
        return dumpsInPieces(result)
    except BaseException as error:  # as above
        raise _refused("the result", result, error) from error


def dumpError(error: BaseException) -> bytes:
    """ERROR and its traceback as bytes. One that would not come out is replaced by a `SerializationError`."""
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    for way in (dumps, _dumpsErrorsPlainly):
        try:
            payload = way((error, text))
            pickle.loads(payload)
            return payload
        except BaseException as problem:
            refusal = problem
    name = f"{type(error).__module__}.{type(error).__qualname__}"
    message = f"the exception {name}, {_safeText(error)}, cannot be pickled: {_reason(refusal)}"
    return pickle.dumps((SerializationError(message), text), PROTOCOL)


def _dumpsErrorsPlainly(obj: Any) -> bytes:
    """OBJ as bytes, with the errors in it as Python has them.

    A library may have a way of its own, and set what an error does not let be set: tblib, when Dask has been imported.
    """
    file = io.BytesIO()
    pickler = pickle.Pickler(file, PROTOCOL)
    others = {cls: reduce for cls, reduce in copyreg.dispatch_table.items() if not issubclass(cls, BaseException)}
    pickler.dispatch_table = others
    pickler.dump(obj)
    return file.getvalue()


def loadError(payload: Payload) -> BaseException:
    """The error in PAYLOAD, caused by its traceback as text; what does not come out is a SerializationError."""
    try:
        match loads(payload, "the exception"):
            case (error, str(text)):
                pass
            case error:
                text = ""
    except SerializationError as failure:
        return failure
    if not isinstance(error, BaseException):
        return SerializationError(f"an exception came out as {type(error).__name__}")
    # Not by the error's own attribute: it may be frozen, or have one of that name that cannot be set.
    _CAUSE.__set__(error, RemoteTraceback(text))
    return BaseException.with_traceback(error, None)  # some libraries have errors pickled with a copy of theirs


def dumpItem(item: Any, parcels: SharedMemoryChannel | None = None) -> bytes:
    """An iterator's ITEM as bytes, which stand for it as it is now: the iterator may use it again. Raises
    `SerializationError`."""
    try:
        return dumps(item, parcels, parcels is not None and areLarge((item,)))
    except BaseException as error:  # SystemExit too: it is the iteration that ends, not the worker
        raise _refused("an item", item, error) from error


def dumpItemInPieces(item: Any) -> bytes | ChunkedPayload:
    """An iterator's ITEM as by `dumpsInPieces`. Raises `SerializationError`."""
    try:
        return dumpsInPieces(item)
    except BaseException as error:  # as above
        raise _refused("an item", item, error) from error


def _refused(what: str, obj: object, error: BaseException) -> SerializationError:
    return SerializationError(f"{what}, of type {type(obj).__name__}, cannot be pickled: {_reason(error)}")


def loadItems(
    number: int, payload: Payload, parcels: SharedMemoryChannel | None = None
) -> tuple[list[Any], SerializationError | None]:
    """The NUMBER items in PAYLOAD, or in PARCELS, as far as they come out, and why not the next."""
    items: list[Any] = []
    stream = payload if isinstance(payload, ChunkedPayload) else io.BytesIO(payload)
    for _ in range(number):
        try:
            if parcels is not None and isinstance(stream, io.BytesIO):
                slip = referenceLength(stream.getbuffer()[stream.tell() :])
                if slip:
                    items.append(parcels.open(stream.read(slip)))
                    continue
            items.append(pickle.load(stream))  # an unpickler each: what one remembers is nothing to the next
        except BaseException as error:
            return items, SerializationError(f"an item cannot be unpickled: {_reason(error)}")
    return items, None


def _refusal(part: Any) -> str | None:
    try:
        dumps(part)
    except BaseException as error:  # as above
        return _reason(error)
    return None


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {_safeText(error)}"


def _safeText(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException:  # a user's __str__ may raise anything
        return "(which does not say what it is)"
