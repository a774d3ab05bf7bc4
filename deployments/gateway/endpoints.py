"""The gateway's endpoints: what may be asked at each, in whose shapes it answers, and what kind of
model it needs. Pure.

A new endpoint is a path in engines/endpoints.py, a row here, and a word with the engines that have
it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deployments.engines import endpoints as paths
from deployments.formats.kinds import DEPLOYABLE, Kind
from deployments.gateway import fields
from deployments.gateway.anthropic_fields import ANTHROPIC
from deployments.gateway.api import Api
from deployments.gateway.fields import Check
from deployments.gateway.responses_fields import RESPONSES

TEXT = frozenset({Kind.TEXT})


def _whole(policy: Mapping[str, Check]) -> Mapping[str, Check]:
    """The same fields where the answer comes in one piece."""
    return {name: check for name, check in policy.items() if name != "stream"}


@dataclass(frozen=True)
class Endpoint:
    """`policy` is the fields that may pass, each with its check; `kinds` are the models that
    answer here."""

    policy: Mapping[str, Check]
    required: tuple[str, ...]
    api: Api = Api.OPENAI
    kinds: frozenset[Kind] = TEXT
    # What it gives, for the error of a deployment that does not.
    gives: str = "text"
    # Whoever names no model means any.
    needs_model: bool = True


# Path of the gateway, which is also the engine's → what may be asked there.
ENDPOINTS: Mapping[str, Endpoint] = {
    paths.CHAT: Endpoint(fields.CHAT, ("messages",)),
    paths.COMPLETIONS: Endpoint(fields.COMPLETION, ("prompt",)),
    paths.RESPONSES: Endpoint(RESPONSES, ("input",), Api.RESPONSES),
    paths.RESPONSES_TOKENS: Endpoint(_whole(RESPONSES), ("input",), gives="token counts"),
    paths.MESSAGES: Endpoint(ANTHROPIC, ("messages",), Api.ANTHROPIC),
    paths.MESSAGES_TOKENS: Endpoint(
        _whole(ANTHROPIC), ("messages",), Api.ANTHROPIC, gives="token counts"
    ),
    paths.EMBEDDINGS: Endpoint(
        fields.EMBEDDINGS,
        ("input",),
        kinds=frozenset({Kind.EMBEDDING}),
        gives="embeddings",
    ),
    paths.RERANK: Endpoint(
        fields.RERANK,
        ("query", "documents"),
        kinds=frozenset({Kind.RERANKER}),
        gives="scores of documents",
    ),
    paths.INFILL: Endpoint(
        fields.INFILL, ("input_prefix", "input_suffix"), Api.LLAMA_CPP
    ),
    paths.TOKENIZE: Endpoint(
        fields.TOKENIZE, ("content",), kinds=DEPLOYABLE, gives="tokens", needs_model=False
    ),
    paths.DETOKENIZE: Endpoint(
        fields.DETOKENIZE, ("tokens",), kinds=DEPLOYABLE, gives="text", needs_model=False
    ),
}  # fmt: skip
# What programs call some of them whose base address lacks /v1, or that know llama-server's names.
ALIASES: Mapping[str, str] = {
    "/chat/completions": paths.CHAT,
    "/completions": paths.COMPLETIONS,
    "/embeddings": paths.EMBEDDINGS,
    "/rerank": paths.RERANK,
    "/reranking": paths.RERANK,
    "/v1/reranking": paths.RERANK,
    "/v1/infill": paths.INFILL,
}


def canonical(path: str) -> str:
    """The endpoint's own path, for whatever it was called."""
    return ALIASES.get(path, path)


def api_of(path: str) -> Api:
    """In whose shape an error at this path is told; OpenAI's where there is nothing."""
    endpoint = ENDPOINTS.get(canonical(path))
    if endpoint:
        return endpoint.api
    return Api.ANTHROPIC if path.startswith(paths.MESSAGES) else Api.OPENAI


def allowed(path: str, body: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The fields that may pass at this endpoint, and the names of those left out.

    Raises FieldError for a field out of its range or a missing one.
    """
    endpoint = ENDPOINTS[path]
    return fields.allowed(endpoint.policy, endpoint.required, body)
