"""The messages of a link: one small record for each.

A link connects a queue with the place where its calls run. Either the parent process sends calls to a child process
(by pipe), or a client sends calls to a server (by wire). Below, *local* is the side with the queue (parent, client) and
*remote* is the side that runs the calls (child, server).

The local side numbers its calls on a link from 1 upwards. Every message about a call, or about the iterator that the
call returned, carries that number. The remote side takes calls in the order of their numbers.

    local -> remote  Call         run this call
                     Grant        send up to so many more items of this iterator
                     Close        stop this iterator
                     Goodbye      finish all calls, then end
                     Tidy         free the buffers that are kept for large payloads (processes only)
                     Begin        run up to so many calls at once (this and those below: wires only)
                     Recall       return all calls that have not started
                     Cancel       cancel this call
    remote -> local  Ready        the remote side is running
                     Terms        the limits for this client (wires only)
                     Returned     the call returned this
                     Raised       the call raised this
                     Opened       the call returned an iterator, which stays on the remote side
                     Items        the next items of the iterator
                     Exhausted    the iterator has no more items
                     Failed       the iterator raised this
                     Started      the call starts as soon as this message is sent (this and those below: wires only)
                     Recalled     the call has not started and never will
                     Refused      the server ends the connection, for this reason
    both directions  Ping         ask for a `Pong`
                     Pong         answer a `Ping`

A payload is bytes. This module never looks into it. Child processes import this module and `framing`, and they must
import neither attrs nor Twisted. For that reason the records are named tuples.
"""

from __future__ import annotations

from typing import NamedTuple

from asynqueue.core.protocol.chunkedpayload import ChunkedPayload

Payload = bytes | bytearray | ChunkedPayload


class Call(NamedTuple):
    """Run the call in PAYLOAD. With RAW, an iterator that it returns is sent as a value."""

    id: int
    raw: bool
    payload: Payload


class Grant(NamedTuple):
    """Allow ITEMS more items of the iterator."""

    id: int
    items: int


class Close(NamedTuple):
    """Stop the iterator."""

    id: int


class Goodbye(NamedTuple):
    """Finish all calls, then end."""


class Tidy(NamedTuple):
    """Free the buffers that are kept for large payloads."""


class Begin(NamedTuple):
    """Run up to RUNNING calls at once."""

    running: int


class Recall(NamedTuple):
    """Return each call that has not started with `Recalled`."""


class Cancel(NamedTuple):
    """Cancel the call, started or not. No more messages about it follow."""

    id: int


class Ready(NamedTuple):
    """The remote side runs, as process PID."""

    pid: int


class Terms(NamedTuple):
    """The limits for one client: CALLS unfinished, MESSAGES bytes in all of them, RUNNING at once."""

    calls: int
    messages: int
    running: int


class Returned(NamedTuple):
    """The call ran for SECONDS and returned the value in PAYLOAD."""

    id: int
    seconds: float
    payload: Payload


class Raised(NamedTuple):
    """The call ran for SECONDS and raised the error in PAYLOAD."""

    id: int
    seconds: float
    payload: Payload


class Opened(NamedTuple):
    """The call ran for SECONDS and returned an iterator, which stays on the remote side."""

    id: int
    seconds: float


class Items(NamedTuple):
    """The next NUMBER items of the iterator, one after another in PAYLOAD."""

    id: int
    number: int
    payload: Payload


class Exhausted(NamedTuple):
    """The iterator has no more items."""

    id: int


class Failed(NamedTuple):
    """The iterator raised the error in PAYLOAD, after the items already sent."""

    id: int
    payload: Payload


class Started(NamedTuple):
    """The call starts as soon as this message is sent."""

    id: int


class Recalled(NamedTuple):
    """The call has not started and never will."""

    id: int


class Refused(NamedTuple):
    """The server ends the connection, for the reason in PAYLOAD (UTF-8)."""

    id: int
    payload: Payload


class Ping(NamedTuple):
    """Ask for a `Pong`."""


class Pong(NamedTuple):
    """Answer a `Ping`."""


ToRemote = Call | Grant | Close | Goodbye | Tidy | Begin | Recall | Cancel | Ping | Pong
ToLocal = (
    Ready | Terms | Returned | Raised | Opened | Items | Exhausted | Failed | Started | Recalled | Refused | Ping | Pong
)
Message = ToRemote | ToLocal
