"""How well a deployment predicts a fixed text: what smaller weights or a smaller KV cache cost.

llama-server tells the probabilities of what it writes, never of what it reads: a prompt has none
(`echo` is ignored). So it is asked token by token: each request reads the text up to a token, out
of the cache but for the last one, and writes one more. A bias makes that the text's own token; the
probability that comes with it is the one from before the bias. Forced by a grammar instead, it
writes the text in tokens that no reader would choose.

The text is short, and a cache that few tokens are in loses little: it finds what is broken and a
coarse number format, not the last per cent. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deployments.bench.comparisons import as_percent
from deployments.bench.statistics import ERROR_RATE, t_bound

# Read, and not judged: nobody can guess how a text begins.
BEGIN = (
    "A canal lock lets boats pass from one level of water to another. It is a chamber with gates at"
    " both ends, large enough for one boat or a few of them."
)
TEXT = (
    " A boat that wants to go up enters through the lower gates, which are then closed behind it."
    " Small openings, called paddles, let water flow in from above, and the boat rises slowly with"
    " the water. When the level in the chamber is the same as that of the upper canal, nothing"
    " presses on the upper gates any more, and they can be pushed open by hand. To go down, the"
    " same steps are done in the other order."
)
# Far beyond any logit.
SURE = 1000


@dataclass(frozen=True)
class Written:
    """The tokens of our text, and the natural logarithm of how likely each was.

    Without tokens `why` says why nothing is known.
    """

    tokens: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    why: str = ""

    @property
    def is_known(self) -> bool:
        return bool(self.logprobs)

    @property
    def perplexity(self) -> float | None:
        """Between how many tokens it hesitated, on the mean."""
        if not self.is_known:
            return None
        return math.exp(-math.fsum(self.logprobs) / len(self.logprobs))

    @property
    def bits_per_byte(self) -> float | None:
        """What models with other tokens can be compared by, too."""
        if not self.is_known:
            return None
        return -math.fsum(self.logprobs) / math.log(2) / len(TEXT.encode())


@dataclass(frozen=True)
class Change:
    """Of the perplexity against the baseline's; the bounds are of 95 %, from how unlike the tokens
    are, and not known where the two wrote the text in other tokens."""

    percent: float
    low_percent: float | None = None
    high_percent: float | None = None


def change_of(mine: Written, baseline: Written) -> Change | None:
    """None where one of the two is not known."""
    if not mine.is_known or not baseline.is_known:
        return None

    count = len(baseline.logprobs)
    mean = (math.fsum(baseline.logprobs) - math.fsum(mine.logprobs)) / count
    if mine.tokens != baseline.tokens:
        return Change(as_percent(mean))
    lost = [
        before - now
        for before, now in zip(baseline.logprobs, mine.logprobs, strict=True)
    ]
    half = _half_width(lost, mean)
    return Change(as_percent(mean), as_percent(mean - half), as_percent(mean + half))


def _half_width(values: Sequence[float], mean: float) -> float:
    degrees = len(values) - 1
    if degrees < 1:
        return math.inf
    variance = math.fsum((value - mean) ** 2 for value in values) / degrees
    return t_bound(ERROR_RATE, degrees) * math.sqrt(variance / len(values))


# --- asking and reading ---------------------------------------------------------------------------
@dataclass(frozen=True)
class TextTokens:
    """`begin` is read and not judged, `asked` is the text, asked for token by token."""

    begin: tuple[int, ...]
    asked: tuple[int, ...]


def split(begin: Sequence[int], whole: Sequence[int]) -> TextTokens:
    """Where the whole text leaves its beginning; a token may reach across the end of that.

    Raises ValueError where nothing is left of the text.
    """
    length = 0
    for one, other in zip(begin, whole, strict=False):
        if one != other:
            break
        length += 1
    if length == len(whole):
        raise ValueError("the text has no tokens")
    return TextTokens(tuple(whole[:length]), tuple(whole[length:]))


def body_of_token(model: str, tokens: TextTokens, place: int) -> dict[str, Any]:
    """Asks for one token of the text, behind all that comes before it."""
    return {
        "model": model,
        "prompt": [*tokens.begin, *tokens.asked[:place]],
        "logit_bias": [[tokens.asked[place], SURE]],
        "max_tokens": 1,
        "logprobs": 1,
        "temperature": 0.0,
        "stream": False,
        "cache_prompt": True,
    }


def logprob_in(answer: Mapping[str, Any], token: int) -> float:
    """Raises LookupError, TypeError or ValueError where it tells none of this token."""
    entry = answer["choices"][0]["logprobs"]["content"][0]
    if entry["id"] != token or not entry["top_logprobs"]:
        raise ValueError(f"it says nothing of token {token}")
    return float(entry["logprob"])
