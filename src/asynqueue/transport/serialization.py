"""Turn calls, results and items into payloads and back.

A `Codec` encodes for one medium: the bytes of the message itself (`INLINE`), pieces that are not copied (`PIECES`), or
shared memory (``Codec(channel.dumps)``). Each rule is the same for all of them. An object that cannot be pickled raises
a `SerializationError` that names it; so does one that cannot be unpickled.

Worker processes import this module: it imports neither attrs nor Twisted.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from asynqueue.core.protocol.chunkedpayload import ChunkedPayload
from asynqueue.core.protocol.messages import Payload
from asynqueue.core.text import className, errorText
from asynqueue.errors import SerializationError
from asynqueue.transport.pickler import dumps, dumpsInPieces
from asynqueue.transport.script.context import Undelivered as Undelivered
from asynqueue.transport.sharedmemory import SharedMemoryChannel, referenceLength

P = TypeVar("P")


class Resident(NamedTuple):
    """Stands for the callable NAME of the resident object KEY, or with None for that object itself."""

    key: int
    name: str | None


class Codec(Generic[P]):
    """Encodes calls, results and items with DUMPS, which returns an object as a payload or raises anything."""

    __slots__ = ("dumps",)

    def __init__(self, dumps: Callable[[Any], P]) -> None:
        self.dumps: Callable[[Any], P] = dumps

    def dumpCall(
        self, content: Any, f: object, args: Sequence[Any], kw: Mapping[str, Any], describe: Callable[[], str]
    ) -> P:
        """Return CONTENT, which is what is sent of the call ``f(*args, **kw)``, as a payload.

        Raises `SerializationError`, which names the argument and the call, as DESCRIBE returns that.
        """
        try:
            return self.dumps(content)
        except BaseException as error:  # SystemExit too: it ends this call, and not the program.
            raise _refusedCall(f, args, kw, describe, error) from error

    def dumpResult(self, result: Any) -> P:
        """Return the RESULT of a call as a payload. Raises `SerializationError`."""
        try:
            return self.dumps(result)
        except BaseException as error:  # as above
            raise _refused("the result", result, error) from error

    def dumpItem(self, item: Any) -> P:
        """Return an ITEM of an iterator as a payload, which later changes of the item do not reach. Raises
        `SerializationError`."""
        try:
            return self.dumps(item)
        except BaseException as error:  # SystemExit too: it ends the iteration, and not the worker.
            raise _refused("an item", item, error) from error


INLINE: Codec[bytes] = Codec(dumps)
PIECES: Codec[bytes | ChunkedPayload] = Codec(dumpsInPieces)


def loads(payload: Payload | memoryview, what: str, channel: SharedMemoryChannel | None = None) -> Any:
    """Return the object in PAYLOAD, or in the memory of CHANNEL that it refers to.

    Raises `SerializationError`, in which WHAT names the object.
    """
    try:
        if isinstance(payload, ChunkedPayload):
            return pickle.Unpickler(payload).load()
        if channel is not None and referenceLength(payload):
            return channel.open(payload)
        return pickle.loads(payload)
    except BaseException as error:
        raise SerializationError(f"{what} cannot be unpickled: {errorText(error)}") from error


def loadItems(
    number: int, payload: Payload, channel: SharedMemoryChannel | None = None
) -> tuple[list[Any], SerializationError | None]:
    """Return the items in PAYLOAD, up to the first that cannot be unpickled, and the error of that one."""
    items: list[Any] = []
    stream = payload if isinstance(payload, ChunkedPayload) else io.BytesIO(payload)
    for _ in range(number):
        try:
            if channel is not None and isinstance(stream, io.BytesIO):
                size = referenceLength(stream.getbuffer()[stream.tell() :])
                if size:
                    items.append(channel.open(stream.read(size)))
                    continue
            items.append(pickle.load(stream))  # One unpickler for each: items do not share objects.
        except BaseException as error:
            return items, SerializationError(f"an item cannot be unpickled: {errorText(error)}")
    return items, None


def _refusedCall(
    f: object, args: Sequence[Any], kw: Mapping[str, Any], describe: Callable[[], str], error: BaseException
) -> SerializationError:
    """Return an error that names the part of a call that cannot be pickled; ERROR says that there is one."""
    parts: list[tuple[str, Any]] = [("the callable", f)]
    parts += [(f"argument {n}", x) for n, x in enumerate(args, 1)]
    parts += [(f"argument {name}", x) for name, x in kw.items()]
    for what, part in parts:
        try:
            dumps(part)
        except BaseException as culprit:  # as above
            return SerializationError(f"{what} of {describe()} cannot be pickled: {errorText(culprit)}")
    return SerializationError(f"{describe()} cannot be pickled: {errorText(error)}")


def _refused(what: str, obj: object, error: BaseException) -> SerializationError:
    return SerializationError(f"{what}, of type {className(obj)}, cannot be pickled: {errorText(error)}")
