"""What a program's functions, classes and globals are in a worker process. Each program is a script that is run."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

BEFORE = """
    import sys
    from twisted.internet.task import react
    from asynqueue import ProcessQueue
    CONTEXT = None
    """

AFTER = """
    async def _main(reactor):
        async with ProcessQueue(1, context=CONTEXT) as queue:
            await main(queue)
        print("done")

    react(_main)
    """


def run(here: Path, program: str, *options: str, stdin: bool = False) -> None:
    """Run PROGRAM, a script whose ``main(queue)`` has assertions."""
    text = "\n".join(map(textwrap.dedent, (BEFORE, program, AFTER)))
    path = here / "program.py"
    path.write_text(text)
    command = [sys.executable, *options, *(["-"] if stdin else [str(path)])]
    done = subprocess.run(command, input=text if stdin else None, capture_output=True, text=True, cwd=here, timeout=60)
    assert done.stdout.endswith("done\n"), done.stdout + done.stderr


CLAIMS = {
    "a_class_of_the_caller_is_the_class_of_the_result_and_stays_as_it_is": """
        SEEN = []
        class Job:
            all = []
            def __init__(self, n): self.n = n
            def ended(self): SEEN.append(self.n)
        def work(job): job.n *= 2; return job
        async def main(queue):
            before = {"__slotnames__": [], **vars(Job)}  # pickle adds these
            for n in range(3):
                job = await queue.call(work, Job(n))
                assert type(job) is Job
                job.ended()
            assert SEEN == [0, 2, 4] and dict(vars(Job)) == before
        """,
    "an_update_that_sets_a_global_has_its_effect_on_later_calls": """
        setting = 0
        def initialize(value):
            global setting
            setting = value
        def initializeHidden(value): globals()["hidden"] = value
        hidden = 0
        def read(): return setting
        def readHidden(): return hidden
        async def main(queue):
            await queue.update(initialize, 7)
            await queue.update(initializeHidden, 8)
            assert (await queue.call(read), await queue.call(readHidden), setting) == (7, 8, 0)
        """,
    "a_global_that_is_bound_anew_is_sent_again_and_wins": """
        rate = [1]
        def read(): return rate
        def spoil():
            global rate
            rate = [0]
        def outer(): return read()
        async def main(queue):
            global rate, read
            assert await queue.call(outer) == [1]
            rate = [2]
            assert await queue.call(outer) == [2]
            await queue.call(spoil)
            assert await queue.call(outer) == [0]
            rate = [3]
            assert await queue.call(outer) == [3]
            rate.append(4)  # A change inside is not followed.
            assert await queue.call(outer) == [3]
            def other(): return "other"
            read = other
            assert await queue.call(outer) == "other"
            del read
            try:
                await queue.call(outer)
            except NameError:
                pass
            else:
                assert False
        """,
    "a_large_global_is_pickled_once_a_worker": """
        class Table:
            pickled = 0
            def __init__(self): self.content = list(range(100000))
            def __getstate__(self): Table.pickled += 1; return vars(self)
        table = Table()
        def look(n): return table.content[n]
        async def main(queue):
            assert [await queue.call(look, n) for n in range(50)] == list(range(50))
            assert Table.pickled == 1
        """,
    "a_global_that_is_loaded_by_the_first_call_stays_for_the_next": """
        connection, opened = None, 0
        def get():
            global connection, opened
            if connection is None:
                connection = object()
                opened += 1
            return opened
        async def main(queue):
            assert [await queue.call(get) for _ in range(3)] == [1, 1, 1]
        """,
    "slots_frozen_data_and_named_tuples_are_what_they_are": """
        import collections, dataclasses, typing
        @dataclasses.dataclass(slots=True, frozen=True)
        class Point:
            x: int = 1
        class Private:
            __slots__ = ("__x", "__dict__")
            def __init__(self): self.__x = 1; self.y = 2
            def get(self): return self.__x + self.y
        class Pair(typing.NamedTuple):
            a: int
            b: int = 2
        Old = collections.namedtuple("Old", "u v")
        def same(x): return x
        def get(x): return x.get()
        async def main(queue):
            for x in (Point(3), Pair(1), Old(1, 2)):
                y = await queue.call(same, x)
                assert type(y) is type(x) and y == x
            y = await queue.call(same, Private())
            assert type(y) is Private and y.get() == await queue.call(get, y) == 3
        """,
    "caches_dispatchers_and_cached_properties_work": """
        import functools
        @functools.lru_cache(maxsize=None)
        def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)
        def info(): return fib.cache_info().misses
        @functools.singledispatch
        def kind(x): return "any"
        @kind.register
        def _(x: int): return "int"
        def kindOf(x): return kind(x)
        class C:
            made = 0
            @functools.cached_property
            def value(self): C.made += 1; return C.made
            @functools.singledispatchmethod
            def of(self, x): return "any"
            @of.register
            def _(self, x: int): return "int"
        def values(): c = C(); return c.value, c.value, c.of(1), c.of("")
        async def main(queue):
            assert await queue.call(fib, 50) == 12586269025
            assert await queue.call(info) == 51
            assert [await queue.call(f, x) for f in (kind, kindOf) for x in (1, "")] == ["int", "any"] * 2
            assert await queue.call(values) == (1, 1, "int", "any")
        """,
    "metaclasses_and_hooks_of_subclasses_are_not_run_again": """
        class Plugin:
            all = {}
            def __init_subclass__(cls, *, name, **kw):
                super().__init_subclass__(**kw)
                Plugin.all[name] = cls
        class One(Plugin, name="one"): pass
        class Two(Plugin, name="two"):
            __slots__ = ()
        class Meta(type):
            made = []
            def __new__(meta, name, bases, body, *, tag):
                cls = super().__new__(meta, name, bases, body)
                Meta.made.append((name, tag))
                return cls
            def __init__(cls, *args, tag): super().__init__(*args)
        class Tagged(metaclass=Meta, tag=5): x = 1
        def plugins(): return sorted(Plugin.all), Plugin.all["two"] is Two, Meta.made, Tagged().x, type(Tagged) is Meta
        def same(x): return x
        async def main(queue):
            assert await queue.call(plugins) == plugins()
            assert await queue.call(same, Two) is Two and type(await queue.call(same, Two())) is Two
            assert sorted(Plugin.all) == ["one", "two"] and Meta.made == [("Tagged", 5)]
        """,
    "enumerations_abstract_classes_and_generics_are_what_they_are": """
        import abc, enum, typing
        class Color(enum.Enum):
            RED = 1
            CRIMSON = 1
            def next(self): return Color.RED
        class Planet(enum.Enum):
            EARTH = (2.0, 4.0)
            def __init__(self, mass, radius): self.mass = mass; self.radius = radius
            @property
            def ratio(self): return self.mass / self.radius
        class Perm(enum.Flag):
            R = enum.auto()
            W = enum.auto()
        class Shape(abc.ABC):
            @abc.abstractmethod
            def area(self): ...
        class Square(Shape):
            def area(self): return 4
        @Shape.register
        class Virtual: pass
        T = typing.TypeVar("T")
        class Box(typing.Generic[T]):
            def __init__(self, value: T): self.value = value
        def same(x): return x
        def check(c):
            try: Shape(); abstract = False
            except TypeError: abstract = True
            return (c is Color.CRIMSON, Planet.EARTH.ratio, Perm.R | Perm.W == Perm(3), Color(1).next() is c, abstract,
                    Square().area(), isinstance(Virtual(), Shape), Box[int](3).value)
        async def main(queue):
            assert await queue.call(check, Color.RED) == (True, 0.5, True, True, True, 4, True, 3)
            for x in (Color.RED, Planet.EARTH, Perm.W, Box, Shape, T, Color):
                assert await queue.call(same, x) is x
            both = await queue.call(same, Perm.R | Perm.W)
            assert both == Perm.R | Perm.W and type(both) is Perm
        """,
    "type_hints_and_the_module_itself_are_found": """
        import dataclasses, typing
        class Other: pass
        @dataclasses.dataclass
        class Point:
            x: "int"
            other: "Other | None" = None
        late = 1
        def hints(p): return sorted(typing.get_type_hints(type(p)))
        def viaModule():
            import __main__
            __main__.late += 1
            return __main__.late, __name__, __file__[-3:]
        def again(): return late
        def pickles():
            import pickle
            return type(pickle.loads(pickle.dumps(Point(1)))) is Point
        async def main(queue):
            assert await queue.call(hints, Point(1)) == ["other", "x"]
            assert await queue.call(viaModule) == (2, "__main__", ".py")
            assert await queue.call(again) == 2
            assert await queue.call(pickles)
        """,
    "a_decorated_function_a_nested_class_and_shared_cells_work": """
        import functools, xml.etree.ElementTree
        def twice(f):
            @functools.wraps(f)
            def wrapped(*args): return 2 * f(*args)
            return wrapped
        @twice
        def inc(x): return x + 1
        def counter():
            n = 0
            def up():
                nonlocal n
                n += 1
                return n
            def get(): return n
            return up, get
        up, get = counter()
        class Outer:
            class Inner:
                @staticmethod
                def seven(): return 7
            @classmethod
            def make(cls): return cls.Inner()
            def parent(self): return super().__init__() or __class__ is Outer
        def tag(): return xml.etree.ElementTree.fromstring("<a/>").tag
        async def main(queue):
            assert await queue.call(inc, 1) == 4
            assert [await queue.call(up), await queue.call(up), await queue.call(get)] == [1, 2, 2]
            assert type(await queue.call(Outer.make)) is Outer.Inner
            assert await queue.call(Outer.Inner.seven) == 7 and await queue.call(Outer().parent)
            assert await queue.call(tag) == "a"
        """,
    "a_lambda_is_sent_once_and_follows_its_closure": """
        import pickle, weakref
        class Big:
            pickled = 0
            def __getstate__(self): Big.pickled += 1; return {"n": 1}
        async def main(queue):
            big, factor = Big(), 2
            f = lambda x: x * factor * big.n
            big.n = 1
            assert [await queue.call(f, x) for x in range(20)] == [2 * x for x in range(20)]
            assert Big.pickled == 1
            factor = 3
            assert await queue.call(f, 2) == 6
            refs = []
            for n in range(50):
                g = lambda: n
                refs.append(weakref.ref(g))
                assert await queue.call(g) == n
            del g
            import gc; gc.collect()
            assert sum(ref() is not None for ref in refs) <= 1
        """,
    "a_sentinel_that_goes_by_name_is_the_same_object": """
        class Missing:
            def __reduce__(self): return "MISSING"
        MISSING = Missing()
        def isMissing(x=MISSING): return x is MISSING
        def same(x): return x
        async def main(queue):
            assert await queue.call(same, MISSING) is MISSING
            assert await queue.call(isMissing) and await queue.call(isMissing, MISSING)
        """,
    "a_function_that_comes_back_has_the_globals_of_the_script": """
        n = 1
        class C: pass
        def make():
            def f(): return n
            class D(C): pass
            return f, D, lambda: C
        async def main(queue):
            global n
            f, D, g = await queue.call(make)
            n = 2
            assert f() == 2 and issubclass(D, C) and g() is C
        """,
    "errors_items_and_residents_are_of_the_classes_of_the_script": """
        class Oops(Exception):
            def __init__(self, a, b): super().__init__(f"{a}{b}"); self.a = a
        class Item: pass
        class Store:
            def __init__(self): self.n = 0
            def add(self): self.n += 1; return self.n
        def fail(): raise Oops(1, 2)
        def items():
            for _ in range(3): yield Item()
        async def main(queue):
            try: await queue.call(fail)
            except Oops as error: assert (error.a, str(error)) == (1, "12")
            assert [type(x) async for x in await queue.call(items)] == [Item] * 3
            store = Store()
            await queue.update(store.add)
            assert await queue.call(store.add) == 2
        """,
    "a_replaced_process_gets_what_it_needs_again": """
        import os
        n = 1
        def initialize():
            global n
            n = 2
        def read(): return n
        async def main(queue):
            await queue.update(initialize)
            assert await queue.call(read) == 2
            await queue.call(os._exit, 1, retries=0).addErrback(lambda _: None)
            assert await queue.call(read) == 2
        """,
    "what_cannot_be_sent_matters_only_to_a_call_that_uses_it": """
        import socket
        from asynqueue.errors import SerializationError
        SOCKET = socket.socket()
        class User:
            def use(self): return SOCKET
            def other(self): return 5
        def same(x): return x
        def nested(s=SOCKET): return s
        async def main(queue):
            assert await queue.call(User().other) == 5
            for f, args, names in ((User.use, (User(),), "the global SOCKET"), (same, (SOCKET,), "argument 1"),
                                   (nested, (), "nested")):
                try: await queue.call(f, *args)
                except SerializationError as error:
                    assert names in str(error) and "'socket' object" in str(error), str(error)
                    assert f is same or "module" in str(error)
                else: assert False
            SOCKET.close()
        """,
    "a_module_that_cloudpickle_was_told_of_goes_by_value": """
        import os, pathlib, cloudpickle
        pathlib.Path("lib.py").write_text(
            "import os\\nclass K: pass\\ndef f(x): return x, os.path.exists('lib.py')\\ndef k(): return K()\\n")
        import lib
        cloudpickle.register_pickle_by_value(lib)
        os.remove("lib.py")
        def viaScript(x): return lib.f(x)
        async def main(queue):
            for _ in range(2):
                assert await queue.call(lib.f, 1) == (1, False)
                assert type(await queue.call(lib.k)) is lib.K
                assert await queue.call(isinstance, lib.K(), lib.K)
        """,
    "a_definition_that_cannot_be_unpickled_fails_each_call_for_that_reason": """
        import os, pathlib
        from asynqueue.errors import SerializationError
        pathlib.Path("absent.py").write_text("class K: pass\\n")
        import absent
        os.remove("absent.py")
        kept = absent.K()
        def use(): return kept
        def other(): return 5
        async def main(queue):
            for _ in range(3):
                try: await queue.call(use)
                except SerializationError as error: assert "No module named 'absent'" in str(error), error
                else: assert False
                assert await queue.call(other) == 5
        """,
    "a_worker_of_a_worker_gets_what_a_call_passes": """
        from asynqueue import ProcessQueue
        class Record: pass
        def named(x): return type(x).__name__
        async def below():
            async with ProcessQueue(1) as queue:
                return [await queue.call(named, x) for x in (1, 2, Record())]
        async def main(queue):
            async with ProcessQueue(1, useReactor=True) as mine:
                assert await mine.call(below) == ["int", "int", "Record"]
        """,
    "no_module_of_the_program_is_touched": """
        import threading
        class Record: pass
        MAIN, ended, wrong = sys.modules["__main__"], False, []
        def watch():
            while not ended:
                if sys.modules["__main__"] is not MAIN: wrong.append(1)
        async def main(queue):
            global ended
            import os
            before = dict(vars(MAIN))
            thread = threading.Thread(target=watch)
            thread.start()
            for _ in range(3):
                await queue.call(os._exit, 1, retries=0).addErrback(lambda _: None)
            await queue.call(Record)
            ended = True
            thread.join()
            assert not wrong and vars(MAIN).keys() == before.keys()
        """,
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_program_finds_in_its_worker_that(claim: str, tmp_path: Path) -> None:
    run(tmp_path, CLAIMS[claim])


@pytest.mark.parametrize("context", ["spawn", "fork"])
def test_every_kind_of_process_has_a_namespace(context: str, tmp_path: Path) -> None:
    names = (
        "an_update_that_sets_a_global_has_its_effect_on_later_calls",
        "slots_frozen_data_and_named_tuples_are_what_they_are",
    )
    for name in names:
        run(tmp_path, f"\nCONTEXT = {context!r}\n" + textwrap.dedent(CLAIMS[name]))


def test_a_program_without_a_file_has_a_namespace_too(tmp_path: Path) -> None:
    run(tmp_path, CLAIMS["a_global_that_is_bound_anew_is_sent_again_and_wins"], stdin=True)


SHARED = """
    import dataclasses
    n, table = 1, list(range(1000))
    @dataclasses.dataclass(slots=True)
    class Point:
        x: int
    class Oops(Exception): pass
    def move(point): point.x += n; return point
    def setN(value):
        global n
        n = value
    def getN(): return n, table[-1]
    def fail(): raise Oops("oops")
    def points(k): return (Point(i) for i in range(k))
    async def check(call):
        global n
        moved = await call(move, Point(1))
        assert type(moved) is Point and moved.x == 2
        n = 5
        assert (await call(move, Point(1))).x == 6
        await call(setN, 7)
        assert await call(getN) == (7, 999) and n == 5
        assert await call(lambda: (n, Point)) == (7, Point)
        assert [type(point) async for point in await call(points, 3)] == [Point] * 3
        try: await call(fail)
        except Oops as error: assert str(error) == "oops"
        else: assert False
    """

UNIVERSE = """
from asynqueue.wire import WireWorkerUniverse
class Universe(WireWorkerUniverse):
    def apply(self, f, *args): return f(*args)
"""


def test_a_server_has_a_namespace_for_each_client(tmp_path: Path) -> None:
    (tmp_path / "universe.py").write_text(UNIVERSE)
    program = """
        import os
        from asynqueue.wire import WireQueue, WireServer
        from universe import Universe
        async def main(queue):
            server = await WireServer("unix:sock", Universe, key=b"k" * 32).start()
            for _ in range(2):
                async with WireQueue("unix:sock", Universe, key=b"k" * 32) as wire:
                    await check(lambda f, *args: wire.call(Universe.apply, f, *args))
                global n
                n = 1
            await server.stop()
        """
    run(tmp_path, textwrap.dedent(SHARED) + textwrap.dedent(program))


def test_a_cluster_has_a_namespace_for_each_program(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    program = """
        import dask
        from distributed import Client, LocalCluster
        dask.config.set(temporary_directory="scratch")
        from asynqueue import TaskQueue
        from asynqueue.dask import DaskWorker
        async def main(queue):
            with LocalCluster(2, threads_per_worker=1, processes=False, dashboard_address=None) as cluster:
                with Client(cluster) as client:
                    tasks = TaskQueue(DaskWorker(client))
                    # An update sets the global on each worker.
                    await check(lambda f, *args: tasks.update(f, *args) if f is setN else tasks.call(f, *args))
                    await tasks.shutdown()
        """
    run(tmp_path, textwrap.dedent(SHARED) + textwrap.dedent(program))
