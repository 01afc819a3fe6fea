"""What crosses a link: one small record for each thing that either side can say.

Theory of operation. The *near* side is the program with the queue; the *far* side runs the calls. The near side
numbers its calls on a link from 1 upwards, and everything said about a call or its iterator carries that number.
The far side takes calls in the order of their numbers.

    near -> far     Call         run this
                    Grant        you may send so many more items of that iterator
                    Close        stop that iterator, its items are no longer wanted
                    Goodbye      finish what you have and go
                    Tidy         give back the memory that you keep for what is large (a process only)
                    Begin        run so many calls at once (a wire only, as those below)
                    Recall       give back what you have not started
                    Cancel       that call is not wanted any more
    far -> near     Ready        I am here
                    Terms        no more than so much may be asked of me (a wire only)
                    Returned     the call returned this
                    Raised       the call raised this
                    Opened       the call returned an iterator, which I keep
                    Items        so many items of the iterator, in order
                    Exhausted    the iterator has no more
                    Failed       the iterator raised this
                    Started      that call starts when this has been sent (a wire only, as those below)
                    Recalled     that call never starts
                    Refused      I go, and this is why
    either way      Ping         are you there?
                    Pong         I am

A payload is bytes that this module does not look into. This module and `framing` are read by worker processes,
which import neither attrs nor Twisted: hence named tuples.
"""

from __future__ import annotations

from typing import NamedTuple

from asynqueue.core.protocol.payload import ChunkedPayload

Payload = bytes | bytearray | ChunkedPayload


class Call(NamedTuple):
    """Run the call in PAYLOAD; with RAW, an iterator is returned as it is."""

    id: int
    raw: bool
    payload: Payload


class Grant(NamedTuple):
    """Up to ITEMS more items of the iterator may be sent."""

    id: int
    items: int


class Close(NamedTuple):
    """Stop the iterator."""

    id: int


class Goodbye(NamedTuple):
    """Finish what was asked for and go."""


class Tidy(NamedTuple):
    """Give back the memory that is kept to send what is large."""


class Begin(NamedTuple):
    """Run up to RUNNING calls at once."""

    running: int


class Recall(NamedTuple):
    """Give back, each with `Recalled`, the calls that have not started."""


class Cancel(NamedTuple):
    """Let go of the call, started or not. Nothing more is said of it."""

    id: int


class Ready(NamedTuple):
    """The far side runs, as process PID."""

    pid: int


class Terms(NamedTuple):
    """No more than CALLS may be unfinished, of MESSAGES bytes in all, and RUNNING at once."""

    calls: int
    messages: int
    running: int


class Returned(NamedTuple):
    """The call ran for SECONDS and returned what is in PAYLOAD."""

    id: int
    seconds: float
    payload: Payload


class Raised(NamedTuple):
    """The call ran for SECONDS and raised what is in PAYLOAD."""

    id: int
    seconds: float
    payload: Payload


class Opened(NamedTuple):
    """The call ran for SECONDS and returned an iterator, which the far side keeps."""

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
    """The iterator raised what is in PAYLOAD, after the items sent."""

    id: int
    payload: Payload


class Started(NamedTuple):
    """The call starts as soon as this is on its way."""

    id: int


class Recalled(NamedTuple):
    """The call never starts."""

    id: int


class Refused(NamedTuple):
    """The far side ends the connection for the reason in PAYLOAD, as UTF-8."""

    id: int
    payload: Payload


class Ping(NamedTuple):
    """Say `Pong`."""


class Pong(NamedTuple):
    """The answer to `Ping`."""


ToFar = Call | Grant | Close | Goodbye | Tidy | Begin | Recall | Cancel | Ping | Pong
ToNear = (
    Ready | Terms | Returned | Raised | Opened | Items | Exhausted | Failed | Started | Recalled | Refused | Ping | Pong
)
Message = ToFar | ToNear
