"""What clients of the gateway see of a hand-over, over HTTP."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.pair import Pair, pair
from tests.gateway.served import Served, question
from tests.helpers import wait_until
from tests.planning.tiny_models import write_tiny

pytestmark = pytest.mark.real
FIGURES = (
    r"prefill_ms=[\d.]+,save_ms=[\d.]+,restore_ms=[\d.]+,wait_ms=[\d.]+,bytes=[1-9]\d*,"
    r"tokens=[1-9]\d*,read_tokens=[1-9]\d*"
)


@pytest.fixture(scope="module")
def tiny(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("pair")
    model, key = (
        str(write_tiny(folder / "qwen3.gguf", "qwen3")),
        served.home.secret_path("engine"),
    )
    with pair(
        folder,
        model=model,
        flags=("-c", "8192", "-np", "2", "-b", "64", "-ub", "64"),
        key=key,
    ) as made:
        ports = {"prefill": made.prefill.port, "decode": made.decode.port}
        served.prepare({})
        served.shell(
            "from tests.gateway.engine import make_pair; "
            f"make_pair('pair', {ports!r}, {str(made.slots)!r}, slots=2, least_tokens=64)"
        )
        served.start()
        yield made


def long_question(start: int, **fields: Any) -> dict[str, Any]:
    text = " ".join(str(number) for number in range(start, start + 300))
    return question(text, "pair", max_tokens=4, **fields)


def test_figures_come_with_the_head_and_the_stream_is_the_engines_own(
    tiny: Pair, served: Served
) -> None:
    answer = served.post(long_question(0, stream=True))
    assert re.fullmatch(FIGURES, answer.headers["x-omni-handover"])
    assert answer.headers["x-omni-deployment"] == "pair"
    assert answer.content.startswith(b"data: {") and answer.content.endswith(
        b"data: [DONE]\n\n"
    )
    assert b'"prompt_n":1,' in answer.content


def test_a_short_prompt_says_that_it_was_not_handed_over(
    tiny: Pair, served: Served
) -> None:
    answer = served.post(question("Hi.", "pair", max_tokens=1))
    assert answer.headers["x-omni-handover"] == "skipped: short prompt"


def test_hanging_up_while_the_prompt_is_read_frees_both_instances(
    tiny: Pair, served: Served
) -> None:
    raw = json.dumps(long_question(1000)).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {served.key}\r\n"
    with socket.create_connection(("127.0.0.1", served.port)) as client:
        client.sendall(f"{head}Content-Length: {len(raw)}\r\n\r\n".encode() + raw)
        wait_until(
            tiny.prefill.busy,
            10,
            "the prefill instance got no prompt",
            interval_s=0.005,
        )
    for engine in (tiny.prefill, tiny.decode):
        engine.idle_after_s(10, 0.1)
    assert list(Path(tiny.slots).iterdir()) == []
    assert re.fullmatch(
        FIGURES, served.post(long_question(2000)).headers["x-omni-handover"]
    )
