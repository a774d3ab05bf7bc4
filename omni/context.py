"""What every template may use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.contrib.auth.models import AnonymousUser
from django.http import HttpRequest
from django.urls import reverse

from omni.roles.rights import Allowed


@dataclass(frozen=True)
class Entry:
    """A page in the navigation: its group, and whether a phone's bottom bar has it as well.

    `needs` is what one must be allowed to (a name of Allowed) to be shown it.
    """

    group: str
    title: str
    view: str
    icon: str
    in_bar: bool = False
    needs: str = ""


# In this order, the groups' too. A phone's bar has room for four.
ENTRIES = (
    Entry("", "Home", "deployments:advice", "star", in_bar=True),
    Entry("", "Chat", "chat:list", "chat", in_bar=True),
    Entry("Deploy", "Models", "deployments:models", "models"),
    Entry("Deploy", "Plan", "deployments:plan", "plan"),
    Entry(
        "Deploy", "Deployments", "deployments:deployments", "deployments", in_bar=True
    ),
    Entry("Deploy", "Benchmarks", "deployments:benchmarks", "benchmarks"),
    Entry("Monitor", "Rig", "gpus:rig", "rig", in_bar=True),
    Entry("Monitor", "Doctor", "deployments:doctor", "doctor"),
    Entry("Monitor", "History", "gpus:history", "clock"),
    Entry("Monitor", "Activity", "deployments:activity", "activity"),
    Entry("Monitor", "Alerts", "deployments:alerts", "bell"),
    Entry("Manage", "Keys", "deployments:keys", "key"),
    Entry("Manage", "Connect", "deployments:connect", "plug"),
    Entry("Manage", "Administration", "admin:index", "settings", needs="administer"),
)


def csp_nonce(request: HttpRequest) -> dict[str, Any]:
    """django-csp calls it CSP_NONCE; django-htmx and Django 6 read csp_nonce."""
    return {"csp_nonce": getattr(request, "csp_nonce", "")}


def navigation(request: HttpRequest) -> dict[str, Any]:
    """The pages by their groups, with the one that is open marked."""
    match = request.resolver_match
    here = f"{match.app_name}:{match.url_name}" if match else ""
    section = SECTION_OF.get(here) or here
    may = Allowed(getattr(request, "user", AnonymousUser()))
    groups: dict[str, list[dict[str, Any]]] = {}
    for entry in ENTRIES:
        if not entry.needs or may[entry.needs]:
            shown = {"title": entry.title, "icon": entry.icon, "in_bar": entry.in_bar}
            shown |= {"url": reverse(entry.view), "current": entry.view == section}
            groups.setdefault(entry.group, []).append(shown)
    return {
        "navigation": groups,
        "omni_version": settings.OMNI_VERSION,
        "path_prefix": settings.OMNI_PATH_PREFIX,
    }


def rights(request: HttpRequest) -> dict[str, Any]:
    """What whoever looks may do. Some requests fail before it is known who that is."""
    return {"may": Allowed(getattr(request, "user", AnonymousUser()))}


# Pages below another one light up its entry.
SECTION_OF = {
    "deployments:answer": "deployments:advice",
    "deployments:advice_ask": "deployments:advice",
    "deployments:model": "deployments:models",
    "deployments:download": "deployments:models",
    "deployments:server": "deployments:models",
    "deployments:server_add": "deployments:models",
    "deployments:server_change": "deployments:deployments",
    "deployments:accuracy": "deployments:plan",
    "deployments:deployment": "deployments:deployments",
    "deployments:create": "deployments:deployments",
    "deployments:rig_file": "deployments:deployments",
    "deployments:routing": "deployments:deployments",
    "deployments:benchmark": "deployments:benchmarks",
    "deployments:benchmark_new": "deployments:benchmarks",
    "chat:benchmark": "deployments:benchmarks",
    "deployments:benchmarks_compared": "deployments:benchmarks",
    "deployments:activity_request": "deployments:activity",
    "deployments:usage": "deployments:activity",
    "deployments:alert_rule": "deployments:alerts",
    "deployments:alert_channel_add": "deployments:alerts",
    "deployments:alert_channel": "deployments:alerts",
    "chat:conversation": "chat:list",
    "chat:new": "chat:list",
    "chat:standings": "chat:list",
    "chat:differences": "chat:list",
    "deployments:key_new": "deployments:keys",
    "deployments:key_change": "deployments:keys",
    "deployments:device_server": "gpus:rig",
    "gpus:card": "gpus:rig",
}
