"""How many cores are counted, on control groups of every kind, as files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from asynqueue.process.cpus import cores, quotaOf


def quota(here: Path, groups: str, **files: str) -> int | None:
    """The quota where a process is in GROUPS and FILES, named with two underlines for a slash, are what is mounted."""
    (here / "cgroup").write_text(groups)
    for name, text in files.items():
        path = here / "fs" / name.replace("__", "/").replace("_max", ".max").replace("cpu_cfs", "cpu.cfs")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return quotaOf(str(here / "cgroup"), str(here / "fs"))


def test_the_cores_are_those_this_process_may_use() -> None:
    assert 1 <= cores() <= len(os.sched_getaffinity(0))


def test_without_control_groups_there_is_no_quota(tmp_path: Path) -> None:
    assert quotaOf(str(tmp_path / "none"), str(tmp_path)) is None


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),  # one and a half is more than one
        ("10000 100000\n", 1),
        ("max 100000\n", None),
        ("max\n", None),
        ("", None),
        ("200000\n", None),
        ("200000 0\n", None),
        ("many 100000\n", None),
        ("\xff\xfe 3\n", None),
        ("-1 100000\n", None),
    ],
)
def test_version_2_has_both_numbers_in_one_file(limit: str, expected: int | None, tmp_path: Path) -> None:
    assert quota(tmp_path, "0::/app/worker\n", app__worker__cpu_max=limit) == expected


def test_the_tightest_limit_of_all_groups_above_holds(tmp_path: Path) -> None:
    limits = {"app__cpu_max": "300000 100000", "app__worker__cpu_max": "max 100000", "cpu_max": "800000 100000"}
    assert quota(tmp_path, "0::/app/worker\n", **limits) == 3


def test_a_path_that_only_the_host_has_leaves_the_limit_of_the_mount(tmp_path: Path) -> None:
    assert quota(tmp_path, "0::/../../host/slice\n", cpu_max="400000 100000") == 4


@pytest.mark.parametrize(
    ("limit", "period", "expected"),
    [
        ("250000", "100000", 3),
        ("-1", "100000", None),
        ("", "100000", None),
        ("250000", "", None),
        ("250000", "0", None),
        ("lots", "100000", None),
    ],
)
def test_version_1_has_a_file_for_each(limit: str, period: str, expected: int | None, tmp_path: Path) -> None:
    groups = "4:memory:/other\n3:cpu,cpuacct:/app\n0::/\n"
    files = {"cpu,cpuacct__app__cpu_cfs_quota_us": limit, "cpu,cpuacct__app__cpu_cfs_period_us": period}
    assert quota(tmp_path, groups, **files) == expected


def test_version_1_in_a_container_has_the_limit_at_the_mount(tmp_path: Path) -> None:
    files = {"cpu__cpu_cfs_quota_us": "200000", "cpu__cpu_cfs_period_us": "100000"}
    assert quota(tmp_path, "5:cpu:/docker/0123\n", **files) == 2


def test_beside_version_1_version_2_is_in_a_folder_of_its_own(tmp_path: Path) -> None:
    assert quota(tmp_path, "1:cpu:/\n0::/app\n", unified__app__cpu_max="100000 100000") == 1


@pytest.mark.parametrize("groups", ["", "\n", "nonsense\n", "0\n", ":::\n", "1:cpu\n"])
def test_a_membership_that_makes_no_sense_limits_nothing(groups: str, tmp_path: Path) -> None:
    assert quota(tmp_path, groups) is None
