from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio
from django.conf import settings

from chat import generation
from deployments.gateway.directory import forget_table
from tests.gateway.engine import RealEngine, make_deployment


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealEngine]:
    settings.OMNI_HOME.create()
    real = RealEngine(tmp_path_factory.mktemp("engine"), settings.OMNI_HOME.secret_path("engine"))
    yield real
    real.kill()


@pytest.fixture
def smol(engine: RealEngine, transactional_db: None) -> Any:
    """A ready deployment of the real engine."""
    deployment = make_deployment("smol", engine.port)
    forget_table()
    return deployment


@pytest_asyncio.fixture
async def no_answers_left_over() -> AsyncIterator[None]:
    """What a test leaves running ends with it, before its database is emptied."""
    yield
    await generation.interrupt_all()
