"""What a person and the planner want to know of a model that is a folder, from config.json and the
tensors."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeGuard

from deployments.formats.expert_tensors import EXPERT_TENSORS
from deployments.formats.folder_tensors import FolderTensor, parts, quant_name
from deployments.formats.gguf_window import printable
from deployments.formats.kinds import kind_of_folder
from deployments.formats.limits import MAX_HPARAMS, MAX_LAYERS, MAX_NUMBER, MAX_TEXT
from deployments.formats.model_facts import ModelFacts
from deployments.formats.model_folder import CONFIG, TEMPLATES, TOKENIZERS, FolderHeader
from deployments.formats.safetensors import FolderError

# The same thing under the names that families of models have for it.
LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
WIDTH = ("hidden_size", "n_embd", "d_model", "dim")
HEADS = ("num_attention_heads", "n_head", "n_heads")
KV_HEADS = ("num_key_value_heads", "num_kv_heads", "n_head_kv", "multi_query_group_num")
CONTEXT = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "n_ctx",
)
FEED_FORWARD = ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size")
EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
USED = ("num_experts_per_tok", "num_experts_per_token", "moe_top_k", "top_k_experts")
LINEAR = frozenset(
    {"linear_attention", "mamba", "mamba2", "recurrent", "conv", "gated_delta_net"}
)
# Looked at every so many layers, and never by default: modeling_gemma2.py, modeling_gemma3.py,
# modeling_cohere2.py.
WINDOW_PERIODS = {
    "gemma2": 2,
    "gemma3": 6,
    "gemma3_text": 6,
    "cohere2": 4,
    "gpt_oss": 2,
}


class Config:
    """Values of config.json in the type they have to have.

    Raises FolderError (folder_invalid) for any other.
    """

    def __init__(self, header: FolderHeader) -> None:
        self.header, self.values = header, header.text_config

    def fail(self, key: str, value: Any, wanted: str) -> FolderError:
        text = f"{printable(key)} is {printable(repr(value))}, not {wanted}"
        return FolderError("folder_invalid", self.header.folder / CONFIG, text)

    def number(self, *keys: str) -> int:
        """Of the first key that is there, of a list the largest; 0 without any."""
        return max(self.numbers(*keys), default=0)

    def numbers(self, *keys: str) -> tuple[int, ...]:
        """One number, or those of a list with one for each layer."""
        key = next((key for key in keys if self.values.get(key) is not None), None)
        value = self.values[key] if key else []
        listed = value if isinstance(value, list) else [value]
        if len(listed) > MAX_LAYERS:
            raise self.fail(str(key), value, f"at most {MAX_LAYERS} numbers")
        return tuple(self._whole(str(key), one) for one in listed if one is not None)

    def _whole(self, key: str, value: Any) -> int:
        if isinstance(value, float) and value.is_integer():
            number = int(value)
        else:
            number = value
        if type(number) is not int or not 0 <= number <= MAX_NUMBER:
            raise self.fail(key, value, f"a whole number up to {MAX_NUMBER}")
        return number

    @cached_property
    def n_layer(self) -> int:
        layers = self.number(*LAYERS)
        if layers > MAX_LAYERS:
            raise self.fail(
                next(key for key in LAYERS if key in self.values),
                layers,
                f"at most {MAX_LAYERS}",
            )
        return layers

    def of_layers(self, *keys: str) -> tuple[int, ...]:
        """One number for each layer."""
        found = self.numbers(*keys)
        count = self.n_layer
        if len(found) == count:
            return found
        return found[:1] * count

    @cached_property
    def n_head(self) -> tuple[int, ...]:
        return self.of_layers(*HEADS)

    @cached_property
    def n_head_kv(self) -> tuple[int, ...]:
        if self.values.get("multi_query") is True and not self.numbers(*KV_HEADS):
            return (1,) * self.n_layer
        return self.of_layers(*KV_HEADS) or self.n_head

    @property
    def head_dim(self) -> int:
        heads = self.number(*HEADS)
        return self.number("head_dim", "kv_channels") or (
            self.number(*WIDTH) // heads if heads else 0
        )

    @property
    def model_type(self) -> str:
        kind = self.values.get("model_type")
        if isinstance(kind, str):
            return printable(kind, MAX_TEXT)
        return ""

    @property
    def arch(self) -> str:
        """The model's type; where there is none the class that is to load it."""
        return self.model_type or next(iter(self.classes), "")

    @property
    def classes(self) -> tuple[str, ...]:
        named = self.header.config.get("architectures")
        if _is_list(named):
            return tuple(
                printable(name, MAX_TEXT) for name in named if isinstance(name, str)
            )
        return ()

    @property
    def quantisation(self) -> Mapping[str, Any]:
        found = self.header.config.get("quantization_config") or self.values.get(
            "quantization_config"
        )
        if isinstance(found, dict):
            return found
        return {}

    @cached_property
    def layer_types(self) -> tuple[str, ...]:
        """What each layer attends to, where it is said."""
        found = self.values.get("layer_types") or self.values.get("layers_block_type")
        if _is_list(found) and len(found) == self.n_layer:
            return tuple(map(str, found))
        return ()

    @cached_property
    def window(self) -> int:
        """Tokens a layer with a sliding window sees; 0: every layer sees everything."""
        if self.values.get("use_sliding_window") is False:
            return 0
        return self.number("sliding_window")

    @cached_property
    def is_windowed(self) -> tuple[bool, ...]:
        """Of each layer whether it sees only the window."""
        count = self.n_layer
        if not self.window:
            return (False,) * count
        types = self.layer_types
        if types:
            return tuple("sliding" in kind for kind in types)
        period = self.number("sliding_window_pattern") or WINDOW_PERIODS.get(
            self.arch, 0
        )
        return tuple(not period or (index + 1) % period != 0 for index in range(count))


def _is_list(value: Any) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


# --- facts ----------------------------------------------------------------------------------------
def folder_facts(header: FolderHeader) -> ModelFacts:
    """Raises FolderError (folder_invalid) where config.json makes no sense."""
    config = Config(header)
    tensors = list(parts(header.tensors, config.quantisation))
    by_type: Counter[str] = Counter()
    for tensor in tensors:
        by_type[tensor.dtype] += tensor.n_bytes
    experts = config.number(*EXPERTS)
    used = config.number(*USED)
    whole = sum(t.n_elements for t in tensors if not t.is_helper)
    return ModelFacts(
        name=printable(header.folder.name, MAX_TEXT),
        arch=config.arch,
        n_params=min(whole, MAX_NUMBER),
        n_params_active=_active(tensors, whole, used, experts),
        quant=quant_name(config.quantisation, by_type),
        size_bytes=header.weights_bytes,
        n_layer=config.n_layer or None,
        n_ctx_train=config.number(*CONTEXT) or None,
        n_embd=config.number(*WIDTH) or None,
        n_ff=config.number(*FEED_FORWARD) or None,
        n_head=config.n_head,
        n_head_kv=config.n_head_kv,
        head_dim_k=config.head_dim or None,
        head_dim_v=config.head_dim or None,
        n_expert=experts,
        n_expert_used=used,
        n_vocab=config.number("vocab_size"),
        attention=_attention(config),
        sliding_window=config.window or None,
        n_nextn_layers=config.number("num_nextn_predict_layers"),
        kind=kind_of_folder(
            config.model_type,
            config.classes,
            is_diffusers="_diffusers_version" in header.config,
        ),
        quant_bytes=dict(by_type),
        hparams=_hparams(config),
        **_tokenizer(header, config),
    )


def _active(
    tensors: Iterable[FolderTensor], whole: int, used: int, experts: int
) -> int:
    """Parameters that one token passes: of the experts only those that the router picks."""
    if not experts or not used:
        return min(whole, MAX_NUMBER)
    own = sum(
        t.n_elements
        for t in tensors
        if not t.is_helper and t.name.rsplit(".", 1)[0] in EXPERT_TENSORS
    )
    return min(whole - own + own * min(used, experts) // experts, MAX_NUMBER)


def _attention(config: Config) -> str:
    """One word for how the KV cache grows, as of a GGUF."""
    types = config.layer_types
    linear = [kind in LINEAR for kind in types]
    if types and all(linear):
        return "recurrent"
    if any(linear):
        return "hybrid"
    if config.number("kv_lora_rank"):
        return "MLA"
    if config.window:
        return "SWA"
    heads = config.number(*HEADS)
    kv = max(config.n_head_kv, default=0)
    if not heads:
        return ""
    if kv in (0, heads):
        return "MHA"
    if kv == 1:
        return "MQA"
    return "GQA"


def _tokenizer(header: FolderHeader, config: Config) -> dict[str, Any]:
    named = header.tokenizer_config.get("tokenizer_class")
    files = [name for name in TOKENIZERS if name in header.names]
    template = bool(header.tokenizer_config.get("chat_template")) or any(
        name in header.names for name in TEMPLATES
    )
    return {
        "tokenizer": (
            printable(named, MAX_TEXT)
            if isinstance(named, str) and files
            else next(iter(files), "")
        ),
        "bos_token_id": _token_id(config, "bos_token_id"),
        "eos_token_id": _token_id(config, "eos_token_id"),
        "has_chat_template": template,
    }


def _token_id(config: Config, key: str) -> int | None:
    """The first where there are several."""
    value = config.values.get(key)
    first = value[0] if isinstance(value, list) and value else value
    if type(first) is int and 0 <= first <= MAX_NUMBER:
        return first
    return None


def _hparams(config: Config) -> dict[str, Any]:
    """What config.json says in numbers, short texts and lists of numbers."""
    plain = {
        printable(key): _plain(value)
        for key, value in list(config.values.items())[:MAX_HPARAMS]
    }
    known = {key: value for key, value in plain.items() if value is not None}
    return known | (
        {"architectures": ", ".join(config.classes)[:MAX_TEXT]}
        if config.classes
        else {}
    )


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value, MAX_TEXT)
    if isinstance(value, list):
        if len(value) <= MAX_LAYERS and _are_finite(value):
            return value
        return None
    if _are_finite([value]):
        return value
    return None


def _are_finite(values: Sequence[Any]) -> bool:
    return all(
        isinstance(v, int | float) and abs(v) <= MAX_NUMBER and math.isfinite(v)
        for v in values
    )
