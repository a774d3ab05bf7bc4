"""What every template may use."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib.auth.models import AnonymousUser
from django.http import HttpRequest
from django.urls import reverse

from omni.roles import Allowed

PAGES = (
    ("Home", "deployments:advice", "star"),
    ("Rig", "gpus:rig", "rig"),
    ("Models", "deployments:models", "models"),
    ("Plan", "deployments:plan", "plan"),
    ("Deployments", "deployments:deployments", "deployments"),
    ("Benchmarks", "deployments:benchmarks", "benchmarks"),
    ("Activity", "deployments:activity", "activity"),
    ("Alerts", "deployments:alerts", "alert"),
    ("Chat", "chat:list", "chat"),
    ("Keys", "deployments:keys", "key"),
)


def csp_nonce(request: HttpRequest) -> dict[str, Any]:
    """django-csp calls it CSP_NONCE; django-htmx and Django 6 read csp_nonce."""
    return {"csp_nonce": getattr(request, "csp_nonce", "")}


def navigation(request: HttpRequest) -> dict[str, Any]:
    """The pages, with the one that is open marked."""
    match = request.resolver_match
    here = f"{match.app_name}:{match.url_name}" if match else ""
    section = SECTION_OF.get(here) or here
    entries = [
        {"title": title, "url": reverse(name), "icon": icon, "current": name == section}
        for title, name, icon in PAGES
    ]
    return {
        "navigation": entries,
        "omni_version": settings.OMNI_VERSION,
        "connect_is_open": here == "deployments:connect",
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
