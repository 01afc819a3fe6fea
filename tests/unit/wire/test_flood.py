"""Strangers do not push out a client that has shown that it has the key, though it comes from the same address."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest
from twisted.internet.threads import deferToThread

from asynqueue import deferToDelay
from asynqueue.core.protocol.handshake import _PROOF, NONCE, Authenticated, ClientHandshake, Command, Send
from asynqueue.wire import Limits
from tests.support.calls import inLoop, until
from tests.support.deferreds import logged
from tests.support.wires import portOf, served


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
