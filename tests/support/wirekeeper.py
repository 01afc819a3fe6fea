"""Keeps servers of `tests.support.wires.Deeds` for a test: ``python -m tests.support.wirekeeper DIRECTORY``.

One is at work, at a socket in DIRECTORY whose name stays, and one waits to take its place. For each line that is read
the one at work is killed and replaced, and a line is written. They are this process's children, not the test's, which
looks whether a worker has left any of its own.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path


def start(socket: Path) -> subprocess.Popen[bytes]:
    """A server that will listen at SOCKET soon."""
    words = [sys.executable, "-m", "asynqueue.wire", f"unix:{socket}", "tests.support.wires.Deeds"]
    return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def main(directory: Path) -> None:
    """Keep them until nobody asks for them any more."""
    name, number = directory / "socket", 1
    atWork: subprocess.Popen[bytes] | None = None
    waiting = start(directory / "1")
    try:
        for _ in sys.stdin:
            if atWork is not None:
                atWork.kill()
                atWork.wait()
            while not (directory / str(number)).exists():
                time.sleep(0.01)
            atWork = waiting
            name.unlink(missing_ok=True)
            name.symlink_to(directory / str(number))
            number += 1
            waiting = start(directory / str(number))
            print("replaced", flush=True)
    finally:
        for process in filter(None, (atWork, waiting)):
            process.kill()
            process.wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
