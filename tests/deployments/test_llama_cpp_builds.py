"""Older and newer builds of llama.cpp: what they list, and commands in the spelling each of them
has."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deployments.engines.base import DraftSpec, ServerSpec
from deployments.engines.llama_cpp import LlamaCpp
from deployments.planning.plan import DeviceFacts, EngineFacts
from omni.errors import OmniError
from tests.deployments.engine_help import help_of

OLD = LlamaCpp().parse_flags(help_of("llama_cpp_2024_help"))
NEW = LlamaCpp().parse_flags(help_of("llama_cpp_b11434_help"))
CARD = DeviceFacts("CUDA0", "cuda", gpu_uuid="GPU-0")
BY_MODEL = DraftSpec("draft-simple", "/m/d.gguf", (CARD,))


def argv(
    flags: frozenset[str], draft: DraftSpec | None = None, **settings: object
) -> list[str]:
    engine = EngineFacts("mine", "llama.cpp", "/bin/llama-server", flags)
    spec = ServerSpec(
        engine, "/m/a.gguf", (CARD,), alias="a", context_tokens=4096, settings=settings
    )
    return list(LlamaCpp().command(replace(spec, draft=draft)).argv)


def test_flags_that_are_listed_as_removed_are_not_counted() -> None:
    assert (
        not {"--draft", "--draft-n", "--draft-max", "--draft-min", "--draft-n-min"}
        & NEW
    )
    assert {"--draft-max", "--draft", "--draft-n", "--draft-min"} <= OLD
    assert {"--no-webui", "-no-kvu", "--device-draft", "-sm"} <= NEW
    # A flag that a description names is not one that the program has.
    assert "--mlock" not in NEW and "-" not in NEW


def test_the_real_engine_lists_removed_flags_that_are_left_out(
    help_text: str, real_flags: frozenset[str]
) -> None:
    assert "the argument has been removed" in help_text and "--draft-max" in help_text
    assert "--draft-max" not in real_flags and "--spec-draft-n-max" in real_flags


@pytest.mark.parametrize(
    ("flags", "settings", "there", "absent"),
    [
        (NEW, {}, ["--no-ui"], ["--no-webui"]),
        (OLD, {}, ["--no-webui"], ["--no-ui"]),
        (NEW, {}, ["-fit", "off"], []),
        (OLD, {}, [], ["-fit", "--cors-origins"]),
        (NEW, {"flash_attention": "auto"}, ["-fa", "auto"], []),
        (OLD, {"flash_attention": "auto"}, ["-fa", "-ctk"], ["auto"]),
        (OLD, {"flash_attention": "off"}, [], ["-fa", "off"]),
        (NEW, {"load_mode": "mlock"}, ["-lm", "mlock"], ["--mlock"]),
        (OLD, {"load_mode": "mlock"}, ["--no-mmap", "--mlock"], ["-lm"]),
        (OLD, {"load_mode": "mmap+mlock"}, ["--mlock"], ["-lm", "--no-mmap"]),
        (OLD, {"load_mode": "none"}, ["--no-mmap"], ["-lm", "--mlock"]),
        (OLD, {"load_mode": "mmap"}, [], ["-lm", "--mlock", "--no-mmap"]),
        (OLD, {"load_mode": "auto"}, [], ["-lm", "--mlock", "--no-mmap"]),
    ],
)
def test_each_build_gets_its_own_spelling(
    flags: frozenset[str],
    settings: dict[str, object],
    there: list[str],
    absent: list[str],
) -> None:
    words = argv(flags, **settings)
    assert not set(absent) & set(words)
    if there:
        start = words.index(there[0])
        assert words[start : start + len(there)] == there


def test_drafting_in_the_spelling_of_each_build() -> None:
    new, old = (argv(flags, BY_MODEL, draft_max=7, draft_min=2) for flags in (NEW, OLD))
    assert (
        new[new.index("--spec-draft-n-max") + 1] == "7"
        and new[new.index("--spec-draft-n-min") + 1] == "2"
    )
    assert new[new.index("--spec-type") + 1] == "draft-simple"
    assert (
        old[old.index("--draft-max") + 1] == "7"
        and old[old.index("--draft-min") + 1] == "2"
    )
    # From before there were types: a draft model is enough to draft with it.
    assert "--spec-type" not in old and "-md" in old


@pytest.mark.parametrize(
    ("flags", "draft", "settings", "says"),
    [
        (OLD, DraftSpec("draft-mtp"), {}, "no flag --spec-type"),
        (OLD - {"--draft-max"}, BY_MODEL, {}, "no flag --spec-draft-n-max"),
        (OLD, None, {"cache_ram_mib": 0}, "no flag -cram"),
        (OLD, None, {"kv_unified": "on"}, "no flag -kvu"),
        (OLD, None, {"load_mode": "dio"}, "no flag -lm"),
        (NEW, None, {"kv_cache_k": "q6_0"}, "no KV cache of the format q6_0"),
    ],
)
def test_what_a_build_cannot_do_is_refused_before_it_starts(
    flags: frozenset[str],
    draft: DraftSpec | None,
    settings: dict[str, object],
    says: str,
) -> None:
    with pytest.raises(OmniError, match=says) as refused:
        argv(flags, draft, **settings)
    assert refused.value.fix


def test_the_nearest_flag_is_named() -> None:
    with pytest.raises(OmniError) as refused:
        argv(OLD - {"--draft-max", "--draft-min"}, BY_MODEL)
    assert refused.value.fix == "The nearest one it has is --draft-n-min."
