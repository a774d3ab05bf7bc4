"""Who uses a card: engines by their deployment, others by name."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import redis
from django.conf import settings
from django.test import Client

from deployments.models import Deployment, Instance
from gpus.models import Gpu, Host
from gpus.recent import RecentWriter
from gpus.sample import CardProcess, CardSample, HostSample, NvmlState, Sample

GIB = 1 << 30
Frame = Callable[[CardSample], None]


@pytest.fixture
def measured(host: Host) -> Frame:
    Gpu.objects.create(host=host, uuid="GPU-1", name="RTX 5090")
    writer = RecentWriter(settings.OMNI_HOST_NAME)
    redis.Redis.from_url(settings.CHANNEL_REDIS_URL).delete(writer.points, writer.frame)

    def write(card: CardSample) -> None:
        now_ms = int(time.time() * 1000)
        host_now = HostSample(5.0, 1, 2, 0, 0.1)
        sample = Sample(now_ms, host_now, (card,), NvmlState("ok"))
        writer.add(sample.frame(), sample.point())

    return write


def page(client: Client) -> str:
    return " ".join(client.get("/cards/GPU-1/processes/").content.decode().split())


def test_processes_are_told_with_their_deployment_and_others_by_name(
    viewer: Client, measured: Frame, host: Host, deployment: Deployment
) -> None:
    Instance.objects.create(host=host, deployment=deployment, role="model", pid=4711)
    processes = (
        CardProcess(4711, "llama-server", 20 * GIB),
        CardProcess(99, "gnome-shell", 3 * GIB, draws=True),
        CardProcess(98, "", None),
    )
    measured(CardSample("GPU-1", "RTX 5090", processes=processes))
    text = page(viewer)
    assert f"/deployments/{deployment.name}/" in text and "20 GiB" in text
    assert "Other (graphics)" in text and "gnome-shell" in text
    assert "not visible from here" in text and "N/A" in text


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"processes": ()}, "No process uses this card."),
        (
            {"processes": None, "unanswered": {"processes": "not allowed"}},
            "N/A: not allowed.",
        ),
    ],
)
def test_without_processes_the_page_says_why(
    viewer: Client, measured: Frame, values: dict[str, object], text: str
) -> None:
    measured(CardSample("GPU-1", "RTX 5090", **values))  # type: ignore[arg-type]
    assert text in page(viewer)


def test_before_anything_is_measured_the_page_says_so(
    viewer: Client, measured: Frame
) -> None:
    assert "Nothing is measured now." in page(viewer)
