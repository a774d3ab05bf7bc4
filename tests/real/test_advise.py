"""What is advised is deployed, and answers."""

from __future__ import annotations

import httpx
import pytest

from tests.panel import RunningPanel

pytestmark = pytest.mark.real
PURPOSES = """
purposes:
  - {name: coding, models: [MODEL], context: 1024, prompt_tokens: 200, answer_tokens: 100}
  - {name: chat, models: [MODEL], context: 2048, prompt_tokens: 300, answer_tokens: 200}
  - {name: notes, models: [MODEL], context: 512, prompt_tokens: 100, answer_tokens: 50, weight: 0.5}
"""


def test_three_purposes_are_advised_deployed_started_and_answer(
    panel: RunningPanel,
) -> None:
    (model, *_) = panel.document("scan")["models"]
    path = panel.home / "purposes.yaml"
    path.write_text(PURPOSES.replace("MODEL", model["name"]))

    first = panel.document("advise", str(path))["answers"][0]
    made = panel.document("advise", str(path), "--apply", "1", "--start")
    assert made["changes"]
    for each in first["deployments"]:
        panel.ready(each["name"])

    key = panel.manage("apikey", "advised").stdout.strip().splitlines()[-1]
    headers = {"authorization": f"Bearer {key}"}
    for purpose in first["purposes"]:
        question = {
            "model": purpose["deployment"],
            "messages": [{"role": "user", "content": "Say hello."}],
            "max_tokens": 8,
        }
        answer = httpx.post(
            f"{panel.url}/v1/chat/completions",
            json=question,
            headers=headers,
            timeout=60,
        )
        assert answer.status_code == 200, answer.text
        assert answer.headers["x-omni-deployment"] == purpose["deployment"]
        assert answer.json()["choices"][0]["message"]["content"]
