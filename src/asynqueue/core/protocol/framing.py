# pyright: reportArgumentType=false, reportAssignmentType=false, reportGeneralTypeIssues=false
# The fields of a message are in a table here, which a type checker cannot follow.

"""Convert between messages and bytes.

A message travels in one or more *frames*. A frame is a header and a body. The header is the length of the body
(4 bytes, little-endian) and the kind of the frame (1 byte).

- The last frame of a message has the kind of the message. Its body holds the fixed fields and the end of the payload.
- A payload that does not fit is started in earlier frames of kind `PART`. Their body is the number of the call and
  bytes of the payload.

So a frame never exceeds the limit, a message may have any size, and frames of other messages may come in between.

A `Decoder` takes the byte stream in pieces of any size and returns the messages that are complete. It holds at most one
incomplete frame, plus the parts of unfinished messages up to a limit of their own. Bytes that break the rules raise
`FrameError`, and the rest of the stream is then useless.

A payload may be a `ChunkedPayload`, from which frames are cut as they are needed. With `chunked`, a decoder also
returns payloads larger than a block in that form.

Cost: O(bytes). Each received byte is copied once, and once or twice more if it came in a part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from struct import Struct
from typing import Any

from asynqueue.core.protocol import messages as m
from asynqueue.core.protocol.chunkedpayload import BLOCK, ChunkedPayload, anonymousCopy, whole
from asynqueue.errors import SerializationError

FRAME_LIMIT = 1 << 20
"""The maximum size of a frame's body in bytes, unless both sides of a link agree on less."""

WIRE_FRAME_LIMIT = 1 << 16
"""The maximum size of a frame's body on a wire. It is smaller, so that other messages need not wait for a large one."""

PART_COST = 128
"""The approximate memory overhead of an unfinished message, in bytes."""

PART = 0
_HEADER = Struct("<IB")
_NUMBER = Struct("<Q")

# Each kind of message: its number, class, fixed fields, and whether a payload follows them.
_KINDS: tuple[tuple[int, type[m.Message], str, bool], ...] = (
    (1, m.Call, "<Q?", True),
    (2, m.Grant, "<QI", False),
    (3, m.Close, "<Q", False),
    (4, m.Goodbye, "<", False),
    (5, m.Begin, "<I", False),
    (6, m.Recall, "<", False),
    (7, m.Cancel, "<Q", False),
    (8, m.Ping, "<", False),
    (9, m.Pong, "<", False),
    (10, m.Tidy, "<", False),
    (16, m.Ready, "<Q", False),
    (17, m.Returned, "<Qd", True),
    (18, m.Raised, "<Qd", True),
    (19, m.Opened, "<Qd", False),
    (20, m.Items, "<QI", True),
    (21, m.Exhausted, "<Q", False),
    (22, m.Failed, "<Q", True),
    (23, m.Started, "<Q", False),
    (24, m.Recalled, "<Q", False),
    (25, m.Refused, "<Q", True),
    (26, m.Terms, "<QQQ", False),
)
_BY_TYPE: dict[type[m.Message], tuple[int, Struct, Struct, bool]] = {
    cls: (kind, Struct(form), Struct("<IB" + form[1:]), payload) for kind, cls, form, payload in _KINDS
}  # The second Struct packs the header as well.
_BY_KIND: dict[int, tuple[type[m.Message], Struct, bool]] = {
    kind: (cls, Struct(form), payload) for kind, cls, form, payload in _KINDS
}
_newMessage = tuple.__new__
"""Make a message from its class and fields. This skips the Python-level `__new__` of a named tuple."""


class FrameError(SerializationError):
    """The received bytes are not a valid frame, or exceed a limit. The link has to be closed."""


def encode(message: m.Message, frameLimit: int = FRAME_LIMIT) -> bytes:
    """Return the frames of MESSAGE. No frame has a body of more than FRAME_LIMIT bytes (at least 64)."""
    kind, fixed, prefixed, hasPayload = _BY_TYPE[type(message)]
    fields: tuple[Any, ...] = message  # the table has the type of each field
    if not hasPayload:
        return prefixed.pack(fixed.size, kind, *fields)
    payload: m.Payload = fields[-1]
    length = fixed.size + len(payload)
    if length <= frameLimit:
        header = prefixed.pack(length, kind, *fields[:-1])
        return header + (payload if type(payload) is bytes else whole(payload))
    return b"".join(frames(message, frameLimit))


def frames(message: m.Message, frameLimit: int = FRAME_LIMIT) -> Iterator[bytes]:
    """Yield the frames of MESSAGE one by one. Each is made only when it is needed."""
    kind, fixed, _, hasPayload = _BY_TYPE[type(message)]
    fields: tuple[Any, ...] = message  # as above
    if not hasPayload:
        yield _HEADER.pack(fixed.size, kind) + fixed.pack(*fields)
        return
    head = fixed.pack(*fields[:-1])
    number = _NUMBER.pack(fields[0])  # the first field of a message with a payload is the number of the call
    room = frameLimit - len(head)
    last: m.Payload = fields[-1]
    payload = last if isinstance(last, ChunkedPayload) else ChunkedPayload([bytes(last)])
    while len(payload) > room:
        yield b"".join((_HEADER.pack(len(number) + room, PART), number, *payload.take(room)))
    yield b"".join((_HEADER.pack(len(head) + len(payload), kind), head, *payload.take(len(payload))))


class Decoder:
    """Converts a byte stream to messages.

    FRAME_LIMIT is the maximum size of a frame's body in bytes. PARTS_LIMIT is the maximum size of all unfinished
    messages in bytes, plus `PART_COST` for each. None means no limit, as on a link to a child process of our own. With
    CHUNKED, a payload larger than a `BLOCK` becomes a `ChunkedPayload`.

    WANTED is called for each part with the number of the call and the bytes held. If it returns False, the message is
    dropped and never returned. It may raise `FrameError`.
    """

    __slots__ = (
        "_broken",
        "_buffer",
        "_chunked",
        "_chunks",
        "_dropped",
        "_frameLimit",
        "_heldBytes",
        "_needed",
        "_parts",
        "_partsLimit",
        "_wanted",
    )

    def __init__(
        self,
        frameLimit: int = FRAME_LIMIT,
        partsLimit: int | None = None,
        chunked: bool = False,
        wanted: Callable[[int, int], bool] | None = None,
    ) -> None:
        self._frameLimit = frameLimit
        self._partsLimit = partsLimit
        self._chunked = chunked
        self._wanted = wanted
        self._dropped: set[int] = set()  # the messages that were dropped and are not complete yet
        self._buffer = bytearray()
        self._needed = 0  # how long the buffer must be before it is read
        self._parts: dict[int, bytearray] = {}
        self._chunks: dict[int, ChunkedPayload] = {}  # the completed blocks, which come before those
        self._heldBytes = 0
        self._broken = False

    def feed(self, received: bytes) -> list[m.Message]:
        """Return the messages that the bytes RECEIVED complete.

        Raise `FrameError` for invalid bytes, and on every later call.
        """
        if self._broken:
            raise FrameError("a bad frame came before: the rest of the stream cannot be read")
        try:
            return self._read(received)
        except FrameError as error:
            self._broken = True
            self._buffer = bytearray()
            self._parts.clear()
            self._chunks.clear()
            self._heldBytes = 0
            raise error.with_traceback(None) from None  # the traceback's frames would keep views of the buffer alive

    def drop(self, number: int) -> None:
        """Drop the parts of message NUMBER, if any have come. The message is not returned."""
        part = self._parts.pop(number, None)
        if part is not None:
            self._heldBytes -= PART_COST + len(part) + len(self._chunks.pop(number, ()))
            self._dropped.add(number)

    def validate(self) -> None:
        """Assert that the decoder holds no more than the limits allow."""
        assert len(self._buffer) < _HEADER.size + self._frameLimit
        parts = self._parts.values()
        assert self._heldBytes == sum(PART_COST + len(part) for part in parts) + sum(map(len, self._chunks.values()))
        assert self._chunks.keys() <= self._parts.keys()
        assert not self._chunked or all(len(part) < BLOCK for part in parts)
        assert self._partsLimit is None or self._heldBytes <= self._partsLimit

    def _read(self, received: bytes) -> list[m.Message]:
        if self._buffer:
            self._buffer += received
            if len(self._buffer) < self._needed:
                return []
            received = bytes(self._buffer)
            self._buffer.clear()
        end = len(received)
        start = 0
        complete: list[m.Message] = []
        while True:
            body = start + _HEADER.size
            if body > end:
                self._needed = _HEADER.size
                break
            length, kind = _HEADER.unpack_from(received, start)
            if length > self._frameLimit:
                raise FrameError(f"a frame of {length} bytes exceeds the limit of {self._frameLimit}")
            if body + length > end:
                self._needed = _HEADER.size + length
                break
            if kind == PART:
                self._part(memoryview(received)[body : body + length])
            else:
                message = self._message(kind, received, body, body + length)
                if message is not None:
                    complete.append(message)
            start = body + length
        self._buffer += received[start:]
        return complete

    def _message(self, kind: int, received: bytes, start: int, end: int) -> m.Message | None:
        """Return the message of KIND with its body from START to END of RECEIVED, or None if it was dropped."""
        known = _BY_KIND.get(kind)
        if known is None:
            raise FrameError(f"there is no message of kind {kind}")
        cls, fixed, hasPayload = known
        rest = start + fixed.size
        if end < rest or (end > rest and not hasPayload):
            raise FrameError(f"a message of kind {kind} cannot have {end - start} bytes")
        fields = fixed.unpack_from(received, start)
        if not hasPayload:
            return _newMessage(cls, fields)
        if self._dropped and fields[0] in self._dropped:
            self._dropped.remove(fields[0])
            return None
        payload = received[rest:end]
        if self._parts:
            begun = self._parts.pop(fields[0], None)
            if begun is not None:
                self._heldBytes -= PART_COST + len(begun)
                begun += payload
                pieces = self._chunks.pop(fields[0], None)
                if pieces is None:
                    return _newMessage(cls, (*fields, begun))
                self._heldBytes -= len(pieces)
                pieces.append(bytes(begun))
                return _newMessage(cls, (*fields, pieces))
        return _newMessage(cls, (*fields, payload))

    def _part(self, body: memoryview) -> None:
        if len(body) <= _NUMBER.size:
            raise FrameError("a part of a message has no number or no bytes")
        number = _NUMBER.unpack_from(body)[0]
        if number in self._dropped:
            return
        self._heldBytes += len(body) - _NUMBER.size + (0 if number in self._parts else PART_COST)
        if self._partsLimit is not None and self._heldBytes > self._partsLimit:
            raise FrameError(f"unfinished messages exceed the limit of {self._partsLimit} bytes")
        wanted = self._wanted is None or self._wanted(number, self._heldBytes)
        part = self._parts.setdefault(number, bytearray())
        part += body[_NUMBER.size :]
        if self._chunked and len(part) >= BLOCK:
            self._chunks.setdefault(number, ChunkedPayload()).append(anonymousCopy(part))
            self._parts[number] = bytearray()
        if not wanted:
            self.drop(number)
