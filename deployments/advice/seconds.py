"""How long a request of a purpose takes on a layout, and what that is worth."""

from __future__ import annotations

from math import log

from deployments.advice.purposes import Purpose

# What a purpose that nobody serves counts as: longer than any request may take.
UNSERVED_S = 24 * 3600.0


def request_seconds(
    purpose: Purpose, prefill_tps: float, decode_tps: float, users: int, sharers: int
) -> float:
    """Seconds from a request to its whole answer while `users` ask the same deployment at once.

    A step gives one token to each of them: it reads the weights once (the time of a token alone)
    and computes one more token for each further one, which takes as long as reading a token of a
    prompt (Pope et al. 2022, arXiv 2211.05102, section 2.1). Prompts are read one after another, so
    half of the others' are waited for. `sharers` deployments that compute on the same device at the
    same time have an even part of it each; that all of them are busy is the worst case, and the one
    that is planned for.
    """
    prompt_s = purpose.prompt_tokens / prefill_tps * (1 + (users - 1) / 2)
    step_s = 1 / decode_tps + (users - 1) / prefill_tps
    return sharers * (prompt_s + purpose.answer_tokens * step_s)


def worth(purpose: Purpose, seconds: float) -> float:
    """What the seconds add to a rig plan's cost; less is better.

    Logarithms: half the time counts the same for a purpose of seconds as for one of minutes.
    """
    return purpose.weight * log(min(seconds, UNSERVED_S))
