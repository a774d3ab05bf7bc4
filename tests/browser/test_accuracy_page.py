"""Predictions beside measurements as people see them: light and dark, on a desk and on a phone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.browser.looks import in_four_looks
from tests.panel import RunningPanel

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]
# Runs by two builds on one card and on two, as a machine does them that is 40 % slower
# than computed.
KEEP = """
from deployments.models import Measurement, Model
from deployments.services.discovery import local_host
host = local_host()
model, _ = Model.objects.get_or_create(
    name="measured", defaults=dict(path="/nowhere/measured.gguf", quant="Q4_K_M"))
for n in range(48):
    slower = 0.6 + 0.04 * ((n * 7) % 5 - 2)
    both = n % 3 == 2
    Measurement.objects.create(host=host, model=model, deployment_name="measured",
        strategy="layer_split" if both else "independent",
        devices=["RPC0", "RPC1"] if both else ["RPC0"], flavour="llama.cpp",
        build="b6123" if n < 24 else "b7001", number_format="Q4_K_M",
        is_benchmark=n % 4 == 0, requests=12 if n % 4 == 0 else 1,
        computed_decode_tps=50 if both else 90, decode_tps=(50 if both else 90) * slower,
        predicted_decode_tps=50 if both else 90,
        computed_prefill_tps=900, prefill_tps=900 * slower if n % 2 else None,
        predicted_prefill_tps=900)
"""
FORGET = """
from deployments.models import Measurement, Model
Measurement.objects.all().delete()
Model.objects.filter(name="measured").delete()
"""


def run(panel: RunningPanel, script: str) -> None:
    done = panel.manage("shell", "-v0", "-c", script)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def measured(panel: RunningPanel) -> Iterator[None]:
    run(panel, KEEP)
    yield
    run(panel, FORGET)


def test_without_measurements_the_page_leads_to_where_they_are_made(
    page: Page, panel: RunningPanel
) -> None:
    run(
        panel,
        "from deployments.models import Measurement as M; M.objects.all().delete()",
    )
    page.goto(f"{panel.url}/")
    page.get_by_role("link", name="How good are these figures?").click()
    expect(page.get_by_text("Nothing has been measured yet")).to_be_visible()
    assert not in_four_looks(page, "accuracy-empty")
    page.get_by_role("link", name="To the layouts").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Which way is best here?")


@pytest.mark.usefixtures("measured")
def test_charts_and_tables_fit_and_are_accessible(
    page: Page, panel: RunningPanel
) -> None:
    page.goto(f"{panel.url}/plan/accuracy/")
    expect(page.get_by_text("The last 10 of 48 predictions of answers")).to_be_visible()
    expect(page.get_by_role("img", name="Errors of predicted answers")).to_be_visible()
    wrong = in_four_looks(page, "accuracy")
    first = page.locator("#accuracy-group-1")
    first.locator("summary").focus()
    page.keyboard.press("Enter")
    expect(first.get_by_role("table")).to_be_visible()
    wrong += in_four_looks(page, "accuracy-open")
    assert not wrong, "\n".join(wrong)
