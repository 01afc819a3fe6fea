"""What the tests of wires share: a universe, servers of it over every kind of connection, and certificates.

Servers that are processes of their own import this module.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from asynqueue.testing import workload as deeds
from asynqueue.wire import ServerManager, WireQueue, WireServer, WireWorkerUniverse
from tests.support.calls import die, mark, markAndHang, markedItems

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

KEY = b"a key that only the tests have"

KINDS = ("unix", "tcp", "tls")


class Things(WireWorkerUniverse):
    """What the tests have done on servers."""

    attribute = 5

    def __init__(self) -> None:
        self.kept: list[Any] = []
        self.secret = lambda: mark(Path("never"))

    @property
    def prop(self) -> int:
        """No method."""
        return 6

    class Nested:
        """No method either."""

    def echo(self, value: Any) -> Any:
        """Give VALUE back."""
        return value

    def add(self, a: int, b: int = 1) -> int:
        """The sum."""
        return a + b

    @staticmethod
    def twice(a: int) -> int:
        """Two A."""
        return 2 * a

    @classmethod
    def name(cls) -> str:
        """The name of the class."""
        return cls.__name__

    def fail(self, error: BaseException) -> NoReturn:
        """Raise ERROR."""
        raise error

    def keep(self, value: Any) -> int:
        """Keep VALUE; how many are kept."""
        self.kept.append(value)
        return len(self.kept)

    def big(self, size: int) -> bytes:
        """So many bytes."""
        return bytes(size)

    def full(self, size: int) -> bytes:
        """So many bytes, each of which is somewhere in memory."""
        return b"f" * size

    def size(self, value: bytes) -> int:
        """How many bytes VALUE has."""
        return len(value)

    def peak(self) -> int:
        """The most bytes that the server has had in memory since this was asked last."""
        return peak()

    def count(self, number: int) -> Iterator[int]:
        """0, 1 ... below NUMBER."""
        yield from range(number)

    async def slowly(self, number: int, path: Path | None = None) -> AsyncIterator[int]:
        """0, 1 ... below NUMBER, each after a while; with a PATH, the end is marked."""
        try:
            for n in range(number):
                yield await self.soon(n)
        finally:
            if path is not None:
                mark(path, "end")

    async def slowlyAndFail(self) -> AsyncIterator[int]:
        """0, then a KeyError."""
        yield await self.soon(0)
        raise KeyError("here")

    @lru_cache  # noqa: B019  # there is one object, and it lives as long as the server
    def remembered(self, a: int) -> int:
        """Twice A."""
        return 2 * a

    def chunks(self, number: int, size: int) -> Iterator[bytes]:
        """NUMBER items of SIZE bytes."""
        for _ in range(number):
            yield bytes(size)

    def countAndFail(self, number: int) -> Iterator[int]:
        """0, 1 ... below NUMBER, then a KeyError."""
        yield from range(number)
        raise KeyError(number)

    def marked(self, path: Path, number: int) -> Iterator[int]:
        """0, 1 ... below NUMBER, each marked as it is made, and the end."""
        return markedItems(path, number)

    def mark(self, path: Path, what: object = "started") -> None:
        """Mark WHAT."""
        mark(path, what)

    def hang(self, path: Path, what: object = "started") -> Deferred[None]:
        """Mark WHAT, and give a Deferred that never fires; when it is cancelled, mark that."""
        from twisted.internet.defer import Deferred

        mark(path, what)
        return Deferred(lambda _: mark(path, "cancelled"))

    def block(self, path: Path) -> None:
        """Mark the start, and block for ever."""
        markAndHang(path)

    def die(self, path: Path, what: object = "started") -> NoReturn:
        """Mark WHAT, and kill the server."""
        mark(path, what)
        die()

    def soon(self, value: Any, seconds: float = 0.0) -> Deferred[Any]:
        """A Deferred of VALUE."""
        from asynqueue import deferToDelay

        return deferToDelay(seconds).addCallback(lambda _: value)

    async def later(self, value: Any) -> Any:
        """The same in a coroutine."""
        return await self.soon(value)

    def thread(self) -> str:
        """The name of the thread that runs this."""
        return threading.current_thread().name

    def pid(self) -> int:
        """The process that runs this."""
        return os.getpid()

    def stopServer(self) -> None:
        """Stop the whole server's process."""
        os.kill(os.getpid(), signal.SIGSTOP)

    def _private(self) -> None:
        mark(Path("never"))


def peak() -> int:
    """The most bytes that this process has had in memory since this was asked last."""
    most = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]
    Path("/proc/self/clear_refs").write_text("5")  # and now it begins anew
    return int(most) * 1024


class Deeds(WireWorkerUniverse):
    """What the conformance kit has done."""

    give = staticmethod(deeds.give)
    fail = staticmethod(deeds.fail)
    hold = staticmethod(deeds.hold)
    iterate = staticmethod(deeds.iterate)


class Certificates:
    """An authority, and what it has signed, as files in DIRECTORY."""

    def __init__(self, directory: Path) -> None:
        import trustme

        self.authority = authority = trustme.CA()
        self.roots = directory / "roots"
        self.roots.mkdir()
        authority.cert_pem.write_to_path(self.roots / "ca.pem")
        self.directory = directory
        for name, identity in (("server", "127.0.0.1"), ("client", "client@example.com")):
            self.issue(authority, name, identity)

    def issue(self, authority: Any, name: str, identity: str) -> None:
        """Have AUTHORITY sign a certificate for IDENTITY."""
        issued = authority.issue_cert(identity)
        issued.private_key_pem.write_to_path(self.directory / f"{name}.key")
        issued.cert_chain_pems[0].write_to_path(self.directory / f"{name}.pem")

    def pair(self, name: str) -> str:
        """The part of a description that names a certificate and its key."""
        return f"certificate={self.directory / name}.pem:privateKey={self.directory / name}.key"

    def listen(self, authenticate: bool = True, port: int = 0) -> str:
        """A server's description."""
        roots = f":trustRoots={self.roots}" if authenticate else ""
        return f"tls:{port}:interface=127.0.0.1:{self.pair('server')}{roots}"

    def connect(self, port: int, name: str | None = "client") -> str:
        """A client's description."""
        own = "" if name is None else f":{self.pair(name)}"
        return f"tls:127.0.0.1:{port}:trustRoots={self.roots}{own}"


def places(kind: str, manager: ServerManager, directory: Path) -> tuple[str, str]:
    """Descriptions for a server of MANAGER and for its clients, of a connection of KIND."""
    if kind == "unix":
        return (manager.newSocket(),) * 2
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    if kind == "tcp":
        return f"tcp:{port}:interface=127.0.0.1", f"tcp:127.0.0.1:{port}"
    certificates = Certificates(directory)
    return certificates.listen(port=port), certificates.connect(port)


@asynccontextmanager
async def served(
    kind: str, directory: Path, universe: Any = Things, **kw: Any
) -> AsyncIterator[tuple[WireServer, str, bytes | None]]:
    """A server over a connection of KIND, with what a client needs: a description, and the key."""
    certificates = Certificates(directory) if kind == "tls" else None
    key: bytes | None = KEY
    if certificates is not None:
        description, key = certificates.listen(), None
    elif kind == "tcp":
        description = "tcp:0:interface=127.0.0.1"
    else:
        description = f"unix:{directory / 'socket'}"
    server = WireServer(description, universe, key=key, **kw)
    await server.start()
    try:
        if certificates is not None:
            yield server, certificates.connect(portOf(server)), None
        elif kind == "tcp":
            yield server, f"tcp:127.0.0.1:{portOf(server)}", key
        else:
            yield server, description, key
    finally:
        await server.stop()


@asynccontextmanager
async def wired(kind: str, directory: Path, universe: Any = Things, **kw: Any) -> AsyncIterator[WireQueue]:
    """A queue with a worker at a server of its own."""
    async with served(kind, directory, universe) as (_, description, key):
        async with WireQueue(description, universe, key=key, **kw) as queue:
            yield queue


def portOf(server: WireServer) -> int:
    """Where SERVER listens."""
    address: Any = server.address  # an IAddress has no port
    port: int = address.port
    return port
