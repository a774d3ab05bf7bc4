"""The requests that run now in every process, and the end of one that somebody cancels."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import redis

from deployments.gateway.activity import Phase, cancel_request
from deployments.gateway.activity_link import Answers, ask_all, own_facts
from deployments.services.request_history import surface_of, writer
from omni.errors import OmniError
from omni.roles.rights import CANCEL_REQUESTS, may

log = logging.getLogger(__name__)

WAITING = {Phase.READING_BODY, Phase.ROUTING, Phase.LOADING, Phase.QUEUED}


@dataclass(frozen=True)
class Running:
    """One request that is open now; `facts` are those of OpenRequest.as_facts."""

    number: str
    who: str
    surface: str
    facts: dict[str, Any]
    is_own: bool

    @property
    def prompt_percent(self) -> int | None:
        """How much of the prompt was read, where the engine tells."""
        if not self.facts["prompt"]:
            return None
        done, total = self.facts["prompt"]
        return round(100 * done / total) if total else None


@dataclass(frozen=True)
class Board:
    """What runs, as far as a user may see it."""

    requests: list[Running]
    # Of a process with more than it tells.
    left_out: int
    # Requests that found no place in the history since their process began.
    not_kept: int
    # Processes that did not answer in time, and whether others could be asked at all.
    silent: int
    has_broker: bool


def running_requests(user: Any) -> Board:
    """Oldest first: a user's own, and everybody's for who may cancel them."""
    try:
        answers, has_broker = ask_all({"ask": "open"}), True
    except (redis.RedisError, OSError) as error:
        log.debug("other processes could not be asked: %s", error)
        answers, has_broker = Answers([own_facts(writer.not_kept)]), False
    facts = [each for one in answers.found for each in one["requests"]]
    found = _named(facts, user)
    sees_all = may(user, CANCEL_REQUESTS)
    shown = [each for each in found if sees_all or each.is_own]
    return Board(
        sorted(shown, key=lambda each: -each.facts["age_ms"]),
        sum(one["left_out"] for one in answers.found),
        sum(one["not_kept"] for one in answers.found),
        answers.silent,
        has_broker,
    )


def open_requests_by_deployment() -> tuple[Counter[str], Counter[str]]:
    """How many an engine works on, and how many wait for one, in every process that answers."""
    try:
        found = ask_all({"ask": "open"}).found
    except (redis.RedisError, OSError):
        found = [own_facts(writer.not_kept)]
    working: Counter[str] = Counter()
    waiting: Counter[str] = Counter()
    for each in (facts for one in found for facts in one["requests"]):
        counted = waiting if each["phase"] in WAITING else working
        counted[each["deployment"]] += 1
    return working, waiting


def _named(facts: Iterable[dict[str, Any]], user: Any) -> list[Running]:
    found = []
    for each in facts:
        name = each["key_name"]
        surface = surface_of(each["surface"], name)
        who = each["user"] or name or each["key"]
        is_own = user.get_username() in (each["user"], each["owner"])
        found.append(Running(each["number"], who, surface, each, is_own))
    return found


def request_cancel(*, number: str, user: Any) -> None:
    """Ends a request that runs, in whichever process. Raises OmniError."""
    board = running_requests(user)
    running = next((each for each in board.requests if each.number == number), None)
    if running is None:
        raise OmniError(
            "request_over", "This request is over already.", "Look at the list below."
        )
    who = user.get_username()
    is_found = cancel_request(number, who) or _cancel_elsewhere(number, who)
    if not is_found:
        raise OmniError(
            "request_over", "This request was over before it was cancelled."
        )
    log.info("request %s of %s was cancelled by %s", number, running.who, who)


def _cancel_elsewhere(number: str, who: str) -> bool:
    try:
        answers = ask_all({"ask": "cancel", "number": number, "by": who})
    except (redis.RedisError, OSError):
        return False
    return any(each["found"] for each in answers.found)
