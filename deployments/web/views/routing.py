"""Which deployment `auto` would choose for a prompt, rule by rule; nothing is sent to a model."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_http_methods

from deployments.engines.endpoints import CHAT
from deployments.gateway.auto.decision import Decision, Surroundings, decide
from deployments.gateway.auto.prompt import Prompt, read_prompt
from deployments.gateway.auto.rules import decide_route
from deployments.gateway.directory import read_table
from deployments.gateway.routing import candidates_of, targets_of
from deployments.gateway.table import Table
from deployments.web.prompt_form import PromptForm
from omni.htmx import HtmxHttpRequest, render_page_or_part

# Enough for routing to see that there is one.
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}


@require_http_methods(["GET", "HEAD", "POST"])
def routing(request: HtmxHttpRequest) -> HttpResponse:
    table = read_table()
    names = [each.name for each in candidates_of(table)]
    sent = request.POST if request.method == "POST" else None
    form = PromptForm(sent, deployments=names, routes=sorted(table.rules))
    context: dict[str, Any] = {"form": form, "offered": table.offered}
    if request.method != "POST" or not form.is_valid():
        return _shown(request, context)
    return _shown(request, {**context, **_decided(form, table)})


def _shown(request: HtmxHttpRequest, context: dict[str, Any]) -> HttpResponse:
    if request.method == "POST":
        return render_page_or_part(
            request, "deployments/routing.html", "deployments/_decision.html", context
        )
    return render(request, "deployments/routing.html", context)


def _decided(form: PromptForm, table: Table) -> dict[str, Any]:
    prompt = _prompt(form.cleaned_data)
    around = Surroundings(conversation=form.cleaned_data["answered_by"])
    rules = table.rules.get(form.cleaned_data["model"])
    decision: Decision | None = None
    if rules:
        candidates = targets_of(table, rules)
        decision = decide_route(rules, prompt, candidates, around)
    elif candidates := candidates_of(table):
        decision = decide(prompt, candidates, around)
    if decision is None:
        return {"nothing_answers": True}
    by_name = {each.name: each for each in candidates}
    return {
        "decision": decision,
        "chain": [by_name[name] for name in decision.chain],
        "signals": decision.classification.signals,
    }


def _prompt(asked: dict[str, Any]) -> Prompt:
    turns = (("system", asked["system"]), ("user", asked["earlier"]))
    messages: list[dict[str, Any]] = [
        {"role": role, "content": text} for role, text in turns if text
    ]
    content: Any = asked["prompt"]
    if asked["has_image"]:
        content = [{"type": "text", "text": content}, PICTURE]
    messages.append({"role": "user", "content": content})
    return read_prompt(CHAT, {"messages": messages})
