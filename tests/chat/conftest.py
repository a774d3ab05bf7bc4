from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
import pytest_asyncio
from django.conf import settings
from django.test import Client

from chat import generation
from deployments.gateway.directory import forget_table
from tests.chat.page import Page
from tests.gateway.engine import RealEngine, make_deployment


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealEngine]:
    settings.OMNI_HOME.create()
    real = RealEngine(
        tmp_path_factory.mktemp("engine"), settings.OMNI_HOME.secret_path("engine")
    )
    yield real
    real.kill()


@pytest.fixture
def smol(engine: RealEngine, transactional_db: None) -> Any:
    """A ready deployment of the real engine."""
    deployment = make_deployment("smol", engine.port)
    forget_table()
    return deployment


Opener = Callable[[Client, int], Awaitable[Page]]


@pytest_asyncio.fixture
async def open_page(transactional_db: None) -> AsyncIterator[Opener]:
    """Opens pages; they and the answers still being written end with the test, before its database
    is emptied."""
    pages: list[Page] = []

    async def opened(client: Client, conversation_id: int) -> Page:
        pages.append(Page(client, conversation_id))
        return await pages[-1].open()

    yield opened
    await generation.interrupt_all()
    for page in pages:
        await page.close()
