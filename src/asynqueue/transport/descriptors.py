"""A file descriptor held in reserve, for when the process has no other left.

Worker processes import this module: it imports next to nothing.
"""

from __future__ import annotations

import os

from asynqueue.capabilities import has


class DescriptorReserve:
    """One descriptor that is released for the time of a ``with`` block, so that the block can open another.

    It is held while at least one user is registered.
    """

    def __init__(self) -> None:
        self._users = 0
        self._descriptor: int | None = None

    def add(self) -> None:
        """Register a user."""
        self._users += 1
        self._hold()

    def remove(self) -> None:
        """Remove a user."""
        self._users -= 1
        if not self._users:
            self._release()

    def __enter__(self) -> None:
        self._release()

    def __exit__(self, *exception: object) -> None:
        self._hold()

    def _hold(self) -> None:
        if self._descriptor is None and self._users:
            try:
                self._descriptor = os.eventfd(0, os.EFD_CLOEXEC) if has("eventfd") else os.open(os.devnull, os.O_RDONLY)
            except OSError:
                pass  # The next `with` block tries again.

    def _release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
