"""What a program with many Deferreds keeps reaching for: counting them, locking with them, waiting for one.

`DeferredTracker` waits for all, any or enough of the Deferreds put into it. `DeferredLock` is Twisted's
with a line for VIPs and an end. Both only carry out what a machine decides (`core.tracking`,
`core.locking`), one command after another and never one inside another, so a callback may do with them
whatever it likes, a hundred thousand times in one turn. The rest are small: `callAfterDeferred`,
`killProcess`, `o2p` and `p2o`, `CallRunner`.

Importing this module installs no reactor. Where none is given, the installed one is asked for when it is
needed.
"""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from functools import partial
from time import perf_counter
from typing import Any, Generic, Literal, ParamSpec, TypeAlias, TypeVar, overload
from weakref import ReferenceType, ref

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred, succeed
from twisted.internet.defer import DeferredLock as TwistedLock
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.interfaces import IDelayedCall, IReactorFDSet, IReactorTime, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from typing_extensions import Self
from zope.interface import implementer

from asynqueue import errors
from asynqueue.core.locking import Granted, Locking, Phase
from asynqueue.core.tracking import Tracking, WaitEnded
from asynqueue.delay import Delay, installedReactor
from asynqueue.serialization import dumps, loads

__all__ = ["CallRunner", "DeferredLock", "DeferredTracker", "callAfterDeferred", "killProcess", "o2p", "p2o"]

P = ParamSpec("P")
T = TypeVar("T")
D = TypeVar("D", bound="Deferred[Any]")
Command = TypeVar("Command")

_log = Logger(namespace="asynqueue")


class DeferredTracker:
    """Waits for all, any, or enough of the Deferreds that are put into it, and changes nothing about them.

    A Deferred is outstanding until its callback chain reaches the place where it was put. Its result, what
    is chained to it and the report of an unhandled error remain as they were, and the tracker keeps no
    reference to it. The wait's Deferred fires in the very turn in which its condition comes true, and may
    be cancelled.

    INTERVAL and BACKOFF are accepted for the sake of programs written for AsynQueue 0.9, whose tracker
    polled; they are not used. REACTOR is for timeouts only.

    >>> tracker = DeferredTracker()
    >>> first, second = tracker.put(Deferred()), tracker.put(Deferred())
    >>> d = tracker.deferUntilFewer(2).addCallback(lambda met: print("room for another", met))
    >>> d = tracker.deferToAll().addCallback(lambda met: print("all", met))
    >>> first.callback(1)
    room for another True
    >>> second.callback(2)
    all True
    """

    def __init__(
        self,
        interval: float | None = None,
        backoff: float | None = None,
        *,
        reactor: IReactorTime | None = None,
    ) -> None:
        self._reactor = reactor
        self._machine = Tracking[Deferred[bool]]()
        self._perform = _InTurn(self._ended)
        self._timers: dict[Deferred[bool], IDelayedCall] = {}

    def put(self, d: D) -> D:
        """Track D, and return it. What is no Deferred is a `TypeError`.

        Put again while it is outstanding, it still counts once, until its chain reaches the later place.
        """
        if not isinstance(d, Deferred):
            raise TypeError(f"a tracker tracks Deferreds, got {d!r}; Deferred.fromCoroutine makes one of a coroutine")
        self._machine.put(ref(d))
        _atThisPlace(d, self._passed)
        return d

    def addWait(self) -> None:
        """Count one more as outstanding, which has no Deferred of its own."""
        self._machine.add()

    def removeWait(self) -> None:
        """What an `addWait` counted is over. Without one it is an `InvariantError`."""
        try:
            ended = self._machine.remove()
        except ValueError as error:
            raise errors.InvariantError(f"removeWait without an addWait of its own: {error}") from None
        self._perform(ended)

    def deferToAll(self, timeout: float | None = None) -> Deferred[bool]:
        """A Deferred that fires with True when nothing is outstanding.

        It fires with False in TIMEOUT seconds (None: never).
        """
        return self.deferUntilFewer(1, timeout)

    def deferToAny(self, timeout: float | None = None) -> Deferred[bool]:
        """A Deferred that fires with True when anything outstanding ends from now on, or when nothing is.

        It fires with False in TIMEOUT seconds (None: never).
        """
        return self._wait(self._machine.waitAny, timeout)

    def deferUntilFewer(self, N: int, timeout: float | None = None) -> Deferred[bool]:
        """A Deferred that fires with True when fewer than N (1 or more, else `ValueError`) are outstanding.

        It fires with False in TIMEOUT seconds (None: never).
        """
        return self._wait(lambda d: self._machine.waitFewer(d, N), timeout)

    def quitWaiting(self) -> None:
        """End every wait in progress; its Deferred fires with False."""
        self._perform(self._machine.quit())

    def notWaiting(self) -> bool:
        """Whether nobody waits."""
        return not self._machine

    def _wait(
        self, begin: Callable[[Deferred[bool]], tuple[WaitEnded[Deferred[bool]], ...]], timeout: float | None
    ) -> Deferred[bool]:
        if timeout is not None and not timeout >= 0:
            raise ValueError(f"timeout must be 0 seconds or more, or None, got {timeout!r}")
        d: Deferred[bool] = Deferred(self._cancelled)
        for ended in begin(d):
            # Nobody else has D yet, so this needs no turn.
            self._ended(ended)
        if timeout is not None and not d.called:
            self._timers[d] = installedReactor(self._reactor).callLater(timeout, self._expired, d)
        return d

    def _passed(self, key: ReferenceType[Deferred[Any]]) -> None:
        self._perform(self._machine.passed(key))

    def _expired(self, d: Deferred[bool]) -> None:
        del self._timers[d]
        self._perform(self._machine.expired(d))

    def _cancelled(self, d: Deferred[bool]) -> None:
        self._machine.withdraw(d)
        self._stopTimer(d)

    def _ended(self, ended: WaitEnded[Deferred[bool]]) -> None:
        self._stopTimer(ended.wait)
        if not ended.wait.called:
            ended.wait.callback(ended.met)

    def _stopTimer(self, d: Deferred[bool]) -> None:
        timer = self._timers.pop(d, None)
        if timer is not None:
            timer.cancel()


class DeferredLock(TwistedLock):
    """Twisted's `DeferredLock` with a line for VIPs, and an end.

    VIPs get the lock before others; each of the two lines is first come, first served. After `stop` it guards
    nothing: every `acquire` is granted at once, `release` does nothing, and `locked` is false.

    >>> lock = DeferredLock()
    >>> for name, vip in ("first", False), ("second", False), ("VIP", True):
    ...     d = lock.acquire(vip).addCallback(lambda _, name=name: print(name))
    first
    >>> lock.release()
    VIP
    >>> lock.release()
    second
    """

    def __init__(self) -> None:
        # The base class's would only make a list of those who wait, which our machine keeps.
        self._machine: Locking[_Claim[Self]] = Locking()
        self._perform: _InTurn[Granted[_Claim[Self]]] = _InTurn(self._granted)
        self._stoppers: deque[Callable[[], object]] = deque()
        self._stopping: list[Deferred[None]] = []

    @property
    def locked(self) -> bool:  # type: ignore[override]  # the base class says "do not change", we see to it
        """Whether somebody holds the lock."""
        return self._machine.held

    @property
    def waiting(self) -> list[Deferred[Self]]:  # type: ignore[override]  # read, never changed, by users
        """The Deferreds of those who wait, the next first."""
        return [claim.d for claim in self._machine.waiting if claim.d is not None]

    def acquire(self, vip: bool = False) -> Deferred[Self]:
        """A Deferred that fires with the lock once it is yours. Cancel it to wait no longer."""
        return self._claim(vip)[1]

    def release(self) -> None:
        """Let the next one have the lock. A lock that nobody holds is an `InvariantError`."""
        try:
            granted = self._machine.release()
        except ValueError as error:
            raise errors.InvariantError(str(error)) from None
        self._perform(granted)

    @overload
    def acquireAndRelease(
        self, f: Callable[..., Deferred[T]], *args: Any, vip: bool = False, **kw: Any
    ) -> Deferred[T]: ...
    @overload
    def acquireAndRelease(
        self, f: Callable[..., Coroutine[Deferred[Any], Any, T]], *args: Any, vip: bool = False, **kw: Any
    ) -> Deferred[T]: ...
    @overload
    def acquireAndRelease(self, f: Callable[..., T], *args: Any, vip: bool = False, **kw: Any) -> Deferred[T]: ...
    def acquireAndRelease(self, f: Callable[..., Any], *args: Any, vip: bool = False, **kw: Any) -> Deferred[Any]:
        """Call F with what follows it while the lock is held, and fire with its result.

        F may return a Deferred or a coroutine; the lock is released when that has its result or failure.
        With VIP, wait in the VIPs' line. (`run`, the base class's, is the same without VIP and checks the
        arguments' types.)
        """

        def held(_: Self) -> Deferred[Any]:
            return maybeDeferred(f, *args, **kw).addBoth(self._releaseAndReturn)

        return self.acquire(vip).addCallback(held)

    def context(self, vip: bool = False) -> _LockContext:
        """A context in which the lock is yours: at its end released, or no longer waited for.

        >>> from twisted.internet.defer import ensureDeferred, inlineCallbacks
        >>> lock = DeferredLock()
        >>> async def careful():
        ...     async with lock.context(vip=True):
        ...         print("mine")
        >>> @inlineCallbacks
        ... def careful09():
        ...     with lock.context() as d:
        ...         yield d
        ...         print("mine again")
        >>> d = ensureDeferred(careful())
        mine
        >>> d = careful09()
        mine again
        """
        return _LockContext(self, vip)

    def addStopper(self, f: Callable[P, object], *args: P.args, **kw: P.kwargs) -> None:
        """Have F called with what follows it when the lock is stopped; at once if it is.

        F may return a Deferred or a coroutine. It must not wait for this very lock, which is held meanwhile.
        """
        self._stoppers.append(partial(f, *args, **kw))
        if self._machine.phase is Phase.OPEN:
            Deferred.fromCoroutine(self._runStoppers())

    def stop(self) -> Deferred[None]:
        """A Deferred that fires when the lock was had for the last time, as a VIP, and the stoppers have run.

        The stoppers run one after another, in the order in which they were added. One that fails is logged
        and keeps nobody from stopping. Whoever still waits then gets the lock at once. To stop again is to
        wait for the same end; to cancel the Deferred is to wait no longer, and stops nothing.
        """
        if self._machine.phase is Phase.OPEN:
            return succeed(None)
        d: Deferred[None] = Deferred()
        self._stopping.append(d)
        if self._machine.phase is Phase.GUARDING:
            turn: Deferred[Self] = Deferred()
            turn.addCallback(lambda _: Deferred.fromCoroutine(self._close()))
            self._perform(self._machine.stop(_Claim(turn)))
        return d

    def _claim(self, vip: bool) -> tuple[_Claim[Self], Deferred[Self]]:
        d: Deferred[Self] = Deferred(lambda _: self._giveUp(claim))
        claim = _Claim(d)
        for granted in self._machine.acquire(claim, vip):
            # Nobody else has D yet, so this needs no turn.
            self._granted(granted)
        return claim, d

    def _giveUp(self, claim: _Claim[Self]) -> None:
        """Neither wait for nor hold the lock by CLAIM any more; nothing if it does not."""
        self._perform(self._machine.withdraw(claim))

    # Any: within __init__, where this is passed on, mypy takes Self for the class itself.
    def _granted(self, granted: Granted[_Claim[Any]]) -> None:
        d, granted.claim.d = granted.claim.d, None
        if d is not None and not d.called:
            d.callback(self)

    async def _close(self) -> None:
        await self._runStoppers()
        self._perform(self._machine.opened())
        stopping, self._stopping = self._stopping, []
        for d in stopping:
            d.callback(None)

    async def _runStoppers(self) -> None:
        while self._stoppers:
            stopper = self._stoppers.popleft()
            try:
                await maybeDeferred(stopper)
            except Exception:
                _log.failure("{stopper} failed as its lock was stopped", stopper=stopper)


class _Claim(Generic[T]):
    """One wish to hold a lock, with its Deferred until that is granted.

    A holder's Deferred is the holder's alone: kept by the lock, it would not report an unhandled error.
    """

    def __init__(self, d: Deferred[T]) -> None:
        self.d: Deferred[T] | None = d


class _LockContext:
    """One use of a lock, from entry to exit."""

    def __init__(self, lock: DeferredLock, vip: bool) -> None:
        self._lock = lock
        self._vip = vip
        self._claim: _Claim[DeferredLock] | None = None

    def __enter__(self) -> Deferred[DeferredLock]:
        if self._claim is not None:
            raise errors.InvariantError("this context has been entered: ask the lock for another")
        self._claim, d = self._lock._claim(self._vip)
        return d

    def __exit__(self, *exception: object) -> None:
        if self._claim is None:
            return
        self._lock._giveUp(self._claim)
        d = self._claim.d
        if d is not None:
            # It never came: whoever still waits for it learns so.
            d.cancel()
            d.addErrback(_expectCancelled)

    def __aenter__(self) -> Deferred[DeferredLock]:
        return self.__enter__()

    def __aexit__(self, *exception: object) -> Deferred[None]:
        self.__exit__(*exception)
        return succeed(None)


@overload
def callAfterDeferred(
    namespace: object, dName: str, f: Callable[P, Deferred[T]], *args: P.args, **kw: P.kwargs
) -> Deferred[T]: ...
@overload
def callAfterDeferred(
    namespace: object,
    dName: str,
    f: Callable[P, Coroutine[Deferred[Any], Any, T]],
    *args: P.args,
    **kw: P.kwargs,
) -> Deferred[T]: ...
@overload
def callAfterDeferred(
    namespace: object, dName: str, f: Callable[P, T], *args: P.args, **kw: P.kwargs
) -> Deferred[T]: ...
def callAfterDeferred(namespace: object, dName: str, f: Callable[..., Any], *args: Any, **kw: Any) -> Deferred[Any]:
    """Call F with what follows it once the Deferred that NAMESPACE has as its attribute DNAME has fired.

    With no such attribute, or if it has fired or is no Deferred, F is called at once. The Deferred stays as
    it was, its failure too, which does not keep F from being called. The Deferred returned has the result
    of F; cancelled before F is called, it keeps F from it.

    >>> class Connection:
    ...     ready = Deferred()
    >>> d = callAfterDeferred(Connection, "ready", print, "connected", "as", "bob", sep="-")
    >>> Connection.ready.callback(None)
    connected-as-bob
    """
    d = getattr(namespace, dName, None)
    if not isinstance(d, Deferred):
        return maybeDeferred(f, *args, **kw)
    fired: Deferred[None] = Deferred()
    _atThisPlace(d, lambda _: fired.callback(None))
    return fired.addCallback(lambda _: maybeDeferred(f, *args, **kw))


def killProcess(pid: int, grace: float = 5.0, *, reactor: IReactorTime | None = None) -> Deferred[bool]:
    """End the process PID, any process that we may signal, and wait until it is gone.

    It gets SIGTERM, and SIGKILL if it is still there in GRACE seconds (0 or more). The Deferred fires with
    whether it was alive; a zombie was not. A child of ours is reaped, so whoever else waits for it
    (`subprocess`, `multiprocessing`) does not learn its exit status. Where the system and the reactor can
    watch a process (Linux) nothing is polled. Cancel the Deferred to stop waiting; the signals sent are
    sent.

    Our own pid, or one below 1, which would mean many processes, is a `ValueError`. A process of somebody
    else's fails the Deferred with `PermissionError`.

    Example: ``wasAlive = await killProcess(child.pid, grace=1.0)``
    """
    if pid < 1 or pid == os.getpid():
        raise ValueError(f"pid must be that of one other process, got {pid!r}")
    if not grace >= 0:
        raise ValueError(f"grace must be 0 seconds or more, got {grace!r}")
    return Deferred.fromCoroutine(_kill(pid, grace, installedReactor(reactor)))


async def _kill(pid: int, grace: float, clock: IReactorTime) -> bool:
    pidfd = _pidfd(pid) if IReactorFDSet.providedBy(clock) else None
    try:
        if _gone(pid):
            return False
        for number, patience in (signal.SIGTERM, grace), (signal.SIGKILL, None):
            try:
                # By its descriptor, since a number may have passed on to another process by now.
                os.kill(pid, number) if pidfd is None else signal.pidfd_send_signal(pidfd, number)
            except ProcessLookupError:
                pass  # it went by itself, as will be seen at once
            if await _untilGone(pid, pidfd, patience, clock):
                break
        _reap(pid)
        return True
    finally:
        if pidfd is not None:
            os.close(pidfd)


async def _untilGone(pid: int, pidfd: int | None, patience: float | None, clock: IReactorTime) -> bool:
    """Whether the process went in PATIENCE seconds (None: however long it takes)."""
    if pidfd is None:
        return bool(await Delay(0.01, timeout=patience, reactor=clock).untilEvent(_gone, pid))
    ended: Deferred[None] = Deferred()
    reader = _WhenReadable(pidfd, ended)
    fds = IReactorFDSet(clock)
    fds.addReader(reader)
    try:
        await (ended if patience is None else ended.addTimeout(patience, clock))
    except DeferredTimeoutError:
        return False
    finally:
        fds.removeReader(reader)
    return True


@implementer(IReadDescriptor)
class _WhenReadable:
    """Fires a Deferred once a file descriptor is readable."""

    def __init__(self, fd: int, d: Deferred[None]) -> None:
        self._fd = fd
        self._d = d

    def fileno(self) -> int:
        return self._fd

    def doRead(self) -> None:
        if not self._d.called:
            self._d.callback(None)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor lets go of every reader when it ends."""

    def logPrefix(self) -> str:
        return "killProcess"


def _pidfd(pid: int) -> int | None:
    """A descriptor that is readable once the process has ended; None where there is none to be had."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None


def _gone(pid: int) -> bool:
    """Whether the process has ended, reaped or not, reaping it if it is our child."""
    if _reap(pid):
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            # The state follows the command, which is in parentheses and may hold some itself.
            return stat.read().rpartition(b") ")[2][:1] in (b"Z", b"X")
    except OSError:
        return False


def _reap(pid: int) -> bool:
    """Whether the process was a child of ours, had ended, and has now been waited for."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return False


def o2p(obj: object) -> bytes:
    """OBJ as bytes: by pickle, or by cloudpickle what pickle refuses, such as a lambda, or a name of `__main__`.

    What neither can carry is a `SerializationError` that says which object and why.

    >>> p2o(o2p({"a": [1, 2]}))
    {'a': [1, 2]}
    """
    try:
        return dumps(obj)
    except Exception as error:
        raise errors.SerializationError(f"cannot pickle {_named(obj)}: {error}") from error


def p2o(pickled: bytes, defaultObj: Any = None) -> Any:
    """The object of which `o2p` made PICKLED; DEFAULTOBJ for no bytes, which 0.9 made of an empty object.

    What does not come out is a `SerializationError`. Only for bytes from somebody you trust: unpickling runs
    what they say.
    """
    return loads(pickled, "the pickled object") if pickled else defaultObj


CallResult: TypeAlias = tuple[Literal["r"], T] | tuple[Literal["i"], Iterator[Any]] | tuple[Literal["e"], Failure]


class CallRunner:
    """Runs calls, each given as (f, args, kw), and says how each ended as (status, result).

        status  result
        "r"     what f returned
        "i"     the iterator that f returned; never with RAW, which makes an iterator a result like any other
        "e"     the Failure of f, which raised an `Exception`; anything else it raises goes through

    With CALLSTATS, `callTimes` gets the seconds that each call took.

    >>> run = CallRunner()
    >>> run((divmod, (7, 2), {}))
    ('r', (3, 1))
    """

    def __init__(self, raw: bool = False, callStats: bool = False) -> None:
        self.raw = raw
        self.callStats = callStats
        self.callTimes: list[float] = []

    def __call__(self, callTuple: tuple[Callable[..., T], Sequence[Any], Mapping[str, Any]]) -> CallResult[T]:
        """Run one call. Never raises an `Exception`."""
        f, args, kw = callTuple
        begun = perf_counter()
        try:
            result = f(*args, **kw)
        except Exception:
            return "e", Failure()
        finally:
            if self.callStats:
                self.callTimes.append(perf_counter() - begun)
        if isinstance(result, Iterator) and not self.raw:
            return "i", result
        return "r", result


class _InTurn(Generic[Command]):
    """Performs commands one after another: what comes while one is performed waits until that is done."""

    def __init__(self, perform: Callable[[Command], None]) -> None:
        self._perform = perform
        self._commands: deque[Command] = deque()
        self._performing = False

    def __call__(self, commands: Iterable[Command]) -> None:
        self._commands.extend(commands)
        if self._performing:
            return
        self._performing = True
        try:
            while self._commands:
                self._perform(self._commands.popleft())
        finally:
            self._performing = False


def _atThisPlace(d: Deferred[Any], call: Callable[[ReferenceType[Deferred[Any]]], None]) -> None:
    """CALL, with a weak reference to D, when the chain of D reaches its present end; leave D as it is."""
    d.addBoth(_pass, ref(d), call)


def _pass(result: T, key: ReferenceType[Deferred[Any]], call: Callable[[ReferenceType[Deferred[Any]]], None]) -> T:
    d = key()
    assert d is not None, "a Deferred is there while its callbacks run"
    # Paused, so that whoever is called and then awaits D, or chains to it, does so behind us in its chain. In
    # the midst of its run D would give its result to both, and report a failure that was handled.
    d.pause()
    try:
        call(key)
    finally:
        d.unpause()
    return result


def _expectCancelled(failure: Failure) -> None:
    failure.trap(CancelledError)


def _named(obj: object) -> str:
    """OBJ for an error's message, whatever its repr does."""
    try:
        text = repr(obj)
    except Exception:
        return f"an unprintable {type(obj).__qualname__}"
    return text if len(text) <= 200 else f"{text[:200]}..."
