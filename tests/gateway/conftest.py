from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.gateway.engine import RealEngine
from tests.gateway.fake_engine import FakeEngine
from tests.gateway.served import Served


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A served gateway; the module's tests `prepare` and `start` it through the fixtures below."""
    running = Served(tmp_path_factory.mktemp("served"))
    running.home.create()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def engine(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealEngine]:
    """The real engine behind deployment `smol` and route `public`; `sleepy` is stopped."""
    real = RealEngine(tmp_path_factory.mktemp("engine"), served.home.secret_path("engine"))
    served.prepare({"smol": real.port, "sleepy": None}, {"public": "smol"})
    served.start()
    yield real
    real.kill()


@pytest.fixture(scope="module")
def faulty(served: Served) -> Iterator[FakeEngine]:
    """The misbehaving engine behind deployment `faulty`."""
    fake = FakeEngine()
    served.prepare({"faulty": fake.port})
    served.start()
    yield fake
    fake.close()
