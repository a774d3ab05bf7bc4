"""The questions of a conversation as the prompts of a benchmark: what one really asks."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_GET

from chat.models import Conversation
from chat.pages import own
from chat.transcript import active_turns
from deployments.bench.prompt_files import lines_of
from deployments.bench.questions import ANSWER_TOKENS
from deployments.web.benchmark_fields import OWN
from deployments.web.benchmark_form import BenchmarkForm
from omni.htmx import HtmxHttpRequest

# Everybody who looks at benchmarks reads it: a title would tell what was talked about.
CALLED = "questions of a chat"


@require_GET
def benchmark(request: HtmxHttpRequest, pk: int) -> HttpResponse:
    """The form of a new benchmark, filled in; nothing is kept before it is sent."""
    conversation = own(request, pk)
    length = conversation.settings.get("max_tokens") or ANSWER_TOKENS
    answering = conversation.lanes.filter(deployment__isnull=False)
    choices = {
        "deployment": list(answering.values_list("deployment__name", flat=True)),
        "scenario": OWN,
        "called": CALLED,
        "prompts": lines_of(_questions(conversation, length)),
        "max_tokens": length,
    }
    context = {
        "form": BenchmarkForm(initial=choices),
        "address": reverse("deployments:benchmark_new"),
    }
    return render(request, "deployments/benchmark_new.html", context)


def _questions(conversation: Conversation, length: int) -> list[dict[str, Any]]:
    """Each by itself and once: what was answered before it is not sent along. Benchmarks have no
    images: a question about one is left out."""
    asked = conversation.messages.filter(lane=None).only(
        "content", "parent", "lane", "is_active"
    )
    turns = active_turns(list(asked.prefetch_related("attachments")), [])
    questions = [turn.question.message for turn in turns]
    texts = dict.fromkeys(
        question.content for question in questions if not question.attachments.all()
    )
    system = conversation.system_prompt
    before = [{"role": "system", "content": system}] if system.strip() else []
    return [
        {
            "messages": [*before, {"role": "user", "content": text}],
            "max_tokens": length,
        }
        for text in texts
    ]
