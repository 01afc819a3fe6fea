"""What is to be sent, in a fair order.

Theory of operation. Messages of one call, and of the iterator that it returned, leave in the order in which they were
said. Those of different calls take turns, a frame each: so a large result does not keep small ones waiting, and a
frame is made only when its turn has come. What belongs to no call, a `Ping` say, goes before all; so does `Started`,
before which nothing is said of its call. One `Pong` answers every `Ping` before it, so no two of them wait.

While nothing else waits, small messages need no turns: they leave as they came, before whatever is said later.

Cost: O(1) a frame.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from asynqueue.core.protocol import messages as m
from asynqueue.core.protocol.framing import FRAME_LIMIT, PART_COST, encode, frames
from asynqueue.core.protocol.payload import ChunkedPayload

_FIRST = (m.Started, m.Ping, m.Pong, m.Begin, m.Recall, m.Goodbye, m.Tidy, m.Ready, m.Terms)


class _Large:
    """A message of SIZE bytes that takes more than one frame."""

    __slots__ = ("_frame", "_frames", "begun", "size")

    def __init__(self, frames: Iterator[bytes], size: int) -> None:
        self._frames = frames
        self._frame: bytes | None = next(frames)
        self.size = size
        self.begun = False

    def next(self) -> tuple[bytes, bool]:
        """The next frame, and whether another follows."""
        frame, self._frame = self._frame, next(self._frames, None)
        assert frame is not None
        self.begun = True
        self.size = max(0, self.size - len(frame))
        return frame, self._frame is not None


class SendQueue:
    """Messages, until they are taken as frames with a body of at most FRAMELIMIT bytes."""

    __slots__ = ("_alone", "_first", "_frameLimit", "_pong", "_queues", "_size", "_turns", "large", "small")

    def __init__(self, frameLimit: int = FRAME_LIMIT) -> None:
        self._frameLimit = frameLimit
        self._first: deque[bytes] = deque()
        self._pong = False  # whether one waits
        self._alone: deque[bytes] = deque()  # what was said while nothing had to wait for its turn
        self._queues: dict[int, deque[bytes | _Large]] = {}  # by call
        self._turns: deque[int] = deque()  # the calls of which there is something, each once
        self._size = 0
        self.large: int = 0  # how many messages are held that take more than a frame
        self.small: int = 0  # the bytes of those that do not

    @property
    def size(self) -> int:
        """About how many bytes are held."""
        return self._size

    def add(self, message: m.Message) -> None:
        """Send MESSAGE when its turn has come."""
        if isinstance(message, _FIRST):
            if not isinstance(message, m.Pong) or not self._pong:
                self._first.append(encode(message))
            self._pong = self._pong or isinstance(message, m.Pong)
            return
        number = message[0]
        payload = message[-1]
        item: bytes | _Large
        if isinstance(payload, (bytes, bytearray, ChunkedPayload)) and len(payload) + PART_COST > self._frameLimit:
            item = _Large(frames(message, self._frameLimit), len(payload))
            self._size += item.size
            self.large += 1
        else:
            item = encode(message)
            self._size += len(item)
            self.small += len(item)
            if not self._turns:
                self._alone.append(item)
                return
        queue = self._queues.get(number)
        if queue is not None:
            queue.append(item)
        else:
            self._queues[number] = deque((item,))
            self._turns.append(number)

    def take(self, room: int) -> bytes:
        """The frames to be sent next: about ROOM bytes, but one frame at least if there is any."""
        taken: list[bytes] = []
        length = 0
        self._pong = False
        while self._first:
            taken.append(self._first.popleft())
            length += len(taken[-1])
        while self._alone and length < room:
            item = self._alone.popleft()
            taken.append(item)
            length += len(item)
            self._size -= len(item)
            self.small -= len(item)
        while self._turns and length < room:
            number = self._turns.popleft()
            frame, more = self._frame(number)
            if more:
                self._turns.append(number)
            taken.append(frame)
            length += len(frame)
        return b"".join(taken)

    def unsent(self) -> set[int]:
        """The calls of which there is something that waits for its turn."""
        return set(self._queues)

    def withdraw(self, number: int) -> bool:
        """Do not send what waits for its turn of call NUMBER. False if there is nothing, or its beginning was taken."""
        queue = self._queues.get(number)
        if queue is None or (isinstance(queue[0], _Large) and queue[0].begun):
            return False
        self._size -= sum(item.size if isinstance(item, _Large) else len(item) for item in queue)
        self.large -= sum(isinstance(item, _Large) for item in queue)
        self.small -= sum(len(item) for item in queue if isinstance(item, bytes))
        del self._queues[number]
        self._turns.remove(number)
        return True

    def validate(self) -> None:
        """Assert that every call with something to be sent has its turn."""
        assert sorted(self._turns) == sorted(self._queues)
        assert all(self._queues.values())
        assert self.large == sum(isinstance(item, _Large) for queue in self._queues.values() for item in queue)
        waiting = [*self._alone, *(item for queue in self._queues.values() for item in queue)]
        assert self.small == sum(len(item) for item in waiting if isinstance(item, bytes))
        assert self._size == sum(item.size if isinstance(item, _Large) else len(item) for item in waiting)

    def _frame(self, number: int) -> tuple[bytes, bool]:
        """The next frame of call NUMBER, and whether there are more."""
        queue = self._queues[number]
        item = queue[0]
        if isinstance(item, _Large):
            self._size -= item.size
            frame, more = item.next()
            self._size += item.size
            self.large -= not more
        else:
            self._size -= len(item)
            self.small -= len(item)
            frame, more = item, False
        if not more:
            queue.popleft()
        if not queue:
            del self._queues[number]
        return frame, bool(queue)
