"""A socket lives no longer than the right to it: whatever ends the right ends every socket, at
once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from asgiref.sync import sync_to_async
from channels.testing import WebsocketCommunicator
from django.contrib.auth.models import Group, Permission, User
from django.contrib.sessions.models import Session
from django.test import Client

from chat import services
from deployments.models import Deployment, Instance
from omni import sockets
from omni.access import access_group
from omni.sockets import NOT_ALLOWED, NOT_LOGGED_IN, RIGHTS_CHANGED
from tests.conftest import PASSWORD
from tests.gateway.engine import make_deployment
from tests.helpers import PATIENCE_S
from tests.page_socket import closed_with, logged_in, members, socket_of

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("empty_groups"),
]
KINDS = ["telemetry", "state", "log", "device log", "chat"]


@pytest.fixture
def deployment(transactional_db: None, tmp_path: Path) -> Deployment:
    """With logs to follow: an engine's and a device server's."""
    log = tmp_path / "some.log"
    log.write_text("one line\n")
    made: Deployment = make_deployment("smol", 20001)
    Instance.objects.filter(deployment=made).update(log_path=str(log))
    device, _ = made.host.devices.get_or_create(name="CPU", defaults={"kind": "cpu"})
    Instance.objects.create(
        host=made.host, device=device, role="rpc", log_path=str(log)
    )
    return made


@pytest.fixture
def paths(deployment: Deployment, operator_user: User) -> dict[str, str]:
    conversation = services.conversation_create(
        owner=operator_user, deployment=deployment
    )
    return {
        "telemetry": "/ws/telemetry/",
        "state": "/ws/state/",
        "log": "/ws/deployments/smol/log/model-0/",
        "device log": "/ws/devices/CPU/log/",
        "chat": f"/ws/chat/{conversation.pk}/",
    }


@pytest_asyncio.fixture
async def client(operator_user: User) -> Client:
    return await sync_to_async(logged_in)(operator_user)


@pytest_asyncio.fixture
async def open_sockets(
    paths: dict[str, str], client: Client, operator_user: User
) -> AsyncIterator[dict[str, WebsocketCommunicator]]:
    """One of each kind, let in."""
    from contextlib import AsyncExitStack

    async with AsyncExitStack() as stack:
        made = {
            kind: await stack.enter_async_context(socket_of(paths[kind], client))
            for kind in KINDS
        }
        await members(access_group(operator_user.pk), len(KINDS))
        assert (await made["chat"].receive_json_from(PATIENCE_S))["type"] == "snapshot"
        yield made


def log_out(client: Client, user: User) -> None:
    assert client.post("/logout/").status_code == 302


def end_session(client: Client, user: User) -> None:
    Session.objects.get(session_key=client.session.session_key).delete()


def other_password(client: Client, user: User) -> None:
    user.set_password(PASSWORD[::-1])
    user.save()


def deactivate(client: Client, user: User) -> None:
    user.is_active = False
    user.save()


def delete(client: Client, user: User) -> None:
    user.delete()


def leave_the_role(client: Client, user: User) -> None:
    user.groups.clear()


def thrown_out_of_the_role(client: Client, user: User) -> None:
    Group.objects.get(name="operator").user_set.remove(user)


def role_loses_a_right(client: Client, user: User) -> None:
    group = Group.objects.get(name="operator")
    group.permissions.remove(Permission.objects.get(codename="use_chat"))


def role_deleted(client: Client, user: User) -> None:
    Group.objects.get(name="operator").delete()


ENDS = {
    log_out: NOT_LOGGED_IN,
    end_session: NOT_LOGGED_IN,
    other_password: NOT_LOGGED_IN,
    deactivate: NOT_LOGGED_IN,
    delete: NOT_LOGGED_IN,
    # Chat needs the right; the others come again and are shown what may still be seen.
    leave_the_role: RIGHTS_CHANGED,
    thrown_out_of_the_role: RIGHTS_CHANGED,
    role_loses_a_right: RIGHTS_CHANGED,
    role_deleted: RIGHTS_CHANGED,
}


@pytest.mark.parametrize(
    ("act", "code"),
    ENDS.items(),
    ids=lambda value: getattr(value, "__name__", str(value)),
)
async def test_every_socket_is_closed_at_once_when(
    act: Callable[[Client, User], None],
    code: int,
    open_sockets: dict[str, WebsocketCommunicator],
    client: Client,
    operator_user: User,
) -> None:
    pk = operator_user.pk
    await sync_to_async(act)(client, operator_user)
    codes = {kind: await closed_with(made) for kind, made in open_sockets.items()}
    chat = NOT_ALLOWED if code == RIGHTS_CHANGED else code
    assert codes == {**dict.fromkeys(KINDS, code), "chat": chat}
    await members(access_group(pk), 0)


SILENT: dict[str, Callable[[User], Any]] = {
    "deactivated": lambda user: User.objects.filter(pk=user.pk).update(is_active=False),
    "another password": lambda user: User.objects.filter(pk=user.pk).update(
        password="x"
    ),
    "session gone": lambda user: Session.objects.all()._raw_delete("default"),
}


@pytest.mark.parametrize("change", SILENT.values(), ids=SILENT.keys())
async def test_a_change_that_tells_nobody_is_found_by_looking_again(
    change: Callable[[User], Any],
    paths: dict[str, str],
    client: Client,
    operator_user: User,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sockets, "RECHECK_S", 0.05)
    async with socket_of(paths["telemetry"], client) as made:
        await members(access_group(operator_user.pk), 1)
        await sync_to_async(change)(operator_user)
        assert await closed_with(made) == NOT_LOGGED_IN


def test_no_open_socket_is_older_than_half_a_minute_unchecked() -> None:
    assert sockets.RECHECK_S <= 30


async def test_the_sockets_of_others_stay(
    paths: dict[str, str], client: Client, operator_user: User, viewer_user: User
) -> None:
    other = await sync_to_async(logged_in)(viewer_user)
    async with (
        socket_of(paths["state"], client) as own,
        socket_of(paths["state"], other) as theirs,
    ):
        await members(access_group(operator_user.pk), 1)
        await members(access_group(viewer_user.pk), 1)
        await sync_to_async(log_out)(client, operator_user)
        assert await closed_with(own) == NOT_LOGGED_IN
        assert await theirs.receive_nothing(0.2)


async def test_another_log_in_of_the_same_user_stays_when_one_logs_out(
    paths: dict[str, str], client: Client, operator_user: User
) -> None:
    other = await sync_to_async(logged_in)(operator_user)
    async with (
        socket_of(paths["state"], client) as own,
        socket_of(paths["state"], other) as stays,
    ):
        await members(access_group(operator_user.pk), 2)
        await sync_to_async(log_out)(client, operator_user)
        assert await closed_with(own) == NOT_LOGGED_IN
        assert await stays.receive_nothing(0.2)
        # A log-in saves the user as well, and ends nothing.
        log_in = {"username": "oscar", "password": PASSWORD}
        answer = await sync_to_async(Client().post)("/login/", log_in)
        assert answer.status_code == 302
        assert await stays.receive_nothing(0.2)
