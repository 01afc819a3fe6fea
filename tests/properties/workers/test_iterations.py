"""Exactly the iterator's items, in order, each once: over the main loop, a thread, and a process that may be killed.

Theory of operation. Hypothesis draws some iterations that go on at the same time on one worker. Each is taken in one of
the ways there are, with pauses drawn too, and is taken to its end, stopped, dropped, or has its process killed under
it. What the far side made, and that its ``finally`` was run, is in a file.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, gatherResults

from asynqueue import Deferator, NullQueue, ProcessQueue, ProcessWorker, TaskQueue, ThreadQueue, WorkerLost
from asynqueue import deferToDelay as delay
from asynqueue.core.flow.iteration import AHEAD_LIMIT
from tests.support.calls import countedItems, inLoop, killProcessOf, until
from tests.support.stories import stories

PAUSES = 20
"""Items after which the pauses that were drawn are gone through again."""


@attrs.frozen
class Story:
    """An iteration over so many ITEMS, and then perhaps an error; how it is taken, and how it ends."""

    items: int
    raises: bool
    way: str
    pauses: dict[int, str]  # after which items, of PAUSES, and how
    end: str
    after: int  # items after which it ends, unless it is taken to its end

    def pause(self, item: int) -> str | None:
        return self.pauses.get(item % PAUSES)

    @property
    def endsEarly(self) -> bool:
        return self.end != "whole" and self.after <= self.items


anyStory = st.builds(
    Story,
    items=st.sampled_from([0, 1, 2, 5, 40, 300, 1000]),
    raises=st.booleans(),
    way=st.sampled_from(["async for", "for", "consumer"]),
    pauses=st.dictionaries(st.integers(0, PAUSES - 1), st.sampled_from(["turn", "flicker", "later"]), max_size=3),
    end=st.sampled_from(["whole", "whole", "stop", "drop", "kill"]),
    after=st.sampled_from([1, 1, 2, 7, 40, 260]),
)


class Taker:
    """Takes an iteration of QUEUE, as STORY says. As a consumer, it is fed."""

    def __init__(self, queue: TaskQueue, path: Path, which: int, story: Story) -> None:
        self.queue, self.path, self.which, self.story = queue, path, which, story
        self.got: list[int] = []
        self.error: BaseException | None = None
        self.complete: Deferred[bool] | None = None
        self.killed = False
        self.pauses: list[Deferred[None]] = []  # those of a consumer; the last item may come before the last one ends
        self._producer: Any = None
        self._paused = False

    async def take(self) -> None:
        story = self.story
        call: Any = (countedItems, self.path, self.which, story.items, story.raises)
        try:
            if story.way == "consumer":
                assert await self.queue.call(*call, consumer=self) is self
                return
            held: list[Deferator[int]] = [await self.queue.call(*call)]
            self.complete = held[0].d
            await (self._for if story.way == "for" else self._asyncFor)(held)
        except (ZeroDivisionError, WorkerLost) as error:
            self.error = error

    async def _asyncFor(self, held: list[Deferator[int]]) -> None:
        while held:
            try:
                item = await held[0].__anext__()
            except StopAsyncIteration:
                return
            await self._have(item, held)

    async def _for(self, held: list[Deferator[int]]) -> None:
        while held:
            try:
                d = next(held[0])
            except StopIteration:
                return
            item = await d
            del d  # it could stop the iteration, so it has it
            await self._have(item, held)

    async def _have(self, item: int, held: list[Deferator[int]]) -> None:
        self.got.append(item)
        if self.story.pause(item) is not None:
            await delay(0)
        if len(self.got) == self.story.after:
            if self.story.end == "stop":
                held[0].stop()
            elif self.story.end == "drop":
                held.clear()
            self._perhapsKill()

    def _perhapsKill(self) -> None:
        if self.story.end == "kill":
            for worker in self.queue.workers():
                if isinstance(worker, ProcessWorker):
                    self.killed = True
                    with suppress(ProcessLookupError):  # another taker has killed it, and that is not known yet
                        killProcessOf(worker)

    # What a consumer has.

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self._producer = producer

    def unregisterProducer(self) -> None:
        self._producer = None

    def write(self, data: int) -> None:
        assert not self._paused, "nothing is written to who has paused"
        self.got.append(data)
        pause = self.story.pause(data)
        if pause == "later":
            self.pauses.append(
                delay(0).addCallback(self._pause).addCallback(lambda _: delay(0)).addCallback(self._resume)
            )
        elif pause is not None:
            self._pause(None)
            if pause == "turn":
                self.pauses.append(delay(0).addCallback(self._resume))
            else:
                self._resume(None)
        if len(self.got) == self.story.after:
            if self.story.end in ("stop", "drop"):
                self._producer.stopProducing()
            self._perhapsKill()

    def _pause(self, _: None) -> None:
        self._paused = True
        if self._producer is not None:
            self._producer.pauseProducing()

    def _resume(self, _: None) -> None:
        self._paused = False
        if self._producer is not None:
            self._producer.resumeProducing()


def exactlyTheItemsInOrderEachOnce(taker: Taker, killed: bool) -> None:
    """Up to where it was ended; an error comes after the items before it."""
    story, got = taker.story, taker.got
    assert got == list(range(len(got)))
    if isinstance(taker.error, WorkerLost):
        assert killed
    elif story.end in ("stop", "drop") and story.endsEarly:
        assert len(got) == story.after
        assert taker.error is None
    else:
        assert len(got) == story.items
        assert (taker.error is not None) == story.raises


def itIsToldHowItEnded(taker: Taker) -> None:
    if taker.complete is not None:
        assert taker.complete.called
        early = taker.story.end in ("stop", "drop") and taker.story.endsEarly
        if taker.error is None and not early:
            assert taker.complete.result is True
        elif not early or len(taker.got) < taker.story.items:
            assert taker.complete.result is False


def neverMoreThanTheCreditAndNothingIsLeftRunning(taker: Taker, ends: list[str], killed: bool) -> None:
    """The ``finally`` of each was run, once, where it lives."""
    mine = [int(made) for which, made in (end.split(":") for end in ends) if int(which) == taker.which]
    assert len(mine) == 1 or (killed and not mine)
    for made in mine:
        assert 0 <= made - len(taker.got) <= AHEAD_LIMIT


Maker: TypeAlias = Callable[[], TaskQueue]


def property_(make: Maker, share: int = 1) -> Callable[[], None]:
    """A test of its own for each kind of worker: pytest-twisted wraps the function that Hypothesis calls, once.

    Of the examples that the profile asks for it has the SHAREth part.
    """

    async def eachStoryEndsWell(told: list[Story]) -> None:
        with tempfile.TemporaryDirectory() as place:
            path = Path(place) / "ends"
            queue = make()
            takers = [Taker(queue, path, which, story) for which, story in enumerate(told)]
            await gatherResults([Deferred.fromCoroutine(taker.take()) for taker in takers], consumeErrors=True)
            await queue.shutdown()  # which waits for the iterations that go on
            await gatherResults([pause for taker in takers for pause in taker.pauses])
            ends = path.read_text().split() if path.exists() else []
        killed = any(taker.killed for taker in takers)
        for taker in takers:
            await until(lambda taker=taker: taker.complete is None or taker.complete.called)  # type: ignore[misc]  # a default
            exactlyTheItemsInOrderEachOnce(taker, killed)
            itIsToldHowItEnded(taker)
            neverMoreThanTheCreditAndNothingIsLeftRunning(taker, ends, killed)

    waited: Callable[..., Any] = inLoop(eachStoryEndsWell)  # Hypothesis knows nothing of Deferreds
    return settings(max_examples=stories(share))(given(told=st.lists(anyStory, min_size=1, max_size=4))(waited))


test_exactly_the_items_in_order_each_once_from_the_main_loop = property_(NullQueue)
test_exactly_the_items_in_order_each_once_from_a_thread = property_(ThreadQueue)
test_exactly_the_items_in_order_each_once_from_a_process_that_may_be_killed = property_(
    lambda: ProcessQueue(1), share=2
)
