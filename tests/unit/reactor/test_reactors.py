"""The reactors: any of Twisted's does, and the tests run under the one that was asked for."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

KINDS = {"select": "SelectReactor", "asyncio": "AsyncioSelectorReactor"}


def test_the_tests_run_under_the_reactor_that_was_chosen() -> None:
    from twisted.internet import reactor

    chosen = os.environ.get("TEST_REACTOR", "default")
    assert type(reactor).__name__ == KINDS.get(chosen, type(reactor).__name__)


PROGRAM = """
import sys
from importlib import import_module

import asynqueue
import_module("twisted.internet." + sys.argv[1]).install()
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from asynqueue import NullQueue, ProcessQueue, ThreadQueue

async def main():
    for kind in NullQueue, ThreadQueue, ProcessQueue:
        async with kind() as queue:
            sizes = await gatherResults([queue.call(abs, -n) for n in range(3)])
            print(kind.__name__, sizes, [item async for item in await queue.call(reversed, [1, 2, 3])])

def begin():
    d = Deferred.fromCoroutine(main())
    d.addErrback(lambda failure: failure.printTraceback()).addBoth(lambda _: reactor.stop())

if __name__ == "__main__":
    reactor.callWhenRunning(begin)
    reactor.run()
    print(type(reactor).__name__)
"""


@pytest.mark.parametrize("module", ["selectreactor", "pollreactor", "asyncioreactor"])
def test_each_queue_works_under_a_reactor_installed_after_the_import(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, module], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    *lines, kind = done.stdout.splitlines()
    assert lines == [f"{name} [0, 1, 2] [3, 2, 1]" for name in ("NullQueue", "ThreadQueue", "ProcessQueue")]
    assert kind.lower().startswith(module.removesuffix("reactor"))
    assert done.stderr == ""
