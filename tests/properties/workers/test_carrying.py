"""What a link cannot carry fails the one call that it belongs to; others, and the process, are none the worse."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import DeferredList

from asynqueue import ProcessQueue
from asynqueue.errors import SerializationError
from tests.support.calls import LocalError, echo, inLoop, local, raiseLocal
from tests.support.stories import stories


def makeLock() -> Any:
    """What no pickle carries."""
    return threading.Lock()


def raiseLock() -> None:
    """An error that no pickle carries whole."""
    raise LookupError(threading.Lock())


KINDS: dict[str, Callable[[ProcessQueue, int], Any]] = {
    "fine": lambda queue, n: queue.call(echo, n),
    "a lock as argument": lambda queue, n: queue.call(echo, threading.Lock()),
    "a lock as result": lambda queue, n: queue.call(makeLock),
    "a lock in the error": lambda queue, n: queue.call(raiseLock),
    "a result for nobody else": lambda queue, n: queue.call(local),
    "an error for nobody else": lambda queue, n: queue.call(raiseLocal),
    "the process": lambda queue, n: queue.call(os.getpid),
}


async def eachBadOneFailsAlone(kinds: list[str]) -> None:
    async with ProcessQueue(1) as queue:
        pid = await queue.call(os.getpid)
        results = await DeferredList([KINDS[kind](queue, n) for n, kind in enumerate(kinds)], consumeErrors=True)
        assert await queue.call(os.getpid) == pid, "the worker lives on"
    for n, (kind, (success, result)) in enumerate(zip(kinds, results, strict=True)):
        if kind == "fine":
            assert (success, result) == (True, n)
        elif kind == "the process":
            assert (success, result) == (True, pid)
        else:
            assert not success, kind
            error = result.value
            assert isinstance(error, (SerializationError, LookupError, LocalError)), f"{kind}: {error!r}"
            assert str(error), "the error says which object, and why"


_waited: Callable[..., Any] = inLoop(eachBadOneFailsAlone)  # Hypothesis knows nothing of Deferreds
test_what_cannot_be_carried_fails_that_one_call = settings(max_examples=stories(20))(
    given(kinds=st.lists(st.sampled_from(sorted(KINDS)), max_size=12))(_waited)
)
