"""Asks an engine that says it is ready for a short answer, and what it really built."""

from __future__ import annotations

import math
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx

from deployments.formats.kinds import Kind
from deployments.instances.address import EngineAddress
from deployments.instances.engine_client import ask_within, engine_request
from deployments.instances.logs import since_start
from deployments.planning.memory.reported import reported_memory
from deployments.supervision.answers import N_TOKENS, PROMPT, Answer, Check, Judgement, judge
from omni.json_text import read_answer

# The first answer of a large model, from a disk that is still being read.
TIMEOUT_S = 180.0
MOST_BYTES = 8 << 20


def check_answer(
    address: EngineAddress, reference: Answer | None, model: str = "", kind: str = Kind.TEXT
) -> Check:
    """Never raises: what cannot be asked is unknown, and said so.

    `model` is its name where a server goes by names.
    """
    if kind != Kind.TEXT:
        return check_vectors(address, kind)
    try:
        answer = named_answer(address, model) if model else greedy_answer(address)
        return judge(answer, reference)
    except (OSError, httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        return Check(Judgement.UNKNOWN, _unchecked(error))


def check_vectors(address: EngineAddress, kind: str) -> Check:
    """Of a server that gives vectors or scores: whether they are numbers, and not all nought.

    Never raises.
    """
    try:
        numbers = _scores(address) if kind == Kind.RERANKER else _vector(address)
        is_sound = bool(numbers) and all(math.isfinite(number) for number in numbers)
    except (OSError, httpx.HTTPError, ValueError, LookupError, TypeError) as error:
        return Check(Judgement.UNKNOWN, _unchecked(error))

    if is_sound and (kind == Kind.RERANKER or any(numbers)):
        return Check(Judgement.ALONE)
    return Check(Judgement.GARBAGE, "What it answers are no numbers that could be used.")


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
    found = _call(address, "/v1/embeddings", {"input": PROMPT})
    return [float(number) for number in found["data"][0]["embedding"]]


def _scores(address: EngineAddress) -> list[float]:
    found = _call(address, "/v1/rerank", {"query": "days", "documents": [PROMPT, "cats"]})
    return [float(one["relevance_score"]) for one in found["results"]]


def greedy_answer(address: EngineAddress) -> Answer:
    """The most likely continuation.

    Raises OSError, httpx.HTTPError, or ValueError for an answer of another shape.
    """
    body = {
        "prompt": PROMPT,
        "n_predict": N_TOKENS,
        "temperature": 0,
        "top_k": 1,
        "seed": 1,
        "cache_prompt": False,
        "return_tokens": True,
        "n_probs": 1,
        "ignore_eos": True,
    }
    found = _call(address, "/completion", body)
    tokens = tuple(int(token) for token in found["tokens"])
    named = {
        int(one["id"]): str(one["token"]) for one in found.get("completion_probabilities") or ()
    }
    return Answer(tokens, tuple(named.get(token, f"#{token}") for token in tokens))


def named_answer(address: EngineAddress, model: str) -> Answer:
    """The same of vLLM, which has OpenAI's calls alone. Raises as greedy_answer does."""
    body = {
        "model": model,
        "prompt": PROMPT,
        "max_tokens": N_TOKENS,
        "temperature": 0,
        "seed": 1,
        "logprobs": 0,
        "return_token_ids": True,
        "ignore_eos": True,
    }
    choice = _call(address, "/v1/completions", body)["choices"][0]
    tokens = tuple(int(token) for token in choice["token_ids"])
    return Answer(tokens, tuple(map(str, choice["logprobs"]["tokens"])))


def built_otherwise(address: EngineAddress, argv: Sequence[str], log: Path) -> str:
    """What the engine did not do although it was told to; empty when all is as planned.

    An unreachable RPC device or a draft that does not suit leaves a server that is healthy and does
    less than asked.
    """
    lines = since_start(log)
    endpoints = {endpoint: f"RPC{n}" for n, endpoint in enumerate(_values(argv, "--rpc"))}
    memory = reported_memory(lines, endpoints)
    found = []
    wanted = [
        name for flag in ("--device", "-devd") for name in _values(argv, flag) if name != "none"
    ]
    empty = [name for name in wanted if name not in _holders(memory.devices)]
    if memory.devices and empty and "tensor" not in argv:
        # The engine's own numbers; of an RPC device the address tells which one it is.
        where = {name: f"{name} at {endpoint}" for endpoint, name in endpoints.items()}
        found.append(
            f"Nothing was put on {' and '.join(where.get(n, n) for n in empty)}: the engine runs"
            " without."
        )
    if "--spec-type" in argv and not _drafts(address):
        reason = next((line for line in lines if "vocabs are not compatible" in line), "")
        found.append(f"Drafting is off. {reason.strip()}".strip())
    return " ".join(found)


def _values(argv: Sequence[str], flag: str) -> list[str]:
    """The comma-separated values of a flag."""
    text = next((value for name, value in zip(argv, argv[1:], strict=False) if name == flag), "")
    return [part for part in text.split(",") if part]


def _holders(devices: dict[str, Any]) -> set[str]:
    return {name for name, held in devices.items() if held.weights or held.kv}


def _drafts(address: EngineAddress) -> bool:
    try:
        slots = _call(address, "/slots")
        return any(slot.get("speculative") for slot in slots)
    except (OSError, httpx.HTTPError, ValueError, AttributeError):
        return True  # it could not be asked, which is no proof


def _call(address: EngineAddress, path: str, fields: dict[str, Any] | None = None) -> Any:
    request = engine_request(address, path, fields, TIMEOUT_S)
    status, text = ask_within(TIMEOUT_S, request, MOST_BYTES)
    if status != HTTPStatus.OK:
        raise ValueError(f"status {status}")
    return read_answer(text)
