"""The doctor's page and command on the owner's rig, its RTX 5090 at generation 4 under load."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, expect

from gpus.cgroup import limits
from tests.browser.conftest import log_in
from tests.browser.looks import in_four_looks
from tests.fakes.nvml import rtx_5090, rtx_pro_6000, scenario
from tests.helpers import wait_until
from tests.owners_panel import OwnersPanel

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        limits().memory is not None,
        reason="a control group leaves less than the owner's RAM",
    ),
]
RIG = """
deployments:
  - name: alone
    models: {model: CODER}
    devices: {model: [CUDA0]}
  - name: layers
    strategy: layer_split
    models: {model: LARGE}
    devices: {model: [CUDA0, CUDA1]}
  - name: tensors
    strategy: tensor_split
    models: {model: LARGE}
    devices: {model: [CUDA0, CUDA1]}
  - name: handed-over
    strategy: prefill_decode
    models: {prefill: CODER, decode: CODER}
    devices: {prefill: [CUDA0], decode: [CUDA1]}
"""
AT_WORK = {"utilisation": 97, "performance_state": 1, "clock": 2407, "reasons": 0}


@pytest.fixture
def panel(tmp_path: Path) -> Iterator[OwnersPanel]:
    panel = OwnersPanel(tmp_path)
    small = rtx_5090(
        used_mib=500, facts={**rtx_5090().facts, **AT_WORK, "generation": 4}
    )
    scenario(tmp_path / "cards.txt", rtx_pro_6000(used_mib=900), small)
    panel.start()
    names = {
        Path(model["path"]).stem: str(model["name"])
        for model in panel.document("scan")["models"]
    }
    rig = tmp_path / "rig.yaml"
    rig.write_text(
        RIG.replace("CODER", names["qwen2.5-coder-32b-instruct-q4_k_m"]).replace(
            "LARGE", names["llama-3.3-70b-instruct-q4_k_m"]
        )
    )
    applied = panel.manage("apply", str(rig))
    assert applied.returncode == 0, applied.stderr
    yield panel
    panel.stop()


def examined(panel: OwnersPanel) -> tuple[int, dict[str, Any]]:
    """What the command ends with, and its findings by code."""
    done = panel.manage("doctor", "--json")
    assert not done.stderr, done.stderr
    found = json.loads(done.stdout)["findings"]
    return done.returncode, {finding["code"]: finding for finding in found}


def test_half_a_link_is_found_with_what_it_costs_and_hidden_until_it_changes(
    panel: OwnersPanel, new_context: Callable[..., BrowserContext]
) -> None:
    code, found = examined(panel)
    assert code == 1
    costs = {
        (cost["deployment"], cost["metric"]): cost["change_percent"]
        for cost in found["link_below_best"]["costs"]
    }
    for name, is_slower in (
        ("alone", False),
        ("layers", True),
        ("tensors", True),
        ("handed-over", True),
    ):
        assert (costs[name, "first_token_ms"] > 0) == is_slower, costs

    page = new_context().new_page()
    log_in(page, panel.url)
    heading = page.get_by_role("heading", name="NVIDIA GeForce RTX 5090: slow link")
    page.goto(f"{panel.url}/rig/")
    wait_until(
        lambda: page.reload() and page.get_by_text("slow link").count(),
        30,
        "the sampler saw no slow link",
        interval_s=0.5,
    )
    page.get_by_role("link", name="Why, and what it costs").first.click()
    expect(heading).to_be_visible()
    card = page.locator("article").filter(has=heading)
    expect(card).to_contain_text("generation 4 × 16, 31.5 GB/s")
    expect(card.get_by_role("row", name="alone")).to_contain_text("0 %")
    wrong = in_four_looks(page, "doctor", asks_axe=True)
    assert not wrong, "\n".join(wrong)

    card.get_by_role("button", name="Known, hide until it changes").click()
    expect(page.get_by_text("The finding is hidden until it changes.")).to_be_visible()
    expect(heading).not_to_be_visible()
    assert "link_below_best" not in examined(panel)[1]
    assert "link_below_best" in panel.manage("doctor", "--all", "--json").stdout

    worse = rtx_5090(
        used_mib=500, facts={**rtx_5090().facts, **AT_WORK, "generation": 3}
    )
    scenario(panel.folder / "cards.txt", rtx_pro_6000(used_mib=900), worse)
    assert "generation 3 of 5" in examined(panel)[1]["link_below_best"]["text"]
    wait_until(
        lambda: page.reload() and heading.is_visible(),
        30,
        "a finding that is another was not shown",
        interval_s=0.5,
    )
