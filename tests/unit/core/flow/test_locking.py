"""The core of a lock: what is refused, and in which words."""

from __future__ import annotations

import pytest

from asynqueue.core.flow.locking import Locking


@pytest.mark.parametrize("vip", [True, False])
def test_a_claim_is_made_once_in_whichever_line(vip: bool) -> None:
    locking: Locking[str] = Locking()
    locking.acquire("holder", vip=False)
    locking.acquire("waits", vip)
    for claim in ("holder", "waits"):
        with pytest.raises(ValueError, match=rf"^'{claim}' is already a claim on this lock$"):
            locking.acquire(claim, vip=False)


def test_a_release_needs_a_holder() -> None:
    with pytest.raises(ValueError, match=r"^released a lock that is not held: each release needs its own acquire$"):
        Locking[str]().release()


def test_a_stopped_lock_opens_after_its_stoppers_and_not_by_a_release() -> None:
    locking: Locking[str] = Locking()
    with pytest.raises(ValueError, match=r"^a lock opens only while the stopping holds it$"):
        locking.opened()
    locking.stop("stopper")
    with pytest.raises(
        ValueError, match=r"^released a lock that is held to run its stoppers: it opens by itself after them$"
    ):
        locking.release()
    with pytest.raises(ValueError, match=r"^a lock can be stopped only once$"):
        locking.stop("another")
