"""The items of an iterator at the other end of a link."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asynqueue.core.protocol import messages as m
from asynqueue.errors import WorkerLost
from asynqueue.interfaces import ItemSink
from asynqueue.transport.serialization import loadItems

if TYPE_CHECKING:
    from asynqueue.transport.link import Link


class LinkSource:
    """An `ItemSource` for the iterator that call NUMBER on LINK has returned."""

    def __init__(self, link: Link, number: int) -> None:
        self._link = link
        self._number = number
        self._sink: ItemSink | None = None

    def begin(self, sink: ItemSink) -> None:
        """Pass all further items to SINK."""
        self._sink = sink

    def grant(self, items: int) -> None:
        """Allow the worker to send so many more ITEMS."""
        if self._link.open:
            self._link.send(m.Grant(self._number, items))
        else:
            self.over(WorkerLost("the iteration ended early: its worker is gone"))

    def close(self) -> None:
        """Ask the worker to close the iterator. The iteration is over when the worker has confirmed that."""
        self._link.closeSource(self._number)

    def arrived(self, number: int, payload: m.Payload) -> None:
        """Pass the items in PAYLOAD, so many in NUMBER, to the sink."""
        items, error = loadItems(number, payload, self._link.channel)
        if self._sink is not None:
            self._sink.arrived(items)
            if error is not None:
                self.close()
                self._sink.over(error)

    def over(self, error: BaseException | None) -> None:
        """Notify the sink that no more items come, because of ERROR if there is one."""
        if self._sink is not None:
            self._sink.over(error)
