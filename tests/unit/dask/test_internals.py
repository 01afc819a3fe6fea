"""What AsynQueue uses of `distributed` without its promise, and what it says where a release has it not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from asynqueue.dask import internals

KINDS = {
    "worker": (internals.requireWorker, internals.WORKER),
    "scheduler": (internals.requireScheduler, internals.SCHEDULER),
    "client": (internals.requireClient, internals.CLIENT),
}


def whole(parts: tuple[str, ...], less: str = "") -> Any:
    """Something with all of PARTS, but for one."""
    root = SimpleNamespace()
    for part in parts:
        at = root
        *inner, last = part.split(".")
        for name in inner:
            at.__dict__.setdefault(name, SimpleNamespace())
            at = getattr(at, name)
        if part != less:
            at.__dict__.setdefault(last, SimpleNamespace())
    return root


@pytest.mark.parametrize(("kind", "part"), [(kind, part) for kind, (_, parts) in KINDS.items() for part in parts])
def test_a_release_that_lacks_a_part_is_refused_by_the_name_of_the_part(kind: str, part: str) -> None:
    require, parts = KINDS[kind]
    require(whole(parts))
    with pytest.raises(
        RuntimeError, match=rf"cannot use distributed 20\S+: its {kind} has no {part}\. Install another"
    ):
        require(whole(parts, less=part))
