"""The right that each page needs, to look at it and to act on it."""

from __future__ import annotations

from dataclasses import dataclass

from omni.roles.rights import (
    ACKNOWLEDGE_ALERTS,
    ADD_DEVICES,
    ANYBODY,
    CHAT,
    HIDE_FINDINGS,
    KEEP_BODIES,
    LOGGED_IN,
    MANAGE_ALERTS,
    MANAGE_ENGINES,
    MANAGE_LIBRARY,
    OPERATE,
    REMOVE_DEVICES,
)


@dataclass(frozen=True)
class Page:
    """The right to look (GET, HEAD), and the one to act (every other method); empty: the page has
    no such method."""

    look: str = ""
    act: str = ""


SEEN = Page(LOGGED_IN)

PAGES: dict[str, Page] = {
    "healthz": Page(ANYBODY, ANYBODY),
    # It says 401 by itself: a script asks for it.
    "socket_token": Page(ANYBODY),
    # It says 401 by itself: a scraper asks with a token or a key, and is not sent to a form.
    "metrics": Page(ANYBODY),
    "login": Page(ANYBODY, ANYBODY),
    "logout": Page("", LOGGED_IN),
    "password_change": Page(LOGGED_IN, LOGGED_IN),
    "glossary": SEEN,
    # --- what is best
    "deployments:advice": SEEN,
    "deployments:answer": SEEN,
    "deployments:advice_ask": Page("", OPERATE),
    "deployments:advice_deploy": Page("", OPERATE),
    "deployments:advice_measure": Page("", OPERATE),
    "deployments:advice_export": SEEN,
    "deployments:advice_running": SEEN,
    # --- rig
    "gpus:rig": SEEN,
    "gpus:card": SEEN,
    "gpus:history": SEEN,
    "deployments:doctor": SEEN,
    "deployments:doctor_known": Page("", HIDE_FINDINGS),
    "gpus:history_points": SEEN,
    "gpus:history_export": SEEN,
    "deployments:across": SEEN,
    "deployments:card_processes": SEEN,
    "deployments:device_server": SEEN,
    "deployments:device_add": Page("", ADD_DEVICES),
    "deployments:device_remove": Page("", REMOVE_DEVICES),
    "deployments:stand_ins": SEEN,
    "deployments:stand_ins_switch": Page("", ADD_DEVICES),
    # --- models
    "deployments:models": SEEN,
    "deployments:model": SEEN,
    "deployments:model_advice": SEEN,
    "deployments:scan": Page("", MANAGE_LIBRARY),
    "deployments:folder_add": Page("", MANAGE_LIBRARY),
    "deployments:folder_remove": Page("", MANAGE_LIBRARY),
    "deployments:model_remove": Page("", MANAGE_LIBRARY),
    # Asking the hub, by ?repo=, needs MANAGE_LIBRARY as well.
    "deployments:download": SEEN,
    "deployments:download_list": SEEN,
    "deployments:hub_plan": Page(MANAGE_LIBRARY),
    "deployments:download_start": Page("", MANAGE_LIBRARY),
    "deployments:download_pause": Page("", MANAGE_LIBRARY),
    "deployments:download_resume": Page("", MANAGE_LIBRARY),
    "deployments:download_cancel": Page("", MANAGE_LIBRARY),
    "deployments:download_forget": Page("", MANAGE_LIBRARY),
    # --- external servers
    "deployments:server": SEEN,
    "deployments:server_add": Page(MANAGE_ENGINES, MANAGE_ENGINES),
    "deployments:server_ask": Page("", MANAGE_ENGINES),
    "deployments:server_key": Page("", MANAGE_ENGINES),
    "deployments:server_remove": Page("", MANAGE_ENGINES),
    "deployments:server_offer": Page("", OPERATE),
    "deployments:server_change": Page(OPERATE, OPERATE),
    # --- plan and rig file
    "deployments:plan": Page(LOGGED_IN, OPERATE),
    "deployments:plan_presets": SEEN,
    "deployments:accuracy": SEEN,
    # What a file may change is judged entry by entry besides (deployments.rig.rights).
    "deployments:rig_file": Page(LOGGED_IN, OPERATE),
    "deployments:rig_download": SEEN,
    "deployments:rig_schema": SEEN,
    # Shows where a prompt would go; nothing is sent or kept.
    "deployments:routing": Page(LOGGED_IN, LOGGED_IN),
    "deployments:connect": SEEN,
    # --- deployments
    "deployments:deployments": SEEN,
    "deployments:deployment": SEEN,
    "deployments:quick": SEEN,
    "deployments:quick_deploy": Page("", OPERATE),
    "deployments:create": Page(OPERATE, OPERATE),
    "deployments:change": Page(OPERATE, OPERATE),
    "deployments:start": Page("", OPERATE),
    "deployments:stop": Page("", OPERATE),
    "deployments:delete": Page("", OPERATE),
    # --- keys: one of somebody else is, for all but administrators, not there
    "deployments:keys": SEEN,
    "deployments:key_new": Page(CHAT, CHAT),
    "deployments:key_change": Page(CHAT, CHAT),
    "deployments:key_revoke": Page("", CHAT),
    "deployments:key_delete": Page("", CHAT),
    # --- benchmarks
    "deployments:benchmark_export": SEEN,
    "deployments:benchmarks_compared": SEEN,
    "deployments:benchmarks": SEEN,
    "deployments:benchmark": SEEN,
    "deployments:benchmark_new": Page(OPERATE, OPERATE),
    "deployments:benchmark_cancel": Page("", OPERATE),
    "deployments:benchmark_forget": Page("", OPERATE),
    # --- activity: their own requests, and everybody's for administrators
    "deployments:activity": SEEN,
    "deployments:activity_running": SEEN,
    "deployments:activity_request": SEEN,
    "deployments:activity_export": SEEN,
    # Their own; those of others need CANCEL_REQUESTS besides.
    "deployments:activity_cancel": Page("", LOGGED_IN),
    "deployments:activity_bodies": Page("", KEEP_BODIES),
    "deployments:usage": SEEN,
    "deployments:usage_export": SEEN,
    # --- alerts
    "deployments:alerts": SEEN,
    "deployments:alert_line": SEEN,
    "deployments:alert_acknowledge": Page("", ACKNOWLEDGE_ALERTS),
    "deployments:alert_rule": Page(MANAGE_ALERTS, MANAGE_ALERTS),
    "deployments:alert_channel_add": Page(MANAGE_ALERTS, MANAGE_ALERTS),
    "deployments:alert_channel": Page(MANAGE_ALERTS, MANAGE_ALERTS),
    "deployments:alert_channel_test": Page("", MANAGE_ALERTS),
    "deployments:alert_channel_remove": Page("", MANAGE_ALERTS),
    "deployments:scrape_token_make": Page("", MANAGE_ALERTS),
    "deployments:scrape_token_remove": Page("", MANAGE_ALERTS),
    # --- chat: a conversation is its owner's, and for everybody else not there
    "chat:list": SEEN,
    "chat:conversation": SEEN,
    "chat:thread": SEEN,
    "chat:lanes": SEEN,
    "chat:differences": SEEN,
    "chat:export": SEEN,
    "chat:attachment": SEEN,
    "chat:benchmark": Page(OPERATE),
    # Votes of everybody, without what was said.
    "chat:standings": SEEN,
    "chat:new": Page("", CHAT),
    "chat:blind": Page("", CHAT),
    "chat:in-turn": Page("", CHAT),
    "chat:lane-add": Page("", CHAT),
    "chat:lane-change": Page("", CHAT),
    "chat:lane-remove": Page("", CHAT),
    "chat:settings": Page("", CHAT),
    "chat:attachment-add": Page("", CHAT),
    "chat:attachment-remove": Page("", CHAT),
    "chat:rename": Page("", CHAT),
    "chat:delete": Page("", CHAT),
}


def right_for(view: str, method: str) -> str | None:
    """What a request needs; None for a page without a row, empty for a method that the page does
    not have."""
    page = PAGES.get(view)
    if page is None:
        return None
    if method in ("GET", "HEAD"):
        return page.look
    return page.act
