"""Number formats of weights and of the KV cache."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deployments.formats.ggml_types import GGML_TYPES
from deployments.formats.model_facts import ModelFacts
from deployments.planning.architecture import ModelShape
from deployments.planning.memory.kv_types import kv_cache_bytes
from deployments.planning.memory.use import MemorySettings, memory_use
from deployments.planning.number_formats import (
    BF16,
    EXL3,
    FORMATS,
    FP8,
    I_QUANTS,
    IK_QUANTS,
    INT4,
    K_QUANTS,
    MXFP4,
    NVFP4,
    format_of,
)
from deployments.planning.plan import DeviceFacts
from deployments.planning.precision import (
    IK,
    LLAMA_CPP,
    TABBY,
    VLLM,
    Support,
    arithmetic,
    card,
    file_formats,
    format_table,
    kv_table,
    kv_type_error,
)
from deployments.planning.requantise import requantise, weight_type
from deployments.planning.settings import (
    KV_CACHE_TYPES,
    LARGEST_CONTEXT,
    parse_setting,
    validated,
)
from omni.errors import OmniError

GIB = 1 << 30
YES, EMULATED, NO = Support.YES, Support.EMULATED, Support.NO
RTX_PRO = card("cuda", "12.0", "NVIDIA RTX PRO 6000 Blackwell Workstation Edition")
ADA, AMPERE, TURING = card("cuda", "8.9"), card("cuda", "8.6"), card("cuda", "7.5")
HOST, VULKAN = card("cpu"), card("vulkan", name="NVIDIA GeForce RTX 5090")


# --- cards ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "capability"),
    [
        ("NVIDIA GeForce RTX 5090", 12.0),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", 12.0),
        ("NVIDIA GB200", 10.0),
        ("NVIDIA B200", 10.0),
        ("NVIDIA H100 80GB HBM3", 9.0),
        ("NVIDIA GeForce RTX 4090", 8.9),
        ("NVIDIA RTX 6000 Ada Generation", 8.9),
        ("NVIDIA L40S", 8.9),
        ("NVIDIA A100-SXM4-80GB", 8.0),
        ("NVIDIA GeForce RTX 3090", 8.6),
        ("NVIDIA RTX A6000", 8.6),
        ("Tesla T4", 7.5),
        ("Tesla V100-SXM2-16GB", 7.0),
        ("A card nobody knows", None),
    ],
)
def test_a_card_by_its_name(name: str, capability: float | None) -> None:
    assert card("cuda", "", name).capability == capability


def test_the_driver_knows_better_than_the_name() -> None:
    assert card("cuda", "9.0", "NVIDIA GeForce RTX 5090").capability == 9.0
    assert VULKAN.capability is None


@pytest.mark.parametrize(
    ("where", "units"),
    [
        (RTX_PRO, {"fp16", "int8", "bf16", "fp8", "fp4"}),
        (ADA, {"fp16", "int8", "bf16", "fp8"}),
        (AMPERE, {"fp16", "int8", "bf16"}),
        (TURING, {"fp16", "int8"}),
        (card("cuda", "6.1"), set()),
        (HOST, set()),
    ],
)
def test_tensor_cores(where: object, units: set[str]) -> None:
    assert arithmetic(where) == units  # type: ignore[arg-type]


# --- formats --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("engine", "where", "name", "support"),
    [
        (LLAMA_CPP, RTX_PRO, MXFP4, YES),
        (LLAMA_CPP, RTX_PRO, NVFP4, YES),
        (LLAMA_CPP, card("cuda", "10.0"), MXFP4, EMULATED),
        (LLAMA_CPP, ADA, MXFP4, EMULATED),
        (LLAMA_CPP, HOST, MXFP4, EMULATED),
        (LLAMA_CPP, RTX_PRO, FP8, NO),
        (LLAMA_CPP, RTX_PRO, K_QUANTS, YES),
        (LLAMA_CPP, HOST, I_QUANTS, YES),
        (LLAMA_CPP, RTX_PRO, IK_QUANTS, NO),
        (LLAMA_CPP, TURING, BF16, EMULATED),
        (LLAMA_CPP, AMPERE, BF16, YES),
        (LLAMA_CPP, RTX_PRO, EXL3, NO),
        (IK, RTX_PRO, IK_QUANTS, YES),
        (IK, HOST, IK_QUANTS, YES),
        (IK, VULKAN, IK_QUANTS, NO),
        (IK, RTX_PRO, NVFP4, NO),
        (IK, RTX_PRO, MXFP4, EMULATED),
        (VLLM, ADA, FP8, YES),
        (VLLM, AMPERE, FP8, EMULATED),
        (VLLM, card("cuda", "7.0"), FP8, NO),
        (VLLM, RTX_PRO, NVFP4, YES),
        (VLLM, AMPERE, NVFP4, EMULATED),
        (VLLM, RTX_PRO, MXFP4, EMULATED),
        (VLLM, AMPERE, INT4, YES),
        (VLLM, RTX_PRO, EXL3, NO),
        (VLLM, HOST, BF16, NO),
        (TABBY, RTX_PRO, EXL3, YES),
        (TABBY, TURING, EXL3, NO),
        (TABBY, RTX_PRO, K_QUANTS, NO),
        (TABBY, HOST, EXL3, NO),
    ],
)
def test_what_runs_where(
    engine: str, where: object, name: str, support: Support
) -> None:
    rows = {row.format: row for row in format_table(where, engine)}  # type: ignore[arg-type]
    assert rows[name].support is support, rows[name].why


@pytest.mark.parametrize("engine", [LLAMA_CPP, IK, VLLM, TABBY])
@pytest.mark.parametrize(
    "where", [RTX_PRO, ADA, AMPERE, TURING, HOST, VULKAN, card("cuda")]
)
def test_every_row_says_why(engine: str, where: object) -> None:
    rows = format_table(where, engine)  # type: ignore[arg-type]
    assert tuple(row.format for row in rows) == FORMATS
    assert all(row.why.endswith(".") and row.why[0].isupper() for row in rows)


def test_every_type_of_weights_is_of_a_format() -> None:
    unknown = {kind.name for kind in GGML_TYPES.values() if not format_of(kind.name)}
    assert unknown == {"F64", "I8", "I16", "I32", "I64", "Q8_1", "Q8_K"}


def model(**sizes: int) -> ModelFacts:
    return ModelFacts(
        "a model", "llama", 10**9, 10**9, "", sum(sizes.values()), quant_bytes=sizes
    )


def test_the_formats_of_a_file() -> None:
    rows = file_formats(model(F32=1, Q4_K=80, Q6_K=10, MXFP4=200), RTX_PRO, LLAMA_CPP)
    assert [row.format for row in rows] == [MXFP4, K_QUANTS]
    assert [row.format for row in file_formats(model(F32=5), RTX_PRO, LLAMA_CPP)] == [
        "F32"
    ]
    assert [
        row.support for row in file_formats(model(IQ4_K=5), RTX_PRO, LLAMA_CPP)
    ] == [NO]


# --- requantising ---------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("own", "wanted", "code", "is_sensible"),
    [
        ("BF16", "Q4_K_M", "possible", True),
        ("F16", "q8_0", "possible", True),
        ("F16", "BF16", "possible", True),
        ("F16", "F32", "possible", False),
        ("F16", "IQ2_XXS", "possible", True),
        ("BF16", "IQ4_KS", "only_ik", True),
        ("BF16", "NVFP4", "not_offered", False),
        ("BF16", "MXFP4_MOE", "possible", False),
        ("BF16", "FP8", "not_offered", False),
        ("BF16", "Q4_K_XXXL_9", "unknown_format", False),
        ("BF16", "BF16", "same", False),
        ("Q4_K", "Q8_0", "gains_nothing", False),
        ("Q4_K", "F16", "gains_nothing", False),
        ("Q4_K", "Q4_K_M", "same", False),
        ("Q6_K", "Q4_K_M", "loses_twice", False),
        ("Q8_0", "Q4_K_M", "loses_twice", True),
        ("MXFP4", "Q4_K_M", "leave_alone", False),
        ("MXFP4", "Q8_0", "leave_alone", False),
        ("NVFP4", "IQ3_M", "leave_alone", False),
    ],
)
def test_what_can_be_requantised(
    own: str, wanted: str, code: str, is_sensible: bool
) -> None:
    advice = requantise(model(F32=1, **{own: 100}), wanted)
    assert (advice.code, advice.is_sensible) == (code, is_sensible), advice.text
    assert advice.text.endswith(".")


def test_requantising_names_the_flag_and_the_matrix() -> None:
    assert "--allow-requantize" in requantise(model(Q6_K=9), "Q4_K_M").text
    assert "--imatrix" in requantise(model(F16=9), "IQ2_M").text
    assert "--imatrix" not in requantise(model(F16=9), "Q4_K_M").text
    assert requantise(model(), "Q4_K_M").code == "unknown_format"
    assert weight_type(model(F32=1, Q4_K=5, Q6_K=4)) == "Q4_K"


# --- KV types -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "instead"),
    [
        *[
            (text, "q8_0")
            for text in (
                "f8",
                "fp8",
                "FP8",
                "f8_e4m3",
                "fp8_e5m2",
                "e4m3",
                "float8",
                "q8",
                "int8",
                "8bit",
            )
        ],
        *[(text, "q8_0") for text in ("q8-0", "q80", "Q8_1", "q8_K", "q8_KV", "i8")],
        *[
            (text, "q4_0")
            for text in (
                "q4",
                "int4",
                "fp4",
                "mxfp4",
                "NVFP4",
                "q4_k_m",
                "iq4_xs",
                "q2_k",
                "iq3_xxs",
            )
        ],
        *[(text, "q5_1") for text in ("q5", "q5_k", "q6_0", "q6")],
        *[(text, "f16") for text in ("fp16", "half", "float16", "16")],
        *[(text, "bf16") for text in ("bfloat16", "bfp16")],
        *[(text, "f32") for text in ("fp32", "float", "float32")],
    ],
)
def test_a_wrong_cache_type_says_what_to_use(text: str, instead: str) -> None:
    error = kv_type_error(text)
    assert error and error.code == "bad_setting"
    first, _, rest = error.fix.partition(". It takes ")
    assert (
        instead in first.replace(",", " ").replace(";", " ").split()
        or f"called {instead}" in first
    )
    assert rest == "f32, f16, bf16, q8_0, q5_1, q5_0, q4_1, q4_0, iq4_nl."


@pytest.mark.parametrize("text", KV_CACHE_TYPES)
def test_a_type_the_engine_has_is_no_error(text: str) -> None:
    assert kv_type_error(text) is None
    assert kv_type_error(f" {text.upper()} ") is None


def test_what_cannot_be_guessed_gets_the_list_only() -> None:
    error = kv_type_error("turbo", "kv_cache_v")
    assert error
    assert error.text == "kv_cache_v is 'turbo'."
    assert error.fix == "It takes f32, f16, bf16, q8_0, q5_1, q5_0, q4_1, q4_0, iq4_nl."


@pytest.mark.parametrize("key", ["kv_cache_k", "kv_cache_v"])
def test_the_settings_say_it_too(key: str) -> None:
    with pytest.raises(OmniError) as caught:
        validated({key: "f8"})
    assert caught.value.text == f"{key} is 'f8'."
    assert "use q8_0" in caught.value.fix and "It takes f16, bf16" in caught.value.fix
    assert parse_setting(key, "Q8_0") == "q8_0"


def test_other_settings_have_no_such_hint() -> None:
    with pytest.raises(OmniError) as caught:
        parse_setting("flash_attention", "f8")
    assert caught.value.fix == "It takes auto, on, off."


@pytest.mark.parametrize(
    "name", ["llama", "gemma3", "deepseek2", "mamba", "jamba", "qwen3moe"]
)
@pytest.mark.parametrize("parallel", [1, 3])
@pytest.mark.parametrize("type_name", ["f16", "q8_0", "q4_0"])
def test_the_cache_is_that_of_the_memory_model(
    tiny: dict[str, ModelShape], name: str, parallel: int, type_name: str
) -> None:
    settings = MemorySettings(
        context=6000, parallel=parallel, type_k=type_name, type_v=type_name
    )
    use = memory_use(tiny[name], [DeviceFacts("CUDA0", "cuda", 24 * GIB)], settings)
    assert kv_cache_bytes(tiny[name], settings) == sum(
        device.kv_bytes for device in use.devices
    )


def test_types_and_their_contexts(coder: ModelShape) -> None:
    longer = replace(coder, n_ctx_train=131072)
    rows = {row.type: row for row in kv_table(longer, MemorySettings(), 8 * GIB)}
    assert tuple(sorted(rows)) == tuple(sorted(KV_CACHE_TYPES))
    assert rows["f16"].bytes_per_token == 2 * 64 * 8 * 128 * 2 == 256 << 10
    assert rows["f16"].max_context == 32768
    assert rows["q8_0"].max_context == 61440  # 32768 ÷ (34 ÷ 64) in steps of 256
    assert rows["q8_0"].bytes_per_token * 64 == rows["f16"].bytes_per_token * 34
    assert all(row.is_usable and row.note for row in rows.values())
    assert rows["q4_0"].bits == 4.5


def test_no_context_is_longer_than_what_the_model_was_trained_for(
    coder: ModelShape,
) -> None:
    rows = {
        row.type: row.max_context for row in kv_table(coder, MemorySettings(), 80 * GIB)
    }
    assert set(rows.values()) == {coder.n_ctx_train}
    two = {
        row.max_context for row in kv_table(coder, MemorySettings(parallel=2), 80 * GIB)
    }
    assert two == {2 * coder.n_ctx_train}


def test_the_longest_context_fits_and_one_step_more_does_not(coder: ModelShape) -> None:
    settings = MemorySettings(parallel=4)
    for row in kv_table(coder, settings, 5 * GIB):
        chosen = replace(
            settings, type_k=row.type, type_v=row.type, context=row.max_context
        )
        assert kv_cache_bytes(coder, chosen) <= 5 * GIB
        assert (
            kv_cache_bytes(coder, replace(chosen, context=row.max_context + 4 * 256))
            > 5 * GIB
        )


def test_where_the_engine_refuses_quantised_types(coder: ModelShape) -> None:
    rows = {
        row.type: row
        for row in kv_table(coder, MemorySettings(flash_attention=False), 8 * GIB)
    }
    assert (
        not rows["q8_0"].is_usable
        and rows["q8_0"].max_context == 0
        and "flash" in rows["q8_0"].note
    )
    assert rows["bf16"].is_usable
    odd = replace(
        coder, kinds=tuple(replace(kind, head_dim_k=80) for kind in coder.kinds)
    )
    assert (
        "80"
        in {row.type: row for row in kv_table(odd, MemorySettings(), 8 * GIB)}[
            "q4_0"
        ].note
    )


def test_no_room_and_no_cache(coder: ModelShape, tiny: dict[str, ModelShape]) -> None:
    assert {row.max_context for row in kv_table(coder, MemorySettings(), 1000)} == {0}
    mamba = kv_table(replace(tiny["mamba"], n_ctx_train=0), MemorySettings(), GIB)
    assert {(row.bytes_per_token, row.max_context) for row in mamba} == {
        (0, LARGEST_CONTEXT)
    }
