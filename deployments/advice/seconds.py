"""How long a request of a purpose takes on a layout, and what that is worth."""

from __future__ import annotations

from math import log
from typing import NamedTuple

from deployments.advice.purposes import Purpose

# What a purpose that nobody serves counts as: longer than any request may take.
UNSERVED_S = 24 * 3600.0


class Rates(NamedTuple):
    """Tokens/s of a deployment, and who has a part of them: `users` ask it at once, `sharers`
    deployments compute on the same device, itself included."""

    prefill_tps: float
    decode_tps: float
    users: int = 1
    sharers: int = 1


def first_token_seconds(purpose: Purpose, rates: Rates) -> float:
    """Prompts are read one after another, so half of the other users' are waited for.

    Deployments on one device have an even part of it each; that all of them are busy is the worst
    case, and the one that is planned for.
    """
    waiting = 1 + (rates.users - 1) / 2
    return rates.sharers * waiting * purpose.prompt_tokens / rates.prefill_tps


def request_seconds(purpose: Purpose, rates: Rates) -> float:
    """From a request to its whole answer while all users ask at once.

    A step gives one token to each of them: it reads the weights once (the time of a token alone)
    and computes one more token for each further one, which takes as long as reading a token of a
    prompt (Pope et al. 2022, arXiv 2211.05102, section 2.1).
    """
    step_s = 1 / rates.decode_tps + (rates.users - 1) / rates.prefill_tps
    answer_s = rates.sharers * purpose.answer_tokens * step_s
    return first_token_seconds(purpose, rates) + answer_s


def worth(purpose: Purpose, seconds: float) -> float:
    """What the seconds add to a rig plan's cost; less is better.

    Logarithms: half the time counts the same for a purpose of seconds as for one of minutes.
    """
    return purpose.weight * log(min(seconds, UNSERVED_S))
