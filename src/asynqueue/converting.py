"""Objects and callables in a form that can be sent."""

from __future__ import annotations

from types import MethodType, ModuleType

from twisted.python.reflect import namedAny

from asynqueue.calltext import attribute, qualname
from asynqueue.serialization import dumps, loads

__all__ = ["Converter"]


class Converter:
    """Turns objects into what can be sent, and checks that it comes out again; None is what cannot be.

    >>> Converter().strToFQN("os.path.join")
    'posixpath.join'
    >>> Converter().objToFQN(Converter.objToFQN), Converter().objToFQN(Converter())
    ('asynqueue.converting.Converter.objToFQN', None)
    """

    def strToFQN(self, x: str) -> str | None:
        """The fully qualified name of what is to be imported by the name X. Imports it."""
        try:
            found: object = namedAny(x)
        except Exception:  # what importing a module raises is anything
            return None
        return self.objToFQN(found)

    def objToPickle(self, x: object) -> bytes | None:
        """X as a pickle."""
        try:
            payload = dumps(x)
            loads(payload, "the object")
        except Exception:  # a user's __reduce__ may raise anything
            return None
        return payload

    def objToFQN(self, x: object) -> str | None:
        """The fully qualified name that X is imported by."""
        try:
            name = x.__name__ if isinstance(x, ModuleType) else f"{attribute(x, '__module__')}.{qualname(x)}"
            found: object = namedAny(name)
            return name if found is x or (isinstance(x, MethodType) and found == x) else None
        except Exception:  # as in strToFQN
            return None

    def processObject(self, x: object) -> bytes | str | None:
        """X as a pickle, or else its fully qualified name."""
        payload = self.objToPickle(x)
        return self.objToFQN(x) if payload is None else payload
