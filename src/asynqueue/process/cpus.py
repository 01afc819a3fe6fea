"""How many cores there are for this process."""

from __future__ import annotations

import os
from collections.abc import Iterator

__all__ = ["cores"]


def cores() -> int:
    """How many CPU cores this process may use: its affinity, and its control group's quota rounded up.

    >>> cores() >= 1
    True
    """
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = quotaOf("/proc/self/cgroup", "/sys/fs/cgroup")
    return usable if quota is None else max(1, min(usable, quota))


def quotaOf(membership: str, mount: str) -> int | None:
    """The cores that control groups allow, rounded up; None if they set no limit.

    MEMBERSHIP is the file that names a process's groups, MOUNT the folder where the hierarchies are: that of cgroup v2
    itself, or those of v1 by controller, with v2's beside them as ``unified``. The tightest limit holds, of a group or
    of one above it. What cannot be read, or makes no sense, limits nothing.
    """
    limits: list[float] = []
    for line in _read(membership).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            for folder in (mount, os.path.join(mount, "unified")):
                limits += [_ratio(_read(f"{group}/cpu.max").split()) for group in _upwards(folder, path)]
        elif "cpu" in controllers.split(","):
            for folder in {os.path.join(mount, "cpu"), os.path.join(mount, controllers)}:
                for group in _upwards(folder, path):
                    limits.append(_ratio([_read(f"{group}/cpu.cfs_{name}_us") for name in ("quota", "period")]))
    limits = [limit for limit in limits if limit > 0]
    return max(1, -int(-min(limits) // 1)) if limits else None


def _upwards(folder: str, path: str) -> Iterator[str]:
    """The group PATH below FOLDER and those above it. In a container the path may be one that only its host has."""
    parts = [part for part in path.split("/") if part not in ("", "..")]
    for depth in range(len(parts), -1, -1):
        yield os.path.join(folder, *parts[:depth])


def _ratio(quotaAndPeriod: list[str]) -> float:
    """Cores, 0 if there is no limit: which is ``max`` or −1, or what is no pair of numbers."""
    try:
        quota, period = map(int, quotaAndPeriod)
        return quota / period
    except (ValueError, ZeroDivisionError):
        return 0


def _read(path: str) -> str:
    try:
        with open(path, errors="replace") as file:
            return file.read()
    except OSError:
        return ""
