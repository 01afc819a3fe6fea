"""Permits to start a call, which can be revoked.

A call that waits at a worker may have to move to another one, and only one of them may run it. The kernel decides:

- With each call, the parent sends a *permit*, which is the call's number, into a socket. Both processes hold the
  reading end of that socket.
- The worker reads the permit and then starts the call. Or the parent reads it, and then the call never starts.
- Data that was read is gone, so exactly one of them gets the permit. This takes no time, also when the worker is busy
  or dead: the permits that a dead process leaves are the calls that it never started.

The worker takes calls in the order of their numbers. All permits below the last one that it has taken are therefore
used up. Worker processes import this module.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from struct import Struct

_PERMIT = Struct("<Q")


class PermitIssuer:
    """The parent's end: sends permits, and revokes those that are not used."""

    def __init__(self) -> None:
        self.giving: socket.socket
        self.taking: socket.socket
        self.giving, self.taking = socket.socketpair()
        self.giving.setblocking(False)

    def give(self, numbers: Sequence[int]) -> None:
        """Permit the calls of NUMBERS to start. Numbers only rise."""
        if numbers:
            self.giving.sendall(Struct(f"<{len(numbers)}Q").pack(*numbers))

    def revoke(self) -> list[int]:
        """Revoke all unused permits. Return the numbers of their calls, which never start."""
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
        """Close the sockets."""
        self.giving.close()
        self.taking.close()


class PermitHolder:
    """The worker's end: starts only calls that have a permit."""

    def __init__(self, taking: socket.socket) -> None:
        self._taking = taking
        self._last = 0

    def fileno(self) -> int:
        """Return the descriptor of the socket, -1 when it is closed."""
        return self._taking.fileno()

    def mayStart(self, number: int) -> bool:
        """Take the permit of call NUMBER. Return whether there was one: then the call has started. NUMBER only
        rises."""
        while self._last < number:
            try:
                permit = self._taking.recv(_PERMIT.size, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return False
            if len(permit) < _PERMIT.size:
                return False
            (self._last,) = _PERMIT.unpack(permit)
        return self._last == number
