# pyright: reportArgumentType=false, reportAssignmentType=false, reportGeneralTypeIssues=false
# What a message has for fields, the table here says, and no type.

"""Bytes <-> messages.

Theory of operation. A message travels in one or more *frames*. A frame is a header, the length of its body
(4 bytes, little-endian) and its kind (1 byte), and the body. The last frame of a message has the kind of the
message, and its body holds the message's fixed fields and the end of its payload; a payload that does not fit
has its beginning sent before, in frames of kind `PART`, whose body is the message's number and bytes. So a frame
never exceeds the limit, a message may have any size, and frames of other messages may come between.

A `Decoder` is fed the stream in pieces of any size, and gives the messages that are complete. It holds no more
than one frame that is not complete, plus the parts of unfinished messages, up to a limit of their own. Whatever
does not follow the rules is a `FrameError`, after which the stream is worth nothing.

A payload may be in `asynqueue.core.protocol.payload`, of which frames are cut as they are asked for; and a decoder
may give what is larger than a block of those like this.

Cost: O(bytes), each byte copied once on its way in, and once or twice more for each part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from struct import Struct
from typing import Any

from asynqueue.core.protocol import messages as m
from asynqueue.core.protocol.payload import BLOCK, ChunkedPayload, anonymousCopy, whole
from asynqueue.errors import SerializationError

FRAME_LIMIT = 1 << 20
"""The most bytes in a frame's body, unless the two sides of a link agree on less."""

WIRE_FRAME_LIMIT = 1 << 16
"""The most bytes in a frame's body on a wire, where other messages are to come between the frames of a large one."""

PART_COST = 128
"""About how many bytes it costs to hold the beginning of a message, beside its own."""

PART = 0
_HEADER = Struct("<IB")
_NUMBER = Struct("<Q")

# Each kind of message: its number, its fixed fields, and whether a payload follows them.
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
}  # the second is the first after a header
_BY_KIND: dict[int, tuple[type[m.Message], Struct, bool]] = {
    kind: (cls, Struct(form), payload) for kind, cls, form, payload in _KINDS
}
_made = tuple.__new__
"""Makes a message of its type and fields, without the Python function that a named tuple has for that."""


class FrameError(SerializationError):
    """Bytes that are no frame, or exceed what was agreed on. The link they came over has to be closed."""


def encode(message: m.Message, frameLimit: int = FRAME_LIMIT) -> bytes:
    """The frames of MESSAGE, none with a body of more than FRAME_LIMIT bytes (at least 64)."""
    kind, fixed, prefixed, hasPayload = _BY_TYPE[type(message)]
    fields: tuple[Any, ...] = message  # the table says what they are, field by field
    if not hasPayload:
        return prefixed.pack(fixed.size, kind, *fields)
    payload: m.Payload = fields[-1]
    length = fixed.size + len(payload)
    if length <= frameLimit:
        header = prefixed.pack(length, kind, *fields[:-1])
        return header + (payload if type(payload) is bytes else whole(payload))
    return b"".join(frames(message, frameLimit))


def frames(message: m.Message, frameLimit: int = FRAME_LIMIT) -> Iterator[bytes]:
    """The frames of MESSAGE one by one, as `encode` has them: each is made when it is asked for."""
    kind, fixed, _, hasPayload = _BY_TYPE[type(message)]
    fields: tuple[Any, ...] = message  # as above
    if not hasPayload:
        yield _HEADER.pack(fixed.size, kind) + fixed.pack(*fields)
        return
    head = fixed.pack(*fields[:-1])
    number = _NUMBER.pack(fields[0])  # every message with a payload has its call's number first
    room = frameLimit - len(head)
    last: m.Payload = fields[-1]
    payload = last if isinstance(last, ChunkedPayload) else ChunkedPayload([bytes(last)])
    while len(payload) > room:
        yield b"".join((_HEADER.pack(len(number) + room, PART), number, *payload.take(room)))
    yield b"".join((_HEADER.pack(len(head) + len(payload), kind), head, *payload.take(len(payload))))


class Decoder:
    """Gives the messages of a byte stream.

    FRAME_LIMIT is the most bytes in a frame's body. PARTS_LIMIT is the most bytes of unfinished messages held, each
    counted as `PART_COST` more than was sent of it; None for no limit: on a link to our own worker process, say.
    PIECEMEAL, a payload that is larger than a `BLOCK` is `ChunkedPayload`, and else never. WANTED is asked, of each
    part, whether message NUMBER is wanted with so many bytes held; one that is not is dropped, and it is not given.
    It may raise `FrameError`.
    """

    __slots__ = (
        "_broken",
        "_buffer",
        "_dropped",
        "_frameLimit",
        "_held",
        "_needed",
        "_parts",
        "_partsLimit",
        "_piecemeal",
        "_pieces",
        "_wanted",
    )

    def __init__(
        self,
        frameLimit: int = FRAME_LIMIT,
        partsLimit: int | None = None,
        piecemeal: bool = False,
        wanted: Callable[[int, int], bool] | None = None,
    ) -> None:
        self._frameLimit = frameLimit
        self._partsLimit = partsLimit
        self._piecemeal = piecemeal
        self._wanted = wanted
        self._dropped: set[int] = set()  # the messages of which parts were not kept: they are nothing any more
        self._buffer = bytearray()
        self._needed = 0  # how long the buffer has to be before anything is made of it
        self._parts: dict[int, bytearray] = {}
        self._pieces: dict[int, ChunkedPayload] = {}  # what came before those
        self._held = 0
        self._broken = False

    def feed(self, received: bytes) -> list[m.Message]:
        """The messages completed by the bytes RECEIVED. Raises `FrameError`, and from then on always."""
        if self._broken:
            raise FrameError("what follows a bad frame cannot be read")
        try:
            return self._read(received)
        except FrameError as error:
            self._broken = True
            self._buffer = bytearray()
            self._parts.clear()
            self._pieces.clear()
            self._held = 0
            raise error.with_traceback(None) from None  # or its frames would keep views of the buffer

    def drop(self, number: int) -> None:
        """Let go of message NUMBER if parts of it have come, and do not give it."""
        part = self._parts.pop(number, None)
        if part is not None:
            self._held -= PART_COST + len(part) + len(self._pieces.pop(number, ()))
            self._dropped.add(number)

    def validate(self) -> None:
        """Assert that no more is held than the limits allow."""
        assert len(self._buffer) < _HEADER.size + self._frameLimit
        parts = self._parts.values()
        assert self._held == sum(PART_COST + len(part) for part in parts) + sum(map(len, self._pieces.values()))
        assert self._pieces.keys() <= self._parts.keys()
        assert not self._piecemeal or all(len(part) < BLOCK for part in parts)
        assert self._partsLimit is None or self._held <= self._partsLimit

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
        """The message of KIND whose body is from START to END of what was RECEIVED; None if it was dropped."""
        known = _BY_KIND.get(kind)
        if known is None:
            raise FrameError(f"there is no message of kind {kind}")
        cls, fixed, hasPayload = known
        rest = start + fixed.size
        if end < rest or (end > rest and not hasPayload):
            raise FrameError(f"a message of kind {kind} cannot have {end - start} bytes")
        fields = fixed.unpack_from(received, start)
        if not hasPayload:
            return _made(cls, fields)
        if self._dropped and fields[0] in self._dropped:
            self._dropped.remove(fields[0])
            return None
        payload = received[rest:end]
        if self._parts:
            begun = self._parts.pop(fields[0], None)
            if begun is not None:
                self._held -= PART_COST + len(begun)
                begun += payload
                pieces = self._pieces.pop(fields[0], None)
                if pieces is None:
                    return _made(cls, (*fields, begun))
                self._held -= len(pieces)
                pieces.append(bytes(begun))
                return _made(cls, (*fields, pieces))
        return _made(cls, (*fields, payload))

    def _part(self, body: memoryview) -> None:
        if len(body) <= _NUMBER.size:
            raise FrameError("a part of a message without a number or without bytes")
        number = _NUMBER.unpack_from(body)[0]
        if number in self._dropped:
            return
        self._held += len(body) - _NUMBER.size + (0 if number in self._parts else PART_COST)
        if self._partsLimit is not None and self._held > self._partsLimit:
            raise FrameError(f"unfinished messages exceed the limit of {self._partsLimit} bytes")
        wanted = self._wanted is None or self._wanted(number, self._held)
        part = self._parts.setdefault(number, bytearray())
        part += body[_NUMBER.size :]
        if self._piecemeal and len(part) >= BLOCK:
            self._pieces.setdefault(number, ChunkedPayload()).append(anonymousCopy(part))
            self._parts[number] = bytearray()
        if not wanted:
            self.drop(number)
