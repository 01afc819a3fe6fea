"""One slice of an iterator: the items that it produces before other work has its turn.

An iterator runs in a thread that has other work as well (the main loop, a worker's thread, a child process). So it
runs for one *slice* at a time. A slice ends when one of these is true:

- the credit is used up, or the iteration is closed by its own iterator;
- the slice has lasted `SLICE` seconds, checked after each item;
- the iterator is exhausted, or raises an error.

The caller passes a function that produces the next item. In a child process that function serializes the item too, so
that an item which cannot be sent ends the iteration like any other error.

This module is imported by child processes, which import neither attrs nor Twisted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from asynqueue.core.flow.iteration import Outflow

SLICE = 0.001
"""Seconds for which an iterator may run before its items are sent and other work has its turn."""


class Slice(NamedTuple):
    """The ITEMS of one slice. OVER: the iterator is exhausted or, with an ERROR, has failed after them."""

    items: list[Any]  # the user's iterator yields them
    over: bool
    error: BaseException | None


def takeSlice(produce: Callable[[], Any], flow: Outflow, clock: Callable[[], float], seconds: float = SLICE) -> Slice:
    """Call PRODUCE for each item of one slice of SECONDS, within the credit of FLOW, and by CLOCK.

    PRODUCE raises StopIteration when its iterator is exhausted. (It returns items of any type: hence Any.)
    """
    items: list[Any] = []
    deadline = clock() + seconds
    while len(items) < flow.credit:
        try:
            items.append(produce())
        except StopIteration:
            return Slice(items, True, None)
        except StopAsyncIteration as error:  # An iterator around an asynchronous one may let it out. It is no end here.
            refusal = RuntimeError("an iterator raised StopAsyncIteration")
            refusal.__cause__ = error
            return Slice(items, True, refusal)
        except BaseException as error:  # SystemExit too: the iteration ends, and not the thread or the process
            return Slice(items, True, error)
        if clock() > deadline:
            break
    return Slice(items, False, None)


def closeIterator(iterator: Iterator[Any]) -> None:
    """Run the ``finally`` of ITERATOR, if it is a generator. It may raise any error."""
    close = getattr(iterator, "close", None)
    if callable(close):
        close()
