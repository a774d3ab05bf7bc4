"""Streamed answers through the gateway of a running panel, read in threads."""

from __future__ import annotations

import json
import threading
from typing import Any

import httpx

from tests.helpers import wait_until
from tests.panel import RunningPanel


def gateway_key(panel: RunningPanel) -> str:
    made = panel.manage("apikey", "tests")
    assert made.returncode == 0, made.stderr
    return made.stdout.strip().splitlines()[-1]


class Streamed:
    """One answer: its text, how it ended, and what was said when it ended badly."""

    def __init__(
        self,
        panel: RunningPanel,
        key: str,
        model: str,
        question: str = "Count to 500.",
        **fields: Any,
    ) -> None:
        self.url, self.key = f"{panel.url}/v1/chat/completions", key
        # The same each time: an answer by chance may hold half a character, on which the engine
        # breaks off.
        always = {"model": model, "stream": True, "temperature": 0}
        self.body = {
            **always,
            "messages": [{"role": "user", "content": question}],
            **fields,
        }
        self.text, self.status, self.finish_reason, self.error_code, self.error = (
            "",
            0,
            "",
            "",
            "",
        )
        self.is_done, self.ended = False, threading.Event()
        self.deployment = ""
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        headers = {"Authorization": f"Bearer {self.key}"}
        try:
            with httpx.stream(
                "POST", self.url, json=self.body, headers=headers, timeout=150
            ) as answer:
                self.status, self.deployment = (
                    answer.status_code,
                    answer.headers.get("x-omni-deployment", ""),
                )
                if answer.status_code != 200:
                    self._take(json.loads(answer.read()))
                    return
                for line in answer.iter_lines():
                    if line == "data: [DONE]":
                        self.is_done = True
                    elif line.startswith("data:"):
                        self._take(json.loads(line[5:]))
        except httpx.HTTPError as error:
            self.error = f"{type(error).__name__}: {error}"
        finally:
            self.ended.set()

    def _take(self, event: dict[str, Any]) -> None:
        if "error" in event:
            self.error_code, self.error = (
                event["error"]["code"],
                event["error"]["message"],
            )
        for choice in event.get("choices", ()):
            self.text += choice.get("delta", {}).get("content") or ""
            self.finish_reason = choice.get("finish_reason") or self.finish_reason

    @property
    def has_begun(self) -> bool:
        return bool(self.text) or self.ended.is_set()

    def wait(self, timeout_s: float) -> Streamed:
        assert self.ended.wait(timeout_s), (
            f"it still goes on after {timeout_s:g} s: {self}"
        )
        return self

    def __repr__(self) -> str:
        return (
            f"<{self.status} {self.finish_reason!r} {self.error_code!r} {self.error!r}"
            f" {self.text[-40:]!r}>"
        )


def all_begun(answers: list[Streamed], timeout_s: float = 60) -> None:
    wait_until(
        lambda: all(answer.has_begun for answer in answers),
        timeout_s,
        lambda: f"not all began: {answers}",
    )
