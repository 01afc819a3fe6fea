"""What is large, beside the stream: through memory that two processes share, not through a pipe byte by byte.

A value of `LARGE` bytes or more is pickled into memory of the kernel's that has no name, only a descriptor (a memfd).
The descriptor goes to the other process over a socket of its own before the message that is about it does, and in the
message stands a *slip*, a few bytes that say which parcel it is and how it is divided. Bytes are written into it once,
from where they are, and read out once, to where they are to be; so are the buffers of NumPy arrays and whatever else
pickle takes out-of-band. The other side has its own copy then, and the memory is gone as soon as nobody has the
descriptor: whoever dies when, nothing is left of it.

Filling fresh memory takes the kernel ten times as long as filling it again, so some of it is kept:
`asynqueue.core.protocol.bufferpool` tells which. The side that has read such a memory says so on that socket, and
then the owner may fill it again. What is kept is given back by `tidy`.

A slip begins with a zero byte, as no pickle does. What cannot be sent like this (another system, too many descriptors
on the way, no memory left) is sent through the stream. A side that has no descriptor left for what comes still has the
one that it holds in reserve: with that it copies the memory at once, and says that it has not kept it. So it says, too,
when as many are kept here as may be. Worker processes read this module.
"""

from __future__ import annotations

import errno
import mmap
import os
import pickle
import resource
import socket
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from struct import Struct
from typing import Any

from asynqueue.core.protocol.bufferpool import BufferPool
from asynqueue.transport.pickler import LARGE, PickleWriter, plainPickler

_MARK = 0
_SLIP = Struct("<BQI")
_SIZE = Struct("<Q")
_NOTE = Struct("<BQQ")
# Of a memory: here it is, for one parcel, or for more; it was read; its owner keeps it no more; nor does the reader.
_ONCE, _KEPT, _BACK, _FORGET, _GONE = range(5)


class SharedMemoryChannel:
    """Sends parcels over END, one of a pair from `pair`, and opens those that come over it.

    ONUSE is called whenever there may be memory that is kept: `tidy` gives it back.
    """

    def __init__(self, end: socket.socket, onUse: Callable[[], None] | None = None) -> None:
        end.setblocking(False)
        self._end = end
        self._onUse = onUse
        self._last = 0
        self.large: Sequence[memoryview] = ()  # of what `isSmall` said no
        self._shelf = BufferPool()
        self._own: dict[int, mmap.mmap] = {}  # that are kept, by number
        self._theirs: dict[int, tuple[mmap.mmap | bytes, bool]] = {}  # and whether they are used again
        self._lost: set[int] = set()  # of those, what has come without its memory
        self._owing: deque[tuple[int, int]] = deque()  # what is to be said of them
        _reserve.add()
        _all.add(self)

    def isSmall(self, buffer: pickle.PickleBuffer) -> bool:
        """Whether BUFFER is not worth a parcel. (For pickle, which is to leave out what is.)"""
        raw = buffer.raw()
        if raw.nbytes < LARGE:
            return True
        self.large = (*self.large, raw)
        return False

    def send(self, obj: Any) -> bytes | None:
        """Send OBJ, and give the slip; None if it cannot go like this. Raises whatever pickle raises."""
        chunks = PickleWriter()
        buffers: list[memoryview] = []

        def take(buffer: pickle.PickleBuffer) -> bool:
            raw = buffer.raw()
            if raw.nbytes < LARGE:
                return True
            buffers.append(raw)
            return False

        plainPickler(chunks, take).dump(obj)
        if chunks.mentionsMain():
            return None
        return self._send(chunks.parts, buffers)

    def sendPickled(self, pickled: bytes, buffers: Sequence[memoryview] = ()) -> bytes | None:
        """As `send`, of what is PICKLED already, but for its BUFFERS."""
        return self._send([pickled], buffers)

    def open(self, slip: bytes | bytearray | memoryview) -> Any:
        """What is in the parcel of SLIP, which is gone then. Raises whatever pickle raises, and OSError."""
        _, number, parts = _SLIP.unpack_from(slip)
        ends = list(accumulate(_SIZE.unpack_from(slip, _SLIP.size + n * _SIZE.size)[0] for n in range(parts)))
        memory = self._come(number)
        try:
            with memoryview(memory) as whole:
                buffers = []
                for start, end in pairwise(ends):
                    with whole[start:end] as part:
                        buffers.append(bytearray(part))  # of its own, which may be written to
                with whole[: ends[0]] as pickled:
                    return pickle.loads(pickled, buffers=buffers)
        finally:
            self._read(number)

    def drop(self, slip: bytes | bytearray | memoryview) -> None:
        """Nobody wants the parcel of SLIP."""
        number = _SLIP.unpack_from(slip)[1]
        try:
            self._come(number)
        except OSError:
            return  # it is lost, or everything is
        self._read(number)

    @property
    def kept(self) -> int:
        """How many memories are kept here."""
        return len(self._own) + sum(again for _, again in self._theirs.values())

    @property
    def any(self) -> bool:
        """Whether there is memory here that either side keeps, as far as we have heard."""
        return bool(self._own or self._theirs)

    def hear(self) -> None:
        """Let go of what the other side keeps no more."""
        try:
            self._hearAll()
        except OSError:
            pass  # the other side is gone, and so will we be

    def tidy(self) -> bool:
        """Give back the memory that is kept here and is not in use, and let go of what the other side keeps no more.

        True if something was given back: then the other side is to `tidy`, too.
        """
        self.hear()
        unused = self._shelf.clear()
        for number in unused:
            self._forget(number)
        return bool(unused)

    def close(self) -> None:
        """Let go of all memory, and of the socket."""
        while self._theirs:
            _close(self._theirs.popitem()[1][0])
        while self._own:
            self._own.popitem()[1].close()
        if self._end.fileno() >= 0:
            self._end.close()
            _reserve.remove()

    def fileno(self) -> int:
        """The socket's descriptor, -1 when it is closed."""
        return self._end.fileno()

    # Our own memories.

    def _send(self, pickled: list[Any], buffers: Sequence[memoryview]) -> bytes | None:
        """Send a parcel of what is PICKLED, in parts, and of its BUFFERS."""
        sizes = [sum(map(len, pickled)), *map(len, buffers)]
        try:
            number = self._fill([*pickled, *buffers], sum(sizes))
        except OSError:
            return None
        return _SLIP.pack(_MARK, number, len(sizes)) + b"".join(map(_SIZE.pack, sizes))

    def _fill(self, parts: list[Any], size: int) -> int:
        """Have the SIZE bytes of PARTS in a memory, of this number, that the other side has or is sent."""
        self._hearAll()
        number = self._shelf.take(size)
        if number is None:
            return self._make(parts, size)
        self._used()
        memory, start = self._own[number], 0
        for part in parts:
            end = start + len(part)
            memory[start:end] = part
            start = end
        return number

    def _make(self, parts: list[Any], size: int) -> int:
        """Send a new memory that has the SIZE bytes of PARTS. Its number."""
        self._last += 1
        number = self._last
        with open(os.memfd_create("asynqueue", os.MFD_CLOEXEC), "w+b") as file:
            file.writelines(parts)  # not through a map: where there is no memory left this fails, and that kills
            file.flush()
            memory = mmap.mmap(file.fileno(), size)
            gone = self._shelf.add(number, size) if _mayKeep() else None
            try:
                self._say(_ONCE if gone is None else _KEPT, number, size, file.fileno())
            except OSError:
                self._shelf.lose(number)
                raise
        if gone is None:
            memory.close()
            return number
        self._own[number] = memory
        for each in gone:
            self._forget(each)
        self._used()
        return number

    def _forget(self, number: int) -> None:
        with self._own.pop(number) as memory:
            memory.madvise(mmap.MADV_REMOVE)  # what it took is free now, though the other side is yet to hear of it
        try:
            self._say(_FORGET, number)
        except OSError:
            pass  # it keeps the addresses, and nothing that is behind them

    # The other side's.

    def _come(self, number: int) -> mmap.mmap | bytes:
        """The memory of this NUMBER, which has been sent."""
        while number not in self._theirs:
            if number in self._lost:
                self._lost.remove(number)
                raise OSError(errno.EMFILE, f"{os.strerror(errno.EMFILE)}, for what is large")
            self._hear()
        return self._theirs[number][0]

    def _read(self, number: int) -> None:
        """What is in a memory of the other side's has been read."""
        if self._theirs[number][1]:
            self._owe(_BACK, number)
            self._used()
        else:
            _close(self._theirs.pop(number)[0])

    def _owe(self, what: int, number: int) -> None:
        self._owing.append((what, number))
        self._sayOwed()

    def _sayOwed(self) -> None:
        while self._owing:
            try:
                self._say(*self._owing[0])
            except OSError:  # too much was said that is not heard yet; or there is nobody to hear it
                break
            self._owing.popleft()

    # What is said of them.

    def _say(self, what: int, number: int, size: int = 0, *descriptors: int) -> None:
        socket.send_fds(self._end, [_NOTE.pack(what, number, size)], descriptors)

    def _hearAll(self) -> None:
        self._sayOwed()
        try:
            while True:
                self._hear()
        except BlockingIOError:
            pass

    def _hear(self) -> None:
        with _reserve:
            try:
                said, descriptors, _, _ = socket.recv_fds(self._end, _NOTE.size, 1)
            except ConnectionResetError:  # said once, before what is there to be read, of a side that had not read all
                said, descriptors, _, _ = socket.recv_fds(self._end, _NOTE.size, 1)
            if not said:
                raise OSError("the other side of the parcels is gone")
            what, number, size = _NOTE.unpack(said)
            if what == _BACK:
                self._shelf.back(number)
            elif what == _FORGET:
                if number in self._theirs:
                    _close(self._theirs.pop(number)[0])
            elif what == _GONE:
                self._shelf.lose(number)
                self._own.pop(number).close()
            else:
                self._take(number, size, what == _KEPT, descriptors)

    def _take(self, number: int, size: int, kept: bool, descriptors: list[int]) -> None:
        """A memory of the other side's has come, in one of DESCRIPTORS if there was one left."""
        try:
            memory: mmap.mmap | bytes = mmap.mmap(descriptors[0], size, prot=mmap.PROT_READ)
        except IndexError:
            self._lost.add(number)
        except OSError:  # it takes a descriptor of its own, or there is no room for it
            self._theirs[number] = _contentOf(descriptors[0]), False
        else:
            self._theirs[number] = memory, kept and _mayKeep()
            kept = kept and not self._theirs[number][1]
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        if kept:
            self._owe(_GONE, number)

    def _used(self) -> None:
        if self._onUse is not None:
            self._onUse()


_all: weakref.WeakSet[SharedMemoryChannel] = weakref.WeakSet()


def _mayKeep() -> bool:
    """Whether one more memory may be kept in this process: they take no more than a quarter of the descriptors that it
    may have."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return most == resource.RLIM_INFINITY or sum(parcels.kept for parcels in _all) < most // 4


def _contentOf(descriptor: int) -> bytes:
    with open(descriptor, "rb", closefd=False) as file:
        file.seek(0)
        return file.read()


def _close(memory: mmap.mmap | bytes) -> None:
    if isinstance(memory, mmap.mmap):
        memory.close()


class _Reserve:
    """A descriptor that is there for when there are no more: ``with`` it, one can be opened. While it has users."""

    def __init__(self) -> None:
        self._users = 0
        self._descriptor: int | None = None

    def add(self) -> None:
        """There is one more to use it."""
        self._users += 1
        self._hold()

    def remove(self) -> None:
        """There is one fewer."""
        self._users -= 1
        if not self._users:
            self._release()

    def __enter__(self) -> None:
        self._release()

    def __exit__(self, *exception: object) -> None:
        self._hold()

    def _hold(self) -> None:
        if self._descriptor is None and self._users:
            try:
                self._descriptor = os.eventfd(0, os.EFD_CLOEXEC)
            except OSError:
                pass  # as soon as there is one

    def _release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


_reserve = _Reserve()


def pair() -> tuple[socket.socket, socket.socket] | None:
    """Two sockets, one for each side; None where the system has no memory without a name."""
    if not hasattr(os, "memfd_create"):
        return None
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def referenceLength(payload: bytes | bytearray | memoryview) -> int:
    """How many bytes of PAYLOAD are a slip: 0 if it does not begin with one."""
    if payload[0] != _MARK:
        return 0
    return _SLIP.size + int(_SLIP.unpack_from(payload)[2]) * _SIZE.size
