"""What is read out of a runner's record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from deployments.planning.launch_facts import LaunchFacts
from deployments.supervision.instance_lock import instances_folder
from deployments.supervision.process import read_record

RECORD: dict[str, Any] = {
    "instance": 7,
    "generation": 1,
    "port": None,
    "runner_pid": 5,
    "runner_ticks": 6,
    "boot_id": "b",
    "argv": ["/o/llama-server", "-m", "/m/a.gguf", "--alias", "a", "-np", "3"],
}


def write(run: Path, **more: Any) -> None:
    (instances_folder(run) / "7.json").write_text(json.dumps({**RECORD, **more}))


def test_the_facts_it_was_started_with_stand_in_it_whatever_its_command_says(
    tmp_path: Path,
) -> None:
    facts = LaunchFacts(
        flavour="vllm", model_path="/m/b", rpc_endpoints=("h:1",), slots=2
    )
    write(tmp_path, launch=facts.document())
    record = read_record(tmp_path, 7)
    assert record and record.launch == facts


def test_one_of_the_version_before_is_read_by_its_command(tmp_path: Path) -> None:
    write(tmp_path)
    record = read_record(tmp_path, 7)
    expected = LaunchFacts(
        flavour="llama.cpp", model_path="/m/a.gguf", alias="a", slots=3
    )
    assert record and record.launch == expected


@pytest.mark.parametrize(
    "launch", [None, [], "x", {"slots": "3"}, {"rpc_endpoints": [None]}]
)
def test_one_whose_facts_are_damaged_cannot_be_understood(
    tmp_path: Path, launch: Any
) -> None:
    """Its runner writes it again."""
    write(tmp_path, launch=launch)
    assert read_record(tmp_path, 7) is None
