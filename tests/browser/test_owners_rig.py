"""The owner's rig by the stand-in NVML: each of the four models is planned, and one click puts it
where it fits."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import BrowserContext

from gpus.cgroup import limits
from tests.browser.conftest import log_in
from tests.browser.looks import ARTIFACTS
from tests.owners_panel import OwnersPanel, look_around
from tests.planning.stand_ins import OWNERS_MODELS

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        limits().memory is not None,
        reason="a control group leaves less than the owner's RAM",
    ),
]


@pytest.fixture(scope="module")
def owners_panel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnersPanel]:
    panel = OwnersPanel(tmp_path_factory.mktemp("owners"))
    panel.start()
    yield panel
    panel.stop()


def test_each_of_the_owners_models_is_deployed_by_one_click(
    owners_panel: OwnersPanel, new_context: Callable[..., BrowserContext]
) -> None:
    page = new_context(viewport={"width": 1440, "height": 900}).new_page()
    log_in(page, owners_panel.url)
    look_around(owners_panel, page, ARTIFACTS)
    status = owners_panel.document("status")
    assert [device["name"] for device in status["devices"]] == ["CUDA0", "CUDA1", "CPU"]
    assert [row["state"] for row in status["deployments"]] == ["ready"] * len(
        OWNERS_MODELS
    )
    # 70B on the large card, 32B on the other one; each process was given cards of its own.
    shown = page.locator("#deployments-live").inner_text()
    assert "CUDA0" in shown and "CUDA1" in shown

    for model in owners_panel.document("status")["deployments"]:
        page.goto(f"{owners_panel.url}/deployments/{model['name']}/")
        chips = page.locator(".facts dd:has(.chip)")
        # An engine that no model has run on is marked, and the mark stays in its column.
        assert chips.evaluate_all(
            "all => all.every(dd => [...dd.querySelectorAll('.chip')].every(chip =>"
            " chip.getBoundingClientRect().right <= dd.getBoundingClientRect().right + 0.5))"
        )


def test_each_of_the_owners_models_has_speeds_on_the_plan_page(
    owners_panel: OwnersPanel, new_context: Callable[..., BrowserContext]
) -> None:
    page = new_context(viewport={"width": 1440, "height": 900}).new_page()
    log_in(page, owners_panel.url)
    for model in owners_panel.document("scan")["models"]:
        page.goto(f"{owners_panel.url}/plan/?model={model['name']}")
        best = page.locator(".plan-line").first.inner_text()
        assert best.count("tokens/s") == 2, f"{model['name']}: {best}"
