"""How a page looks: light and dark, on a desk and on a phone; whether it fits and is accessible.

The pictures are kept in tests/artifacts for people to look at.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Literal

from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Page

ARTIFACTS = Path(__file__).resolve().parent.parent / "artifacts"
SIZES = {"desk": {"width": 1280, "height": 900}, "phone": {"width": 390, "height": 844}}
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
IS_LIGHT = "matchMedia('(prefers-color-scheme: light)').matches"
IS_WIDE = "innerWidth >= 800"
SHOWN = ("serious", "critical")
# What passed is neither worked out in full nor sent, and rules whose findings are never as bad as
# what is shown are not asked: each of the two was a third of the time.
VIOLATIONS = """async (shown) => {
    const milder = axe._audit.rules.filter((rule) => rule.impact && !shown.includes(rule.impact));
    const rules = Object.fromEntries(milder.map((rule) => [rule.id, { enabled: false }]));
    const found = await axe.run({ resultTypes: ["violations"], rules });
    return found.violations.filter((each) => shown.includes(each.impact));
}"""


# Contrast is asked of each element with all that lies below it: the dozen colours of a page are
# read thousands of times, which was a third of the time.
COLOURS_READ_ONCE = """() => {
    const { Color } = axe.commons.color;
    const { parseString } = Color.prototype;
    const known = new Map();
    Color.prototype.parseString = function (text) {
        if (!known.has(text)) known.set(text, parseString.call(new Color(), text));
        const { r, g, b, alpha } = known.get(text);
        return Object.assign(this, { r, g, b, alpha });
    };
}"""


def issues(page: Page) -> list[str]:
    """axe-core's serious and critical findings, one line each."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE_SCRIPT)
        page.evaluate(COLOURS_READ_ONCE)
    return [
        f"{v['id']}: {v['help']} at {v['nodes'][0]['target']}"
        for v in page.evaluate(VIOLATIONS, SHOWN)
    ]


def picture(page: Page, path: Path) -> None:
    """Of the whole page; as PNG that is a fourth larger and takes half of the time to pack."""
    browser = page.context.new_cdp_session(page)
    size = browser.send("Page.getLayoutMetrics")["cssContentSize"]
    taken = browser.send(
        "Page.captureScreenshot",
        {
            "captureBeyondViewport": True,
            "optimizeForSpeed": True,
            "clip": {**size, "scale": 1},
        },
    )
    browser.detach()
    path.write_bytes(base64.b64decode(taken["data"]))


def look(page: Page, name: str, *, asks_axe: bool | None = None) -> list[str]:
    """What is wrong with the page as it is now.

    Of four looks two are examined for accessibility where nothing else is asked for: light on a
    desk and dark on a phone. Each scheme and each width is in them once.
    """
    ARTIFACTS.mkdir(exist_ok=True)
    picture(page, ARTIFACTS / f"{name}.png")
    if asks_axe is None:
        asks_axe = page.evaluate(IS_LIGHT) == page.evaluate(IS_WIDE)
    found = issues(page) if asks_axe else []
    too_wide = page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    if too_wide > 0:
        found = [*found, f"{too_wide} px too wide"]
    return [f"{name}: {issue}" for issue in found]


def in_four_looks(page: Page, name: str, *, asks_axe: bool | None = None) -> list[str]:
    """The same of the page in each of the four, without loading it again."""
    wrong = []
    for size, viewport in SIZES.items():
        page.set_viewport_size(viewport)
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme)
            wrong += look(page, f"{name}-{scheme}-{size}", asks_axe=asks_axe)
    return wrong


def in_two_looks(page: Page, name: str, *, asks_axe: bool | None = None) -> list[str]:
    """Light on a desk and dark on a phone: for pages that differ little from one that is looked at
    in all four."""
    wrong = []
    for (size, viewport), scheme in zip(SIZES.items(), SCHEMES, strict=True):
        page.set_viewport_size(viewport)
        page.emulate_media(color_scheme=scheme)
        wrong += look(page, f"{name}-{scheme}-{size}", asks_axe=asks_axe)
    return wrong
