"""The table of rights, walked: every page, socket, socket message, admin page, action and field, by
everybody.

What each role is expected to be let do follows from the rights it holds and from the table in
omni.roles. What has no row there fails here, so nothing is added without somebody deciding who may.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib import admin as site
from django.contrib.admin.options import ModelAdmin
from django.contrib.auth.models import Group, Permission, User
from django.db import transaction
from django.db.models import Model as Row
from django.test import Client, RequestFactory
from django.urls import URLPattern, URLResolver, get_resolver

from chat import services as chat_services
from chat.actions import ACTIONS
from chat.attachments import attachment_add, attachment_remove
from chat.models import Conversation, Message
from deployments.models import (
    ApiKey,
    BenchmarkRun,
    Deployment,
    Engine,
    Instance,
    Route,
    Transition,
)
from omni.asgi import websocket_urlpatterns
from omni.checks import every_admin_page_has_a_row, every_page_has_a_row
from omni.roles.admin_rows import ADMIN
from omni.roles.pages import PAGES
from omni.roles.rights import (
    ADD_DEVICES,
    ANYBODY,
    CHAT,
    LOGGED_IN,
    MANAGE_ENGINES,
    MANAGE_LIBRARY,
    MANAGE_ROUTES,
    OPERATE,
    REMOVE_DEVICES,
    SUPERUSER,
)
from omni.sockets import NoSuchSocket, PageSocket
from tests.page_socket import logged_in
from tests.vision_models import png

EVERY = {
    LOGGED_IN,
    OPERATE,
    CHAT,
    MANAGE_LIBRARY,
    MANAGE_ENGINES,
    MANAGE_ROUTES,
    ADD_DEVICES,
    REMOVE_DEVICES,
}


@dataclass(frozen=True)
class Person:
    """What somebody holds. Staff with all of Django's permissions to change hold Omni's as well."""

    name: str
    rights: frozenset[str]
    is_staff: bool = False
    django: tuple[str, ...] = ()

    def may(self, right: str) -> bool:
        return right == ANYBODY or right in self.rights

    def may_in_admin(self, what: str) -> bool:
        return self.is_staff and (SUPERUSER in self.rights or what in self.django)


PEOPLE = [
    Person("anonymous", frozenset()),
    Person("viewer", frozenset({LOGGED_IN})),
    Person("operator", frozenset({LOGGED_IN, OPERATE, CHAT})),
    Person("staff that may view", frozenset({LOGGED_IN}), True, ("view",)),
    Person(
        "staff that may change",
        frozenset(EVERY),
        True,
        ("view", "add", "change", "delete"),
    ),
    Person("superuser", frozenset({*EVERY, SUPERUSER}), True),
]
STAFF = [person for person in PEOPLE if person.is_staff]


@contextmanager
def in_turn(person: Person) -> Iterator[Client]:
    """The person's browser; what it changes is taken back, and the person too."""
    with taken_back():
        yield _client(person)


@contextmanager
def taken_back() -> Iterator[None]:
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


def _client(person: Person) -> Client:
    if person.name == "anonymous":
        return Client(raise_request_exception=False)
    is_admin = person.name == "superuser"
    user = User.objects.create(
        username="pat", is_staff=person.is_staff, is_superuser=is_admin
    )
    if person.name in ("viewer", "operator"):
        user.groups.add(Group.objects.get(name=person.name))
    if person.django:
        given = Permission.objects.select_related("content_type")
        user.user_permissions.set(
            code
            for code in given
            if code.codename.split("_")[0] in person.django
            or f"{code.content_type.app_label}.{code.codename}" in person.rights
        )
    client = logged_in(user)
    client.raise_request_exception = False
    return client


@pytest.fixture(params=PEOPLE, ids=lambda person: person.name)
def person(request: pytest.FixtureRequest) -> Person:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def client(db: None, person: Person) -> Client:
    return _client(person)


# --- pages ----------------------------------------------------------------------------------------
def views(
    resolver: URLResolver | None = None, app: str = "", route: str = ""
) -> Iterator[tuple[str, str]]:
    """Name and address of every page but the administration's."""
    for pattern in (resolver or get_resolver()).url_patterns:
        here = route + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            if pattern.app_name != "admin":
                yield from views(
                    pattern, f"{pattern.app_name}:" if pattern.app_name else app, here
                )
        elif isinstance(pattern, URLPattern):
            yield f"{app}{pattern.name}", here


ADDRESSES = dict(views())
VALUES = {
    "<slug:name>": "small",
    "<slug:prefix>": "abcdefgh",
    "<int:pk>": "1",
    "<int:number>": "1",
    "<slug:number>": "a1b2c3d4-1",
    "<int:lane>": "1",
    "<int:question>": "1",
    "<int:attachment>": "1",
    "<slug:kind>": "json",
    "<slug:code>": "disk",
    "<str:key>": "RPC0",
}


def address(view: str) -> str:
    found = ADDRESSES[view]
    for parameter, value in VALUES.items():
        found = found.replace(parameter, value)
    assert "<" not in found, f"give {found} a value in VALUES"
    return f"/{found}"


def test_every_page_has_a_row_and_every_row_a_page() -> None:
    assert set(ADDRESSES) == set(PAGES)
    assert not every_page_has_a_row() and not every_admin_page_has_a_row()


@pytest.mark.parametrize("view", sorted(PAGES))
def test_a_page_is_for_whom_the_table_says(deployment: Deployment, view: str) -> None:
    page = PAGES[view]
    for person in PEOPLE:
        with in_turn(person) as client:
            for method, right in (("get", page.look), ("post", page.act)):
                with taken_back():
                    status = getattr(client, method)(address(view)).status_code
                assert status in expected(person, view, right), (
                    f"{person.name}: {method} {status}"
                )


ANSWERS = set(range(200, 500)) - {403, 405}


def expected(person: Person, view: str, right: str) -> set[int]:
    if person.name == "anonymous" and ANYBODY not in (
        PAGES[view].look,
        PAGES[view].act,
    ):
        return {302}
    if not right:
        return {405}
    return ANSWERS if person.may(right) else {403}


def test_a_stranger_gets_no_token(anonymous: Client) -> None:
    assert anonymous.get("/socket-token/").status_code == 401


@pytest.mark.parametrize("method", ["put", "patch", "delete", "options", "trace"])
def test_no_page_has_a_method_that_nobody_thought_of(
    client: Client, person: Person, method: str
) -> None:
    answer = getattr(client, method)("/deployments/")
    assert answer.status_code == (302 if person.name == "anonymous" else 405)


# --- sockets --------------------------------------------------------------------------------------
SOCKET_RIGHTS = {
    "ws/telemetry/": LOGGED_IN,
    "ws/state/": LOGGED_IN,
    "ws/devices/.../log/": LOGGED_IN,
    "ws/deployments/.../log/.../": LOGGED_IN,
    "ws/chat/.../": CHAT,
}
MESSAGES = {
    "send": {"text": "Hi"},
    "edit": {"message": 1, "text": "Hi"},
    "again": {"message": 1},
    "fill": {"lane": 1},
    "select": {"message": 1},
    "vote": {"message": 1, "verdict": "left"},
    "reveal": {"message": 1},
    "stop": {},
    "resync": {"message": 1, "have": 0},
}


def sockets() -> dict[str, type[PageSocket]]:
    import re

    found = {}
    for pattern in websocket_urlpatterns:
        consumer = pattern.callback.consumer_class
        if consumer is not NoSuchSocket:
            route = re.sub(
                r"<int:pk>|\(\?P.*?\)(?=/|-|\$)", "...", str(pattern.pattern)
            ).replace("...-...", "...")
            found[route.strip("^$")] = consumer
    return found


def test_every_socket_and_every_message_has_a_row() -> None:
    assert set(sockets()) == set(SOCKET_RIGHTS)
    assert set(ACTIONS) == set(MESSAGES)
    for route, consumer in sockets().items():
        assert issubclass(consumer, PageSocket), f"{route} is not judged"
        assert consumer.permission == SOCKET_RIGHTS[route]


# --- administration: pages ------------------------------------------------------------------------
@pytest.fixture
def rows(deployment: Deployment, operator_user: User) -> None:
    """One of everything."""
    from axes.models import AccessAttempt
    from django.utils import timezone

    from deployments.models import Download, LibraryFolder
    from gpus.models import Gpu, HistoryMark, HistorySubject

    host = deployment.host
    instance = Instance.objects.create(
        host=host, deployment=deployment, role="model", state="ready", pid=9
    )
    Transition.objects.create(instance=instance, old="loading", new="ready")
    Route.objects.create(name="fast", deployment=deployment)
    ApiKey.objects.create_key(name="script", owner=operator_user)
    conversation = chat_services.conversation_create(
        owner=operator_user, deployment=deployment
    )
    Message.objects.create(conversation=conversation, role="user", content="a secret")
    Gpu.objects.create(host=host, uuid="GPU-1", name="A card")
    LibraryFolder.objects.get_or_create(path="/models")
    Download.objects.create(
        host=host, repo="a/b", folder="/models", files=[], total_bytes=1
    )
    BenchmarkRun.objects.create(
        host=host,
        scenario="chat",
        names=["small"],
        most_rounds=1,
        gateway="http://127.0.0.1:1",
        state="done",
    )
    now = timezone.now()
    HistorySubject.objects.create(host=host, key="RPC0")
    HistoryMark.objects.create(host=host, at=now, kind="started", text="small")
    AccessAttempt.objects.create(
        username="x", ip_address="127.0.0.1", user_agent="x", failures_since_start=1
    )


site.autodiscover()
REGISTERED = {
    model._meta.label_lower: page for model, page in site.site._registry.items()
}
LABELS = sorted(REGISTERED)


def row_of(label: str) -> Any:
    return REGISTERED[label].model._default_manager.order_by("pk").first()


def request_of(client: Client) -> Any:
    request = RequestFactory().get("/admin/")
    request.user = User.objects.filter(pk=client.session.get("_auth_user_id")).first()
    return request


def test_every_admin_page_has_a_row_and_every_row_a_page() -> None:
    assert set(LABELS) == set(ADMIN)


@pytest.mark.parametrize("label", LABELS)
def test_a_page_of_the_administration_is_for_whom_the_table_says(
    rows: None, label: str
) -> None:
    for person in PEOPLE:
        with in_turn(person) as client:
            walk_admin_page(client, person, label)


def walk_admin_page(client: Client, person: Person, label: str) -> None:
    table, path, found = (
        ADMIN[label],
        f"/admin/{label.replace('.', '/')}/",
        row_of(label),
    )
    looks = person.may_in_admin("view") and person.may(table.look)
    changes = person.may(table.right)

    def open_to(what: str) -> bool:
        return changes and what in table.can and person.may_in_admin(what)

    expected = {
        path: looks,
        f"{path}{found.pk}/change/": looks,
        f"{path}{found.pk}/history/": looks,
        f"{path}add/": open_to("add"),
        f"{path}{found.pk}/delete/": open_to("delete"),
    }
    for address, is_open in expected.items():
        status = client.get(address).status_code
        # Whoever is not staff is shown the administration's own log-in.
        assert status == (200 if is_open else 403 if person.is_staff else 302), address

    before = (
        REGISTERED[label].model._default_manager.filter(pk=found.pk).values().first()
    )
    status = client.post(
        f"{path}{found.pk}/change/", {"name": "changed", "title": "changed"}
    ).status_code
    assert status in (
        (200, 302) if open_to("change") else (403,) if person.is_staff else (302,)
    )
    if not open_to("change"):
        assert (
            REGISTERED[label]
            .model._default_manager.filter(pk=found.pk)
            .values()
            .first()
            == before
        )


# --- administration: fields -----------------------------------------------------------------------
def editable(page: ModelAdmin[Any], request: Any, found: Row | None) -> set[str]:
    return set(page.get_form(request, found).base_fields)


@pytest.mark.parametrize("label", LABELS)
def test_the_fields_that_can_be_edited_are_those_of_the_table(
    rows: None, label: str
) -> None:
    for person in STAFF:
        with in_turn(person) as client:
            hold_fields(client, person, label)


def hold_fields(client: Client, person: Person, label: str) -> None:
    page, table, request = REGISTERED[label], ADMIN[label], request_of(client)
    changes, adds = (
        page.has_change_permission(request),
        page.has_add_permission(request),
    )
    assert changes == (
        person.may(table.right)
        and "change" in table.can
        and person.may_in_admin("change")
    )
    if changes:
        assert editable(page, request, row_of(label)) == set(table.fields)
    if adds and label != "auth.user":
        assert editable(page, request, None) == {*table.fields, *table.adding}


NEVER = {
    "deployments.deployment": {
        "desired",
        "is_unloaded",
        "host",
        "ends_now",
        "external_model",
        "name",
        "is_deleting",
    },
    "deployments.engine": {"host", "build", "flags", "state"},
    "deployments.instance": {"pid", "port", "argv", "env", "address"},
    "deployments.apikey": {"hashed_key", "prefix"},
}


@pytest.mark.parametrize(("label", "fields"), NEVER.items())
def test_what_the_agent_or_a_service_writes_is_nobodys_to_edit(
    label: str, fields: set[str]
) -> None:
    assert not fields & set(ADMIN[label].fields)


# --- administration: actions ----------------------------------------------------------------------
@pytest.mark.parametrize("label", LABELS)
def test_the_actions_are_those_of_the_table_for_whom_they_are(
    rows: None, label: str
) -> None:
    for person in STAFF:
        with in_turn(person) as client:
            hold_actions(client, person, label)


def hold_actions(client: Client, person: Person, label: str) -> None:
    page, request = REGISTERED[label], request_of(client)
    allowed = {name for name, right in ADMIN[label].actions if person.may(right)}
    if not page.has_delete_permission(request):
        allowed -= {"delete_selected"}
    assert set(page.get_actions(request)) == allowed
    named = {
        action if isinstance(action, str) else action.__name__
        for action in page.actions or ()
    }
    assert named <= {name for name, _ in ADMIN[label].actions}


@pytest.mark.parametrize("act", ["start", "stop", "delete_selected"])
def test_an_action_that_is_not_theirs_does_nothing_when_it_is_posted(
    client: Client, person: Person, rows: None, act: str
) -> None:
    Route.objects.all().delete()
    Deployment.objects.update(desired="running" if act == "stop" else "stopped")
    before = Deployment.objects.values("desired", "is_deleting", "generation").get()
    chosen = {
        "action": act,
        "post": "yes",
        "_selected_action": [Deployment.objects.get().pk],
    }
    client.post("/admin/deployments/deployment/", chosen)
    changed = (
        Deployment.objects.values("desired", "is_deleting", "generation").get()
        != before
    )
    assert changed is (person.is_staff and person.may(OPERATE))


# --- services -------------------------------------------------------------------------------------
def test_a_service_refuses_who_has_no_right_whatever_page_called_it(
    viewer_user: User, deployment: Deployment
) -> None:
    from chat import lanes, voting
    from deployments import announce
    from deployments.bench import runs
    from deployments.library import folders
    from deployments.services import engines, keys, one_click, servers
    from deployments.services.deployments import (
        deployment_change,
        deployment_delete,
        deployment_start,
        deployment_stop,
        model_delete,
    )
    from omni.errors import OmniError

    model = deployment.bindings.get().model
    benchmark = BenchmarkRun.objects.create(
        host=deployment.host, names=["small"], most_rounds=1
    )
    asked = {"names": ["small"], "scenario": "chat", "gateway": "http://127.0.0.1:1"}
    talk = Conversation.objects.create(owner=viewer_user)
    lane = talk.lanes.create(
        position=0, deployment=deployment, deployment_name=deployment.name
    )
    key, _ = ApiKey.objects.create_key(name="script", owner=viewer_user)
    terms = keys.KeyTerms("another name")
    calls: list[Callable[[], object]] = [
        lambda: deployment_start(deployment=deployment, user=viewer_user),
        lambda: deployment_stop(deployment=deployment, user=viewer_user),
        lambda: deployment_change(deployment=deployment, settings={}, user=viewer_user),
        lambda: deployment_delete(deployment=deployment, user=viewer_user),
        lambda: one_click.deploy(model=model, user=viewer_user),
        lambda: model_delete(model=model, user=viewer_user),
        lambda: servers.server_remove(engine=deployment.engine, user=viewer_user),
        lambda: servers.server_ask(engine=deployment.engine, user=viewer_user),
        lambda: engines.probe(deployment.engine, user=viewer_user),
        lambda: announce.request_scan("here", user=viewer_user),
        lambda: runs.benchmark_request(**asked, user=viewer_user),
        lambda: runs.benchmark_cancel(run=benchmark, user=viewer_user),
        lambda: runs.benchmark_forget(run=benchmark, user=viewer_user),
        lambda: folders.folder_add("/", user=viewer_user),
        lambda: keys.key_make(terms=terms, owner=viewer_user, user=viewer_user),
        lambda: keys.key_change(key=key, terms=terms, user=viewer_user),
        lambda: keys.key_revoke(key=key, user=viewer_user),
        lambda: keys.key_delete(key=key, user=viewer_user),
        lambda: chat_services.conversation_create(
            owner=viewer_user, deployment=deployment
        ),
        lambda: chat_services.conversation_rename(conversation=talk, title="another"),
        lambda: chat_services.conversation_configure(
            conversation=talk, deployment=None, system_prompt="", settings={}
        ),
        lambda: chat_services.conversation_delete(conversation=talk),
        lambda: chat_services.question_send(conversation=talk, text="Hi"),
        lambda: chat_services.question_edit(conversation=talk, message_id=1, text="Hi"),
        lambda: chat_services.answer_again(conversation=talk, message_id=1),
        lambda: chat_services.answer_in_lane(conversation=talk, lane_id=lane.pk),
        lambda: chat_services.version_select(conversation=talk, message_id=1),
        lambda: attachment_add(conversation=talk, data=png()),
        lambda: attachment_remove(conversation=talk, attachment_id=1),
        lambda: chat_services.answer_in_turn(conversation=talk, on=True),
        lambda: voting.blind_switch(conversation=talk, on=True),
        lambda: voting.vote(conversation=talk, question_id=1, verdict="left"),
        lambda: voting.reveal(conversation=talk, question_id=1),
        lambda: lanes.lane_add(conversation=talk, target=deployment),
        lambda: lanes.lane_change(lane=lane, target=deployment),
        lambda: lanes.lane_remove(lane=lane),
    ]
    for call in calls:
        with pytest.raises(OmniError) as refused:
            call()
        assert refused.value.code == "forbidden"
    assert Deployment.objects.get().desired == deployment.desired


# --- engines are programs -------------------------------------------------------------------------
@pytest.fixture
def program(tmp_path: Path) -> Path:
    """What an attacker would have run: it leaves a trace when it is."""
    path = tmp_path / "engine"
    path.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    path.chmod(0o755)
    return path


def test_nobody_but_a_superuser_has_a_program_run(
    client: Client, person: Person, engine: Engine, program: Path
) -> None:
    """By the administration and by a rig file, as change and as a new engine."""
    fields = {"name": engine.name, "flavour": engine.flavour, "path": str(program)}
    client.post(f"/admin/deployments/engine/{engine.pk}/change/", fields)
    client.post(
        "/admin/deployments/engine/add/",
        {**fields, "name": "other", "host": engine.host_id},
    )
    rig = f'engines: [{{name: third, path: "{program}", flavour: llama.cpp}}]'
    client.post("/rig-file/", {"text": rig})
    assert program.with_name("ran").exists() is (person.name == "superuser")


# --- others' conversations ------------------------------------------------------------------------
CONVERSATION_PAGES = sorted(
    view for view in PAGES if view.startswith("chat:") and "<int:pk>" in ADDRESSES[view]
)


@pytest.mark.parametrize("view", CONVERSATION_PAGES)
def test_the_conversation_of_somebody_else_is_not_there(
    admin: Client, operator_user: User, deployment: Deployment, view: str
) -> None:
    """Not for an administrator either."""
    other = chat_services.conversation_create(
        owner=operator_user, deployment=deployment
    )
    asked = Message.objects.create(conversation=other, role="user", content="Hi")
    own = {
        "<int:pk>": other.pk,
        "<int:lane>": other.lanes.get().pk,
        "<int:question>": asked.pk,
        "<int:attachment>": attachment_add(conversation=other, data=png()).pk,
        "<slug:kind>": "json",
        "<slug:code>": "disk",
    }
    where = f"/{ADDRESSES[view]}"
    for parameter, value in own.items():
        where = where.replace(parameter, str(value))
    method = "get" if PAGES[view].look else "post"
    assert (
        getattr(admin, method)(
            where, {"title": "mine now", "target": "small"}
        ).status_code
        == 404
    )
    other.refresh_from_db()
    assert other.title == "" and other.lanes.count() == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("kind", sorted(ACTIONS))
async def test_a_message_on_a_socket_needs_the_right_to_chat(
    operator_user: User, viewer_user: User, deployment: Deployment, kind: str
) -> None:
    """Neither to somebody else's conversation, nor to one's own once the right is gone."""
    from tests.page_socket import closed_with, socket_of

    own = await Conversation.objects.acreate(owner=viewer_user)
    await own.lanes.acreate(
        position=0, deployment=deployment, deployment_name=deployment.name
    )
    other = await sync_to_async(chat_services.conversation_create)(
        owner=operator_user, deployment=deployment
    )
    for user, conversation, code in (
        (viewer_user, own, 4403),
        (operator_user, own, 4404),
    ):
        client = await sync_to_async(logged_in)(user)
        async with socket_of(f"/ws/chat/{conversation.pk}/", client) as made:
            await made.send_json_to({"type": kind, **MESSAGES[kind]})
            assert await closed_with(made) == code
    assert not await Message.objects.aexists()
    assert other.pk != own.pk
