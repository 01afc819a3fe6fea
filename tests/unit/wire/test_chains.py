"""Chains of certificates: intermediate authorities, and chains that are refused, each with the peer and the reason."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import trustme

from asynqueue import TaskQueue, WireQueue, WireWorker
from asynqueue.errors import AuthenticationError
from asynqueue.wire import WireServer
from tests.support.calls import failureOf, inLoop, until
from tests.support.deferreds import logged
from tests.support.wires import Certificates, Things, portOf

NOW = datetime.now(timezone.utc)
EARLIER: dict[str, Any] = {"not_before": NOW - timedelta(days=9), "not_after": NOW - timedelta(days=1)}
LATER: dict[str, Any] = {"not_before": NOW + timedelta(days=1), "not_after": NOW + timedelta(days=9)}


class Chains(Certificates):
    """Certificates of an intermediate authority, which the root authority has signed."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.intermediate = self.authority.create_child_ca()
        for name, identity in (("server", "127.0.0.1"), ("client", "client@example.com")):
            self.chain(name, identity, self.intermediate)

    def chain(self, name: str, identity: str, authority: Any, parts: int = 9, **validity: Any) -> None:
        """Have AUTHORITY sign a certificate for IDENTITY, and write at most so many PARTS of its chain."""
        issued = authority.issue_cert(identity, **validity)
        issued.private_key_pem.write_to_path(self.directory / f"{name}.key")
        chain = b"".join(each.bytes() for each in issued.cert_chain_pems[:parts])
        (self.directory / f"{name}.pem").write_bytes(chain)


async def makesACall(chains: Chains) -> None:
    """Serve, connect and make a call with the certificates of CHAINS."""
    server = await WireServer(chains.listen(), Things).start()
    async with WireQueue(chains.connect(portOf(server)), Things) as queue:
        assert await queue.call(Things.add, 1) == 2
    await server.stop()


class TestGoodChains:
    @inLoop
    async def test_an_intermediate_authority_is_sent_by_both_sides(self, tmp_path: Path) -> None:
        chains = Chains(tmp_path)
        await makesACall(chains)

    @inLoop
    async def test_a_long_one_is_verified(self, tmp_path: Path) -> None:
        chains = Chains(tmp_path)
        lower = chains.intermediate.create_child_ca()
        chains.chain("server", "127.0.0.1", lower)
        chains.chain("client", "client@example.com", lower)
        await makesACall(chains)

    @inLoop
    async def test_trust_roots_are_a_file_or_a_folder(self, tmp_path: Path) -> None:
        chains = Chains(tmp_path)
        trustme.CA().cert_pem.write_to_path(chains.roots / "another.pem")
        server = await WireServer(chains.listen(), Things).start()
        there = chains.connect(portOf(server))
        for roots in (chains.roots, chains.roots / "ca.pem"):
            async with WireQueue(there.replace(f"={chains.roots}", f"={roots}"), Things) as queue:
                assert await queue.call(Things.add, 1) == 2
        await server.stop()


BAD = {
    "expired": ("the certificate has expired", "certificate expired"),
    "not valid yet": ("the certificate is not valid yet", "bad certificate"),
    "incomplete": ("the chain is incomplete, or another authority's", "unknown ca"),
    "wrong": ("the chain is incomplete, or another authority's", "unknown ca"),
    "wrong with its root": ("is that of an authority which is not among trustRoots", "unknown ca"),
    "of itself": ("has signed itself, and is not among trustRoots", "unknown ca"),
    "of an expired authority": ("certificate 2 of the chain has expired", "certificate expired"),
}
"""Why a chain is refused: what the side that refuses it finds, and what TLS lets the other side know."""


def spoil(chains: Chains, how: str, name: str, identity: str) -> None:
    """Replace the chain NAME by a bad one."""
    if how == "expired":
        chains.chain(name, identity, chains.intermediate, **EARLIER)
    elif how == "not valid yet":
        chains.chain(name, identity, chains.intermediate, **LATER)
    elif how == "incomplete":
        chains.chain(name, identity, chains.intermediate, parts=1)
    elif how == "wrong":
        chains.chain(name, identity, trustme.CA().create_child_ca())
    elif how == "wrong with its root":
        stranger = trustme.CA()
        chains.chain(name, identity, stranger)
        with open(chains.directory / f"{name}.pem", "ab") as file:
            file.write(stranger.cert_pem.bytes())
    elif how == "of itself":
        stranger = trustme.CA()
        stranger.private_key_pem.write_to_path(chains.directory / f"{name}.key")
        stranger.cert_pem.write_to_path(chains.directory / f"{name}.pem")
    else:
        old = expiredChild(chains.authority)
        chains.chain(name, identity, old)


def expiredChild(authority: Any) -> Any:
    """Return an intermediate authority of AUTHORITY whose certificate has expired."""
    from cryptography import x509
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    child = authority.create_child_ca()
    made = x509.load_pem_x509_certificate(child.cert_pem.bytes())
    builder = x509.CertificateBuilder(
        made.issuer, made.subject, made.public_key(), made.serial_number, EARLIER["not_before"], EARLIER["not_after"],
        list(made.extensions),
    )  # fmt: skip
    issuer: Any = load_pem_private_key(authority.private_key_pem.bytes(), None)
    child._certificate = builder.sign(issuer, SHA256())
    return child


class TestBadChains:
    @pytest.mark.parametrize("how", BAD)
    @inLoop
    async def test_of_a_client_is_refused(self, how: str, tmp_path: Path) -> None:
        chains = Chains(tmp_path)
        spoil(chains, how, "client", "client@example.com")
        found, heard = BAD[how]
        server = await WireServer(chains.listen(), Things).start()
        with logged() as events:
            queue = TaskQueue()
            error = await failureOf(queue.attachWorker(WireWorker(Things, chains.connect(portOf(server)))))
            await queue.shutdown()
            await until(lambda: any("peer" in event for event in events))
        assert isinstance(error, AuthenticationError)
        assert heard in str(error)
        (refusal,) = [event for event in events if "peer" in event]
        assert refusal["log_format"] == "refused {peer}: {why}"
        assert refusal["peer"].startswith("127.0.0.1:")
        assert found in refusal["why"]
        await server.stop()

    @pytest.mark.parametrize("how", BAD)
    @inLoop
    async def test_of_a_server_is_refused(self, how: str, tmp_path: Path) -> None:
        chains = Chains(tmp_path)
        spoil(chains, how, "server", "127.0.0.1")
        found, heard = BAD[how]
        server = await WireServer(chains.listen(), Things).start()
        there = chains.connect(portOf(server))
        with logged() as events:
            queue = TaskQueue()
            error = await failureOf(queue.attachWorker(WireWorker(Things, there)))
            await queue.shutdown()
            await until(lambda: any("peer" in event for event in events))
        assert isinstance(error, AuthenticationError)
        assert found in str(error)
        (told,) = [event for event in events if "resigns" in event["log_format"]]
        assert there in str(told["why"])
        assert found in str(told["why"])
        (refusal,) = [event for event in events if "peer" in event]
        assert heard in refusal["why"]
        await server.stop()
