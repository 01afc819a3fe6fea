"""Send large values to another process through shared memory instead of a pipe.

Theory of operation:

- A value of `LARGE` bytes or more is pickled into a *memory*: an anonymous file of the kernel's (a memfd). The bytes
  are copied once into it and once out of it, like the buffers of NumPy arrays and whatever else pickle takes out of
  band. The receiver then has a copy of its own.
- The descriptor of the memory goes to the other process over a socket of its own (the *channel*), before the message
  that uses it. The message itself contains a *reference*: a few bytes that name the memory and its divisions.
- The kernel frees a memory when no process has its descriptor, whichever process dies first.
- Filling fresh memory takes ten times as long as filling it again. So each side keeps some memories and fills them
  again; `asynqueue.core.protocol.bufferpool` decides which. The reader returns each with a *notice* over the channel.
  `SharedMemoryChannel.tidy` frees those that are kept.
- A value that cannot be sent like this goes through the pipe. Reasons are: another operating system, too many
  descriptors in transit, no memory left.
- A receiver without a free descriptor uses the one that it holds in reserve, copies the memory at once, and notifies
  the owner that it did not keep it. It does the same when it keeps as many memories as it may.

A reference begins with a zero byte, which no pickle does. Worker processes import this module.
"""

from __future__ import annotations

import errno
import mmap
import os
import pickle
import socket
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from struct import Struct
from typing import Any

from asynqueue.capabilities import descriptorLimit, has
from asynqueue.core.protocol.bufferpool import BufferPool
from asynqueue.transport.descriptors import DescriptorReserve
from asynqueue.transport.pickler import (
    LARGE,
    PickleWriter,
    dumpsByValue,
    dumpsPlainly,
    isLarge,
    plainPickler,
)

_MARK = 0
_REFERENCE = Struct("<BQI")
_SIZE = Struct("<Q")
_NOTICE = Struct("<BQQ")
_ONCE = 0  # Here is a memory that is used once.
_KEPT = 1  # Here is a memory that is used again.
_READ = 2  # Your memory was read.
_FORGET = 3  # The owner no longer keeps this memory.
_NOT_KEPT = 4  # The reader did not keep your memory.


class SharedMemoryChannel:
    """Sends values through shared memory, and receives them, over END: one of the two sockets of a `pair`.

    ONUSE is called whenever a memory may have been kept: `tidy` frees it.
    """

    def __init__(self, end: socket.socket, onUse: Callable[[], None] | None = None) -> None:
        end.setblocking(False)
        self._end = end
        self._onUse = onUse
        self._last = 0
        self._outOfBand: Sequence[memoryview] = ()  # buffers that `_isInline` has refused
        self._pool = BufferPool()
        self._own: dict[int, mmap.mmap] = {}  # the memories kept here, by number
        self._received: dict[int, tuple[mmap.mmap | bytes, bool]] = {}  # memory, and whether it is used again
        self._missing: set[int] = set()  # numbers that came without a descriptor
        self._notices: deque[tuple[int, int]] = deque()  # kind and number; not sent yet
        _reserve.add()
        _all.add(self)

    def dumps(self, obj: Any) -> bytes:
        """Return OBJ as bytes, or a reference to it if it is large. Raises whatever the picklers raise."""
        return self.dumpsPlainly(obj) or self.dumpsByValue(obj)

    def dumpsPlainly(self, obj: Any) -> bytes | None:
        """Return OBJ as bytes, or a reference to it if it is large; None if it has to go by value."""
        if isLarge(obj):
            try:
                reference = self.send(obj)
            except BaseException:  # Pickle may refuse what cloudpickle can carry by value.
                reference = None
            return reference or dumpsPlainly(obj)
        payload = dumpsPlainly(obj, self._isInline)
        buffers, self._outOfBand = self._outOfBand, ()
        if payload is None or (not buffers and len(payload) < LARGE):
            return payload
        return self._send([payload], buffers) or (dumpsPlainly(obj) if buffers else payload)

    def dumpsByValue(self, obj: Any) -> bytes:
        """Return OBJ as bytes that pickle alone cannot make, or a reference to them if there are many. Raises whatever
        the pickler raises."""
        payload = dumpsByValue(obj)
        return payload if len(payload) < LARGE else self._send([payload], ()) or payload

    def send(self, obj: Any) -> bytes | None:
        """Send OBJ without copying it first. Return its reference, or None if it has to go through the pipe or by
        value. Raises whatever pickle raises."""
        writer = PickleWriter()
        try:
            plainPickler(writer, self._isInline).dump(obj)
        finally:
            buffers, self._outOfBand = self._outOfBand, ()
        return None if writer.isForeign() else self._send(writer.parts, buffers)

    def open(self, reference: bytes | bytearray | memoryview) -> Any:
        """Return the value of REFERENCE, which can be opened once. Raises whatever pickle raises, and OSError."""
        _, number, parts = _REFERENCE.unpack_from(reference)
        sizes = (_SIZE.unpack_from(reference, _REFERENCE.size + n * _SIZE.size)[0] for n in range(parts))
        ends = list(accumulate(sizes))
        memory = self._receiveMemory(number)
        try:
            with memoryview(memory) as whole:
                buffers = []
                for start, end in pairwise(ends):
                    with whole[start:end] as part:
                        buffers.append(bytearray(part))  # A copy, because the receiver may write to it.
                with whole[: ends[0]] as pickled:
                    return pickle.loads(pickled, buffers=buffers)
        finally:
            self._hasRead(number)

    def drop(self, reference: bytes | bytearray | memoryview) -> None:
        """Discard the value of REFERENCE."""
        number = _REFERENCE.unpack_from(reference)[1]
        try:
            self._receiveMemory(number)
        except OSError:
            return  # The memory is missing, or the channel is closed.
        self._hasRead(number)

    @property
    def kept(self) -> int:
        """The number of memories that are kept here."""
        return len(self._own) + sum(again for _, again in self._received.values())

    @property
    def any(self) -> bool:
        """Whether there is a memory here that either side keeps, as far as notices have come."""
        return bool(self._own or self._received)

    def receiveNotices(self) -> None:
        """Read all notices that have come, and send those that are due."""
        try:
            self._receiveAll()
        except OSError:
            pass  # The other side is gone, and its owner closes this channel soon.

    def tidy(self) -> bool:
        """Free the memories that are kept and not in use. True if there were any: then the other side is to `tidy`."""
        self.receiveNotices()
        unused = self._pool.clear()
        for number in unused:
            self._forget(number)
        return bool(unused)

    def close(self) -> None:
        """Free all memories and close the socket."""
        while self._received:
            _close(self._received.popitem()[1][0])
        while self._own:
            self._own.popitem()[1].close()
        if self._end.fileno() >= 0:
            self._end.close()
            _reserve.remove()

    def fileno(self) -> int:
        """Return the descriptor of the socket, -1 when it is closed."""
        return self._end.fileno()

    # The memories of this side.

    def _isInline(self, buffer: pickle.PickleBuffer) -> bool:
        """Tell pickle to write BUFFER into the pickle if it is small, and note it for out-of-band transfer if not."""
        raw = buffer.raw()
        if raw.nbytes < LARGE:
            return True
        self._outOfBand = (*self._outOfBand, raw)
        return False

    def _send(self, pickled: list[Any], buffers: Sequence[memoryview]) -> bytes | None:
        """Send the parts of what is PICKLED, and its BUFFERS. Return their reference, or None if this fails."""
        sizes = [sum(map(len, pickled)), *map(len, buffers)]
        try:
            number = self._fill([*pickled, *buffers], sum(sizes))
        except OSError:
            return None
        return _REFERENCE.pack(_MARK, number, len(sizes)) + b"".join(map(_SIZE.pack, sizes))

    def _fill(self, parts: list[Any], size: int) -> int:
        """Write PARTS, SIZE bytes in all, to a memory of the pool or a new one. Return its number."""
        self._receiveAll()
        number = self._pool.take(size)
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
        """Write PARTS, SIZE bytes in all, to a new memory, and send that. Return its number."""
        self._last += 1
        number = self._last
        with open(os.memfd_create("asynqueue", os.MFD_CLOEXEC), "w+b") as file:
            # Through the file, not through a map: without memory left, this raises OSError, and a map would kill us.
            file.writelines(parts)
            file.flush()
            memory = mmap.mmap(file.fileno(), size)
            replaced = self._pool.add(number, size) if _mayKeep() else None
            try:
                self._sendNotice(_ONCE if replaced is None else _KEPT, number, size, file.fileno())
            except OSError:
                self._pool.remove(number)
                raise
        if replaced is None:
            memory.close()
            return number
        self._own[number] = memory
        for each in replaced:
            self._forget(each)
        self._used()
        return number

    def _forget(self, number: int) -> None:
        with self._own.pop(number) as memory:
            if has("MADV_REMOVE"):
                memory.madvise(mmap.MADV_REMOVE)  # The pages are free now, before the other side reads the notice.
        try:
            self._sendNotice(_FORGET, number)
        except OSError:
            pass  # The other side keeps an empty mapping, which costs no memory.

    # The memories of the other side.

    def _receiveMemory(self, number: int) -> mmap.mmap | bytes:
        """Return the memory of this NUMBER, which was sent before its reference."""
        while number not in self._received:
            if number in self._missing:
                self._missing.remove(number)
                raise OSError(errno.EMFILE, f"{os.strerror(errno.EMFILE)}, for what is large")
            self._receive()
        return self._received[number][0]

    def _hasRead(self, number: int) -> None:
        if self._received[number][1]:
            self._notify(_READ, number)
            self._used()
        else:
            _close(self._received.pop(number)[0])

    # Notices.

    def _notify(self, kind: int, number: int) -> None:
        """Send a notice when the socket takes it: now, or before the next."""
        self._notices.append((kind, number))
        self._sendDue()

    def _sendDue(self) -> None:
        while self._notices:
            try:
                self._sendNotice(*self._notices[0])
            except OSError:  # The socket is full, or the other side is gone.
                break
            self._notices.popleft()

    def _sendNotice(self, kind: int, number: int, size: int = 0, *descriptors: int) -> None:
        socket.send_fds(self._end, [_NOTICE.pack(kind, number, size)], descriptors)

    def _receiveAll(self) -> None:
        self._sendDue()
        try:
            while True:
                self._receive()
        except BlockingIOError:
            pass

    def _receive(self) -> None:
        with _reserve:
            try:
                notice, descriptors, _, _ = socket.recv_fds(self._end, _NOTICE.size, 1)
            except ConnectionResetError:
                # Linux reports once, before the data that is left, that a dead peer had not read everything.
                notice, descriptors, _, _ = socket.recv_fds(self._end, _NOTICE.size, 1)
            if not notice:
                raise OSError("the process at the other end of the shared-memory channel is gone")
            kind, number, size = _NOTICE.unpack(notice)
            if kind == _READ:
                self._pool.returned(number)
            elif kind == _FORGET:
                if number in self._received:
                    _close(self._received.pop(number)[0])
            elif kind == _NOT_KEPT:
                self._pool.remove(number)
                self._own.pop(number).close()
            else:
                self._take(number, size, kind == _KEPT, descriptors)

    def _take(self, number: int, size: int, kept: bool, descriptors: list[int]) -> None:
        """Map the memory in DESCRIPTORS, which is empty if this process could not open one more."""
        try:
            memory: mmap.mmap | bytes = mmap.mmap(descriptors[0], size, prot=mmap.PROT_READ)
        except IndexError:
            self._missing.add(number)
        except OSError:  # `mmap` needs a descriptor of its own and address space.
            self._received[number] = _contentOf(descriptors[0]), False
        else:
            self._received[number] = memory, kept and _mayKeep()
            kept = kept and not self._received[number][1]
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        if kept:
            self._notify(_NOT_KEPT, number)

    def _used(self) -> None:
        if self._onUse is not None:
            self._onUse()


_reserve = DescriptorReserve()
_all: weakref.WeakSet[SharedMemoryChannel] = weakref.WeakSet()


def _mayKeep() -> bool:
    """Return whether this process may keep one more memory: at most a quarter of its descriptors are for that."""
    return sum(channel.kept for channel in _all) < descriptorLimit() // 4


def _contentOf(descriptor: int) -> bytes:
    with open(descriptor, "rb", closefd=False) as file:
        file.seek(0)
        return file.read()


def _close(memory: mmap.mmap | bytes) -> None:
    if isinstance(memory, mmap.mmap):
        memory.close()


def pair() -> tuple[socket.socket, socket.socket] | None:
    """Return two sockets, one for each side of a channel; None where the system cannot share memory."""
    if not (has("memfd_create") and has("SCM_RIGHTS")):
        return None
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def referenceLength(payload: bytes | bytearray | memoryview) -> int:
    """Return the length in bytes of the reference with which PAYLOAD begins, 0 if it does not begin with one."""
    if payload[0] != _MARK:
        return 0
    return _REFERENCE.size + int(_REFERENCE.unpack_from(payload)[2]) * _SIZE.size
