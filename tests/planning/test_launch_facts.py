"""What is kept of a process beside its command, as it is written down and read again."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import pytest

from deployments.planning.launch_facts import LaunchFacts, read_launch_facts

FULL = LaunchFacts(
    flavour="llama.cpp",
    model_path="/m/a.gguf",
    draft_path="/m/b.gguf",
    projector_path="/m/c.gguf",
    is_folder=True,
    alias="a",
    kind="reranker",
    slots=4,
    slots_folder="/s",
    rpc_endpoints=("h:1", "h:2"),
    devices=("CUDA0", "RPC0"),
    split_mode="tensor",
    drafts=True,
    bind_address="10.0.0.1",
)


def test_what_is_written_as_json_is_read_as_it_was() -> None:
    unset = [
        field.name
        for field in fields(FULL)
        if getattr(FULL, field.name) == field.default
    ]
    assert unset == [], "every field is to be written"
    assert read_launch_facts(json.loads(json.dumps(FULL.document()))) == FULL


def test_what_is_missing_is_not_known_and_what_is_of_another_version_is_left() -> None:
    assert read_launch_facts({}) == LaunchFacts()
    assert read_launch_facts({"alias": "a", "colour": "red"}) == LaunchFacts(alias="a")


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        "alias",
        {"alias": 5},
        {"alias": None},
        {"slots": "4"},
        {"slots": True},
        {"slots": 1.5},
        {"drafts": 1},
        {"is_folder": "yes"},
        {"rpc_endpoints": "h:1"},
        {"rpc_endpoints": [1]},
        {"devices": {"CUDA0": 1}},
    ],
)
def test_a_document_of_another_form_is_refused(document: Any) -> None:
    with pytest.raises(ValueError, match="launch facts"):
        read_launch_facts(document)


def test_reading_gives_what_can_be_compared_and_changed_into_another() -> None:
    read = read_launch_facts(FULL.document())
    assert hash(read) == hash(FULL)
    assert replace(read, slots=1) != FULL
