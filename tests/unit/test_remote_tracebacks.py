"""The traceback of a worker process in everything that Twisted prints: file, line and source text, in the bytes."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from html import unescape
from io import StringIO
from pathlib import Path

import pytest
from twisted.logger import eventAsText, eventsFromJSONLogFile

PROGRAM = """
    import gc
    from contextlib import ExitStack

    from twisted.internet.task import react
    from twisted.logger import (
        Logger, globalLogBeginner, globalLogPublisher, jsonFileLogObserver, textFileLogObserver
    )
    from twisted.python import log as legacy
    from twisted.web.resource import Resource
    from twisted.web.server import NOT_DONE_YET, Request, Site
    from twisted.web.test.requesthelper import DummyChannel

    from asynqueue import ProcessQueue


    def quotient(x, y):
        return x / y  # the line


    def failing(queue):
        return queue.call(quotient, 1, 0)


    class Page(Resource):
        isLeaf = True

        def __init__(self, queue):
            self.queue = queue

        def render_GET(self, request):
            failing(self.queue).addErrback(request.processingFailed)
            return NOT_DONE_YET


    async def page(queue):
        channel = DummyChannel()
        channel.site = Site(Page(queue))
        channel.site.displayTracebacks = True
        request = Request(channel, False)
        request.site = channel.site
        request.gotLength(0)
        finished = request.notifyFinish()
        request.requestReceived(b"GET", b"/", b"HTTP/1.0")
        await finished
        return channel.transport.written.getvalue()


    async def logAll(queue, warning):
        log = Logger()
        log.info("== Logger.failure")
        await failing(queue).addErrback(lambda reason: log.failure("it failed", reason))
        log.info("== legacy err")
        await failing(queue).addErrback(legacy.err)
        log.info("== unhandled error")
        failing(queue)
        await queue.call(abs, 1)
        gc.collect()
        log.info("== web")
        with open("page", "wb") as file:
            file.write(await page(queue))
        log.info("== warn")
        await failing(warning).addErrback(lambda _: None)
        log.info("== react")


    async def main(reactor):
        with ExitStack() as stack:
            text, json, old = (stack.enter_context(open(name, "w")) for name in ("text", "json", "legacy"))
            observers = [textFileLogObserver(text), jsonFileLogObserver(json)]
            globalLogBeginner.beginLoggingTo(observers, redirectStandardIO=False)
            observer = legacy.FileLogObserver(old)
            observer.start()
            async with ProcessQueue(1) as queue, ProcessQueue(1, warn=True) as warning:
                await logAll(queue, warning)
            observer.stop()
            for each in observers:
                globalLogPublisher.removeObserver(each)


    react(main)
    """

REACT = """
    from twisted.internet.task import react

    from asynqueue import ProcessQueue


    def quotient(x, y):
        return x / y  # the line


    async def main(reactor):
        async with ProcessQueue(1) as queue:
            await queue.call(quotient, 1, 0)


    react(main)
    """

TRIAL = """
    from twisted.internet.defer import inlineCallbacks
    from twisted.trial.unittest import TestCase

    from asynqueue import ProcessQueue


    def quotient(x, y):
        return x / y  # the line


    class TestQuotient(TestCase):
        @inlineCallbacks
        def test_it(self):
            queue = ProcessQueue(1)
            self.addCleanup(queue.shutdown)
            yield queue.call(quotient, 1, 0)
    """

SOURCE = "return x / y  # the line"


def written(place: Path, program: str) -> tuple[Path, int]:
    """Write PROGRAM to a file in PLACE. Return its path, and the number of its line that fails."""
    path = place / "test_program.py"
    path.write_text(textwrap.dedent(program).lstrip())
    return path, path.read_text().splitlines().index(f"    {SOURCE}") + 1


class Printed:
    """What a program has printed and logged in PLACE."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.path, self.line = written(place, PROGRAM)
        done = subprocess.run([sys.executable, self.path], capture_output=True, text=True, cwd=place, timeout=60)
        assert not done.returncode, done.stderr

    def part(self, log: str, name: str) -> str:
        """Return what the observer LOG has written under the heading NAME."""
        return re.split(r"== ", (self.place / log).read_text().partition(f"== {name}")[2])[0]


def isIn(text: str, path: Path, line: int) -> None:
    """Assert that TEXT has the traceback of LINE in the file PATH."""
    assert re.search(rf'File "{path}", line {line}, in quotient\n\s*{SOURCE}', text), text
    assert "ZeroDivisionError: division by zero" in text


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> Printed:
    return Printed(tmp_path_factory.mktemp("printed"))


EVENTS = ("Logger.failure", "legacy err", "unhandled error", "web", "warn")


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("log", ["text", "legacy"])
def test_a_log_of_text_has_file_line_and_source(printed: Printed, log: str, event: str) -> None:
    isIn(printed.part(log, event), printed.path, printed.line)


@pytest.mark.parametrize("event", EVENTS)
def test_a_log_of_json_has_file_and_line_and_is_read_with_the_source(printed: Printed, event: str) -> None:
    part = printed.part("json", event)
    assert f'["quotient", "{printed.path}", {printed.line}, ' in part
    events = eventsFromJSONLogFile(StringIO(part.partition("\n")[2].rpartition("\n")[0] + "\n"))
    text = "".join(eventAsText(each, includeTimestamp=False) for each in events)
    assert f'File "{printed.path}", line {printed.line}, in quotient' in text
    assert SOURCE in text


def test_a_warning_in_a_log_of_json_has_the_whole_traceback(printed: Printed) -> None:
    part = printed.part("json", "warn")
    assert SOURCE in part
    assert "ZeroDivisionError: division by zero" in part


def test_the_page_of_an_error_has_file_line_and_source(printed: Printed) -> None:
    page = (
        unescape(re.sub("<[^>]*>", "", (printed.place / "page").read_text())).replace("\u00a0", " ").replace("  ", " ")
    )
    assert f"{printed.path}:{printed.line} in\n" in page
    assert "return x / y # the line" in page


@pytest.mark.parametrize(
    ("program", "arguments"), [(REACT, ["test_program.py"]), (TRIAL, ["-m", "twisted.trial", "test_program"])]
)
def test_react_and_trial_print_file_line_and_source(program: str, arguments: list[str], tmp_path: Path) -> None:
    path, line = written(tmp_path, program)
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    isIn(done.stdout + done.stderr, path, line)
