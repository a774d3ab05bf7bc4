"""What may be asked at each endpoint, in whose words, and which deployment has it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from deployments.engines import FLAVOURS
from deployments.engines import endpoints as paths
from deployments.formats.kinds import Kind
from deployments.gateway.api import Api
from deployments.gateway.auto.prompt import read_prompt
from deployments.gateway.auto.rules import RouteRules
from deployments.gateway.endpoints import (
    ALIASES,
    ENDPOINTS,
    allowed,
    api_of,
    canonical,
)
from deployments.gateway.extras import worded
from deployments.gateway.http_rules import allowed_methods, is_gateway_path
from deployments.gateway.routing import Asked, route_request
from deployments.gateway.scopes import Scope
from deployments.gateway.shapes import FieldError
from deployments.gateway.table import ExternalServer, Serving, Table
from deployments.instances.address import EngineAddress
from omni.errors import OmniError
from tests.panel import ROOT

HERE = EngineAddress("http://127.0.0.1:1")
SAID = [{"role": "user", "content": "Hi"}]
LEAST: dict[str, dict[str, Any]] = {
    paths.CHAT: {"messages": SAID},
    paths.COMPLETIONS: {"prompt": "x"},
    paths.RESPONSES: {"input": "x"},
    paths.RESPONSES_TOKENS: {"input": "x"},
    paths.MESSAGES: {"messages": SAID, "max_tokens": 1},
    paths.MESSAGES_TOKENS: {"messages": SAID},
    paths.EMBEDDINGS: {"input": ["x", "y"]},
    paths.RERANK: {"query": "x", "documents": ["a", {"text": "b"}]},
    paths.INFILL: {"input_prefix": "x", "input_suffix": ""},
    paths.TOKENIZE: {"content": "x"},
    paths.DETOKENIZE: {"tokens": [1, 2]},
}


def test_every_path_of_an_engine_is_an_endpoint_and_is_tested_here() -> None:
    assert set(ENDPOINTS) == set(paths.EVERY) == set(LEAST)
    assert set(ALIASES.values()) <= set(ENDPOINTS)
    for flavour in FLAVOURS.values():
        assert paths.USUAL <= flavour.serves <= paths.EVERY


@pytest.mark.parametrize("path", [*ENDPOINTS, *ALIASES])
def test_an_endpoint_takes_its_fields_by_post_under_each_of_its_names(
    path: str,
) -> None:
    assert is_gateway_path(path) and allowed_methods(path) == ("POST", "OPTIONS")
    body = LEAST[canonical(path)]
    assert allowed(canonical(path), body) == (body, [])
    for name in ENDPOINTS[canonical(path)].required:
        rest = {key: value for key, value in body.items() if key != name}
        with pytest.raises(FieldError, match=f"{name} is missing"):
            allowed(canonical(path), rest)


@pytest.mark.parametrize(
    ("path", "api"),
    [
        (paths.CHAT, Api.OPENAI),
        ("/v1/nothing", Api.OPENAI),
        (paths.RESPONSES, Api.RESPONSES),
        (paths.MESSAGES, Api.ANTHROPIC),
        (paths.MESSAGES_TOKENS, Api.ANTHROPIC),
        ("/v1/messages/batches", Api.ANTHROPIC),
    ],
)
def test_errors_have_the_shape_of_the_api_that_a_path_belongs_to(
    path: str, api: Api
) -> None:
    assert api_of(path) == api


def test_the_readme_says_which_engine_has_what() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    head = next(row for row in rows if row[:1] == ["endpoint"])
    flavours = {each.title.partition(" ")[0]: each for each in FLAVOURS.values()}
    for path, endpoint in ENDPOINTS.items():
        row = dict(
            zip(head, next(r for r in rows if r[:1] == [f"`{path}`"]), strict=True)
        )
        kinds = "any" if len(endpoint.kinds) > 1 else next(iter(endpoint.kinds))
        assert row["model"] == kinds
        for title, flavour in flavours.items():
            assert row[title] == ("yes" if path in flavour.serves else "no"), (
                path,
                title,
            )


# --- fields ---------------------------------------------------------------------------------------
def item(**fields: Any) -> dict[str, Any]:
    return {"input": [fields]}


def block(**fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [fields]}]}


def nested(depth: int) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = [value]
    return value


REMOTE = "http://169.254.169.254/"
FUNCTION = {"type": "function", "name": "f"}


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (paths.RESPONSES, {"instructions": "x", "max_output_tokens": 5}),
        (paths.RESPONSES, item(role="user", content="Hi")),
        (paths.RESPONSES, item(type="function_call_output", call_id="c", output="3")),
        (
            paths.RESPONSES,
            item(type="function_call", call_id="c", name="f", arguments="{}"),
        ),
        (
            paths.RESPONSES,
            item(
                role="user",
                content=[{"type": "input_image", "image_url": "data:image/png;base64,"}],
            ),
        ),
        (paths.RESPONSES, {"tools": [FUNCTION, {"type": "web_search"}]}),
        (paths.RESPONSES, {"text": {"format": {"type": "text"}, "verbosity": "low"}}),
        (paths.RESPONSES, {"reasoning": {"effort": "low"}, "store": False}),
        (paths.MESSAGES, {"system": "x", "stop_sequences": ["y"]}),
        (paths.MESSAGES, {"system": [{"type": "text", "text": "x"}]}),
        (paths.MESSAGES, {"thinking": {"type": "enabled", "budget_tokens": 1024}}),
        (paths.MESSAGES, {"metadata": {"user_id": "x"}, "tool_choice": {"type": "any"}}),
        (paths.MESSAGES, block(type="thinking", thinking="hm", signature="")),
        (paths.MESSAGES, block(type="tool_result", tool_use_id="t", content="3")),
        (paths.MESSAGES, block(type="tool_result", tool_use_id="t")),
        (
            paths.MESSAGES,
            block(type="tool_use", id="t", name="f", input={"image_url": REMOTE}),
        ),
        (
            paths.MESSAGES,
            block(
                type="image",
                source={"type": "base64", "media_type": "image/png", "data": "AA"},
            ),
        ),
        (paths.MESSAGES, {"tools": [{"name": "f", "input_schema": {"type": "object"}}]}),
        (paths.EMBEDDINGS, {"input": [1, 2], "encoding_format": "base64"}),
        (paths.RERANK, {"top_n": 1}),
        (paths.INFILL, {"input_extra": [{"text": "x", "filename": "y"}]}),
    ],
)  # fmt: skip
def test_what_the_apis_have_passes_unchanged(path: str, fields: dict[str, Any]) -> None:
    body = {**LEAST[path], **fields}
    assert allowed(path, body) == (body, [])


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        (paths.RESPONSES, {"input": 5}, "input"),
        (paths.RESPONSES, {"input": []}, "input"),
        (paths.RESPONSES, {"input": [5]}, "input[0]"),
        (paths.RESPONSES, {"input": nested(200)}, "input"),
        (paths.RESPONSES, item(role=5), "input[0]"),
        (paths.RESPONSES, item(role="user", content=5), "input[0]"),
        (paths.RESPONSES, item(role="user", content=[5]), "input[0]"),
        (paths.RESPONSES, item(type="function_call", arguments={}), "input[0]"),
        (
            paths.RESPONSES,
            item(content=[{"type": "input_image", "image_url": REMOTE}]),
            "input[0]",
        ),
        (
            paths.RESPONSES,
            item(
                type="function_call_output",
                output=[{"type": "input_image", "image_url": REMOTE}],
            ),
            "input[0]",
        ),
        (
            paths.RESPONSES,
            item(content=[{"type": "input_file", "file_url": REMOTE}]),
            "input[0]",
        ),
        (paths.RESPONSES, {"max_output_tokens": 0}, "max_output_tokens"),
        (paths.RESPONSES, {"instructions": ["x"]}, "instructions"),
        (paths.RESPONSES, {"tools": [{"type": "function"}]}, "tools[0]"),
        (
            paths.RESPONSES,
            {"tools": [{**FUNCTION, "parameters": {"type": 5}}]},
            "tools",
        ),
        (
            paths.RESPONSES,
            {"text": {"format": {"type": "json_schema", "schema": {"minItems": -1}}}},
            "text",
        ),
        (paths.RESPONSES, {"conversation": "c"}, "conversation"),
        (paths.RESPONSES, {"prompt": {"id": "p"}}, "prompt"),
        (paths.MESSAGES, {"messages": []}, "messages"),
        (paths.MESSAGES, {"messages": [{"role": "tool"}]}, "messages[0].role"),
        (paths.MESSAGES, {"messages": [{"role": "user"}]}, "messages[0]"),
        (paths.MESSAGES, {"messages": nested(200)}, "messages"),
        (paths.MESSAGES, {"max_tokens": 0}, "max_tokens"),
        (paths.MESSAGES, {"system": 5}, "system"),
        (paths.MESSAGES, {"system": [{"text": "x"}]}, "system"),
        (paths.MESSAGES, block(text="x"), "messages[0]"),
        (paths.MESSAGES, block(type="text"), "messages[0]"),
        (paths.MESSAGES, block(type="tool_use", input="x"), "messages[0]"),
        (paths.MESSAGES, block(type="tool_use", input={}, name=5), "messages[0]"),
        (
            paths.MESSAGES,
            block(type="image", source={"type": "url", "url": REMOTE}),
            "messages[0]",
        ),
        (
            paths.MESSAGES,
            block(
                type="tool_result",
                content=[{"type": "image", "source": {"url": REMOTE}}],
            ),
            "messages[0]",
        ),
        (paths.MESSAGES, block(type="image", source="x"), "messages[0]"),
        (paths.MESSAGES, {"tools": [{"description": "x"}]}, "tools[0]"),
        (
            paths.MESSAGES,
            {"tools": [{"name": "f", "input_schema": {"$ref": REMOTE}}]},
            "tools",
        ),
        (paths.MESSAGES, {"tool_choice": "any"}, "tool_choice"),
        (paths.EMBEDDINGS, {"input": {"x": 1}}, "input"),
        (paths.EMBEDDINGS, {"input": []}, "input"),
        (paths.EMBEDDINGS, {"encoding_format": "gzip"}, "encoding_format"),
        (paths.RERANK, {"documents": [5]}, "documents[0]"),
        (paths.RERANK, {"documents": ["x"] * 4097}, "documents"),
        (paths.RERANK, {"query": ["x"]}, "query"),
        (paths.INFILL, {"input_extra": ["x"]}, "input_extra[0]"),
        (paths.DETOKENIZE, {"tokens": ["a"]}, "tokens"),
        (paths.DETOKENIZE, {"tokens": [-1]}, "tokens"),
    ],
)
def test_what_is_out_of_bounds_is_refused_by_name(
    path: str, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(FieldError) as caught:
        allowed(path, {**LEAST[path], **fields})
    assert caught.value.param == param


def test_what_the_engine_does_not_read_is_named() -> None:
    body = {**LEAST[paths.MESSAGES], "mcp_servers": [], "container": "x"}
    kept, dropped = allowed(paths.MESSAGES, body)
    assert kept == LEAST[paths.MESSAGES] and dropped == ["container", "mcp_servers"]


def test_llama_cpp_is_told_of_a_schema_in_the_words_that_it_reads() -> None:
    wanted = {"type": "json_schema", "name": "x", "schema": {"type": "object"}}
    fields: dict[str, Any] = {"input": "x", "text": {"format": wanted}}
    assert worded("llama.cpp", paths.RESPONSES, fields) == {
        **fields,
        "response_format": {"type": "json_schema", "json_schema": wanted},
    }
    assert worded("vllm", paths.RESPONSES, fields) == fields
    assert worded("llama.cpp", paths.CHAT, fields) == fields
    assert worded("external", paths.RESPONSES, fields) == fields
    assert worded("llama.cpp", paths.RESPONSES, {"input": "x"}) == {"input": "x"}


def test_llama_cpp_is_given_documents_as_texts() -> None:
    fields = dict(LEAST[paths.RERANK])
    assert worded("llama.cpp", paths.RERANK, fields)["documents"] == ["a", "b"]
    assert worded("vllm", paths.RERANK, fields) == fields


# --- who has it -----------------------------------------------------------------------------------
def serving(name: str, kind: str = Kind.TEXT, **fields: Any) -> Serving:
    return Serving(name, "ready", HERE, kind=kind, flavour="llama.cpp", **fields)


TABLE = Table(
    {
        "smol": serving("smol"),
        "vectors": serving("vectors", Kind.EMBEDDING),
        "old": replace(serving("old"), flavour="tabbyapi"),
        "away": serving("away", external=ExternalServer("k"), purposes=("chat",)),
    },
    {"public": "smol", "ruled": "smol"},
    {"ruled": RouteRules("smol", (), ())},
)


@pytest.mark.parametrize(
    ("name", "path", "answers"),
    [
        ("smol", paths.RESPONSES, "smol"),
        ("public", paths.MESSAGES, "smol"),
        ("ruled", paths.INFILL, "smol"),
        ("vectors", paths.EMBEDDINGS, "vectors"),
        ("vectors", paths.TOKENIZE, "vectors"),
        ("auto", paths.EMBEDDINGS, "vectors"),
        ("old", paths.CHAT, "old"),
        # What an external server has it alone knows.
        ("away", paths.RERANK, "away"),
        ("auto", paths.RERANK, "away"),
    ],
)
def test_a_request_goes_to_what_has_the_endpoint(
    name: str, path: str, answers: str
) -> None:
    asked = Asked(lambda: read_prompt(path, LEAST[path]), path=path)
    assert route_request(name, TABLE, asked).serving.name == answers


@pytest.mark.parametrize(
    ("name", "path", "code", "says"),
    [
        ("smol", paths.EMBEDDINGS, "endpoint_missing", ": 'vectors'."),
        ("public", paths.EMBEDDINGS, "endpoint_missing", "runs a text model"),
        ("ruled", paths.EMBEDDINGS, "endpoint_missing", "'vectors'"),
        (
            "vectors",
            paths.CHAT,
            "no_text_model",
            "/completions: 'old', 'smol', 'public'",
        ),
        ("vectors", paths.RERANK, "no_text_model", "may have /v1/rerank: 'away'."),
        ("old", paths.MESSAGES, "endpoint_missing", "of deployment 'old' has no"),
    ],
)
def test_what_lacks_an_endpoint_says_which_has_it(
    name: str, path: str, code: str, says: str
) -> None:
    with pytest.raises(OmniError) as refused:
        route_request(name, TABLE, Asked(path=path))
    assert refused.value.code == code and says in str(refused.value)


def test_a_key_is_told_of_nothing_else_than_it_may_ask_for() -> None:
    asked = Asked(path=paths.EMBEDDINGS, scope=Scope(frozenset({"smol"})))
    with pytest.raises(OmniError) as refused:
        route_request("smol", TABLE, asked)
    assert "There is none" in str(refused.value) and "vectors" not in str(refused.value)


def test_where_nothing_has_an_endpoint_it_is_said() -> None:
    alone = Table({"smol": serving("smol")})
    for name in ("smol", "auto"):
        with pytest.raises(
            OmniError, match="none|no deployment that has /v1/rerank"
        ) as refused:
            route_request(name, alone, Asked(path=paths.RERANK))
        assert refused.value.code == "endpoint_missing"


# --- what `auto` reads of it ----------------------------------------------------------------------
PICTURE = {"type": "input_image", "image_url": "data:image/png;base64,"}
PHOTO = {"type": "image", "source": {"type": "base64", "data": ""}}


def test_a_response_is_read_as_the_chat_that_it_is() -> None:
    body: dict[str, Any] = {
        "instructions": "Be short.",
        "input": [
            {"role": "user", "content": "One"},
            {"type": "message", "role": "assistant", "content": [{"text": "Two"}]},
            {"role": "user", "content": [{"type": "input_text", "text": "Three"}, PICTURE]},
            {"type": "function_call_output", "call_id": "c", "output": "4"},
        ],
        "max_output_tokens": 7,
        "text": {"format": {"type": "json_schema"}},
        "tools": [FUNCTION],
    }  # fmt: skip
    prompt = read_prompt(paths.RESPONSES, body)
    assert (prompt.last_turn, prompt.system) == ("Three", "Be short.")
    assert prompt.earlier == ("One", "Two") and prompt.goes_on
    assert (prompt.images, prompt.answer_tokens) == (1, 7)
    assert prompt.has_tools and prompt.has_schema and not prompt.is_embedding
    assert read_prompt(paths.RESPONSES, {"input": "Hi"}).last_turn == "Hi"


def test_a_message_of_anthropics_is_read_as_the_chat_that_it_is() -> None:
    body: dict[str, Any] = {
        "system": [{"type": "text", "text": "Be short."}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "One"}, PHOTO]},
            {"role": "assistant", "content": [{"type": "tool_use", "name": "f"}]},
            {"role": "user", "content": [{"type": "tool_result", "content": "4"}]},
        ],
        "max_tokens": 7,
    }
    prompt = read_prompt(paths.MESSAGES, body)
    # What a tool gave is nobody's turn.
    assert (prompt.last_turn, prompt.system) == ("One", "Be short.")
    assert (prompt.images, prompt.answer_tokens) == (1, 7) and prompt.goes_on
    chat = [{"role": "system", "content": "Be short."}, *body["messages"][:1]]
    same = read_prompt(paths.CHAT, {"messages": chat})
    assert (prompt.conversation, prompt.prefix) == (same.conversation, same.prefix)


def test_embeddings_are_known_by_their_path() -> None:
    prompt = read_prompt(paths.EMBEDDINGS, {"input": ["One", "Two"]})
    assert prompt.is_embedding and prompt.last_turn == "One\nTwo"
