"""What control groups leave of the machine: the kernel's files of both versions, and a real group
where one may be made."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from gpus.cgroup import Limits, MemoryLimit, limits
from gpus.doctor import HostFacts, host_findings
from gpus.sample import NvmlState
from tests.panel import RunningPanel

GIB, MIB = 1 << 30, 1 << 20
V1_NONE = "9223372036854771712\n"
V1 = "4:memory:{group}\n2:cpu,cpuacct:{group}\n0::/\n"
# Name → (/proc/self/cgroup, the files below the mount, what is left).
CASES: dict[str, tuple[str, dict[str, str], Limits]] = {
    "nothing is limited": ("0::/\n", {"memory.stat": ""}, Limits()),
    "version 2, no limit is a word": (
        "0::/app\n",
        {"app/memory.max": "max\n", "app/cpu.max": "max 100000\n"},
        Limits(),
    ),
    "version 2": (
        "0::/app\n",
        {
            "app/memory.max": f"{2 * GIB}\n",
            "app/memory.current": f"{900 * MIB}\n",
            "app/memory.stat": f"anon 5\ninactive_file {300 * MIB}\nactive_file {100 * MIB}\n",
            "app/cpu.max": "100000 100000\n",
        },
        Limits(MemoryLimit(2 * GIB, 500 * MIB), 1.0),
    ),
    "version 2, the group above is tighter": (
        "0::/a/b\n",
        {
            "a/memory.max": f"{GIB}\n",
            "a/memory.current": f"{MIB}\n",
            "a/b/memory.max": f"{4 * GIB}\n",
            "a/cpu.max": "250000 100000\n",
            "a/b/cpu.max": "max 100000\n",
        },
        Limits(MemoryLimit(GIB, MIB), 2.5),
    ),
    "version 2, a group above is filled by others": (
        "0::/a/b\n",
        {
            "a/memory.max": f"{4 * GIB}\n",
            "a/memory.current": f"{4 * GIB - 100 * MIB}\n",
            "a/b/memory.max": f"{GIB}\n",
            "a/b/memory.current": f"{MIB}\n",
        },
        Limits(MemoryLimit(GIB, GIB - 100 * MIB)),
    ),
    "version 2, above memory.high everything waits": (
        "0::/app\n",
        {
            "app/memory.max": f"{4 * GIB}\n",
            "app/memory.high": f"{3 * GIB}\n",
            "app/memory.current": f"{GIB}\n",
            "app/memory.stat": f"slab_reclaimable {10 * MIB}\nslab_unreclaimable {MIB}\n",
        },
        Limits(MemoryLimit(3 * GIB, GIB - 10 * MIB)),
    ),
    "version 2 in a container that sees its own group as the root": (
        "0::/../host/path\n",
        {"memory.max": f"{GIB}\n", "cpu.max": "50000 100000\n"},
        Limits(MemoryLimit(GIB, 0), 0.5),
    ),
    "version 1": (
        V1.format(group="/app"),
        {
            "memory/app/memory.limit_in_bytes": f"{2 * GIB}\n",
            "memory/app/memory.usage_in_bytes": f"{600 * MIB}\n",
            "memory/app/memory.stat": (
                f"inactive_file 1\ntotal_inactive_file {50 * MIB}\ntotal_active_file {MIB}\n"
            ),
            "memory/memory.limit_in_bytes": V1_NONE,
            "cpu,cpuacct/app/cpu.cfs_quota_us": "150000\n",
            "cpu,cpuacct/app/cpu.cfs_period_us": "100000\n",
        },
        Limits(MemoryLimit(2 * GIB, 549 * MIB), 1.5),
    ),
    "version 1, no limit is a large number": (
        V1.format(group="/"),
        {
            "memory/memory.limit_in_bytes": V1_NONE,
            "cpu/cpu.cfs_quota_us": "-1\n",
            "cpu/cpu.cfs_period_us": "100000\n",
        },
        Limits(),
    ),
    "version 1 in a container whose path is the host's": (
        V1.format(group="/docker/0123"),
        {"memory/memory.limit_in_bytes": f"{GIB}\n"},
        Limits(MemoryLimit(GIB, 0)),
    ),
    "what is no number is no limit": (
        "0::/\n",
        {"memory.max": "much\n", "cpu.max": "\n", "memory.stat": "inactive_file\n"},
        Limits(),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_limits_when(case: str, tmp_path: Path) -> None:
    own, files, found = CASES[case]
    (tmp_path / "own").write_text(own)
    mount = tmp_path / "mount"
    for name, text in files.items():
        path = mount / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert limits(mount, tmp_path / "own") == found


def test_without_control_groups_nothing_is_limited(tmp_path: Path) -> None:
    assert limits(tmp_path / "none", tmp_path / "none") == Limits()


@pytest.mark.parametrize(
    ("cores", "threads"), [(None, None), (0.5, 1), (1.0, 1), (2.5, 3)]
)
def test_a_part_of_a_core_keeps_a_thread_busy(
    cores: float | None, threads: int | None
) -> None:
    assert Limits(cores=cores).threads == threads


def facts(**changes: object) -> HostFacts:
    whole = {
        "ram_total_bytes": 24 * GIB,
        "machine_ram_bytes": 24 * GIB,
        "cores": 4,
        "machine_cores": 4,
    }
    rest = {
        "ram_available_bytes": 20 * GIB,
        "swap_used_bytes": 0,
        "disk_free_bytes": 99 * GIB,
        "home": "/x",
    }
    return HostFacts(**{"nvml": NvmlState("ok"), **whole, **rest, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "codes"),
    [
        ({}, []),
        (
            {"ram_total_bytes": 2 * GIB, "ram_available_bytes": GIB, "cores": 1},
            ["limited"],
        ),
        ({"visible_cards": "1,0"}, ["cards_hidden"]),
        ({"visible_cards": ""}, ["cards_hidden"]),
    ],
)
def test_what_is_taken_away_is_said(
    changes: dict[str, object], codes: list[str]
) -> None:
    assert [finding.code for finding in host_findings(facts(**changes))] == codes


# --- a real group ---------------------------------------------------------------------------------
SAY = """
import json
from gpus import host
sample = host.HostMeter().sample()
print(json.dumps([*host.memory(), host.cores(), host.host_row(), sample.ram_total_bytes]))
"""


@pytest.fixture
def group() -> Iterator[Mapping[str, Path]]:
    """A group of version 1 with 2 GiB and one core; its folders by controller."""
    made = {}
    for controller in ("memory", "cpu"):
        folder = Path("/sys/fs/cgroup") / controller
        own = next(
            (
                line.split(":", 2)[2]
                for line in Path("/proc/self/cgroup").read_text().splitlines()
                if line.split(":")[1] == controller
            ),
            None,
        )
        try:
            if own is None:
                raise FileNotFoundError(controller)
            made[controller] = folder / own.strip("/") / f"omni-test-{os.getpid()}"
            made[controller].mkdir()
        except OSError as error:
            for other in made.values():
                if other.is_dir():
                    other.rmdir()
            pytest.skip(f"no control group may be made here: {error}")
    (made["memory"] / "memory.limit_in_bytes").write_text(str(2 * GIB))
    (made["cpu"] / "cpu.cfs_period_us").write_text("100000")
    (made["cpu"] / "cpu.cfs_quota_us").write_text("100000")
    yield made
    for folder in made.values():
        folder.rmdir()


@pytest.mark.real
def test_a_panel_in_a_group_of_2_gib_and_one_core_counts_with_that(
    group: Mapping[str, Path],
) -> None:
    joined = "; ".join(f"echo $$ > {folder}/cgroup.procs" for folder in group.values())
    argv = [
        "sh",
        "-c",
        f'{joined}; exec "$0" manage.py shell -v0 -c "$1"',
        sys.executable,
        SAY,
    ]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
    total, free, cores, row, sampled = json.loads(done.stdout)
    assert (total, sampled, row["ram_bytes"]) == (2 * GIB,) * 3
    assert GIB < free < 2 * GIB < psutil.virtual_memory().total
    assert cores == row["cpu_count"] == 1


@contextmanager
def inside(group: Mapping[str, Path]) -> Iterator[None]:
    """This process, and what it starts, is in the group meanwhile."""
    for folder in group.values():
        (folder / "cgroup.procs").write_text(str(os.getpid()))
    try:
        yield
    finally:
        for folder in group.values():
            (folder.parent / "cgroup.procs").write_text(str(os.getpid()))


@pytest.mark.real
@pytest.mark.timeout(240)
def test_a_panel_started_in_the_group_plans_and_runs_a_model_within_it(
    group: Mapping[str, Path], fresh_panel: RunningPanel
) -> None:
    with inside(group):
        fresh_panel.start()
        model = fresh_panel.document("scan")["models"][0]["name"]
        rig = fresh_panel.home / "small.yaml"
        rig.write_text(
            f"deployments:\n  - {{name: small, models: {{model: {model}}}, devices: {{model:"
            " [CPU]}}\n"
        )
        assert fresh_panel.manage("apply", str(rig)).returncode == 0
        fresh_panel.ready("small")
        (planned,) = fresh_panel.document("plan", "small")["deployments"]
        (engine,) = fresh_panel.engines()
        said = json.loads(fresh_panel.manage("doctor", "--json").stdout)["findings"]
        fresh_panel.stop()
    assert [use["total_bytes"] for use in planned["devices"]] == [2 * GIB]
    argv = planned["instances"][0]["argv"]
    assert argv[argv.index("-t") + 1] == "1"
    assert "limited" in {finding["code"] for finding in said} and engine
