"""The child process of `ampoule`: one command, which carries a pickled call."""

from __future__ import annotations

import pickle
from typing import ClassVar

from ampoule.child import AMPChild
from twisted.protocols.amp import Argument, Command, String


class Call(Command):
    """A call and its result, as pickles. AMP takes at most 64 KiB."""

    arguments: ClassVar[list[tuple[bytes, Argument]]] = [(b"call", String())]
    response: ClassVar[list[tuple[bytes, Argument]]] = [(b"result", String())]


class Child(AMPChild):
    """Makes the calls."""

    @Call.responder
    def make(self, call: bytes) -> dict[str, bytes]:
        """Make one call."""
        f, args = pickle.loads(call)
        return {"result": pickle.dumps(f(*args))}
