"""What the page of a model says: its facts in words."""

from __future__ import annotations

from collections.abc import Sequence

from deployments.formats.kinds import DEPLOYABLE, TITLES, Kind
from deployments.formats.model_facts import ModelFacts
from deployments.formats.projectors import Medium, projector_of
from omni.units import UNKNOWN, count_text

_ATTENTION = {
    "MHA": "every head has its own keys and values (MHA)",
    "GQA": "groups of heads share keys and values (GQA)",
    "MQA": "all heads share one set of keys and values (MQA)",
    "MLA": "keys and values are stored compressed (MLA)",
    "SWA": "most layers see only the last tokens (sliding window)",
    "recurrent": "none; a state of fixed size in place of a KV cache (recurrent)",
    "hybrid": "in some layers; the others keep a state of fixed size (hybrid)",
}
# llama.cpp, llama_vocab::impl::load: tokenizer.ggml.model.
_TOKENIZERS = {
    "llama": "SentencePiece",
    "gpt2": "byte-pair encoding",
    "bert": "WordPiece",
    "t5": "Unigram",
    "rwkv": "RWKV",
    "gemma4": "byte-pair encoding",
    "plamo2": "PLaMo-2",
    "none": "none",
    "no_vocab": "none",
}


_MEDIA = {Medium.IMAGE: "images", Medium.AUDIO: "audio"}


# --- facts ----------------------------------------------------------------------------------------
def fact_rows(facts: ModelFacts) -> list[tuple[str, str]]:
    """(title, text) in the order of the page; what a file of this kind does not have is left
    out."""
    if facts.is_projector:
        rows = [
            *_identity(facts),
            ("Made for models of width", number(facts.projection_dim)),
            *_projector(facts),
        ]
    elif facts.kind not in (*DEPLOYABLE, Kind.DRAFT):
        rows = _identity(facts)
    else:
        rows = [*_identity(facts), *_shape(facts), *_text(facts)]
    return [*rows, ("Licence", facts.licence or "the file names none")]


def _projector(facts: ModelFacts) -> list[tuple[str, str]]:
    """What it lets a model take, and what that costs."""
    found = projector_of(facts.as_dict())
    if found is None:
        return []
    takes = " and ".join(_MEDIA[each] for each in sorted(found.media)) or UNKNOWN
    rows = [("Lets a model take", takes)]
    kinds = dict.fromkeys(filter(None, (found.vision.type, found.audio.type)))
    if kinds:
        rows.append(("Type of projector", ", ".join(kinds)))
    if found.sees:
        rows += [
            ("Image size", f"{number(found.image_size or None)} pixels a side"),
            ("An image becomes", f"up to {number(found.tokens)} tokens"),
        ]
    return rows


def _identity(facts: ModelFacts) -> list[tuple[str, str]]:
    rows = [("Title", facts.name or UNKNOWN), ("Architecture", facts.arch or UNKNOWN)]
    if facts.kind != Kind.TEXT:
        rows.append(("Kind", TITLES[Kind(facts.kind)]))
    parameters = count_text(facts.n_params)
    if facts.n_expert:
        if facts.n_params:
            share = 100 * facts.n_params_active / facts.n_params
        else:
            share = 0
        parameters += (
            f", {count_text(facts.n_params_active)} active per token ({share:.0f} %)"
        )
    return [*rows, ("Parameters", parameters), ("Quantisation", facts.quant or UNKNOWN)]


def _shape(facts: ModelFacts) -> list[tuple[str, str]]:
    rows = [
        ("Layers", number(facts.n_layer)),
        ("Width", number(facts.n_embd)),
        ("Attention", attention(facts)),
    ]
    heads = spread(facts.n_head)
    if heads:
        keys = spread(facts.n_head_kv)
        rows.append(
            (
                "Heads",
                heads
                + (f", {keys} for keys and values" if keys and keys != heads else ""),
            )
        )
    if facts.n_expert:
        rows.append(
            (
                "Experts",
                (
                    f"{number(facts.n_expert)} per layer, {number(facts.n_expert_used)}"
                    " used per token"
                ),
            )
        )
    if facts.n_nextn_layers:
        plural = "layer" if facts.n_nextn_layers == 1 else "layers"
        rows.append(
            (
                "Built-in drafting",
                f"{facts.n_nextn_layers} {plural} for multi-token prediction (MTP)",
            )
        )
    return rows


def _text(facts: ModelFacts) -> list[tuple[str, str]]:
    if facts.n_ctx_train:
        context = f"{number(facts.n_ctx_train)} tokens"
    else:
        context = UNKNOWN
    rows = [("Context it was trained for", context), ("Tokenizer", tokenizer(facts))]
    if facts.is_embedding:
        rows.append(("Pooling", facts.pooling or "the file does not say"))
    else:
        rows.append(
            (
                "Chat template",
                (
                    "in the file"
                    if facts.has_chat_template
                    else "none; a general one is used"
                ),
            )
        )
    return rows


def attention(facts: ModelFacts) -> str:
    text = _ATTENTION.get(facts.attention, UNKNOWN)
    if facts.attention == "SWA" and facts.sliding_window:
        return (
            f"most layers see only the last {number(facts.sliding_window)} tokens"
            " (sliding window)"
        )
    return text


def tokenizer(facts: ModelFacts) -> str:
    """Its method, its own name in the file, and how many tokens it knows."""
    if not facts.tokenizer:
        return UNKNOWN
    own = "/".join(filter(None, (facts.tokenizer, facts.tokenizer_pre)))
    method = _TOKENIZERS.get(facts.tokenizer)
    name = f"{method} ({own})" if method else own
    if facts.n_vocab:
        return f"{name}, {number(facts.n_vocab)} tokens"
    return name


def number(value: int | None) -> str:
    """131072 → '131,072'."""
    if value is None:
        return UNKNOWN
    return f"{value:,}"


def spread(values: Sequence[int]) -> str:
    """One number, or the smallest and the largest where layers differ; layers that have none do not
    count."""
    some = [value for value in values if value]
    if not some:
        return ""
    if min(some) == max(some):
        return str(some[0])
    return f"{min(some)} to {max(some)}"
