"""Cards as an owner meets them, one state after another, on the pages of one running panel: each is
said at once, without a reload, and looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.browser.conftest import log_in
from tests.browser.looks import SIZES, in_four_looks, in_two_looks
from tests.fakes.nvml import MIB, FakeCard, rtx_5090, rtx_pro_6000, scenario
from tests.gpus.test_scenarios import SCENARIOS
from tests.helpers import wait_until
from tests.owners_panel import NOTHING_LISTED, RAM_BYTES, OwnersPanel

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]
PRO, SMALL = rtx_pro_6000(), rtx_5090()
LOST = (PRO, rtx_5090(lines=("fail * 15",)))
SLOW = "NVIDIA GeForce RTX 5090: slow link"
# Scenes whose pages axe looks at.
ASKED = ("healthy", "fallen-off-the-bus", "mig", "no-driver")
# The others differ from these in words and figures.
IN_FOUR_LOOKS = ("healthy", "fallen-off-the-bus", "no-driver")
# As after a restart of the machine with other cards in it.
FORGET = "from gpus.models import Gpu; Gpu.objects.all().delete()"


@dataclass(frozen=True)
class Scene:
    """What is said of the last card on the rig's page, its own and the doctor's; `unsaid` stands on
    none of them. With `restarts` the machine was off meanwhile: other cards, another slot."""

    cards: tuple[FakeCard, ...]
    rig: tuple[str, ...] = ()
    card: tuple[str, ...] = ()
    doctor: tuple[str, ...] = ()
    unsaid: tuple[str, ...] = ("slow link",)
    restarts: bool = False
    # Of which pages there are pictures.
    seen: tuple[str, ...] = ("rig",)


def of(name: str) -> tuple[FakeCard, ...]:
    return SCENARIOS[name].cards


SCENES = {
    "healthy": Scene(
        of("the owner's rig, healthy"),
        ("Gen 5 × 16", "97 %", "CUDA1"),
        ("P1", "97 %"),
        ("Nothing is wrong",),
        ("slow link", "runs slower", "RTX 5090 is lost"),
        seen=("rig", "card", "doctor"),
    ),
    "idle-at-generation-1": Scene(
        of("generation 1 while idle"),
        ("Gen 1 × 16 (of 5 × 16)", "0 %"),
        ("P8",),
    ),
    "slot-of-generation-4": Scene(
        of("in a slot of generation 4"),
        ("Gen 4 × 16",),
        ("the slot is slower than the card",),
        ("The card could do generation 5",),
        restarts=True,
        seen=("doctor",),
    ),
    "generation-4-under-load": Scene(
        of("the second card at generation 4 under load"),
        (SLOW, "Gen 4 × 16 (of 5 × 16)"),
        (SLOW,),
        (SLOW, "generation 4 × 16, 31.5 GB/s"),
        (),
        restarts=True,
        seen=("rig", "card", "doctor"),
    ),
    "generation-1-under-load": Scene(
        of("generation 1 under load"),
        (SLOW, "Gen 1 × 16 (of 5 × 16)"),
        (SLOW,),
        ("generation 1 × 16",),
        (),
    ),
    "eight-lanes": Scene(
        of("eight lanes"),
        (SLOW, "Gen 5 × 8 (of 5 × 16)"),
        (SLOW,),
        ("generation 5 × 8",),
        (),
    ),
    "throttled": Scene(
        of("throttled by heat"),
        ("Clocks held down by: temperature (driver), temperature (hardware)",),
        ("runs slower than it could",),
        ("Heat wants better cooling",),
        seen=("rig", "card"),
    ),
    "memory-full": Scene(
        of("memory filled by another process"),
        ("memory nearly full", "31.6 GiB"),
        ("memory nearly full", "3999999"),
        ("other programs hold memory",),
        seen=("rig", "card", "doctor"),
    ),
    "fallen-off-the-bus": Scene(
        LOST,
        ("fell off its bus", "is lost"),
        ("the card does not answer",),
        ("NVIDIA GeForce RTX 5090 is lost", "dmesg"),
        seen=("rig", "card", "doctor"),
    ),
    "back-on-the-bus": Scene(
        of("the owner's rig, healthy"),
        ("Gen 5 × 16",),
        ("P1",),
        ("Nothing is wrong",),
        ("RTX 5090 is lost", "does not answer"),
    ),
    "one-field-fails": Scene(
        of("one field fails"),
        ("22 / 575 W",),
        ("N/A",),
        ("Nothing is wrong",),
        seen=("card",),
    ),
    "no-field-but-the-name": Scene(
        of("every field but its name is missing"),
        ("N/A",),
        ("not supported by card or driver",),
        restarts=True,
        seen=("rig", "card"),
    ),
    "unified-memory": Scene(
        of("unified memory"),
        ("NVIDIA GB10", "384 GiB"),
        ("not supported by card or driver",),
        restarts=True,
        seen=("rig", "card", "doctor"),
    ),
    "mig": Scene(
        of("in MIG mode"),
        ("95.6 GiB",),
        ("MIG slices", "1g.24gb"),
        restarts=True,
        seen=("rig", "card"),
    ),
    "eight-cards": Scene(
        of("eight cards"),
        ("RTX 5090 (GPU 7)",),
        ("GPU-7",),
        restarts=True,
        seen=("rig", "doctor"),
    ),
}


class Tabs:
    """The three pages, open all the time."""

    def __init__(self, panel: OwnersPanel, context: BrowserContext) -> None:
        self.panel = panel
        self.rig, self.card, self.doctor = (context.new_page() for _ in range(3))
        log_in(self.rig, panel.url)
        self.rig.goto(f"{panel.url}/rig/")
        self.doctor.goto(f"{panel.url}/doctor/")

    def open_card(self, uuid: str) -> None:
        address = f"{self.panel.url}/cards/{uuid}/"
        if self.card.url != address:
            wait_until(
                lambda: self.card.goto(address).ok,  # type: ignore[union-attr]
                40,
                f"there is no page of {uuid}",
                interval_s=0.5,
            )

    def say(self, scene: Scene) -> None:
        by_page = (
            (self.rig, scene.rig),
            (self.card, scene.card),
            (self.doctor, scene.doctor),
        )
        for page, texts in by_page:
            if page.url == "about:blank":
                continue
            # The line of alerts above it tells of some seconds ago.
            main = page.locator("main > .stack")
            for text in texts:
                expect(main).to_contain_text(text, timeout=40_000)
            for text in scene.unsaid:
                expect(main).not_to_contain_text(text, timeout=40_000)

    def pictures(self, name: str, scene: Scene) -> list[str]:
        wrong = []
        for title in scene.seen:
            page: Page = getattr(self, title)
            # Accessible is what is drawn alike in all of them, once.
            asks = None if name in ASKED else False
            looks = in_four_looks if name in IN_FOUR_LOOKS else in_two_looks
            wrong += looks(page, f"scene-{name}-{title}", asks_axe=asks)
            page.set_viewport_size(SIZES["desk"])
        return wrong


@pytest.fixture
def panel(tmp_path: Path) -> Iterator[OwnersPanel]:
    panel = OwnersPanel(tmp_path)
    panel.is_prepared = True
    yield panel
    panel.stop()


def listed(cards: tuple[FakeCard, ...]) -> str:
    """What an engine that was built for them lists."""
    lines = [
        f"  CUDA{place}: {card.name} ({mib} MiB, {mib - 1000} MiB free)"
        for place, card in enumerate(cards)
        for mib in [card.total_mib or RAM_BYTES // MIB]
    ]
    return "\n".join(["Available devices:", *lines, ""])


def put(panel: OwnersPanel, before: tuple[FakeCard, ...], scene: Scene) -> None:
    """The cards are as in the scene from now on."""
    uuids = {card.uuid for card in scene.cards}
    is_other_rig = uuids != {card.uuid for card in before}
    if is_other_rig:
        assert panel.manage("shell", "-v0", "-c", FORGET).returncode == 0
        panel.listed.write_text(listed(scene.cards))
    scenario(panel.folder / "cards.txt", *scene.cards)
    if scene.restarts:
        panel.child("sampler").terminate()
    if is_other_rig:
        wait_until(
            lambda: (
                uuids <= {card["uuid"] for card in panel.document("status")["gpus"]}
            ),
            60,
            "the new cards are not found",
            interval_s=0.5,
        )
        assert panel.manage("scan").returncode == 0


def test_pages_follow_what_the_cards_do(
    panel: OwnersPanel, new_context: Callable[..., BrowserContext]
) -> None:
    panel.start()
    tabs = Tabs(panel, new_context(viewport=SIZES["desk"]))
    wrong = []
    cards: tuple[FakeCard, ...] = (PRO, SMALL)
    for name, scene in SCENES.items():
        put(panel, cards, scene)
        cards = scene.cards
        tabs.open_card(scene.cards[-1].uuid)
        tabs.say(scene)
        wrong += tabs.pictures(name, scene)
    assert not wrong, "\n".join(wrong)


# --- a driver that comes later, and cards in another order ----------------------------------------
class LatePanel(OwnersPanel):
    """Without a driver at first; CUDA engines see the second card first."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.is_prepared = True
        self.library = self.driver / "libnvidia-ml.so.1"
        self.library.rename(self.folder / "library")
        self.listed.write_text(NOTHING_LISTED)

    @property
    def env(self) -> dict[str, str]:
        return {**super().env, "CUDA_VISIBLE_DEVICES": "1,0"}

    def load_driver(self) -> None:
        self.listed.write_text(listed((SMALL, PRO)))
        (self.folder / "library").rename(self.library)


def test_a_driver_appears_and_cards_are_in_the_order_that_was_set(
    tmp_path: Path, new_context: Callable[..., BrowserContext]
) -> None:
    panel = LatePanel(tmp_path)
    try:
        panel.start()
        tabs = Tabs(panel, new_context(viewport=SIZES["desk"]))
        missing = ("No NVIDIA driver was found",)
        scene = Scene((), missing, (), missing, ("RTX 5090",), seen=("rig", "doctor"))
        tabs.say(scene)
        wrong = tabs.pictures("no-driver", scene)
        panel.load_driver()
        tabs.open_card(SMALL.uuid)
        expect(tabs.rig.locator("#cards")).to_contain_text("NVIDIA GeForce RTX 5090")
        scene = Scene(
            (PRO, SMALL),
            ("NVIDIA RTX PRO 6000", "NVIDIA GeForce RTX 5090", "CUDA0", "CUDA1"),
            ("Gen 1 × 16", "CUDA0"),
            ("CUDA_VISIBLE_DEVICES is set", "1,0"),
            (*missing, "no engine sees it"),
            seen=("rig", "card", "doctor"),
        )
        tabs.say(scene)
        wrong += tabs.pictures("driver-appears-and-cards-swapped", scene)
        assert not wrong, "\n".join(wrong)
    finally:
        panel.stop()
