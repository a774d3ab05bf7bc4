"""What a model file is for: text, embeddings, a part of another model, or nothing that an engine
serves.

The kind is told by what the file says of itself, never by its name: general.type and
general.architecture (gguf-py, constants.py: GGUFType), <arch>.pooling_type (llama.h, enum
llama_pooling_type), the number of tensors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum


class Kind(StrEnum):
    TEXT = "text"
    EMBEDDING = "embedding"
    RERANKER = "reranker"
    DRAFT = "draft"
    PROJECTOR = "projector"
    ADAPTER = "adapter"
    CONTROL_VECTOR = "control_vector"
    IMATRIX = "imatrix"
    VOCABULARY = "vocabulary"
    OTHER = "other"

    @classmethod
    def _missing_(cls, value: object) -> Kind:
        """What an earlier version, or the file itself, calls by a word that is none of these."""
        return cls.OTHER


TITLES: Mapping[str, str] = {
    Kind.TEXT: "text model",
    Kind.EMBEDDING: "embedding model",
    Kind.RERANKER: "reranker",
    Kind.DRAFT: "draft for one model",
    Kind.PROJECTOR: "projector",
    Kind.ADAPTER: "LoRA adapter",
    Kind.CONTROL_VECTOR: "control vector",
    Kind.IMATRIX: "importance matrix",
    Kind.VOCABULARY: "vocabulary only",
    Kind.OTHER: "not a language model",
}

# What a person can do with a file of this kind; nothing has to be said of a text model.
USES: Mapping[str, str] = {
    Kind.TEXT: "",
    Kind.EMBEDDING: "It turns texts into vectors. It can be deployed, and it does not chat.",
    Kind.RERANKER: (
        "It orders texts by how well they answer a query. It can be deployed, and it does not chat."
    ),
    Kind.DRAFT: "It drafts for the one model it was made for, and cannot be deployed by itself.",
    Kind.PROJECTOR: "It lets another model see or hear, and cannot be deployed by itself.",
    Kind.ADAPTER: "It changes how another model answers, and cannot be deployed by itself.",
    Kind.CONTROL_VECTOR: "It steers another model's answers, and cannot be deployed by itself.",
    Kind.IMATRIX: "It tells a quantiser which weights matter. No engine runs it.",
    Kind.VOCABULARY: "It has a vocabulary and no weights. No engine runs it.",
    Kind.OTHER: (
        "The engines that Omni runs answer with text; this file needs a program of its own."
    ),
}

# What an engine serves by itself; of these only text models chat.
DEPLOYABLE = frozenset({Kind.TEXT, Kind.EMBEDDING, Kind.RERANKER})
# What may play the role of a draft.
DRAFTING = frozenset({Kind.TEXT, Kind.DRAFT})
WITHOUT_TEXT = frozenset({Kind.EMBEDDING, Kind.RERANKER})

# llama.cpp, src/models/*.cpp: those whose graph has no cache and no next token.
ENCODERS = frozenset(
    {
        "bert",
        "eurobert",
        "gemma-embedding",
        "jina-bert-v2",
        "jina-bert-v3",
        "llama-embed",
        "modern-bert",
        "neo-bert",
        "nomic-bert",
        "nomic-bert-moe",
        "t5encoder",
    }
)
# Files that draft for one target only (llama.cpp, common/speculative.cpp).
DEDICATED_DRAFTS = frozenset({"eagle3", "dflash", "gemma4-assistant"})
# They hear, speak, paint, or write by diffusion; GGUFs of whisper.cpp, stable-diffusion.cpp,
# ComfyUI and others.
NOT_TEXT = frozenset(
    {
        "auraflow",
        "bark",
        "chroma",
        "clip-vision",
        "cosmos",
        "dream",
        "encodec",
        "flux",
        "flux2",
        "hidream",
        "hunyuan_video",
        "hyvid",
        "llada",
        "llada-moe",
        "ltxv",
        "lumina2",
        "mochi",
        "parakeet",
        "parler-tts",
        "qwen_image",
        "rnd1",
        "sd1",
        "sd2",
        "sd3",
        "sdxl",
        "stable-diffusion",
        "voxtral-tts",
        "wan",
        "wavtokenizer-dec",
        "whisper",
        "z_image",
    }
)

POOLING = ("none", "mean", "cls", "last", "rank")
RANK = POOLING.index("rank")
_TYPES: Mapping[str, Kind] = {
    "adapter": Kind.ADAPTER,
    "controlvector": Kind.CONTROL_VECTOR,
    "control_vector": Kind.CONTROL_VECTOR,
    "imatrix": Kind.IMATRIX,
    "mmproj": Kind.PROJECTOR,
    "projector": Kind.PROJECTOR,
}
_ARCHS: Mapping[str, Kind] = {
    "clip": Kind.PROJECTOR,
    "controlvector": Kind.CONTROL_VECTOR,
    **dict.fromkeys(DEDICATED_DRAFTS, Kind.DRAFT),
    **dict.fromkeys(NOT_TEXT, Kind.OTHER),
}


def kind_of_gguf(
    *,
    arch: str,
    general_type: str,
    n_tensors: int,
    n_vocab: int,
    pooling: int | None,
    has_labels: bool = False,
) -> Kind:
    """What a GGUF is for. `pooling` is its pooling_type, `has_labels` whether it classifies."""
    found = _TYPES.get(general_type.lower())
    if found:
        return found
    if not n_tensors:
        if n_vocab:
            return Kind.VOCABULARY
        return Kind.OTHER
    if not arch:
        return Kind.OTHER
    found = _ARCHS.get(arch.lower())
    if found:
        return found
    if general_type not in ("", "model"):
        return Kind.OTHER
    if pooling == RANK or (has_labels and arch in ENCODERS):
        return Kind.RERANKER
    if arch in ENCODERS or (pooling or 0) > 0:
        return Kind.EMBEDDING
    return Kind.TEXT


# --- folders with safetensors ---------------------------------------------------------------------
# transformers, model_type of config.json.
_FOLDER_ENCODERS = frozenset(
    {
        "albert",
        "bert",
        "camembert",
        "deberta",
        "deberta-v2",
        "distilbert",
        "electra",
        "eurobert",
        "modernbert",
        "mpnet",
        "neobert",
        "new",
        "nomic_bert",
        "roberta",
        "xlm-roberta",
    }
)
_FOLDER_OTHERS = frozenset(
    {
        "clip",
        "clip_vision_model",
        "dinov2",
        "encodec",
        "siglip",
        "siglip2",
        "vit",
        "vits",
        "wav2vec2",
        "whisper",
    }
)


def kind_of_folder(
    model_type: str, classes: Iterable[str], *, is_diffusers: bool = False
) -> Kind:
    """What a folder with safetensors is for, by its model_type and the classes that load it."""
    classes = tuple(classes)
    if is_diffusers or model_type in _FOLDER_OTHERS:
        return Kind.OTHER
    if any(name.endswith("ForSequenceClassification") for name in classes):
        return Kind.RERANKER
    if model_type in _FOLDER_ENCODERS or (
        classes and all(name.endswith("EmbeddingModel") for name in classes)
    ):
        return Kind.EMBEDDING
    return Kind.TEXT


def is_deployable(kind: str) -> bool:
    return kind in DEPLOYABLE


def article(kind: str) -> str:
    """'an embedding model', 'a projector', 'vocabulary only'."""
    title = TITLES[Kind(kind)]
    if kind in (Kind.VOCABULARY, Kind.OTHER):
        return title
    return f"{'an' if title[0] in 'aeiou' else 'a'} {title}"
