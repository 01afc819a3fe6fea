"""The far side of `ampoule`: one command, a pickled call, and the process that answers it."""

from __future__ import annotations

import pickle
from typing import ClassVar

from ampoule.child import AMPChild
from twisted.protocols.amp import Argument, Command, String


class Call(Command):
    """A call, and what it returned, as pickles: 64 KiB at most, as AMP has it."""

    arguments: ClassVar[list[tuple[bytes, Argument]]] = [(b"call", String())]
    response: ClassVar[list[tuple[bytes, Argument]]] = [(b"result", String())]


class Child(AMPChild):
    """Makes the calls."""

    @Call.responder
    def make(self, call: bytes) -> dict[str, bytes]:
        """Make one."""
        f, args = pickle.loads(call)
        return {"result": pickle.dumps(f(*args))}
