"""Panels with deployments of the real model, and conversations on their pages."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.helpers import wait_until
from tests.panel import RunningPanel

# All that a page says of answers while they are made, by the figure's name; "doing" is the line
# above them.
FOLLOW = """() => {
    window.liveTexts = {};
    const note = (name, text) => {
        const known = (window.liveTexts[name] ??= []);
        if (text && known.at(-1) !== text) known.push(text);
    };
    new MutationObserver(() => {
        const lines = document.querySelectorAll("[data-working]");
        for (const line of lines) note("doing", line.textContent);
        for (const item of document.querySelectorAll("[data-live-figures] li"))
            note(item.dataset.figure, item.textContent);
    }).observe(document.getElementById("chat"),
        { subtree: true, childList: true, characterData: true });
}"""

# The token that the page's socket greets the panel with was fetched.
HAS_GREETED = """() => performance.getEntriesByType("resource")
    .some((entry) => entry.name.endsWith("/socket-token/"))"""


def scripts_have_run(page: Page) -> None:
    """Waits until the open conversation takes messages: Enter pressed before makes a new line."""
    wait_until(
        lambda: page.evaluate(HAS_GREETED),
        10,
        "the page opens no socket",
        interval_s=0.1,
    )


def say(page: Page, text: str) -> None:
    """Types a message into the open conversation and sends it."""
    scripts_have_run(page)
    page.get_by_label("Message").fill(text)
    page.keyboard.press("Enter")


class PanelWith(RunningPanel):
    """`more` is added to its environment."""

    more: Mapping[str, str] = {}

    @property
    def env(self) -> dict[str, str]:
        return {**super().env, **self.more}


# What tests leave on the panel that files share beside deployments, which are gone already.
FORGET = """
from chat.models import Ballot, Contestant, Conversation
from deployments.models import BenchmarkRun
from gpus.models import Host
for model in (Conversation, Ballot, Contestant, BenchmarkRun):
    model.objects.all().delete()
Host.objects.exclude(name="testhost").delete()
"""


def emptied(panel: RunningPanel) -> RunningPanel:
    """Nothing was said, voted or measured on it."""
    done = panel.manage("shell", "-v0", "-c", FORGET)
    assert done.returncode == 0, done.stderr
    return panel


def own_panel(
    factory: pytest.TempPathFactory, name: str, **more: str
) -> Iterator[RunningPanel]:
    """Of a module's own, with what only its environment can give it."""
    running = PanelWith(factory.mktemp(f"{name}-home"), is_prepared=True)
    running.more = more
    running.start()
    yield running
    running.stop()


def deployed(panel: RunningPanel, rig: str, names: Sequence[str]) -> RunningPanel:
    """With deployments of the real model that are ready; the rig file calls it MODEL."""
    models = panel.document("scan")["models"]
    path = panel.home / "rig.yaml"
    path.write_text(rig.replace("MODEL", models[0]["name"]))
    applied = panel.manage("apply", str(path), "--start")
    assert applied.returncode == 0, applied.stderr
    for name in names:
        panel.ready(name)
    return panel


def choose_lanes(page: Page, panel: RunningPanel, names: Sequence[str]) -> None:
    """In the form of a new chat: the first deployment, and the others beside it."""
    page.goto(f"{panel.url}/chat/")
    page.get_by_label("Deployment", exact=True).select_option(names[0])
    if names[1:]:
        page.get_by_text("Compare side by side").click()
    for name in names[1:]:
        page.get_by_role("checkbox", name=name).check()


def begin_chat(page: Page, tokens: int) -> None:
    """With the lanes that were chosen; answers have so many tokens at most."""
    page.get_by_role("button", name="New chat").click()
    page.wait_for_url(re.compile(r"/chat/\d+/"))
    limit(page, tokens)


def limit(page: Page, tokens: int) -> None:
    """Of answers in the conversation that is open, which are the same whenever they are asked
    for."""
    page.get_by_text("Settings", exact=True).click()
    page.get_by_label("Longest answer (tokens)").fill(str(tokens))
    page.get_by_label("Temperature").fill("0")
    with page.expect_navigation():
        page.get_by_role("button", name="Save settings").click()


def follow_figures(page: Page) -> None:
    """From now on, as long as the page is not left."""
    page.evaluate(FOLLOW)


def live_texts(page: Page) -> dict[str, list[str]]:
    return page.evaluate("window.liveTexts")


def conversation_number(page: Page) -> int:
    return int(re.findall(r"/chat/(\d+)/", page.url)[0])


def said(panel: RunningPanel, code: str, word: str) -> Any:
    """What a piece of code prints behind a word, run in the panel's shell."""
    done = panel.manage("shell", "-v0", "-c", code)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.split(f"{word} ")[1])
