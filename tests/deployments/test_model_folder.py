"""A folder with config.json and safetensors: which files count, what is missing, and what is said
of the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from deployments.formats.folder_facts import folder_facts
from deployments.formats.folder_tensors import place, quant_name
from deployments.formats.model_folder import read_folder
from deployments.formats.safetensors import FolderError
from deployments.planning.architecture import ModelShape
from deployments.planning.from_folder import folder_shape
from tests.deployments.model_folders import (
    AWQ,
    EXL3,
    FP8,
    GPTQ,
    LLAMA,
    QWEN3_32B,
    Tensor,
    write_folder,
    write_safetensors,
)


def shape_of(folder: Path) -> ModelShape:
    return folder_shape(read_folder(folder))


# --- files ----------------------------------------------------------------------------------------
def test_shards_are_one_model_as_the_index_has_it(tmp_path: Path) -> None:
    whole, cut = write_folder(tmp_path / "a"), write_folder(tmp_path / "b", shards=3)
    (cut / "other.safetensors").write_bytes(b"not named by the index")
    assert len(read_folder(cut).weights) == 3
    assert (
        shape_of(cut).weights_bytes
        == shape_of(whole).weights_bytes
        == read_folder(cut).weights_bytes
    )
    assert shape_of(cut).kinds == shape_of(whole).kinds


@pytest.mark.parametrize(
    ("names", "read"),
    [
        (("model", "adapter"), {"model"}),
        (("a", "b"), {"a", "b"}),
        (("a", "consolidated"), {"a"}),
        (("consolidated",), {"consolidated"}),
        (
            ("output-00001-of-00002", "output-00002-of-00002"),
            {"output-00001-of-00002", "output-00002-of-00002"},
        ),
    ],
)
def test_without_an_index_the_files_that_are_the_model_are_read(
    tmp_path: Path, names: tuple[str, ...], read: set[str]
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    for name in names:
        write_safetensors(
            tmp_path / f"{name}.safetensors", [(f"{name}.weight", "F16", (2, 2))]
        )
    assert {path.stem for path in read_folder(tmp_path).weights} == read


def without_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def without_weights(folder: Path) -> None:
    for path in folder.glob("*.safetensors*"):
        path.unlink()


def without_a_shard(folder: Path) -> None:
    (folder / "model-00002-of-00003.safetensors").unlink()


def without_index_and_shard(folder: Path) -> None:
    without_a_shard(folder)
    (folder / "model.safetensors.index.json").unlink()


def cut_short(folder: Path) -> None:
    path = folder / "model-00002-of-00003.safetensors"
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 8)


def swapped(folder: Path) -> None:
    one, two = (folder / f"model-0000{n}-of-00003.safetensors" for n in (1, 2))
    one.write_bytes(two.read_bytes())


def index_of(text: str) -> Any:
    def write(folder: Path) -> None:
        (folder / "model.safetensors.index.json").write_text(text)

    return write


def config_of(text: str) -> Any:
    def write(folder: Path) -> None:
        (folder / "config.json").write_text(text)

    return write


@pytest.mark.parametrize(
    ("spoil", "code", "says"),
    [
        (without_config, "folder_incomplete", "config.json: it is missing"),
        (without_weights, "folder_incomplete", "there is no safetensors file in it"),
        (
            without_a_shard,
            "folder_incomplete",
            "1 of 3 shards are missing: model-00002-of-00003.safetensors",
        ),
        (
            without_index_and_shard,
            "folder_incomplete",
            "1 of 3 shards are missing: model-00002-of-00003",
        ),
        (
            cut_short,
            "folder_truncated",
            "model-00002-of-00003.safetensors: tensor .* 8 bytes beyond the end",
        ),
        (
            swapped,
            "folder_invalid",
            "model-00002-of-00003.safetensors: tensor .* is in model-00001-of-00003",
        ),
        (config_of("{"), "folder_invalid", "config.json: it is not valid JSON"),
        (config_of("[]"), "folder_invalid", "config.json: it is not a JSON object"),
        (index_of("{}"), "folder_invalid", "has no weight_map"),
        (index_of('{"weight_map": {"a": 1}}'), "folder_invalid", "has no weight_map"),
        (
            index_of('{"weight_map": {"a": "../x.safetensors"}}'),
            "folder_invalid",
            "no file of this folder",
        ),
        (
            index_of('{"weight_map": {"a": "/etc/passwd"}}'),
            "folder_invalid",
            "no file of this folder",
        ),
        (
            index_of(
                json.dumps({"weight_map": {"a": "model-00001-of-00003.safetensors"}})
            ),
            "folder_incomplete",
            "'a' is not in it",
        ),
    ],
)
def test_what_is_wrong_is_said_with_the_file(
    tmp_path: Path, spoil: Any, code: str, says: str
) -> None:
    folder = write_folder(tmp_path / "m", shards=3)
    spoil(folder)
    with pytest.raises(FolderError, match=says) as refused:
        read_folder(folder)
    assert refused.value.code == code and refused.value.fix


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"num_hidden_layers": -1}, "num_hidden_layers is -1, not a whole number"),
        ({"num_hidden_layers": 10**9}, "at most 10000"),
        ({"hidden_size": "wide"}, "hidden_size is 'wide'"),
        ({"num_attention_heads": 2.5}, "num_attention_heads is 2.5"),
        ({"max_position_embeddings": True}, "max_position_embeddings is True"),
        ({"vocab_size": 2**60}, "vocab_size is 1152921504606846976"),
        ({"num_key_value_heads": [2, None, "x"]}, "num_key_value_heads is 'x'"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused_by_key(
    tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    header = read_folder(
        write_folder(tmp_path / "m", tensors=[("a.weight", "F16", (2, 2))], **changes)
    )
    with pytest.raises(FolderError, match=says) as refused:
        folder_facts(header)
    assert str(refused.value).startswith("config.json: ")


# --- facts ----------------------------------------------------------------------------------------
def test_facts_of_a_plain_model(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "Tiny Llama")
    known, shape = folder_facts(read_folder(folder)), shape_of(folder)
    assert (known.name, known.arch, known.quant, known.attention) == (
        "Tiny Llama",
        "llama",
        "BF16",
        "GQA",
    )
    assert (
        known.n_layer,
        known.n_ctx_train,
        known.n_embd,
        known.n_ff,
        known.n_vocab,
    ) == (
        2,
        512,
        256,
        512,
        320,
    )
    assert (known.n_head, known.n_head_kv, known.head_dim_k) == ((4, 4), (2, 2), 64)
    layer = 256 * 256 * 2 + 256 * 128 * 2 + 3 * 256 * 512 + 2 * 256
    assert known.n_params == 2 * layer + 2 * 320 * 256 + 256
    assert (
        known.quant_bytes == {"BF16": 2 * known.n_params}
        and known.size_bytes == 2 * known.n_params
    )
    assert known.has_chat_template and (known.tokenizer, known.bos_token_id) == (
        "LlamaTokenizer",
        0,
    )
    assert known.hparams["architectures"] == "LlamaForCausalLM"
    assert (
        len(shape.kinds) == 1
        and shape.weights_bytes == known.size_bytes
        and not shape.is_tied
    )
    assert ModelShape.from_dict(json.loads(json.dumps(shape.to_dict()))) == shape


@pytest.mark.parametrize(
    ("quantisation", "dtype", "name", "bits"),
    [
        (None, "BF16", "BF16", 16),
        (None, "F16", "FP16", 16),
        (None, "F32", "FP32", 32),
        (AWQ, "F16", "AWQ", 4.16),
        (GPTQ, "F16", "GPTQ", 4.16),
        (FP8, "BF16", "FP8", 8.002),
        (EXL3, "F16", "EXL3", 4.01),
    ],
)
def test_packed_weights_are_counted_as_what_they_stand_for(
    tmp_path: Path,
    quantisation: dict[str, Any] | None,
    dtype: str,
    name: str,
    bits: float,
) -> None:
    changes = {"quantization_config": quantisation} if quantisation else {}
    folder = write_folder(tmp_path / "m", QWEN3_32B, dtype=dtype, **changes)
    known, shape = folder_facts(read_folder(folder)), shape_of(folder)
    assert known.quant == name
    # Layers, without the embedding and the output that are never quantised; in thousand millions.
    assert known.n_params == pytest.approx(32.762e9, rel=1e-3)
    layers = sum(kind.n_bytes for kind in shape.layer_kinds())
    assert layers * 8 / (known.n_params - 2 * 151936 * 5120) == pytest.approx(
        bits, rel=0.01
    )
    assert shape.kinds[0].by_name["attn_q.weight"].shape == (5120, 8192)
    assert shape.kinds[0].by_name["ffn_down.weight"].shape == (25600, 5120)


def groups(**weights: object) -> dict[str, Any]:
    return {
        "quant_method": "compressed-tensors",
        "config_groups": {"group_0": {"weights": weights}},
    }


@pytest.mark.parametrize(
    ("quantisation", "name"),
    [
        (groups(num_bits=4, type="int"), "INT4"),
        (groups(num_bits=8, type="float"), "FP8"),
        (groups(num_bits=4, type="float"), "NVFP4"),
        ({"quant_method": "fbgemm_fp8"}, "FP8"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "BNB-NF4"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "BNB-INT8"),
        ({"quant_method": "modelopt", "quant_algo": "nvfp4"}, "NVFP4"),
        ({"quant_method": "exl2", "bits": 4.65}, "EXL2"),
        ({"quant_method": "mxfp4"}, "MXFP4"),
        ({"quant_method": 7, "config_groups": 9}, "7"),
        ({}, "BF16"),
    ],
)
def test_names_of_quantisations(quantisation: dict[str, Any], name: str) -> None:
    assert quant_name(quantisation, {"BF16": 10, "I32": 2}) == name


@pytest.mark.parametrize(
    ("name", "at"),
    [
        ("model.layers.3.self_attn.q_proj.weight", (3, "attn_q")),
        ("model.language_model.layers.11.mlp.down_proj.qweight", (11, "ffn_down")),
        ("transformer.h.0.attn.c_attn.weight", (0, "attn_qkv")),
        ("model.layers.1.mlp.experts.17.up_proj.weight", (1, "ffn_up_exps")),
        ("model.layers.1.block_sparse_moe.experts.7.w2.weight", (1, "ffn_down_exps")),
        ("model.layers.1.mlp.experts.gate_up_proj_blocks", (1, "ffn_gate_up_exps")),
        ("model.layers.1.mlp.shared_experts.up_proj.weight", (1, "ffn_up_shexp")),
        ("model.layers.1.mlp.gate.weight", (1, "ffn_gate_inp")),
        ("model.layers.5.linear_attn.in_proj_qkvz.weight", (5, "ssm_in_proj_qkvz")),
        ("model.embed_tokens.weight", (None, "token_embd")),
        ("lm_head.weight", (None, "output")),
        ("visual.blocks.3.attn.qkv.weight", (None, "senses")),
        ("model.vision_tower.encoder.layers.2.fc1.weight", (None, "senses")),
        ("something.else", (None, "something")),
    ],
)
def test_names_of_tensors(name: str, at: tuple[int | None, str]) -> None:
    assert place(name) == at


def mixture(experts: int) -> list[Tensor]:
    tensors: list[Tensor] = [("model.embed_tokens.weight", "BF16", (320, 256))]
    for layer in ("model.layers.0.", "model.layers.1."):
        tensors += [
            (f"{layer}self_attn.{part}.weight", "BF16", (256, 256))
            for part in ("q_proj", "k_proj", "v_proj", "o_proj")
        ]
        tensors += [(f"{layer}mlp.gate.weight", "BF16", (experts, 256))]
        for number in range(experts):
            tensors += [
                (f"{layer}mlp.experts.{number}.{part}.weight", "BF16", (64, 256))
                for part in ("gate_proj", "up_proj")
            ]
            tensors += [
                (f"{layer}mlp.experts.{number}.down_proj.weight", "BF16", (256, 64))
            ]
    return tensors


def test_experts_are_one_tensor_and_only_the_chosen_ones_are_active(
    tmp_path: Path,
) -> None:
    changes = {"num_experts": 8, "num_experts_per_tok": 2, "model_type": "qwen3_moe"}
    folder = write_folder(tmp_path / "m", tensors=mixture(8), **changes)
    known, shape = folder_facts(read_folder(folder)), shape_of(folder)
    assert (known.n_expert, known.n_expert_used) == (8, 2)
    expert_params = 2 * 8 * 3 * 64 * 256
    assert known.n_params - known.n_params_active == expert_params * 6 // 8
    assert shape.expert_bytes == 2 * expert_params and len(shape.kinds) == 1
    assert shape.kinds[0].by_name["ffn_up_exps.weight"].shape == (256, 64, 8)
    assert shape.is_tied and shape.weights_bytes == known.size_bytes


@pytest.mark.parametrize(
    ("changes", "attention", "windows", "kv"),
    [
        ({}, "GQA", [False] * 4, [True] * 4),
        ({"num_key_value_heads": 1}, "MQA", [False] * 4, [True] * 4),
        ({"num_key_value_heads": None}, "MHA", [False] * 4, [True] * 4),
        ({"sliding_window": 128}, "SWA", [True] * 4, [True] * 4),
        (
            {"sliding_window": 128, "use_sliding_window": False},
            "GQA",
            [False] * 4,
            [True] * 4,
        ),
        (
            {"sliding_window": 128, "sliding_window_pattern": 2},
            "SWA",
            [True, False, True, False],
            [True] * 4,
        ),
        (
            {"sliding_window": 128, "model_type": "gemma2"},
            "SWA",
            [True, False, True, False],
            [True] * 4,
        ),
        (
            {
                "sliding_window": 128,
                "layer_types": ["full_attention", "sliding_attention"] * 2,
            },
            "SWA",
            [False, True, False, True],
            [True] * 4,
        ),
        (
            {
                "layer_types": ["linear_attention"] * 3 + ["full_attention"],
                "linear_num_key_heads": 2,
                "linear_key_head_dim": 8,
                "linear_num_value_heads": 4,
                "linear_value_head_dim": 8,
                "linear_conv_kernel_dim": 4,
            },
            "hybrid",
            [False] * 4,
            [False] * 3 + [True],
        ),
        ({"kv_lora_rank": 32, "qk_rope_head_dim": 16}, "MLA", [False] * 4, [True] * 4),
    ],
)
def test_what_each_layer_keeps(
    tmp_path: Path,
    changes: dict[str, Any],
    attention: str,
    windows: list[bool],
    kv: list[bool],
) -> None:
    folder = (
        write_folder(tmp_path / "m", num_hidden_layers=4, **changes)
        if changes.get("num_key_value_heads", 1)
        else None
    )
    folder = folder or write_folder(
        tmp_path / "m",
        {**LLAMA, "num_hidden_layers": 4},
        **changes,
        tensors=[("a", "F16", (1,))],
    )
    known, shape = folder_facts(read_folder(folder)), shape_of(folder)
    assert known.attention == attention
    kinds = list(shape.layer_kinds())
    assert ([kind.is_swa for kind in kinds], [kind.has_kv for kind in kinds]) == (
        windows,
        kv,
    )
    if attention == "MLA":
        assert shape.is_mla and kinds[0].head_dim_k == 48
    if attention == "hybrid":
        assert (kinds[0].state_r, kinds[0].state_s, kinds[3].state_s) == (
            3 * (2 * 16 + 32),
            32 * 8,
            0,
        )


def test_layers_beyond_the_configs_predict_ahead_and_are_not_loaded(
    tmp_path: Path,
) -> None:
    folder = write_folder(tmp_path / "m", num_hidden_layers=3)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps({**config, "num_hidden_layers": 2, "num_nextn_predict_layers": 1})
    )
    shape = shape_of(folder)
    assert (shape.n_layer, shape.n_nextn) == (3, 1)
    assert [kind.has_kv for kind in shape.layer_kinds()] == [True, True, False]


def test_of_a_model_that_sees_the_text_part_counts(tmp_path: Path) -> None:
    tensors: list[Tensor] = [
        ("visual.blocks.0.w.weight", "BF16", (64, 64)),
        ("visual.merger.b", "BF16", (64,)),
    ]
    config = {
        "architectures": ["SeesForCausalLM"],
        "model_type": "sees",
        "text_config": {**LLAMA, "model_type": "sees_text"},
    }
    folder = tmp_path / "m"
    folder.mkdir()
    write_folder(folder, {}, tensors=tensors, **config)
    known, shape = folder_facts(read_folder(folder)), shape_of(folder)
    assert (known.arch, known.n_layer, known.hparams["architectures"]) == (
        "sees_text",
        2,
        "SeesForCausalLM",
    )
    assert known.n_params == 64 * 64 + 64 and shape.weights_bytes == 2 * known.n_params


WEIRD: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1,
    7,
    2**70,
    1.5,
    float("inf"),
    float("nan"),
    "",
    "x",
    "\ud800\0",
    [],
    [None],
    [[1]],
    {},
    {"a": []},
    ["full_attention", 3],
    [1] * 3,
    {"weights": 1},
    [float("nan")],
)
RICH: dict[str, Any] = {
    **LLAMA,
    "head_dim": 64,
    "sliding_window": 64,
    "use_sliding_window": True,
    "layer_types": ["linear_attention"] * 2,
    "sliding_window_pattern": 2,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "kv_lora_rank": 0,
    "text_config": {},
    "quantization_config": {
        "quant_method": "compressed-tensors",
        "config_groups": {"a": {"weights": {"num_bits": 4}}},
    },
    "mamba_d_state": 8,
    "conv_kernel": 4,
    "num_nextn_predict_layers": 1,
    "multi_query": False,
    "n_groups": 1,
}


def test_every_key_may_have_any_value_and_all_that_happens_is_the_one_error(
    tmp_path: Path,
) -> None:
    folder = write_folder(tmp_path / "m", shards=2)
    outcomes = {"read": 0, "refused": 0}
    for key in RICH:
        for value in WEIRD:
            (folder / "config.json").write_text(json.dumps({**RICH, key: value}))
            try:
                header = read_folder(folder)
                kept = {
                    "facts": folder_facts(header).as_dict(),
                    "shape": folder_shape(header).to_dict(),
                }
            except FolderError as error:
                assert str(error).encode() and str(error).startswith("config.json")
                outcomes["refused"] += 1
                continue
            assert "\\u0000" not in json.dumps(kept, allow_nan=False)
            json.dumps(kept, ensure_ascii=False).encode()
            outcomes["read"] += 1
    assert min(outcomes.values()) > 50, outcomes
