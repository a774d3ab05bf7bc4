"""Asks an engine that says it is ready for a short answer, and what it really built."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx

from deployments.engines import FLAVOURS
from deployments.engines.endpoints import EMBEDDINGS, RERANK
from deployments.formats.kinds import Kind
from deployments.instances.address import EngineAddress
from deployments.instances.engine_client import ask_within, engine_request
from deployments.instances.logs import since_start
from deployments.planning.launch_facts import LaunchFacts
from deployments.planning.memory.reported import reported_memory
from deployments.states import Judgement
from deployments.supervision.answers import (
    N_TOKENS,
    PROMPT,
    Answer,
    Check,
    judge,
)
from deployments.supervision.log_reading import why_no_drafting
from omni.json_text import read_answer

# The first answer of a large model, from a disk that is still being read.
TIMEOUT_S = 180.0
MOST_BYTES = 8 << 20
NO_TOKENS = "Its answer could not be checked: this engine does not tell its tokens."


def check_answer(
    address: EngineAddress, launch: LaunchFacts, reference: Answer | None
) -> Check:
    """Never raises: what cannot be asked is unknown, and said so."""
    if launch.kind != Kind.TEXT:
        return check_vectors(address, launch.kind)
    try:
        answer = greedy_answer(address, launch)
    except (OSError, httpx.HTTPError, ValueError, LookupError, TypeError) as error:
        return Check(Judgement.UNKNOWN, _unchecked(error))
    if answer is None:
        return Check(Judgement.UNKNOWN, NO_TOKENS)
    return judge(answer, reference)


def check_vectors(address: EngineAddress, kind: str) -> Check:
    """Of a server that gives vectors or scores: whether they are numbers, and not all nought.

    Never raises.
    """
    try:
        if kind == Kind.RERANKER:
            numbers = _scores(address)
        else:
            numbers = _vector(address)
        is_sound = bool(numbers) and all(math.isfinite(number) for number in numbers)
    except (OSError, httpx.HTTPError, ValueError, LookupError, TypeError) as error:
        return Check(Judgement.UNKNOWN, _unchecked(error))

    if is_sound and (kind == Kind.RERANKER or any(numbers)):
        return Check(Judgement.ALONE)
    return Check(
        Judgement.GARBAGE, "What it answers are no numbers that could be used."
    )


def _unchecked(error: Exception) -> str:
    """Why nothing can be said of an answer, in words of whoever reads the page."""
    if isinstance(error, httpx.TimeoutException):
        why = f"none came within {TIMEOUT_S:.0f} s"
    elif isinstance(error, (OSError, httpx.HTTPError)):
        why = "the connection broke off"
    else:
        why = "the engine refused, or what it said has another form"
    return f"Its answer could not be checked: {why}. The log may tell more."


def _vector(address: EngineAddress) -> list[float]:
    found = _call(address, EMBEDDINGS, {"input": PROMPT})
    return [float(number) for number in found["data"][0]["embedding"]]


def _scores(address: EngineAddress) -> list[float]:
    found = _call(address, RERANK, {"query": "days", "documents": [PROMPT, "cats"]})
    return [float(one["relevance_score"]) for one in found["results"]]


def greedy_answer(address: EngineAddress, launch: LaunchFacts) -> Answer | None:
    """The most likely continuation; None of an engine that has no call for it.

    Raises OSError, httpx.HTTPError, or ValueError, LookupError or TypeError for an answer of
    another shape.
    """
    flavour = FLAVOURS.get(launch.flavour)
    if flavour:
        question = flavour.greedy_question(PROMPT, N_TOKENS, launch.alias)
    else:
        question = None
    if flavour is None or question is None:
        return None
    said = flavour.greedy_tokens(_call(address, question.path, question.body))
    return Answer(said.ids, said.pieces)


def built_otherwise(address: EngineAddress, launch: LaunchFacts, log: Path) -> str:
    """What the engine did not do although it was told to; empty when all is as planned.

    An unreachable RPC device or a draft that does not suit leaves a server that is healthy and does
    less than asked.
    """
    lines = since_start(log)
    found = (_empty_devices(launch, lines), _no_drafting(address, launch, lines))
    return " ".join(filter(None, found))


def _empty_devices(launch: LaunchFacts, lines: Sequence[str]) -> str:
    """By the engine's own numbers."""
    endpoints = {endpoint: f"RPC{n}" for n, endpoint in enumerate(launch.rpc_endpoints)}
    memory = reported_memory(lines, endpoints)
    empty = [name for name in launch.devices if name not in _holders(memory.devices)]
    if not memory.devices or not empty or launch.split_mode == "tensor":
        return ""

    # Of an RPC device the address tells which one it is.
    where = {name: f"{name} at {endpoint}" for endpoint, name in endpoints.items()}
    names = " and ".join(where.get(name, name) for name in empty)
    return f"Nothing was put on {names}: the engine runs without."


def _no_drafting(
    address: EngineAddress, launch: LaunchFacts, lines: Sequence[str]
) -> str:
    if not launch.drafts or _drafts(address, launch):
        return ""
    return f"Drafting is off. {why_no_drafting(lines)}".strip()


def _holders(devices: dict[str, Any]) -> set[str]:
    return {name for name, held in devices.items() if held.weights or held.kv}


def _drafts(address: EngineAddress, launch: LaunchFacts) -> bool:
    flavour = FLAVOURS.get(launch.flavour)
    if flavour is None or not flavour.drafting_path:
        return True
    try:
        return flavour.is_drafting(_call(address, flavour.drafting_path))
    except (OSError, httpx.HTTPError, ValueError, TypeError, AttributeError):
        return True  # it could not be asked, which is no proof


def _call(
    address: EngineAddress, path: str, fields: Mapping[str, Any] | None = None
) -> Any:
    request = engine_request(address, path, fields, TIMEOUT_S)
    status, text = ask_within(TIMEOUT_S, request, MOST_BYTES)
    if status != HTTPStatus.OK:
        raise ValueError(f"status {status}")
    return read_answer(text)
