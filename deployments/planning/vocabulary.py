"""Whether one model can draft for another: llama.cpp's rules, decided from a few stored facts.

Rules: common/speculative.cpp (common_speculative_are_compatible) over a vocabulary as
src/llama-vocab.cpp (load) makes it of a file, with its defaults.
tests/real/test_draft_compatibility.py holds them against the real server. Beyond what is often
written of them: the ids of BOS and EOS count only where they are added to a prompt, and the
pre-tokenizer does not count at all, as the draft is given token ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any

from deployments.formats.gguf import TOKENS, GgufHeader, LazyArray
from deployments.formats.header_values import HeaderValues

# common/speculative.cpp: SPEC_VOCAB_MAX_SIZE_DIFFERENCE, SPEC_VOCAB_CHECK_START_TOKEN_ID.
MAX_SIZE_DIFFERENCE = 128
FIRST_COMPARED = 5
MOST_KNOWN = 256
_known_prefixes: dict[str, str] = {}
_DIGEST = 16  # hexadecimal digits kept of each digest


@dataclass(frozen=True)
class _Defaults:
    """What a kind of tokenizer is, and what it does where the file is silent (llama-vocab.cpp,
    load)."""

    kind: str
    bos: int | None = None
    eos: int | None = None
    add_bos: bool = False
    add_eos: bool = False


_BPE = _Defaults("BPE", 11, 11)
# By tokenizer.ggml.model.
_MODELS: Mapping[str, _Defaults] = {
    "llama": _Defaults("SPM", 1, 2, add_bos=True),
    "gpt2": _BPE,
    "hybriddna": _BPE,
    "whitespace": _BPE,
    "gemma4": _Defaults("BPE"),
    "bert": _Defaults("WPM", 101, None, add_bos=True),
    "t5": _Defaults("UGM", None, 1, add_eos=True),
    "rwkv": _Defaults("RWKV"),
    "plamo2": _Defaults("PLaMo2", 1, 2),
}
# By tokenizer.ggml.pre, for BPE only.
_ADDS_BOS = frozenset(
    {
        "llama3",
        "llama-v3",
        "llama-bpe",
        "falcon3",
        "falcon-h1",
        "pixtral",
        "midm-2.0",
        "lfm2",
        "jina-v5-nano",
        "tekken",
        "chameleon",
    }
)
_ALWAYS_ADDS_BOS = frozenset({"gemma4", "granite-embed-multi-311m"})
_NO_BOS = frozenset({"chatglm-bpe", "glm4", "glm5"})


@dataclass(frozen=True)
class VocabFacts:
    """A vocabulary as far as drafting needs it: about 2 kB as JSON, to be kept with the model.

    `kind` is the engine's type (SPM, BPE, WPM, UGM, RWKV, PLaMo2); empty: unknown or none.
    `prefixes` are digests of the token texts from id 5 on: of all of them, then without the last,
    the last two, … the last 128. The rules allow sizes to differ by 128, so these decide whether
    the texts are equal up to the smaller vocabulary.
    """

    kind: str = ""
    n_vocab: int = 0
    bos: int | None = None
    eos: int | None = None
    add_bos: bool = False
    add_eos: bool = False
    prefixes: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> VocabFacts:
        """Unknown keys are left out; an empty mapping is a vocabulary that nobody knows."""
        return cls(
            **{
                key: value
                for key, value in data.items()
                if key in cls.__dataclass_fields__
            }
        )

    def prefix(self, without_last: int) -> str:
        """The digest without so many tokens at the end; 0 to 128."""
        return self.prefixes[without_last * _DIGEST : (without_last + 1) * _DIGEST]


@dataclass(frozen=True)
class Compatibility:
    """`code` is compatible, or why not: vocab_unknown, vocab_type, vocab_bos, vocab_eos,
    vocab_size, vocab_texts."""

    ok: bool
    code: str
    text: str


def vocab_facts(header: GgufHeader) -> VocabFacts:
    """What the engine makes of the file's vocabulary. Reads all token texts. Raises GgufError."""
    values = HeaderValues(header)
    model = values.text("tokenizer.ggml.model")
    pre = values.text("tokenizer.ggml.pre")
    defaults = _MODELS.get(model)
    if defaults is None or not header.get(TOKENS):
        return VocabFacts(n_vocab=header.n_vocab)
    # Only this kind has more than one.
    if defaults.kind == "BPE":
        pre = "gemma4" if model == "gemma4" else pre
    else:
        pre = ""
    size = header.n_vocab
    adds_bos = _flag(values, "add_bos_token", defaults.add_bos or pre in _ADDS_BOS)
    return VocabFacts(
        kind=defaults.kind,
        n_vocab=size,
        bos=_token_id(
            values, "bos_token_id", size, None if pre in _NO_BOS else defaults.bos
        ),
        eos=_token_id(values, "eos_token_id", size, defaults.eos),
        add_bos=adds_bos or pre in _ALWAYS_ADDS_BOS,
        add_eos=_flag(values, "add_eos_token", defaults.add_eos),
        prefixes=_prefixes_of(header, size),
    )


def _flag(values: HeaderValues, key: str, default: bool) -> bool:
    found = values.flag(f"tokenizer.ggml.{key}")
    if found is None:
        return default
    return found


def _token_id(
    values: HeaderValues, key: str, size: int, default: int | None
) -> int | None:
    """An id beyond the vocabulary counts as not given."""
    found = values.number(f"tokenizer.ggml.{key}")
    if found is None or found >= size:
        return default
    return found


def _texts(tokens: Iterable[bytes]) -> Iterable[bytes]:
    """As the engine keeps them: C strings, and a name for an empty one."""
    for number, token in enumerate(tokens):
        text = token.split(b"\0", 1)[0]
        yield text or b"[EMPTY_%d]" % number


def _prefixes_of(header: GgufHeader, size: int) -> str:
    """Worked out once for each vocabulary: a family's models, and their quantisations, have the
    same."""
    tokens = header.get(TOKENS)
    if isinstance(tokens, LazyArray):
        key = tokens.digest()
    else:
        key = sha256(repr(tokens).encode()).hexdigest()
    if key in _known_prefixes:
        return _known_prefixes[key]
    found = _prefixes(header.tokens(), size)
    if len(_known_prefixes) >= MOST_KNOWN:
        _known_prefixes.clear()
    _known_prefixes[key] = found
    return found


def _prefixes(tokens: Sequence[bytes], size: int) -> str:
    digest = sha256()
    found = []
    for number, text in enumerate(_texts(tokens)):
        if number >= size - MAX_SIZE_DIFFERENCE:
            found.append(digest.hexdigest()[:_DIGEST])
        if number >= FIRST_COMPARED:
            digest.update(len(text).to_bytes(4, "little") + text)
    found.append(digest.hexdigest()[:_DIGEST])
    return "".join(reversed(found))


def draft_compatibility(target: VocabFacts, draft: VocabFacts) -> Compatibility:
    """Whether the engine drafts with this pair (spec type draft-simple).

    The text says what stands in the way.

    Where it refuses, the server lets the draft go and serves without drafting, n-grams included:
    nothing but its log ("the target and draft vocabs are not compatible") and /slots[].speculative
    tell.
    """
    if not (target.kind and draft.kind and target.prefixes and draft.prefixes):
        return _no(
            "vocab_unknown",
            "One of the files carries no vocabulary that could be compared.",
        )
    if target.kind != draft.kind:
        return _no(
            "vocab_type",
            f"The tokenizers are of different types: {target.kind} and {draft.kind}.",
        )
    problem = _special("BOS", target.add_bos, draft.add_bos, target.bos, draft.bos)
    if problem:
        return _no("vocab_bos", problem)
    problem = _special("EOS", target.add_eos, draft.add_eos, target.eos, draft.eos)
    if problem:
        return _no("vocab_eos", problem)
    difference = target.n_vocab - draft.n_vocab
    if abs(difference) > MAX_SIZE_DIFFERENCE:
        text = f"The vocabularies have {target.n_vocab} and {draft.n_vocab} tokens"
        return _no(
            "vocab_size", f"{text}; the sizes may differ by {MAX_SIZE_DIFFERENCE}."
        )
    if target.prefix(max(difference, 0)) != draft.prefix(max(-difference, 0)):
        return _no(
            "vocab_texts",
            f"The vocabularies have different tokens from id {FIRST_COMPARED} on.",
        )
    return Compatibility(True, "compatible", "Both models have the same vocabulary.")


def _no(code: str, text: str) -> Compatibility:
    return Compatibility(False, code, text)


def _special(
    name: str,
    target_adds: bool,
    draft_adds: bool,
    target: int | None,
    draft: int | None,
) -> str:
    """Why this special token stands in the way; empty where it does not."""
    if target_adds != draft_adds:
        adds, other = ("target", "draft") if target_adds else ("draft", "target")
        return f"The {adds} adds a {name} token to prompts, the {other} does not."
    if target_adds and target != draft:
        return f"The {name} token is {target} in the target and {draft} in the draft."
    return ""


def differing_token(target: Iterable[bytes], draft: Iterable[bytes]) -> int | None:
    """The first id whose texts the engine would find different, given all texts of both; None:
    there is none."""
    pairs = zip(_texts(target), _texts(draft), strict=False)
    return next(
        (
            number
            for number, (one, two) in enumerate(pairs)
            if number >= FIRST_COMPARED and one != two
        ),
        None,
    )
