"""Time of the Plan page's answer to a turned knob, through Django's own client.

    python benchmarks/plan_page.py [CHANGES]

A database of its own with 20 models and 8 devices, every strategy planned at each change, log-in
and template included. Ends with 1 when the median is 150 ms or more.
"""

from __future__ import annotations

import itertools
import os
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import tests.environment  # noqa: E402, F401  its own OMNI_HOME
from tests.helpers import wait_until  # noqa: E402

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "omni.settings")

MODELS, DEVICES, CHANGES, LIMIT_MS = 20, 8, 50, 150.0
GIB = 1 << 30


def furnish() -> None:
    """Copies of the packaged model under other names, stand-ins and cards, the packaged engine, one
    who looks."""
    from django.contrib.auth.models import User
    from django.core.management import call_command

    from deployments.library.folders import register
    from deployments.models import Model
    from deployments.services.discovery import (
        ENGINE_WHEELS,
        discover_engines,
        local_host,
    )
    from gpus.models import Device
    from tests.deployments.gguf_corpus import smollm2

    call_command("migrate", verbosity=0)
    host = local_host()
    for number in range(DEVICES - 1):
        Device.objects.update_or_create(
            host=host,
            name=f"RPC{number}",
            defaults={
                "kind": "rpc",
                "is_stand_in": True,
                "position": number,
                "memory_bytes": (96 - 8 * number) * GIB,
                "endpoint": f"127.0.0.1:{18900 + number}",
            },
        )
    Device.objects.get_or_create(
        host=host,
        name="CPU",
        kind="cpu",
        defaults={"position": 900, "memory_bytes": 64 * GIB},
    )
    if not discover_engines(host):
        raise SystemExit(
            f"no engine was found; is one of {', '.join(ENGINE_WHEELS)} installed?"
        )
    # All of its columns: a row with some left out is saved by updating it.
    model = Model.objects.get(pk=register(smollm2()).pk)
    for number in range(1, MODELS):
        model.pk, model.name, model.path = (
            None,
            f"model-{number}",
            f"{model.path}.{number}",
        )
        model._state.adding = True
        model.save()
    assert Model.objects.count() == MODELS
    User.objects.create_user("looker")


def measure_devices() -> None:
    """A frame of the sampler in the broker, as there is while the panel runs."""
    from gpus.recent import RecentWriter
    from gpus.sample import CardSample, HostSample, NvmlState, Sample

    cards = [
        CardSample(f"RPC{number}", f"RPC{number}", memory_used_bytes=GIB)
        for number in range(DEVICES - 1)
    ]
    host = HostSample(5.0, 4 * GIB, 64 * GIB, 0, 0.1)
    sample = Sample(int(time.time() * 1000), host, tuple(cards), NvmlState("ok"))
    RecentWriter(os.environ["OMNI_HOST_NAME"]).add(sample.frame(), sample.point())


def changes() -> itertools.cycle[dict[str, object]]:
    """What a person turns, one after the other: never twice the same question in a row."""
    devices = [f"RPC{number}" for number in range(DEVICES - 1)]
    asked = [
        {
            "device": devices[: 1 + turn % len(devices)],
            "context": 1024 * (1 + turn),
            **extra,
        }
        for turn in range(CHANGES)
        for extra in [
            (
                {},
                {"kv_cache_k": "q8_0"},
                {"parallel": 4},
                {"model": f"model-{1 + turn % 19}"},
            )[turn % 4]
        ]
    ]
    return itertools.cycle(asked)


def main() -> int:
    import django

    django.setup()
    from django.conf import settings

    from omni.launcher import valkey_child

    home = settings.OMNI_HOME
    home.create()
    broker = valkey_child(home.valkey_socket, home.run, home.logs)
    broker.start()
    try:
        furnish()
        wait_until(home.valkey_socket.exists, 10, "the broker did not start")
        measure_devices()
        return measure(int(sys.argv[1]) if len(sys.argv) > 1 else CHANGES)
    finally:
        broker.stop(timeout_s=5)


def measure(count: int) -> int:
    from django.contrib.auth.models import User
    from django.db import connection
    from django.test import Client
    from django.test.utils import CaptureQueriesContext

    from deployments.strategies import STRATEGIES

    client = Client(headers={"HX-Request": "true"}, SERVER_NAME="localhost")
    client.force_login(
        User.objects.get(username="looker"),
        backend="django.contrib.auth.backends.ModelBackend",
    )
    client.get("/plan/")
    times = []
    for query in itertools.islice(changes(), count):
        began = time.perf_counter()
        answer = client.get("/plan/", query)
        times.append((time.perf_counter() - began) * 1000)
        assert answer.status_code == 200 and b"used by others 1 GiB" in answer.content
    with CaptureQueriesContext(connection) as queries:
        client.get("/plan/")
    print(
        f"Plan page, a turned knob: {MODELS} models, {DEVICES} devices, {len(STRATEGIES)}"
        " strategies"
    )
    print(
        f"  median {statistics.median(times):.1f} ms   worst {max(times):.1f} ms   ({count}"
        " changes)"
    )
    print(f"  {len(queries)} SQL queries, {len(answer.content) / 1024:.0f} KiB")
    return int(statistics.median(times) >= LIMIT_MS)


if __name__ == "__main__":
    sys.exit(main())
