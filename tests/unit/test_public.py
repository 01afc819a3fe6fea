"""The front door: every public name is there, and none costs anything before it is asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

import asynqueue


def run(program: str) -> str:
    """What PROGRAM prints in an interpreter of its own."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("name", asynqueue.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    value = getattr(asynqueue, name)
    if name != "__version__":
        assert value.__doc__
        assert value.__module__.startswith("asynqueue.")


def test_a_star_gives_every_public_name() -> None:
    names = "sorted(set(dir()) - {'__builtins__', '__annotations__', '__doc__', '__loader__', '__name__', "
    program = f"from asynqueue import *\nprint({names}'__package__', '__spec__'}}))"
    assert run(program) == str(sorted(asynqueue.__all__))


def test_dir_names_every_public_name_once() -> None:
    names = dir(asynqueue)
    assert set(asynqueue.__all__) <= set(names)
    assert len(names) == len(set(names))


def test_what_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'asynqueue' has no attribute 'ThredQueue'"):
        _ = asynqueue.ThredQueue  # type: ignore[attr-defined]  # that is the point


def test_the_workers_module_has_the_other_workers_by_name() -> None:
    from asynqueue import ProcessWorker, ThreadWorker, workers

    assert (workers.ThreadWorker, workers.ProcessWorker) == (ThreadWorker, ProcessWorker)
    with pytest.raises(AttributeError, match="has no attribute 'NoWorker'"):
        _ = workers.NoWorker  # type: ignore[attr-defined]  # that is the point


def test_importing_the_package_imports_neither_twisted_nor_attrs() -> None:
    heavy = "{'twisted', 'attr', 'attrs', 'zope', 'cloudpickle', 'typing_extensions'}"
    program = f"import sys, asynqueue; print(sorted({heavy} & {{name.split('.')[0] for name in sys.modules}}))"
    assert run(program) == "[]"


def test_importing_every_public_name_installs_no_reactor() -> None:
    assert run("import sys; from asynqueue import *; print('twisted.internet.reactor' in sys.modules)") == "False"


def test_a_reactor_can_be_chosen_after_the_import_and_is_the_one_used() -> None:
    program = """
import asynqueue
from asynqueue import NullQueue
from twisted.internet import asyncioreactor
asyncioreactor.install()
from twisted.internet import reactor
queue = NullQueue()
queue.call(abs, -5).addCallback(print).addCallback(lambda _: queue.shutdown()).addCallback(lambda _: reactor.stop())
reactor.run()
print(type(reactor).__name__)
"""
    assert run(program) == "5\nAsyncioSelectorReactor"
