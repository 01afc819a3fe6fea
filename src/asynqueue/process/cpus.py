"""Count the CPU cores that this process may use."""

from __future__ import annotations

import os
from collections.abc import Iterator

from asynqueue.capabilities import has, proc

__all__ = ["cores"]


def cores() -> int:
    """Return how many CPU cores this process may use, at least 1.

    This is the number of cores in its affinity mask, or the quota of its control group, rounded up, if that is less.

    Example:
        >>> cores() >= 1
        True
    """
    usable = len(os.sched_getaffinity(0)) if has("sched_getaffinity") else os.cpu_count() or 1
    quota = quotaOf(proc("self/cgroup"), "/sys/fs/cgroup") if has("/proc") else None
    return usable if quota is None else max(1, min(usable, quota))


def quotaOf(membership: str, mount: str) -> int | None:
    """Return how many cores the control groups allow, rounded up; None if they set no limit.

    MEMBERSHIP is the file that names the groups of a process. MOUNT is the folder of the hierarchies: either the one of
    cgroup v2, or those of v1 by controller, with the one of v2 beside them as ``unified``. The lowest limit of a group
    and the groups above it holds. A file that cannot be read or parsed sets no limit.
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
    """Yield the folder of group PATH below FOLDER, and of the groups above it.

    In a container, PATH may be one that exists on the host only.
    """
    parts = [part for part in path.split("/") if part not in ("", "..")]
    for depth in range(len(parts), -1, -1):
        yield os.path.join(folder, *parts[:depth])


def _ratio(quotaAndPeriod: list[str]) -> float:
    """Return the number of cores, or 0 for no limit: a quota of ``max`` or −1, or text that is not two numbers."""
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
