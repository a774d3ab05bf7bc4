"""The administration: every list can be searched, what is observed cannot be typed over, a key is
shown once."""

from __future__ import annotations

import html
import re

import pytest
from django.contrib import admin as site
from django.contrib.auth.models import User
from django.test import Client

from deployments.models import ApiKey, Deployment, Engine, Instance, Route, Transition
from deployments.rig.export import rig_text
from deployments.rig.reader import parse
from gpus.models import Host

FORMSETS = {
    f"{name}-{what}_FORMS": "0"
    for name in ("bindings", "instances")
    for what in ("TOTAL", "INITIAL")
}
site.autodiscover()
ADMINS = [
    row
    for model, row in site.site._registry.items()
    if model._meta.app_label == "deployments"
]


@pytest.fixture
def rows(deployment: Deployment) -> Deployment:
    instance = Instance.objects.create(
        host=deployment.host, deployment=deployment, role="model", state="ready", pid=9
    )
    Transition.objects.create(instance=instance, old="loading", new="ready")
    Route.objects.create(name="fast", deployment=deployment)
    ApiKey.objects.create_key(name="script")
    return deployment


@pytest.mark.parametrize("page", ADMINS, ids=lambda row: row.model.__name__)
def test_every_list_opens_searches_and_filters(
    admin: Client, rows: Deployment, page: site.ModelAdmin
) -> None:  # type: ignore[type-arg]
    path = f"/admin/deployments/{page.model._meta.model_name}/"
    assert page.search_fields and page.list_filter
    assert len(page.list_display) > 2
    assert admin.get(path).status_code == 200
    assert admin.get(path, {"q": "small"}).status_code == 200
    first = page.model._default_manager.first()
    if first:
        assert admin.get(f"{path}{first.pk}/change/").status_code == 200


@pytest.mark.parametrize("path", ["instance/add/", "transition/add/", "model/add/"])
def test_what_is_observed_cannot_be_made_up(admin: Client, path: str) -> None:
    assert admin.get(f"/admin/deployments/{path}").status_code == 403


def test_an_operator_has_no_administration(operator: Client, rows: Deployment) -> None:
    assert operator.get("/admin/deployments/deployment/").status_code == 302


def test_a_new_key_is_shown_once_and_by_nothing_that_travels_on(
    admin: Client, admin_user: User
) -> None:
    answer = admin.post(
        "/admin/deployments/apikey/add/", {"name": "script", "owner": admin_user.pk}
    )
    key = re.search(
        r"shown this once:\s*<code[^>]*>(\S+?)</code>", answer.content.decode()
    )
    assert key and ApiKey.objects.get_from_key(key[1]).name == "script"
    assert "no-store" in answer["Cache-Control"]
    assert not any(key[1] in cookie.value for cookie in admin.cookies.values())
    assert key[1] not in str(dict(admin.session)), "not in a message either"
    row = ApiKey.objects.get()
    assert (
        key[1]
        not in admin.get(f"/admin/deployments/apikey/{row.pk}/change/").content.decode()
    )


def test_a_key_belongs_to_somebody(admin: Client) -> None:
    answer = admin.post(
        "/admin/deployments/apikey/add/", {"name": "script", "owner": ""}
    )
    assert "This field is required" in answer.content.decode()
    assert not ApiKey.objects.exists()


def test_one_kind_of_api_keys_is_shown(admin: Client) -> None:
    assert admin.get("/admin/").content.decode().count("/apikey/add/") == 1
    assert admin.get("/admin/rest_framework_api_key/apikey/").status_code == 404


@pytest.mark.parametrize(
    ("settings", "flags", "says"),
    [
        ("[1, 2]", "[]", "Write the settings as an object"),
        ('"x"', "[]", "Write the settings as an object"),
        ("7", "[]", "Write the settings as an object"),
        ('{"context": "x"}', "[]", "context"),
        ('{"nothing": 1}', "[]", "nothing"),
        ("{", "[]", "valid JSON"),
        ('{"context": ' + "9" * 5_000 + "}", "[]", "valid JSON"),
        ("[" * 100_000, "[]", "valid JSON"),
        ('{"context": 99999999999999999999999999}', "[]", "context"),
        ('{"context": 1e999}', "[]", "context"),
        ("{}", "{}", "Write the flags as a list"),
        ("{}", "[1]", "Write the flags as a list"),
        ("{}", '["--host", "0.0.0.0"]', "--host"),
        ("{}", '["--model", "/etc/passwd"]', "--model"),
    ],
)
def test_what_cannot_be_a_setting_is_said_beside_the_field(
    admin: Client, rows: Deployment, settings: str, flags: str, says: str
) -> None:
    before = Deployment.objects.values("settings", "extra_args", "generation").get()
    fields = {"settings": settings, "extra_args": flags, **FORMSETS}
    answer = admin.post(f"/admin/deployments/deployment/{rows.pk}/change/", fields)
    assert answer.status_code == 200 and says in html.unescape(answer.content.decode())
    assert (
        Deployment.objects.values("settings", "extra_args", "generation").get()
        == before
    )


@pytest.mark.parametrize(
    ("purposes", "says"),
    [
        ('"coding"', "Write the purposes as a list"),
        ("[7]", "Write the purposes as a list"),
        ('["My Own"]', "cannot be a purpose"),
        ('["auto"]', "has another meaning"),
    ],
)
def test_what_cannot_be_a_purpose_is_said_beside_the_field(
    admin: Client, rows: Deployment, purposes: str, says: str
) -> None:
    typed = {"settings": "{}", "extra_args": "[]", "purposes": purposes}
    path = f"/admin/deployments/deployment/{rows.pk}/change/"
    answer = admin.post(path, typed | FORMSETS)
    assert answer.status_code == 200 and says in html.unescape(answer.content.decode())
    assert Deployment.objects.get().purposes == []


def test_a_setting_is_changed_by_the_service_alone(
    admin: Client, rows: Deployment
) -> None:
    typed = {
        "desired": "running",
        "is_unloaded": "on",
        "ends_now": "on",
        "external_model": "x",
        "name": "auto",
    }
    set_here = {"settings": '{"context": 2048}', "purposes": '["coding", "coding"]'}
    fields = {**set_here, "extra_args": "[]", **typed, **FORMSETS}
    answer = admin.post(f"/admin/deployments/deployment/{rows.pk}/change/", fields)
    assert answer.status_code == 302, answer.content.decode()[-2000:]
    row = Deployment.objects.get()
    assert row.settings == {"context": 2048} and row.purposes == ["coding"]
    assert row.generation == rows.generation + 1
    assert (row.desired, row.is_unloaded, row.ends_now) == ("stopped", False, False)
    assert (row.external_model, row.name) == ("", rows.name)


def test_actions_go_through_the_services(admin: Client, rows: Deployment) -> None:
    chosen = {"_selected_action": [rows.pk]}
    admin.post("/admin/deployments/deployment/", {"action": "start", **chosen})
    assert Deployment.objects.get().desired == "running"
    admin.post("/admin/deployments/deployment/", {"action": "stop", **chosen})
    assert Deployment.objects.get().desired == "stopped"
    Route.objects.all().delete()
    admin.post(
        "/admin/deployments/deployment/",
        {"action": "delete_selected", "post": "yes", **chosen},
    )
    assert Deployment.objects.get().is_deleting, (
        "the agent removes the row once the processes are gone"
    )


def test_an_engine_can_be_asked_again(admin: Client, engine: Engine) -> None:
    Engine.objects.update(flags=[], state="broken")
    admin.post(
        "/admin/deployments/engine/",
        {"action": "probe_again", "_selected_action": [engine.pk]},
    )
    found = Engine.objects.get()
    assert found.state == "ok" and "--metrics" in found.flags


@pytest.mark.parametrize(
    ("endpoint", "says"),
    [
        ("10.0.0.2:18999", ""),
        ("8.8.8.8:18999", "neither encrypted"),
        ("beta", "not address:port"),
    ],
)
def test_a_device_of_another_host_may_be_typed_in_by_its_private_address(
    admin: Client, host: Host, endpoint: str, says: str
) -> None:
    typed = {
        "host": host.pk,
        "name": "RPC9",
        "kind": "rpc",
        "endpoint": endpoint,
        "is_present": "on",
        "position": 200,
    }
    answer = admin.post("/admin/gpus/device/add/", typed)
    assert says in answer.content.decode()
    assert host.devices.filter(name="RPC9").exists() is (says == "")


@pytest.mark.parametrize(
    ("name", "taken"), [("fast-1", True), ("Fast", False), ("-fast", False)]
)
def test_a_name_is_one_that_a_rig_file_can_say(
    admin: Client, rows: Deployment, name: str, taken: bool
) -> None:
    answer = admin.post(
        "/admin/deployments/route/add/",
        {"name": name, "deployment": rows.pk, "description": ""},
    )
    assert ("Use lowercase letters" in answer.content.decode()) is not taken
    assert Route.objects.filter(name=name).exists() is taken
    parse(rig_text())


@pytest.mark.parametrize("name", ["auto", "new", "quick", "small"])
def test_a_route_takes_no_name_that_means_something_else(
    admin: Client, rows: Deployment, name: str
) -> None:
    answer = admin.post(
        "/admin/deployments/route/add/",
        {"name": name, "deployment": rows.pk, "description": ""},
    )
    assert "taken or has another meaning" in answer.content.decode()
    assert not Route.objects.filter(name=name).exists()


def test_no_route_leads_to_a_trial_which_ends_with_its_benchmark(
    admin: Client, rows: Deployment
) -> None:
    Deployment.objects.filter(pk=rows.pk).update(trial_of=1)
    answer = admin.post(
        "/admin/deployments/route/add/",
        {"name": "faster", "deployment": rows.pk, "description": ""},
    )
    assert "not one of the available choices" in answer.content.decode()
    assert not Route.objects.filter(name="faster").exists()
