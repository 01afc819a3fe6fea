"""Which endpoints a wire uses, and how it refuses the others."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from asynqueue import WireQueue, WireWorker
from asynqueue.errors import AuthenticationError
from asynqueue.wire import WireServer
from asynqueue.wire.client import ClientConnection
from asynqueue.wire.endpoints import clientEndpoint, serverEndpoint
from asynqueue.wire.trust.kinds import TABLE, Trust, fields, isLoopback, whyOpen
from tests.support.calls import inLoop
from tests.support.deferreds import errorOf, logged
from tests.support.wires import KEY, Certificates, Things, portOf, served

PRIVATE, VERIFIED, OPEN = Trust.PRIVATE, Trust.VERIFIED, Trust.OPEN

CLASSES = [
    ("server", "unix:/run/sums.sock", PRIVATE),
    ("server", "tcp:7654", OPEN),
    ("server", "tcp:7654:interface=0.0.0.0", OPEN),
    ("server", "tcp:7654:interface=10.0.0.5", OPEN),
    ("server", "tcp:7654:interface=127.0.0.1", PRIVATE),
    ("server", "tcp:7654:127.0.0.1", PRIVATE),
    ("server", r"tcp:7654:interface=\:\:1", PRIVATE),
    ("server", "tcp6:7654", OPEN),
    ("server", r"tcp6:7654:interface=\:\:1", PRIVATE),
    ("server", "ssl:7654:certKey=a:privateKey=b", VERIFIED),
    ("server", "tls:7654:certificate=a:privateKey=b", VERIFIED),
    ("client", "unix:/run/sums.sock", PRIVATE),
    ("client", "tcp:10.0.0.5:7654", OPEN),
    ("client", "tcp:server.example:7654", OPEN),
    ("client", "tcp:localhost.example:7654", OPEN),
    ("client", "tcp:host=10.0.0.5:port=7654", OPEN),
    ("client", "tcp:10.0.0.5:7654:host=localhost", OPEN),
    ("client", "tcp:localhost:7654", PRIVATE),
    ("client", "tcp:host=127.0.0.1:port=7654", PRIVATE),
    ("client", r"tcp:\:\:1:7654", PRIVATE),
    ("client", "ssl:10.0.0.5:7654", OPEN),
    ("client", "ssl:127.0.0.1:7654", OPEN),
    ("client", "tls:10.0.0.5:7654", OPEN),
    ("client", "tls:10.0.0.5:7654:trustRoots=roots", VERIFIED),
]


class TestKinds:
    @pytest.mark.parametrize(("side", "description", "trust"), CLASSES)
    def test_each_has_its_class(self, side: Any, description: str, trust: Trust) -> None:
        assert TABLE[side][description.partition(":")[0]](fields(description)) is trust

    def test_each_of_the_table_is_tried_here(self) -> None:
        tried = {(side, description.partition(":")[0]) for side, description, _ in CLASSES}
        assert tried == {(side, kind) for side, kinds in TABLE.items() for kind in kinds}

    @pytest.mark.parametrize(
        ("host", "loopback"),
        [
            ("127.0.0.1", True),
            ("127.9.9.9", True),
            ("::1", True),
            ("::ffff:127.0.0.1", True),
            ("localhost", True),
            ("10.0.0.5", False),
            ("::ffff:10.0.0.5", False),
            ("0.0.0.0", False),
            ("::", False),
            ("127.1", False),
            ("", False),
        ],
    )
    def test_loopback_is_known_by_its_addresses(self, host: str, loopback: bool) -> None:
        assert isLoopback(host) is loopback


class TestDescriptions:
    @pytest.mark.parametrize(("side", "description"), [each[:2] for each in CLASSES if each[2] is OPEN])
    @inLoop
    async def test_an_open_one_is_refused_with_the_way_out(self, side: str, description: str) -> None:
        async def use() -> None:
            if side == "server":
                await WireServer(description, Things, key=KEY).start()
            else:
                WireQueue(description, Things, key=KEY)

        with pytest.raises(ValueError, match=re.escape(repr(description))) as raised:
            await use()
        assert "python -m asynqueue.wire certificates HOST" in str(raised.value)
        assert description.startswith("tls:") or "plain=True" in str(raised.value)

    @pytest.mark.parametrize(
        "description", ["onion:abc:80", "systemd:domain=INET:index=0", "haproxy:tcp:80", "TCP:a:80"]
    )
    @inLoop
    async def test_an_unknown_one_is_refused_with_the_way_out(self, description: str) -> None:
        why = r"a wire knows (ssl:, )?tcp:.* tls:, unix:\. Others need plain=True"
        with pytest.raises(ValueError, match=why):
            WireWorker(Things, description, key=KEY)
        with pytest.raises(ValueError, match=why):
            await WireServer(description, Things, key=KEY).start()

    @inLoop
    async def test_plain_permits_what_is_open(self, tmp_path: Path) -> None:
        from twisted.internet import reactor

        for description in ("tcp:10.0.0.5:7654", "ssl:10.0.0.5:7654"):
            assert not clientEndpoint(reactor, description, True).certified
        assert not serverEndpoint(reactor, "tcp:7654", True).certified
        certificates = Certificates(tmp_path)
        server = await WireServer(certificates.listen(authenticate=False), Things, key=KEY).start()
        async with WireQueue(f"ssl:127.0.0.1:{portOf(server)}", Things, key=KEY, plain=True) as queue:
            assert await queue.call(Things.add, 1) == 2
        await server.stop()

    @inLoop
    async def test_tls_of_a_client_needs_the_authority_even_so(self) -> None:
        with pytest.raises(ValueError, match="it has to be tls:HOST:PORT:trustRoots="):
            WireWorker(Things, "tls:10.0.0.5:7654", key=KEY, plain=True)


def connected(peer: Any = None) -> Any:
    """A transport of a plain connection with PEER, or with another machine."""
    transport: Any = StringTransport(peerAddress=peer)
    transport.abortConnection = transport.loseConnection
    return transport


class TestConnections:
    """A connection is checked itself: a name may lead elsewhere, and an object has no description."""

    @pytest.mark.parametrize(
        ("peer", "private"),
        [
            (UNIXAddress("/run/sums.sock"), True),
            (UNIXAddress(None), True),
            (IPv4Address("TCP", "127.0.0.1", 5), True),
            (IPv6Address("TCP", "::1", 5), True),
            (IPv4Address("TCP", "10.0.0.5", 5), False),
            (IPv6Address("TCP", "fe80::1%eth0", 5), False),
            (object(), False),
        ],
    )
    def test_an_open_one_is_known_by_its_peer(self, peer: Any, private: bool) -> None:
        assert (whyOpen(connected(peer)) is None) is private

    def test_a_client_sends_nothing_in_an_open_one(self) -> None:
        def link(plain: bool) -> Any:
            return ClientConnection(
                Clock(), "there", None, KEY, False, 1, False, 9.0, 9.0, lambda: None, lambda _: None, plain=plain
            )

        transport, refused = connected(), link(False)
        refused.makeConnection(transport)
        why = str(errorOf(refused.established, AuthenticationError))
        assert why.startswith("there cannot be trusted: the connection goes beyond this machine without encryption")
        assert transport.value() == b""
        assert transport.disconnecting
        permitted = connected()
        link(True).makeConnection(permitted)
        assert permitted.value()

    @inLoop
    async def test_a_server_hears_nothing_in_an_open_one(self, tmp_path: Path) -> None:
        async with served("unix", tmp_path) as (server, _, _):
            client: Any = server.newClient()
            with logged() as events:
                client.makeConnection(connected())
            assert events[0]["log_format"] == "refused {peer}: {why}"
            assert events[0]["peer"] == "192.168.1.1:54321"
            assert "goes beyond this machine without encryption" in events[0]["why"]
            client.connectionLost()

    @inLoop
    async def test_an_endpoint_that_is_an_object_is_used_on_this_machine(self, tmp_path: Path) -> None:
        from twisted.internet import reactor

        async with served("tcp", tmp_path) as (server, _, key):
            endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", portOf(server))
            async with WireQueue(endpoint, Things, key=key) as queue:
                assert await queue.call(Things.add, 1) == 2
