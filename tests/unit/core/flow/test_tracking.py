"""The core of a tracker: what is refused, and in which words."""

from __future__ import annotations

import pytest

from asynqueue.core.flow.tracking import Tracking


def test_what_was_not_put_cannot_pass() -> None:
    with pytest.raises(ValueError, match=r"^'it' is not outstanding: it was passed as often as it was put$"):
        Tracking[str]().passed("it")


def test_what_was_not_added_cannot_be_removed() -> None:
    words = r"^nothing that was added is outstanding: it was removed as often as it was added$"
    with pytest.raises(ValueError, match=words):
        Tracking[str]().remove()


def test_a_wait_begins_once() -> None:
    tracking: Tracking[str] = Tracking()
    tracking.add()
    tracking.waitAny("wait")
    with pytest.raises(ValueError, match=r"^'wait' waits already$"):
        tracking.waitFewer("wait", 1)
