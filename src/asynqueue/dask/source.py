"""The items of an iterator on a Dask cluster."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from asynqueue.errors import WorkerLost
from asynqueue.interfaces import ItemSink
from asynqueue.transport.errorcodec import loadError
from asynqueue.transport.serialization import loadItems

if TYPE_CHECKING:
    from asynqueue.dask.session import Session


class _DaskSource:
    """The items of an iterator in the cluster's worker at ADDRESS.

    It is one of SOURCES until it is over, and then calls ONOVER.
    """

    def __init__(
        self,
        session: Session,
        opening: str,
        key: str,
        address: str,
        sources: dict[_DaskSource, None],
        onOver: Callable[[], None],
    ) -> None:
        self.address = address
        self._session = session
        self._opening = opening
        self._key = key
        self._sources = sources
        self._onOver = onOver
        self._sink: ItemSink | None = None
        self._credit = 0
        self._asking = False
        self._error: BaseException | None = None  # the error of the end, if it came before `begin`
        self._over = False
        sources[self] = None

    def begin(self, sink: ItemSink) -> None:
        """Send granted items to SINK."""
        self._sink = sink

    def grant(self, items: int) -> None:
        """Grant ITEMS more. They are requested when the previous request is answered."""
        self._credit += items
        if self._over and self._sink is not None:
            self._sink.over(self._error)
        self._ask()

    def close(self) -> None:
        """Close the iterator. The source is over when that has happened."""
        if not self._over:
            self._credit = 0
            self._session.end(self._opening, self._key, self.address, self._closed)

    def over(self, error: BaseException | None) -> None:
        """End: no more items come."""
        if not self._over:
            self._over = True
            self._error = error
            self._sources.pop(self, None)
            if self._sink is not None:
                self._sink.over(error)
            self._onOver()

    def _ask(self) -> None:
        if self._credit and not self._asking and not self._over:
            self._asking = True
            self._session.items(self._opening, self._key, self.address, self._credit, self._answered)

    def _answered(self, answer: tuple[int, bytes, bytes | None, bool] | BaseException) -> None:
        """Process the answer to a request for items, or its failure."""
        self._asking = False
        if self._over:
            return
        if isinstance(answer, BaseException):
            self.over(WorkerLost(f"the iteration ended early: {_explained(answer)}"))
            return
        number, payload, raised, ended = answer
        items, refused = loadItems(number, payload)
        self._credit = max(0, self._credit - number)
        if items and self._sink is not None:
            self._sink.arrived(items)
        if refused is not None:
            self.close()
            self.over(refused)
        elif ended:
            self.over(None if raised is None else loadError(raised))
        else:
            self._ask()

    def _closed(self, answer: bytes | BaseException | None) -> None:
        if answer is None:
            self.over(None)
        elif isinstance(answer, BaseException):
            self.over(WorkerLost(f"the iteration ended early: {_explained(answer)}"))
        else:
            self.over(loadError(answer))


def _explained(error: BaseException) -> str:
    if isinstance(error, ImportError) and (error.name or "").startswith("asynqueue"):
        return f"the cluster does not have this version of AsynQueue installed ({error})"
    return str(error) or type(error).__name__
