"""External servers: asked, registered from everywhere, and their keys."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator

import pytest
from django.conf import settings as django_settings
from django.test import Client

from deployments.external import probe as external_probe
from deployments.external.keys import key_name, key_of
from deployments.external.probe import ask
from deployments.models import Deployment, Engine, Model
from deployments.rig.apply import apply
from deployments.rig.export import current_rig
from deployments.rig.wanted import resolve
from deployments.rig.words import RigError, dump
from deployments.services import discovery, servers
from deployments.services.defaults import default_engine
from gpus.models import Host
from omni.errors import OmniError
from tests.fakes.external_server import MODELS, Answer, FakeExternalServer
from tests.helpers import free_port

OK: Answer = (200, "application/json", b'{"status":"ok"}')
ENDLESS: Answer = (200, "application/json", b" " * (external_probe.LARGEST_BYTES + 1))


@pytest.fixture
def external() -> Iterator[FakeExternalServer]:
    running = FakeExternalServer()
    yield running
    running.close()


# --- asking ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("answers", "code"),
    [
        ({"/health": OK, "/v1/models": MODELS}, ""),
        ({"/v1/models": MODELS}, ""),
        ({"/health": (401, "text/plain", b""), "/v1/models": MODELS}, ""),
        (
            {"/health": (503, "application/json", b"{}"), "/v1/models": MODELS},
            "server_not_ready",
        ),
        ({"/health": OK}, "not_openai_compatible"),
        ({"/health": OK, "/v1/models": (401, "text/plain", b"")}, "key_refused"),
        (
            {"/v1/models": (302, "http://127.0.0.1:1/v1/models", b"")},
            "server_redirects",
        ),
        ({"/v1/models": (200, "text/html", b"<html>")}, "not_openai_compatible"),
        ({"/v1/models": ENDLESS}, "not_openai_compatible"),
    ],
)
def test_what_a_server_says_when_it_is_asked(
    external: FakeExternalServer, answers: dict[str, Answer], code: str
) -> None:
    external.answers = answers
    found = ask(external.address, "")
    assert (found.error.code if found.error else "") == code, found
    assert found.models == (() if code else ("org/Big-1",))


def test_a_server_that_is_away_and_one_that_is_silent(
    external: FakeExternalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = ask(f"http://127.0.0.1:{free_port()}", "").error
    assert away and away.code == "server_away" and away.retry
    monkeypatch.setattr(external_probe, "TIMEOUT_S", 0.3)
    external.answers["/health"] = FakeExternalServer.silent
    assert ask(external.address, "").is_silent


def test_a_redirect_is_not_followed_and_the_key_goes_to_the_address_alone(
    external: FakeExternalServer,
) -> None:
    other = FakeExternalServer()
    external.answers["/v1/models"] = (307, f"{other.address}/v1/models", b"")
    assert ask(external.address, "secret-key").error
    assert other.seen == []
    assert {headers["authorization"] for _, headers, _ in external.seen} == {
        "Bearer secret-key"
    }
    other.close()


def test_another_host_is_not_asked_unless_it_is_allowed(settings: object) -> None:
    refused = ask("http://box.example:9000", "").error
    assert (
        refused
        and refused.code == "address_not_allowed"
        and "OMNI_EXTERNAL_HOSTS" in refused.fix
    )
    settings.OMNI_EXTERNAL_HOSTS = ["box.example"]  # type: ignore[attr-defined]
    assert (
        external_probe.allowed_address("http://box.example:9000/v1")
        == "http://box.example:9000"
    )


# --- from the settings ----------------------------------------------------------------------------
def test_omni_engines_names_servers_too(
    host: Host, external: FakeExternalServer, settings: object
) -> None:
    away = f"http://127.0.0.1:{free_port()}"
    settings.OMNI_ENGINES = [
        f"external={external.address}/v1/",
        f"external={away}",
        "external=ftp://x",
    ]  # type: ignore[attr-defined]
    for _ in range(2):
        discovery.discover_engines(host)
    rows = {engine.path: engine for engine in Engine.objects.filter(flavour="external")}
    assert set(rows) == {external.address, away, "ftp://x"}
    assert (rows[external.address].state, rows[external.address].offers) == (
        "ok",
        ["org/Big-1"],
    )
    assert rows[away].state == "broken" and "cannot be reached" in rows[away].error
    assert "must begin with http" in rows["ftp://x"].error
    assert rows[external.address].name == external.address.removeprefix(
        "http://"
    ).replace(".", "-").replace(":", "-")


def test_an_external_server_is_never_the_default_for_models_of_the_library(
    host: Host, external: FakeExternalServer, engine: Engine
) -> None:
    servers.server_add(host=host, name="aaa", address=external.address)
    assert default_engine(host) == engine
    engine.delete()
    with pytest.raises(OmniError, match="No engine that runs"):
        default_engine(host)


# --- from a rig file ------------------------------------------------------------------------------
def rig(address: str, **changes: str) -> str:
    values = {"strategy": "independent", "model": "org/Big-1", "more": "", **changes}
    return (
        "engines:\n"
        f"  - {{name: other, flavour: external, path: '{address}'}}\n"
        "deployments:\n"
        "  - name: remote\n"
        f"    strategy: {values['strategy']}\n"
        "    engine: other\n"
        f"    models: {{model: {values['model']}}}\n"
        f"{values['more']}"
    )


@pytest.mark.parametrize(
    "more", ["", "    devices: {}\n", "    devices: {model: []}\n", "    devices:\n"]
)
def test_a_rig_file_makes_server_and_deployment_and_comes_back_as_it_was(
    host: Host, external: FakeExternalServer, more: str
) -> None:
    assert apply(rig(external.address, more=more)).changes == [
        "engine other added",
        "deployment remote added",
    ]
    made = Deployment.objects.get()
    assert (made.external_model, made.engine.name, made.bindings.count()) == (
        "org/Big-1",
        "other",
        0,
    )
    servers.server_set_key(engine=made.engine, key="the-secret")
    text = dump(current_rig())
    assert "the-secret" not in text and "org/Big-1" in text
    assert apply(text).changes == []
    Deployment.objects.all().delete()
    Engine.objects.all().delete()
    assert apply(text).changes == ["engine other added", "deployment remote added"]
    assert dump(current_rig()) == text


def test_a_change_of_the_model_is_named(
    host: Host, external: FakeExternalServer
) -> None:
    apply(rig(external.address))
    assert apply(rig(external.address, model="org/Small")).changes == [
        "deployment remote: model model org/Big-1 → org/Small"
    ]


def test_a_server_that_is_away_is_no_mistake_in_the_file(host: Host) -> None:
    assert "engine other added" in apply(rig(f"http://127.0.0.1:{free_port()}")).changes
    assert Engine.objects.get().state == "broken"


@pytest.mark.parametrize(
    ("changes", "line", "says"),
    [
        ({"strategy": "tensor_split"}, 5, "tensor_split places models on devices"),
        ({"more": "    devices: {model: [CPU]}\n"}, 8, "no devices of this machine"),
        ({"more": "    settings: {context: 2048}\n"}, 8, "takes no settings"),
        ({"more": "    extra_args: [--top-k 5]\n"}, 8, "takes no engine flags"),
    ],
)
def test_what_does_not_fit_a_server_is_refused_with_its_line(
    host: Host,
    external: FakeExternalServer,
    changes: dict[str, str],
    line: int,
    says: str,
) -> None:
    with pytest.raises(RigError) as refused:
        apply(rig(external.address, **changes))
    assert [
        problem.line for problem in refused.value.problems if says in problem.text
    ] == [line]
    assert not Engine.objects.exists() and not Deployment.objects.exists()


@pytest.mark.parametrize(
    "address",
    ["http://example.org", "file:///etc/passwd", "http://user:secret@127.0.0.1"],
)
def test_an_address_that_is_not_taken_is_refused_with_its_line(
    host: Host, address: str
) -> None:
    with pytest.raises(RigError) as refused:
        apply(rig(address))
    assert [problem.line for problem in refused.value.problems] == [2]
    assert "secret" not in str(refused.value)


def test_a_plan_of_another_strategy_is_a_verdict(
    host: Host, external: FakeExternalServer
) -> None:
    plan = resolve(rig(external.address, strategy="layer_split")).plans["remote"]
    assert str(plan.verdict) == "not_viable" and plan.reasons[0].fix


def test_a_model_of_the_library_still_needs_devices(
    engine: Engine, model: Model
) -> None:
    text = (
        f"deployments:\n  - name: a\n    engine: {engine.name}\n    models: {{model:"
        f" {model.name}}}\n"
    )
    with pytest.raises(RigError, match="line 2: The role model has no device"):
        apply(text)


# --- keys -----------------------------------------------------------------------------------------
def test_a_key_lies_in_a_private_file_and_nowhere_else(
    host: Host, external: FakeExternalServer, admin: Client
) -> None:
    made = servers.server_add(
        host=host, name="other", address=external.address, key="the-secret"
    )
    path = django_settings.OMNI_HOME.run / f"{key_name(made.pk, made.path)}.key"
    assert (
        stat.S_IMODE(path.stat().st_mode) == 0o600 and path.read_text() == "the-secret"
    )
    assert "the-secret" not in json.dumps(list(Engine.objects.values()), default=str)
    assert "the-secret" not in admin.get("/servers/other/").content.decode()
    assert "kept, not shown" in admin.get("/servers/other/").content.decode()
    servers.server_remove(engine=made)
    assert not path.exists()


def test_a_key_is_not_sent_to_another_address(
    host: Host, external: FakeExternalServer
) -> None:
    """Who may change an address could have the key sent to himself."""
    made = servers.server_add(
        host=host, name="other", address=external.address, key="the-secret"
    )
    thief = FakeExternalServer()
    apply(rig(thief.address))
    made.refresh_from_db()
    assert made.path == thief.address and key_of(made) == ""
    assert not [headers for _, headers, _ in thief.seen if "authorization" in headers]
    thief.close()


@pytest.mark.parametrize("key", ["a b", "a\nb", "ü", "x" * 1001])
def test_what_no_header_can_carry_is_no_key(
    host: Host, external: FakeExternalServer, key: str
) -> None:
    with pytest.raises(OmniError) as refused:
        servers.server_add(host=host, name="other", address=external.address, key=key)
    assert refused.value.code == "bad_key" and key not in str(refused.value)
    assert not Engine.objects.exists()


# --- pages ----------------------------------------------------------------------------------------
def test_from_an_address_to_a_deployment_by_the_pages(
    host: Host, external: FakeExternalServer, admin: Client
) -> None:
    assert 'href="/servers/add/"' in admin.get("/models/").content.decode()
    form = {"name": "other", "address": f"{external.address}/v1", "key": "the-secret"}
    assert admin.post("/servers/add/", form).headers["location"] == "/servers/other/"
    text = admin.get("/servers/other/").content.decode()
    assert '<option value="org/Big-1">' in text
    answer = admin.post("/servers/other/offer/", {"model": "org/Big-1", "name": ""})
    assert answer.headers["location"] == "/deployments/big-1/"
    made = Deployment.objects.get()
    assert (made.desired, made.external_model, made.strategy) == (
        "running",
        "org/Big-1",
        "independent",
    )
    text = admin.get("/deployments/big-1/").content.decode()
    assert (
        "org/Big-1" in text
        and "does not watch its memory" in text
        and "data-log=" not in text
    )
    assert "org/Big-1" in admin.get("/deployments/").content.decode()
    assert (
        admin.get("/deployments/big-1/change/").headers["location"]
        == "/deployments/big-1/external/"
    )
    external.answers["/v1/models"] = (
        200,
        "application/json",
        b'{"data":[{"id":"org/Two"}]}',
    )
    admin.post("/servers/other/ask/")
    assert (
        admin.post("/deployments/big-1/external/", {"model": "org/Two"}).status_code
        == 302
    )
    assert Deployment.objects.get().external_model == "org/Two"
    assert "is used by big-1" in admin.post("/servers/other/remove/").content.decode()
    admin.post("/deployments/big-1/delete/")
    assert (
        "big-1 on the server other is still being deleted"
        in admin.post("/servers/other/remove/").content.decode()
    )
    assert 'value="org/Big-1"' not in admin.get("/deployments/new/").content.decode()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"name": "A B"}, "cannot be a name"),
        ({"name": "add"}, "cannot be a name"),
        ({"name": "taken"}, "already an engine named"),
        ({"address": "http://example.org"}, "OMNI_EXTERNAL_HOSTS"),
        ({"address": "localhost:80"}, "must begin with http"),
        ({"address": "http://127.0.0.1:1"}, "cannot be reached"),
    ],
)
def test_what_was_typed_stays_when_a_server_is_refused_but_for_the_key(
    host: Host,
    external: FakeExternalServer,
    admin: Client,
    changes: dict[str, str],
    says: str,
) -> None:
    Engine.objects.create(host=host, name="taken", flavour="llama.cpp", path="/x")
    form = {
        "name": "other",
        "address": external.address,
        "key": "the-secret",
        **changes,
    }
    text = admin.post("/servers/add/", form).content.decode()
    assert says in text and form["name"] in text and form["address"] in text
    assert "the-secret" not in text
    assert Engine.objects.count() == 1


@pytest.mark.parametrize("action", ["ask", "key", "remove"])
def test_an_operator_offers_models_and_leaves_servers_to_administrators(
    host: Host,
    external: FakeExternalServer,
    operator: Client,
    viewer: Client,
    anonymous: Client,
    action: str,
) -> None:
    servers.server_add(host=host, name="other", address=external.address)
    for client, offers in ((operator, 302), (viewer, 403)):
        assert client.get("/servers/other/").status_code == 200
        assert client.get("/servers/add/").status_code == 403
        assert client.post(f"/servers/other/{action}/", {"key": "x"}).status_code == 403
        assert (
            client.post("/servers/other/offer/", {"model": "org/Big-1"}).status_code
            == offers
        )
    assert anonymous.get("/servers/other/").headers["location"].startswith("/login/")
    assert Engine.objects.count() == 1
