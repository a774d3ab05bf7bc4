"""Conversations of two lanes, and questions whose answers are there without an engine."""

from __future__ import annotations

from typing import Any

from chat import services
from chat.models import Conversation, Message

NAMES = ("anna", "bert")
FIGURES = {
    "ttft_ms": 812.5,
    "duration_ms": 17_300.0,
    "decode_tps": 31.25,
    "prefill_tps": 640.0,
    "prompt_tokens": 4096,
    "cached_tokens": 1024,
    "completion_tokens": 512,
    "timings": {
        "draft_n": 60,
        "draft_n_accepted": 41,
        "omni_energy": {
            "joules": 3686.4,
            "seconds": 17.3,
            "devices": ["CUDA5"],
            "silent": ["CUDA6"],
        },
    },
    "thinking": "anna would say so",
}
# As the page shows them.
SHOWN_FIGURES = (
    *("812", "17.3", "31.2", "640", "4096", "512", "drafts", "would say so"),
    *("213 W", "7.2 J/token", "3.69 kJ", "CUDA5", "CUDA6"),
)


def ask(conversation: Conversation, text: str = "Hi", **fields: Any) -> Message:
    """A question whose answers are there; each says no more than the other."""
    services.question_send(conversation=conversation, text=text)
    return finish(conversation, **fields)


def finish(conversation: Conversation, **fields: Any) -> Message:
    given = {"state": "done", "content": "Hello.", **FIGURES, **fields}
    Message.objects.filter(conversation=conversation, state="streaming").update(**given)
    found = conversation.messages.filter(role="user").order_by("-id").first()
    assert found is not None
    return found
