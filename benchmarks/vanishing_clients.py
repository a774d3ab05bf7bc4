"""Clients that vanish at random moments, and one that reads a byte a second: what is left of them.

    python benchmarks/vanishing_clients.py [--clients 500] [--rounds 5] [--server gateway]

Each client opens a stream and is gone a moment later, while the model loads, in the queue, while
the prompt is read or in the answer. Prints how long the engine's connections stay open, whether
each request is recorded as one whose client left, and how the server's memory grows. Then twenty
clients read streams with and without one beside them that reads a byte a second.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import tests.environment  # noqa: E402, F401  its own OMNI_HOME

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "omni.settings")

import django  # noqa: E402

django.setup()

import psutil  # noqa: E402
import redis  # noqa: E402
from django.conf import settings  # noqa: E402

from deployments.gateway.activity_link import ask_all  # noqa: E402
from omni.launcher import valkey_child  # noqa: E402
from tests.gateway.conftest import serving  # noqa: E402
from tests.gateway.fake_engine import FakeEngine  # noqa: E402
from tests.gateway.served import Served, question  # noqa: E402
from tests.gateway.vanishing import request_bytes, vanish_all  # noqa: E402

# What a process needs for so many clients at once it keeps.
WARM_UP_ROUNDS = 8
READERS = 20
ANSWERS_EACH = 10
PREPARE = """
from deployments.models import Deployment
from tests.gateway.engine import make_deployment
Deployment.objects.filter(name="faulty").update(settings={{"parallel": 64}})
make_deployment("loading", None, state="loading")
make_deployment("narrow", {port}, settings={{"parallel": 1}})
"""
ROWS = """
from collections import Counter
from deployments.models import GatewayRequest
print("ROWS", Counter(GatewayRequest.objects.values_list("status", "error_code")))
"""


@contextmanager
def broker() -> Iterator[None]:
    home = settings.OMNI_HOME
    home.create()
    child = valkey_child(home.valkey_socket, home.run, home.logs)
    child.start()
    client = redis.Redis.from_url(settings.CHANNEL_REDIS_URL)
    seconds_until(lambda: answers(client))
    yield
    child.stop(timeout_s=5)


def answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


def seconds_until(holds: Callable[[], bool], limit_s: float = 60) -> float:
    began = time.monotonic()
    while not holds():
        if time.monotonic() - began > limit_s:
            raise SystemExit(f"not within {limit_s} s")
        time.sleep(0.02)
    return time.monotonic() - began


def open_requests() -> int:
    return sum(len(each["requests"]) for each in ask_all({"ask": "open"}).found)


def memory_mib(served: Served) -> float:
    assert served.process
    return psutil.Process(served.process.pid).memory_full_info().uss / (1 << 20)


# --- clients that vanish --------------------------------------------------------------------------
def vanishing(
    served: Served, engines: list[FakeEngine], clients: int, rounds: int
) -> None:
    for seed in range(WARM_UP_ROUNDS):
        asyncio.run(vanish_all(served, clients, seed))
        settle(engines)
    before_mib = memory_mib(served)
    print(f"after {WARM_UP_ROUNDS} rounds to warm up: {before_mib:.1f} MiB")
    for seed in range(WARM_UP_ROUNDS, WARM_UP_ROUNDS + rounds):
        asyncio.run(vanish_all(served, clients, seed, longest_s=2.0))
        closed_s = settle(engines)
        now_mib = memory_mib(served)
        print(
            f"round {seed}: engine's connections closed {closed_s:.2f} s after the last client"
            f" left; open requests {open_requests()}; {now_mib:.1f} MiB"
            f" ({100 * (now_mib / before_mib - 1):+.1f} %)"
        )
    time.sleep(3)
    print(served.shell(ROWS).strip())


def settle(engines: list[FakeEngine]) -> float:
    closed_s = seconds_until(lambda: not any(e.open_requests for e in engines))
    seconds_until(lambda: not open_requests())
    return closed_s


# --- a client that reads a byte a second ----------------------------------------------------------
async def read_all(served: Served) -> float:
    began = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    body = question("writes_with_drafts", "faulty", stream=True)
    writer.write(request_bytes(served, body))
    whole = b""
    while b"[DONE]" not in whole[-200:]:
        part = await reader.read(1 << 16)
        if not part:
            raise SystemExit("an answer broke off")
        whole += part
    writer.close()
    return time.monotonic() - began


async def read_slowly(served: Served) -> None:
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", served.port, limit=1 << 10
    )
    body = question("floods", "faulty", stream=True)
    writer.write(request_bytes(served, body))
    try:
        while await reader.readexactly(1):
            await asyncio.sleep(1)
    finally:
        writer.close()


async def readers(served: Served, *, beside_slow: bool) -> list[float]:
    slow = asyncio.ensure_future(read_slowly(served)) if beside_slow else None
    await asyncio.sleep(2)
    found: list[float] = []
    for _ in range(ANSWERS_EACH):
        found += await asyncio.gather(*(read_all(served) for _ in range(READERS)))
    if slow:
        slow.cancel()
        await asyncio.wait({slow})
    return found


def slow_reader(served: Served, rounds: int) -> None:
    asyncio.run(readers(served, beside_slow=False))
    times: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(rounds):
        for beside_slow in times:
            times[beside_slow] += asyncio.run(readers(served, beside_slow=beside_slow))
    alone, beside = (statistics.median(times[each]) for each in (False, True))
    print(
        f"{READERS} clients, median of an answer: alone {1000 * alone:.0f} ms, beside one that"
        f" reads a byte a second {1000 * beside:.0f} ms ({100 * (beside / alone - 1):+.1f} %)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--server", choices=["gateway", "serve"], default="gateway")
    chosen = parser.parse_args()
    engines = [FakeEngine(), FakeEngine()]
    gc.freeze()
    with (
        tempfile.TemporaryDirectory() as folder,
        broker(),
        serving(Path(folder), command=chosen.server) as served,
    ):
        served.extra_env["OMNI_BROKER_URL"] = settings.CHANNEL_REDIS_URL
        served.prepare({"faulty": engines[0].port})
        served.shell(PREPARE.format(port=engines[1].port))
        served.start()
        vanishing(served, engines, chosen.clients, chosen.rounds)
        slow_reader(served, chosen.rounds)
    for engine in engines:
        engine.close()


if __name__ == "__main__":
    main()
