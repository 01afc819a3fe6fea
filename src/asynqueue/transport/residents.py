"""The objects that live on the far side, as the near side knows them.

An object whose bound method was the subject of an update lives on over there, under the number of that update. Later
calls of its methods, or of itself, travel without it: a `asynqueue.transport.serialization.Resident` stands in its
place.
"""

from __future__ import annotations

from types import BuiltinFunctionType, FunctionType, MethodType

from asynqueue.core.records import Raised, Returned, RunOutcome, Task
from asynqueue.transport.callcodec import CallEncoder
from asynqueue.transport.serialization import Resident, Undelivered
from asynqueue.transport.sharedmemory import SharedMemoryChannel


class Residents:
    """The residents of one far side, to which what is large goes by PARCELS."""

    def __init__(self, parcels: SharedMemoryChannel | None = None) -> None:
        self._callees = CallEncoder(parcels)
        self._known: dict[int, tuple[int, object]] = {}  # by id(); the object is kept, so the id stays its own

    def payload(self, task: Task, number: int) -> tuple[bytes, object]:
        """The call of TASK as bytes, and the object that becomes resident under NUMBER when it has run, if any.

        Raises `asynqueue.errors.SerializationError` for what cannot be pickled.
        """
        call = task.call
        f: object = call.f
        owner = _ownerOf(f) if task.update else None
        if self._known or owner is not None:
            known = self._known.get(id(getattr(f, "__self__", f)))
            if known is not None:
                f = Resident(known[0], _nameIn(f))
            elif owner is not None:
                f = Resident(number, _nameIn(f))
                return self._callees.dump(f, call.args, call.kw, owner, describe=call.__str__), owner
        return self._callees.dump(f, call.args, call.kw, describe=call.__str__), owner

    def ended(self, owner: object, number: int, outcome: RunOutcome) -> None:
        """The update that sent OWNER, to live under NUMBER, ended with OUTCOME."""
        arrived = isinstance(outcome, Raised) and not isinstance(outcome.error, Undelivered)
        if arrived or isinstance(outcome, Returned):
            self._known.setdefault(id(owner), (number, owner))


def _ownerOf(f: object) -> object:
    """The object that becomes resident by an update that calls F, if any."""
    if isinstance(f, MethodType):
        owner: object = f.__self__
        return None if isinstance(owner, type) or getattr(owner, f.__name__, None) != f else owner
    return None if isinstance(f, (type, FunctionType, BuiltinFunctionType)) else f


def _nameIn(f: object) -> str | None:
    return f.__name__ if isinstance(f, MethodType) else None
