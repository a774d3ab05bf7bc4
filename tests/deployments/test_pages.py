"""The pages of models and deployments: what each role sees and may do, with and without htmx."""

from __future__ import annotations

import html
import json
import re
import shlex
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.utils import timezone

from deployments.instances.demand import WaitingCounts
from deployments.models import (
    Deployment,
    Engine,
    Instance,
    LibraryFolder,
    Model,
    Transition,
)
from deployments.services.deployments import deployment_start, deployment_stop
from gpus.buckets import save_buckets
from gpus.models import Host
from gpus.rollup import Bucket
from tests.deployments.gguf_corpus import smollm2, write_with_package
from tests.helpers import squeezed

HTMX = {"HX-Request": "true"}
Make = Callable[..., Deployment]


@pytest.fixture
def agent(host: Host) -> Host:
    Host.objects.update(agent_seen_at=timezone.now())
    return host


def page(client: Client, path: str, **headers: str) -> str:
    answer = client.get(path, headers=headers)
    assert answer.status_code == 200, (path, answer.status_code)
    return squeezed(answer.content.decode())


# --- who may --------------------------------------------------------------------------------------
PAGES = (
    "/models/",
    "/models/{model}/",
    "/deployments/",
    "/deployments/small/",
    "/deployments/quick/",
)
OPERATOR_PAGES = ("/deployments/new/", "/deployments/small/change/")
OPERATOR_POSTS = (
    "/deployments/new/",
    "/deployments/small/change/",
    "/deployments/small/start/",
    "/deployments/small/stop/",
    "/deployments/small/delete/",
    "/models/{model}/deploy/",
)
MANAGER_POSTS = (
    "/models/scan/",
    "/models/folders/add/",
    "/models/folders/1/remove/",
    "/models/{model}/remove/",
)


@pytest.mark.parametrize("path", PAGES + OPERATOR_PAGES)
def test_no_page_without_log_in(
    deployment: Deployment, model: Model, anonymous: Client, path: str
) -> None:
    answer = anonymous.get(path.format(model=model.name))
    assert (answer.status_code, answer["Location"].split("?")[0]) == (302, "/login/")


@pytest.mark.parametrize("path", PAGES)
def test_a_viewer_sees_every_page(
    deployment: Deployment, model: Model, viewer: Client, path: str
) -> None:
    text = page(viewer, path.format(model=model.name))
    assert not re.search(
        r"<button[^>]*>(\s|<svg.*?</svg>)*(Deploy|Start|Stop|Delete|Scan|Remove)",
        text,
        re.S,
    )


@pytest.mark.parametrize("path", OPERATOR_POSTS + MANAGER_POSTS)
def test_a_viewer_may_do_nothing(
    deployment: Deployment, model: Model, viewer: Client, path: str
) -> None:
    before = list(Deployment.objects.values())
    assert viewer.post(path.format(model=model.name)).status_code == 403
    assert list(Deployment.objects.values()) == before


@pytest.mark.parametrize("path", MANAGER_POSTS)
def test_an_operator_runs_models_and_leaves_the_library_alone(
    deployment: Deployment, model: Model, operator: Client, path: str
) -> None:
    assert operator.post(path.format(model=model.name)).status_code == 403
    assert operator.get("/deployments/new/").status_code == 200


@pytest.mark.parametrize("path", OPERATOR_POSTS + MANAGER_POSTS)
def test_acting_needs_the_forms_token(
    deployment: Deployment, model: Model, admin_user: User, path: str
) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(admin_user, backend="django.contrib.auth.backends.ModelBackend")
    assert client.post(path.format(model=model.name)).status_code == 403


@pytest.mark.parametrize("path", OPERATOR_POSTS[2:] + MANAGER_POSTS)
def test_looking_changes_nothing(
    deployment: Deployment, model: Model, admin: Client, path: str
) -> None:
    assert admin.get(path.format(model=model.name)).status_code == 405


# --- models ---------------------------------------------------------------------------------------
def test_the_models_page_lists_searches_and_filters(
    admin: Client, model: Model
) -> None:
    Model.objects.create(
        name="other",
        path="/x/other.gguf",
        arch="qwen3",
        quant="Q8_0",
        state="broken",
        error="Bad.",
    )
    text = page(admin, "/models/")
    assert {"smollm2-135m-instruct-q4_1", "other"} <= set(
        re.findall(r'/models/([\w-]+)/"', text)
    )
    assert "135M" in text and "93.8 MiB" in text and "Bad." in text
    for query, shown, hidden in (
        ("q=other", "/models/other/", "/models/smollm2"),
        ("arch=llama", "/models/smollm2", "/models/other/"),
        ("quant=Q8_0", "/models/other/", "/models/smollm2"),
        ("state=broken", "/models/other/", "/models/smollm2"),
    ):
        text = page(admin, f"/models/?{query}", **HTMX)
        assert shown in text and hidden not in text and "<html" not in text
        assert f'hx-get="/models/?{query}"' in text, "a refresh keeps the search"
    assert "Nothing matches" in page(admin, "/models/?q=zzz")
    assert page(admin, "/models/?sort=size").index("smollm2") < page(
        admin, "/models/?sort=size"
    ).index("/models/other/")


def test_an_empty_library_says_what_to_do(admin: Client, host: Host) -> None:
    text = page(admin, "/models/")
    assert "No models yet" in text and "No engine is known" in text
    assert "No model can be deployed yet" in page(admin, "/deployments/quick/")
    assert "There is no model in the library either" in page(admin, "/deployments/")


def test_an_engine_on_which_nothing_ran_here_is_called_unverified_wherever_it_is_chosen(
    admin: Client, engine: Engine, deployment: Deployment
) -> None:
    pages = (
        "/models/",
        "/deployments/new/",
        "/plan/",
        f"/deployments/{deployment.name}/",
    )
    for path in pages:
        assert (
            "not verified on this machine" in admin.get(path).content.decode().lower()
        ), path
    Engine.objects.update(ran_at=timezone.now())
    for path in pages[1:]:
        assert (
            "not verified on this machine"
            not in admin.get(path).content.decode().lower()
        ), path
    text = admin.get("/models/").content.decode()
    assert "no model has run on it here" not in text
    assert (
        "not verified on this machine: ik_llama.cpp, vLLM, TabbyAPI (ExLlama)" in text
    )


def test_a_models_page_tells_its_facts_in_words(
    admin: Client, deployment: Deployment, model: Model
) -> None:
    text = page(admin, f"/models/{model.name}/")
    for fact in (
        "8,192 tokens",
        "GQA",
        "9, 3 for keys and values",
        "apache-2.0",
        "in the file",
        str(smollm2()),
    ):
        assert fact in text
    assert 'href="/deployments/small/"' in text
    assert admin.get("/models/nope/").status_code == 404


def test_a_model_that_is_used_is_not_removed(
    admin: Client, deployment: Deployment, model: Model
) -> None:
    answer = admin.post(f"/models/{model.name}/remove/")
    assert answer.status_code == 400 and "is used by small" in answer.content.decode()
    deployment.delete()
    assert admin.post(f"/models/{model.name}/remove/")["Location"] == "/models/"
    assert not Model.objects.exists() and smollm2().exists()


def test_a_folder_is_added_scanned_and_removed(
    admin: Client, host: Host, models_folder: Path
) -> None:
    write_with_package(models_folder / "a.gguf")
    assert (
        admin.post("/models/folders/add/", {"path": str(models_folder)}).status_code
        == 302
    )
    assert Model.objects.get().name == "a"
    folder = LibraryFolder.objects.get()
    assert admin.post(f"/models/folders/{folder.pk}/remove/").status_code == 302
    assert not Model.objects.exists() and not LibraryFolder.objects.exists()


def test_a_folder_that_will_not_do_is_refused_beside_the_field(
    admin: Client, host: Host
) -> None:
    text = admin.post("/models/folders/add/", {"path": "/etc"}).content.decode()
    assert "/etc is not a place for models" in text
    assert 'value="/etc"' in text, "nothing typed is lost"
    assert not LibraryFolder.objects.exists()


def test_whoever_may_manage_the_library_may_scan(
    viewer: Client, viewer_user: User, agent: Host
) -> None:
    viewer_user.user_permissions.add(Permission.objects.get(codename="manage_library"))
    answer = viewer.post("/models/scan/", headers=HTMX)
    assert answer.status_code == 204
    assert "Scanning" in json.loads(answer["HX-Trigger"])["toast"]["text"]


def test_a_scan_without_an_agent_says_what_to_do(admin: Client, host: Host) -> None:
    answer = admin.post("/models/scan/", headers=HTMX)
    assert answer["HX-Retarget"] == "#toasts"
    assert "No agent runs on testhost" in answer.content.decode()


# --- list -----------------------------------------------------------------------------------------
def test_the_list_shows_states_and_refreshes_itself(
    admin: Client, agent: Host, make_deployment: Make
) -> None:
    one, two = make_deployment("one"), make_deployment("two")
    deployment_start(deployment=two)
    text = page(admin, "/deployments/")
    assert re.search(r'data-state="stopped".*data-state="starting"', text, re.S)
    assert "deployments-changed from:body" in text and "every 2s" in text
    fragment = page(admin, "/deployments/", **HTMX)
    assert "<html" not in fragment and 'id="deployments-live"' in fragment
    assert f'action="/deployments/{one.name}/start/"' in fragment
    assert f'action="/deployments/{two.name}/stop/"' in fragment


def test_the_list_shows_what_each_does_now_and_looks_again(
    viewer: Client, agent: Host, make_deployment: Make
) -> None:
    busy, idle = make_deployment("busy"), make_deployment("idle")
    Instance.objects.create(
        host=agent, deployment=busy, role="model", state="ready", pid=1
    )
    figures = {"output_tps": 123.4, "requests": 3.0}
    start_s = int(time.time()) // 10 * 10 - 10
    buckets = [
        Bucket(f"deployment:{each.pk}", name, at_s, value, value, value, 1)
        for each in (busy, idle)
        for at_s in (start_s - 600, start_s)
        for name, value in figures.items()
    ]
    save_buckets(agent, buckets)
    text = page(viewer, "/deployments/")
    assert text.count("123") == 1 and 'data-label="Requests" >3<' in text
    assert "Independent" in text and "every 10s" in text


def test_pages_show_how_many_requests_wait_and_look_again(
    deployment: Deployment, agent: Host, viewer: Client
) -> None:
    paths = ("/deployments/", f"/deployments/{deployment.name}/")
    counts = WaitingCounts(settings.OMNI_HOME.demand)
    with closing(counts):
        for count, says in ((1, "1 request waits"), (3, "3 requests wait")):
            counts.write({deployment.pk: count})
            for path in paths:
                text = page(viewer, path)
                assert says in text and "every 2s" in text
    for path in paths:
        text = page(viewer, path)
        assert "wait" not in text.split("<main")[1] and "every 2s" not in text


def test_nothing_is_asked_for_again_while_nothing_is_on_its_way(
    admin: Client, agent: Host, deployment: Deployment
) -> None:
    assert "every 2s" not in page(admin, "/deployments/")
    assert "has not reported" not in page(admin, "/deployments/")


def test_a_silent_agent_is_said_on_the_pages(
    admin: Client, deployment: Deployment
) -> None:
    for path in ("/deployments/", "/deployments/small/"):
        assert "has not reported" in page(admin, path)


def test_the_list_is_drawn_with_few_queries(
    admin: Client,
    agent: Host,
    make_deployment: Make,
    django_assert_max_num_queries: Any,
) -> None:
    for number in range(12):
        make_deployment(f"d{number}")
    with django_assert_max_num_queries(14):
        page(admin, "/deployments/", **HTMX)


# --- one ------------------------------------------------------------------------------------------
def running(deployment: Deployment, **values: Any) -> Instance:
    row = Deployment.objects.get(pk=deployment.pk)
    base: dict[str, Any] = {
        "state": "ready",
        "pid": 4242,
        "port": 18111,
        "generation": row.generation,
    }
    base["argv"] = ["/bin/llama-server", "--port", "18111"]
    return Instance.objects.create(
        host=row.host, deployment=row, role="model", **(base | values)
    )


def test_a_page_shows_the_process_the_command_and_the_way_to_chat(
    admin: Client, agent: Host, deployment: Deployment
) -> None:
    deployment_start(deployment=deployment)
    instance = running(deployment, env={"GGML_RPC_NO_RDMA": "1"}, restarts=3)
    Transition.objects.create(
        instance=instance, old="loading", new="ready", reason="it answers", pid=4242
    )
    text = page(admin, "/deployments/small/")
    for shown in (
        "4242",
        "18111",
        "it answers",
        "GGML_RPC_NO_RDMA=1 /bin/llama-server --port 18111",
    ):
        assert shown in text
    assert 'action="/chat/new/"' in text and 'value="small"' in text
    assert f"deployment-{deployment.pk} from:body" in text and "every 2s" not in text
    assert 'data-log="/ws/deployments/small/log/model-0/"' in text


def test_what_does_not_run_shows_the_command_that_would(
    admin: Client, agent: Host, deployment: Deployment
) -> None:
    text = page(admin, "/deployments/small/")
    assert f"--host {settings.OMNI_HOME.sockets}/" in text and "--device none" in text
    assert "{socket}" not in text and "{port}" not in text
    assert "has not been started" in text
    assert 'action="/chat/new/"' not in text


def test_a_failure_shows_its_cause_the_telling_line_and_what_to_do(
    admin: Client, agent: Host, deployment: Deployment
) -> None:
    deployment_start(deployment=deployment)
    running(
        deployment,
        state="failed",
        pid=None,
        error="The file is damaged. Copy it again.",
        log_line="E invalid <magic>",
    )
    text = page(admin, "/deployments/small/", **HTMX)
    assert "The file is damaged. Copy it again." in text
    assert "E invalid &lt;magic&gt;" in text
    assert 'action="/deployments/small/start/"' in text, "it can be tried again"
    assert "The file is damaged" in page(admin, "/deployments/")


def test_what_cannot_be_planned_says_why_before_it_is_started(
    admin: Client, agent: Host, deployment: Deployment
) -> None:
    Engine.objects.update(state="missing", error="There is no file /gone.")
    text = page(admin, "/deployments/small/")
    assert (
        "could not be started as it is set" in text and "There is no file /gone" in text
    )


def test_a_page_left_open_on_a_deleted_deployment_leads_to_the_list(
    admin: Client, host: Host
) -> None:
    answer = admin.get("/deployments/gone/", headers=HTMX)
    assert (answer.status_code, answer["HX-Redirect"]) == (204, "/deployments/")
    assert "gone is deleted" in page(admin, "/deployments/")
    assert admin.get("/deployments/gone/").status_code == 404


# --- acting ---------------------------------------------------------------------------------------
def test_start_stop_and_delete_work_as_plain_forms(
    operator: Client, deployment: Deployment
) -> None:
    for action, lands, desired in (
        ("start", "/deployments/small/", "running"),
        ("stop", "/deployments/small/", "stopped"),
    ):
        assert operator.post(f"/deployments/small/{action}/")["Location"] == lands
        assert Deployment.objects.get().desired == desired
    assert operator.post("/deployments/small/delete/")["Location"] == "/deployments/"
    assert Deployment.objects.get().is_deleting


def test_with_htmx_nothing_is_swapped_and_the_fragments_are_told(
    operator: Client, deployment: Deployment
) -> None:
    answer = operator.post("/deployments/small/start/", headers=HTMX)
    assert (answer.status_code, answer.content) == (204, b"")
    assert set(json.loads(answer["HX-Trigger"])["acted"]["news"]) == {
        f"deployment-{deployment.pk}",
        "deployments-changed",
    }


def test_acting_on_what_is_not_there_is_a_404(operator: Client, host: Host) -> None:
    for action in ("start", "stop", "delete"):
        assert operator.post(f"/deployments/nope/{action}/").status_code == 404
    assert operator.post("/models/nope/deploy/").status_code == 404


def test_from_the_first_page_a_model_is_deployed_with_one_more_click(
    operator: Client, agent: Host, engine: Engine, model: Model
) -> None:
    text = page(operator, "/deployments/quick/")
    assert f'action="/models/{model.name}/deploy/"' in text
    answer = operator.post(f"/models/{model.name}/deploy/")
    assert answer["Location"] == f"/deployments/{model.name}/"
    assert Deployment.objects.get().desired == "running"
    text = page(operator, "/deployments/quick/")
    assert "Deploy" not in text and f'href="/deployments/{model.name}/"' in text
    deployment_stop(deployment=Deployment.objects.get())
    assert f'action="/deployments/{model.name}/start/"' in page(
        operator, "/deployments/quick/"
    )


def test_without_an_engine_a_quick_deployment_says_what_to_do(
    operator: Client, host: Host, model: Model
) -> None:
    answer = operator.post(f"/models/{model.name}/deploy/")
    assert answer.status_code == 400 and "OMNI_LLAMA_SERVER" in answer.content.decode()
    assert not Deployment.objects.exists()


def test_names_are_shown_as_text(admin: Client, host: Host) -> None:
    Model.objects.create(
        name="x", path="/x/<b>.gguf", title="<script>alert(1)</script>", arch='"><i>'
    )
    for path in ("/models/", "/models/x/"):
        text = page(admin, path)
        assert "<script>alert" not in text and '"><i>' not in text


# --- from programs --------------------------------------------------------------------------------
@pytest.mark.parametrize("path", ["/deployments/", "/deployments/small/"])
def test_the_gateways_address_stands_on_the_pages_with_a_request_to_copy(
    viewer: Client, deployment: Deployment, path: str
) -> None:
    text = html.unescape(page(viewer, path))
    example = re.search(r'id="gateway-example"[^>]*>(.*?)</pre>', text, re.S)
    assert example
    words = shlex.split(example[1].replace("\\\n", " "))
    assert words[:2] == ["curl", "http://testserver/v1/chat/completions"]
    assert json.loads(words[words.index("-d") + 1])["model"] == "small"
