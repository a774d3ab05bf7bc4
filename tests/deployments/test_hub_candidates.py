"""For a purpose that the library has no model for, models at the hub are offered that would fit."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from django.core.management import call_command
from django.test import Client

from deployments.advice.purposes import Purpose, Question
from deployments.models import Engine, Model
from deployments.planning.plan import DeviceFacts
from deployments.rig import asked
from deployments.rig.asked import question_save
from deployments.services.hub_candidates import HubCandidate, hub_candidates
from gpus.models import Host
from omni.units import GIB
from tests.helpers import squeezed

CODER = "qwen2.5-coder-32b-instruct-q4_k_m"


@pytest.fixture(autouse=True)
def nothing_known() -> None:
    asked._kept.clear()


def card(name: str, gib: int, gbps: float | None) -> DeviceFacts:
    kind = "cpu" if name == "CPU" else "cuda"
    return DeviceFacts(name, kind, gib * GIB, bandwidth_gbps=gbps)


def found(purpose: str, *devices: DeviceFacts) -> dict[str, HubCandidate]:
    rig = {device.name: device for device in devices}
    return {each.model.title: each for each in hub_candidates(Purpose(purpose), rig)}


# --- which, and where -----------------------------------------------------------------------------
def test_the_largest_that_fit_are_offered_on_the_fastest_card_with_room() -> None:
    rig = (card("CUDA0", 32, 1792), card("CUDA1", 96, 1500), card("CPU", 384, 236))
    some = found("chat", *rig)
    assert list(some)[0] == "Llama 3.3 70B" and len(some) == 3
    assert some["Llama 3.3 70B"].places == ("CUDA1",)
    assert some["gpt-oss 20B"].places == ("CUDA0",)


def test_what_no_card_holds_goes_over_all_of_them_and_then_to_main_memory() -> None:
    pair = (card("CUDA0", 24, 936), card("CUDA1", 24, 936))
    assert found("chat", *pair, card("CPU", 64, 60))["Llama 3.3 70B"].places == (
        "CUDA0",
        "CUDA1",
    )
    alone = found("coding", card("CUDA0", 8, 300), card("CPU", 64, 60))
    assert alone["Qwen2.5-Coder 32B"].places == ("CPU",)
    assert alone["Qwen2.5-Coder 7B"].places == ("CUDA0",)


def test_what_fits_nowhere_is_not_offered() -> None:
    assert set(found("vision", card("CPU", 4, 40))) == {"Gemma 3 4B"}
    assert found("vision", card("CPU", 2, 40)) == {}
    assert found("vision") == {}
    assert found("vision", DeviceFacts("CUDA0", "cuda")) == {}
    assert found("reranking", card("CPU", 64, 60)) == {}


def test_the_memory_of_a_stand_in_is_not_counted_beside_its_hosts() -> None:
    stand_in = DeviceFacts("RPC0", "rpc", 64 * GIB, is_stand_in=True, bandwidth_gbps=40)
    some = found("coding", stand_in, card("CPU", 64, 40))
    assert {each.places for each in some.values()} == {("CPU",)}


def test_the_speed_is_what_reading_the_weights_allows() -> None:
    vision = found("vision", card("CUDA0", 32, 1792))["Qwen2.5-VL 7B"]
    # 4.68 GB a token at 0.8 of 1792 GB/s.
    assert vision.most_tps == pytest.approx(306, rel=0.01)
    experts = found("coding", card("CUDA0", 32, 1792))
    assert experts["Qwen3-Coder 30B-A3B"].most_tps == pytest.approx(714, rel=0.02)
    assert found("vision", card("CUDA0", 32, None))["Qwen2.5-VL 7B"].most_tps is None
    embedding = found("embedding", card("CUDA0", 32, 1792))
    assert {each.most_tps for each in embedding.values()} == {None}


def test_a_context_that_the_model_was_not_trained_for_is_told() -> None:
    rig = {"CPU": card("CPU", 64, 60)}
    some = hub_candidates(Purpose("coding", context=65_536), rig)
    short = {each.model.title: each.is_context_short for each in some}
    assert short["Qwen2.5-Coder 32B"] and not short["Qwen3-Coder 30B-A3B"]


# --- where it is shown ----------------------------------------------------------------------------
@pytest.fixture
def lacking_eyes(owners_host: Host, owned: Callable[[str], Model]) -> Question:
    owned(CODER)
    return Question((Purpose("coding"), Purpose("vision")))


def test_the_page_offers_them_marked_as_not_downloaded(
    admin: Client, viewer: Client, owners_host: Host, lacking_eyes: Question
) -> None:
    question_save(host=owners_host, question=lacking_eyes)
    part = squeezed(admin.get("/answer/").content.decode())
    assert "Models for vision that would fit" in part and "not downloaded" in part
    assert "Models for coding that would fit" not in part
    assert "hub:ggml-org/Qwen2.5-VL-7B-Instruct-GGUF:Q4_K_M" in part
    assert "part=Q4_K_M" in part and "Plan it" in part
    assert "Layouts for vision alone" not in part, "there is nothing below it"
    # Who may not ask the hub is not offered to.
    assert "Plan it" not in viewer.get("/answer/").content.decode()


def test_an_empty_library_is_offered_models_for_a_chat(
    admin: Client, host: Host, engine: Engine
) -> None:
    page = squeezed(admin.get("/").content.decode())
    assert "Models for chat that would fit" in page and "not downloaded" in page


def test_the_command_names_them(
    owners_host: Host, lacking_eyes: Question, tmp_path: Path
) -> None:
    path = tmp_path / "purposes.yaml"
    path.write_text("purposes:\n  - {name: coding}\n  - {name: vision}\n")
    said = io.StringIO()
    call_command("advise", str(path), "--json", stdout=said)
    named = json.loads(said.getvalue())["not_downloaded"]
    assert {each["purpose"] for each in named} == {"vision"}
    assert named[0]["model"].startswith("hub:") and named[0]["most_tps"] > 0
    words = io.StringIO()
    call_command("advise", str(path), stdout=words)
    assert "vision: not downloaded: hub:" in words.getvalue()
