"""An attacker in the middle of a wire, without the key: to pass on, change, replay or cut gains it nothing."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
from OpenSSL import SSL
from twisted.internet.endpoints import SSL4ServerEndpoint
from twisted.internet.threads import deferToThread
from twisted.logger import LogEvent

from asynqueue import TaskQueue, WireQueue, WireWorker
from asynqueue.core.protocol.handshake import _HELLO
from asynqueue.errors import AuthenticationError, WorkerLost
from asynqueue.wire import WireServer
from tests.support.calls import failureOf, inLoop, until
from tests.support.deferreds import logged
from tests.support.middle import SENT, Attack, middle, poison
from tests.support.wires import KEY, Certificates, Things, portOf

KINDS = ("unix", "tcp", "ssl", "tls", "tls of the authority", "tls by certificates")
"""Kinds of endpoints. The attacker's certificate is its own, or one of the authority that the client trusts."""

ENCRYPTED = KINDS[2:]


class Scene:
    """A server over an endpoint of KIND, and what an attacker needs to stand before it."""

    def __init__(self, kind: str, directory: Path) -> None:
        self.kind = kind
        self.directory = directory
        self.key = None if kind == "tls by certificates" else KEY
        self.certificates = Certificates(directory)
        stranger = self.certificates.authority if kind == "tls of the authority" else trustme.CA()
        self.certificates.issue(stranger, "attacker", "127.0.0.1")
        self.own = directory / "attacker.pem" if kind in ENCRYPTED else None
        if kind == "unix":
            place = f"unix:{directory / 'socket'}"
        elif kind == "tcp":
            place = "tcp:0:interface=127.0.0.1"
        else:
            place = self.certificates.listen(authenticate=kind == "tls by certificates")
        self.server = WireServer(place, Things, key=self.key)

    @property
    def behind(self) -> str:
        """The client description by which the attacker reaches the server."""
        if self.kind == "unix":
            return f"unix:{self.directory / 'socket'}"
        return f"{'tcp' if self.own is None else 'ssl'}:127.0.0.1:{portOf(self.server)}"

    def worker(self, port: int) -> WireWorker:
        """A worker that is led to the attacker, at PORT."""
        if self.own is None:
            where = f"tcp:127.0.0.1:{port}"
        elif self.kind == "ssl":
            where = f"ssl:127.0.0.1:{port}"  # it verifies nobody
        else:
            where = self.certificates.connect(port, "client" if self.key is None else None)
        return WireWorker(Things, where, key=self.key, plain=self.kind == "ssl", reconnect=False)

    def harmed(self) -> bool:
        """Whether one of the ends has unpickled what the attacker sent."""
        return any((self.directory / end).exists() for end in SENT)


@asynccontextmanager
async def scene(kind: str, directory: Path) -> AsyncIterator[tuple[Scene, list[LogEvent]]]:
    """A scene whose server has to be unharmed at the end, and to have no client."""
    there = Scene(kind, directory)
    with logged() as events:
        await there.server.start()
        yield there, events
        await until(lambda: not there.server._strangers and not there.server._clients)
        await there.server.stop()
    assert not there.harmed()


def refusals(events: list[LogEvent]) -> list[LogEvent]:
    """What the server logged of connections that it did not trust, or that did not trust it."""
    return [event for event in events if "peer" in event]


async def attached(worker: WireWorker) -> BaseException:
    """How WORKER fails, which is attached to a queue."""
    queue = TaskQueue()
    error = await failureOf(queue.attachWorker(worker))
    await queue.shutdown()
    return error


class TestThatPassesOn:
    """The attacker passes the handshake on, and then speaks for each end."""

    @pytest.mark.parametrize("kind", ENCRYPTED)
    @inLoop
    async def test_is_refused_by_both_ends(self, kind: str, tmp_path: Path) -> None:
        async with scene(kind, tmp_path) as (there, events):
            async with middle(there.behind, Attack(poison=poison(tmp_path)), there.own) as port:
                error = await attached(there.worker(port))
                assert isinstance(error, AuthenticationError)
                why = "an attacker stands in between" if kind in ("ssl", "tls of the authority") else "trustRoots"
                assert why in str(error)
                await until(refusals, events)
            for event in refusals(events):
                assert event["peer"].startswith("127.0.0.1:")
                assert event["why"]

    @inLoop
    async def test_is_refused_though_tls_is_older(self, tmp_path: Path) -> None:
        from twisted.internet import reactor
        from twisted.internet.ssl import CertificateOptions, PrivateCertificate

        certificates = Certificates(tmp_path)
        certificates.issue(trustme.CA(), "attacker", "127.0.0.1")
        both = [(tmp_path / name).read_bytes() for name in ("server.pem", "server.key")]
        pair = PrivateCertificate.loadPEM(b"".join(both))
        older = CertificateOptions(pair.privateKey.original, pair.original)
        older.getContext().set_max_proto_version(SSL.TLS1_2_VERSION)
        server = WireServer(SSL4ServerEndpoint(reactor, 0, older, interface="127.0.0.1"), Things, key=KEY)
        await server.start()
        there = f"ssl:127.0.0.1:{portOf(server)}"
        async with WireQueue(there, Things, key=KEY, plain=True) as queue:
            assert await queue.call(Things.add, 1) == 2
        with logged():
            async with middle(there, Attack(poison=poison(tmp_path)), tmp_path / "attacker.pem") as port:
                error = await attached(WireWorker(Things, f"ssl:127.0.0.1:{port}", key=KEY, plain=True))
            assert "an attacker stands in between" in str(error)
            await until(lambda: not server._strangers)
            await server.stop()
        assert not (tmp_path / "server").exists()
        assert not (tmp_path / "client").exists()

    @pytest.mark.parametrize("kind", ["unix", "tcp"])
    @inLoop
    async def test_takes_over_what_is_not_encrypted(self, kind: str, tmp_path: Path) -> None:
        """Why plain connections leave this machine with plain=True only: the key is proved, and nothing after it."""
        there = Scene(kind, tmp_path)
        with logged():
            await there.server.start()
            queue = TaskQueue()
            async with middle(there.behind, Attack(poison=poison(tmp_path))) as port:
                attaching = queue.attachWorker(there.worker(port)).addErrback(lambda reason: None)
                await until((tmp_path / "server").exists)
            await attaching
            await queue.shutdown()
            await there.server.stop()


class TestThatChanges:
    """The attacker changes one bit of a handshake."""

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize(
        ("end", "byte"), [("client", 12), ("client", SENT["client"] - 1), ("server", 5), ("server", SENT["server"] - 1)]
    )
    @inLoop
    async def test_is_refused(self, end: str, byte: int, kind: str, tmp_path: Path) -> None:
        async with scene(kind, tmp_path) as (there, events):
            async with middle(there.behind, Attack(end, flip=byte), there.own) as port:
                assert isinstance(await attached(there.worker(port)), AuthenticationError)
                await until(lambda: refusals(events) or not there.server._strangers)


class TestThatReplays:
    """The attacker sends what it has recorded of a client that has the key."""

    @pytest.mark.parametrize("kind", ["unix", "tcp", "ssl"])
    @inLoop
    async def test_is_refused(self, kind: str, tmp_path: Path) -> None:
        async with scene(kind, tmp_path) as (there, events):
            attack = Attack()
            async with middle(there.behind, attack, there.own) as port:
                queue = TaskQueue()
                attaching = queue.attachWorker(there.worker(port)).addErrback(lambda reason: None)
                await until(lambda: len(attack.recorded["client"]) >= SENT["client"])
                await attaching
                await queue.shutdown()
            del events[:]
            said = await deferToThread(replay, there, attack.recorded["client"])
            assert said.startswith(b"C"), "the server answers the first message"
            await until(refusals, events)
            assert "does not have the server's key" in refusals(events)[0]["why"]


def replay(there: Scene, recorded: bytes) -> bytes:
    """Send the handshake that was RECORDED to the server of THERE. Return what it answers."""
    connection: Any
    if there.kind == "unix":
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(there.directory / "socket"))
    else:
        connection = socket.create_connection(("127.0.0.1", portOf(there.server)))
    if there.own is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = context.wrap_socket(connection)
    with connection:
        connection.settimeout(20)
        connection.sendall(recorded[:_HELLO])
        said: bytes = connection.recv(1000)
        connection.sendall(recorded[_HELLO : SENT["client"]])
        while more := connection.recv(1000):
            said += more
    return said


class TestThatCuts:
    """The attacker ends connections in the middle of a handshake."""

    @pytest.mark.parametrize("kind", ["unix", "tcp"])
    @pytest.mark.parametrize("end", ["client", "server"])
    @inLoop
    async def test_delays_and_does_no_more(self, end: str, kind: str, tmp_path: Path) -> None:
        async with scene(kind, tmp_path) as (there, _):
            async with middle(there.behind, Attack(end, cut=SENT[end] - 1)) as port:
                assert isinstance(await attached(there.worker(port)), WorkerLost)
                await until(lambda: not there.server._strangers)
            async with middle(there.behind, Attack()) as port:
                queue = TaskQueue(there.worker(port))
                assert await queue.call(Things.add, 1) == 2
                await queue.shutdown()
