"""How a program is connected: its settings, filled in and ready to copy."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.db.models import Q, QuerySet
from django.http import HttpResponse
from django.utils import timezone
from django.views.decorators.http import require_safe

from deployments.gateway.directory import read_table
from deployments.gateway.table import AUTO, Serving, Table
from deployments.models import ApiKey
from deployments.web.snippets import KEY_VARIABLE, Wanted, snippets
from omni.htmx import HtmxHttpRequest, render_page_or_part
from omni.program_address import panel_root, program_address, program_root
from omni.roles.rights import SUPERUSER, may


@require_safe
def connect(request: HtmxHttpRequest) -> HttpResponse:
    names = names_to_ask(read_table())
    asked = request.GET.get("model", "")
    chosen = asked if asked in names else next(iter(names), "")
    keys = usable_keys(request.user)
    context: dict[str, Any] = {
        "address": program_address(request),
        "panel_address": f"{panel_root(request)}/v1",
        "names": list(names),
        "chosen": chosen,
        "unknown": asked if asked and asked != chosen else "",
        "keys": keys,
        "key": keys.first(),
        "variable": KEY_VARIABLE,
    }
    if chosen:
        wanted = Wanted(program_root(request), chosen, names[chosen])
        context["snippets"] = snippets(wanted)
    return render_page_or_part(
        request, "deployments/connect.html", "deployments/_connect.html", context
    )


def names_to_ask(table: Table) -> dict[str, int]:
    """What a program may ask for text, `auto` first, each with the tokens that a request may have
    (0: not known)."""
    found = {
        public: each.context_tokens
        for public, each in table.public_names()
        if each.gives_text and _answers(each)
    }
    if not found:
        return {}
    # A route of this name leads where it leads.
    return {AUTO: found.get(AUTO, min(found.values())), **found}


def _answers(serving: Serving) -> bool:
    """At once, or once it is loaded."""
    return serving.can_be_asked or serving.is_unloaded


def usable_keys(user: User) -> QuerySet[ApiKey]:
    """A person's own keys that still work, the newest first; those that the command line made are
    the administrators'."""
    owned = Q(owner=user)
    if may(user, SUPERUSER):
        owned |= Q(owner=None)
    current = Q(expiry_date=None) | Q(expiry_date__gt=timezone.now())
    return ApiKey.objects.filter(owned, current, revoked=False).order_by("-created")
