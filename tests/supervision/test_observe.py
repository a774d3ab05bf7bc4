"""Why an engine ended, where its runner ended at the same moment."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from deployments.supervision.instance_lock import instances_folder
from deployments.supervision.observe import observe
from deployments.supervision.process import Record
from deployments.supervision.runner import boot_id

# Their runner and their engine are no more: nobody has pid 0.
ENDED = Record(7, 2, None, 0, 0, boot_id(), ("llama-server",), pid=0, ticks=0)


@pytest.mark.parametrize(
    ("written_since", "code"),
    [
        (replace(ENDED, exit_code=3), "exited"),
        (replace(ENDED, exit_code=-11), "crashed"),
        (ENDED, "killed"),
        (replace(ENDED, generation=1, exit_code=3), "killed"),
    ],
    ids=[
        "it ended by itself",
        "it crashed",
        "the runner was killed",
        "that was another start",
    ],
)
def test_an_exit_code_that_was_written_after_the_record_was_read_counts(
    tmp_path: Path, written_since: Record, code: str
) -> None:
    path = instances_folder(tmp_path) / "7.json"
    path.write_text(json.dumps(asdict(written_since)))

    seen = observe(ENDED, "model", tmp_path / "no.log", tmp_path)

    assert seen.cause and seen.cause.code == code


def test_a_record_that_is_gone_leaves_what_was_read(tmp_path: Path) -> None:
    seen = observe(replace(ENDED, exit_code=3), "model", Path(os.devnull), tmp_path)
    assert seen.cause and seen.cause.code == "exited"
