"""Servers on this machine: interpreters of their own, that are gone when their parent is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from itertools import count
from os import PathLike
from pathlib import Path
from secrets import token_hex
from typing import Any

import attrs
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from asynqueue.core.protocol.admission import Limits
from asynqueue.errors import ProcessError
from asynqueue.reactor.lookup import installedReactor
from asynqueue.reactor.shutdowntrigger import ShutdownTrigger
from asynqueue.reactor.waiters import Waiters
from asynqueue.wire import keys

STOP_GRACE = 5.0
"""Seconds that a server has to exit after it was told to; then it is killed."""

READY = 3
"""The descriptor in which a server says that it listens."""


class ServerManager:
    """Starts servers of the universe with the full name UNIVERSENAME, each in an interpreter of its own.

    They import what this program can, share its KEY, which is made for them if none is given, let their clients do what
    LIMITS says, and exit with this program, even if it is killed; so do the files that are made for them::

        manager = ServerManager("sums.Sums")
        socket = manager.newSocket()
        await manager.spawn(socket)
        queue = WireQueue(socket, Sums, key=manager.key)
        ...
        await manager.shutdown()
    """

    def __init__(
        self,
        universeName: str | None = None,
        *,
        key: bytes | str | PathLike[str] | None = None,
        limits: Limits | None = None,
        reactor: Any = None,
    ) -> None:
        self._limits = Limits() if limits is None else limits
        self.universeName = universeName
        self.key: bytes = keys.key(key) or token_hex(32).encode()
        self._reactor = reactor
        self._directory: Path | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._sockets = count(1)
        self._servers: dict[int, _Server] = {}
        self._trigger = ShutdownTrigger(self.shutdown, "before")

    def spawn(
        self, description: str, stdio: bool = False, niceness: int = 0, universeName: str | None = None
    ) -> Deferred[int]:
        """Start a server that listens at DESCRIPTION; fires with its process's ID when it does.

        With STDIO, what it prints and logs goes where this program's goes; else it is logged. It runs with a niceness
        that is NICENESS (0 to 19) higher. UNIVERSENAME is the manager's, unless it is given.

        Fails with `asynqueue.errors.ProcessError`, which says what it printed, if it does not come to listen.
        """
        universe = universeName or self.universeName
        if universe is None:
            raise ValueError("which universe is it to serve? Give the full name of its class, package.module.Class")
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
            [sys.executable, "-m", "asynqueue.wire", description, universe, "--key-file", str(self._keyFile()),
             "--with-parent", "--niceness", str(niceness), "--ready", str(READY), *limits],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            childFDs={0: "w", 1: 1 if stdio else "r", 2: 2 if stdio else "r", READY: "r"},
        )  # fmt: skip
        self._servers[server.pid] = server
        return server.ready

    def newSocket(self) -> str:
        """The description of a UNIX socket that is not there yet, where nobody else can get: for `spawn`, and for a
        `WireWorker`."""
        return f"unix:{self._place() / str(next(self._sockets))}"

    def done(self, pid: int | None = None) -> Deferred[None]:
        """Have the server with that process ID exit, or all of them; fires when they have."""
        servers = list(self._servers.values()) if pid is None else [self._servers[pid]] if pid in self._servers else []
        return gatherResults([server.end() for server in servers]).addCallback(lambda _: None)

    def shutdown(self) -> Deferred[None]:
        """Have all servers exit, and leave nothing behind; fires when that is done."""
        return self.done().addCallback(lambda _: self._clear())

    def _place(self) -> Path:
        if self._directory is None:
            self._directory = Path(tempfile.mkdtemp(prefix="asynqueue-"))  # which is this user's alone
            self._guard = _guard(self._directory)
        return self._directory

    def _keyFile(self) -> Path:
        path = self._place() / "key"
        if not path.exists():
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(self.key)
        return path

    def _exited(self, server: _Server) -> None:
        del self._servers[server.pid]

    def _clear(self) -> None:
        self._trigger.remove()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None
        if self._guard is not None:
            guard, self._guard = self._guard, None
            guard.communicate()  # it has nothing to do but to end


def _guard(directory: Path) -> subprocess.Popen[bytes]:
    """A process that removes DIRECTORY when this one has died, however that came; the servers have then died, too."""
    return subprocess.Popen(
        ["/bin/sh", "-c", 'read -r _; exec rm -rf -- "$0"', str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,  # what is sent to all processes of a terminal is not for this one
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
        self._printed = b""  # the last line, and before it is ready all that there is

    def end(self) -> Deferred[None]:
        """Have it exit; fires when it has."""
        ended = self._ending.add()
        if self._grace is None:
            self._signal("TERM")
            self._grace = self._reactor.callLater(STOP_GRACE, self._kill)
        return ended

    def connectionMade(self) -> None:
        """It has begun."""
        transport: Any = self.transport
        self.pid = transport.pid

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """It says that it listens, or prints something."""
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
        """It has exited, and all that it printed is here."""
        self._ended = True
        if self._grace is not None and self._grace.active():
            self._grace.cancel()
        self._onExited(self)
        if not self.ready.called:
            said = self._printed.decode(errors="replace").strip() or reason.getErrorMessage()
            self.ready.errback(ProcessError(f"a wire server could not be started: {said}"))
        self._ending.fire(None)

    def _kill(self) -> None:
        self._signal("KILL")

    def _signal(self, name: str) -> None:
        transport: Any = self.transport
        try:
            transport.signalProcess(name)
        except ProcessExitedAlready:
            pass
