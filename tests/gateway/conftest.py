from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.engine import RealEngine
from tests.gateway.fake_engine import FakeEngine
from tests.gateway.served import Served


@contextmanager
def serving(folder: Path, **options: Any) -> Iterator[Served]:
    """A server that is not started yet; ended with the block."""
    running = Served(folder, **options)
    running.home.create()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def server_command() -> str:
    """Which of the servers a module's tests ask; one that asks both has parameters for it."""
    return "serve"


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory, server_command: str
) -> Iterator[Served]:
    """A gateway of the module's own; the fixtures below prepare and start it."""
    with serving(tmp_path_factory.mktemp("served"), command=server_command) as running:
        yield running


@pytest.fixture
def own_served(tmp_path: Path, server_command: str) -> Iterator[Served]:
    """A gateway of this test's own, not started yet."""
    with serving(tmp_path, command=server_command) as running:
        yield running


@pytest.fixture(scope="module")
def real_engine(
    served: Served, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RealEngine]:
    """The real engine behind deployment `smol` and route `public`; `sleepy` is stopped."""
    real = RealEngine(
        tmp_path_factory.mktemp("engine"), served.home.secret_path("engine")
    )
    served.prepare({"smol": real.port, "sleepy": None}, {"public": "smol"})
    served.start()
    yield real
    real.kill()


@pytest.fixture
def engine(real_engine: RealEngine) -> RealEngine:
    """With nothing left to do from the test before."""
    real_engine.idle_after_s(30)
    return real_engine


@pytest.fixture(scope="module")
def faulty(served: Served) -> Iterator[FakeEngine]:
    """The misbehaving engine behind deployment `faulty`."""
    fake = FakeEngine()
    served.prepare({"faulty": fake.port})
    served.start()
    yield fake
    fake.close()
