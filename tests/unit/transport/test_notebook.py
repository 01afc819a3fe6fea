"""What a notebook's functions, classes and globals are in a worker process. The notebook is run in a real kernel."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

CELLS = {
    "start": """
        import asyncio
        from twisted.internet import asyncioreactor

        loop = asyncio.get_running_loop()
        asyncioreactor.install(loop)

        from twisted.internet import reactor

        reactor.startRunning(installSignalHandlers=False)

        from asynqueue import ProcessQueue

        queue = ProcessQueue(1)

        def called(f, *args):
            return queue.call(f, *args).asFuture(loop)
        """,
    "definitions": """
        RATE = 3

        class Point:
            def __init__(self, x):
                self.x = x

            def scaled(self):
                return Point(self.x * RATE)

        def work(point):
            return point.scaled()
        """,
    "first call": """
        point = await called(work, Point(2))
        print(point.x, type(point) is Point)
        """,
    "definitions anew": """
        RATE = 5

        def work(point):
            return Point(point.scaled().x + 1)
        """,
    "second call": """
        point = await called(work, Point(2))
        print(point.x, type(point) is Point)
        """,
    "class anew": """
        class Point(Point):
            def scaled(self):
                return Point(-self.x)
        """,
    "third call": """
        point = await called(work, Point(2))
        print(point.x, type(point) is Point)
        """,
    "failing function": """
        def quotient(x, y):
            return x / y
        """,
    "failing call": """
        import traceback

        try:
            await called(quotient, 1, 0)
        except ZeroDivisionError as error:
            print("".join(traceback.format_exception(error)))
        """,
    "failing cell": "await called(quotient, 1, 0)",
    "end": "await queue.shutdown().asFuture(loop)",
}

RUNNER = """
    import json, re, sys
    from nbclient import NotebookClient
    from nbformat.v4 import new_code_cell, new_notebook

    cells = json.load(sys.stdin)
    notebook = new_notebook(cells=[new_code_cell(cell) for cell in cells.values()])
    NotebookClient(notebook, timeout=60, kernel_name="python3", allow_errors=True).execute()
    printed = {}
    for name, cell in zip(cells, notebook.cells):
        parts = ["\\n".join(x.traceback) if x.output_type == "error" else x.get("text", "") for x in cell.outputs]
        printed[name] = re.sub(r"\\x1b\\[[\\d;]*m", "", "".join(parts))
    print(json.dumps(printed))
    """


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What each cell of a notebook has printed."""
    here: Path = tmp_path_factory.mktemp("notebook")
    cells = json.dumps({name: textwrap.dedent(cell).strip() for name, cell in CELLS.items()})
    command = [sys.executable, "-c", textwrap.dedent(RUNNER)]
    done = subprocess.run(command, input=cells, capture_output=True, text=True, cwd=here, timeout=120)
    assert not done.returncode, done.stderr
    return json.loads(done.stdout)


def test_functions_classes_and_globals_of_cells_are_those_of_the_notebook(printed: Any) -> None:
    assert (printed["start"], printed["definitions"]) == ("", "")
    assert printed["first call"] == "6 True\n"


def test_what_a_later_cell_defines_anew_holds_from_there_on(printed: Any) -> None:
    assert printed["second call"] == "11 True\n"
    assert printed["third call"] == "-1 True\n"


@pytest.mark.parametrize("cell", ["failing call", "failing cell"])
def test_a_traceback_has_the_source_of_the_cell(printed: Any, cell: str) -> None:
    assert "in quotient" in printed[cell]
    assert "return x / y" in printed[cell]
    assert "ZeroDivisionError: division by zero" in printed[cell]


def test_the_queue_shuts_down(printed: Any) -> None:
    assert printed["end"] == ""
