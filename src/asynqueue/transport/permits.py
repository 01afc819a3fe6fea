"""Leave to start a call, which can be taken back.

A call that waits at a worker may have to go elsewhere, and only one side can have it. The kernel decides: with
each call goes a *permit*, the call's number, into a socket of which *both* sides hold the reading end. The far
side takes the permit and starts the call; or the near side takes it back, and the call is never started. What
is read is gone, so exactly one side gets it, at once, whatever the other is busy with, and even if it is dead: the
permits that a dead process left are the calls that it never started.

The far side takes calls in the order of their numbers, so all permits lower than the one it took last are spent.
Worker processes read this module.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from struct import Struct

_PERMIT = Struct("<Q")


class PermitIssuer:
    """The near side: gives permits, and takes back those that were not used."""

    def __init__(self) -> None:
        self.giving: socket.socket
        self.taking: socket.socket
        self.giving, self.taking = socket.socketpair()
        self.giving.setblocking(False)

    def give(self, numbers: Sequence[int]) -> None:
        """The calls of NUMBERS, which go up, may start."""
        if numbers:
            self.giving.sendall(Struct(f"<{len(numbers)}Q").pack(*numbers))

    def revoke(self) -> list[int]:
        """The numbers of the calls that will never start: they have no permit any more."""
        permits = b""
        while self.taking.fileno() >= 0:
            try:
                received = self.taking.recv(4096, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            if not received:
                break
            permits += received
        return [number for (number,) in _PERMIT.iter_unpack(permits)]

    def close(self) -> None:
        """Let go of the sockets."""
        self.giving.close()
        self.taking.close()


class PermitHolder:
    """The far side: starts only what it has a permit for."""

    def __init__(self, taking: socket.socket) -> None:
        self._taking = taking
        self._last = 0

    def mayStart(self, number: int) -> bool:
        """True if call NUMBER may start; it has started then. NUMBER never goes down."""
        while self._last < number:
            try:
                permit = self._taking.recv(_PERMIT.size, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return False
            if len(permit) < _PERMIT.size:
                return False
            (self._last,) = _PERMIT.unpack(permit)
        return self._last == number
