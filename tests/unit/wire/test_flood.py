"""Strangers that connect without end do not keep out a client with the key that comes from the same address."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from twisted.internet.threads import deferToThread

from asynqueue import WireQueue, deferToDelay
from asynqueue.core.protocol.handshake import _PROOF, NONCE, Authenticated, ClientHandshake, Command, Send
from asynqueue.wire import Limits, WireServer
from tests.support.calls import inLoop, until
from tests.support.deferreds import logged
from tests.support.wires import KEY, Certificates, Things, portOf, served


@pytest.mark.parametrize("kind", ["unix", "tcp"])
@inLoop
async def test_who_has_shown_the_key_is_not_pushed_out_by_strangers(kind: str, tmp_path: Path) -> None:
    async with served(kind, tmp_path, limits=Limits(strangers=4)) as (server, _, key):
        with logged() as events, ExitStack() as connections:

            def connect() -> socket.socket:
                made = socket.socket(socket.AF_UNIX if kind == "unix" else socket.AF_INET)
                made.settimeout(20)
                made.connect(str(tmp_path / "socket") if kind == "unix" else ("127.0.0.1", portOf(server)))
                return connections.enter_context(made)

            honest, shake = connect(), ClientHandshake(os.urandom(NONCE), key, False)
            honest.sendall(said(shake.begin()))
            challenge = await deferToThread(honest.recv, 1000)
            for _ in range(40):
                connect()
                await deferToDelay(0)  # the server is in this process, and has to take it
            await until(lambda: len(events) >= 36)
            honest.sendall(said(shake.received(challenge)))
            answer = shake.received((await deferToThread(honest.recv, 1000))[:_PROOF])
            assert answer == [Authenticated(b"")]
            assert len(server._strangers) <= 4


def said(commands: list[Command]) -> bytes:
    """What is to be sent."""
    return b"".join(command.data for command in commands if isinstance(command, Send))


FLOOD = """
import collections, socket, sys, time
kind, place, speech = sys.argv[1], sys.argv[2], bytes.fromhex(sys.argv[3])
held = collections.deque(maxlen=300)
print(flush=True)
while True:
    connection = socket.socket(socket.AF_UNIX if kind == "unix" else socket.AF_INET)
    try:
        connection.connect(place if kind == "unix" else ("127.0.0.1", int(place)))
        connection.sendall(speech)
        time.sleep(0.0002)  # else the queue of the kernel is full always, and lets no other in
    except OSError:
        continue
    held.append(connection)
"""


@pytest.mark.parametrize("speech", [b"", b"AsynQueue\n\x02" + bytes(64)], ids=["silent", "speaking"])
@pytest.mark.parametrize("kind", ["unix", "tcp", "tls"])
@inLoop
async def test_a_client_with_the_key_comes_in_during_a_flood(kind: str, speech: bytes, tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    place = {"unix": f"unix:{tmp_path / 'socket'}", "tcp": "tcp:0:interface=127.0.0.1"}.get(
        kind, certificates.listen(authenticate=False)
    )
    server = await WireServer(place, Things, key=KEY).start()
    there = {"unix": place}.get(kind, "")
    if kind != "unix":
        port = portOf(server)
        there = f"tcp:127.0.0.1:{port}" if kind == "tcp" else certificates.connect(port, None)
    target = str(tmp_path / "socket") if kind == "unix" else str(portOf(server))
    with logged() as events:
        flood = subprocess.Popen(
            [sys.executable, "-c", FLOOD, kind, target, speech.hex()], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
        )
        assert flood.stdout is not None
        with flood, flood.stdout:
            try:
                await deferToThread(flood.stdout.readline)
                await until(lambda: any("peer" in event for event in events))
                for _ in range(3):
                    async with WireQueue(there, Things, key=KEY, reconnect=lambda failures: 0.1) as queue:
                        assert await queue.call(Things.add, 1) == 2
            finally:
                flood.kill()
        await server.stop()
