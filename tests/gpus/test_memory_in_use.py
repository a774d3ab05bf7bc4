"""What is in use now, from the sampler's last frame."""

from __future__ import annotations

import json
import time

import pytest

from gpus import facts


@pytest.mark.parametrize(
    ("frame", "used"),
    [
        (None, {}),
        ({"at": 0}, {}),
        (
            {
                "cards": [{"key": "GPU-1", "memory_used_bytes": 5}, {"key": "GPU-2"}],
                "host": {"ram_used_bytes": 7},
            },
            {"GPU-1": 5, "host": 7},
        ),
    ],
)
def test_memory_in_use(
    monkeypatch: pytest.MonkeyPatch,
    frame: dict[str, object] | None,
    used: dict[str, int],
) -> None:
    text = json.dumps({"at": time.time() * 1000, **frame}) if frame else ""
    monkeypatch.setattr(facts, "last_frame", lambda host: text)
    assert facts.memory_in_use("here") == used


def test_an_old_frame_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = {
        "at": time.time() * 1000 - 60_000,
        "cards": [],
        "host": {"ram_used_bytes": 7},
    }
    monkeypatch.setattr(facts, "last_frame", lambda host: json.dumps(frame))
    assert facts.memory_in_use("here") == {}
