"""What a header says is checked before it is computed with: any key may hold anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deployments.formats import folder_facts as folder_facts_module
from deployments.formats.folder_facts import folder_facts
from deployments.formats.gguf import GgufError, GgufHeader, read_header
from deployments.formats.limits import MAX_LAYERS, MAX_NUMBER
from deployments.formats.model_facts import ModelFacts, facts
from deployments.formats.model_folder import read_folder
from deployments.formats.safetensors import FolderError
from deployments.formats.sliding_window import SLIDING
from deployments.library import folders
from deployments.library.reading import describe_file
from deployments.models import Model
from deployments.planning import from_header
from deployments.planning.architecture import ModelShape
from deployments.planning.from_folder import folder_shape
from deployments.planning.from_header import model_shape
from deployments.planning.vocabulary import VocabFacts, vocab_facts
from tests.deployments.gguf_corpus import smollm2
from tests.deployments.gguf_models import tiny, write_tiny
from tests.deployments.model_folders import LLAMA, write_folder

HOSTILE: tuple[Any, ...] = (
    -1, 0, 1, 2**31, 2**64 - 1, -(2**63), MAX_NUMBER + 1, 1.5, -0.0, float("nan"), float("inf"),
    1e308, True, "", "x", "9" * 5000, "\ud800", [], [0], [-1], [None], [[1]], [["x"]], [1.5],
    ["x"], [True, False], [{}], {}, [0] * (MAX_LAYERS + 1), [2**64] * 3, None,
)  # fmt: skip
# Keys that files of other kinds have; in a file of this one they say nothing, or too much.
MORE_KEYS = (
    "attention.sliding_window", "attention.sliding_window_pattern", "attention.shared_kv_layers",
    "attention.key_length_mla", "attention.key_length_swa", "attention.kv_lora_rank",
    "attention.indexer.key_length", "attention.indexer.top_k", "classifier.output_labels",
    "expert_count", "expert_group_count", "expert_used_count", "kda.head_dim",
    "nextn_predict_layers", "pooling_type", "rope.dimension_count", "shortconv.l_cache",
    "ssm.conv_kernel", "ssm.group_count", "ssm.inner_size", "ssm.state_size",
    "ssm.time_step_rank", "token_shift_count", "vocab_size", "wkv.head_size",
)  # fmt: skip
ARCHS = ("llama", "gemma3", "qwen3moe", "deepseek2", "mamba")


def understood(header: GgufHeader) -> tuple[ModelFacts, ModelShape, VocabFacts] | None:
    """Everything that is made of a header, as it is kept with the model; None where refused."""
    try:
        found = facts(header), model_shape(header), vocab_facts(header)
    except GgufError as error:
        assert error.code == "gguf_invalid" and len(str(error)) < 1_000
        return None
    assert ModelShape.from_dict(found[1].to_dict()) == found[1]
    assert sum(1 for _ in found[1].layer_kinds()) == found[1].n_layer <= MAX_LAYERS
    return found


@pytest.fixture(scope="module", params=ARCHS)
def header(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> GgufHeader:
    folder = tmp_path_factory.mktemp("tiny")
    return read_header(write_tiny(folder / "tiny.gguf", tiny(request.param)))


def test_any_value_of_any_key_is_taken_or_refused(header: GgufHeader) -> None:
    assert understood(header), "it is whole before anything is changed"
    keys = [*header.metadata, *(f"{header.arch}.{suffix}" for suffix in MORE_KEYS)]
    outcomes = {True: 0, False: 0}
    for key in dict.fromkeys(keys):
        for value in HOSTILE:
            changed = replace(header, metadata={**header.metadata, key: value})
            outcomes[understood(changed) is not None] += 1
    assert min(outcomes.values()) > 100, f"it tests one side only: {outcomes}"


@pytest.mark.parametrize("arch", sorted(SLIDING))
def test_any_window_is_taken_or_refused(arch: str) -> None:
    whole = read_header(smollm2())
    # Of each layer one: the others say nothing of windows, and all are gone through each time.
    keys = tuple(t for t in whole.tensors if t.name.endswith(".attn_k.weight"))
    assert len(keys) == 30
    whole = replace(whole, tensors=keys)
    own = {
        key.replace("llama.", f"{arch}.", 1) if key.startswith("llama.") else key: value
        for key, value in whole.metadata.items()
        if not key.startswith("tokenizer.")
    }
    for window in (37, *HOSTILE):
        for pattern in (*HOSTILE, 3):
            metadata = own | {
                "general.architecture": arch,
                f"{arch}.attention.sliding_window": window,
                f"{arch}.attention.sliding_window_pattern": pattern,
            }
            if found := understood(replace(whole, metadata=metadata)):
                seen = any(kind.is_swa for kind in found[1].kinds)
                assert not seen or found[0].sliding_window == found[1].n_swa


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        (
            "nextn_predict_layers",
            31,
            "nextn_predict_layers is 31, not at most the 30 layers",
        ),
        (
            "block_count",
            MAX_LAYERS + 1,
            f"block_count is 10001, not at most {MAX_LAYERS}",
        ),
        ("block_count", [30], "block_count is [30], not a whole number"),
        ("expert_count", "8", "expert_count is '8', not a whole number"),
        (
            "attention.head_count",
            [[9]],
            "attention.head_count is [9], not a whole number",
        ),
        ("ssm.inner_size", -5, "ssm.inner_size is -5, not a whole number"),
    ],
)
def test_the_refusal_names_the_key(key: str, value: Any, says: str) -> None:
    whole = read_header(smollm2())
    broken = replace(whole, metadata={**whole.metadata, f"llama.{key}": value})
    with pytest.raises(GgufError, match="(?s).*") as caught:
        facts(broken), model_shape(broken)
    assert says in caught.value.text


# --- folders --------------------------------------------------------------------------------------
def test_any_value_in_a_config_is_taken_or_refused(tmp_path: Path) -> None:
    whole = read_folder(write_folder(tmp_path / "model", LLAMA))
    more = ("num_local_experts", "layer_types", "sliding_window", "quantization_config",
            "kv_lora_rank", "linear_num_key_heads", "mamba_d_state", "text_config",
            "architectures", "head_dim", "multi_query")  # fmt: skip
    outcomes = {True: 0, False: 0}
    for key in dict.fromkeys((*whole.config, *more)):
        for value in HOSTILE:
            changed = replace(whole, config={**whole.config, key: value})
            try:
                known, shape = folder_facts(changed), folder_shape(changed)
            except FolderError as error:
                assert error.code == "folder_invalid"
                outcomes[False] += 1
                continue
            assert ModelShape.from_dict(shape.to_dict()) == shape and known.as_dict()
            outcomes[True] += 1
    assert min(outcomes.values()) > 50, f"it tests one side only: {outcomes}"


# --- an error of ours -----------------------------------------------------------------------------
def wrong(*args: object) -> Any:
    raise TypeError("unsupported operand type(s) for +: 'int' and 'str'")


def break_gguf(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    monkeypatch.setattr(from_header, "_kind", wrong)
    return write_tiny(folder / "tiny.gguf", tiny("llama"))


def break_folder(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    monkeypatch.setattr(folder_facts_module, "_active", wrong)
    return write_folder(folder / "model", LLAMA)


@pytest.mark.django_db
@pytest.mark.parametrize("broken", [break_gguf, break_folder])
def test_an_error_in_the_reading_comes_out_as_what_it_is(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    broken: Callable[[pytest.MonkeyPatch, Path], Path],
) -> None:
    path = broken(monkeypatch, tmp_path)
    with pytest.raises(TypeError, match="unsupported operand"):
        describe_file(Model(path=str(path)), path)
    (model,) = folders.scan([tmp_path]).models
    assert model.state == Model.State.BROKEN
    assert (
        model.error
        == "It could not be read (TypeError); the agent's log has the details."
    )
    assert "unsupported operand type(s)" in caplog.text
