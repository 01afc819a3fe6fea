"""What is large, beside the stream: through memory that two processes share, not through a pipe byte by byte.

A value of `LARGE` bytes or more is pickled into memory of the kernel's that has no name, only a descriptor (a memfd).
The descriptor goes to the other process over a socket of its own before the message that is about it does, and in the
message stands a *slip*, a few bytes that say which parcel it is and how it is divided. Bytes are written into it once,
from where they are, and read out once, to where they are to be; so are the buffers of NumPy arrays and whatever else
pickle takes out-of-band. The other side has its own copy then, and the memory is gone as soon as nobody has the
descriptor: whoever dies when, nothing is left of it.

A slip begins with a zero byte, as no pickle does. What cannot be sent like this (another system, too many descriptors
on the way, no memory left) is sent through the stream. Worker processes read this module.
"""

from __future__ import annotations

import os
import pickle
import socket
from collections.abc import Sequence
from struct import Struct
from typing import Any, BinaryIO

LARGE = 1 << 17
"""Bytes from which on a value goes as a parcel: below, what a parcel costs beside copying is more than it saves."""

_MARK = 0
_SLIP = Struct("<BQI")
_SIZE = Struct("<Q")
_PROTOCOL = 5


class Parcels:
    """Sends parcels over END, one of a pair from `pair`, and opens those that come over it."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._end = end
        self._last = 0
        self.sawLarge: bool = False  # `isSmall` said no
        self._come: dict[int, int] = {}  # descriptors, by the number of the parcel

    def isSmall(self, buffer: pickle.PickleBuffer) -> bool:
        """Whether BUFFER is not worth a parcel. (For pickle, which is to leave out what is.)"""
        small = buffer.raw().nbytes < LARGE
        self.sawLarge = self.sawLarge or not small
        return small

    def send(self, obj: Any) -> bytes | None:
        """Send OBJ, and give the slip; None if it cannot go like this. Raises whatever pickle raises."""
        chunks = Chunks()
        buffers: list[memoryview] = []

        def take(buffer: pickle.PickleBuffer) -> bool:
            raw = buffer.raw()
            if raw.nbytes < LARGE:
                return True
            buffers.append(raw)
            return False

        pickle.Pickler(chunks, _PROTOCOL, buffer_callback=take).dump(obj)
        if chunks.tellOfMain():
            return None
        parts = [chunks.parts, *([buffer] for buffer in buffers)]
        try:
            with open(os.memfd_create("asynqueue", os.MFD_CLOEXEC), "wb") as memory:
                for part in parts:
                    memory.writelines(part)
                memory.flush()
                self._last += 1
                slip = _SLIP.pack(_MARK, self._last, len(parts))
                socket.send_fds(self._end, [_SIZE.pack(self._last)], [memory.fileno()])
        except OSError:
            return None
        return slip + b"".join(_SIZE.pack(sum(len(x) for x in part)) for part in parts)

    def open(self, slip: bytes | bytearray | memoryview) -> Any:
        """What is in the parcel of SLIP, which is gone then. Raises whatever pickle raises, and OSError."""
        _, number, parts = _SLIP.unpack_from(slip)
        sizes = [_SIZE.unpack_from(slip, _SLIP.size + n * _SIZE.size)[0] for n in range(parts)]
        with open(self._take(number), "rb") as memory:
            memory.seek(sizes[0])
            buffers = [_read(memory, size) for size in sizes[1:]]
            memory.seek(0)
            return pickle.load(memory, buffers=buffers)

    def drop(self, slip: bytes | bytearray | memoryview) -> None:
        """Nobody wants the parcel of SLIP."""
        os.close(self._take(_SLIP.unpack_from(slip)[1]))

    def close(self) -> None:
        """Let go of what came and was not opened, and of the socket."""
        while self._come:
            os.close(self._come.popitem()[1])
        self._end.close()

    def fileno(self) -> int:
        """The socket's descriptor, -1 when it is closed."""
        return self._end.fileno()

    def _take(self, number: int) -> int:
        while number not in self._come:
            received, descriptors, _, _ = socket.recv_fds(self._end, _SIZE.size, 1)
            if not descriptors:
                raise OSError("a parcel that was announced has not come")
            self._come[_SIZE.unpack(received)[0]] = descriptors[0]
        return self._come.pop(number)


def pair() -> tuple[socket.socket, socket.socket] | None:
    """Two sockets, one for each side; None where the system has no memory without a name."""
    if not hasattr(os, "memfd_create"):
        return None
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def slipLength(payload: bytes | bytearray | memoryview) -> int:
    """How many bytes of PAYLOAD are a slip: 0 if it does not begin with one."""
    if payload[0] != _MARK:
        return 0
    return _SLIP.size + int(_SLIP.unpack_from(payload)[2]) * _SIZE.size


class Chunks:
    """What pickle writes, as it comes: large bytes, and what has a buffer, are the objects that they were."""

    def __init__(self) -> None:
        self.parts: list[Any] = []  # bytes and views of them
        self.write = self.parts.append

    def tellOfMain(self) -> bool:
        """Whether something of ``__main__`` is in it, which has to go by value."""
        return any(len(part) < LARGE and b"__main__" in bytes(part) for part in self.parts)


def _read(memory: BinaryIO, size: int) -> bytearray:
    """So many bytes in memory of their own, which may be written to."""
    own = bytearray(size)  # of the heap: what one array leaves the next one has, and the kernel gives nothing anew
    memory.readinto(own)  # type: ignore[attr-defined]  # what open gives has it
    return own


def areLarge(values: Sequence[Any]) -> bool:
    """Whether one of VALUES is so many bytes that there is no doubt."""
    for value in values:  # noqa: SIM110  # `any` would make a generator for each call
        if type(value) in _PLAIN and len(value) >= LARGE:
            return True
    return False


_PLAIN = (bytes, bytearray, str)
