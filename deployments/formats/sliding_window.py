"""Which layers of a GGUF see only the last tokens, and how many: the one table of architectures.

What llama.cpp makes of the keys (src/models/<architecture>.cpp, load_arch_hparams;
src/llama-hparams.cpp, set_swa_pattern). tests/real/test_sliding_windows.py holds the table against
the packaged engine, as far as that knows the architectures. One that is not here uses no window,
whatever its file says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from deployments.formats.header_values import HeaderValues

WINDOW = "attention.sliding_window"
PATTERN = "attention.sliding_window_pattern"


@dataclass(frozen=True)
class Sliding:
    """How an architecture uses windows.

    Of every `period` layers one sees everything, the last, or with `dense_first` the first; the
    others see the window. 0: all layers see the window.
    """

    period: int = 0
    dense_first: bool = False
    # The window where the file names none; 0: then there is none.
    default: int = 0
    # The window whatever the file names, as long as that is not 0.
    always: int = 0
    # Takes a list with one truth value for each layer; others ignore such a list.
    by_list: bool = False
    # Only models of so many layers have windows; 0: all.
    only_layers: int = 0
    # Keeps more than the window: planning counts the whole context.
    keeps_more: bool = False


_BY_LIST = Sliding(by_list=True)
SLIDING: Mapping[str, Sliding] = {
    "afmoe": Sliding(4),
    "cohere2": Sliding(4),
    "cohere2moe": Sliding(4, dense_first=True, by_list=True),
    # Beside the window it keeps the tokens before it, compressed (llama-kv-cache-dsv4.cpp).
    "deepseek4": Sliding(keeps_more=True),
    "dflash": _BY_LIST,
    "dots3note": _BY_LIST,
    "exaone-moe": Sliding(4),
    "exaone4": Sliding(4, default=4096, only_layers=64),
    "gemma-embedding": Sliding(6),
    "gemma2": Sliding(2, default=4096),
    "gemma3": Sliding(6),
    "gemma3n": Sliding(5),
    "gemma4": _BY_LIST,
    "gemma4-assistant": _BY_LIST,
    "gpt-oss": Sliding(2),
    "granite-swa": _BY_LIST,
    "laguna": Sliding(4, dense_first=True),
    "lfm2": Sliding(),
    "llama4": Sliding(4, default=8192, always=8192),
    "maple": _BY_LIST,
    "mellum": Sliding(4, by_list=True),
    "mimo2": _BY_LIST,
    "modern-bert": Sliding(3, dense_first=True),
    "muse-glimmer": Sliding(4, by_list=True),
    "olmo2": Sliding(4),
    "plamo3": Sliding(8),
    "smallthinker": Sliding(4, dense_first=True, always=4096),
    "spark2_5": _BY_LIST,
    "step35": _BY_LIST,
}


def window_of(values: HeaderValues) -> int:
    """Tokens that a layer with a window sees; 0: every layer sees everything."""
    rule = SLIDING.get(values.arch)
    if rule is None:
        return 0
    if rule.only_layers and rule.only_layers != (values.n_layer or 0) - values.n_nextn:
        return 0
    named = values.of_arch(WINDOW)
    if named is None:
        return rule.default
    if named:
        return rule.always or named
    return 0


def layers_with_window(values: HeaderValues, n_layer: int) -> Sequence[bool]:
    """Of each layer whether it sees only the window; empty where there is none.

    What a list says of layers that draft for the others does not count.
    """
    if not window_of(values):
        return []
    rule = SLIDING[values.arch]
    pattern = values.flags(PATTERN)
    # A file with nothing but layers that draft has its list for those.
    n_main = n_layer - values.n_nextn or n_layer
    if isinstance(pattern, list):
        if rule.by_list:
            return pattern[:n_main]
        pattern = None
    if rule.period:
        period = rule.period if pattern is None else pattern
        return [
            _is_windowed(index, period, rule.dense_first) for index in range(n_layer)
        ]
    # One number in place of a list counts for every layer.
    is_off = rule.by_list and pattern == 0
    return [not is_off] * n_layer


def _is_windowed(index: int, period: int, dense_first: bool) -> bool:
    if period == 0:
        return True
    if dense_first:
        return index % period != 0
    return index % period < period - 1
