"""A database of the version before is migrated with all that people have in it.

It is kept as text (before_the_house.sql), made by that version's own code (make_database.py).
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.panel import ROOT
from tests.upgrade.old_home import KEPT, manage, old_home

MODEL = "/models/SmolLM2.gguf"


@pytest.fixture(scope="module")
def upgraded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What this version finds in it after its migrations, in processes of its own."""
    home = old_home(tmp_path_factory.mktemp("upgraded"))
    key = KEPT.read_text().split("-- key: ")[1].split("\n")[0]
    manage(home, "migrate", "-v0")
    said = manage(
        home, "shell", "-v0", "-c", f"from tests.upgrade.look import say; say({key!r})"
    )
    return dict(json.loads(said.splitlines()[-1]))


def test_it_is_small_and_tells_nothing_of_the_machine_that_made_it() -> None:
    assert KEPT.stat().st_size < 200_000
    text = KEPT.read_text()
    assert "/tmp/" not in text and "site-packages" not in text and str(ROOT) not in text


def test_people_keep_their_passwords_and_rights_and_keys_open(
    upgraded: dict[str, Any],
) -> None:
    assert upgraded["users"] == {"ada": [True, True], "oscar": [True, False]}
    assert upgraded["may_operate"] is True and upgraded["key_opens"] is True


def test_the_library_and_the_engines_are_as_they_were(upgraded: dict[str, Any]) -> None:
    assert upgraded["engines"] == [
        ["llama-server", "llama.cpp", "/opt/llama.cpp/llama-server"],
        ["tabbyapi", "tabbyapi", "/opt/tabbyAPI/main.py"],
        ["vllm", "vllm", "/opt/vllm/bin/vllm"],
        ["external", "external", "http://127.0.0.1:9000"],
    ]
    assert upgraded["folders"] == [["/models", True]]
    assert upgraded["models"] == [
        [MODEL, "gguf", "text"],
        ["/models/folder", "folder", "text"],
        ["/models/e.gguf", "gguf", "embedding"],
    ]
    assert upgraded["downloads"] == [["someone/small", "done", 5]]


def test_deployments_keep_what_was_chosen(upgraded: dict[str, Any]) -> None:
    assert upgraded["deployments"] == [
        ["smol", "independent", "running", 3, "llama-server"],
        ["split", "layer_split", "running", 3, "llama-server"],
        ["pair", "prefill_decode", "running", 3, "llama-server"],
        ["tabby", "independent", "stopped", 1, "tabbyapi"],
        ["elsewhere", "independent", "stopped", 1, "external"],
    ]
    assert upgraded["settings"] == {
        "smol": {"context": 2048},
        "split": {"parallel": 2},
        "pair": {"context": 2048, "parallel": 2, "handover_min": 64},
        "tabby": {},
        "elsewhere": {},
    }
    assert upgraded["extra_args"]["smol"] == ["--top-k 20"]
    assert upgraded["bindings"] == [
        ["smol", "model", MODEL, ["CPU"]],
        ["split", "model", MODEL, ["RPC0", "RPC1"]],
        ["pair", "prefill", MODEL, ["CPU"]],
        ["pair", "decode", MODEL, ["CPU"]],
        ["tabby", "model", "/models/folder", ["CPU"]],
    ]
    assert upgraded["routes"] == [["fast", "smol", "the quick one"]]


def test_instances_keep_their_processes_and_get_the_facts_of_their_commands(
    upgraded: dict[str, Any],
) -> None:
    sockets = "/home/of/omni/run/s"
    assert upgraded["instances"] == [
        [
            "smol/model",
            "ready",
            4000010,
            f"{sockets}/smol.model.sock",
            "1000 1",
            "alone",
        ],
        [
            "split/model",
            "ready",
            4000020,
            f"{sockets}/split.model.sock",
            "1000 1",
            "alone",
        ],
        [
            "pair/prefill",
            "ready",
            4000030,
            f"{sockets}/pair.prefill.sock",
            "1000 1",
            "alone",
        ],
        [
            "pair/decode",
            "ready",
            4000031,
            f"{sockets}/pair.decode.sock",
            "1000 1",
            "alone",
        ],
        ["tabby/model", "failed", None, "", "", ""],
    ]
    assert min(upgraded["argv_lengths"]) == 4 and max(upgraded["argv_lengths"]) > 30
    assert upgraded["transitions"] == 12

    smol, split, prefill, decode, tabby = upgraded["launch"]
    assert smol == {
        "flavour": "llama.cpp",
        "model_path": MODEL,
        "draft_path": "",
        "projector_path": "",
        "is_folder": False,
        "alias": "smol",
        "kind": "text",
        "slots": 1,
        "slots_folder": "",
        "rpc_endpoints": [],
        "devices": [],
        "split_mode": "",
        "drafts": False,
        "bind_address": "",
    }
    assert split["rpc_endpoints"] == ["127.0.0.1:18001", "127.0.0.1:18002"]
    assert (split["devices"], split["split_mode"]) == (["RPC0", "RPC1"], "layer")
    folder = "/home/of/omni/slots/pair"
    assert [row["slots_folder"] for row in (prefill, decode)] == [folder, folder]
    assert [row["slots"] for row in (smol, split, prefill, decode)] == [1, 2, 2, 2]
    assert (tabby["flavour"], tabby["is_folder"]) == ("tabbyapi", True)


def test_the_gateway_routes_as_before(upgraded: dict[str, Any]) -> None:
    assert upgraded["serving"] == {
        "smol": ["smol", "direct", 1, None],
        "split": ["split", "direct", 2, None],
        "pair": ["pair", "kv_transfer", 2, "/home/of/omni/slots/pair"],
        "tabby": ["tabby", "direct", 1, None],
        "elsewhere": ["org/Big-1", "direct", 0, None],
    }


def test_what_was_measured_and_said_is_kept(upgraded: dict[str, Any]) -> None:
    assert upgraded["measurements"] == [
        [name, strategy, 100.5 + number, 20.25 + number, 22.0]
        for number, (name, strategy) in enumerate(
            [
                ("pair", "prefill_decode"),
                ("smol", "independent"),
                ("split", "layer_split"),
                ("tabby", "independent"),
            ]
        )
    ]
    assert upgraded["references"] == [[[1, 2, 3], [" a", " b", " c"]]]
    assert upgraded["conversations"] == [
        ["Ships", "oscar", "Be brief.", {"temperature": 0.2}, "smol", "split"]
    ]
    thought = ["keel, keel"]
    timings = [12.5, {"predicted_n": 9}]
    question, *answers = upgraded["messages"]
    assert question[:3] == ["user", "", "What is a keel?"]
    assert answers == [
        [
            "assistant",
            "smol",
            "A beam — the lowest of a ship. ⚓",
            *thought,
            True,
            *timings,
        ],
        ["assistant", "smol", "Something of a ship.", *thought, False, *timings],
        ["assistant", "split", "Its backbone.", *thought, True, *timings],
    ]


def test_every_page_shows_it(upgraded: dict[str, Any]) -> None:
    assert set(upgraded["pages"].values()) == {200}, upgraded["pages"]
