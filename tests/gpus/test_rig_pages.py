"""The Rig page, a card's page, its history, and the doctor."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
import redis
from django.conf import settings
from django.core.management import call_command
from django.test import Client
from django.utils import timezone

from gpus.discovery import register_engine_devices, save_rig
from gpus.facts import seen_now
from gpus.models import Device, Gpu, HistorySubject, Host
from gpus.recent import RecentWriter
from gpus.sample import CardIdentity, CardSample, HostSample, NvmlState, Sample
from gpus.sampler import Sampler
from tests.fakes.nvml import MIB, rtx_5090, rtx_pro_6000

Driver = Callable[..., None]
SMALL = CardIdentity(
    0,
    "GPU-5090",
    "NVIDIA GeForce RTX 5090",
    "00000000:02:00.0",
    32607 * MIB,
    "12.0",
    5,
    16,
    575.0,
)


@pytest.fixture(autouse=True)
def writer() -> RecentWriter:
    writer = RecentWriter(settings.OMNI_HOST_NAME)
    redis.Redis.from_url(settings.CHANNEL_REDIS_URL).delete(writer.points, writer.frame)
    return writer


def sampled(writer: RecentWriter, *cards: CardSample) -> None:
    sample = Sample(1, HostSample(5.0, 1, 2, 0, 0.1), cards, NvmlState("ok"))
    writer.add(sample.frame(), sample.point())


# --- rig ------------------------------------------------------------------------------------------
def test_a_machine_without_cards_shows_stand_ins_and_says_so_calmly(
    viewer: Client, host: Host
) -> None:
    save_rig(host, NvmlState("library_missing", "No NVIDIA driver was found."), ())
    page = viewer.get("/rig/").content.decode()
    assert page.count("CPU-backed stand-in") == 2
    assert (
        'data-card="RPC0"' in page
        and 'data-card="RPC1"' in page
        and 'data-card="host"' in page
    )
    assert 'data-kind="info"' in page and "No NVIDIA driver was found." in page
    assert 'data-kind="bad"' not in page.split('id="cards"')[0]


def test_cards_are_shown_with_the_names_engines_have_for_them(
    viewer: Client, host: Host
) -> None:
    save_rig(host, NvmlState("ok"), (SMALL,))
    rows = [{"name": "CUDA0", "description": SMALL.name, "total_bytes": 32120 * MIB}]
    register_engine_devices(host, rows)
    page = viewer.get("/rig/").content.decode()
    assert 'data-card="GPU-5090"' in page and "CUDA0" in page and "31.8 GiB" in page
    assert "stand-in" not in page


def test_a_device_only_an_engine_knows_is_shown_too(viewer: Client, host: Host) -> None:
    save_rig(host, NvmlState("no_devices"), ())
    rows = [{"name": "Vulkan0", "description": "AMD Radeon", "total_bytes": 8 << 30}]
    register_engine_devices(host, rows)
    page = viewer.get("/rig/").content.decode()
    assert 'data-card="Vulkan0"' in page and "AMD Radeon" in page


def test_a_card_that_is_lost_is_said_at_the_top(
    viewer: Client, host: Host, writer: RecentWriter
) -> None:
    save_rig(host, NvmlState("ok"), (SMALL,))
    sampled(
        writer,
        CardSample(
            "GPU-5090", SMALL.name, state="lost", error="The card fell off its bus."
        ),
    )
    page = viewer.get("/rig/").content.decode()
    assert "RTX 5090 is lost" in page and "fell off its bus" in page and "dmesg" in page


def test_a_page_before_the_first_discovery_says_what_is_awaited(viewer: Client) -> None:
    page = viewer.get("/rig/")
    assert page.status_code == 200 and "No device yet" in page.content.decode()


def test_the_page_does_not_need_the_broker(
    viewer: Client, host: Host, settings: object
) -> None:
    settings.CHANNEL_REDIS_URL = "unix:///nowhere.sock"  # type: ignore[attr-defined]
    assert viewer.get("/rig/").status_code == 200


@pytest.mark.parametrize(
    ("sample_ago_s", "agent_ago_s", "broker", "title"),
    [
        (1, 1, True, ""),
        (1, None, True, ""),
        (60, 1, True, "The sampler does not report"),
        (60, 60, True, "The agent of this machine does not report"),
        (None, 1, True, "No sample yet"),
        (None, None, True, "The agent of this machine does not report"),
        (1, 1, False, "The broker does not answer"),
    ],
)
def test_pages_say_why_nothing_is_measured_now(
    viewer: Client,
    host: Host,
    writer: RecentWriter,
    settings: Any,
    sample_ago_s: float | None,
    agent_ago_s: float | None,
    broker: bool,
    title: str,
) -> None:
    save_rig(host, NvmlState("ok"), (SMALL,))
    now = timezone.now()
    if sample_ago_s is not None:
        at_ms = int((now.timestamp() - sample_ago_s) * 1000)
        cards = (CardSample("GPU-5090", SMALL.name),)
        sample = Sample(at_ms, HostSample(5.0, 1, 2, 0, 0.1), cards, NvmlState("ok"))
        writer.add(sample.frame(), sample.point())
    if agent_ago_s is not None:
        seen_at = now - timedelta(seconds=agent_ago_s)
        Host.objects.update(agent_seen_at=seen_at)
    if not broker:
        settings.CHANNEL_REDIS_URL = "unix:///nowhere.sock"
    for path in ("/rig/", "/cards/GPU-5090/", "/doctor/", "/alerts/", "/history/"):
        page = viewer.get(path).content.decode()
        assert ("data-telemetry-away" in page) == bool(title), path
        assert title in page, path


# --- a card ---------------------------------------------------------------------------------------
def test_a_cards_page_has_its_facts(viewer: Client, host: Host) -> None:
    save_rig(host, NvmlState("ok", "", "595.84"), (SMALL,))
    page = viewer.get("/cards/GPU-5090/").content.decode()
    for fact in (
        "00000000:02:00.0",
        "12.0",
        "Gen 5 × 16",
        "63 GB/s",
        "575 W",
        "595.84",
    ):
        assert fact in page, fact


def test_a_cards_page_says_what_its_data_sheet_says_and_whose_that_is(
    viewer: Client, host: Host
) -> None:
    save_rig(host, NvmlState("no_devices"), ())
    name = "AMD Radeon RX 7900 XTX (RADV NAVI31)"
    rows = [{"name": "Vulkan0", "description": name, "total_bytes": 24 << 30}]
    register_engine_devices(host, rows)
    page = " ".join(viewer.get("/cards/Vulkan0/").content.decode().split())
    assert "960 GB/s GDDR6, 355 W" in page
    assert "matrix units for bf16, fp16, int8, int4" in page
    assert "(AMD, Radeon RX 7000 and PRO W7000" in page


def test_what_is_unknown_of_a_card_is_not_made_up(viewer: Client, host: Host) -> None:
    save_rig(host, NvmlState("ok"), (CardIdentity(0, "GPU-X", "Some card"),))
    page = viewer.get("/cards/GPU-X/").content.decode()
    assert page.count("N/A") >= 4 and "None" not in page


def test_a_card_that_was_taken_out_keeps_its_page_and_says_so(
    viewer: Client, host: Host
) -> None:
    save_rig(host, NvmlState("ok"), (SMALL,))
    save_rig(host, NvmlState("no_devices"), ())
    page = viewer.get("/cards/GPU-5090/").content.decode()
    assert "RTX 5090 is not there any more" in page
    assert "RTX 5090</a>" not in viewer.get("/rig/").content.decode()


@pytest.mark.parametrize("path", ["/rig/", "/cards/GPU-5090/"])
def test_findings_of_a_page_are_fetched_alone(
    viewer: Client, host: Host, writer: RecentWriter, path: str
) -> None:
    save_rig(host, NvmlState("ok"), (SMALL,))
    lost = CardSample("GPU-5090", SMALL.name, state="lost", error="It fell off.")
    sampled(writer, lost)
    asked = {"HX-Request": "true", "HX-Target": "findings"}
    part = viewer.get(path, headers=asked).content.decode()
    assert "RTX 5090 is lost" in part and "<h1" not in part and "card-now" not in part


def test_rig_when_engines_call_a_card_something_else_tells_the_script(
    viewer: Client, host: Host
) -> None:
    save_rig(host, NvmlState("ok"), (SMALL,))
    asked = {"HX-Request": "true", "HX-Target": "findings"}

    def told() -> str:
        return json.loads(viewer.get("/rig/", headers=asked)["HX-Trigger"])["devices"]

    assert told() == "GPU-5090="
    gpu = Gpu.objects.get(uuid="GPU-5090")
    Device.objects.create(host=host, name="CUDA0", kind="cuda", gpu=gpu)
    assert told() == "GPU-5090=CUDA0"
    page = viewer.get("/rig/").content.decode()
    assert 'data-devices="GPU-5090=CUDA0"' in page


def test_facts_of_a_card_are_fetched_alone(viewer: Client, host: Host) -> None:
    save_rig(host, NvmlState("ok"), (SMALL,))
    asked = {"HX-Request": "true", "HX-Target": "card-facts"}
    part = viewer.get("/cards/GPU-5090/", headers=asked).content.decode()
    assert "no engine sees it" in part and "GPU-5090" in part
    assert "<h1" not in part and "card-now" not in part


@pytest.mark.parametrize("path", ["/cards/GPU-NOBODY/", "/cards/%3Cscript%3E/"])
def test_a_card_that_does_not_exist_is_not_found(
    viewer: Client, host: Host, path: str
) -> None:
    answer = viewer.get(path)
    assert answer.status_code == 404 and b"<script>/" not in answer.content


# --- doctor ---------------------------------------------------------------------------------------
def examined(*options: str) -> StringIO:
    """What the command prints; it ends with 1 when it has found something."""
    out = StringIO()
    with suppress(SystemExit):
        call_command("doctor", *options, stdout=out)
    return out


def doctor() -> dict[str, dict[str, str]]:
    out = examined("--json")
    return {
        finding["code"]: finding for finding in json.loads(out.getvalue())["findings"]
    }


def test_the_doctor_asks_the_driver_now(driver: Driver, host: Host) -> None:
    facts = {**rtx_5090().facts, "utilisation": 95}
    driver(rtx_pro_6000(lines=("fail * 15",)), rtx_5090(facts=facts))
    findings = doctor()
    assert findings["card_lost"]["severity"] == "error"
    assert "generation 1 of 5 under load" in findings["link_below_best"]["text"]
    assert not [code for code in findings if code.startswith("nvml_")]


def test_the_doctor_names_a_lost_card_as_it_was_known(
    driver: Driver, host: Host
) -> None:
    save_rig(host, NvmlState("ok"), (SMALL,))
    driver(rtx_5090(lines=("open 15",)))
    assert "RTX 5090" in doctor()["card_lost"]["title"]
    assert Gpu.objects.count() == 1


def test_the_doctor_finds_a_driver_that_is_not_loaded(
    driver: Driver, host: Host
) -> None:
    driver(init=9)
    finding = doctor()["nvml_driver_not_loaded"]
    assert finding["severity"] == "error" and "modprobe" in finding["fix"]


def test_the_doctor_finds_a_card_that_kills_who_asks(
    driver: Driver, host: Host
) -> None:
    driver(rtx_5090(lines=("crash memory",)))
    assert "nvml_crashed" in doctor()


def test_the_doctor_speaks_in_lines_too(driver: Driver, host: Host) -> None:
    driver(init=18)
    out = examined()
    assert "error: The NVIDIA driver does not answer as it should." in out.getvalue()
    assert (
        "Restart the machine." in out.getvalue()
        or "restart the machine" in out.getvalue()
    )


# --- administration -------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "name", ["host", "gpu", "device", "historysubject", "historymark"]
)
def test_the_administration_lists_and_searches(
    admin: Client, host: Host, name: str
) -> None:
    save_rig(host, NvmlState("ok"), (SMALL,))
    HistorySubject.objects.create(host=host, key="RPC0")
    assert admin.get(f"/admin/gpus/{name}/").status_code == 200
    assert admin.get(f"/admin/gpus/{name}/?q=RPC0").status_code == 200


def test_a_card_that_no_engine_lists_is_a_finding_of_page_and_doctor_until_one_does(
    host: Host, viewer: Client
) -> None:
    save_rig(host, NvmlState("ok"), (SMALL,))

    def told() -> list[bool]:
        found = [finding.code for finding in seen_now(host).findings]
        return [
            "card_unusable" in found,
            "A card that no engine can use" in viewer.get("/rig/").content.decode(),
        ]

    assert told() == [True, True]
    register_engine_devices(
        host, [{"name": "CUDA0", "description": SMALL.name, "total_bytes": 32120 * MIB}]
    )
    assert told() == [False, False]


def test_a_cards_page_tells_what_it_does_now_and_why_a_figure_is_missing(
    driver: Driver, viewer: Client, host: Host
) -> None:
    driver(rtx_pro_6000(), rtx_5090())
    sampler = Sampler(settings.OMNI_HOST_NAME)
    sampler.tick()
    sampler.store.step()
    sampler.xids.stop()
    path = f"/cards/{rtx_5090().uuid}/"
    part = viewer.get(path, headers={"HX-Request": "true"}).content.decode()
    text = " ".join(part.split())
    assert "<html" not in text and "210 of 3090 MHz" in text and "400 to 600 W" in text
    assert text.count("not supported by card or driver") >= 4
    whole = viewer.get(path).content.decode()
    assert "<html" in whole and 'id="card-now"' in whole
