"""What to use instead of a KV cache type that the engine does not have.

Its list is that of --cache-type-k (common/arg.cpp, kv_cache_types), in lower case only. Any other
word ends it before it loads: error while handling argument "--cache-type-k": Unsupported cache
type: f8; exit code 1.
"""

from __future__ import annotations

import re

from deployments.planning.kv import CACHE_BYTES, IK_ONLY
from omni.errors import OmniError

_TYPES = [name for name in CACHE_BYTES if name not in IK_ONLY]

_NO_FP8 = (
    "The engine has no 8-bit floating-point KV cache: use q8_0, which takes 8.5 bits and keeps more"
    " precision."
)
# Pattern, what to say; the first match counts.
_INSTEAD: tuple[tuple[str, str], ...] = (
    (r"(fp?|float|bf)_?8.*|e[45]m[23].*", _NO_FP8),
    (
        r"(q|u?int|i)_?8(_?0|_1|_?bits?|_?k.*)?|8(_?bits?)?",
        "The 8-bit type is called q8_0.",
    ),
    (r"fp_?16|float_?16|half|16(bits?)?", "It is called f16."),
    (r"bfloat_?16|bfp?_?16", "It is called bf16."),
    (r"fp_?32|float(_?32)?|single|32(bits?)?", "It is called f32."),
    (
        r"(mx|nv)?f(p|loat)?_?4.*",
        "The engine has no 4-bit floating-point KV cache: use q4_0, or q8_0 for less loss.",
    ),
    (
        r"(q|i|int)_?4.*|iq4.*|4(_?bits?)?",
        "The 4-bit type is called q4_0; iq4_nl and q4_1 are its relatives.",
    ),
    (r"(q|i|int)_?5.*|5(_?bits?)?", "The 5-bit types are called q5_0 and q5_1."),
    (
        r"(q|i|int)_?6.*|6(_?bits?)?",
        "Only ik_llama.cpp has a 6-bit KV cache: use q8_0, or q5_1 to save more.",
    ),
    (
        r"i?q_?[123].*|tq.*|[123](_?bits?)?",
        "Nothing below 4 bits is offered: use q4_0.",
    ),
)


def kv_type_fix(text: str) -> str:
    """What to use instead of a type the engine does not have; empty where that cannot be
    guessed."""
    word = re.sub(r"[\s.-]+", "_", text.strip().lower())
    return next((fix for pattern, fix in _INSTEAD if re.fullmatch(pattern, word)), "")


def kv_type_error(text: str, key: str = "kv_cache_k") -> OmniError | None:
    """The refusal of a cache type, to be raised; None for one that the engine has."""
    if text.strip().lower() in _TYPES:
        return None
    fix = " ".join(filter(None, (kv_type_fix(text), f"It takes {', '.join(_TYPES)}.")))
    return OmniError("bad_setting", f"{key} is {text!r}.", fix)
