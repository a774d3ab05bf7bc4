"""What the official clients of OpenAI and Anthropic get at the endpoints beside chat, with the real
engine behind them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from tests.gateway.engine import RealEngine
from tests.gateway.served import Served, question
from tests.helpers import wait_until
from tests.tiny_bert import N_EMBD, write_bert

pytestmark = pytest.mark.real

# Any model's template with tools would do; the packaged model has none.
TEMPLATE = str(Path(__file__).with_name("with_tools.jinja"))
# What it has no tokens of its own for, to write between two texts.
FILL_TOKENS = ",".join(
    f"tokenizer.ggml.fim_{part}_token_id=int:{token}"
    for part, token in (("pre", 3), ("suf", 4), ("mid", 5))
)
FLAGS = (
    *("-c", "4096", "-np", "2"),
    *("--chat-template-file", TEMPLATE, "--override-kv", FILL_TOKENS),
)
NAME_SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}},
    "required": ["name"],
    "additionalProperties": False,
}
NUMBER_SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["a"],
}
# So small a model calls a tool when it has it before its eyes.
CALL = 'Repeat this: <tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
LONG = "Count from one to five hundred, one number per line."
ANTHROPIC_TOOLS: Any = [
    {"name": "add", "description": "Adds one.", "input_schema": NUMBER_SCHEMA}
]


@pytest.fixture(scope="module")
def engines(
    served: Served, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RealEngine]:
    """`smol` writes text, `vectors` gives embeddings, `scores` puts documents in order."""
    folder, key = tmp_path_factory.mktemp("engines"), served.home.secret_path("engine")
    text = RealEngine(folder, key, flags=FLAGS)
    small = [
        RealEngine(folder, key, flags=(flag, "-c", "512"), model=str(path), name=name)
        for name, flag, path in (
            ("vectors", "--embeddings", write_bert(folder / "vectors.gguf", 1)),
            ("scores", "--reranking", write_bert(folder / "scores.gguf", 4)),
        )
    ]
    for engine in (text, *small):
        engine.wait_ready()
    served.prepare({"smol": text.port})
    served.shell(
        "from tests.gateway.engine import make_deployment\n"
        f"make_deployment('vectors', {small[0].port}, kind='embedding')\n"
        f"make_deployment('scores', {small[1].port}, kind='reranker')"
    )
    served.start()
    yield text
    for engine in (text, *small):
        engine.kill()


@pytest.fixture
def smol(engines: RealEngine) -> RealEngine:
    engines.idle_after_s(30)
    return engines


def claude(served: Served) -> anthropic.Anthropic:
    return anthropic.Anthropic(
        base_url=served.url, api_key=served.key, max_retries=0, timeout=60
    )


def said(text: str) -> Any:
    return [{"role": "user", "content": text}]


# --- chat -----------------------------------------------------------------------------------------
def test_a_chat_calls_a_tool_and_keeps_to_a_schema(
    smol: RealEngine, served: Served
) -> None:
    function = {"name": "add", "description": "Adds one.", "parameters": NUMBER_SCHEMA}
    tools: Any = [{"type": "function", "function": function}]
    create = served.client().chat.completions.create
    called = create(
        model="smol",
        messages=said(CALL),
        tools=tools,
        tool_choice="required",
        temperature=0,
        max_tokens=60,
    )
    call: Any = (called.choices[0].message.tool_calls or [None])[0]
    assert call.function.name == "add" and "a" in json.loads(call.function.arguments)
    wanted: Any = {
        "type": "json_schema",
        "json_schema": {"name": "x", "schema": NAME_SCHEMA},
    }
    named = create(
        model="smol", messages=said("Hi"), response_format=wanted, max_tokens=60
    )
    assert set(json.loads(named.choices[0].message.content or "")) == {"name"}


# --- responses ------------------------------------------------------------------------------------
def test_a_response_in_one_piece(smol: RealEngine, served: Served) -> None:
    answer = served.client().responses.create(
        model="smol", input="Say hello.", instructions="Be short.", max_output_tokens=6
    )
    assert answer.output_text and answer.usage and answer.usage.output_tokens <= 6


def test_a_response_goes_on_from_items_and_what_a_tool_gave(
    smol: RealEngine, served: Served
) -> None:
    items: Any = [
        {"role": "user", "content": [{"type": "input_text", "text": "Add 1 to 1."}]},
        {"type": "function_call", "call_id": "c", "name": "add", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "2"},
    ]
    answer = served.client().responses.create(
        model="smol", input=items, max_output_tokens=4, store=False
    )
    assert answer.output_text


def test_a_streamed_response_says_that_it_is_complete_and_nothing_behind_it(
    smol: RealEngine, served: Served
) -> None:
    stream = served.client().responses.create(
        model="smol", input="Say hello.", max_output_tokens=6, stream=True
    )
    kinds = [event.type for event in stream]
    assert kinds[0] == "response.created" and kinds[-1] == "response.completed"
    assert kinds.count("response.output_text.delta") >= 2
    body = {"model": "smol", "input": "Hi", "max_output_tokens": 2, "stream": True}
    assert b"[DONE]" not in served.post(body, "/v1/responses").content


def test_a_response_calls_a_tool_and_keeps_to_a_schema(
    smol: RealEngine, served: Served
) -> None:
    tools: Any = [{"type": "function", "name": "add", "parameters": NUMBER_SCHEMA}]
    create = served.client().responses.create
    called = create(
        model="smol",
        input=CALL,
        tools=tools,
        tool_choice="required",
        temperature=0,
        max_output_tokens=60,
    )
    assert [each.name for each in called.output if each.type == "function_call"] == [
        "add"
    ]
    wanted: Any = {"type": "json_schema", "name": "x", "schema": NAME_SCHEMA}
    named = create(
        model="smol", input="Hi", text={"format": wanted}, max_output_tokens=60
    )
    assert set(json.loads(named.output_text)) == {"name"}


def test_the_tokens_of_a_response_are_counted_before_it_is_asked_for(
    smol: RealEngine, served: Served
) -> None:
    count = served.client().responses.input_tokens.count(model="smol", input="Hi")
    assert count.input_tokens > 1


def test_what_no_engine_keeps_is_said_and_not_passed_over(
    smol: RealEngine, served: Served
) -> None:
    create = served.client().responses.create
    with pytest.raises(openai.BadRequestError, match="previous_response_id"):
        create(model="smol", input="Hi", previous_response_id="resp_1")
    with pytest.raises(openai.BadRequestError, match="kept nowhere"):
        create(model="smol", input="Hi", conversation="conv_1")


# --- messages -------------------------------------------------------------------------------------
def test_a_message_in_one_piece(smol: RealEngine, served: Served) -> None:
    answer = claude(served).messages.create(
        model="smol", max_tokens=6, system="Be short.", messages=said("Say hello.")
    )
    assert answer.content[0].type == "text" and answer.content[0].text
    assert answer.usage.output_tokens <= 6


def test_a_streamed_message_ends_with_its_own_event_and_nothing_behind_it(
    smol: RealEngine, served: Served
) -> None:
    asked: Any = {
        "model": "smol",
        "max_tokens": 6,
        "messages": said("Say hello."),
    }
    # The engine leaves the first event out where the first token is half a character.
    greedy: Any = {"temperature": 0}
    with claude(served).messages.stream(**asked, extra_body=greedy) as stream:
        assert "".join(stream.text_stream)
        assert stream.get_final_message().stop_reason in ("end_turn", "max_tokens")
    raw = served.post({**asked, **greedy, "stream": True}, "/v1/messages").content
    assert raw.rstrip().endswith(b'{"type":"message_stop"}') and b"[DONE]" not in raw


def test_a_message_calls_a_tool_also_in_a_stream_and_takes_its_result(
    smol: RealEngine, served: Served
) -> None:
    asked: Any = {
        "model": "smol",
        "max_tokens": 60,
        "messages": said(CALL),
        "extra_body": {"temperature": 0},
        "tools": ANTHROPIC_TOOLS,
        "tool_choice": {"type": "any"},
    }
    with claude(served).messages.stream(**asked) as stream:
        called = stream.get_final_message()
    assert called.stop_reason == "tool_use"
    use = called.content[0]
    assert use.type == "tool_use" and use.name == "add" and "a" in use.input
    result = {"type": "tool_result", "tool_use_id": use.id, "content": "2"}
    turns = [
        *asked["messages"],
        {"role": "assistant", "content": [use.model_dump(exclude_none=True)]},
        {"role": "user", "content": [result]},
    ]
    del asked["tool_choice"]
    answer = claude(served).messages.create(**asked | {"messages": turns})
    assert answer.content


def test_the_tokens_of_a_message_are_counted(smol: RealEngine, served: Served) -> None:
    count = claude(served).messages.count_tokens
    short = count(model="smol", messages=said("Hi"))
    long = count(model="smol", messages=said("Hi"), tools=ANTHROPIC_TOOLS)
    assert 1 < short.input_tokens < long.input_tokens


def test_anthropics_headers_are_taken_and_its_errors_have_its_shape(
    smol: RealEngine, served: Served
) -> None:
    client = claude(served)
    with pytest.raises(anthropic.NotFoundError) as unknown:
        client.messages.create(model="nobody", max_tokens=1, messages=said("Hi"))
    assert unknown.value.type == "not_found_error"
    with pytest.raises(anthropic.BadRequestError) as too_long:
        client.messages.create(
            model="smol", max_tokens=1, messages=said("word " * 3000)
        )
    assert too_long.value.type == "invalid_request_error"
    assert "context" in str(too_long.value)
    with pytest.raises(anthropic.AuthenticationError):
        client.copy(api_key="wrong").messages.create(
            model="smol", max_tokens=1, messages=said("Hi")
        )
    headers = {"anthropic-version": "2023-06-01", "anthropic-beta": "anything-2030"}
    answer = served.post(
        {"model": "smol", "max_tokens": 1, "messages": said("Hi"), "mcp_servers": []},
        "/v1/messages",
        headers={**served.headers, **headers},
    )
    assert answer.status_code == 200
    assert answer.headers["x-omni-dropped-fields"] == "mcp_servers"


# --- hanging up -----------------------------------------------------------------------------------
def test_hanging_up_in_the_middle_frees_the_slot(
    smol: RealEngine, served: Served
) -> None:
    response = served.client().responses.create(
        model="smol",
        input=LONG,
        max_output_tokens=1500,
        stream=True,
        extra_body={"ignore_eos": True},
    )
    for _, _event in zip(range(8), response, strict=False):
        pass
    assert smol.busy()
    response.close()
    smol.idle_after_s(5)
    with claude(served).messages.stream(
        model="smol", max_tokens=1500, messages=said(LONG)
    ) as stream:
        next(iter(stream.text_stream))
    smol.idle_after_s(5)


# --- embeddings, an order, the middle of a text, tokens -------------------------------------------
def test_embeddings_come_as_numbers_and_packed(
    smol: RealEngine, served: Served
) -> None:
    answer = served.client().embeddings.create(
        model="vectors", input=["monday", "days , cats"]
    )
    assert [len(each.embedding) for each in answer.data] == [N_EMBD, N_EMBD]
    assert answer.usage.prompt_tokens > 0
    by_auto = served.post({"model": "auto", "input": "monday"}, "/embeddings")
    assert by_auto.headers["x-omni-deployment"] == "vectors"
    assert len(by_auto.json()["data"][0]["embedding"]) == N_EMBD


def test_documents_are_put_in_order(smol: RealEngine, served: Served) -> None:
    body = {"model": "scores", "query": "days", "documents": ["monday", "cats"]}
    answers = [served.post(body, path) for path in ("/v1/rerank", "/reranking")]
    assert [len(answer.json()["results"]) for answer in answers] == [2, 2]
    cut = served.post({**body, "model": "auto", "top_n": 1}, "/v1/rerank")
    assert cut.headers["x-omni-deployment"] == "scores"
    assert len(cut.json()["results"]) == 1


def test_the_middle_of_a_text_is_filled_in_streamed_or_not(
    smol: RealEngine, served: Served
) -> None:
    body = {"model": "smol", "input_prefix": "a", "input_suffix": "b", "n_predict": 3}
    assert served.post(body, "/infill").json()["stop"] is True
    streamed = served.post({**body, "stream": True}, "/infill").text
    last = json.loads(streamed.rstrip().rpartition("data: ")[2])
    assert last["stop"] is True and "error" not in streamed


def test_tokens_become_text_again(smol: RealEngine, served: Served) -> None:
    body = {"model": "smol", "content": "monday cats"}
    tokens = served.post(body, "/tokenize").json()["tokens"]
    back = served.post({"model": "smol", "tokens": tokens}, "/detokenize")
    assert back.json()["content"] == "monday cats"


# --- what is not there ----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("path", "body", "code", "says"),
    [
        (
            "/v1/embeddings",
            {"model": "smol", "input": "x"},
            "endpoint_missing",
            "runs a text model, which answers no embeddings. Name one that has"
            " /v1/embeddings: 'vectors'.",
        ),
        (
            "/v1/rerank",
            {"model": "vectors", "query": "x", "documents": ["y"]},
            "no_text_model",
            "'scores'",
        ),
        (
            "/v1/chat/completions",
            question("Hi", "vectors"),
            "no_text_model",
            "answers no text. Name one that has /v1/chat/completions: 'smol'.",
        ),
    ],
)
def test_a_deployment_that_has_no_such_endpoint_says_which_has(
    smol: RealEngine, served: Served, path: str, body: Any, code: str, says: str
) -> None:
    answer = served.post(body, path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)
    assert says in answer.json()["error"]["message"]


def test_the_same_in_anthropics_shape(smol: RealEngine, served: Served) -> None:
    with pytest.raises(anthropic.BadRequestError, match="'smol'") as refused:
        claude(served).messages.create(
            model="scores", max_tokens=1, messages=said("Hi")
        )
    assert refused.value.type == "invalid_request_error"


def test_an_engine_that_dies_ends_each_stream_with_one_event_of_its_api(
    served: Served, engines: RealEngine, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The last of this module: it takes an engine of its own."""
    key = served.home.secret_path("engine")
    doomed = RealEngine(tmp_path_factory.mktemp("doomed"), key)
    served.shell(
        "from tests.gateway.engine import make_deployment; make_deployment('doomed',"
        f" {doomed.port})"
    )
    wait_until(
        lambda: "doomed" in [m.id for m in served.client().models.list()],
        2,
        "not listed",
    )
    response = served.client().responses.create(
        model="doomed", input=LONG, max_output_tokens=900, stream=True
    )
    message = claude(served).messages.create(
        model="doomed", max_tokens=900, messages=said(LONG), stream=True
    )
    next(iter(response)), next(iter(message))
    doomed.kill()
    with pytest.raises(openai.APIError, match="broke off"):
        list(response)
    with pytest.raises(anthropic.APIStatusError, match="broke off"):
        list(message)
