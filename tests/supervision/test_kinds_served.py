"""Embedding models and rerankers as the real engine runs them, and files that no engine runs."""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from chat.lanes import choices_for, find_target
from deployments.engines.probe import archs
from deployments.engines.probe.archs import lacked, learn
from deployments.gateway.directory import forget_table, read_table
from deployments.gateway.relay import open_answer
from deployments.gateway.routing import route_request
from deployments.gateway.table import AUTO
from deployments.library.folders import scan
from deployments.models import Deployment, Engine, Instance, LibraryFolder, Model
from deployments.services.deployments import deployment_create, deployment_start
from deployments.services.plans import plan_deployment
from gpus.models import Host
from omni.errors import OmniError
from tests.supervision.conftest import Ticker
from tests.tiny_bert import N_EMBD, write_bert

pytestmark = [
    pytest.mark.real,
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(120),
]


def served(
    engine: Engine, ticker: Ticker, path: Path, context: int = 512
) -> Deployment:
    LibraryFolder.objects.get_or_create(path=str(path.parent))
    scan()
    model = Model.objects.get(path=str(path))
    made = deployment_create(
        name=path.stem, strategy="independent", engine=engine, members={"model": (model, ["CPU"])},
        settings={"context": context, "threads": 1},
    )  # fmt: skip
    deployment_start(deployment=made)
    ticker.until(
        lambda: Instance.objects.filter(deployment=made, state="ready").exists(), 40
    )
    return made


def asked(deployment: Deployment, path: str, body: dict[str, Any]) -> Any:
    """As a program asks it, through the gateway."""

    async def answer() -> bytes:
        forget_table()
        wanted = {"model": deployment.name, **body}
        async with open_answer(path, wanted) as upstream:
            assert upstream.status == HTTPStatus.OK
            return await upstream.body()

    return json.loads(asyncio.run(answer()))


@pytest.mark.parametrize("pooling", [2, 1, 0])
def test_an_embedding_model_runs_gives_vectors_and_does_not_chat(
    engine: Engine, ticker: Ticker, tmp_path: Path, pooling: int
) -> None:
    made = served(engine, ticker, write_bert(tmp_path / "vectors.gguf", pooling))
    row = made.instances.get()
    assert "--embeddings" in row.argv and ("--pooling" in row.argv) == (pooling == 0)
    assert (row.warning, row.restarts) == ("", 0)
    vector = asked(made, "/v1/embeddings", {"input": "monday days"})["data"][0][
        "embedding"
    ]
    assert len(vector) == N_EMBD and any(vector)
    assert not any(use.kv_bytes for use in plan_deployment(made).devices)
    assert_no_chat(made)


def test_a_text_as_long_as_the_context_becomes_a_vector(
    engine: Engine, ticker: Ticker, tmp_path: Path
) -> None:
    """The engine computes it in one piece, and its own micro-batch has 512 tokens."""
    path = write_bert(tmp_path / "long.gguf", 1, n_ctx=1024)
    made = served(engine, ticker, path, context=1024)
    said = asked(made, "/v1/embeddings", {"input": "monday " * 1000})
    assert said["usage"]["prompt_tokens"] == 1002


def test_a_reranker_runs_gives_scores_and_does_not_chat(
    engine: Engine, ticker: Ticker, tmp_path: Path
) -> None:
    made = served(engine, ticker, write_bert(tmp_path / "scores.gguf", 4))
    row = made.instances.get()
    assert "--reranking" in row.argv and (row.warning, row.restarts) == ("", 0)
    scores = asked(
        made, "/v1/rerank", {"query": "days", "documents": ["monday", "cats"]}
    )["results"]
    assert len(scores) == 2
    assert_no_chat(made)


def assert_no_chat(made: Deployment) -> None:
    table = read_table()
    with pytest.raises(OmniError, match="answers no text") as refused:
        route_request(made.name, table)
    assert refused.value.code == "no_text_model"
    with pytest.raises(OmniError, match="No deployment is ready"):
        route_request(AUTO, table)
    assert made.name not in [choice.name for choice in choices_for([])]
    with pytest.raises(OmniError, match="does not chat"):
        find_target(made.name)


# --- asking the engine ----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("arch", "expected"),
    [
        ("llama", True),
        ("bert", True),
        ("qwen3moe", True),
        ("whisper", False),
        ("nobody-has-this", False),
    ],
)
def test_the_engine_is_asked_whether_it_has_an_architecture(
    host: Host, engine: Engine, arch: str, expected: bool
) -> None:
    learn(engine, [arch])
    assert (arch not in lacked(engine, [arch])) is expected
    assert Engine.objects.get(pk=engine.pk).archs == {arch: expected}


@pytest.mark.parametrize("arch", ["", "../x", "a b", "x" * 100, "a\n"])
def test_what_is_no_name_of_an_architecture_is_not_asked_for(
    host: Host, engine: Engine, arch: str
) -> None:
    learn(engine, [arch])
    assert engine.archs == {}


def test_an_engine_that_does_not_say_counts_as_having_it_and_is_asked_once(
    host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One that loads whatever it is given, as a wrapper may, runs on until its time is over."""
    monkeypatch.setattr(archs, "TIMEOUT_S", 0.3)
    asked = tmp_path / "asked"
    program = tmp_path / "llama-server"
    program.write_text(f"#!/bin/sh\necho asked >> {asked}\nsleep 100\n")
    program.chmod(0o700)
    engine = Engine.objects.create(
        host=host, name="mute", path=str(program), flavour="llama.cpp"
    )
    for _ in range(2):
        learn(engine, ["llama"])
    assert (engine.archs, lacked(engine, ["llama"])) == ({"llama": True}, frozenset())
    assert asked.read_text().count("asked") == 1
