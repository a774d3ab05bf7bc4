from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
import pytest_asyncio
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client

from chat import generation, services
from chat.models import Conversation
from deployments.gateway.directory import forget_table
from tests.chat.blind import NAMES
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


@pytest.fixture
def deployments(db: None) -> list[Any]:
    names = (*NAMES, "carl")
    return [make_deployment(name, 20001 + n) for n, name in enumerate(names)]


@pytest.fixture
def blind(deployments: list[Any], operator_user: User) -> Conversation:
    return services.conversation_create(
        owner=operator_user,
        deployment=deployments[0],
        beside=deployments[1:2],
        is_blind=True,
    )


@pytest.fixture
def open_chat(deployments: list[Any], operator_user: User) -> Conversation:
    return services.conversation_create(
        owner=operator_user, deployment=deployments[0], beside=deployments[1:2]
    )
