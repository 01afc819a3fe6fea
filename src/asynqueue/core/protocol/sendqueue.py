"""The messages that wait to be sent, in a fair order.

- The messages of one call, and of its iterator, leave in their order.
- Different calls take turns, one frame each, so that a large result does not delay small ones. A frame is made only
  when its turn comes.
- Messages that belong to no call, such as `Ping`, go first. So does `Started`, which is always the first message about
  its call. One `Pong` answers all earlier pings, so at most one waits.
- While no large message waits, small messages need no turns. They leave in their order, before later ones.

Cost: O(1) per frame.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from asynqueue.core.protocol import messages as m
from asynqueue.core.protocol.chunkedpayload import ChunkedPayload
from asynqueue.core.protocol.framing import FRAME_LIMIT, PART_COST, encode, frames

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
        """Return the next frame, and whether another follows."""
        frame, self._frame = self._frame, next(self._frames, None)
        assert frame is not None
        self.begun = True
        self.size = max(0, self.size - len(frame))
        return frame, self._frame is not None


class SendQueue:
    """Holds messages until they are taken as frames. FRAMELIMIT is the maximum size of a frame's body in bytes."""

    __slots__ = ("_first", "_frameLimit", "_pong", "_queues", "_size", "_turns", "_unordered", "large", "small")

    def __init__(self, frameLimit: int = FRAME_LIMIT) -> None:
        self._frameLimit = frameLimit
        self._first: deque[bytes] = deque()
        self._pong = False  # whether a `Pong` waits
        self._unordered: deque[bytes] = deque()  # the messages that came while no message needed turns
        self._queues: dict[int, deque[bytes | _Large]] = {}  # by call
        self._turns: deque[int] = deque()  # the calls with messages, each once
        self._size = 0
        self.large: int = 0  # the number of messages that take more than one frame
        self.small: int = 0  # the bytes of all other messages

    @property
    def size(self) -> int:
        """The approximate number of bytes held."""
        return self._size

    def add(self, message: m.Message) -> None:
        """Add MESSAGE. It is sent in its turn."""
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
                self._unordered.append(item)
                return
        queue = self._queues.get(number)
        if queue is not None:
            queue.append(item)
        else:
            self._queues[number] = deque((item,))
            self._turns.append(number)

    def take(self, room: int) -> bytes:
        """Remove and return the next frames: about ROOM bytes, but at least one frame if there is any."""
        taken: list[bytes] = []
        length = 0
        self._pong = False
        while self._first:
            taken.append(self._first.popleft())
            length += len(taken[-1])
        while self._unordered and length < room:
            item = self._unordered.popleft()
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
        """Return the calls with messages that wait for their turn."""
        return set(self._queues)

    def withdraw(self, number: int) -> bool:
        """Remove the messages of call NUMBER that wait for their turn.

        Return False if there are none, or if the first was sent in part.
        """
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
        """Assert that every call with messages has a turn, and that the counts are right."""
        assert sorted(self._turns) == sorted(self._queues)
        assert all(self._queues.values())
        assert self.large == sum(isinstance(item, _Large) for queue in self._queues.values() for item in queue)
        waiting = [*self._unordered, *(item for queue in self._queues.values() for item in queue)]
        assert self.small == sum(len(item) for item in waiting if isinstance(item, bytes))
        assert self._size == sum(item.size if isinstance(item, _Large) else len(item) for item in waiting)

    def _frame(self, number: int) -> tuple[bytes, bool]:
        """Remove and return the next frame of call NUMBER, and whether more follow."""
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
