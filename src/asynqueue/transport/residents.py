"""The objects that live in a worker process, as the parent process knows them.

When a bound method is the subject of an update, its object stays in the worker, under the number of that update. Later
calls of the object or its methods travel without it: an `asynqueue.transport.serialization.Resident` stands in its
place.
"""

from __future__ import annotations

from types import BuiltinFunctionType, FunctionType, MethodType, MethodWrapperType

from asynqueue.core.records import Raised, Returned, RunOutcome, Task
from asynqueue.core.results import isA
from asynqueue.core.text import errorText
from asynqueue.errors import SerializationError
from asynqueue.transport.callcodec import CallEncoder
from asynqueue.transport.serialization import Resident, Undelivered


class Residents:
    """The residents of one worker, whose calls ENCODER encodes."""

    def __init__(self, encoder: CallEncoder) -> None:
        self._encoder = encoder
        self._known: dict[int, tuple[int, object]] = {}  # By id(). The object is kept, so that no other gets its id.

    def payload(self, task: Task, number: int) -> tuple[bytes, object]:
        """Return the call of TASK as bytes, and the object that an update makes resident under NUMBER, or None.

        The call of a resident object, or of its method, has the number of that object in its place.

        Raises `asynqueue.errors.SerializationError`.
        """
        call = task.call
        f: object = call.f
        owner = _ownerOf(f) if task.update else None
        if self._known or owner is not None:
            known = self._known.get(id(_selfOf(f)))
            if known is not None:
                f = Resident(known[0], _nameIn(f))
            elif owner is not None:
                f = Resident(number, _nameIn(f))
                return self._encoder.dump(f, call.args, call.kw, owner, describe=call.__str__), owner
        return self._encoder.dump(f, call.args, call.kw, describe=call.__str__), owner

    def definitionsLost(self) -> None:
        """Send all definitions of ``__main__`` again when they are needed."""
        self._encoder.restart()

    def ended(self, owner: object, number: int, outcome: RunOutcome) -> None:
        """Register OWNER as resident under NUMBER, unless the update that sent it did not arrive."""
        arrived = isinstance(outcome, Raised) and not isA(outcome.error, Undelivered)
        if arrived or isinstance(outcome, Returned):
            self._known.setdefault(id(owner), (number, owner))


def notSent(task: Task, error: BaseException) -> SerializationError:
    """Return the error of the call of TASK, which cannot be sent because of ERROR.

    A callable may raise anything when it is looked at. Its neighbours are sent.
    """
    refusal = SerializationError(f"{task.call} cannot be sent: {errorText(error)}")
    refusal.__cause__ = error
    return refusal


def _ownerOf(f: object) -> object:
    """Return the object that becomes resident by an update that calls F, or None."""
    if type(f) is MethodType:
        owner: object = f.__self__
        return None if isinstance(owner, type) or getattr(owner, f.__name__, None) != f else owner
    return None if isA(f, type, FunctionType, BuiltinFunctionType) else f


def _selfOf(f: object) -> object:
    return f.__self__ if isA(f, MethodType, BuiltinFunctionType, MethodWrapperType) else f  # type: ignore[attr-defined]  # these have it


def _nameIn(f: object) -> str | None:
    return f.__name__ if type(f) is MethodType else None
