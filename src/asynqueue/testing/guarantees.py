"""The guarantees of AsynQueue by name, and the error that says which guarantee did not hold.

``docs/guarantees.md`` says, for each, which property test covers it.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence


class Guarantee(enum.Enum):
    """A guarantee. Its value is its text."""

    NOTHING_LOST = (
        "Nothing lost, nothing doubled: every submitted task settles exactly once, whatever workers join, leave, crash "
        "or time out in between"
    )
    STARTED_AGAIN_ONCE = (
        "A call that started on a worker that died is started at most once more (two attempts by default, settable), "
        "then settles as lost"
    )
    NEIGHBOURS = (
        "A death is charged only to the call that was running: its neighbours in the same window, finished or not, "
        "are never charged and never lost"
    )
    QUALIFIED = "Qualified: a task of a series runs only on a worker qualified for it"
    NEVER_BLOCKED = "Never head-of-line blocked: a task that no worker can run now delays no other task"
    ORDER = (
        "Order: doNext calls first, then by fair order, then doLast calls; within one series and niceness, "
        "first in, first out"
    )
    FAIR_SHARES = (
        "Fair shares: two backlogged flows are served in inverse proportion to their weights, within w_i + w_j of it"
    )
    NEW_FLOW = "A new flow neither waits behind the backlog nor overtakes it for free"
    WORK_CONSERVING = (
        "Work-conserving: no worker with room idles while a task it may run is queued; the one with the fewest "
        "unfinished tasks gets the next"
    )
    COST = "Cost: O(log n) a task with n queued; no recursion anywhere"
    WINDOW = "The window: a worker never runs, nor is given, more at once than its window allows"
    WINDOW_BUDGET = (
        "The window grows while calls return faster than a millisecond and shrinks at once when one does not"
    )
    WINDOW_NEXT = (
        "A doNext call starts within about a millisecond of where a window of 1 would have started it, if "
        "calls take what those before them took"
    )
    WINDOW_IDLE = (
        "No worker sits idle beside another that holds unstarted tasks it may run for longer than about a millisecond"
    )
    DEATH_NOTICED = "A dead worker is noticed at once, is replaced, and loses nothing"
    ONE_CALL_FAILS = (
        "A value that cannot be sent fails only its own call, with an error that names the object and the reason"
    )
    FRAMING = "Invalid bytes are a named error: no crash, no hang, no unbounded memory"
    RESIDENTS = "An object whose bound method was the subject of update lives on in every worker"
    UPDATES = "An update is run on every present worker, and on every future worker before its first task"
    EXACT_ITEMS = "An iteration gives exactly the iterator's items, in order, each once"
    ERROR_AFTER_ITEMS = "An exception half-way through an iteration arrives after the items before it"
    CREDIT = "Never more than the credit is in flight"
    ITERATION_ENDS = (
        "Nothing is left running or held after stop, exhaustion, error, or the loss of either side: stopping runs the "
        "generator's finally"
    )
    ARGUMENTS = "A call is made with the arguments it was given, keyword arguments of any name too"
    RAW = "A raw call gives the iterator itself, as it was returned; one that is not raw gives its items"
    ORIGINAL_ERRORS = "Errors arrive as Failures that wrap the original exception type"
    CANCELLATION = (
        "Cancelling a call's Deferred: queued, it never runs; running, its Deferred ends now, and the worker is free"
    )
    TIMEOUT = (
        "A timeout really frees the worker; on the first expiry the call is tried again, on the second it fails with "
        "TimeoutError"
    )
    SHUTDOWN_WAITS = "Shutdown waits for what was accepted"
    NOTHING_LEFT = (
        "Shutdown leaves nothing: no process, thread, file descriptor, shared memory, temporary file, or delayed call"
    )
    CRASH = "A crash does not wait, and gives exactly the tasks that were unfinished"
    LIGHT_CHILD = "A child process imports neither Twisted nor attrs"
    NO_REACTOR = "Importing asynqueue installs no reactor, and imports neither Twisted nor attrs"
    PARENT_DIES = "If the parent dies by SIGKILL, its workers exit by themselves"
    TRUST = "Over a wire, nothing is unpickled before the peer has authenticated itself"
    RESULTS_IN_ORDER = "map gives results in the order of its items, with bounded read-ahead"
    TRACKER = (
        "A tracker's waits end in the reactor turn in which their condition becomes true, and leave chains unchanged"
    )
    LOCK = "A lock has one holder at a time; VIPs before others, first come first served in each class"
    BRIDGES = "Bridges: one side reads all items that the other writes, in order, each once, with bounded room"


class GuaranteeBroken(AssertionError):
    """A guarantee did not hold.

    Args:
        guarantee: The guarantee.
        how: What was observed.
        story: The events up to then, in order.
    """

    def __init__(self, guarantee: Guarantee, how: str, story: Sequence[str] = ()) -> None:
        lines = [f"{guarantee.value}.", f"  But {how}."]
        if story:
            lines += ["  The story:", *(f"    {n}. {line}" for n, line in enumerate(story, 1))]
        super().__init__("\n".join(lines))
        self.guarantee = guarantee
        self.how = how
