"""Servers on this machine, each in an interpreter of its own that exits with its parent."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from os import PathLike
from pathlib import Path
from secrets import token_hex
from typing import Any

import attrs
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import quoteStringArgument
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from asynqueue.capabilities import requirePosix
from asynqueue.core.protocol.serverlimits import Limits
from asynqueue.errors import ProcessError
from asynqueue.reactor import forks
from asynqueue.reactor.lookup import installedReactor
from asynqueue.reactor.shutdowntrigger import ShutdownTrigger
from asynqueue.reactor.waiters import Waiters
from asynqueue.transport.lifeline import disown
from asynqueue.transport.socketfolder import makeSocketFolder
from asynqueue.wire import keys

STOP_GRACE = 5.0
"""Seconds that a server has to exit after SIGTERM. Then it is killed."""

READY = 3
"""The descriptor to which a server writes when it listens."""


class ServerManager:
    """A manager of servers on this machine, each in an interpreter of its own.

    The servers have this program's import path and the manager's key. They exit with this program, even if it is
    killed, and the files that are made for them are then removed::

        manager = ServerManager("sums.Sums")
        socket = manager.newSocket()
        await manager.spawn(socket)
        queue = WireQueue(socket, Sums, key=manager.key)
        ...
        await manager.shutdown()

    Args:
        universeName: The full name of the class to serve, ``package.module.Class``, unless `spawn` has one.
        wwuFQN: The name of `universeName` in 0.9.
        key: The key as bytes (16 or more), or the name of its file. None: from the environment, or else a new one.
        limits: The limits for clients. None is `asynqueue.wire.Limits` with its defaults.
        plain: As for `asynqueue.wire.WireServer`.
        reactor: The reactor to use. None is the installed one.

    Raises:
        ValueError: The key is too short.
        AuthenticationError: The key cannot be read, or other users can read it.
        ProcessError: This is no POSIX system.
    """

    def __init__(
        self,
        universeName: str | None = None,
        *,
        wwuFQN: str | None = None,
        key: bytes | str | PathLike[str] | None = None,
        limits: Limits | None = None,
        plain: bool = False,
        reactor: Any = None,
    ) -> None:
        requirePosix("ServerManager")
        self._limits = Limits() if limits is None else limits
        self.universeName: str | None = wwuFQN if universeName is None else universeName
        self.key: bytes = keys.key(key) or token_hex(32).encode()
        self._plain = plain
        self._reactor = reactor
        self._directory: Path | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._sockets = count(1)
        self._servers: dict[int, _Server] = {}
        self._trigger = ShutdownTrigger(self.shutdown, "before")
        forks.watch(self._disown)

    def spawn(
        self, description: str, stdio: bool = False, niceness: int = 0, universeName: str | None = None
    ) -> Deferred[int]:
        """Start a server.

        Args:
            description: The Twisted server endpoint to listen at.
            stdio: With True, the server's output goes where this program's goes. With False, it is logged.
            niceness: How much higher the niceness of the server is, 0 to 19.
            universeName: The full name of the class to serve. None is the manager's.

        Returns:
            A Deferred that fires with the process ID when the server listens. If it does not come to listen, the
            Deferred fails with `asynqueue.errors.ProcessError`, which has the server's output.

        Raises:
            ValueError: There is no name of a universe, or `niceness` is out of its range.
        """
        universe = universeName or self.universeName
        if universe is None:
            raise ValueError("no universe to serve: give universeName, as package.module.Class")
        if type(niceness) is not int or not 0 <= niceness <= 19:
            raise ValueError(f"niceness must be an integer from 0 to 19, got {niceness!r}")
        reactor: Any = installedReactor(self._reactor)
        self._reactor = reactor
        self._trigger.add(reactor)
        limits = [word for name, value in attrs.asdict(self._limits).items() for word in ("--limit", f"{name}={value}")]
        server = _Server(reactor, self._exited)
        reactor.spawnProcess(
            server,
            sys.executable,
            [sys.executable, "-c", _program(), description, universe, "--key-file", str(self._keyFile()),
             "--with-parent", "--niceness", str(niceness), "--ready", str(READY), *limits,
             *(["--plain"] if self._plain else [])],
            env=dict(os.environ),
            childFDs={0: "w", 1: 1 if stdio else "r", 2: 2 if stdio else "r", READY: "r"},
        )  # fmt: skip
        self._servers[server.pid] = server
        return server.ready

    def newSocket(self) -> str:
        """Return the description of a new UNIX socket that only this user can use: for `spawn` and a `WireWorker`."""
        return f"unix:{quoteStringArgument(str(self._place() / str(next(self._sockets))))}"

    def done(self, pid: int | None = None) -> Deferred[None]:
        """End servers.

        Args:
            pid: The process ID of one server. None ends all of them.

        Returns:
            A Deferred that fires when they have exited.
        """
        servers = list(self._servers.values()) if pid is None else [self._servers[pid]] if pid in self._servers else []
        return gatherResults([server.end() for server in servers]).addCallback(lambda _: None)

    def shutdown(self) -> Deferred[None]:
        """End all servers, and remove the files that were made for them.

        Returns:
            A Deferred that fires when that is done.
        """
        return self.done().addCallback(lambda _: self._clear())

    def _place(self) -> Path:
        if self._directory is None:
            self._directory = Path(makeSocketFolder("asynqueue-"))
            self._guard = _guard(self._directory)
        return self._directory

    def _keyFile(self) -> Path:
        path = self._place() / "key"
        if not path.exists():
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(self.key)
        return path

    def _disown(self) -> None:
        """Leave the servers and their files to the program, if this process is a fork of it."""
        if not forks.isRunning(self._reactor):
            return
        forks.keep(self._guard, *self._servers.values())
        descriptors = [descriptor for server in self._servers.values() for descriptor in server.descriptors()]
        if self._guard is not None and self._guard.stdin is not None:
            descriptors.append(self._guard.stdin.fileno())
        if descriptors:
            disown(*descriptors)
        self._servers = {}
        self._directory = self._guard = None

    def _exited(self, server: _Server) -> None:
        del self._servers[server.pid]

    def _clear(self) -> None:
        self._trigger.remove()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None
        if self._guard is not None:
            guard, self._guard = self._guard, None
            guard.communicate()  # closes its standard input, and waits


def _program() -> str:
    """Return the program of a server: its import path is this program's, and nothing is imported before that.

    With ``-m``, the current directory would come first, and with it all modules that were planted there. (Python has
    ``-P`` against that, from 3.11 on.) An empty entry of the path is the current directory of the moment.
    """
    path = [each or os.getcwd() for each in sys.path]
    return f"import sys; sys.path[:] = {path!r}; from asynqueue.wire.command import main; main()"


def _guard(directory: Path) -> subprocess.Popen[bytes]:
    """Start a process that removes DIRECTORY when this process has ended, in whatever way. Return it."""
    return subprocess.Popen(
        ["/bin/sh", "-c", 'read -r _; exec rm -rf -- "$0"', str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,  # signals to all processes of a terminal must not end this one
    )


class _Server(ProcessProtocol):
    """The process of one server. ONEXITED is called when it has exited."""

    _log = Logger(namespace="asynqueue")

    def __init__(self, reactor: Any, onExited: Callable[[_Server], None]) -> None:
        self.ready: Deferred[int] = Deferred()
        self.pid = 0
        self._reactor = reactor
        self._onExited = onExited
        self._ended = False
        self._ending = Waiters[None]()
        self._grace: IDelayedCall | None = None
        self._printed = b""  # the last incomplete line; until the server is ready, all output

    def end(self) -> Deferred[None]:
        """End the process. Return a Deferred that fires when it has exited."""
        ended = self._ending.add()
        if self._grace is None:
            self._signal("TERM")
            self._grace = self._reactor.callLater(STOP_GRACE, self._kill)
        return ended

    def descriptors(self) -> list[int]:
        """Return the descriptors of the pipes to the process."""
        transport: Any = self.transport
        numbers = [pipe.fileno() for pipe in transport.pipes.values()]
        return [number for number in numbers if number >= 0]

    def connectionMade(self) -> None:
        """Note the process ID."""
        transport: Any = self.transport
        self.pid = transport.pid

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """Receive the sign that the server listens, or log its output."""
        if childFD == READY:
            if not self.ready.called:
                self._printed = b""
                self.ready.callback(self.pid)
            return
        *lines, self._printed = (self._printed + data).split(b"\n")
        if not self.ready.called:
            self._printed = b"\n".join((*lines, self._printed))[-10_000:]
            return
        for line in lines:
            self._log.info("server {pid}: {line}", pid=self.pid, line=line.decode(errors="replace"))

    def processEnded(self, reason: Failure) -> None:
        """Fire the Deferreds: the process has exited, and all its output was received."""
        self._ended = True
        if self._grace is not None and self._grace.active():
            self._grace.cancel()
        self._onExited(self)
        if not self.ready.called:
            why = self._printed.decode(errors="replace").strip() or reason.getErrorMessage()
            self.ready.errback(ProcessError(f"a wire server could not be started: {why}"))
        self._ending.fire(None)

    def _kill(self) -> None:
        self._signal("KILL")

    def _signal(self, name: str) -> None:
        transport: Any = self.transport
        try:
            transport.signalProcess(name)
        except ProcessExitedAlready:
            pass
