"""Energy of an answer: by whom it is told, and when it is nobody's alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import pytest
import redis
from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client

from chat import services
from chat.metering import Meter, Place, places
from chat.models import Message
from deployments.gateway.directory import forget_table
from deployments.gateway.table import Serving
from deployments.gateway.waiting import Wait, in_line
from deployments.models import Binding
from gpus.models import Device, Gpu, Host
from gpus.recent import RecentWriter, powers_since
from gpus.sample import CardSample, HostSample, NvmlState, Sample
from tests.chat.conftest import Opener
from tests.gateway.engine import make_deployment
from tests.gateway.fake_engine import FakeEngine

in_database = sync_to_async
BIG = Place("rig", {"GPU-1": "CUDA0"})
SMALL = Place("rig", {"GPU-2": "CUDA1"})
PLACES = {
    "a": BIG,
    "b": BIG,
    "small": SMALL,
    "both": Place("rig", {"GPU-1": "CUDA0", "GPU-2": "CUDA1"}),
    "elsewhere": Place("other", {"GPU-1": "CUDA0"}),
    "offloaded": Place("rig", {"GPU-1": "CUDA0", "CPU": "CPU"}),
    "slow": Place("rig", {"CPU": "CPU", "RPC0": "RPC0"}),
}
POINTS = [
    (second / 2, {"GPU-1": 200.0, "GPU-2": 50.0, "RPC0": None}) for second in range(41)
]


async def powers(host: str, since_s: float, now_s: float) -> list[Any]:
    return [point for point in POINTS if since_s <= point[0] <= now_s]


async def nothing(host: str, since_s: float, now_s: float) -> list[Any]:
    return []


def meter_of(name: str, *, slots: int = 4, begun_s: float = 2.0) -> Meter:
    wait = Wait(Serving(name, "ready", slots=slots), is_sent=True)
    return Meter(wait, PLACES, begun_s)


@pytest.mark.parametrize(
    ("name", "end_s", "facts"),
    [
        (
            "a",
            6.5,
            {"joules": 900.0, "seconds": 4.5, "devices": ["CUDA0"], "silent": []},
        ),
        (
            "both",
            4.0,
            {
                "joules": 500.0,
                "seconds": 2.0,
                "devices": ["CUDA0", "CUDA1"],
                "silent": [],
            },
        ),
        (
            "offloaded",
            4.0,
            {
                "joules": 400.0,
                "seconds": 2.0,
                "devices": ["CUDA0"],
                "silent": ["CPU"],
            },
        ),
        ("slow", 4.0, {"why": "CPU and RPC0 tell no power."}),
        ("unheard-of", 4.0, {"why": "What its server draws is not known here."}),
        ("a", 2.9, {}),
        ("a", 40.0, {"why": "The telemetry has a gap."}),
    ],
)
async def test_energy_is_that_of_the_deployments_cards(
    name: str, end_s: float, facts: dict[str, Any]
) -> None:
    meter = meter_of(name)
    # Read again and again, as while an answer is made; none is counted twice.
    for now_s in (2.3, 2.9, end_s, end_s):
        await meter.read(now_s, powers)
    assert meter.facts(end_s) == facts


async def test_without_telemetry_nothing_is_known() -> None:
    meter = meter_of("a")
    await meter.read(4.0, nothing)
    # A moment later there may be some.
    assert meter.facts(4.0) == {}
    reason = {"why": "No telemetry came from rig."}
    assert meter.facts(9.0) == meter.facts_at_the_end(4.0) == reason
    assert meter.watts(4.0) is None


async def test_an_answer_too_short_to_be_measured_says_so_at_its_end() -> None:
    meter = meter_of("a")
    await meter.read(2.5, powers)
    assert "less than a second" in meter.facts_at_the_end(2.5)["why"]


async def test_the_newest_watts_are_shown_while_they_are_new() -> None:
    meter = meter_of("both")
    await meter.read(4.0, powers)
    assert meter.watts(4.2) == 250.0
    assert meter.watts(9.5) is None


@pytest.fixture
async def lines() -> AsyncIterator[Any]:
    """Sends requests to deployments, which are on their way until the test ends."""
    with ExitStack() as held:
        yield lambda name, wait: held.enter_context(
            in_line(Serving(name, "ready", slots=1), wait)
        )


@pytest.mark.parametrize(
    ("working", "why"),
    [
        (["a"], ""),
        (["a", "small", "elsewhere"], ""),
        (["a", "b"], "CUDA0 worked for b as well."),
        (["a", "both", "b"], "CUDA0 worked for b and both as well."),
        (["a", "a"], "CUDA0 worked for another request of a as well."),
    ],
)
async def test_energy_of_shared_cards_is_nobodys_alone(
    lines: Any, working: list[str], why: str
) -> None:
    meter = meter_of("a")
    waits = [meter.wait, *(Wait() for _ in working[1:])]
    for name, wait in zip(working, waits, strict=True):
        lines(name, wait)
    meter.wait.serving = Serving("a", "ready", slots=4)
    meter.look(2.0)
    await meter.read(4.0, powers)
    assert meter.facts(4.0).get("why", "") == why
    assert ("shared_with" in meter.facts(4.0)) is bool(why)


async def test_what_stands_in_the_queue_behind_it_shares_nothing(lines: Any) -> None:
    meter = meter_of("a", slots=1)
    lines("a", meter.wait)
    lines("a", Wait())
    meter.look(2.0)
    await meter.read(4.0, powers)
    assert meter.facts(4.0)["joules"] == 400.0


async def test_it_begins_when_the_engine_begins(lines: Any) -> None:
    """In the queue cards work for others, and while a model loads for none."""
    first = Wait()
    first_ticket = lines("a", first)
    meter = meter_of("a", slots=1)
    ticket = lines("a", meter.wait)
    assert meter.wait.queue_position == 1
    for now_s in (2.0, 4.0):
        meter.look(now_s)
    first_ticket.answered()
    first_ticket.leave()
    ticket.answered()
    await meter.read(6.0, powers)
    assert (meter.begun_s, meter.others) == (4.0, set())
    assert meter.facts(6.0)["joules"] == 400.0
    loading = Meter(Wait(Serving("a", "loading")), PLACES, 2.0)
    loading.look(5.0)
    assert loading.begun_s == 5.0


# --- in the panel ---------------------------------------------------------------------------------
@pytest.mark.django_db
def test_places_are_told_by_the_keys_of_telemetry() -> None:
    make_deployment("big", None)
    make_deployment("far", None, external_model="elsewhere/model")
    host = Host.objects.get(name="testhost")
    card = Gpu.objects.create(host=host, uuid="GPU-1", name="RTX")
    Device.objects.create(host=host, name="CUDA0", kind="cuda", gpu=card)
    Binding.objects.filter(deployment__name="big").update(devices=["CUDA0", "CPU"])
    assert places() == {"big": Place("testhost", {"GPU-1": "CUDA0", "CPU": "CPU"})}


@asynccontextmanager
async def telemetry(host: str, *cards: CardSample) -> AsyncIterator[None]:
    """Ticks of these cards, ten a second, as the sampler leaves them with the broker."""
    writer = RecentWriter(host)
    redis.Redis.from_url(settings.CHANNEL_REDIS_URL).delete(writer.points)

    async def tick() -> None:
        while True:
            about = HostSample(5.0, 100, 1000, 0, 0.1)
            now_ms = int(time.time() * 1000)
            sample = Sample(now_ms, about, cards, NvmlState("ok"))
            await asyncio.to_thread(writer.add, sample.frame(), sample.point())
            await asyncio.sleep(0.1)

    ticking = asyncio.create_task(tick())
    try:
        yield
    finally:
        ticking.cancel()


async def test_powers_come_from_the_broker_and_none_of_another_version() -> None:
    card = CardSample("GPU-1", "RTX", power_watts=310.5)
    silent = CardSample("RPC0", "RPC0", is_stand_in=True)
    began_s = time.time()
    async with telemetry("powers-host", card, silent):
        found: list[Any] = []
        while len(found) < 2:
            found = await powers_since("powers-host", began_s - 1, time.time())
    assert found[0][1] == {"GPU-1": 310.5, "RPC0": None}
    assert began_s - 0.1 < found[0][0] < found[1][0] <= time.time()
    key = RecentWriter("powers-host").points
    redis.Redis.from_url(settings.CHANNEL_REDIS_URL).rpush(key, "[1,2]", "x", "{}")
    kept = await powers_since("powers-host", began_s - 1, time.time())
    assert kept and all(watts["GPU-1"] == 310.5 for _, watts in kept)


@pytest.mark.django_db(transaction=True)
async def test_a_stopped_answer_keeps_its_energy_and_one_beside_it_none(
    operator_user: User, operator: Client, open_page: Opener
) -> None:
    engines = [FakeEngine("begins_and_waits") for _ in range(3)]

    def made() -> Any:
        host, _ = Host.objects.get_or_create(name="testhost")
        for number in range(2):
            card = Gpu.objects.create(host=host, uuid=f"GPU-{number}", name="RTX")
            Device.objects.create(
                host=host, name=f"CUDA{number}", kind="cuda", gpu=card
            )
        found = [
            make_deployment(name, engine.port)
            for name, engine in zip(("alone", "left", "right"), engines, strict=True)
        ]
        Binding.objects.filter(deployment=found[0]).update(devices=["CUDA0"])
        Binding.objects.filter(deployment__in=found[1:]).update(devices=["CUDA1"])
        forget_table()
        return services.conversation_create(
            owner=operator_user, deployment=found[0], beside=found[1:]
        )

    conversation = await in_database(made)()
    cards = [
        CardSample(f"GPU-{number}", "RTX", power_watts=250.0) for number in range(2)
    ]
    async with telemetry("testhost", *cards):
        page = await open_page(operator, conversation.pk)
        await page.send("send", text="Hello")
        await page.until(
            lambda: len(set(page.figures()["energy"])) == 1 and page.figures()["watts"],
            "watts and sharing are not told while the answers are made",
        )
        late = await open_page(operator, conversation.pk)
        await late.until(
            lambda: "Energy shared" in late.figures()["energy"],
            "a page that is opened in the middle does not show the figures",
        )
        began = time.monotonic()
        await page.until(
            lambda: time.monotonic() - began > 1.2, "the time does not go by"
        )
        await page.send("stop")
        await page.until(lambda: len(page.states) == 3, "not all lanes were stopped")
    for engine in engines:
        engine.close()
    kept = {
        message.deployment_name: message.timings["omni_energy"]
        async for message in Message.objects.filter(role="assistant")
    }
    alone = kept["alone"]
    assert alone["devices"] == ["CUDA0"] and alone["seconds"] > 1.2
    assert alone["joules"] == pytest.approx(250 * alone["seconds"], rel=0.02)
    assert kept["left"]["shared_with"] == ["right"] and "joules" not in kept["left"]
    assert kept["right"]["shared_with"] == ["left"]
    assert kept["left"]["why"] == "CUDA1 worked for right as well."
    told = [html for html in page.html.values() if "250 W" in html]
    assert len(told) == 1 and "Energy shared" not in told[0]
